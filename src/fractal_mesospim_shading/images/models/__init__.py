"""Folders of models, and dark frames from files."""
