"""What a person sees after a correction: figures and a page."""
