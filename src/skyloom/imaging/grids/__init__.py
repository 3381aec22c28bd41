"""Images on other grids: reprojected, averaged, registered; the areas of pixels."""
