"""A galaxy with known truth, observed by every instrument."""
