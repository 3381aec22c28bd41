"""Hubble deep fields: bands, observations, files."""
