"""Spectra and cubes through filters."""
