"""HEALPix cells: where positions lie, and ranges of cells that hold all that is near a region."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.store.schema import POSITION_ORDER
from skyloom.store.search.sphere import unit_vectors

if TYPE_CHECKING:
    from skyloom.store.search.regions import Region

__all__ = [
    "CELL_REACH",
    "CELL_SIDE",
    "N_CELLS",
    "ROUNDING",
    "covering",
    "healpix_of",
    "in_ranges",
    "order_around",
    "order_of",
    "ranges_of",
    "sorted_ranges",
]

Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

N_CELLS = 12 << (2 * POSITION_ORDER)
CELL_SIDE = float(np.degrees(np.sqrt(np.pi / 3)))
"""Square root of the area of a HEALPix cell of order 0, in deg."""
CELL_REACH = 1.1
"""No corner of a cell is farther from its centre than this, times the root of its area."""
ROUNDING = 1e-9
"""Radians (0.2 mas) by which candidates are searched farther, so that rounding loses none."""
MANY_CELLS = 1000
"""Cells beyond which a covering is not made finer."""


def healpix_of(ra: ArrayLike, dec: ArrayLike, order: int = POSITION_ORDER) -> Int:
    """Return the nested HEALPix cells of positions in deg; -1 where one is not finite."""
    from astropy import units as u
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix.nested import lonlat_to_healpix

    longitude, latitude = np.broadcast_arrays(
        np.atleast_1d(ra).astype(float), np.atleast_1d(dec).astype(float)
    )
    known = np.isfinite(longitude) & np.isfinite(latitude)
    cells = np.full(longitude.shape, -1, np.int64)
    if known.any():
        # Starting threads takes longer than a few positions.
        cells[known] = lonlat_to_healpix(
            Longitude(longitude[known] % 360.0, u.deg),
            Latitude(latitude[known], u.deg),
            order,
            num_threads=0 if longitude.size > 1000 else 1,
        ).astype(np.int64)
    return cells


def order_of(side: float, finest: int = POSITION_ORDER) -> int:
    """Return the finest order whose cells are not smaller than ``side`` in deg."""
    return min(max(math.floor(math.log2(CELL_SIDE / side)), 0), finest)


def order_around(radius: float) -> int:
    """Return the finest order at which a cell with its neighbours holds all within ``radius`` (deg) of it.

    No cell is narrower than 0.7 times the root of its area.
    """
    return order_of(2.0 * radius + 1e-6)


def covering(region: Region, padding: float, finest: int) -> Int:
    """Return the ranges of all cells that may hold a position within ``padding`` (deg) of a region.

    From large cells to small ones: those whose circle about the centre does not touch the region are left out, the
    others divided, as long as there are not too many.
    """
    from cdshealpix.nested import healpix_to_lonlat

    order = 1
    cells = np.arange(48, dtype=np.int64)
    while cells.size:
        longitude, latitude = healpix_to_lonlat(cells, order)
        vectors = unit_vectors(longitude.deg, latitude.deg)
        reach = CELL_REACH * CELL_SIDE / (1 << order) + padding + np.degrees(ROUNDING)
        cells = cells[region.touches_circles(vectors, np.full(cells.size, reach))]
        if order >= finest or cells.size > MANY_CELLS:
            break
        order += 1
        cells = (4 * cells[:, None] + np.arange(4)).ravel()
    return _as_ranges(cells, np.full(cells.size, order))


def _as_ranges(cells: ArrayLike, orders: ArrayLike) -> Int:
    return _merged(ranges_of(cells, orders))


def ranges_of(cells: ArrayLike, orders: ArrayLike) -> Int:
    """Return the range of each cell."""
    shift = 2 * (POSITION_ORDER - np.asarray(orders, dtype=np.int64))
    first = np.asarray(cells).astype(np.int64) << shift
    return np.stack([first, first + (np.int64(1) << shift)], axis=-1)


def sorted_ranges(ranges: Int) -> Int:
    """Return ranges in the order in which they begin."""
    return ranges[np.argsort(ranges[:, 0])]


def _merged(ranges: Int) -> Int:
    """Sort ranges and join those that touch."""
    ranges = sorted_ranges(ranges)
    if len(ranges) < 2:
        return ranges
    ends = np.maximum.accumulate(ranges[:, 1])
    begins = np.concatenate([[True], ranges[1:, 0] > ends[:-1]])
    first = np.flatnonzero(begins)
    return np.stack([ranges[first, 0], np.maximum.reduceat(ranges[:, 1], first)], axis=-1)


def in_ranges(cells: Int, ranges: Int) -> Bool:
    """Tell which cells (order 29) are in ranges, which are in order and do not overlap."""
    if not len(ranges):
        return np.zeros(cells.shape, bool)
    place = np.searchsorted(ranges[:, 0], cells, side="right") - 1
    return (place >= 0) & (cells < ranges[np.maximum(place, 0), 1])
