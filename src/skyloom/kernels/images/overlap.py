"""Exact area overlap: every target pixel collects the source pixels under it, each with the area they share.

A target pixel is the quadrilateral of its four corners, which neighbours share, so that the areas tile the
plane and flux is conserved to rounding. Its coverage of the source pixels is found edge by edge, the way
outline fonts are drawn: an edge leaves in every pixel it crosses the signed area between itself and the pixel's
right side, and a running sum along the row turns these into coverage. The work grows with the length of the
outline, not with the special cases of polygon clipping, and pixels in the interior cost one addition.
(Parallel grids need no path of their own: products of one-dimensional overlaps were tried and are no faster.)

Positions, maps and limits are those of `skyloom.kernels.images.resample`, taken half a pixel up and left: at the
corners.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyloom.kernels.images.resample import EDGE, LOW_COVERAGE, fill_row

__all__ = ["overlap"]

Float = NDArray[np.float64]
TOUCH = 1e-6
"""Area, in source pixels, below which an overlap is rounding."""


@njit(cache=True, nogil=True, error_model="numpy")
def _draw_edge(cover: Float, xa: float, ya: float, xb: float, yb: float) -> None:
    """Add one edge to ``cover``, in coordinates relative to its first pixel's corner."""
    if ya == yb:
        return
    sign = 1.0
    if ya > yb:
        xa, ya, xb, yb = xb, yb, xa, ya
        sign = -1.0
    slope = (xb - xa) / (yb - ya)
    first, last = int(ya), int(math.ceil(yb))
    x = xa
    for row in range(first, last):
        height = min(row + 1.0, yb) - max(float(row), ya)
        x_next = x + slope * height if row < last - 1 else xb
        left, right = min(x, x_next), max(x, x_next)
        x = x_next
        signed = sign * height
        start, stop = int(left), int(math.ceil(right))
        if stop <= start + 1:
            middle = 0.5 * (left + right) - start
            cover[row, start] += signed * (1.0 - middle)
            cover[row, start + 1] += signed * middle
            continue
        per_pixel = 1.0 / (right - left)
        enter = 1.0 - (left - start)
        leave = right - (stop - 1)
        first_area = 0.5 * per_pixel * enter * enter
        last_area = 0.5 * per_pixel * leave * leave
        cover[row, start] += signed * first_area
        if stop == start + 2:
            cover[row, start + 1] += signed * (1.0 - first_area - last_area)
        else:
            second = per_pixel * (enter + 0.5)
            cover[row, start + 1] += signed * (second - first_area)
            for column in range(start + 2, stop - 1):
                cover[row, column] += signed * per_pixel
            reached = second + (stop - start - 3) * per_pixel
            cover[row, stop - 1] += signed * (1.0 - reached - last_area)
        cover[row, stop] += signed * last_area


@njit(cache=True, nogil=True, error_model="numpy")
def load_corners(
    corners: Float, x_above: Float, y_above: Float, x_below: Float, y_below: Float, i: int
) -> None:
    """Put the corners of pixel ``i`` between two rows of them into ``corners``, in order around it."""
    corners[0, 0], corners[1, 0] = x_above[i], y_above[i]
    corners[0, 1], corners[1, 1] = x_above[i + 1], y_above[i + 1]
    corners[0, 2], corners[1, 2] = x_below[i + 1], y_below[i + 1]
    corners[0, 3], corners[1, 3] = x_below[i], y_below[i]


@njit(cache=True, nogil=True, error_model="numpy")
def cover_pixel(cover: Float, corners: Float, ny: int, nx: int) -> tuple[bool, int, int, int, int]:
    """Draw a target pixel into ``cover``.

    Parameters
    ----------
    cover : (rows, columns) array
        Zero on entry; on return the differences along x of the shared areas, up to their common sign.
    corners : (2, 4) array
        x and y of the corners in source pixels, 0 at the outer corner of the first source pixel; moved onto the
        image where they overhang by rounding.

    Returns
    -------
    whole : bool
        Whether the pixel lies within the source image; otherwise nothing is drawn.
    top, left, rows, columns : int
        The part of the source image that ``cover`` stands for.
    """
    x_low = min(min(corners[0, 0], corners[0, 1]), min(corners[0, 2], corners[0, 3]))
    x_high = max(max(corners[0, 0], corners[0, 1]), max(corners[0, 2], corners[0, 3]))
    y_low = min(min(corners[1, 0], corners[1, 1]), min(corners[1, 2], corners[1, 3]))
    y_high = max(max(corners[1, 0], corners[1, 1]), max(corners[1, 2], corners[1, 3]))
    if not (x_low >= -EDGE and y_low >= -EDGE and x_high <= nx + EDGE and y_high <= ny + EDGE):
        return False, 0, 0, 0, 0
    if x_low < 0.0 or y_low < 0.0 or x_high > nx or y_high > ny:
        for k in range(4):
            corners[0, k] = min(max(corners[0, k], 0.0), float(nx))
            corners[1, k] = min(max(corners[1, k], 0.0), float(ny))
        x_low, x_high = max(x_low, 0.0), min(x_high, float(nx))
        y_low, y_high = max(y_low, 0.0), min(y_high, float(ny))
    left, top = int(x_low), int(y_low)
    columns, rows = int(math.ceil(x_high)) - left, int(math.ceil(y_high)) - top
    for k in range(4):
        following = (k + 1) % 4
        _draw_edge(
            cover,
            corners[0, k] - left,
            corners[1, k] - top,
            corners[0, following] - left,
            corners[1, following] - top,
        )
    return True, top, left, rows, columns


@njit(cache=True, nogil=True, error_model="numpy")
def extent(xs: Float, ys: Float, xs_next: Float, ys_next: Float) -> int:
    """Return the side of a buffer that holds the outline of every pixel between two rows of corners."""
    widest = 0.0
    for i in range(xs.size - 1):
        a = max(abs(xs[i + 1] - xs[i]), abs(ys[i + 1] - ys[i]))
        b = max(abs(xs_next[i] - xs[i]), abs(ys_next[i] - ys[i]))
        if a + b > widest:  # False for what is not a number
            widest = a + b
    return int(min(widest, 1e6) * 1.5) + 6


@njit(cache=True, nogil=True, error_model="numpy")
def overlap(
    data: Any,
    variance: Any,
    mask: Any,
    flags: Any,
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
    """Average (or sum, for a flux per pixel) the source pixels under every target pixel.

    Masked source pixels are left out: the result stands for the whole target pixel with the mean of the rest, as long
    as no more than the share ``limits[1]`` of its area is masked; the variance grows by the inverse of the rest.

    Parameters
    ----------
    data, variance : (ny, nx) float arrays
        ``variance`` may be empty: then it is not wanted.
    mask : (ny, nx) bool array
    flags : (ny, nx) uint16 array or empty
        Bits of every pixel that takes part are passed on.
    coefficients, grid, dense, window, limits
        See `skyloom.kernels.images.resample`; ``dense`` has one row and one column more than the window.
    out_data, out_variance, out_mask, out_flags : arrays of the target's shape
        Filled within the window. ``out_variance`` and ``out_flags`` may be empty.
    """
    ny, nx = mask.shape
    n = window[3] - window[2]
    rows_x, rows_y = np.empty((2, n + 1)), np.empty((2, n + 1))
    corners = np.empty((2, 4))
    cover = np.zeros((8, 8))
    with_variance, with_flags = variance.size > 0, flags.size > 0
    gain, limit, per_pixel = limits[0], limits[1], limits[2] > 0.5
    x_first = window[2] - 0.5
    for row in range(window[0], window[1] + 1):
        old, new = (row - window[0] + 1) % 2, (row - window[0]) % 2
        fill_row(coefficients, grid, dense, 0, row - window[0], row - 0.5, x_first, window[2], rows_x[new])
        fill_row(coefficients, grid, dense, 1, row - window[0], row - 0.5, x_first, window[2], rows_y[new])
        rows_x[new] += 0.5
        rows_y[new] += 0.5
        if row == window[0]:
            continue
        side = extent(rows_x[old], rows_y[old], rows_x[new], rows_y[new])
        if side > cover.shape[0]:
            cover = np.zeros((side, side))
        for i in range(n):
            load_corners(corners, rows_x[old], rows_y[old], rows_x[new], rows_y[new], i)
            good, top, left, rows, columns = cover_pixel(cover, corners, ny, nx)
            value = spread = used = total = 0.0
            bits = 0
            for j in range(rows):
                running = 0.0
                # Indexed in full: a view of a row is counted in and out, which costs more than its few pixels.
                line = top + j
                for k in range(columns):
                    running += cover[j, k]
                    cover[j, k] = 0.0
                    total += running
                    if mask[line, left + k]:
                        continue
                    used += running
                    value += running * data[line, left + k]
                    if with_variance:
                        spread += running * variance[line, left + k]
                    if with_flags and abs(running) > TOUCH:
                        bits |= flags[line, left + k]
                cover[j, columns] = 0.0
            column, line_out = window[2] + i, row - 1
            share = used / total if good else 0.0
            good = good and share >= 1.0 - limit and share > TOUCH
            area = abs(total) if per_pixel else 1.0
            out_mask[line_out, column] = not good
            out_data[line_out, column] = value / used * area if good else np.nan
            if with_variance:
                out_variance[line_out, column] = (
                    gain * area * area * spread / (used * share) if good else np.nan
                )
            if good and out_flags.size > 0:
                out_flags[line_out, column] = bits if share > 1.0 - EDGE else bits | LOW_COVERAGE
