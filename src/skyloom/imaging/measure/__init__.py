"""Numbers from images: fluxes of regions, comparisons, spectra of structure."""
