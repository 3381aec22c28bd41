"""Sums over regions of pixels and the variance of those sums when pixels are correlated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["pair_variances"]

Array = NDArray[Any]


@njit(cache=True, nogil=True)
def pair_variances(spread: Array, labels: Array, correlation: Array, n_regions: int) -> Array:
    """Return the variance of the sum over each region, from all pairs of its pixels.

    Parameters
    ----------
    spread : (ny, nx) float64 array
        Weight times standard deviation of each pixel; 0 where the pixel does not count.
    labels : (ny, nx) int32 array
        Region of each pixel; negative: none.
    correlation : (2r + 1, 2r + 1) float64 array
        Noise autocorrelation, symmetric through its centre.
    n_regions : int
        Labels run from 0 to n_regions - 1.

    Returns
    -------
    (n_regions,) float64 array
    """
    ny, nx = labels.shape
    radius = correlation.shape[0] // 2
    total = np.zeros(n_regions)
    for y in range(ny):
        for x in range(nx):
            region = labels[y, x]
            if region < 0 or spread[y, x] == 0.0:
                continue
            # Half of the lags: each pair is met once and counted twice.
            acc = 0.5 * correlation[radius, radius] * spread[y, x]
            for lag_x in range(1, min(radius, nx - 1 - x) + 1):
                if labels[y, x + lag_x] == region:
                    acc += correlation[radius, radius + lag_x] * spread[y, x + lag_x]
            for lag_y in range(1, min(radius, ny - 1 - y) + 1):
                for lag_x in range(max(-radius, -x), min(radius, nx - 1 - x) + 1):
                    if labels[y + lag_y, x + lag_x] == region:
                        acc += correlation[radius + lag_y, radius + lag_x] * spread[y + lag_y, x + lag_x]
            total[region] += 2.0 * acc * spread[y, x]
    return total
