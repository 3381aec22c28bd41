"""Weights of a linear functional of spectra: the flux of a line minus a local continuum, on plain arrays.

The signal of a spaxel is ``sum_i w_i d_i``. This module makes the weights w of a spaxel from windows of wavelength
(with fractions of channels at their edges) or from the profile of the line, without channels that are masked;
`skyloom.kernels.signal.windows` applies them.
"""

from __future__ import annotations

from math import erf, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "FEW_CONTINUUM",
    "MEASURED",
    "OUTSIDE",
    "UNSEEN_LINE",
    "add_overlap",
    "first_channel",
    "line_weights",
    "solve_positive",
]

Array = NDArray[Any]

# What became of a spaxel.
MEASURED, OUTSIDE, UNSEEN_LINE, FEW_CONTINUUM = 0, 1, 2, 3
REACH = 5.0  # Profiles are followed to this many sigma; 6e-7 of a Gaussian lies beyond.


@njit(cache=True, nogil=True, error_model="numpy")
def first_channel(edges: Array, wave: float) -> int:  # pragma: no cover - compiled
    """Channel that holds a wavelength: 0 below the axis, their number above it."""
    low, high = 0, edges.size - 1
    while low < high:
        middle = (low + high) // 2
        if edges[middle + 1] <= wave:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, error_model="numpy")
def add_overlap(out: Array, edges: Array, low: float, high: float) -> None:  # pragma: no cover - compiled
    """Add the length that each channel shares with the interval from ``low`` to ``high``."""
    n = edges.size - 1
    i = first_channel(edges, low)
    while i < n and edges[i] < high:
        shared = min(high, edges[i + 1]) - max(low, edges[i])
        if shared > 0:
            out[i] += shared
        i += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_shares(
    shares: Array, edges: Array, centre: float, sigma: float
) -> None:  # pragma: no cover - compiled
    """Share of a Gaussian that falls into each channel."""
    shares[:] = 0.0
    n = edges.size - 1
    scale = 1.0 / (sqrt(2.0) * sigma)
    i = first_channel(edges, centre - REACH * sigma)
    if i >= n:
        return
    before = erf((edges[i] - centre) * scale)
    while i < n and edges[i] < centre + REACH * sigma:
        after = erf((edges[i + 1] - centre) * scale)
        shares[i] = 0.5 * (after - before)
        before = after
        i += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _tie(shares: Array, owner: Array) -> None:  # pragma: no cover - compiled
    """Make lines that share an amplitude one profile of unit flux; the others of them become empty."""
    for k in range(owner.size):
        if owner[k] != k:
            shares[owner[k]] += shares[k]
            shares[k] = 0.0
    for k in range(owner.size):
        members = 0
        for m in range(owner.size):
            members += owner[m] == k
        if members > 1:
            shares[k] /= members


@njit(cache=True, nogil=True, error_model="numpy")
def solve_positive(matrix: Array, vector: Array) -> None:  # pragma: no cover - compiled
    """Solve a small positive symmetric system in place; unknowns without any information become 0."""
    n = vector.size
    for k in range(n):
        if matrix[k, k] <= 0.0:
            matrix[k, :] = 0.0
            matrix[:, k] = 0.0
            matrix[k, k] = 1.0
            vector[k] = 0.0
    for k in range(n):
        for i in range(k + 1, n):
            factor = matrix[i, k] / matrix[k, k]
            for j in range(k, n):
                matrix[i, j] -= factor * matrix[k, j]
            vector[i] -= factor * vector[k]
    for k in range(n - 1, -1, -1):
        for j in range(k + 1, n):
            vector[k] -= matrix[k, j] * vector[j]
        vector[k] /= matrix[k, k]


@njit(cache=True, nogil=True, error_model="numpy")
def _profile_weights(
    line: Array, usable: Array, edges: Array, common: Array, shares: Array, wanted: Array
) -> float:  # pragma: no cover - compiled
    """Weights that give the summed flux of the wanted lines, and 0 for the others; return the share of it in sight.

    With profiles P_k and diagonal variances c the amplitudes solve ``A f = b``, ``A_kl = sum P_k P_l / c`` and
    ``b_k = sum P_k d / c``; hence the weights ``sum_k a_k P_k / c`` with ``A a = wanted``.
    """
    n_lines, n = shares.shape
    matrix = np.zeros((n_lines, n_lines))
    solution = wanted.copy()
    seen, total = 0.0, 0.0
    for k in range(n_lines):
        total += wanted[k]
    for i in range(n):
        if not usable[i]:
            continue
        width = edges[i + 1] - edges[i]
        for k in range(n_lines):
            if shares[k, i] == 0.0:
                continue
            seen += wanted[k] * shares[k, i]
            for m in range(n_lines):
                matrix[k, m] += shares[k, i] * shares[m, i] / (common[i] * width * width)
    solve_positive(matrix, solution)
    for i in range(n):
        line[i] = 0.0
        if usable[i]:
            for k in range(n_lines):
                line[i] += solution[k] * shares[k, i] / (common[i] * (edges[i + 1] - edges[i]))
    return seen / total


@njit(cache=True, nogil=True, error_model="numpy")
def _window_weights(
    line: Array, usable: Array, edges: Array, stretch: float, windows: Array, shares: Array, wanted: Array
) -> float:  # pragma: no cover - compiled
    """Length of each channel inside the windows; return the share of the expected line light that is in sight.

    Where channels are missing the others stand in for them, in proportion to where the light is expected.
    """
    line[:] = 0.0
    for k in range(windows.shape[0]):
        add_overlap(line, edges, windows[k, 0] * stretch, windows[k, 1] * stretch)
    seen, total = 0.0, 0.0
    for i in range(line.size):
        if line[i] == 0.0:
            continue
        expected = 0.0
        for k in range(wanted.size):
            expected += wanted[k] * shares[k, i]
        expected *= line[i] / (edges[i + 1] - edges[i])
        total += expected
        if usable[i]:
            seen += expected
        else:
            line[i] = 0.0
    if seen <= 0.0:
        return 0.0
    coverage = seen / total
    for i in range(line.size):
        line[i] /= coverage
    return coverage


@njit(cache=True, nogil=True, error_model="numpy")
def _subtract_continuum(
    line: Array,
    usable: Array,
    edges: Array,
    common: Array,
    stretch: float,
    windows: Array,
    reference: float,
    degree: int,
    least: float,
) -> bool:  # pragma: no cover - compiled
    """Turn weights of the line into those of the line minus a weighted mean or straight line through the sides.

    Returns False when less than the share ``least`` of the side windows is usable; of a straight line both sides
    must have it, because an extrapolated continuum is a guess.
    """
    n = line.size
    side = np.zeros(n)
    sought = np.zeros(2)
    for k in range(windows.shape[0]):
        low, high = windows[k, 0] * stretch, windows[k, 1] * stretch
        add_overlap(side, edges, low, high)
        sought[0 if low + high < 2.0 * reference else 1] += high - low
    found = np.zeros(2)
    unit = edges[n] - edges[0]
    a_0 = a_1 = s_0 = s_1 = s_2 = 0.0
    for i in range(n):
        middle = 0.5 * (edges[i] + edges[i + 1])
        x = (middle - reference) / unit
        a_0 += line[i]
        a_1 += line[i] * x
        if not usable[i]:
            side[i] = 0.0
        if side[i] > 0.0:
            found[0 if middle < reference else 1] += side[i]
            side[i] /= common[i] * (edges[i + 1] - edges[i])
            s_0 += side[i]
            s_1 += side[i] * x
            s_2 += side[i] * x * x
    whole = sought[0] + sought[1]
    if s_0 <= 0.0 or found[0] + found[1] < least * whole * (1.0 - 1e-9):
        return False
    alpha, beta = a_0 / s_0, 0.0
    if degree > 0:
        for k in range(2):
            # A channel that straddles the border of a window may be counted on the other side: a small loss.
            if sought[k] > 0.0 and found[k] < least * sought[k] * (1.0 - 1e-9):
                return False
        determinant = s_0 * s_2 - s_1 * s_1
        if determinant <= 1e-12 * s_0 * s_0:
            return False
        alpha = (a_0 * s_2 - a_1 * s_1) / determinant
        beta = (a_1 * s_0 - a_0 * s_1) / determinant
    for i in range(n):
        if side[i] > 0.0:
            x = (0.5 * (edges[i] + edges[i + 1]) - reference) / unit
            line[i] -= side[i] * (alpha + beta * x)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def line_weights(
    weights: Array,
    usable: Array,
    edges: Array,
    common: Array,
    stretch: float,
    sigma: Array,
    centres: Array,
    wanted: Array,
    owner: Array,
    line_windows: Array,
    side_windows: Array,
    matched: bool,
    degree: int,
    limits: Array,
    shares: Array,
) -> tuple[int, float]:  # pragma: no cover - compiled
    """Fill the weights of one spaxel, in A; return what became of it and the share of the line in sight.

    Parameters
    ----------
    weights : (n,) array
        Overwritten; 0 where a channel is not used.
    usable : (n,) bool array
    edges : (n + 1,) array
        Borders of the channels, A.
    common : (n,) array
        Variances that serve as weights, the same for all spaxels.
    stretch : float
        Observed over rest wavelength.
    sigma : (k,) array
        Standard deviations of the lines as observed, A.
    centres, wanted : (k,) arrays
        Rest wavelengths; 1 for lines whose flux is asked for, 0 for neighbours that must not leak into it.
    owner : (k,) int array
        Line whose amplitude each line shares: its own index, or that of an earlier line with the same flux.
    line_windows, side_windows : (m, 2) arrays
        Disjoint intervals of rest wavelength.
    matched : bool
        Weights by the profile of the line; else the plain sum over the windows.
    degree : int
        Of the continuum: 0 or 1.
    limits : (2,) array
        Least share of the line, and of the continuum windows, that must be usable.
    shares : (k, n) array
        Work space.
    """
    n = edges.size - 1
    weights[:] = 0.0
    low, high = line_windows[0, 0] * stretch, line_windows[-1, 1] * stretch
    if not (low >= edges[0] and high <= edges[n]):
        return OUTSIDE, 0.0
    for k in range(centres.size):
        _fill_shares(shares[k], edges, centres[k] * stretch, sigma[k])
    _tie(shares, owner)
    if matched:
        coverage = _profile_weights(weights, usable, edges, common, shares, wanted)
    else:
        coverage = _window_weights(weights, usable, edges, stretch, line_windows, shares, wanted)
    # The wings beyond the reach of the profile are no loss.
    if not coverage >= limits[0] * (1.0 - 1e-5):
        return UNSEEN_LINE, coverage
    reference = 0.5 * (low + high)
    if not _subtract_continuum(
        weights, usable, edges, common, stretch, side_windows, reference, degree, limits[1]
    ):
        return FEW_CONTINUUM, coverage
    return MEASURED, coverage
