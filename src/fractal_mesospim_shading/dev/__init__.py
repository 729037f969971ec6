"""What the Fractal manifest is made from."""
