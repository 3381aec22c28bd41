"""Observations found by place, time and wavelength; which images cover a spectrum."""
