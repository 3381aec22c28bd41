"""Loops on plain arrays, compiled by numba. Each has a naive twin in ``tests/oracles``."""
