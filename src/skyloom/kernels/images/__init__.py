"""Images: convolution, other grids, coarser levels, sums over regions, repairs."""
