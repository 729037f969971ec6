"""One story for all kinds of jobs."""
