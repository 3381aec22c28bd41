"""Flooding a map from its peaks downwards: basins that merge where nothing significant lies between them."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

NOTHING = -1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def flood(
    order: NDArray[np.int64],
    values: NDArray[np.float64],
    noise: NDArray[np.float64],
    row: int,
    threshold: float,
    prominence: float,
    contrast: float,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give each pixel the peak from which one reaches it by going down.

    Parameters
    ----------
    order : (m,) int64 array
        Flat indices of the pixels to flood, from the brightest to the faintest; none on the border of the map, so that
        all have eight neighbours.
    values, noise : (n,) float64 arrays
        The map and its standard deviation, flattened.
    row : int
        Length of a row.
    threshold : float
        A peak needs ``value >= threshold * noise``.
    prominence, contrast : float
        Where two basins meet at the level s, the lower one stays apart only if its peak p has
        ``p - s >= prominence * noise`` and ``p - s >= contrast * p``.

    Returns
    -------
    basin : (n,) int32 array
        Number of the peak, -1 where nothing was flooded.
    peaks : (k,) int64 array
        Flat index of each peak; -1 for those that were merged into another.
    """
    around = np.array([-row - 1, -row, -row + 1, -1, 1, row - 1, row, row + 1])
    basin = np.full(values.size, NOTHING, dtype=np.int32)
    peaks = np.empty(order.size, dtype=np.int64)
    parent = np.empty(order.size, dtype=np.int32)
    count = 0
    for pixel in order:
        tallest, slope = _touched(pixel, around, basin, parent, values, peaks)
        if tallest != NOTHING:
            for near in pixel + around:
                root = _root(basin[near], parent)
                if root in (NOTHING, tallest):
                    continue
                height = values[peaks[root]]
                rise = height - values[pixel]
                if rise < prominence * noise[peaks[root]] or rise < contrast * height:
                    parent[root] = tallest
            basin[pixel] = slope
        elif values[pixel] >= threshold * noise[pixel]:
            peaks[count], parent[count], basin[pixel] = pixel, count, count
            count += 1
    for pixel in order:
        basin[pixel] = _root(basin[pixel], parent)
    for number in range(count):
        if parent[number] != number:
            peaks[number] = NOTHING
    return basin, peaks[:count]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _root(number: int, parent: NDArray[np.int32]) -> int:
    """The basin that a basin has been merged into."""
    if number == NOTHING:
        return NOTHING
    while parent[number] != number:
        number = parent[number]
    return number


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _touched(
    pixel: int,
    around: NDArray[np.int64],
    basin: NDArray[np.int32],
    parent: NDArray[np.int32],
    values: NDArray[np.float64],
    peaks: NDArray[np.int64],
) -> tuple[int, int]:
    """Of the basins that touch a pixel: the one with the highest peak, and the one on whose slope the pixel lies."""
    tallest, slope, level = NOTHING, NOTHING, -np.inf
    for near in pixel + around:
        root = _root(basin[near], parent)
        if root == NOTHING:
            continue
        if tallest == NOTHING or values[peaks[root]] > values[peaks[tallest]]:
            tallest = root
        if values[near] > level:
            level, slope = values[near], root
    return tallest, slope
