"""Targets of a dense cube: places on the sky, and the spectra that belong to each, by distance and not by cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.store.search.sphere import angles, unit_vectors

if TYPE_CHECKING:
    from skyloom.store.contents import Contents

__all__ = [
    "MATCHING_RADIUS",
    "Matches",
    "Targets",
    "arcsec_of",
    "degrees",
    "find_targets",
    "match_spectra",
    "near",
]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
MATCHING_RADIUS = 1.5
"""arcsec: half the fibre of the first spectrographs of SDSS."""
ARCSEC = 3600.0
NAMES = ("name", "target", "target_name", "obs_id", "id")
PLACES = (("ra", "dec"), ("s_ra", "s_dec"), ("raj2000", "dej2000"), ("_raj2000", "_dej2000"))


class Targets(NamedTuple):
    """Places on the sky.

    Parameters
    ----------
    name : tuple of str
    ra, dec : (n,) arrays, deg, ICRS
    """

    name: tuple[str, ...]
    ra: Float
    dec: Float


class Matches(NamedTuple):
    """The spectra of each target, the nearest first.

    Parameters
    ----------
    start : (n + 1,) int array
        Where those of each target begin in the other arrays.
    row : int array
        Rows of the store.
    distance : array, arcsec
    shared : (n,) bool array
        One of the spectra belongs to another target too.
    """

    start: Int
    row: Int
    distance: Float
    shared: NDArray[np.bool_]

    def of(self, target: int) -> Int:
        """Return the rows of the spectra of a target."""
        return self.row[self.start[target] : self.start[target + 1]]


def arcsec_of(value: Any, what: str) -> float:
    """Return a length on the sky, given as a quantity or in arcsec.

    Raises
    ------
    InputError
        When it is none, or not above 0.
    """
    try:
        length = float(value.to_value("arcsec") if hasattr(value, "unit") else value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} is {value!r}; expected arcsec, or a quantity", field=what) from error
    if not 0 < length < np.inf:
        raise InputError(f"{what} is {value}; expected above 0 arcsec", field=what)
    return length


def find_targets(store: Contents, targets: Any = None, radius: float = MATCHING_RADIUS) -> Targets:
    """Return the places that are asked for.

    Parameters
    ----------
    store : Contents
    targets : table or path of one, SkyCoord, (n, 2) numbers, or obs_ids, optional
        Of a table: columns ``ra`` and ``dec`` (or ``s_ra``, ``RAJ2000`` and so on; quantities, or deg) and, if there is
        one, ``name``. Numbers are pairs of right ascension and declination, deg, ICRS. None: the places of all spectra
        of the store; those within ``radius`` of one that comes before them in the alphabet of names are one target.
    radius : float
        arcsec.

    Raises
    ------
    InputError
        When there are none, or some are no places; with their rows.
    """
    if targets is None:
        return _places_of_spectra(store, radius)
    if isinstance(targets, (str, Path)):
        from skyloom.store.dense.join import read_table

        targets = read_table(targets)
    if hasattr(targets, "icrs"):
        places = targets.icrs
        return _checked(None, np.atleast_1d(places.ra.deg), np.atleast_1d(places.dec.deg))
    if hasattr(targets, "colnames"):
        return _of_table(targets)
    values = np.asarray(targets)
    if values.dtype.kind in "US":
        rows = np.array([store.row(str(name)) for name in np.atleast_1d(values)], dtype=np.int64)
        places = store.table(rows, ("s_ra", "s_dec"))
        names = [str(name) for name in np.atleast_1d(values)]
        return _checked(names, places["s_ra"].to_value("deg"), places["s_dec"].to_value("deg"))
    if values.dtype.kind not in "fiu" or values.ndim != 2 or values.shape[1] != 2:
        raise InputError(
            f"the targets are of the type {type(targets).__name__}, shape {values.shape}",
            field="targets",
            remedy="give a table with ra and dec, a SkyCoord, pairs (ra, dec) in deg, or obs_ids",
        )
    return _checked(None, values[:, 0], values[:, 1])


def _of_table(table: Any) -> Targets:
    known = {name.lower(): name for name in table.colnames}
    for columns in PLACES:
        if all(column in known for column in columns):
            break
    else:
        raise InputError(
            f"the table of targets has the columns {', '.join(table.colnames)}",
            field="targets",
            remedy="name two of them ra and dec",
        )
    ra, dec = (degrees(table[known[column]]) for column in columns)
    label = next((known[name] for name in NAMES if name in known), None)
    names = None if label is None else [_text(value) for value in table[label]]
    return _checked(names, ra, dec)


def _text(value: Any) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()


def degrees(column: Any) -> Float:
    """Return a column of angles in deg; numbers without a unit are deg, what is not known is NaN."""
    if getattr(column, "unit", None) is None:
        values = column
    else:
        import astropy.units as u

        values = u.Quantity(column).to_value(u.deg)
    return np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)


def _checked(names: Sequence[str] | None, ra: Any, dec: Any) -> Targets:
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    if not ra.size:
        raise InputError("there are no targets", field="targets")
    bad = np.flatnonzero(~(np.isfinite(ra) & (np.abs(dec) <= 90)))
    if bad.size:
        shown = ", ".join(f"{row} ({ra[row]}, {dec[row]})" for row in bad[:5])
        raise InputError(
            f"{bad.size} of {ra.size} targets have no place on the sky: row {shown}",
            field="targets",
            remedy="leave them out, or give ra and dec in deg",
        )
    ra = ra % 360.0
    found = [f"{a:.6f}{d:+.6f}" for a, d in zip(ra, dec, strict=True)] if names is None else names
    return Targets(tuple(found), ra, dec)


def _places_of_spectra(store: Contents, radius: float) -> Targets:
    rows = _with_place(store, store.search(kind="spectrum"))
    if not rows.size:
        raise InputError(
            "the store has no spectrum with a place on the sky",
            source=store.path,
            field="targets",
            remedy="name targets, or ingest spectra",
        )
    table = store.table(rows, ("obs_id", "s_ra", "s_dec"))
    names = np.asarray(table["obs_id"])
    vectors = unit_vectors(table["s_ra"].value, table["s_dec"].value)
    pairs = _tree(vectors).query_pairs(_chord(radius), output_type="ndarray")
    # Which of two goes does not depend on the order in which they were ingested.
    place_in_alphabet = np.argsort(np.argsort(names, kind="stable"), kind="stable")
    first, second = place_in_alphabet[pairs].T if len(pairs) else np.empty((2, 0), np.int64)
    first, second = np.minimum(first, second), np.maximum(first, second)
    taken: set[int] = set()
    for index in np.lexsort((second, first)):
        if int(first[index]) not in taken:
            taken.add(int(second[index]))
    kept = np.flatnonzero(~np.isin(place_in_alphabet, list(taken)))
    return _checked(
        [str(name) for name in names[kept]], table["s_ra"].value[kept], table["s_dec"].value[kept]
    )


def _with_place(store: Contents, rows: Int) -> Int:
    table = store.table(rows, ("s_ra", "s_dec"))
    return rows[np.isfinite(table["s_ra"].value) & np.isfinite(table["s_dec"].value)]


def match_spectra(store: Contents, targets: Targets, radius: float) -> Matches:
    """Find the spectra within a radius (arcsec) of each target; one spectrum may belong to several targets."""
    rows = _with_place(store, store.search(kind="spectrum"))
    table = store.table(rows, ("obs_id", "s_ra", "s_dec"))
    start, found, distance = near(
        (targets.ra, targets.dec),
        (table["s_ra"].value, table["s_dec"].value),
        radius,
        np.asarray(table["obs_id"]),
    )
    counts = np.bincount(found, minlength=rows.size)
    of_target = np.repeat(np.arange(len(targets.ra)), np.diff(start))
    shared = np.zeros(len(targets.ra), bool)
    shared[of_target[counts[found] > 1]] = True
    return Matches(start, rows[found], distance, shared)


def near(
    targets: tuple[Float, Float],
    others: tuple[Float, Float],
    radius: float,
    names: NDArray[Any] | None = None,
) -> tuple[Int, Int, Float]:
    """Return what lies within a radius of each target, the nearest first.

    Parameters
    ----------
    targets, others : pair of arrays (ra, dec), deg
        Places that are not finite are near to nothing.
    radius : float
        arcsec.
    names : array, optional
        Which of two at one distance comes first; else the order of ``others``.

    Returns
    -------
    start : (n + 1,) int array
        Where the neighbours of each target begin.
    other : int array
    distance : array, arcsec
    """
    usable = np.flatnonzero(np.isfinite(others[0]) & np.isfinite(others[1]))
    asking = np.flatnonzero(np.isfinite(targets[0]) & np.isfinite(targets[1]))
    n = len(targets[0])
    if not usable.size or not asking.size:
        return np.zeros(n + 1, np.int64), np.empty(0, np.int64), np.empty(0)
    places = unit_vectors(targets[0][asking], targets[1][asking])
    vectors = unit_vectors(others[0][usable], others[1][usable])
    lists = _tree(vectors).query_ball_point(places, _chord(radius))
    counts = np.zeros(n, np.int64)
    counts[asking] = [len(found) for found in lists]
    start = np.concatenate([[0], np.cumsum(counts)])
    target = np.repeat(np.arange(n), counts)
    member = np.fromiter((one for found in lists for one in found), np.int64, int(start[-1]))
    back = np.zeros(n, np.int64)
    back[asking] = np.arange(asking.size)
    distance = np.degrees(angles(places[back[target]], vectors[member])) * ARCSEC
    tie = member if names is None else np.argsort(np.argsort(names[usable], kind="stable"))[member]
    order = np.lexsort((tie, distance, target))
    return start, usable[member[order]], distance[order]


def _tree(vectors: Float) -> Any:
    from scipy.spatial import cKDTree

    return cKDTree(vectors)


def _chord(radius: float) -> float:
    """Return the straight line between two directions that are ``radius`` arcsec apart, and a last digit more."""
    return float(2.0 * np.sin(0.5 * np.radians(min(radius, 180.0 * ARCSEC) / ARCSEC))) * (1 + 1e-12) + 1e-15
