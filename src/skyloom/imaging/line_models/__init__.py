"""A line map at the resolution of sharper images."""
