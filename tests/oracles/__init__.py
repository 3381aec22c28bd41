"""Naive twins of what must be fast: slow, plain, and hard to get wrong."""
