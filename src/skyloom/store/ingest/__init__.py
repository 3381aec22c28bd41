"""Files into a store: found, placed on the sky, read, brought to all resolutions, written one task per part."""
