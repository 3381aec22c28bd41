"""`Catalogue`: all columns of all observations that are visible, those a search needs in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.store.schema import COLUMNS
from skyloom.store.search.index import NUMBERS, Coded, SkyIndex, sky_order
from skyloom.store.search.names import NameTable
from skyloom.store.search.polygons import Polygons, parse_regions

__all__ = ["CHUNK", "NAMED", "Catalogue", "Piece", "assembled", "piece_of_columns", "read_rows"]

Array = NDArray[Any]
Int = NDArray[np.int64]
CHUNK = 1 << 15
"""Rows of a column that are compressed together."""
FEW_RUNS = 32
"""Runs of rows that are read one by one; for more of them the whole column is."""
NAMED = ("obs_id", "source_digest")
"""Columns whose texts can be looked up."""


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
        Name -> array, HDF5 dataset or `JoinedColumn` of those that are in no index; texts as bytes.
    stored_tables : mapping
        Name of one of `NAMED` -> datasets of the keys and the rows of its table, where that is stored.
    file : h5py.File, optional
        Closed with the catalogue.
    """

    names: tuple[str, ...]
    part: NDArray[np.int32]
    row: Int
    index: SkyIndex
    columns: Mapping[str, Any]
    stored_tables: Mapping[str, tuple[Any, Any]] | None = None
    file: Any = None

    def __post_init__(self) -> None:
        self._tables: dict[str, NameTable] = {}

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

    def table(self, name: str) -> NameTable:
        """Return the table by which the texts of one of the columns `NAMED` are looked up."""
        if name not in self._tables:
            if self.stored_tables is None:
                self._tables[name] = NameTable.of(self.raw(name))
            else:
                keys, rows = self.stored_tables[name]
                self._tables[name] = NameTable(keys[:], rows[:])
        return self._tables[name]

    def rows_named(self, obs_ids: Sequence[str]) -> Int:
        """Return the rows of observations; -1 where there is none of the name."""
        wanted = np.array([name.encode() for name in obs_ids], dtype=bytes)
        return self.table("obs_id").first_of(wanted, lambda rows: self.raw("obs_id", rows))

    def rows_from(self, digests: Sequence[str]) -> Int:
        """Return the rows of all observations that came from files of these digests, ascending."""
        wanted = np.array([digest.encode() for digest in digests], dtype=bytes)
        return self.table("source_digest").all_of(wanted, lambda rows: self.raw("source_digest", rows))

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
    if isinstance(values, JoinedColumn):
        return values.take(wanted)
    known, back = np.unique(wanted, return_inverse=True)
    cuts = np.flatnonzero(np.diff(known) > CHUNK // 8) + 1
    if cuts.size >= FEW_RUNS:
        return np.asarray(values[:])[wanted]
    runs = np.split(known, cuts)
    pieces = [values[int(run[0]) : int(run[-1]) + 1][run - run[0]] for run in runs]
    return np.concatenate(pieces)[back]


# --- of several pieces ----------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """Observations that are to be part of a catalogue.

    Parameters
    ----------
    columns : mapping
        Name -> array or HDF5 dataset, of all rows there are.
    kept : (n,) int64 array
        Those of the rows that are visible, ascending. All the other members are of these alone.
    part, row : (n,) arrays
    kind, band : Coded
    polygons : Polygons
    """

    columns: Mapping[str, Any]
    kept: Int
    part: NDArray[np.int32]
    row: Int
    kind: Coded
    band: Coded
    polygons: Polygons


def piece_of_columns(columns: Mapping[str, Array], part: Array, row: Array) -> Piece:
    """Return observations of which all columns are in memory."""
    return Piece(
        columns,
        np.arange(len(row)),
        part.astype(np.int32),
        row.astype(np.int64),
        Coded.of(columns["dataproduct_type"]),
        Coded.of(columns["band"]),
        parse_regions(columns["s_region"]),
    )


@dataclass(frozen=True, eq=False)
class JoinedColumn:
    """A column of several pieces, read when it is asked for.

    Parameters
    ----------
    name : str
    pieces : sequence of Piece
    order : (n,) int64 array
        Which of the rows of all pieces, one after the other, is each row.
    """

    name: str
    pieces: Sequence[Piece]
    order: Int

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Wide enough for the texts of all pieces."""
        return np.result_type(*(piece.columns[self.name].dtype for piece in self.pieces))

    def __len__(self) -> int:
        return self.order.size

    def __getitem__(self, rows: slice) -> Array:
        if rows != slice(None):
            return self.take(np.arange(self.order.size)[rows])
        whole = [np.asarray(piece.columns[self.name][:]) for piece in self.pieces]
        whole = [
            values if piece.kept.size == values.size else values[piece.kept]
            for piece, values in zip(self.pieces, whole, strict=True)
        ]
        return np.concatenate(whole)[self.order]

    def take(self, rows: Int) -> Array:
        """Return some rows."""
        place = self.order[rows]
        values = np.empty(place.size, self.dtype)
        first = 0
        for piece in self.pieces:
            own = np.flatnonzero((place >= first) & (place < first + piece.kept.size))
            values[own] = read_rows(piece.columns[self.name], piece.kept[place[own] - first])
            first += piece.kept.size
        return values


def assembled(names: tuple[str, ...], pieces: Sequence[Piece], file: Any = None) -> Catalogue:
    """Return a catalogue of pieces."""
    empty = {name: np.empty(0, _kind_of(name)) for name in COLUMNS}
    # Without any piece: a catalogue of nothing.
    pieces = pieces or [piece_of_columns(empty, np.empty(0), np.empty(0))]
    healpix, radius = (
        np.concatenate([np.asarray(piece.columns[name][:])[piece.kept] for piece in pieces])
        for name in ("healpix", "radius")
    )
    order = sky_order(radius, healpix)
    del healpix, radius
    columns = {name: JoinedColumn(name, pieces, order) for name in COLUMNS}
    index = SkyIndex.build(
        {name: columns.pop(name)[:] for name in NUMBERS},
        _joined_codes([piece.kind for piece in pieces], order),
        _joined_codes([piece.band for piece in pieces], order),
        Polygons.joined([piece.polygons for piece in pieces]).take(order),
    )
    part, row = (
        np.concatenate([getattr(piece, name) for piece in pieces])[order] for name in ("part", "row")
    )
    return Catalogue(names, part, row, index, columns, None, file)


def _kind_of(name: str) -> str:
    kind = COLUMNS[name].kind
    return "S1" if kind == "str" else kind


def _joined_codes(columns: Sequence[Coded], order: Int) -> Coded:
    values = tuple(dict.fromkeys(value for column in columns for value in column.values))
    codes = [
        np.array([values.index(value) for value in column.values], np.int32)[column.codes]
        for column in columns
        if column.codes.size
    ]
    return Coded(np.concatenate([np.empty(0, np.int32), *codes])[order], values)
