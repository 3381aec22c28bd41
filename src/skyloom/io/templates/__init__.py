"""Libraries of template spectra."""
