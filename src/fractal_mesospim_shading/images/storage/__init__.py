"""Addresses, stores and plain files, local or remote."""
