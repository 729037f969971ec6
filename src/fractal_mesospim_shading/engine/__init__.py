"""Blocks of one job: what they are, where and when they run, their record on disk."""
