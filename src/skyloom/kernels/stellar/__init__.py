"""Stellar continua: templates, the fit, its errors."""
