"""Frames and fibre spectra of SDSS."""
