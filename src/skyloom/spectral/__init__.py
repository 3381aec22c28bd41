"""From cubes and spectra to rest frame, signal-to-noise maps, bins, spectra and lines; every function is pure."""
