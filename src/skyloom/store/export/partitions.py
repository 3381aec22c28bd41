"""Rows of a table sorted by place without holding them: they wait in files, one for each cell of the sky."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.store.export.fields import Rows
from skyloom.store.schema import POSITION_ORDER

__all__ = ["MAX_ROWS", "NOWHERE", "Partition", "partitions"]

MAX_ROWS = 1 << 20
"""Rows of a partition, where its cell can be divided."""
FIRST_ORDER = 8
"""HEALPix order of the cells into which rows are sorted first; 14 arcmin."""
STEP = 2
"""Orders by which a cell with too many rows is divided."""
NOWHERE = -1
"""Cell of what has no place."""


class Partition(NamedTuple):
    """Rows of one cell, sorted by ``healpix``.

    Parameters
    ----------
    order, pixel : int
        Of the cell; `NOWHERE` for rows without a place.
    rows : structured array
    """

    order: int
    pixel: int
    rows: Rows


class _Bucket(NamedTuple):
    """Rows of a cell in files."""

    order: int
    pixel: int
    n: int
    paths: tuple[Path, ...]

    @property
    def first(self) -> int:
        """First cell of the finest order; before all others for what has no place."""
        return self.pixel << (2 * (POSITION_ORDER - self.order)) if self.pixel >= 0 else NOWHERE


def partitions(
    blocks: Iterable[Rows], dtype: np.dtype[Any], folder: Path, *, max_rows: int = MAX_ROWS
) -> Iterator[Partition]:
    """Yield rows cell by cell in the order of ``healpix``, cells as large as ``max_rows`` allows.

    Parameters
    ----------
    blocks : iterable of structured arrays
        With a column ``healpix``: nested, of the finest order, -1 without a place.
    dtype : structured dtype
        Of the rows.
    folder : path
        Where they wait; as large as all of them. Files are removed when they have been read.
    max_rows : int
        Of a partition. Cells of the finest order are not divided: several partitions of one cell follow each other.
    """
    leaves = _merged(_spill(blocks, FIRST_ORDER, folder), max_rows)
    for leaf in sorted(leaves, key=lambda bucket: bucket.first):
        yield from _divided(leaf, dtype, folder, max_rows)


def _spill(blocks: Iterable[Rows], order: int, folder: Path) -> list[_Bucket]:
    counts: dict[int, int] = {}
    for block in blocks:
        cells = _cells(block["healpix"], order)
        by_cell = np.argsort(cells, kind="stable")
        cells = cells[by_cell]
        cuts = np.flatnonzero(np.diff(cells)) + 1
        for part in np.split(by_cell, cuts):
            cell = int(_cells(block["healpix"][part[:1]], order)[0])
            with _path(folder, order, cell).open("ab") as file:
                block[part].tofile(file)
            counts[cell] = counts.get(cell, 0) + part.size
    return [_Bucket(order, cell, n, (_path(folder, order, cell),)) for cell, n in counts.items()]


def _cells(healpix: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    # The sign is kept: -1 stays -1.
    return np.asarray(healpix >> (2 * (POSITION_ORDER - order)))


def _path(folder: Path, order: int, cell: int) -> Path:
    return folder / f"{order}_{cell}.rows"


def _merged(buckets: list[_Bucket], max_rows: int) -> list[_Bucket]:
    """Join cells to their parents, as long as these do not get too many rows."""
    done = [bucket for bucket in buckets if bucket.pixel < 0]
    level = [bucket for bucket in buckets if bucket.pixel >= 0]
    for order in range(FIRST_ORDER - 1, -1, -1):
        parents: dict[int, list[_Bucket]] = {}
        for bucket in level:
            parents.setdefault(bucket.pixel >> 2, []).append(bucket)
        blocked = {bucket.pixel >> (2 * (bucket.order - order)) for bucket in done if bucket.pixel >= 0}
        level = []
        for pixel, children in parents.items():
            n = sum(child.n for child in children)
            if n > max_rows or pixel in blocked:
                done += children
            else:
                paths = tuple(path for child in children for path in child.paths)
                level.append(_Bucket(order, pixel, n, paths))
    return done + level


def _divided(bucket: _Bucket, dtype: np.dtype[Any], folder: Path, max_rows: int) -> Iterator[Partition]:
    if bucket.n <= max_rows:
        rows = np.concatenate([np.fromfile(path, dtype) for path in bucket.paths])
        _remove(bucket)
        yield Partition(bucket.order, bucket.pixel, rows[np.argsort(rows["healpix"], kind="stable")])
        return
    if bucket.order >= POSITION_ORDER or bucket.pixel < 0:
        for rows in _chunks(bucket, dtype, max_rows):
            yield Partition(bucket.order, bucket.pixel, rows)
        _remove(bucket)
        return
    order = min(bucket.order + STEP, POSITION_ORDER)
    smaller = _spill(_chunks(bucket, dtype, 1 << 16), order, folder)
    _remove(bucket)
    for child in sorted(smaller, key=lambda one: one.pixel):
        yield from _divided(child, dtype, folder, max_rows)


def _chunks(bucket: _Bucket, dtype: np.dtype[Any], n: int) -> Iterator[Rows]:
    for path in bucket.paths:
        with path.open("rb") as file:
            while (rows := np.fromfile(file, dtype, n)).size:
                yield rows


def _remove(bucket: _Bucket) -> None:
    for path in bucket.paths:
        path.unlink()
