"""What is read around a block for its background, and what is done to its planes."""
