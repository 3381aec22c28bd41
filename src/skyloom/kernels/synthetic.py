"""Weighted sums over channels, of consecutive slabs of a cube, on plain arrays.

Pixels are independent of each other: threads take ranges of them.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from numba import njit
from numpy.typing import NDArray

__all__ = ["add_channels"]

Array = NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy")
def add_channels(
    data: Array,
    variance: Array,
    mask: Array,
    number: int,
    weights: Array,
    distances: Array,
    parts: Array,
    pairs: Array,
    recent: Array,
    sums: Array,
    windows: Array,
    first: int,
    last: int,
) -> None:  # pragma: no cover - compiled
    """Add a slab to the sums of pixels ``first`` to ``last - 1``.

    Parameters
    ----------
    data, variance : (n, m) arrays
    mask : (n, m) bool array
    number : int
        Of the first channel of the slab; slabs follow each other without gaps.
    weights, distances : (n,) arrays
        Weight of each channel, and its distance from a reference wavelength.
    parts : (n,) int array
        Which colour window each channel belongs to; -1: none.
    pairs : (n, r) array
        ``pairs[i, d]``: correlation of channel i with channel i - 1 - d.
    recent : (r, m) array
        Weighted standard deviations of the last r channels, in a ring; zeros at the start.
    sums : (4, m) array
        Added to: w d, w, w distance, and the variance of the first.
    windows : (k, 5, m) array
        Added to, without weights: d, 1, v, distance; and w v.
    """
    r = recent.shape[0]
    for i in range(data.shape[0]):
        weight, part, distance = weights[i], parts[i], distances[i]
        place = (number + i) % max(r, 1)
        if weight == 0.0 and part < 0:
            if r > 0:
                recent[place, first:last] = 0.0
            continue
        for p in range(first, last):
            spread = 0.0
            if not mask[i, p]:
                value, error = float(data[i, p]), float(variance[i, p])
                spread = weight * sqrt(error)
                near = spread
                for d in range(r):
                    near += 2.0 * pairs[i, d] * recent[(number + i - 1 - d) % r, p]
                sums[0, p] += weight * value
                sums[1, p] += weight
                sums[2, p] += weight * distance
                sums[3, p] += spread * near
                if part >= 0:
                    windows[part, 0, p] += value
                    windows[part, 1, p] += 1.0
                    windows[part, 2, p] += error
                    windows[part, 3, p] += distance
                    windows[part, 4, p] += weight * error
            if r > 0:
                recent[place, p] = spread
