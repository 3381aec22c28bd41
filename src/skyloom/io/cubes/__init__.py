"""Cubes of any instrument, and what comes with them."""
