"""The table of observations as a stream of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.store.export.fields import Field, Progress, Rows, TableStream
from skyloom.store.schema import COLUMNS

if TYPE_CHECKING:
    from skyloom.store.contents import Contents

__all__ = ["observation_table"]

PIECE = 1 << 13
"""Rows of a block: their outlines are long."""
_SYSTEMS = {
    "s_ra": "ICRS",
    "s_dec": "ICRS",
    "t_min": "UTC",
    "t_max": "UTC",
    "t_start": "TAI",
    "t_stop": "TAI",
}


def observation_table(
    store: Contents, rows: NDArray[np.int64] | Sequence[int], *, progress: Progress | None = None
) -> TableStream:
    """Return all columns of some observations, in blocks.

    Parameters
    ----------
    store : Contents
    rows : array of int
        Observations, as `Contents.search` returns them.
    progress : callable, optional

    Raises
    ------
    InputError
        When nothing is selected.
    """
    chosen = np.asarray(rows, dtype=np.int64)
    if not chosen.size:
        raise InputError("nothing is selected", field="where", remedy="see what 'observations' finds")
    kinds = {name: column.kind for name, column in COLUMNS.items()} | _text_kinds(store, chosen)
    fields = tuple(
        Field(
            name,
            kinds[name],
            column.unit,
            column.ucd,
            column.description,
            _SYSTEMS.get(name, ""),
            -1 if name == "healpix" else None,
        )
        for name, column in COLUMNS.items()
    )
    return TableStream(
        "observations",
        f"Observations of a store of images, spectra and cubes: {chosen.size} of {len(store)}",
        fields,
        _blocks(store, chosen, fields, progress),
    )


def _pieces(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for first in range(0, rows.size, PIECE):
        yield rows[first : first + PIECE]


def _text_kinds(store: Contents, rows: NDArray[np.int64]) -> dict[str, str]:
    """Return the type that holds all texts of a column, bytes where they are ASCII."""
    names = [name for name, column in COLUMNS.items() if column.kind == "str"]
    widths, wide = dict.fromkeys(names, 1), dict.fromkeys(names, False)
    for piece in _pieces(rows):
        table = store.table(piece, names)
        for name in names:
            letters = np.ascontiguousarray(np.asarray(table[name]).astype(str))
            widths[name] = max(widths[name], letters.dtype.itemsize // 4)
            wide[name] |= bool(letters.view(np.uint32).max(initial=0) > 127)
    return {name: f"{'U' if wide[name] else 'S'}{widths[name]}" for name in names}


def _blocks(
    store: Contents, rows: NDArray[np.int64], fields: tuple[Field, ...], progress: Progress | None
) -> Iterator[Rows]:
    done = 0
    for piece in _pieces(rows):
        block = np.zeros(piece.size, [(column.name, column.dtype) for column in fields])
        table = store.table(piece, [column.name for column in fields])
        for column in fields:
            values = np.asarray(getattr(table[column.name], "value", table[column.name]))
            block[column.name] = values
        done += piece.size
        yield block
        if progress is not None:
            progress("observations", done, rows.size)
