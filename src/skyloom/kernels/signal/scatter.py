"""Level and scatter of spectra about a polynomial, and their maximum, on plain arrays.

Spaxels are handled in tiles that are copied so that one spectrum lies together in memory.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyloom.kernels.signal.weights import add_overlap, solve_positive

__all__ = ["measure_peak", "measure_scatter"]

Array = NDArray[Any]
TILE = 64


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_basis(basis: Array, edges: Array, low: float, high: float) -> None:  # pragma: no cover - compiled
    """Legendre polynomials (one per row) of the channel centres, scaled so that low to high is -1 to 1."""
    terms, n = basis.shape
    for i in range(n):
        x = (edges[i] + edges[i + 1] - low - high) / (high - low)
        basis[0, i] = 1.0
        if terms > 1:
            basis[1, i] = x
        for k in range(2, terms):
            basis[k, i] = ((2 * k - 1) * x * basis[k - 1, i] - (k - 1) * basis[k - 2, i]) / k


@njit(cache=True, nogil=True, error_model="numpy")
def _normal_equations(
    values: Array, weights: Array, basis: Array
) -> tuple[Array, Array, Array, float]:  # pragma: no cover - compiled
    """Inverse of ``B u B'``, ``B u d``, ``B u`` summed over channels, and the sum of the weights u."""
    terms, n = basis.shape
    normal, inverse = np.zeros((terms, terms)), np.zeros((terms, terms))
    right, mean = np.zeros(terms), np.zeros(terms)
    total = 0.0
    for i in range(n):
        if weights[i] == 0.0:
            continue
        total += weights[i]
        for k in range(terms):
            right[k] += weights[i] * basis[k, i] * values[i]
            mean[k] += weights[i] * basis[k, i]
            for m in range(terms):
                normal[k, m] += weights[i] * basis[k, i] * basis[m, i]
    for k in range(terms):
        column = np.zeros(terms)
        column[k] = 1.0
        solve_positive(normal.copy(), column)
        inverse[:, k] = column
    return inverse, right, mean, total


@njit(cache=True, nogil=True, error_model="numpy")
def _fit(
    values: Array, spread: Array, weights: Array, basis: Array, lags: Array
) -> tuple[float, float, float]:  # pragma: no cover - compiled
    """Weighted fit: mean of the fit, ``sum u r^2`` and what the errors ``spread`` and their lags expect it to be.

    With the weights u and ``h_jk = b_j M^-1 b_k`` the expectation is ``sum_jk C_jk (u_j delta_jk - u_j u_k h_jk)``.
    """
    terms, n = basis.shape
    inverse, right, mean, total = _normal_equations(values, weights, basis)
    solution = np.zeros(terms)
    level = 0.0
    for k in range(terms):
        for m in range(terms):
            solution[k] += inverse[k, m] * right[m]
        level += solution[k] * mean[k] / total
    radius = lags.shape[1] // 2
    squares, expected = 0.0, 0.0
    projected = np.zeros(terms)
    for i in range(n):
        if weights[i] == 0.0:
            continue
        model = 0.0
        for k in range(terms):
            model += solution[k] * basis[k, i]
            projected[k] = 0.0
            for m in range(terms):
                projected[k] += inverse[k, m] * basis[m, i]
        squares += weights[i] * (values[i] - model) ** 2
        expected += weights[i] * spread[i] ** 2
        for j in range(max(0, i - radius), min(n, i + radius + 1)):
            if weights[j] == 0.0:
                continue
            leverage = 0.0
            for k in range(terms):
                leverage += projected[k] * basis[k, j]
            rho = lags[i, radius + j - i]
            expected -= weights[i] * weights[j] * leverage * rho * spread[i] * spread[j]
    return level, squares, expected


@njit(cache=True, nogil=True, error_model="numpy")
def measure_scatter(
    data: Array,
    variance: Array,
    mask: Array,
    opened: Array,
    scale: Array,
    lags: Array,
    edges: Array,
    common: Array,
    stretch: Array,
    windows: Array,
    degree: int,
    least: float,
    start: int,
    stop: int,
    level: Array,
    squares: Array,
    expected: Array,
    count: Array,
) -> None:  # pragma: no cover - compiled
    """Fit a polynomial in windows of the spaxels ``start`` to ``stop``.

    Parameters
    ----------
    data, variance, mask, opened, scale, lags, edges, stretch
        As for `skyloom.kernels.signal.windows.measure_functional`.
    common : (n,) array
        A channel that lies in the windows with its full width has the weight ``1 / common``.
    windows : (s, 2) array
        Disjoint intervals of rest wavelength.
    degree : int
    least : float
        Least share of the windows that must be usable.
    level, squares, expected, count : (m,) arrays
        Filled: mean of the fit, ``sum u r^2``, what variance and lags expect it to be, and the number of channels
        (with fractions); count is 0 where too little is usable.
    """
    n = data.shape[0]
    values, variances, hidden = np.zeros((TILE, n)), np.zeros((TILE, n)), np.zeros((TILE, n), np.bool_)
    basis = np.zeros((degree + 1, n))
    overlap, weights, spread = np.zeros(n), np.zeros(n), np.zeros(n)
    for first in range(start, stop, TILE):
        width = min(TILE, stop - first)
        for i in range(n):
            for p in range(width):
                values[p, i] = data[i, first + p]
                variances[p, i] = variance[i, first + p]
                hidden[p, i] = mask[i, first + p]
        for p in range(width):
            q = first + p
            factor = stretch[0 if stretch.size == 1 else q]
            count[q] = level[q] = squares[q] = expected[q] = 0.0
            low, high = windows[0, 0] * factor, windows[-1, 1] * factor
            if not high > low:
                continue
            _fill_basis(basis, edges, low, high)
            overlap[:] = 0.0
            for k in range(windows.shape[0]):
                add_overlap(overlap, edges, windows[k, 0] * factor, windows[k, 1] * factor)
            sought, found, channels, full = 0.0, 0.0, 0.0, 0
            for k in range(windows.shape[0]):
                sought += (windows[k, 1] - windows[k, 0]) * factor
            for i in range(n):
                weights[i] = 0.0
                if overlap[i] > 0.0 and opened[i] and not hidden[p, i]:
                    share = overlap[i] / (edges[i + 1] - edges[i])
                    found += overlap[i]
                    channels += share
                    full += 1
                    weights[i] = share / common[i]
                    spread[i] = sqrt(scale[i] * variances[p, i])
            if found < least * sought * (1.0 - 1e-9) or full < degree + 3:
                continue
            level[q], squares[q], expected[q] = _fit(values[p], spread, weights, basis, lags)
            count[q] = channels


@njit(cache=True, nogil=True, error_model="numpy")
def measure_peak(
    data: Array,
    mask: Array,
    opened: Array,
    centre: Array,
    half: int,
    inner: int,
    outer: int,
    limits: Array,
    start: int,
    stop: int,
    signal: Array,
    noise: Array,
    count: Array,
) -> None:  # pragma: no cover - compiled
    """Highest channel near a line minus the mean of the channels beside it, and their standard deviation.

    Parameters
    ----------
    data : (n, m) array
    mask : (n, m) bool array
    opened : (n,) bool array
    centre : (1,) or (m,) int array
        Channel of the line; negative: not known.
    half, inner, outer : int
        The maximum is taken within ``half`` channels, the continuum from ``inner`` to ``outer`` channels away.
    limits : (2,) array
        Least share of the window, and of the continuum, that must be usable.
    signal, noise, count : (m,) arrays
        Filled; count is the number of continuum channels, 0 where the spaxel cannot be measured.
    """
    n = data.shape[0]
    for q in range(start, stop):
        c = centre[0 if centre.size == 1 else q]
        signal[q] = noise[q] = count[q] = 0.0
        if c - half < 0 or c + half >= n:
            continue
        highest, seen, total, sides = -np.inf, 0, 0.0, 0
        for i in range(max(0, c - outer), min(n, c + outer + 1)):
            if not opened[i] or mask[i, q]:
                continue
            away = abs(i - c)
            if away <= half:
                seen += 1
                highest = max(highest, data[i, q])
            if away >= inner:
                sides += 1
                total += data[i, q]
        if sides < 3 or seen < limits[0] * (2 * half + 1) or sides < limits[1] * 2 * (outer - inner + 1):
            continue
        mean, squares = total / sides, 0.0
        for i in range(max(0, c - outer), min(n, c + outer + 1)):
            if abs(i - c) >= inner and opened[i] and not mask[i, q]:
                squares += (data[i, q] - mean) ** 2
        if squares > 0.0:
            signal[q], noise[q], count[q] = highest - mean, sqrt(squares / (sides - 1)), sides
