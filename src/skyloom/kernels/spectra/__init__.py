"""Spectra and cubes along wavelength: other grids, coarser levels, bands."""
