"""One pass through data and variance of a cube: a factor per channel, and the test that every usable voxel stays so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["scale_channels"]

Array = NDArray[Any]
TILE = 1024  # Voxels scaled, tested and written while they are in the first-level cache.


@njit(cache=True, nogil=True, error_model="numpy")
def scale_channels(
    data: Array,
    variance: Array,
    mask: NDArray[np.bool_],
    factor: NDArray[np.float64],
    out_data: Array,
    out_variance: Array,
) -> int:  # pragma: no cover - compiled
    """Write ``data * factor`` and ``variance * factor**2``; the results may be written over the inputs.

    Parameters
    ----------
    data, variance : (n_wave, n) float arrays
    mask : (n_wave, n) bool array
    factor : (n_wave,) float64 array
    out_data, out_variance : (n_wave, n) float arrays
        Of the types of ``data`` and ``variance``; they may be these same arrays.

    Returns
    -------
    int
        Voxels without a mask whose result is not finite, or whose variance is not positive and finite.
    """
    n_wave, n = data.shape
    # The tile stands between input and output: the compiler sees no overlap and uses whole vectors for both uses.
    values, errors = np.empty(TILE, data.dtype), np.empty(TILE, variance.dtype)
    n_bad = 0
    for channel in range(n_wave):
        first = data.dtype.type(factor[channel])
        second = variance.dtype.type(factor[channel] * factor[channel])
        for start in range(0, n, TILE):
            stop = min(start + TILE, n)
            source, spread = data[channel, start:stop], variance[channel, start:stop]
            hidden = mask[channel, start:stop]
            for i in range(stop - start):
                values[i] = source[i] * first
                errors[i] = spread[i] * second
            for i in range(stop - start):
                usable = (abs(values[i]) < np.inf) & (errors[i] > 0) & (errors[i] < np.inf)
                n_bad += (not usable) & (not hidden[i])
            target, width = out_data[channel, start:stop], out_variance[channel, start:stop]
            for i in range(stop - start):
                target[i] = values[i]
                width[i] = errors[i]
    return n_bad
