"""Images of known truth, and the demonstration that uses them."""
