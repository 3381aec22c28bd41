"""A nearby spiral in Halpha, as Hubble and MUSE see it."""
