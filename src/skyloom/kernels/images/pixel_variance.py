"""Exact variance of single resampled pixels, at the sub-pixel phase that each of them happens to have.

Var = sum_ab w_a w_b rho(a - b) sqrt(v_a v_b) over the stencil. It oscillates from pixel to pixel (bilinear:
between 0.25 and 1 of the input), so it serves single pixels only: sums and further steps use the
phase-averaged plane.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyloom.kernels.images.overlap import cover_pixel, extent, load_corners
from skyloom.kernels.images.resample import fill_row, fill_weights

__all__ = ["pixel_variance"]

Float = NDArray[np.float64]


@njit(cache=True, nogil=True, error_model="numpy")
def _quadratic_form(terms: Float, rows: int, columns: int, rho: Float) -> float:
    """Sum terms_a terms_b rho(a - b) over all pairs; ``rho`` is symmetric, so half of its lags are enough."""
    radius_y, radius_x = rho.shape[0] // 2, rho.shape[1] // 2
    total = 0.0
    for lag_y in range(min(radius_y, rows - 1) + 1):
        for lag_x in range(-min(radius_x, columns - 1), min(radius_x, columns - 1) + 1):
            if lag_y == 0 and lag_x < 0:
                continue
            products = 0.0
            for j in range(rows - lag_y):
                for i in range(max(0, -lag_x), min(columns, columns - lag_x)):
                    products += terms[j, i] * terms[j + lag_y, i + lag_x]
            twice = 1.0 if lag_y == 0 and lag_x == 0 else 2.0
            total += twice * rho[radius_y + lag_y, radius_x + lag_x] * products
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _stencil_pixel(
    terms: Float, x: float, y: float, table: Float, weights: Float, ny: int, nx: int
) -> tuple[int, int, int, int]:
    """Write the weights of a separable stencil that may overhang the image where they vanish."""
    taps = table.shape[2]
    ix, iy = int(math.floor(x)), int(math.floor(y))
    fill_weights(table, x - ix, weights[0])
    fill_weights(table, y - iy, weights[1])
    left, top = max(ix - taps // 2 + 1, 0), max(iy - taps // 2 + 1, 0)
    right, bottom = min(ix + taps // 2 + 1, nx), min(iy + taps // 2 + 1, ny)
    for j in range(top, bottom):
        for i in range(left, right):
            terms[j - top, i - left] = weights[1, j - iy + taps // 2 - 1] * weights[0, i - ix + taps // 2 - 1]
    return top, left, bottom - top, right - left


@njit(cache=True, nogil=True, error_model="numpy")
def _weigh(
    terms: Float, rows: int, columns: int, differences: bool, mask: Any, deviation: Float, top: int, left: int
) -> tuple[float, float]:
    """Multiply weights by deviations, masked pixels out; return the sum of the used and of all weights."""
    used = total = 0.0
    for j in range(rows):
        running = 0.0
        for k in range(columns):
            running = running + terms[j, k] if differences else terms[j, k]
            total += running
            if mask[top + j, left + k]:
                terms[j, k] = 0.0
            else:
                used += running
                terms[j, k] = running * deviation[top + j, left + k]
    return used, total


@njit(cache=True, nogil=True, error_model="numpy")
def pixel_variance(
    deviation: Float,
    mask: Any,
    rho: Float,
    table: Float,
    coefficients: Float,
    grid: Float,
    dense: Float,
    window: Any,
    per_pixel: bool,
    skip: Any,
    out: Float,
) -> None:
    """Fill ``out`` with exact variances.

    Parameters
    ----------
    deviation : (ny, nx) array
        Square root of the variance; unspecified where masked.
    mask : (ny, nx) bool array
    rho : (odd, odd) array
        Autocorrelation of the noise.
    table : array of `kernel_table`, or empty
        Empty: exact overlap; then the map is that of the corners.
    coefficients, grid, dense, window, per_pixel
        See `skyloom.kernels.images.resample`.
    skip : bool array of the target's shape
        Masked results, not computed.
    out : float64 array of the target's shape
    """
    ny, nx = mask.shape
    taps = table.shape[2]
    shift = 0.5 if taps == 0 else 0.0
    n = window[3] - window[2] + (1 if taps == 0 else 0)
    x_row, y_row, areas = np.empty((2, n)), np.empty((2, n)), np.ones(n)
    weights, corners = np.empty((2, max(taps, 1))), np.empty((2, 4))
    terms = np.zeros((8, 8))
    for row in range(window[0], window[1] + (1 if taps == 0 else 0)):
        new, old = (row - window[0]) % 2, (row - window[0] + 1) % 2
        place, x_first = row - window[0], window[2] - shift
        fill_row(coefficients, grid, dense, 0, place, row - shift, x_first, window[2], x_row[new])
        fill_row(coefficients, grid, dense, 1, place, row - shift, x_first, window[2], y_row[new])
        line = row
        if taps == 0:
            x_row[new] += 0.5
            y_row[new] += 0.5
            if row == window[0]:
                continue
            line = row - 1
            side = extent(x_row[old], y_row[old], x_row[new], y_row[new])
            if side > terms.shape[0]:
                terms = np.zeros((side, side))
        elif per_pixel:
            fill_row(coefficients, grid, dense, 2, place, float(row), x_first, window[2], areas)
        for i in range(window[3] - window[2]):
            column = window[2] + i
            if skip[line, column]:
                continue
            if taps == 0:
                load_corners(corners, x_row[old], y_row[old], x_row[new], y_row[new], i)
                _, top, left, rows, columns = cover_pixel(terms, corners, ny, nx)
            else:
                top, left, rows, columns = _stencil_pixel(
                    terms, x_row[new, i], y_row[new, i], table, weights, ny, nx
                )
            used, total = _weigh(terms, rows, columns, taps == 0, mask, deviation, top, left)
            area = areas[i]
            if taps == 0:
                area = abs(total) if per_pixel else 1.0
            out[line, column] = _quadratic_form(terms, rows, columns, rho) * (area / used) ** 2
            terms[: rows + 1, : columns + 1] = 0.0
