"""Stellar continua from templates."""
