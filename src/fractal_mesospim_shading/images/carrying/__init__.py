"""What an image holds besides its pyramid, copied or converted into the result."""
