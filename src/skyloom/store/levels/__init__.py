"""The resolutions of a store: images, cubes and spectra halved again and again, with their noise; rounded values."""
