"""Integral-field cubes as MUSE, MaNGA and CALIFA see them."""
