"""Many images of one field to one PSF and one grid, masked, without sky, measured."""
