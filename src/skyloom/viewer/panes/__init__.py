"""The panes of the page: images, spectra, and what a store holds."""
