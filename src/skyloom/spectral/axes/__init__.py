"""Wavelengths: grids, resampling, rest frame, dust along them."""
