"""The planes of a level: values, variance, mask, flags and shared errors of blocks of pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Mode
from skyloom.kernels.images.pyramid import halve, halve_flags

__all__ = ["Planes", "block_mean", "halved", "level_count"]

Array = NDArray[Any]
Float = NDArray[np.float64]
SMALLEST_SIDE = 4
"""Pixels; a level whose shorter side would have fewer is not made."""


class Planes(NamedTuple):
    """What lies on the pixels of one level, (n_wave, ny, nx); ``n_good`` is 0 where there is no value."""

    data: Array
    variance: Array
    mask: NDArray[np.bool_]
    n_good: NDArray[np.integer[Any]]
    flags: NDArray[np.uint16] | None
    modes: tuple[Mode, ...]


def level_count(shape: tuple[int, ...], wanted: int) -> int:
    """Return how many of the ``wanted`` levels, level 0 included, can be made of an object of ``shape``."""
    side = min(shape)
    made = 1
    while made < wanted and (side + 1) // 2 >= SMALLEST_SIDE:
        side = (side + 1) // 2
        made += 1
    return made


def halved(planes: Planes, spatial: Float, spectral: Float, depth: int, area: float) -> Planes:
    """Return the planes of the next level.

    Parameters
    ----------
    planes : Planes
    spatial : (4,) array
        Correlation of neighbours, see `skyloom.kernels.images.pyramid.halve`.
    spectral : (n_out,) array
        Correlation of the channels of a pair.
    depth : int
        Channels in a block: 1 (images) or 2.
    area : float
        4 for fluxes per pixel, 1 for brightnesses.
    """
    n_wave, ny, nx = planes.data.shape
    shape = (-(-n_wave // depth), (ny + 1) // 2, (nx + 1) // 2)
    data, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    n_good, mask = np.empty(shape, np.uint32 if depth == 2 else np.uint16), np.empty(shape, np.bool_)
    halve(
        planes.data,
        planes.variance,
        planes.n_good,
        spatial,
        spectral,
        depth,
        area,
        data,
        variance,
        n_good,
        mask,
    )
    flags = None
    if planes.flags is not None:
        flags = np.empty(shape, np.uint16)
        halve_flags(planes.flags, planes.n_good, depth, flags)
    modes = tuple(_coarse_mode(mode, planes.n_good, depth, area) for mode in planes.modes)
    return Planes(data, variance, mask, n_good, flags, modes)


def _coarse_mode(mode: Mode, n_good: Array, depth: int, area: float) -> Mode:
    """Average the map of a shared error like the values."""
    if np.ndim(mode.map) == 0:
        return mode._replace(map=float(mode.map) * area)
    return mode._replace(map=block_mean(np.asarray(mode.map), n_good, depth, area))


def block_mean(plane: Array, n_good: Array, depth: int, area: float) -> Array:
    """Return the mean of the good pixels of blocks, times ``area``; 0 where there is none. Shapes as in `halved`."""
    count, total = (
        _block_sum(values, depth)
        for values in (n_good.astype(np.float64), np.where(n_good > 0, plane, 0.0) * n_good)
    )
    mean = np.zeros(count.shape)
    np.divide(total * area, count, out=mean, where=count > 0)
    return mean.astype(np.float32)


def _block_sum(values: Array, depth: int) -> Array:
    for axis, side in enumerate((depth, 2, 2)):
        values = np.add.reduceat(values, np.arange(0, values.shape[axis], side), axis=axis)
    return values
