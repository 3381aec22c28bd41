"""Labels of the nearest pixel of another grid, whose place in it is piecewise bicubic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["nearest_labels"]

Array = NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy")
def nearest_labels(
    coefficients: Array, grid: Array, window: Array, labels: Array, first: int, out: Array
) -> None:
    """Fill rows of a target with the label of the source pixel in which the centre of each pixel lies.

    Parameters
    ----------
    coefficients : (3, cells, cells, 4, 4) float64 array
    grid : (4,) float64 array
    window : (4,) int64 array
        As in `skyloom.imaging.grids.pixel_map.PixelMap`.
    labels : (ny, nx) int32 array
        Of the source.
    first : int
        Row of the target that the first row of ``out`` is.
    out : (n, nx) int32 array
        Changed where the centre of a pixel lies in the source.
    """
    cells_y, cells_x = coefficients.shape[1], coefficients.shape[2]
    ny, nx = labels.shape
    across = np.empty((2, cells_x, 4))
    for j in range(out.shape[0]):
        y = first + j
        if y < window[0] or y >= window[1]:
            continue
        row = (y - grid[2]) / grid[3]
        cell_y = min(max(int(math.floor(row)), 0), cells_y - 1)
        t = row - cell_y
        for axis in range(2):
            for cell in range(cells_x):
                for power in range(4):
                    piece = coefficients[axis, cell_y, cell, :, power]
                    across[axis, cell, power] = piece[0] + t * (piece[1] + t * (piece[2] + t * piece[3]))
        for x in range(window[2], min(window[3], out.shape[1])):
            column = (x - grid[0]) / grid[1]
            cell_x = min(max(int(math.floor(column)), 0), cells_x - 1)
            s = column - cell_x
            piece = across[0, cell_x]
            i = int(math.floor(piece[0] + s * (piece[1] + s * (piece[2] + s * piece[3])) + 0.5))
            if i < 0 or i >= nx:
                continue
            piece = across[1, cell_x]
            k = int(math.floor(piece[0] + s * (piece[1] + s * (piece[2] + s * piece[3])) + 0.5))
            if 0 <= k < ny:
                out[j, x] = labels[k, i]
