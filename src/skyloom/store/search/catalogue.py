"""`Catalogue`: all columns of all observations that are visible, those a search needs in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.store.schema import COLUMNS
from skyloom.store.search.index import Coded, SkyIndex, sky_order
from skyloom.store.search.links import Links, find_links
from skyloom.store.search.polygons import parse_regions

__all__ = ["CHUNK", "Catalogue", "assembled", "read_rows"]

Array = NDArray[Any]
CHUNK = 1 << 15
"""Rows of a column that are compressed together."""
FEW_RUNS = 32
"""Runs of rows that are read one by one; for more of them the whole column is."""


@dataclass(eq=False)
class Catalogue:
    """All visible observations, in the order of the index.

    Attributes
    ----------
    names : tuple of str
        Of the parts.
    part : (n,) int32 array
        Which of the parts each observation is in.
    row : (n,) int64 array
        Its number in the table of the part.
    index : SkyIndex
    columns : mapping
        Name -> array or HDF5 dataset of those that are in no index; texts as bytes.
    stored_links : Links or None
        None where they have not been computed for exactly these observations.
    """

    names: tuple[str, ...]
    part: NDArray[np.int32]
    row: NDArray[np.int64]
    index: SkyIndex
    columns: Mapping[str, Any]
    stored_links: Any = None
    file: Any = None
    _by_name: tuple[Array, Array] | None = None

    def __len__(self) -> int:
        return int(self.part.size)

    def column(self, name: str, rows: ArrayLike | None = None) -> Array:
        """Return a column, or some rows of it; texts as numpy text."""
        values = self.raw(name, rows)
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values

    def raw(self, name: str, rows: ArrayLike | None = None) -> Array:
        """Return a column, or some rows of it; texts as bytes."""
        if name in self.index.columns:
            values = self.index.columns[name]
            return values if rows is None else values[np.asarray(rows)]
        return read_rows(self.columns[name], rows)

    def rows_named(self, obs_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of observations; -1 where there is none of the name."""
        if self._by_name is None:
            names = self.raw("obs_id")
            order = self.columns.get("by_name")
            self._by_name = names, np.argsort(names, kind="stable") if order is None else order[:]
        names, order = self._by_name
        if not names.size:
            return np.full(len(obs_ids), -1)
        wanted = np.array([name.encode() for name in obs_ids], dtype=bytes)
        place = np.minimum(np.searchsorted(names, wanted, sorter=order), names.size - 1)
        rows = order[place].astype(np.int64)
        return np.where(names[rows] == wanted, rows, -1)

    def links(self) -> Links:
        """Return which images cover which spectra."""
        if self.stored_links is None:
            self.stored_links = find_links(self.index)
        return self.stored_links if isinstance(self.stored_links, Links) else self._read_links()

    def _read_links(self) -> Links:
        group = self.stored_links
        self.stored_links = Links(group["spectrum"][:].astype(np.int64), group["image"][:].astype(np.int64))
        return self.stored_links

    def close(self) -> None:
        """Close the index file."""
        if self.file is not None:
            self.file.close()


def read_rows(values: Any, rows: ArrayLike | None) -> Array:
    """Return some rows of an array or an HDF5 dataset: run by run where they lie together."""
    if rows is None:
        return np.asarray(values[:])
    wanted = np.asarray(rows, dtype=np.int64)
    if isinstance(values, np.ndarray):
        return values[wanted]
    if not wanted.size:
        return np.empty(0, values.dtype)
    known, back = np.unique(wanted, return_inverse=True)
    cuts = np.flatnonzero(np.diff(known) > CHUNK // 8) + 1
    if cuts.size >= FEW_RUNS:
        return np.asarray(values[:])[wanted]
    runs = np.split(known, cuts)
    pieces = [values[int(run[0]) : int(run[-1]) + 1][run - run[0]] for run in runs]
    return np.concatenate(pieces)[back]


def assembled(names: tuple[str, ...], pieces: Sequence[Mapping[str, Array]]) -> Catalogue:
    """Return a catalogue of pieces: the columns, and ``part`` and ``row`` of each observation."""
    columns: dict[str, Array] = {}
    for name in (*COLUMNS, "row", "part"):
        parts = [piece[name] for piece in pieces]
        kind = COLUMNS[name].kind if name in COLUMNS else "i8"
        empty: Array = np.empty(0, "S1" if kind == "str" else kind)
        columns[name] = np.concatenate(parts) if parts else empty
    order = sky_order(columns["radius"], columns["healpix"])
    columns = {name: values[order] for name, values in columns.items()}
    index = SkyIndex.build(
        columns,
        Coded.of(columns["dataproduct_type"].tolist()),
        Coded.of(columns["band"].tolist()),
        parse_regions(columns["s_region"].tolist()),
    )
    part, row = columns.pop("part").astype(np.int32), columns.pop("row").astype(np.int64)
    return Catalogue(names, part, row, index, columns)
