"""Pixels put into bins and regions, and the spectra of these."""
