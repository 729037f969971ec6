"""Room flatfield."""
