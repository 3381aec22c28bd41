"""Before bins are drawn: how much area a bin will need around each pixel, and starting cells of equal content.

The plan looks at windows as large as the bins will be, so it averages the noise that a plan made of single pixels
would follow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["bisect_cells", "integral", "plan_density", "square_inflation"]

Array = NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy")
def integral(plane: Array) -> Array:
    """Return the (ny + 1, nx + 1) sums of ``plane`` over all pixels below and left of each corner."""
    ny, nx = plane.shape
    total = np.zeros((ny + 1, nx + 1))
    for y in range(ny):
        row = 0.0
        for x in range(nx):
            row += plane[y, x]
            total[y + 1, x + 1] = total[y, x + 1] + row
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def square_inflation(area: float, correlation: Array) -> float:
    """Return Var(sum) over the sum of variances for a square of ``area`` pixels of uniform variance."""
    radius = correlation.shape[0] // 2
    side = np.sqrt(max(area, 1.0))
    total = 0.0
    for row in range(-radius, radius + 1):
        for column in range(-radius, radius + 1):
            overlap = max(0.0, 1.0 - abs(row) / side) * max(0.0, 1.0 - abs(column) / side)
            total += overlap * correlation[radius + row, radius + column]
    return max(total, 1e-3)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _box(total: Array, y: int, x: int, half: int) -> float:
    """Sum over the square of ``half`` pixels around (y, x), cut at the borders."""
    ny, nx = total.shape[0] - 1, total.shape[1] - 1
    bottom, top = max(0, y - half), min(ny, y + half + 1)
    left, right = max(0, x - half), min(nx, x + half + 1)
    return total[top, right] - total[bottom, right] - total[top, left] + total[bottom, left]


@njit(cache=True, nogil=True, error_model="numpy")
def plan_density(
    signal: Array,
    variance: Array,
    free: Array,
    target: float,
    correlation: Array,
    halves: Array,
    floor: float,
) -> Array:
    """Return the bins per pixel that the data allow around each pixel; 0 where there is no signal.

    Parameters
    ----------
    signal, variance : (ny, nx) float64 array
        Zero where not ``free``.
    free : (ny, nx) bool array
        Pixels that will share bins.
    target : float
        Signal-to-noise ratio of a bin.
    correlation : (k, k) float64 array
        Noise autocorrelation.
    halves : (n,) int64 array
        Half widths of the windows, ascending.
    floor : float
        The inner window (half as wide) must have at least this share of the window's mean signal: otherwise the
        window has only caught a source at its edge.

    Returns
    -------
    (ny, nx) float64 array
        (S/N / target)^2 / n of the smallest window that reaches the target.
    """
    ny, nx = signal.shape
    signals, variances, counts = integral(signal), integral(variance), integral(free.astype(np.float64))
    inflation = np.empty(halves.size)
    for scale in range(halves.size):
        inflation[scale] = square_inflation((2.0 * halves[scale] + 1.0) ** 2, correlation)
    density = np.zeros((ny, nx))
    for y in range(ny):
        for x in range(nx):
            if not free[y, x]:
                continue
            for scale in range(halves.size):
                half = halves[scale]
                total = _box(signals, y, x, half)
                noise = _box(variances, y, x, half) * inflation[scale]
                if total <= 0.0 or total * total < target * target * noise:
                    continue
                n_pixels = _box(counts, y, x, half)
                inner = half // 2
                if half > 1:
                    n_inner = _box(counts, y, x, inner)
                    if _box(signals, y, x, inner) / n_inner < floor * total / n_pixels:
                        continue
                density[y, x] = total * total / (noise * target * target * n_pixels)
                break
    return density


@njit(cache=True, nogil=True, error_model="numpy")
def _order_along(rows: Array, columns: Array, members: Array, scratch: Array, along_rows: bool) -> None:
    """Sort ``members`` by row (then column) or by column (then row): a counting sort in two passes."""
    for turn in range(2):
        key = rows if (turn == 1) == along_rows else columns
        low, high = key[members[0]], key[members[0]]
        for index in range(members.size):
            low, high = min(low, key[members[index]]), max(high, key[members[index]])
        starts = np.zeros(high - low + 2, dtype=np.int64)
        for index in range(members.size):
            starts[key[members[index]] - low + 1] += 1
        starts = np.cumsum(starts)
        for index in range(members.size):
            place = key[members[index]] - low
            scratch[starts[place]] = members[index]
            starts[place] += 1
        members[:] = scratch[: members.size]


@njit(cache=True, nogil=True, error_model="numpy")
def bisect_cells(
    rows: Array, columns: Array, weight: Array, starts: Array, n_cells: Array
) -> tuple[Array, int]:
    """Cut groups of pixels into cells of equal weight by halving, always across the longer side.

    Parameters
    ----------
    rows, columns : (n,) int64 array
        Pixels, group after group.
    weight : (n,) float64 array
        What the cells shall have equal shares of; > 0.
    starts : (g + 1,) int64 array
        Where each group begins.
    n_cells : (g,) int64 array
        Cells to make of each group, at least 1.

    Returns
    -------
    cells : (n,) int64 array
        Cell of each pixel.
    total : int
        Number of cells.
    """
    n_pixels = rows.size
    order, scratch = np.arange(n_pixels), np.empty(n_pixels, dtype=np.int64)
    cells = np.empty(n_pixels, dtype=np.int64)
    total = 0
    stack = np.empty((4096, 3), dtype=np.int64)
    for group in range(n_cells.size):
        depth = 1
        stack[0, 0], stack[0, 1], stack[0, 2] = starts[group], starts[group + 1], n_cells[group]
        while depth > 0:
            depth -= 1
            first, last, parts = stack[depth, 0], stack[depth, 1], stack[depth, 2]
            parts = min(parts, last - first)
            if parts <= 1:
                for index in range(first, last):
                    cells[order[index]] = total
                total += 1
                continue
            members = order[first:last]
            low_y, high_y, low_x, high_x = rows[members[0]], rows[members[0]], columns[members[0]], 0
            high_x = low_x
            content = 0.0
            for pixel in members:
                low_y, high_y = min(low_y, rows[pixel]), max(high_y, rows[pixel])
                low_x, high_x = min(low_x, columns[pixel]), max(high_x, columns[pixel])
                content += weight[pixel]
            _order_along(rows, columns, members, scratch, high_y - low_y >= high_x - low_x)
            left = parts // 2
            wanted = content * left / parts
            reached, cut = 0.0, 0
            while cut < members.size and reached + 0.5 * weight[members[cut]] < wanted:
                reached += weight[members[cut]]
                cut += 1
            cut = min(max(cut, left), members.size - (parts - left))
            stack[depth, 0], stack[depth, 1], stack[depth, 2] = first, first + cut, left
            stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2] = first + cut, last, parts - left
            depth += 2
    return cells, total
