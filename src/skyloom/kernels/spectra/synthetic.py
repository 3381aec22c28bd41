"""Weighted sums over channels, of consecutive slabs of a cube, on plain arrays.

Pixels are independent of each other: threads take ranges of them.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
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
    total, share, lever, error = (
        sums[0, first:last],
        sums[1, first:last],
        sums[2, first:last],
        sums[3, first:last],
    )
    spread, near = np.empty(last - first), np.empty(last - first)
    for i in range(data.shape[0]):
        weight, part = weights[i], parts[i]
        place = (number + i) % max(r, 1)
        if weight == 0.0 and part < 0:
            if r > 0:
                recent[place, first:last] = 0.0
            continue
        values, variances, masked = data[i, first:last], variance[i, first:last], mask[i, first:last]
        # Short loops without branches, which processors run several pixels at a time.
        moment = weight * distances[i]
        for p in range(last - first):
            good = 0.0 if masked[p] else 1.0
            share[p] += weight * good
            lever[p] += moment * good
        for p in range(last - first):
            total[p] += 0.0 if masked[p] else weight * values[p]
            spread[p] = 0.0 if masked[p] else weight * sqrt(np.float64(variances[p]))
            near[p] = spread[p]
        for d in range(r):
            other, pair = recent[(number + i - 1 - d) % r, first:last], 2.0 * pairs[i, d]
            for p in range(last - first):
                near[p] += pair * other[p]
        for p in range(last - first):
            error[p] += spread[p] * near[p]
        if r > 0:
            recent[place, first:last] = spread
        if part >= 0:
            _add_window(windows[part], values, variances, masked, weight, distances[i], first)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_window(
    window: Array,
    values: Array,
    variances: Array,
    masked: Array,
    weight: float,
    distance: float,
    first: int,
) -> None:  # pragma: no cover - compiled
    """Add a channel to the sums of its window."""
    last = first + values.size
    level, count, error = window[0, first:last], window[1, first:last], window[2, first:last]
    place, shared = window[3, first:last], window[4, first:last]
    for p in range(values.size):
        good = 0.0 if masked[p] else 1.0
        count[p] += good
        place[p] += distance * good
    for p in range(values.size):
        own = 0.0 if masked[p] else np.float64(variances[p])
        level[p] += 0.0 if masked[p] else np.float64(values[p])
        error[p] += own
        shared[p] += weight * own
