"""Room local_background."""
