"""Sums over labelled regions of every channel of a cube, and products of neighbouring spaxels.

A plane is walked row by row. The standard deviations of the rows within reach of the correlation wait in a small ring,
so that every voxel is read once and its square root taken once; the pairs of a row are added lag by lag, in loops that
the compiler turns into vector instructions. Labels enter twice: as a map with a border, for the pairs, and as runs of
equal labels along each row, for the sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["join_flags", "lag_products", "sum_planes", "sum_spectra"]

Array = NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy")
def _read_row(values: Array, variance: Array, mask: Array, weight: Array, data: Array, spread: Array) -> bool:
    """Write weighted values and standard deviations of one row, 0 where masked; tell whether any pixel is."""
    masked = 0
    for x in range(mask.size):
        data[x] = 0.0 if mask[x] else weight[x] * values[x]
    for x in range(mask.size):
        spread[x] = 0.0 if mask[x] else weight[x] * np.sqrt(variance[x])
    for x in range(mask.size):
        masked += mask[x]
    return masked > 0


@njit(cache=True, nogil=True, error_model="numpy")
def _add_pairs(ring: Array, labels: Array, correlation: Array, y: int, acc: Array) -> None:
    """Add what the later neighbours of the same label contribute to each pixel of row ``y``."""
    radius = correlation.shape[0] // 2
    nx = acc.size
    last = labels.shape[0] - radius - 1
    own = labels[y, radius : radius + nx]
    row = ring[y % (radius + 1), radius : radius + nx]
    half = acc.dtype.type(0.5) * correlation[radius, radius]
    for x in range(nx):
        acc[x] = half * row[x]
    for lag_y in range(min(radius, last - y) + 1):
        for lag_x in range(-radius if lag_y > 0 else 1, radius + 1):
            rho = correlation[radius + lag_y, radius + lag_x]
            if rho == 0.0:
                continue
            first = radius + lag_x
            names = labels[y + lag_y, first : first + nx]
            spread = ring[(y + lag_y) % (radius + 1), first : first + nx]
            for x in range(nx):
                acc[x] += rho * spread[x] if names[x] == own[x] else acc.dtype.type(0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def sum_spectra(
    data: Array,
    variance: Array,
    mask: Array,
    weight: Array,
    labels: Array,
    runs: Array,
    offsets: Array,
    correlation: Array,
    total: Array,
    square: Array,
    lost: Array,
) -> None:
    """Add the sums, their variances and the weight that masks took away, for each region and channel.

    Parameters
    ----------
    data, variance : (c, ny, nx) float arrays
    mask : (c, ny, nx) bool array
    weight : (ny, nx) array, of the type of ``variance``
        What values are multiplied with in the sum.
    labels : (ny + r, nx + 2 r) int32 array
        Region of each pixel, with a border of -1: r rows after the last, r columns on either side.
    runs : (m, 3) int32 array
        First column, end column and region of each run of equal labels (>= 0), row after row.
    offsets : (ny + 1,) int array
        Where the runs of each row begin.
    correlation : (2r + 1, 2r + 1) array, of the type of ``variance``
        Symmetric through its centre.
    total, square, lost : (c, n) float64 arrays
        Weighted sums, their variances, and the summed weight of masked pixels; added to.
    """
    n_channels, ny, nx = data.shape
    radius = correlation.shape[0] // 2
    ring = np.zeros((radius + 1, nx + 2 * radius), variance.dtype)
    values = np.zeros((radius + 1, nx), data.dtype)
    acc = np.zeros(nx, variance.dtype)
    holes = np.zeros(radius + 1, np.bool_)
    for channel in range(n_channels):
        for row in range(ny + radius):
            slot = row % (radius + 1)
            if row < ny:
                holes[slot] = _read_row(
                    data[channel, row],
                    variance[channel, row],
                    mask[channel, row],
                    weight[row],
                    values[slot],
                    ring[slot, radius : radius + nx],
                )
            y = row - radius
            if y < 0 or offsets[y] == offsets[y + 1]:
                continue
            _add_pairs(ring, labels, correlation, y, acc)
            slot = y % (radius + 1)
            light_row, spread_row = values[slot], ring[slot, radius : radius + nx]
            for run in range(offsets[y], offsets[y + 1]):
                light = power = 0.0
                for x in range(runs[run, 0], runs[run, 1]):
                    light += light_row[x]
                    power += np.float64(spread_row[x]) * np.float64(acc[x])
                region = runs[run, 2]
                total[channel, region] += light
                square[channel, region] += 2.0 * power
            if not holes[slot]:
                continue
            for run in range(offsets[y], offsets[y + 1]):
                for x in range(runs[run, 0], runs[run, 1]):
                    if mask[channel, y, x]:
                        lost[channel, runs[run, 2]] += weight[y, x]


@njit(cache=True, nogil=True, error_model="numpy")
def sum_planes(
    values: Array, skip: Array, weight: Array, runs: Array, offsets: Array, total: Array, share: Array
) -> None:
    """Add ``weight * values`` and ``weight`` of each region and channel, where ``skip`` is False.

    Parameters
    ----------
    values : (c, ny, nx) float array
    skip : (c, ny, nx) bool array
    weight : (ny, nx) float64 array
    runs, offsets
        As for `sum_spectra`.
    total, share : (c, n) float64 arrays
        Added to.
    """
    for channel in range(values.shape[0]):
        for y in range(values.shape[1]):
            for run in range(offsets[y], offsets[y + 1]):
                region = runs[run, 2]
                for x in range(runs[run, 0], runs[run, 1]):
                    if not skip[channel, y, x]:
                        total[channel, region] += weight[y, x] * values[channel, y, x]
                        share[channel, region] += weight[y, x]


@njit(cache=True, nogil=True, error_model="numpy")
def join_flags(flags: Array, mask: Array, runs: Array, offsets: Array, joined: Array) -> None:
    """Join the bits of the usable voxels of each region and channel into ``joined``, (c, n) uint16."""
    for channel in range(flags.shape[0]):
        for y in range(flags.shape[1]):
            for run in range(offsets[y], offsets[y + 1]):
                for x in range(runs[run, 0], runs[run, 1]):
                    if not mask[channel, y, x]:
                        joined[channel, runs[run, 2]] |= flags[channel, y, x]


# Sums may be taken in any order: the planes hold no NaN.
@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def lag_products(planes: Array, radius: int) -> Array:
    """Add the products of all pairs of pixels at each spatial lag, over all planes.

    Parameters
    ----------
    planes : (c, ny, nx) float array
        0 where a pixel does not count.
    radius : int

    Returns
    -------
    (2 radius + 1, 2 radius + 1) float64 array
        Symmetric through its centre.
    """
    n_channels, ny, nx = planes.shape
    sums = np.zeros((2 * radius + 1, 2 * radius + 1))
    for channel in range(n_channels):
        for y in range(ny):
            for lag_y in range(min(radius, ny - 1 - y) + 1):
                for lag_x in range(-radius if lag_y > 0 else 0, radius + 1):
                    if abs(lag_x) >= nx:
                        continue
                    first, other = max(0, -lag_x), max(0, lag_x)
                    one = planes[channel, y, first : nx - other]
                    two = planes[channel, y + lag_y, other : nx - first]
                    product = 0.0
                    for x in range(one.size):
                        product += one[x] * two[x]
                    sums[radius + lag_y, radius + lag_x] += product
    for lag_y in range(radius + 1):
        for lag_x in range(-radius if lag_y > 0 else 0, radius + 1):
            sums[radius - lag_y, radius - lag_x] = sums[radius + lag_y, radius + lag_x]
    return sums
