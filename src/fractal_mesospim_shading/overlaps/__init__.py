"""Which planes of which pairs of tiles are compared, and reading them."""
