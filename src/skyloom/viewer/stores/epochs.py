"""What each epoch saw of a place: small cut-outs, north up and east on the left, on one scale and with one stretch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.geometry import celestial, local_matrix
from skyloom.core.units import adds_up, parse_unit
from skyloom.errors import InputError, SkyloomError
from skyloom.io.formats.headers import unit_text
from skyloom.store.contents import Contents
from skyloom.store.cutouts import pixel_of
from skyloom.store.files.part_reader import PartReader
from skyloom.viewer.stores.filters import Place
from skyloom.viewer.stores.listing import date_text

__all__ = ["MOST_STAMPS", "Stamp", "cut_stamps", "stretched"]

Float32 = NDArray[np.float32]
Int = NDArray[np.int64]

SIDE = 56
"""Pixels of a cut-out."""
MOST_STAMPS = 60
_SOFTENING = 3.0
"""Times the noise of the sky: where the stretch turns from linear to logarithmic."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A cut-out about a place.

    Attributes
    ----------
    obs_id, band, date, unit : str
        The unit with ``/ arcsec2`` where a flux per pixel was divided by the area of the pixel, so that epochs with
        other pixels compare.
    values : (n, n) float32 array, in ``unit``
        The pixels nearest to a grid with north up; NaN where nothing usable is known. The first row is the
        southernmost, the first column the easternmost.
    """

    obs_id: str
    band: str
    date: str
    unit: str
    values: Float32


def cut_stamps(store: Contents, rows: Int, place: Place, size: float, side: int = SIDE) -> list[Stamp]:
    """Return cut-outs about a place from images.

    Parameters
    ----------
    store : Contents
    rows : (n,) int64 array
        Of images.
    place : Place
    size : float
        Side of a cut-out, arcsec.
    side : int
        Pixels of it.

    Returns
    -------
    list of Stamp
        Without those whose image is too far away after all, or damaged.
    """
    stamps = []
    for row in rows.tolist():
        try:
            stamps.append(_stamp(store, row, place, size, side))
        except SkyloomError:
            # One damaged file among many epochs: the list still names it, and opening it tells what is wrong.
            continue
    return stamps


def _stamp(store: Contents, row: int, place: Place, size: float, side: int) -> Stamp:
    reader, number = store.reader_of(row)
    wcs = reader.wcs(number, 0)
    if wcs is None:
        raise InputError("the image has no place on the sky", field="obs_id")
    x, y = pixel_of(wcs, (place.ra, place.dec))
    to_sky = local_matrix(celestial(wcs), x, y)
    unit = parse_unit(store.column("o_unit", [row])[0].decode())
    area = abs(float(np.linalg.det(to_sky))) if adds_up(unit) else 1.0
    level = _level(store, row, float(np.sqrt(abs(np.linalg.det(to_sky)))), size / side)
    values = _sampled(reader, number, level, (x, y), np.linalg.inv(to_sky), size, side)
    # At level z a flux per pixel is that of the larger pixel.
    scale = area * (4.0**level if adds_up(unit) else 1.0)
    text = unit_text(unit)
    return Stamp(
        store.column("obs_id", [row])[0].decode(),
        store.bands_of([row])[0],
        date_text(float(store.index.columns["t_start"][row])),
        f"{text} / arcsec2" if adds_up(unit) else text,
        np.asarray(values / scale, np.float32),
    )


def _level(store: Contents, row: int, scale: float, wanted: float) -> int:
    """Return the coarsest level whose pixels are not larger than those wanted (arcsec)."""
    levels = int(store.index.columns["n_levels"][row])
    return int(np.clip(np.floor(np.log2(max(wanted / scale, 1.0))), 0, levels - 1))


def _sampled(
    reader: PartReader,
    number: int,
    level: int,
    centre: tuple[float, float],
    to_pixels: NDArray[np.floating[Any]],
    size: float,
    side: int,
) -> NDArray[np.float64]:
    """Return the nearest pixels of a level on a grid with north up, east on the left."""
    offsets = (np.arange(side) - 0.5 * (side - 1)) * (size / side)
    east, north = np.meshgrid(-offsets, offsets)
    step = float(1 << level)
    x = (centre[0] + to_pixels[0, 0] * east + to_pixels[0, 1] * north + 0.5) / step - 0.5
    y = (centre[1] + to_pixels[1, 0] * east + to_pixels[1, 1] * north + 0.5) / step - 0.5
    columns, rows = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    window = slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)
    planes = reader.planes(number, level, window, ("flux", "mask"))
    values = np.where(planes["mask"], np.nan, planes["flux"])
    return np.asarray(values[rows - window[0].start, columns - window[1].start], np.float64)


def stretched(stamps: Sequence[Stamp], *, each_band: bool = False) -> list[Float32]:
    """Return values between 0 and 1 with one asinh stretch for all cut-outs of a unit, or of each band.

    Parameters
    ----------
    stamps : sequence of Stamp
    each_band : bool
        Whether each band has a stretch of its own.

    Notes
    -----
    From two times the noise below the median, the noise being that of the darker half, to the brightest 0.3 per cent.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for number, stamp in enumerate(stamps):
        groups.setdefault((stamp.unit, stamp.band if each_band else ""), []).append(number)
    shown: list[Float32] = [np.empty((0, 0), np.float32)] * len(stamps)
    for members in groups.values():
        low, high, noise = _limits(np.concatenate([stamps[number].values.ravel() for number in members]))
        for number in members:
            scaled = np.arcsinh((stamps[number].values - low) / (_SOFTENING * noise))
            shown[number] = (scaled / np.arcsinh((high - low) / (_SOFTENING * noise))).astype(np.float32)
    return shown


def _limits(values: Float32) -> tuple[float, float, float]:
    known = values[np.isfinite(values)].astype(np.float64)
    if not known.size:
        return 0.0, 1.0, 1.0
    low_tail, middle, high = np.percentile(known, [15.87, 50.0, 99.7])
    noise = float(middle - low_tail) or float(high - middle) or 1.0
    low = float(middle) - 2.0 * noise
    return low, max(float(high), low + 4.0 * noise), noise
