"""Room options."""
