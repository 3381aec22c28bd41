"""The sky under an image, and the sources in front of it."""
