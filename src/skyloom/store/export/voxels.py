"""The voxel table: every usable pixel of images, cubes and spectra as a row, at any resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.geometry import celestial, pixel_area
from skyloom.core.linelist import air_to_vacuum
from skyloom.errors import InputError
from skyloom.io.formats.headers import parse_bunit
from skyloom.store.export.fields import Field, Progress, RowBuffer, Rows, TableStream
from skyloom.store.export.flux import TARGETS, UNITS, Described, band_wavelength, flux_factor
from skyloom.store.ingest.footprint import icrs_positions
from skyloom.store.search.cells import healpix_of

if TYPE_CHECKING:
    from astropy.wcs import WCS

    from skyloom.store.contents import Contents
    from skyloom.store.files.part_reader import PartReader

__all__ = ["voxel_table"]

Columns = tuple[dict[str, Any], int]
Window = tuple[slice, slice]
TILE = 128, 512
"""Pixels (y, x) read at a time: whole chunks of the file."""
SLAB = 1 << 18
"""Voxels of a cube read at a time."""
_ANGSTROMS = 1e10
_CORNER = slice(0, 1), slice(0, 1)
_NAMES = (
    "obs_id",
    "dataproduct_type",
    "o_unit",
    "s_ra",
    "s_dec",
    "healpix",
    "t_start",
    "t_stop",
    "em_min",
    "em_max",
)


@dataclass(frozen=True, slots=True)
class _Source:
    """An observation and what the catalogue knows of it."""

    reader: PartReader
    number: int
    level: int
    units: str
    row: dict[str, Any]

    @property
    def time(self) -> float:
        return 0.5 * (float(self.row["t_start"]) + float(self.row["t_stop"]))

    def factor(self, subject: Any, wavelength: float, area: float) -> float:
        return flux_factor(subject, self.units, str(self.row["obs_id"]), wavelength, area)


def voxel_table(
    store: Contents,
    rows: NDArray[np.int64] | Sequence[int],
    *,
    level: int = 0,
    units: str = "own",
    progress: Progress | None = None,
) -> TableStream:
    """Return every usable value of some observations as a row of a table, in blocks.

    Parameters
    ----------
    store : Contents
    rows : array of int
        Observations, as `Contents.search` returns them.
    level : int
        Of spectra: level 0 is as observed, coarser ones are on the common grid.
    units : {"own", "f_lambda", "surface"}
        Values in the unit that each observation has, with a column ``unit``; or all of them as flux density in the
        pixel or fibre, or per arcsec2, in 1e-17 erg/(s cm2 AA); see `skyloom.store.export.flux.flux_factor`.
    progress : callable, optional

    Returns
    -------
    TableStream
        ``healpix`` (order 29, nested, ICRS; -1 without a place), ``ra``, ``dec`` (deg) of the middle of the pixel or of
        the fibre, ``time`` (MJD, TAI: of the row of the pixel for drift scans, else the middle of the exposure),
        ``wavelength`` (A in vacuum; of an image that of its band, see `band_wavelength`), ``mean`` and ``sigma``, the
        name of the observation, and the ``unit``. Masked pixels are left out. What is not known is NaN.

    Raises
    ------
    InputError
        When nothing is selected, an observation has no such level, or its unit cannot be converted.

    Notes
    -----
    Positions are those of the whole WCS with its distortions, pixel by pixel. ``sigma`` is the error of each value
    alone: values of an image or a spectrum may be correlated, which a table of voxels cannot say.
    """
    if units not in UNITS:
        raise InputError(f"units is {units!r}", field="units", remedy=f"use one of {', '.join(UNITS)}")
    chosen = np.asarray(rows, dtype=np.int64)
    if not chosen.size:
        raise InputError("nothing is selected", field="where", remedy="see what 'observations' finds")
    table = store.table(chosen, _NAMES)
    columns = {name: np.asarray(getattr(table[name], "value", table[name])) for name in _NAMES}
    fields = _fields(columns, units)
    return TableStream(
        "voxels",
        f"Usable values of {chosen.size} observations at level {level} (2^{level} times coarser than observed)",
        fields,
        _blocks(store, chosen, columns, fields, level, units, progress),
        {"level": str(level), "units": units},
    )


def _fields(columns: dict[str, NDArray[Any]], units: str) -> tuple[Field, ...]:
    names = np.char.encode(columns["obs_id"].astype(str), "ascii", "backslashreplace")
    own = np.unique(np.char.encode(columns["o_unit"].astype(str), "ascii", "backslashreplace"))
    shared = str(TARGETS[units]) if units in TARGETS else own[0].decode() if own.size == 1 else ""
    told = "" if shared else ", in the unit of the column unit"
    fields = [
        Field("healpix", "i8", "", "pos.healpix", "HEALPix cell, order 29, nested, ICRS", null=-1),
        Field("ra", "f8", "deg", "pos.eq.ra;meta.main", "right ascension of the pixel or fibre", "ICRS"),
        Field("dec", "f8", "deg", "pos.eq.dec;meta.main", "declination of the pixel or fibre", "ICRS"),
        Field(
            "time",
            "f8",
            "d",
            "time.epoch;obs.exposure",
            "MJD in TAI; middle of the exposure of the pixel",
            "TAI",
        ),
        Field(
            "wavelength", "f8", "Angstrom", "em.wl", "in vacuum; of an image: pivot wavelength of its band"
        ),
        Field("mean", "f4", shared, "phot.flux.density", f"value{told}"),
        Field("sigma", "f4", shared, "stat.error;phot.flux.density", f"standard deviation of mean{told}"),
        Field(
            "obs_id", names.dtype.str[1:], "", "meta.id;meta.main", "name of the observation", values=names
        ),
    ]
    if units == "own":
        kind = f"S{max(1, own.dtype.itemsize)}"
        fields.append(Field("unit", kind, "", "meta.unit", "unit of mean and sigma", values=own))
    return tuple(fields)


def _blocks(
    store: Contents,
    rows: NDArray[np.int64],
    columns: dict[str, NDArray[Any]],
    fields: tuple[Field, ...],
    level: int,
    units: str,
    progress: Progress | None,
) -> Iterator[Rows]:
    buffer = RowBuffer(np.dtype([(column.name, column.dtype) for column in fields]))
    own = fields[-1].values if units == "own" else None
    for place, row in enumerate(rows.tolist()):
        known = {name: values[place] for name, values in columns.items()}
        source = _Source(*store.reader_of(row), level, units, known)
        same: dict[str, Any] = {"obs_id": place}
        if own is not None:
            same["unit"] = int(np.searchsorted(own, str(known["o_unit"]).encode("ascii", "backslashreplace")))
        voxels = _VOXELS[str(known["dataproduct_type"])](source)
        for found, n in voxels:
            yield from buffer.add(same | found, n)
        if progress is not None:
            progress(str(known["obs_id"]), place + 1, rows.size)
    yield from buffer.rest()


# ------------------------------------------------------------------------------------------------- voxels of one


def _image_voxels(source: _Source) -> Iterator[Columns]:
    reader, number, level = source.reader, source.number, source.level
    shape, wcs = reader.shape(number, level), reader.wcs(number, level)
    corner = reader.image(number, level, _CORNER)
    edges = (float(source.row[name]) * _ANGSTROMS for name in ("em_min", "em_max"))
    wavelength = band_wavelength(corner, *edges)
    factor = source.factor(corner, wavelength, _area(wcs, shape))
    drift = corner.meta.get("row_time")
    for window in _tiles(shape):
        planes = reader.planes(number, level, window)
        good = np.flatnonzero(~planes["mask"])
        if not good.size:
            continue
        y, x = np.divmod(good, window[1].stop - window[1].start)
        found = _places(wcs, x + window[1].start, y + window[0].start)
        found["time"] = source.time if drift is None else _times(drift, window[0], y)
        found["wavelength"] = wavelength
        yield found | _values(planes, good, factor), good.size


def _times(drift: Sequence[float], rows: slice, y: NDArray[np.int64]) -> NDArray[np.float64]:
    begin, step = float(drift[0]), float(drift[1])
    of_rows: NDArray[np.float64] = begin + step * np.arange(rows.start, rows.stop)
    return of_rows[y]


def _cube_voxels(source: _Source) -> Iterator[Columns]:
    reader, number, level = source.reader, source.number, source.level
    shape, wcs = reader.shape(number, level), reader.wcs(number, level)
    corner = reader.cube(number, level, _CORNER)
    wave = corner.wave if corner.medium == "vacuum" else air_to_vacuum(corner.wave)
    sky = wcs if wcs is None or wcs.naxis == 2 else celestial(wcs)
    factor = source.factor(corner, np.nan, _area(sky, shape[1:]))
    for window in _tiles(shape[1:]):
        width = window[1].stop - window[1].start
        pixels = (window[0].stop - window[0].start) * width
        y, x = np.divmod(np.arange(pixels), width)
        places = _places(sky, x + window[1].start, y + window[0].start)
        step = max(1, SLAB // pixels)
        for first in range(0, shape[0], step):
            channels = slice(first, min(first + step, shape[0]))
            planes = reader.planes(number, level, window, channels=channels)
            good = np.flatnonzero(~planes["mask"])
            channel, pixel = np.divmod(good, pixels)
            found = {name: values[pixel] if np.ndim(values) else values for name, values in places.items()}
            found |= {"time": source.time, "wavelength": wave[channels][channel]}
            yield found | _values(planes, good, factor), good.size


def _spectrum_voxels(source: _Source) -> Iterator[Columns]:
    planes, note = source.reader.spectrum_planes(source.number, source.level)
    spectrum = Described(parse_bunit(note["unit"]), note["meta"], note["medium"])
    good = np.flatnonzero(planes["mask"] == 0)
    wave = planes["wave"] if spectrum.medium == "vacuum" else air_to_vacuum(planes["wave"])
    diameter = spectrum.meta.get("fibre_diameter")
    area = 0.25 * np.pi * float(diameter) ** 2 if isinstance(diameter, (int, float)) else np.nan
    found = {
        "healpix": int(source.row["healpix"]),
        "ra": float(source.row["s_ra"]),
        "dec": float(source.row["s_dec"]),
        "time": source.time,
        "wavelength": wave[good],
    }
    yield found | _values(planes, good, source.factor(spectrum, np.nan, area)), good.size


_VOXELS = {"image": _image_voxels, "cube": _cube_voxels, "spectrum": _spectrum_voxels}


def _values(
    planes: dict[str, NDArray[Any]], good: NDArray[np.int64], factor: float
) -> dict[str, NDArray[np.float32]]:
    mean, sigma = planes["flux"].reshape(-1)[good], np.sqrt(planes["variance"].reshape(-1)[good])
    if factor != 1.0:
        mean, sigma = mean * np.float64(factor), sigma * np.float64(factor)
    return {"mean": mean, "sigma": sigma}


def _tiles(shape: Sequence[int]) -> Iterator[Window]:
    ny, nx = shape
    for y in range(0, ny, TILE[0]):
        for x in range(0, nx, TILE[1]):
            yield slice(y, min(y + TILE[0], ny)), slice(x, min(x + TILE[1], nx))


def _places(wcs: WCS | None, x: NDArray[np.int64], y: NDArray[np.int64]) -> dict[str, Any]:
    """Return where pixels are on the sky."""
    if wcs is None or not wcs.has_celestial:
        return {"healpix": -1, "ra": np.nan, "dec": np.nan}
    ra, dec = icrs_positions(celestial(wcs), x.astype(np.float64), y.astype(np.float64))
    return {"healpix": healpix_of(ra, dec), "ra": ra, "dec": dec}


def _area(wcs: WCS | None, shape: Sequence[int]) -> float:
    """Return the area of the pixel in the middle in arcsec2."""
    if wcs is None or not wcs.has_celestial:
        return np.nan
    return pixel_area(wcs, (shape[0], shape[1]))
