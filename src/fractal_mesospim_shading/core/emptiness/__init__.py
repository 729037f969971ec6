"""Which planes hold medium and nothing else, decided without knowing the camera offset."""
