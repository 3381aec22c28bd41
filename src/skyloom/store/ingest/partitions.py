"""Which HEALPix cell an observation is filed under: cells of one order, or of all orders, as much as belongs in a file.

The cells of a store that sizes its partitions by bytes are found from the finest upwards. Four neighbours are joined to
the cell that holds them as long as that has not more than the target; where it would, the heaviest of them become
partitions of their own until the rest fits, and the rest goes on. So a partition is a cell less the finer partitions in
it, and, since the heaviest of at most four that exceed the target has more than a quarter of it, every partition has
between a quarter and the whole of the target. Two kinds cannot: what is left over in one of the 12 cells of order 0 may
be less, and a cell of the finest order (or one large observation) more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import InputError, ShapeError
from skyloom.store.ingest.locate import Source
from skyloom.store.schema import POSITION_ORDER, StoreSettings
from skyloom.store.search.cells import healpix_of

__all__ = ["FINEST_ORDER", "Group", "groups_of", "partition_tree"]

STORED_BYTES = 12
"""Of a number in a source: value, variance, mask and counts, and a third more for the levels."""
PACKED_BYTES = 6
"""The same on the disk, compressed without loss: 6.6 measured for frames of SDSS, 4.8 for its spectra."""

FINEST_ORDER = 12
"""Cells of 51 arcsec: less than a frame covers."""

Int = NDArray[np.int64]


class Group(NamedTuple):
    """Sources that belong into one file."""

    place: str
    """Order and cell of the partition, e.g. ``5-1234``."""
    sources: tuple[Source, ...]


def groups_of(sources: Sequence[Source], settings: StoreSettings) -> Iterator[Group]:
    """Sort sources into files: by their cell, in the order in which they come, and not more than its size allows.

    Parameters
    ----------
    sources : sequence of Source
        Their ``cell`` is filled in.
    settings : StoreSettings
        ``adaptive_bytes``, else ``partition_order``, decides about the cells.
    """
    if not sources:
        return
    finest = healpix_of([source.ra for source in sources], [source.dec for source in sources])
    n_pixels = np.array([source.n_pixels for source in sources], np.int64)
    size, limit = n_pixels * STORED_BYTES, settings.part_bytes
    if settings.adaptive_bytes is None:
        order = np.where(finest < 0, -1, settings.partition_order)
        cell = np.where(finest < 0, -1, finest >> 2 * (POSITION_ORDER - settings.partition_order))
    else:
        size, limit = n_pixels * PACKED_BYTES, settings.adaptive_bytes
        order, cell = partition_tree(finest, size, settings.adaptive_bytes)
    in_order = np.lexsort((cell, order))
    changes = (np.diff(order[in_order]) != 0) | (np.diff(cell[in_order]) != 0)
    for members in np.split(in_order, np.flatnonzero(changes) + 1):
        first = members[0]
        place = "nowhere" if cell[first] < 0 else f"{order[first]}-{cell[first]}"
        group: list[Source] = []
        held = 0
        for member in members.tolist():
            if group and held + size[member] > limit:
                yield Group(place, tuple(group))
                group, held = [], 0
            group.append(sources[member]._replace(cell=int(finest[member])))
            held += int(size[member])
        yield Group(place, tuple(group))


def partition_tree(
    healpix: ArrayLike, size: ArrayLike, target: float, max_order: int = FINEST_ORDER
) -> tuple[NDArray[np.int8], Int]:
    """Return the cell under which each observation is filed, so that each cell holds about as many bytes.

    Parameters
    ----------
    healpix : (n,) array of int64
        Cells of the positions at order 29, nested; -1 without a position.
    size : (n,) array
        Bytes of each; what has none counts as one byte.
    target : float
        Bytes that a cell may hold.
    max_order : int
        Finest order of a cell, 0 to 29.

    Returns
    -------
    order : (n,) array of int8
        -1 without a position.
    cell : (n,) array of int64
        Nested; -1 without a position.

    Raises
    ------
    ShapeError
        When there is not one size for each position.
    InputError
        When the target is not above 0, or the order out of its range.

    Notes
    -----
    The order of the observations does not matter. Time and memory go with their number, whatever their distribution.
    """
    place = np.asarray(healpix, dtype=np.int64)
    weight = np.maximum(np.asarray(size, dtype=np.float64), 1.0)
    if place.ndim != 1 or weight.shape != place.shape:
        raise ShapeError(f"sizes have shape {weight.shape}; expected {place.shape}, that of the positions")
    if not target > 0:
        raise InputError(f"the target is {target} bytes; expected above 0", field="target")
    if not 0 <= max_order <= POSITION_ORDER:
        raise InputError(f"max_order is {max_order}; expected 0 to {POSITION_ORDER}", field="max_order")
    known = place >= 0
    order = np.full(place.shape, -1, np.int8)
    cell = np.full(place.shape, -1, np.int64)
    leaves, own = np.unique(place[known] >> 2 * (POSITION_ORDER - max_order), return_inverse=True)
    if leaves.size:
        held: NDArray[np.float64] = np.bincount(own, weight[known]).astype(np.float64)
        found = _cells_of_leaves(leaves, held, target, max_order)
        order[known] = found[own]
        cell[known] = leaves[own] >> 2 * (max_order - found[own].astype(np.int64))
    return order, cell


def _cells_of_leaves(leaves: Int, weight: NDArray[np.float64], target: float, order: int) -> NDArray[np.int8]:
    """Return the order of the partition of each of the cells of the finest order, which are sorted."""
    result = np.zeros(leaves.size, np.int8)
    # Which cells of the finest order are in no partition yet, and in which of the cells of this order they are.
    waiting, inside = np.arange(leaves.size), np.arange(leaves.size)
    cells = leaves
    while order > 0 and cells.size:
        above = cells >> 2
        # They are in order, so that those of one parent follow each other.
        begins = np.concatenate([[True], above[1:] != above[:-1]])
        parents, place = above[begins], np.cumsum(begins) - 1
        rest: NDArray[np.float64] = np.bincount(place, weight).astype(np.float64)
        too_heavy = rest > target
        if too_heavy.any():
            gone, rest[too_heavy] = _divide(cells, weight, too_heavy[place], target)
            chosen = gone[inside]
            result[waiting[chosen]] = order
            waiting, inside = waiting[~chosen], inside[~chosen]
        inside = place[inside]
        going_on = rest > 0
        inside = (np.cumsum(going_on) - 1)[inside]
        cells, weight = parents[going_on], rest[going_on]
        order -= 1
    return result


def _divide(
    cells: Int, weight: NDArray[np.float64], concerned: NDArray[np.bool_], target: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Tell which cells become partitions, of each four the heaviest first until the rest fits, and what that weighs.

    Cells are in order; ``concerned`` has those that weigh too much together. The rests are in the order of the parents.
    """
    above = cells[concerned] >> 2
    begins = np.concatenate([[True], above[1:] != above[:-1]])
    place, child = np.cumsum(begins) - 1, cells[concerned] & 3
    four = np.zeros((int(place[-1]) + 1, 4))
    four[place, child] = weight[concerned]
    # Of those that weigh the same, the first.
    by_weight = np.argsort(-four, axis=1, kind="stable")
    # Entry j: what is left without the j heaviest.
    left = np.zeros((len(four), 5))
    left[:, :4] = np.cumsum(np.take_along_axis(four, by_weight, axis=1)[:, ::-1], axis=1)[:, ::-1]
    count = np.argmax(left <= target, axis=1)
    chosen = np.zeros(four.shape, bool)
    np.put_along_axis(chosen, by_weight, np.arange(4) < count[:, None], axis=1)
    gone = np.zeros(cells.shape, bool)
    gone[concerned] = chosen[place, child]
    return gone, left[np.arange(len(four)), count]
