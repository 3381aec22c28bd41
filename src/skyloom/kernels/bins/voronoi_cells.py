"""Weighted Voronoi cells on a pixel grid, found by handing labels from pixel to pixel.

A pixel belongs to the cell of least distance over radius (Diehl & Statler 2006, 10.1111/j.1365-2966.2006.10125.x). A
generator never loses its own place, however small its cell beside a large one; with additive weights (a power diagram)
large cells bury small ones where bright knots stand in a faint disc.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyloom.kernels.bins.plan import square_inflation

__all__ = ["assign_cells", "cell_sums", "join_fragments", "label_pieces", "refine_radii", "settle_pixels"]

Array = NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy")
def cell_sums(labels: Array, signal: Array, variance: Array, n_cells: int) -> Array:
    """Return (n_cells, 5): pixels, signal, variance (uncorrelated), and sums of row and column."""
    ny, nx = labels.shape
    sums = np.zeros((n_cells, 5))
    for y in range(ny):
        for x in range(nx):
            cell = labels[y, x]
            if cell >= 0:
                sums[cell, 0] += 1.0
                sums[cell, 1] += signal[y, x]
                sums[cell, 2] += variance[y, x]
                sums[cell, 3] += y
                sums[cell, 4] += x
    return sums


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _distance(y: int, x: int, cell: int, generators: Array) -> float:
    """Weighted distance: the square of the distance over that of the cell's radius."""
    dy, dx = y - generators[cell, 0], x - generators[cell, 1]
    return (dy * dy + dx * dx) / generators[cell, 2]


@njit(cache=True, nogil=True, error_model="numpy")
def assign_cells(labels: Array, generators: Array, sweeps: int) -> int:
    """Give each pixel the cell with the least weighted distance among its own and its four neighbours'.

    Parameters
    ----------
    labels : (ny, nx) int32 array, changed
        Cell of each pixel; negative pixels neither change nor pass labels on, so cells never leap a gap.
    generators : (n, 3) float64 array
        Row, column and squared radius of each cell.
    sweeps : int
        Passes over the field, forwards and backwards in turn.

    Returns
    -------
    int
        Pixels that changed in the last pass.
    """
    ny, nx = labels.shape
    changed = 0
    for sweep in range(sweeps):
        changed = 0
        forward = sweep % 2 == 0
        for row in range(ny):
            y = row if forward else ny - 1 - row
            for column in range(nx):
                x = column if forward else nx - 1 - column
                own = labels[y, x]
                if own < 0:
                    continue
                best, least = own, 0.0
                known = False
                for side in range(4):
                    other_y = y + (side == 0) - (side == 1)
                    other_x = x + (side == 2) - (side == 3)
                    if other_y < 0 or other_y >= ny or other_x < 0 or other_x >= nx:
                        continue
                    other = labels[other_y, other_x]
                    if other == own or other == best or other < 0:  # noqa: SIM109 (numba)
                        continue
                    if not known:
                        least, known = _distance(y, x, own, generators), True
                    distance = _distance(y, x, other, generators)
                    if distance < least:
                        best, least = other, distance
                if best != own:
                    labels[y, x] = best
                    changed += 1
    return changed


@njit(cache=True, nogil=True, error_model="numpy")
def refine_radii(
    sums: Array, generators: Array, target: float, aim: float, correlation: Array, even: bool
) -> Array:
    """Move generators to the centres of their cells and give them the radii that (S/N / target)^2 = ``aim`` asks for.

    With ``even`` False the radii are those of the cells as they are: they become rounder, not more even.

    Returns
    -------
    (n,) float64 array
        (S/N / target)^2 of each cell, negative where its signal is; -1e30 where it has no pixel.

    """
    n_cells = sums.shape[0]
    content = np.full(n_cells, -1e30)
    for cell in range(n_cells):
        area = sums[cell, 0]
        if area == 0.0:
            continue
        noise = sums[cell, 2] * square_inflation(area, correlation)
        content[cell] = sums[cell, 1] * abs(sums[cell, 1]) / (noise * target * target)
        generators[cell, 0], generators[cell, 1] = sums[cell, 3] / area, sums[cell, 4] / area
        ratio = min(max(aim / max(content[cell], 1e-3), 0.5), 2.0)
        if even:
            # Half a step (in the logarithm): a whole one makes cells beside a bright knot swing to and fro.
            generators[cell, 2] = np.sqrt(generators[cell, 2] * area * ratio / np.pi)
        else:
            generators[cell, 2] = area / np.pi
    return content


@njit(cache=True, nogil=True, error_model="numpy")
def label_pieces(labels: Array) -> tuple[Array, int]:
    """Number the 4-connected pieces of equal label (-1 where it is negative); return the map and how many there are."""
    ny, nx = labels.shape
    pieces = np.full((ny, nx), -1, dtype=np.int32)
    queue = np.empty(ny * nx, dtype=np.int64)
    n_pieces = 0
    for start_y in range(ny):
        for start_x in range(nx):
            if labels[start_y, start_x] < 0 or pieces[start_y, start_x] >= 0:
                continue
            own = labels[start_y, start_x]
            pieces[start_y, start_x] = n_pieces
            queue[0] = start_y * nx + start_x
            head, tail = 0, 1
            while head < tail:
                y, x = queue[head] // nx, queue[head] % nx
                head += 1
                for side in range(4):
                    other_y = y + (side == 0) - (side == 1)
                    other_x = x + (side == 2) - (side == 3)
                    if other_y < 0 or other_y >= ny or other_x < 0 or other_x >= nx:
                        continue
                    if labels[other_y, other_x] == own and pieces[other_y, other_x] < 0:
                        pieces[other_y, other_x] = n_pieces
                        queue[tail] = other_y * nx + other_x
                        tail += 1
            n_pieces += 1
    return pieces, n_pieces


@njit(cache=True, nogil=True, error_model="numpy")
def settle_pixels(labels: Array, loose: Array, generators: Array, closed: Array, sweeps: int) -> int:  # noqa: C901 (one loop over pixels)
    """Give ``loose`` pixels to the cells around them: to the nearest of those that border on the pixel, until all rest.

    Parameters
    ----------
    labels : (ny, nx) int32 array, changed
        Cell of each pixel; that of a loose pixel is not looked at.
    loose : (ny, nx) bool array
    generators : (n, 3) float64 array
        Row, column and squared radius.
    closed : (n,) bool array
        Cells that take nothing.
    sweeps : int
        Passes after the first filling.

    Returns
    -------
    int
        Pixels that no open cell can reach; they keep their label.
    """
    ny, nx = labels.shape
    homeless = loose.copy()
    remaining = np.count_nonzero(homeless)
    sweep, calm = 0, 0
    while calm < sweeps:
        forward = sweep % 2 == 0
        sweep += 1
        before = remaining
        for row in range(ny):
            y = row if forward else ny - 1 - row
            for column in range(nx):
                x = column if forward else nx - 1 - column
                if not loose[y, x]:
                    continue
                best, least = -1, np.inf
                if not homeless[y, x]:
                    best = labels[y, x]
                    least = _distance(y, x, best, generators)
                for side in range(4):
                    other_y = y + (side == 0) - (side == 1)
                    other_x = x + (side == 2) - (side == 3)
                    if other_y < 0 or other_y >= ny or other_x < 0 or other_x >= nx:
                        continue
                    other = labels[other_y, other_x]
                    if other < 0 or homeless[other_y, other_x] or closed[other]:
                        continue
                    distance = _distance(y, x, other, generators)
                    if distance < least:
                        best, least = other, distance
                if best >= 0:
                    labels[y, x] = best
                    if homeless[y, x]:
                        homeless[y, x] = False
                        remaining -= 1
        if not 0 < remaining < before:
            calm += 1
    return int(remaining)


@njit(cache=True, nogil=True, error_model="numpy")
def join_fragments(labels: Array, generators: Array) -> int:
    """Leave each cell its largest 4-connected piece; give the others to the neighbour of least weighted distance.

    Returns the number of pixels that changed cells.
    """
    ny, nx = labels.shape
    pieces, n_pieces = label_pieces(labels)
    sizes = np.zeros(n_pieces, dtype=np.int64)
    owner = np.full(n_pieces, -1, dtype=np.int64)
    for y in range(ny):
        for x in range(nx):
            if pieces[y, x] >= 0:
                sizes[pieces[y, x]] += 1
                owner[pieces[y, x]] = labels[y, x]
    largest = np.full(generators.shape[0], -1, dtype=np.int64)
    for piece in range(n_pieces):
        cell = owner[piece]
        if largest[cell] < 0 or sizes[piece] > sizes[largest[cell]]:
            largest[cell] = piece
    loose = np.zeros((ny, nx), dtype=np.bool_)
    n_loose = 0
    for y in range(ny):
        for x in range(nx):
            if pieces[y, x] >= 0 and largest[labels[y, x]] != pieces[y, x]:
                loose[y, x] = True
                n_loose += 1
    settle_pixels(labels, loose, generators, np.zeros(generators.shape[0], dtype=np.bool_), 4)
    return n_loose


@njit(cache=True, nogil=True, error_model="numpy")
def adapt_cells(  # noqa: C901 (one loop over pixels)
    labels: Array, content: Array, generators: Array, low: float, high: float
) -> tuple[Array, int, int]:
    """Remove a cell where neighbours share too little, and halve one where they share too much.

    Parameters
    ----------
    labels : (ny, nx) int32 array, changed
        Pixels of halved cells get the new cell's number.
    content : (n,) float64 array
        (S/N / target)^2 of each cell.
    generators : (n, 3) float64 array
        Row, column and squared radius.
    low, high : float
        Bounds on the mean content of a cell and its neighbours (weighted with their common border). Only the
        poorest, or the richest, of a neighbourhood is touched.

    Returns
    -------
    generators : (m, 3) float64 array
        With the new cells appended; removed ones have a radius so small that the next sweeps give away their pixels.
    removed, halved : int
        Number of cells.
    """
    ny, nx = labels.shape
    n_cells = content.size
    border, around, area = np.zeros(n_cells), np.zeros(n_cells), np.zeros(n_cells)
    lowest, highest = np.full(n_cells, np.inf), np.full(n_cells, -np.inf)
    for y in range(ny):
        for x in range(nx):
            own = labels[y, x]
            if own < 0:
                continue
            area[own] += 1.0
            for side in range(2):
                other_y, other_x = y + side, x + 1 - side
                if other_y >= ny or other_x >= nx:
                    continue
                other = labels[other_y, other_x]
                if other < 0 or other == own:
                    continue
                border[own] += 1.0
                border[other] += 1.0
                around[own] += content[other]
                around[other] += content[own]
                lowest[own], highest[own] = (
                    min(lowest[own], content[other]),
                    max(highest[own], content[other]),
                )
                lowest[other] = min(lowest[other], content[own])
                highest[other] = max(highest[other], content[own])
    removed, halved = 0, 0
    heir = np.full(n_cells, -1, dtype=np.int32)
    for cell in range(n_cells):
        if content[cell] < -1e29:
            continue
        mean = content[cell]
        if border[cell] > 0:
            mean = (content[cell] + 6.0 * around[cell] / border[cell]) / 7.0
        if border[cell] > 0 and mean < low and content[cell] < 1.0 and content[cell] <= lowest[cell]:
            generators[cell, 2] = 1e-9
            removed += 1
        elif content[cell] > 2.0 or (mean > high and content[cell] >= highest[cell] and content[cell] > 1.0):
            heir[cell] = n_cells + halved
            halved += 1
    grown = np.empty((n_cells + halved, 3))
    grown[:n_cells] = generators
    for cell in range(n_cells):
        if heir[cell] >= 0:
            grown[cell, 2] *= 0.5
            grown[heir[cell]] = grown[cell]
    moments = np.zeros((n_cells, 3))
    if halved > 0:
        for y in range(ny):
            for x in range(nx):
                own = labels[y, x]
                if own >= 0 and heir[own] >= 0:
                    dy, dx = y - generators[own, 0], x - generators[own, 1]
                    moments[own, 0] += dy * dy
                    moments[own, 1] += dx * dx
                    moments[own, 2] += dy * dx
        for y in range(ny):
            for x in range(nx):
                own = labels[y, x]
                if own >= 0 and own < n_cells and heir[own] >= 0:
                    dy, dx = y - generators[own, 0], x - generators[own, 1]
                    angle = 0.5 * np.arctan2(2.0 * moments[own, 2], moments[own, 1] - moments[own, 0])
                    if dx * np.cos(angle) + dy * np.sin(angle) > 1e-9:
                        labels[y, x] = heir[own]
    return grown, removed, halved
