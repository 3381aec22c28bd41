"""Emission lines in spectra: profiles, fits, errors, intervals."""
