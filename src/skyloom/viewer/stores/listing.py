"""`Listing`: the observations of a store that pass filters, in an order, page by page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.store.contents import Contents
from skyloom.store.search.index import KINDS, Coded
from skyloom.store.search.regions import Cone
from skyloom.viewer.stores.filters import Filters, Place

__all__ = ["ORDERS", "PAGE", "TABLE_COLUMNS", "Facets", "Listing", "date_text"]

Int = NDArray[np.int64]
PAGE = 500
"""Rows of the table that are sent at a time."""
ORDERS = {
    "sky": "place on the sky",
    "t_start": "time",
    "s_ra": "right ascension",
    "s_dec": "declination",
    "em_min": "wavelength",
    "s_resolution": "seeing",
    "pixel_scale": "pixel scale",
    "band": "band",
    "kind": "kind",
}
"""What the list can be ordered by, and how that is called."""
TABLE_COLUMNS = (
    "obs_id",
    "kind",
    "band",
    "instrument",
    "date",
    "exposure",
    "ra",
    "dec",
    "seeing",
    "levels",
    "redshift",
    "target",
)
_READ = {"obs_id": "obs_id", "instrument": "instrument_name", "target": "target_name"}
_MJD_ZERO = np.datetime64("1858-11-17T00:00:00", "ms")
_ANGSTROM = 1e-10
_MOST_INSTRUMENTS = 100
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Facets:
    """What there is to choose from.

    Attributes
    ----------
    kinds, bands : dict of str to int
        Names and how many observations have them.
    time : (start, stop) or None
        MJD in TAI; None where no time is known.
    wave : (shortest, longest) or None
        A.
    """

    kinds: dict[str, int]
    bands: dict[str, int]
    time: tuple[float, float] | None
    wave: tuple[float, float] | None


class Listing:
    """The observations of a store, to be narrowed and shown.

    Parameters
    ----------
    store : Contents
    """

    def __init__(self, store: Contents) -> None:
        self.store = store

    @cached_property
    def facets(self) -> Facets:
        """What there is to choose from."""
        index = self.store.index
        return Facets(
            _counts(index.kind, KINDS),
            _counts(index.band, sorted(value for value in index.band.values if value)),
            _span(index.columns["t_start"], index.columns["t_stop"], 1.0),
            _span(index.columns["em_min"], index.columns["em_max"], 1.0 / _ANGSTROM),
        )

    @cached_property
    def instruments(self) -> Coded:
        """The instrument of each observation; read when it is asked for."""
        return _coded(self.store.column("instrument_name"))

    def instrument_counts(self) -> dict[str, int]:
        """Return the instruments and how many observations each has."""
        coded = self.instruments
        return _counts(coded, sorted(value for value in coded.values if value))

    def place_of(self, name: str) -> tuple[Place, str]:
        """Return where an observation lies, and its name.

        Raises
        ------
        InputError
            When there is none of this name, or it has no position.
        """
        row = self.store.row(name)
        ra, dec = (float(self.store.index.columns[key][row]) for key in ("s_ra", "s_dec"))
        if not np.isfinite(ra + dec):
            raise InputError(f"{name} has no position", field="position")
        return Place(ra, dec), name

    def select(self, filters: Filters) -> Int:
        """Return the rows that pass, in the order of the index."""
        known = self.facets.bands
        unknown = [band for band in filters.bands if band not in known]
        if unknown:
            raise InputError(f"there is no band {unknown[0]!r}", field="bands")
        rows = self.store.search(**filters.where())
        if filters.instruments:
            coded = self.instruments
            rows = rows[coded.table(filters.instruments)[coded.codes[rows]]]
        return rows

    def ordered(self, rows: Int, by: str = "sky", descending: bool = False) -> Int:
        """Return rows in an order; what has no value comes last."""
        if by not in ORDERS:
            raise InputError(f"the list cannot be ordered by {by[:40]!r}", field="order")
        if by == "sky":
            return rows[::-1] if descending else rows
        values = self._sortable(by)[rows]
        known = np.flatnonzero(np.isfinite(values))
        order = known[np.argsort(-values[known] if descending else values[known], kind="stable")]
        if known.size < rows.size:
            order = np.concatenate([order, np.flatnonzero(~np.isfinite(values))])
        return rows[order]

    def _sortable(self, by: str) -> NDArray[np.float64]:
        index = self.store.index
        if by in ("band", "kind"):
            coded = index.band if by == "band" else index.kind
            # What is empty has no value.
            ranks = np.array([_rank(value, coded.values) for value in coded.values], dtype=np.float64)
            return np.asarray(ranks[coded.codes])
        return np.asarray(index.columns[by], dtype=np.float64)

    def table(self, rows: Int) -> dict[str, list[Any]]:
        """Return what the table shows of some rows, ready to be sent: numbers, texts, and None for what is unknown."""
        store, index = self.store, self.store.index
        texts = {
            name: np.char.decode(store.column(column, rows), "utf-8", "replace").tolist()
            for name, column in _READ.items()
        }
        exposure, redshift = (
            np.asarray(store.column(name, rows), float) for name in ("t_exptime", "redshift")
        )
        columns = {name: index.columns[name][rows] for name in ("t_start", "s_ra", "s_dec", "s_resolution")}
        return {
            **texts,
            "kind": [index.kind.values[code] for code in index.kind.codes[rows].tolist()],
            "band": store.bands_of(rows),
            "date": [date_text(value) for value in columns["t_start"].tolist()],
            "exposure": _plain(exposure, 1),
            "ra": _plain(columns["s_ra"], 6),
            "dec": _plain(columns["s_dec"], 6),
            "seeing": _plain(columns["s_resolution"], 2),
            "levels": index.columns["n_levels"][rows].tolist(),
            "redshift": _plain(redshift, 5),
        }

    def covering(self, place: Place, bands: Iterable[str] = ()) -> Int:
        """Return the images that cover a position, by band (from blue to red where known), then by time."""
        index = self.store.index
        rows = index.touching(Cone(place.ra, place.dec, 0.0), ("image",))
        rows = rows[index.kind.take(rows).equals(["image"])]
        wanted = set(bands)
        if wanted:
            rows = rows[index.band.take(rows).equals(wanted)]
        time = np.nan_to_num(index.columns["t_start"][rows], nan=np.inf)
        wave = np.nan_to_num(index.columns["em_min"][rows], nan=np.inf)
        return rows[np.lexsort((time, index.band.codes[rows], wave))]


def date_text(mjd: float, clock: bool = False) -> str:
    """Return a time (MJD) as ``2001-11-19``, with ``clock`` to the minute; empty where it is unknown."""
    if not np.isfinite(mjd):
        return ""
    moment = _MJD_ZERO + np.timedelta64(round(mjd * 86400e3), "ms")
    return str(np.datetime_as_string(moment, unit="m" if clock else "D")).replace("T", " ")


def _counts(coded: Coded, names: Iterable[str]) -> dict[str, int]:
    numbers: list[int] = (
        np.bincount(coded.codes, minlength=len(coded.values)).tolist() if coded.codes.size else []
    )
    found = dict(zip(coded.values, numbers, strict=bool(numbers)))
    return {name: found[name] for name in names if found.get(name)}


def _span(low: NDArray[Any], high: NDArray[Any], factor: float) -> tuple[float, float] | None:
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return None
    return float(low[known].min()) * factor, float(high[known].max()) * factor


def _rank(value: str, values: tuple[str, ...]) -> float:
    return float(sorted(values).index(value)) if value else float("nan")


def _plain(values: NDArray[Any], digits: int) -> list[float | None]:
    # NaN is no number of JSON; the table shows what is missing as nothing.
    return [round(value, digits) if np.isfinite(value) else None for value in values.tolist()]


def _coded(texts: NDArray[np.bytes_]) -> Coded:
    """Code a column of which few texts differ: comparing with each of them costs less than sorting."""
    codes = np.full(texts.size, -1, np.int16)
    values: list[bytes] = []
    for first in range(0, texts.size, _CHUNK):
        part, own = texts[first : first + _CHUNK], codes[first : first + _CHUNK]
        for code, value in enumerate(values):
            own[part == value] = code
        while (left := np.flatnonzero(own < 0)).size:
            if len(values) == _MOST_INSTRUMENTS:
                return Coded.of(texts)
            values.append(part[left[0]])
            own[part == values[-1]] = len(values) - 1
    return Coded(codes, tuple(value.decode("utf-8", "replace") for value in values))
