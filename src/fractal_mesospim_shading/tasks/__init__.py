"""Fractal tasks: how a wish arrives from a Fractal server."""
