"""Signal and noise of a line in every spaxel of a cube."""
