"""A Fractal server for tests: made from nothing, spoken to by its API, gone afterwards."""
