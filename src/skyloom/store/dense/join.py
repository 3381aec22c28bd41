"""Labels from catalogues: any table is joined to targets by the same key, or by its place on the sky."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.table import QTable, Table
from numpy.typing import NDArray

from skyloom.errors import AssumptionWarning, InputError
from skyloom.store.dense.targets import PLACES, degrees, near

__all__ = [
    "MISSING",
    "ONE",
    "SEVERAL",
    "Match",
    "label_columns",
    "match_by_key",
    "match_by_sky",
    "read_table",
]

Array = NDArray[Any]
Int = NDArray[np.int64]
MISSING, ONE, SEVERAL = 0, 1, 2
"""What a target found in a table: nothing, one row, or several, of which one was taken."""
ALIASES = {
    "plateid": "plate",
    "fiber": "fiberid",
    "fibre": "fiberid",
    "fibreid": "fiberid",
    "fiber_id": "fiberid",
    "mjdid": "mjd",
}
SENTINELS = (-9999.0, -999.0, -99.0)
"""Numbers that catalogues write where nothing is known."""
FORMS = {
    ".csv": "ascii.csv",
    ".tsv": "ascii.tab",
    ".ecsv": "ascii.ecsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".vot": "votable",
    ".xml": "votable",
}
LARGEST_WHOLE = 2**53


class Match(NamedTuple):
    """Which row of a table belongs to each target.

    Parameters
    ----------
    row : (n,) int array
        -1 where there is none.
    status : (n,) uint8 array
        `MISSING`, `ONE` or `SEVERAL`.
    distance : (n,) array or None, arcsec
        Of a match on the sky.
    duplicates : int
        Rows of the table that repeat a key, or lie near a target that has taken another row.
    reused : int
        Targets that share their row with another one.
    """

    row: Int
    status: NDArray[np.uint8]
    distance: NDArray[np.float64] | None
    duplicates: int
    reused: int

    def describe(self) -> dict[str, int]:
        """Return the counts."""
        return {
            "targets": int(self.row.size),
            "matched": int(np.count_nonzero(self.status != MISSING)),
            "missing": int(np.count_nonzero(self.status == MISSING)),
            "ambiguous": int(np.count_nonzero(self.status == SEVERAL)),
            "duplicates": self.duplicates,
            "reused": self.reused,
        }


def read_table(path: str | Path) -> Table:
    """Read a table: FITS, VOTable, ECSV, CSV, Parquet, or whatever else astropy knows.

    Raises
    ------
    InputError
        When there is none, or it cannot be read.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError("there is no such table", source=source, remedy="check the name")
    try:
        with warnings.catch_warnings():
            from astropy.io.votable.exceptions import VOWarning
            from astropy.units import UnitsWarning

            # Units that astropy does not know are kept as text; tables of surveys have many.
            warnings.simplefilter("ignore", UnitsWarning)
            warnings.simplefilter("ignore", VOWarning)
            return _read(source, FORMS.get(source.suffix.lower()))
    except Exception as error:
        # Each format of astropy has errors of its own.
        raise InputError(
            f"cannot be read as a table: {error}",
            source=source,
            remedy="give FITS, VOTable, ECSV, CSV or Parquet with the usual ending",
        ) from error


def _read(source: Path, form: str | None) -> Table:
    if form != "parquet":
        return Table.read(source) if form is None else Table.read(source, format=form)
    # astropy needs pandas for these.
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: install it, or give another format") from error
    found = parquet.read_table(source)
    table = Table()
    for field, column in zip(found.schema, found.columns, strict=True):
        values = column.to_pylist() if column.null_count else column.to_numpy()
        if column.null_count:
            known = [value for value in values if value is not None]
            fill = known[0] if known else ""
            values = np.ma.array(
                [fill if value is None else value for value in values],
                mask=[value is None for value in values],
            )
        elif values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
            values = values.astype(np.str_)
        table[field.name] = values
        unit = (field.metadata or {}).get(b"unit")
        if unit:
            table[field.name].unit = unit.decode()
    return table


def column_name(table: Table, wanted: str, what: str) -> str:
    """Return the column of a table that is meant, whatever its case; PLATEID is plate, FIBER is fiberid."""
    if wanted in table.colnames:
        return wanted
    found = [name for name in table.colnames if _plain(name) == _plain(wanted)]
    if len(found) == 1:
        return str(found[0])
    trouble = (
        f"{len(found)} columns may be {wanted!r}: {', '.join(found)}" if found else f"no column {wanted!r}"
    )
    raise InputError(
        f"the table has {trouble}",
        source=table.meta.get("path"),
        field=what,
        remedy=f"it has {', '.join(table.colnames[:40])}",
    )


def _plain(name: str) -> str:
    lower = name.strip().lower()
    return ALIASES.get(lower, lower)


def match_by_key(
    wanted: Mapping[str, Array], owner: Int, n_targets: int, table: Table, key: Sequence[str]
) -> Match:
    """Find the row with the same key.

    Parameters
    ----------
    wanted : mapping of name to (m,) array
        The key of each spectrum, or of each target; masked where it is not known.
    owner : (m,) int array
        The target of each; the nearest spectrum of a target comes first.
    n_targets : int
    table : Table
        Numbers may be text, of any width, with spaces or leading zeros.
    key : sequence of str
        Columns of the table, in any case; see `column_name`.

    Raises
    ------
    InputError
        When a column is missing on either side.
    """
    known = {_plain(name): name for name in wanted}
    codes_here = np.zeros(owner.size, np.int64)
    codes_there = np.zeros(len(table), np.int64)
    usable_here, usable_there = np.ones(owner.size, bool), np.ones(len(table), bool)
    for name in key:
        if _plain(name) not in known:
            raise InputError(
                f"the spectra have no {name!r}",
                field="key",
                remedy=f"use {', '.join(wanted)}, or name it in keys= when the cube is built",
            )
        column = table[column_name(table, name, "key")]
        here, good_here = _comparable(wanted[known[_plain(name)]])
        if owner.size and not good_here.any():
            raise InputError(
                f"no spectrum tells its {name!r}", field="key", remedy=f"use {', '.join(wanted)}"
            )
        there, good_there = _comparable(column)
        if here.dtype.kind != there.dtype.kind:
            here, there = here.astype(str), there.astype(str)
        _, codes = np.unique(np.concatenate([here, there]), return_inverse=True)
        # Numbered anew each time, so that many columns cannot overflow.
        merged = np.concatenate([codes_here, codes_there]) * (int(codes.max(initial=0)) + 1) + codes
        _, merged = np.unique(merged, return_inverse=True)
        codes_here, codes_there = merged[: owner.size], merged[owner.size :]
        usable_here &= good_here
        usable_there &= good_there
    rows = np.flatnonzero(usable_there)
    order = rows[np.argsort(codes_there[rows], kind="stable")]
    sorted_codes = codes_there[order]
    first = np.searchsorted(sorted_codes, codes_here, "left")
    count = np.where(usable_here, np.searchsorted(sorted_codes, codes_here, "right") - first, 0)
    found = np.full(owner.size, -1, np.int64)
    found[count > 0] = order[first[count > 0]]
    duplicates = int(rows.size - np.unique(sorted_codes).size)
    return _collected(found, count, owner, n_targets, duplicates)


def _collected(found: Int, count: Int, owner: Int, n_targets: int, duplicates: int) -> Match:
    """Give each target the row of the first of its spectra that has one."""
    row = np.full(n_targets, -1, np.int64)
    status = np.zeros(n_targets, np.uint8)
    for index in np.flatnonzero(count > 0):
        target = owner[index]
        if row[target] < 0:
            row[target], status[target] = found[index], ONE if count[index] == 1 else SEVERAL
        elif row[target] != found[index]:
            status[target] = SEVERAL
    return Match(row, status, None, duplicates, _reused(row))


def _reused(row: Int) -> int:
    taken = row[row >= 0]
    _, counts = np.unique(taken, return_counts=True)
    return int(counts[counts > 1].sum())


def _comparable(column: Any) -> tuple[Array, NDArray[np.bool_]]:
    """Return a column of a key as int64 where all values are whole numbers, else as text; and which are known."""
    masked = np.ma.getmaskarray(np.ma.asarray(column))
    values = np.asarray(np.ma.filled(column, 0) if _is_number(column) else column)
    good = ~masked
    if values.dtype.kind in "iub":
        return values.astype(np.int64), good
    if values.dtype.kind == "f":
        good &= np.isfinite(values)
        whole = np.where(good, values, 0.0)
        if np.all(whole == np.rint(whole)):
            return whole.astype(np.int64), good
        return np.char.strip(values.astype(str)), good
    text = np.char.strip(values.astype(str) if values.dtype.kind != "S" else np.char.decode(values, "utf-8"))
    good &= text != ""
    try:
        return np.where(good, text, "0").astype(np.int64), good
    except (ValueError, OverflowError):
        return text, good


def _is_number(column: Any) -> bool:
    return bool(np.asarray(column).dtype.kind in "iubf")


def match_by_sky(ra: Array, dec: Array, table: Table, radius: float) -> Match:
    """Find the nearest row of a table within a radius (arcsec) of each target, by its columns ``ra`` and ``dec``."""
    for names in PLACES:
        try:
            chosen = [column_name(table, name, "radius") for name in names]
            break
        except InputError:
            continue  # Another pair of names.
    else:
        raise InputError(
            f"the table has the columns {', '.join(table.colnames[:40])}",
            source=table.meta.get("path"),
            field="radius",
            remedy="name two of them ra and dec, or join by a key",
        )
    there = degrees(table[chosen[0]]), degrees(table[chosen[1]])
    start, found, distance = near((np.asarray(ra), np.asarray(dec)), there, radius)
    count = np.diff(start)
    row, best = np.full(count.size, -1, np.int64), np.full(count.size, np.nan)
    has = count > 0
    row[has], best[has] = found[start[:-1][has]], distance[start[:-1][has]]
    status = np.where(count > 1, SEVERAL, np.where(has, ONE, MISSING)).astype(np.uint8)
    return Match(row, status, best, int(found.size - np.count_nonzero(has)), _reused(row))


def label_columns(
    table: Table,
    match: Match,
    columns: Iterable[str] | None = None,
    *,
    key: Sequence[str] = (),
    invalid: Sequence[float] = (),
) -> QTable:
    """Return columns of a table, a row for each target.

    Parameters
    ----------
    table : Table
    match : Match
    columns : sequence of str, optional
        None: all numbers and texts that are no part of the key.
    key : sequence of str
    invalid : sequence of float
        Values that mean "not known", as -9999.

    Returns
    -------
    QTable
        Numbers that are missing are NaN, and whole numbers become floating where some are missing; texts are empty.

    Raises
    ------
    InputError
        When a column does not exist, or cannot be a label.
    """
    if columns is None:
        keys = {_plain(name) for name in key}
        chosen = [name for name in table.colnames if _plain(name) not in keys and _storable(table[name])]
    else:
        chosen = [column_name(table, name, "columns") for name in columns]
    found = QTable()
    here = match.row >= 0
    for name in chosen:
        if not _storable(table[name]):
            raise InputError(
                f"the column {name} holds {np.asarray(table[name]).dtype}: it cannot be a label",
                field="columns",
                remedy="choose numbers or texts",
            )
        column = table[name]
        values = _taken(column, match.row, here, invalid, name)
        unit = getattr(column, "unit", None)
        found[name] = values if unit is None or values.dtype.kind in "US" else values << unit
        found[name].info.description = getattr(column.info, "description", None) or ""
    return found


def _storable(column: Any) -> bool:
    dtype = np.asarray(column).dtype
    return dtype.kind in "biufUS" or (dtype.kind == "O" and all(isinstance(v, str) for v in column))


def _taken(column: Any, row: Int, here: NDArray[np.bool_], invalid: Sequence[float], name: str) -> Array:
    values = np.asarray(getattr(column, "value", column))
    masked = np.ma.getmaskarray(np.ma.asarray(column))
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind in "UO":
        texts = np.char.strip(values.astype(str))
        known = here & ~(masked[row] if masked.size else False)
        return np.where(known, texts[row] if texts.size else "", "")
    shape = (row.size, *values.shape[1:])
    taken = np.full(shape, np.nan, np.float64 if values.dtype.kind != "f" else values.dtype)
    unknown = masked.copy()
    for number in invalid:
        unknown |= values == number
    _warn_of_sentinels(values, unknown, invalid, name)
    if values.dtype.kind in "biu":
        if values.size and np.all(here) and not unknown[row].any():
            return np.asarray(values[row])
        if (
            values.size
            and values.dtype.kind != "b"
            and np.abs(values.astype(np.float64)).max() > LARGEST_WHOLE
        ):
            raise InputError(
                f"{name} has numbers of more than 16 digits, and some are missing",
                field="columns",
                remedy="turn the column into text",
            )
    taken[here] = np.where(unknown, np.nan, values)[row[here]]
    return taken


def _warn_of_sentinels(values: Array, unknown: Array, invalid: Sequence[float], name: str) -> None:
    for number in SENTINELS:
        if number in invalid:
            continue
        count = int(np.count_nonzero((values == number) & ~unknown))
        if count:
            warnings.warn(
                f"{name} is {number:g} in {count} of {values.shape[0]} rows and is taken as a value; if it means "
                f"'not known', give invalid={number:g}",
                AssumptionWarning,
                stacklevel=5,
            )
