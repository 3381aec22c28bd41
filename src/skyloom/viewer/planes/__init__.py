"""Where planes of pixels come from: images and maps in FITS files, channels of cubes, levels of a store."""
