"""What neighbouring tiles show twice: residual, gains, a better flat-field."""
