"""Room carrying."""
