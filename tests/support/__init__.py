"""Acquisitions of known truth, for tests and benchmarks."""
