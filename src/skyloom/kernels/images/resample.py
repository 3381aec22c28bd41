"""Resampling of planes onto another pixel grid: one fused pass over data, variance, mask and flags.

Positions are in source pixels, 0 in the centre of the first one. They come from a piecewise bicubic map
(`coefficients`, `grid`: see `skyloom.imaging.grids.pixel_map`) that is evaluated row by row into buffers that fit
the cache. Values are stored in the type of the input and accumulated in float64.

Two operations share the conventions below: `interpolate` (separable stencils: bilinear, Lanczos) and
`overlap` (exact areas; in `skyloom.kernels.images.overlap`).

=============
========================================================================================================
coefficients   (3, cells_y, cells_x, 4, 4) float64; planes: source x, source y, area of the pixel in source
pixels;
               powers of the position within the cell, y before x
grid           (4,) float64: x and step in x of the first cell, y and step in y
dense          (3, rows, columns) float64: the same planes for every pixel of the window; empty when the map
is smooth window         (4,) int64: first row, one past the last row, first column, one past the last column
of the target limits         (3,) float64: factor on the variance, largest share of masked weight, 1 for flux
per pixel (else 0)
=============
========================================================================================================
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyloom.kernels.images.lanczos import lanczos3

__all__ = [
    "LOW_COVERAGE",
    "TABLE_STEPS",
    "fill_row",
    "fill_weights",
    "interpolate",
    "kernel_table",
    "sum_stencil",
]

Float = NDArray[np.float64]
LOW_COVERAGE = 16
"""Flag bit of a pixel that had to do without a part of its stencil."""
TABLE_STEPS = 2048
"""Intervals of the weight table; linear interpolation within them errs by less than 2e-7."""
BLOCK = 256
"""Target pixels of a row worked on at a time: a turned row crosses so few source rows that their pages stay
known."""
EDGE = 1e-6
"""Overhang, in pixels or in weight, that counts as rounding and not as leaving the image."""


@lru_cache(maxsize=4)
def kernel_table(taps: int) -> Float:
    """Return the weights of a stencil for `TABLE_STEPS` sub-pixel phases.

    Parameters
    ----------
    taps : int
        2 for bilinear, 6 for Lanczos-3.

    Returns
    -------
    (TABLE_STEPS + 1, 2, taps) float64 array
        For each phase the weights (they sum to 1, so that a constant stays one) and their difference to the
        next.
    """
    phase = np.arange(TABLE_STEPS + 2) / TABLE_STEPS
    node = np.arange(taps) - (taps // 2 - 1)
    offset = phase[:, np.newaxis] - node
    weights = np.maximum(0.0, 1.0 - np.abs(offset)) if taps == 2 else lanczos3(offset)
    return np.ascontiguousarray(np.stack([weights[:-1], np.diff(weights, axis=0)], axis=1))


@njit(cache=True, nogil=True, error_model="numpy")
def fill_row(
    coefficients: Float,
    grid: Float,
    dense: Float,
    plane: int,
    row: int,
    y: float,
    x_first: float,
    x_dense: int,
    values: Float,
) -> None:
    """Evaluate one plane of the map at (x_first + i, y) for every i of ``values``."""
    n = values.size
    if dense.size > 0:
        for i in range(n):
            values[i] = dense[plane, row, int(math.ceil(x_first)) - x_dense + i]
        return
    cells_y, cells_x = coefficients.shape[1], coefficients.shape[2]
    place = (y - grid[2]) / grid[3]
    cell_y = min(max(int(math.floor(place)), 0), cells_y - 1)
    t = place - cell_y
    inverse = 1.0 / grid[1]
    start = 0
    for cell_x in range(cells_x):
        stop = n
        if cell_x < cells_x - 1:
            stop = min(n, int(math.ceil(grid[0] + (cell_x + 1) * grid[1] - x_first)))
        c = coefficients[plane, cell_y, cell_x]
        c0 = ((c[3, 0] * t + c[2, 0]) * t + c[1, 0]) * t + c[0, 0]
        c1 = ((c[3, 1] * t + c[2, 1]) * t + c[1, 1]) * t + c[0, 1]
        c2 = ((c[3, 2] * t + c[2, 2]) * t + c[1, 2]) * t + c[0, 2]
        c3 = ((c[3, 3] * t + c[2, 3]) * t + c[1, 3]) * t + c[0, 3]
        base = (x_first - grid[0]) * inverse - cell_x
        for i in range(start, stop):
            s = base + i * inverse
            values[i] = ((c3 * s + c2) * s + c1) * s + c0
        start = max(start, stop)


@njit(cache=True, nogil=True, error_model="numpy")
def fill_weights(table: Float, fraction: float, weights: Float) -> None:
    """Look up the weights of a stencil whose position is ``fraction`` of a pixel beyond its inner cell's start."""
    place = fraction * (table.shape[0] - 1)
    step = int(place)
    rest = place - step
    for k in range(weights.size):
        weights[k] = table[step, 0, k] + rest * table[step, 1, k]


@njit(cache=True, nogil=True, error_model="numpy")
def sum_stencil(
    data: Any,
    variance: Any,
    mask: Any,
    row: int,
    column: int,
    fraction_y: float,
    fraction_x: float,
    weights_y: Float,
    weights_x: Float,
    limit: float,
) -> tuple[bool, bool, float, float]:
    """Sum a stencil that meets masked pixels or the border.

    Pixels outside the image may carry no weight. Masked ones are left out and the rest is renormalised as
    long as they carry no more than ``limit`` of the sum of the absolute weights.

    Returns
    -------
    good, whole : bool
        Whether the result is usable, and whether no pixel was left out.
    value, variance : float
        The weighted mean, and the bilinear mean of the variance times the factor by which the missing pixels
        raise the variance of a mean of independent pixels.
    """
    ny, nx = mask.shape
    taps = weights_x.size
    inner = taps // 2 - 1
    total = absolute = missing = outside = value = 0.0
    squares = all_squares = spread = spread_weight = 0.0
    for j in range(taps):
        y = row + j - inner
        for i in range(taps):
            x = column + i - inner
            weight = weights_y[j] * weights_x[i]
            absolute += abs(weight)
            all_squares += weight * weight
            if y < 0 or y >= ny or x < 0 or x >= nx:
                outside += abs(weight)
                continue
            if mask[y, x]:
                missing += abs(weight)
                continue
            total += weight
            squares += weight * weight
            value += weight * data[y, x]
            if variance.size > 0 and inner <= j <= inner + 1 and inner <= i <= inner + 1:
                share_y = fraction_y if j > inner else 1.0 - fraction_y
                share = share_y * (fraction_x if i > inner else 1.0 - fraction_x)
                spread += share * variance[y, x]
                spread_weight += share
    if outside > EDGE or missing > limit * absolute or not total > 0.0:
        return False, False, 0.0, 0.0
    if variance.size == 0:
        return True, missing <= EDGE, value / total, 0.0
    if not spread_weight > EDGE:
        return False, False, 0.0, 0.0
    growth = squares / (total * total * all_squares)
    return True, missing <= EDGE, value / total, growth * spread / spread_weight


@njit(cache=True, nogil=True, error_model="numpy")
def _lanczos3_whole(
    data: Any,
    y: int,
    x: int,
    fraction_y: float,
    fraction_x: float,
    table: Float,
    weights_y: Float,
    weights_x: Float,
) -> float:
    """Sum a stencil of six by six pixels that are all there (fixed lengths, so that the loops unroll)."""
    for weights, fraction in ((weights_x, fraction_x), (weights_y, fraction_y)):
        place = fraction * TABLE_STEPS
        step = int(place)
        rest = place - step
        for k in range(6):
            weights[k] = table[step, 0, k] + rest * table[step, 1, k]
    total = 0.0
    for j in range(6):
        line = 0.0
        for i in range(6):
            line += weights_x[i] * data[y - 2 + j, x - 2 + i]
        total += weights_y[j] * line
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _bilinear(plane: Any, y: int, x: int, fraction_y: float, fraction_x: float) -> float:
    """Interpolate between four pixels that are all there."""
    above = (1.0 - fraction_x) * plane[y, x] + fraction_x * plane[y, x + 1]
    below = (1.0 - fraction_x) * plane[y + 1, x] + fraction_x * plane[y + 1, x + 1]
    return (1.0 - fraction_y) * above + fraction_y * below


@njit(cache=True, nogil=True, error_model="numpy")
def _collect_flags(flags: Any, mask: Any, ix: int, iy: int, fx: float, fy: float) -> int:
    """Join the bits of the usable pixels among the two by two that start at (ix, iy) and carry weight."""
    bits = 0
    top, bottom = iy + (1 if fy > 1.0 - EDGE else 0), iy + (1 if fy < EDGE else 2)
    left, right = ix + (1 if fx > 1.0 - EDGE else 0), ix + (1 if fx < EDGE else 2)
    for row in range(max(top, 0), min(bottom, mask.shape[0])):
        for column in range(max(left, 0), min(right, mask.shape[1])):
            if not mask[row, column]:
                bits |= flags[row, column]
    return bits


@njit(cache=True, nogil=True, error_model="numpy")
def interpolate(
    data: Any,
    variance: Any,
    mask: Any,
    touched: Any,
    flags: Any,
    table: Float,
    coefficients: Float,
    grid: Float,
    dense: Float,
    window: Any,
    limits: Float,
    out_data: Any,
    out_variance: Any,
    out_mask: Any,
    out_flags: Any,
) -> None:
    """Interpolate with a separable stencil.

    Parameters
    ----------
    data, variance : (ny, nx) float arrays
        ``variance`` may be empty: then it is not wanted.
    mask, touched : (ny, nx) bool arrays
        ``touched[y, x]``: some pixel of the stencil that starts at (y, x) is masked.
    flags : (ny, nx) uint16 array or empty
        Bits of the two by two pixels around a position are passed on.
    table : array of `kernel_table`
    coefficients, grid, dense, window, limits
        See the module.
    out_data, out_variance, out_mask, out_flags : arrays of the target's shape
        Filled within the window. ``out_variance`` and ``out_flags`` may be empty.
    """
    ny, nx = mask.shape
    taps = table.shape[2]
    before, after = taps // 2 - 1, taps // 2
    xs, ys, areas = np.empty(BLOCK), np.empty(BLOCK), np.ones(BLOCK)
    weights_x, weights_y = np.empty(taps), np.empty(taps)
    with_variance, with_flags = variance.size > 0, flags.size > 0
    gain, limit, per_pixel = limits[0], limits[1], limits[2] > 0.5
    rows = window[1] - window[0]
    blocks = (window[3] - window[2] + BLOCK - 1) // BLOCK
    for task in range(blocks * rows):
        block, place = task // rows, task % rows
        row, first = window[0] + place, window[2] + block * BLOCK
        n = min(BLOCK, window[3] - first)
        fill_row(coefficients, grid, dense, 0, place, float(row), float(first), window[2], xs[:n])
        fill_row(coefficients, grid, dense, 1, place, float(row), float(first), window[2], ys[:n])
        if per_pixel:
            fill_row(coefficients, grid, dense, 2, place, float(row), float(first), window[2], areas[:n])
        for i in range(n):
            column = first + i
            x, y = xs[i], ys[i]
            value = spread = 0.0
            good = whole = x > -1.0 and x < nx and y > -1.0 and y < ny  # False for NaN
            ix, iy = (int(math.floor(x)), int(math.floor(y))) if good else (-taps, -taps)
            fx, fy = x - ix, y - iy
            inside = ix >= before and iy >= before and ix + after < nx and iy + after < ny
            # Spelled out, not a function: handing the arrays on for each pixel costs more than the work.
            if inside and not touched[iy - before, ix - before]:
                if taps == 2:
                    value = _bilinear(data, iy, ix, fy, fx)
                else:
                    value = _lanczos3_whole(data, iy, ix, fy, fx, table, weights_y, weights_x)
                if with_variance:
                    spread = _bilinear(variance, iy, ix, fy, fx)
            elif good:
                fill_weights(table, fx, weights_x)
                fill_weights(table, fy, weights_y)
                good, whole, value, spread = sum_stencil(
                    data, variance, mask, iy, ix, fy, fx, weights_y, weights_x, limit
                )
            area = areas[i]
            out_mask[row, column] = not good
            out_data[row, column] = value * area if good else np.nan
            if with_variance:
                out_variance[row, column] = gain * area * area * spread if good else np.nan
            if good and out_flags.size > 0:
                bits = _collect_flags(flags, mask, ix, iy, fx, fy) if with_flags else 0
                out_flags[row, column] = bits if whole else bits | LOW_COVERAGE
