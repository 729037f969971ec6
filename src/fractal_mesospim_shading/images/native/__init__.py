"""Room native."""
