"""Segmentation maps: which pixel belongs to which object, as whole numbers whatever the file made of them.

Some maps are stored as floats, and some of those were interpolated onto another grid as if labels were fluxes: at the
border of object 24353 stand 3.2, 8127.4 and 24352.8, and 24351 between the objects 24350 and 24353 is no object. An
interpolated value is a mixture of the labels around it, with shares that add up to one. So the labels that are certain
are found first (whole numbers on several adjoining pixels), and each other pixel goes to the label that makes up at
least half of it in every mixture of the labels around it that gives its value; where mixtures disagree, or none fits,
the label is unknown. Mixtures of two labels suffice: the shares of any mixture lie between those of the two-label ones
(they are the corners of the polygon of all mixtures with that value), so a majority in all corners is one everywhere.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.core.labels import NO_REGION, UNKNOWN, LabelMap
from skyloom.core.provenance import step
from skyloom.errors import FileFormatError, InputError, RepairWarning
from skyloom.io.formats.files import FitsFile, Hdu, open_fits
from skyloom.io.formats.headers import wcs_from_header

__all__ = ["RecoveredLabels", "looks_like_labels", "read_segmentation", "recover_labels", "sniff"]

Float = NDArray[np.float64]
REPAIRS = ("auto", "none", "interpolated")
# Distances in pixels within which the labels are sought that a pixel is mixed of, the nearest first.
_REACHES = (2, 4, 8)
# How many of the eight pixels around one must share its whole number to prove that it is a label; all of them in a map
# that was rounded after the interpolation, where mixtures repeat along a border.
_PROOF, _PROOF_ROUNDED = 2, 8
# So many times more unproven values than labels, and a map of whole numbers was interpolated and rounded.
_UNPROVEN_RATIO = 3
# Beyond this, float32 cannot tell neighbouring whole numbers apart.
_LARGEST_EXACT = 2.0**24


class RecoveredLabels(NamedTuple):
    """Labels of an interpolated map, and what happened to its pixels."""

    labels: NDArray[np.int32]
    n_assigned: int
    n_unknown: int


def sniff(file: FitsFile) -> bool:
    """Tell whether a file holds one map of whole numbers and nothing else: integers or floats without a unit."""
    images = [hdu for hdu in file if hdu.is_image and hdu.shape]
    if len(images) != 1 or len(images[0].shape) != 2 or str(images[0].header.get("BUNIT", "")).strip():
        return False
    return not images[0].is_float or looks_like_labels(images[0].array())


def looks_like_labels(array: NDArray[Any]) -> bool:
    """Tell whether an array may be a label map: integers, or floats >= 0 most of which are whole and not all alike."""
    if array.dtype.kind != "f":
        return array.dtype.kind in "iu"
    values = array[np.isfinite(array)]
    if values.size == 0 or values.min() < 0 or values.max() < 1:
        return False
    whole = values == np.round(values)
    return bool(whole.all()) or (values.max() > 1 and float(np.mean(whole)) > 0.5)


def read_segmentation(
    path: str | Path, *, extension: int | str | None = None, repair: str = "auto"
) -> LabelMap:
    """Read a segmentation map.

    Parameters
    ----------
    path : str or path
        FITS file with a two-dimensional map.
    extension : int or str, optional
        Where the map stands; by default the first two-dimensional image.
    repair : {"auto", "none", "interpolated"}
        Whether the map was interpolated. "auto": float maps with values that are not whole, or with many whole ones
        that stand alone. "none": values that are not whole are an error.

    Returns
    -------
    LabelMap
        Background (0) is -1; what cannot be recovered is -2. ``meta`` counts the pixels: ``n_assigned`` (given to
        the label, or to the background, that makes up most of them) and ``n_unknown``.

    Warns
    -----
    RepairWarning
        When pixels had to be recovered, with their number.

    Raises
    ------
    FileFormatError
        When the file is truncated, has no two-dimensional image, or holds no label map.
    """
    if repair not in REPAIRS:
        raise InputError(f"repair is {repair!r}", field="repair", remedy=f"use one of {', '.join(REPAIRS)}")
    with open_fits(path) as file:
        hdu = _map_hdu(file, extension)
        values = hdu.array()
        wcs, notes = wcs_from_header(hdu.header, values.shape)
        sha256 = file.sha256
    try:
        recovered = recover_labels(values, repair=repair)
    except InputError as error:
        raise error.located(path) from None
    if recovered.n_assigned or recovered.n_unknown:
        warnings.warn(
            f"{path}: the label map was interpolated; {recovered.n_assigned} pixels recovered from their neighbours,"
            f" {recovered.n_unknown} left unknown",
            RepairWarning,
            stacklevel=2,
        )
    counts = {"n_assigned": recovered.n_assigned, "n_unknown": recovered.n_unknown}
    meta = {"path": str(path), "sha256": sha256, **counts}
    if notes:
        meta["wcs_notes"] = list(notes)
    done = step("read_segmentation", path=str(path), sha256=sha256, repair=repair, **counts)
    return LabelMap(recovered.labels, wcs=wcs, meta=meta, history=(done,))


def _map_hdu(file: FitsFile, extension: int | str | None) -> Hdu:
    if extension is not None:
        try:
            hdu = file[extension]
        except (FileFormatError, IndexError) as error:
            raise FileFormatError(
                f"there is no extension {extension!r}", source=file.path, field="extension"
            ) from error
        if not hdu.is_image or len(hdu.shape) != 2:
            raise FileFormatError(
                "this extension is no two-dimensional map", source=file.path, field=str(extension)
            )
        return hdu
    for hdu in file:
        if hdu.is_image and len(hdu.shape) == 2:
            return hdu
    raise FileFormatError("there is no two-dimensional map in this file", source=file.path)


def recover_labels(values: NDArray[Any], *, repair: str = "auto") -> RecoveredLabels:
    """Return whole labels of a map that may hold floats, interpolated or not.

    Parameters
    ----------
    values : (ny, nx) array
        Labels >= 0, 0 is background; NaN becomes unknown.
    repair : {"auto", "none", "interpolated"}
        See `read_segmentation`.

    Raises
    ------
    FileFormatError
        When the values are no labels: negative, beyond what is exact, or mostly not whole numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind in "iub":
        return RecoveredLabels(_from_whole(array.astype(np.int64), np.zeros(array.shape, bool)), 0, 0)
    if array.dtype.kind != "f":
        raise _not_a_map(f"its values are of type {array.dtype}")
    missing = ~np.isfinite(array)
    map_values = np.where(missing, 0.0, array).astype(np.float64)
    whole = map_values == np.round(map_values)
    _check_range(map_values, array.dtype)
    if whole.all() and (repair == "none" or (repair == "auto" and not _looks_interpolated(map_values))):
        return RecoveredLabels(_from_whole(map_values.astype(np.int64), missing), 0, int(missing.sum()))
    if repair == "none":
        raise _not_a_map(f"{int((~whole).sum())} pixels are not whole numbers")
    labels, n_assigned = _unmix(map_values, missing)
    n_unknown = int(np.count_nonzero(labels == UNKNOWN))
    objects = int(np.count_nonzero(map_values > 0))
    if not (labels > 0).any() or n_assigned + n_unknown > 0.5 * max(objects, 1):
        raise _not_a_map(
            f"of {objects} pixels above 0, {n_assigned + n_unknown} are not on a label that is certain"
        )
    return RecoveredLabels(labels, n_assigned, n_unknown)


def _not_a_map(reason: str) -> FileFormatError:
    return FileFormatError(
        f"this is no segmentation map: {reason}", remedy="give a map of whole numbers, 0 for the background"
    )


def _check_range(values: Float, dtype: np.dtype[Any]) -> None:
    lowest, highest = float(values.min()), float(values.max())
    limit = min(_LARGEST_EXACT if dtype.itemsize <= 4 else np.inf, float(np.iinfo(np.int32).max))
    if lowest < 0 or highest > limit:
        raise _not_a_map(
            f"its values reach from {lowest:g} to {highest:g}; labels lie between 0 and {limit:g}"
        )


def _from_whole(values: NDArray[np.int64], missing: NDArray[np.bool_]) -> NDArray[np.int32]:
    """0 becomes `NO_REGION`; negative integers, in integer maps, keep meaning no region."""
    if values.size and values.max() > np.iinfo(np.int32).max:
        raise _not_a_map(f"its labels reach {values.max()}, beyond 32 bits")
    labels = np.where(values <= 0, NO_REGION, values).astype(np.int32)
    labels[missing] = UNKNOWN
    return labels


def _unmix(values: Float, missing: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Return labels of an interpolated map, and how many were assigned by what they are mixed of.

    Where the labels next to a pixel cannot give its value (ragged borders), labels farther away are tried; where they
    can in ways that disagree, it stays unknown.
    """
    rounded = bool(np.all(values == np.round(values)))
    certain = _certain_labels(values, _PROOF_ROUNDED if rounded else _PROOF) & ~missing
    labels = np.where(certain, values, UNKNOWN).astype(np.int32)
    labels[certain & (values == 0)] = NO_REGION
    rows, columns = np.nonzero(~certain & ~missing)
    n_assigned = 0
    for reach in _REACHES:
        if rows.size == 0:
            break
        around = _labels_around(np.where(certain, values, np.nan), rows, columns, reach)
        majority, mixable = _majority(values[rows, columns], around)
        found = ~np.isnan(majority)
        labels[rows[found], columns[found]] = np.where(majority[found] == 0, NO_REGION, majority[found])
        n_assigned += int(np.count_nonzero(found))
        rows, columns = rows[~mixable], columns[~mixable]
    return labels, n_assigned


def _labels_around(labels: Float, rows: NDArray[np.intp], columns: NDArray[np.intp], reach: int) -> Float:
    """Return the distinct labels in the square around each pixel, one row per pixel; see `_distinct`."""
    padded = np.pad(labels, reach, constant_values=np.nan)
    side = 2 * reach + 1
    return _distinct(
        np.stack([padded[rows + dy, columns + dx] for dy in range(side) for dx in range(side)], axis=1)
    )


def _looks_interpolated(values: Float) -> bool:
    """Tell whether a map of whole numbers was rounded after an interpolation: mostly values that nothing proves."""
    certain = _certain_labels(values, _PROOF)
    return np.unique(values[~certain]).size > _UNPROVEN_RATIO * np.unique(values[certain]).size


def _certain_labels(values: Float, proof: int) -> NDArray[np.bool_]:
    """Mark pixels whose whole number covers several adjoining pixels: mixtures hardly ever repeat exactly."""
    padded = np.pad(values, 1, constant_values=np.nan)
    ny, nx = values.shape
    equal = np.zeros(values.shape, np.uint8)
    for dy, dx in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)):
        equal += padded[dy : dy + ny, dx : dx + nx] == values
    whole = values == np.round(values)
    core = whole & (equal >= proof)
    tips = whole & (equal > 0) & ~core
    tips[tips] = np.isin(values[tips], np.unique(values[core]))
    return core | tips | (values == 0)


def _distinct(around: Float) -> Float:
    """Return the distinct values of each row, ascending, NaN behind; as few columns as the richest row needs."""
    ordered = np.sort(around, axis=1)
    repeated = np.zeros(ordered.shape, bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    ordered[repeated] = np.nan
    ordered = np.sort(ordered, axis=1)
    return ordered[:, : max(1, int((~np.isnan(ordered)).sum(axis=1).max()))]


def _majority(values: Float, candidates: Float) -> tuple[Float, NDArray[np.bool_]]:
    """Return the label that makes up at least half of a value in every two-label mixture, else NaN; and if one exists.

    Parameters
    ----------
    values : (n,) array
    candidates : (n, k) array
        Labels around each value, ascending, NaN behind.

    Returns
    -------
    majority : (n,) array
    mixable : (n,) bool array
        True where any mixture gives the value.
    """
    lowest = np.full(values.shape, np.inf)
    highest = np.full(values.shape, -np.inf)
    for first in range(candidates.shape[1]):
        for second in range(first + 1, candidates.shape[1]):
            low, high = candidates[:, first], candidates[:, second]
            possible = (low <= values) & (values <= high)  # False where NaN: fewer labels around
            winner = np.where(values - low >= high - values, high, low)
            lowest = np.where(possible, np.minimum(lowest, winner), lowest)
            highest = np.where(possible, np.maximum(highest, winner), highest)
    return np.where(lowest == highest, lowest, np.nan), lowest < np.inf
