"""Linear functionals of the spectra of a cube: the flux of a line with its variance, on plain arrays.

The weights of `skyloom.kernels.signal.weights` are applied to planes of a cube, channel by channel and in tiles of
spaxels, so that memory is read in the order in which it lies.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyloom.kernels.signal.weights import MEASURED, OUTSIDE, line_weights

__all__ = ["measure_functional"]

Array = NDArray[Any]
TILE = 256  # Spaxels per tile: their weights on 100 channels take 200 kB, which stays in the cache.


@njit(cache=True, nogil=True, error_model="numpy")
def _add_channel(
    weights: Array,
    values: Array,
    spread: Array,
    scale: float,
    white: bool,
    sums: Array,
    squares: Array,
    now: Array,
) -> None:  # pragma: no cover - compiled
    """Add ``w d`` to the sums and ``w^2 v`` to the squares; keep ``w s`` where lags will ask for it."""
    for p in range(values.size):
        # What lies under the mask is unspecified: it is chosen away, not multiplied by zero.
        w, value, v = weights[p], float(values[p]), scale * float(spread[p])
        used = w != 0.0
        sums[p] += w * value if used else 0.0
        v = w * w * v if used else 0.0
        squares[p] += v
        if not white:
            now[p] = sqrt(v) if w > 0.0 else -sqrt(v)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_alike(
    w: float, values: Array, spread: Array, scale: float, white: bool, sums: Array, squares: Array, now: Array
) -> None:  # pragma: no cover - compiled
    """The same where all spaxels have one weight, not zero, and none is masked."""
    factor = w * w * scale
    for p in range(values.size):
        sums[p] += w * values[p]
        squares[p] += factor * spread[p]
    if not white:
        root = w * sqrt(scale)
        for p in range(values.size):
            now[p] = root * sqrt(float(spread[p]))


@njit(cache=True, nogil=True, error_model="numpy")
def _apply(
    usual: Array,
    weights: Array,
    own: bool,
    data: Array,
    variance: Array,
    scale: Array,
    lags: Array,
    start: int,
    signal: Array,
    noise: Array,
    ring: Array,
) -> None:  # pragma: no cover - compiled
    """Accumulate ``sum w d`` and ``sum w_i w_j s_i s_j rho_ij`` over the channels of one tile of spaxels.

    ``lags[i, r + d]`` is the correlation of channel i with channel i + d; a ring keeps ``w s`` of the last r
    channels, which meet the present one. Without ``own`` weights all spaxels have the ``usual`` ones.
    """
    n, width = weights.shape
    radius = lags.shape[1] // 2
    depth = radius + 1
    sums, squares = np.zeros(width), np.zeros(width)
    ring[:, :width] = 0.0
    for i in range(n):
        values, spread = data[i, start : start + width], variance[i, start : start + width]
        now = ring[i % depth, :width]
        if own:
            _add_channel(weights[i], values, spread, scale[i], radius == 0, sums, squares, now)
        elif usual[i] != 0.0:
            _add_alike(usual[i], values, spread, scale[i], radius == 0, sums, squares, now)
        else:
            now[:] = 0.0
        for d in range(1, min(radius, i) + 1):
            rho = 2.0 * lags[i, radius - d]
            if rho != 0.0:
                earlier = ring[(i - d) % depth]
                for p in range(width):
                    squares[p] += rho * now[p] * earlier[p]
    for p in range(width):
        signal[start + p] = sums[p]
        noise[start + p] = squares[p]


@njit(cache=True, nogil=True, error_model="numpy")
def measure_functional(
    data: Array,
    variance: Array,
    mask: Array,
    opened: Array,
    scale: Array,
    lags: Array,
    edges: Array,
    common: Array,
    stretch: Array,
    sigma: Array,
    centres: Array,
    wanted: Array,
    owner: Array,
    line_windows: Array,
    side_windows: Array,
    matched: bool,
    degree: int,
    limits: Array,
    start: int,
    stop: int,
    signal: Array,
    noise: Array,
    coverage: Array,
    status: Array,
) -> None:  # pragma: no cover - compiled
    """Measure the lines in spaxels ``start`` to ``stop``: signal, its variance, share of the line seen, status.

    Parameters
    ----------
    data, variance : (n, m) arrays
        Channels and spaxels.
    mask : (n, m) bool array
    opened : (n,) bool array
        Channels that may be used at all.
    scale : (n,) array
        True over claimed variance.
    lags : (n, k) array
        Correlation of channel i with i + d at ``[i, k // 2 + d]``.
    stretch, sigma : (1,) and (1, k), or (m,) and (m, k) arrays
        One for all spaxels, or one each.
    signal, noise, coverage : (m,) arrays
        Filled; noise is a variance.
    status : (m,) int8 array
        Filled with the codes of `skyloom.kernels.signal.weights`.

    The other parameters are those of `skyloom.kernels.signal.weights.line_weights`.
    """
    n = data.shape[0]
    alike = stretch.size == 1
    shares = np.zeros((centres.size, n))
    usual, own, usable = np.zeros(n), np.zeros(n), np.zeros(n, np.bool_)
    usual_status, usual_coverage = OUTSIDE, 0.0
    if alike:
        usual_status, usual_coverage = line_weights(
            usual, opened, edges, common, stretch[0], sigma[0], centres, wanted, owner,
            line_windows, side_windows, matched, degree, limits, shares,
        )  # fmt: skip
    weights = np.zeros((n, TILE))
    ring = np.zeros((lags.shape[1] // 2 + 1, TILE))
    missing = np.zeros(TILE, np.int64)
    for first in range(start, stop, TILE):
        width = min(TILE, stop - first)
        missing[:] = 0
        for i in range(n):
            if opened[i] and (not alike or usual[i] != 0.0):
                for p in range(width):
                    missing[p] += mask[i, first + p]
        own_weights = bool(not alike or usual_status != MEASURED or missing[:width].any())
        for p in range(width if own_weights else 0):
            q = first + p
            if alike and (missing[p] == 0 or usual_status == OUTSIDE):
                weights[:, p] = usual
                status[q], coverage[q] = usual_status, usual_coverage
            else:
                for i in range(n):
                    usable[i] = opened[i] and not mask[i, q]
                k = 0 if alike else q
                status[q], coverage[q] = line_weights(
                    own, usable, edges, common, stretch[k], sigma[k], centres, wanted, owner,
                    line_windows, side_windows, matched, degree, limits, shares,
                )  # fmt: skip
                weights[:, p] = own
            if status[q] != MEASURED:
                weights[:, p] = 0.0
        if not own_weights:
            status[first : first + width] = usual_status
            coverage[first : first + width] = usual_coverage
        _apply(
            usual, weights[:, :width], own_weights, data, variance, scale, lags, first, signal, noise, ring
        )
