"""Frames and spectra of SDSS."""
