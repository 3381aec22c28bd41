"""The list of observations of a store as CSV and VOTable."""

from __future__ import annotations

import csv
import io

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.store.contents import Contents
from skyloom.store.export.fields import expanded
from skyloom.store.export.observations import observation_table
from skyloom.store.export.votable import stream_votable

__all__ = ["MOST_ROWS", "list_csv", "list_votable"]

MOST_ROWS = 50_000


def list_votable(store: Contents, rows: NDArray[np.int64]) -> bytes:
    """Return all columns of some observations as VOTable.

    Raises
    ------
    InputError
        When there are none, or too many for the browser.
    """
    _check(rows)
    stream = io.BytesIO()
    stream_votable(observation_table(store, rows), stream)
    return stream.getvalue()


def list_csv(store: Contents, rows: NDArray[np.int64]) -> bytes:
    """Return all columns of some observations as CSV, nothing for what is not known.

    Raises
    ------
    InputError
        As `list_votable`.
    """
    _check(rows)
    table = observation_table(store, rows)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(field.name for field in table.fields)
    for block in table.blocks:
        columns = [_texts(expanded(field, block[field.name])) for field in table.fields]
        writer.writerows(zip(*columns, strict=True))
    return stream.getvalue().encode()


def _texts(values: NDArray[np.generic]) -> list[str]:
    if values.dtype.kind == "f":
        return ["" if value != value else repr(value) for value in values.astype(float).tolist()]
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "replace") for value in values.tolist()]
    return [str(value) for value in values.tolist()]


def _check(rows: NDArray[np.int64]) -> None:
    if not rows.size:
        raise InputError("the list is empty", field="export", remedy="widen the filters")
    if rows.size > MOST_ROWS:
        raise InputError(
            f"{rows.size:,} observations are too many to be handed to the browser",
            field="export",
            remedy=f"narrow the list to {MOST_ROWS:,}, or use 'skyloom store export'",
        )
