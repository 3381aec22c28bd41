"""PSFs measured, matched, fitted and carried through resampling; convolution."""
