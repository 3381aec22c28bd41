"""Pixels put together, and the spectra of what is put together."""
