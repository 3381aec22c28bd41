"""Columns of the targets and of the observations behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.store.dense.targets import Matches, Targets

if TYPE_CHECKING:
    from skyloom.store.contents import Contents

__all__ = ["Entries", "as_column", "key_columns", "observation_columns", "spectrum_entries", "target_columns"]

Array = NDArray[Any]
Entries = Mapping[int, Mapping[str, Any]]
"""What spectra tell, by their row."""


def observation_columns(
    store: Contents, rows: Sequence[int], entries: Entries, keys: Sequence[str]
) -> dict[str, Any]:
    """Return the columns of the observations in some rows, with the keys of spectra."""
    wanted = ("obs_id", "dataproduct_type", "band", "source", "source_digest", "digest")
    table = store.table(np.asarray(rows, dtype=np.int64), wanted)
    columns: dict[str, Any] = {name: table[name] for name in wanted}
    columns["kind"] = columns.pop("dataproduct_type")
    return columns | key_columns([entries.get(row, {}) for row in rows], keys)


def spectrum_entries(store: Contents, rows: Sequence[int] | Array, keys: Sequence[str]) -> Entries:
    """Return what the spectra in some rows tell under some names: their readers, or else keywords of their headers."""
    if not keys:
        return {}
    return {int(row): _entries_of(store, int(row), keys) for row in np.unique(rows)}


def _entries_of(store: Contents, row: int, keys: Sequence[str]) -> dict[str, Any]:
    reader, number = store.reader_of(row)
    meta = {str(name).lower(): value for name, value in reader.spectrum(number).meta.items()}
    found = {name: meta[name.lower()] for name in keys if name.lower() in meta}
    if len(found) < len(keys):
        from skyloom.io.formats.cards import parse_header

        header = parse_header(reader.header(number).encode("ascii", "replace"))
        for name in keys:
            if name not in found and name.upper() in header:
                found[name] = header[name.upper()]
    return found


def key_columns(entries: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, Array]:
    """Return a column for each key."""
    return {name: as_column([entry.get(name) for entry in entries]) for name in keys}


def as_column(values: Sequence[Any]) -> Array:
    """Return whole numbers with -1, other numbers with NaN, and texts with nothing where none is known."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in known):
        return np.array([-1 if value is None else int(value) for value in values], dtype=np.int64)
    if all(isinstance(value, (int, float, np.number)) for value in known):
        return np.array([np.nan if value is None else float(value) for value in values])
    return np.array(["" if value is None else str(value).strip() for value in values], dtype=np.str_)


def target_columns(
    store: Contents, places: Targets, matches: Matches, entries: Entries, keys: Sequence[str]
) -> dict[str, Any]:
    """Return the columns of targets: their places, and what their nearest spectra tell."""
    nearest = np.where(np.diff(matches.start) > 0, matches.start[:-1], -1)
    has = nearest >= 0
    rows = matches.row[nearest[has]]
    table = store.table(rows, ("obs_id", "redshift"))
    names = np.full(has.size, "", dtype=object)
    names[has] = [str(name) for name in table["obs_id"]]
    redshift, distance = np.full(has.size, np.nan), np.full(has.size, np.nan)
    redshift[has], distance[has] = table["redshift"], matches.distance[nearest[has]]
    columns = QTable()
    columns["name"] = np.array(places.name, dtype=np.str_)
    columns["ra"], columns["dec"] = places.ra << u.deg, places.dec << u.deg
    columns["spectrum"] = names.astype(np.str_)
    columns["distance"] = distance << u.arcsec
    columns["redshift"] = redshift
    columns["shared_spectra"] = matches.shared
    texts = {
        "name": "of the target",
        "ra": "right ascension, ICRS",
        "dec": "declination, ICRS",
        "spectrum": "obs_id of the nearest spectrum; empty where there is none",
        "distance": "of the nearest spectrum",
        "redshift": "of the nearest spectrum, where its file tells it",
        "shared_spectra": "1: a spectrum of this target belongs to another target too",
    }
    for name, text in texts.items():
        columns[name].info.description = text
    owners = iter(rows)
    per_target = [entries.get(int(next(owners)), {}) if own else {} for own in has]
    return {name: columns[name] for name in columns.colnames} | key_columns(per_target, keys)
