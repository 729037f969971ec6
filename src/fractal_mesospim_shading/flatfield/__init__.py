"""From planes of an image to its models, and from models to corrected pixels."""
