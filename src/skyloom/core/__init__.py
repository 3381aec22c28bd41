"""What flows through Skyloom: images, cubes, spectra, labels, PSFs, noise and provenance."""
