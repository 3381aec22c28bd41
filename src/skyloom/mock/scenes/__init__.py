"""What is on the sky: galaxies, nebulae and stars with spectra, and their exact images."""
