"""What Skyloom sees in any FITS file, and what is suspicious in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from astropy.wcs import WCS

from skyloom.core.geometry import local_matrix
from skyloom.errors import InputError
from skyloom.io.formats.files import FitsFile, Hdu, open_fits
from skyloom.io.formats.headers import wcs_from_header
from skyloom.io.formats.plain_json import from_json
from skyloom.io.hst import hst_meta
from skyloom.io.inspection.checks import (
    ErrorPlane,
    Problem,
    claimed_errors,
    file_problems,
    find_error_plane,
    header_problems,
    main_problems,
    plane_problems,
)
from skyloom.io.inspection.cube import CubeSummary, summarise_cube
from skyloom.io.inspection.scatter import sample_channels
from skyloom.io.inspection.text import DERIVED, render
from skyloom.io.registry import reader_of
from skyloom.io.segmentation import looks_like_labels

__all__ = ["HduSummary", "Inspection", "WcsSummary", "inspect", "render"]

_SPECTRAL_TYPES = ("WAVE", "AWAV", "LAMBDA", "FREQ", "VELO", "VRAD", "VOPT", "ENER")
_MEDIA = {"AWAV": "air", "WAVE": "vacuum"}


@dataclass(frozen=True, slots=True)
class WcsSummary:
    """Where the pixels lie.

    Attributes
    ----------
    types : tuple of str
        CTYPE of the axes.
    centre : (float, float) or None
        Sky position of the middle of the image, in degrees.
    scale : float
        Side of a pixel, in arcsec (square root of its area).
    rotation : float
        Position angle of the y axis, in degrees, north through east.
    distorted : bool
        Whether there are SIP coefficients.
    """

    types: tuple[str, ...]
    centre: tuple[float, float] | None
    scale: float
    rotation: float
    distorted: bool


@dataclass(frozen=True, slots=True)
class HduSummary:
    """One extension.

    Attributes
    ----------
    number : int
    name : str
    kind : str
        image, cube, spectra, spectrum, labels, mask, weight, table, array or empty.
    shape : tuple of int
        Of the array, or (rows, columns) of a table.
    dtype : str
    unit : str
        BUNIT as written.
    wcs : WcsSummary or None
    spectral : (float, float, str, str) or None
        First and last wavelength, their unit, and the medium (air, vacuum or unknown), where the header says.
    values : (float, float, float) or None
        Least, median and greatest finite value.
    bad_fraction : float
        Fraction of NaN or infinite pixels.
    columns : tuple of str
        Of a table.
    sampled : int or None
        How many channels of a large cube were looked at; None: all of it.
    stretch : int or None
        How many of them are neighbours.
    """

    number: int
    name: str
    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    unit: str = ""
    wcs: WcsSummary | None = None
    spectral: tuple[float, float, str, str] | None = None
    values: tuple[float, float, float] | None = None
    bad_fraction: float = 0.0
    columns: tuple[str, ...] = ()
    sampled: int | None = None
    stretch: int | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in a file.

    Attributes
    ----------
    path : path
    size : int
        Bytes on the disk.
    reader : str or None
        Which reader of Skyloom would read it.
    kind : str
        What its main array is: image, cube, spectra, spectrum, labels, table, product ...
    meta : dict
        Telescope, instrument, band, exposure and so on, as far as the headers say.
    psf : str
        The PSF, where the file says; empty otherwise.
    error : ErrorPlane or None
        The plane of errors that belongs to the main array, and what it really seems to hold.
    hdus : tuple of HduSummary
    problems : tuple of Problem
        Gravest first.
    cube : CubeSummary or None
        Of a cube that a reader understands: what it makes of it.
    """

    path: Path
    size: int
    reader: str | None
    kind: str
    meta: dict[str, Any]
    psf: str
    error: ErrorPlane | None
    hdus: tuple[HduSummary, ...]
    problems: tuple[Problem, ...]
    cube: CubeSummary | None = None


def inspect(path: str | Path, depth: Literal["values", "headers"] = "values") -> Inspection:
    """Look into a FITS file, of whatever kind, without making anything of it.

    Parameters
    ----------
    path : str or path
    depth : {"values", "headers"}
        Whether values are read, too; what headers alone tell takes no time, however large the file is.

    Returns
    -------
    Inspection
        Also of damaged files, as far as they can be read.

    Raises
    ------
    FileFormatError
        When there is no such file, or it is not FITS at all.
    """
    with open_fits(path, whole=False) as file:
        problems = file_problems(file)
        summaries, arrays = [], {}
        for number, hdu in enumerate(file):
            summary, array, found = _summarise(number, hdu, _has_wavelengths_for(file, hdu), depth)
            summaries.append(summary)
            problems += found
            if array is not None:
                arrays[number] = array
        main = _main_hdu(summaries)
        header, number = file[main.number].header, main.number
        meta = hst_meta(file[0].header, header)
        error = None
        if depth == "values":
            error, found = find_error_plane(file, number, main.kind, arrays, main.stretch)
            problems += found
        problems += main_problems(header, main.name, main.kind, main.wcs is not None)
        problems += header_problems(file[0].header, header, meta)
        kind = str(file[0].header.get("SKYTYPE", main.kind)).lower()
        psf = _psf_text(file)
        reader = None if file.missing_bytes else reader_of(file)
    cube = None
    if reader is not None and kind == "cube" and depth == "values":
        cube, found = summarise_cube(Path(path), reader)
        problems += found
    if error is None and reader in DERIVED:
        problems = [problem for problem in problems if problem.where != "errors"]
    return Inspection(
        Path(path),
        Path(path).stat().st_size,
        reader,
        kind,
        meta,
        psf,
        error,
        tuple(summaries),
        tuple(sorted(set(problems), key=lambda problem: (problem.rank, problem.where))),
        cube,
    )


def _main_hdu(summaries: list[HduSummary]) -> HduSummary:
    """Return the extension that the file is about."""
    ranking = ("cube", "image", "spectra", "spectrum", "labels", "array", "weight", "mask", "table", "empty")

    def order(summary: HduSummary) -> tuple[bool, bool, int, int]:
        named = summary.name.rpartition("_")[2] in ("SCI", "DATA", "FLUX") and summary.kind not in (
            "table",
            "empty",
        )
        return claimed_errors(summary.name) != "", not named, ranking.index(summary.kind), summary.number

    return min(summaries, key=order)


def _has_wavelengths_for(file: FitsFile, hdu: Hdu) -> bool:
    """Tell whether another extension lists one wavelength for each column of an array."""
    if str(hdu.header.get("CTYPE1") or "").startswith("RA--"):
        return False
    tables = [other for other in file if other.name in ("WAVE", "LOGLAM", "WAVELENGTH")]
    return len(hdu.shape) == 2 and any(other.shape == hdu.shape[-1:] for other in tables)


def _psf_text(file: FitsFile) -> str:
    """Describe the PSF that a file of Skyloom's own carries; no other header has one that can be trusted."""
    if "SKYTYPE" not in file[0].header or "META" not in {hdu.name for hdu in file}:
        return ""
    described = []
    for row in file["META"].table():
        if row["FIELD"] == "psf" and (psf := from_json(str(row["VALUE"]))) is not None:
            width = f" of FWHM {psf['fwhm']:.4g} arcsec" if "fwhm" in psf else ""
            described.append(f"{row['ITEM']} {psf['type']}{width}".strip())
    return "; ".join(described)


# ------------------------------------------------------------------------------------------- one extension


def _summarise(number: int, hdu: Hdu, spectral: bool, depth: str) -> tuple[HduSummary, Any, list[Problem]]:
    """Return the summary of an extension, its array where it has one, and what is wrong with it."""
    label = hdu.name or ("PRIMARY" if number == 0 else str(number))
    try:
        if not hdu.is_image:
            return _table_summary(number, label, hdu), None, []
        if not hdu.shape or 0 in hdu.shape:
            return HduSummary(number, label, "empty"), None, []
        if depth == "headers":
            return _header_summary(number, label, hdu, spectral)
        array, stretch = _values(hdu)
    except InputError as error:
        kind = _kind_of_shape(hdu) if hdu.is_image else "table"
        return HduSummary(number, label, kind, hdu.shape), None, [Problem("error", label, error.message)]
    kind = _kind_of_array(hdu, array)
    kind = "spectra" if spectral and kind in ("image", "labels") else kind
    wcs, problems = _place(hdu, kind, label)
    problems += plane_problems(hdu, label, kind, array)
    finite = array[np.isfinite(array)]
    values = tuple(float(f(finite)) for f in (np.min, np.median, np.max)) if finite.size else None
    summary = HduSummary(
        number,
        label,
        kind,
        hdu.shape,
        str(array.dtype),
        str(hdu.header.get("BUNIT") or "").strip(),
        _wcs_summary(wcs, hdu.shape),
        _spectral_axis(hdu, kind),
        values,  # type: ignore[arg-type]  # three values, or None
        1.0 - finite.size / array.size,
        sampled=None if array.shape == hdu.shape else array.shape[0],
        stretch=None if array.shape == hdu.shape else stretch,
    )
    return summary, array, problems


def _header_summary(
    number: int, label: str, hdu: Hdu, spectral: bool
) -> tuple[HduSummary, None, list[Problem]]:
    """Return what the header of an array tells; a mask or a map of labels is an image to it."""
    kind = _kind_of_shape(hdu)
    kind = "spectra" if spectral and kind == "image" else kind
    wcs, problems = _place(hdu, kind, label)
    unit = str(hdu.header.get("BUNIT") or "").strip()
    place, axis = _wcs_summary(wcs, hdu.shape), _spectral_axis(hdu, kind)
    return HduSummary(number, label, kind, hdu.shape, unit=unit, wcs=place, spectral=axis), None, problems


def _values(hdu: Hdu) -> tuple[Any, int | None]:
    """Return an array, of a large cube stretches of channels, and how long these are."""
    if len(hdu.shape) == 3:
        if hdu.start + hdu.size > len(hdu.file.content):
            raise hdu.file.truncation()
        return sample_channels(hdu)
    return hdu.array(), None


def _table_summary(number: int, label: str, hdu: Hdu) -> HduSummary:
    columns = tuple(
        str(hdu.header.get(f"TTYPE{column}", f"column {column}"))
        for column in range(1, hdu.integer("TFIELDS", 0) + 1)
    )
    return HduSummary(number, label, "table", (hdu.integer("NAXIS2", 0), len(columns)), columns=columns)


def _kind_of_shape(hdu: Hdu) -> str:
    dimensions = len(hdu.shape)
    if dimensions == 2:
        return "spectra" if _is_spectral(hdu, 1) else "image"
    return {0: "empty", 1: "spectrum", 3: "cube"}.get(dimensions, "array")


def _kind_of_array(hdu: Hdu, array: Any) -> str:
    kind = _kind_of_shape(hdu)
    has_unit = bool(str(hdu.header.get("BUNIT") or "").strip())
    if not has_unit and not claimed_errors(hdu.name) and np.all((array == 0) | (array == 1)):
        return "mask"
    if str(hdu.header.get("FILETYPE") or "").strip() == "WHT" and kind == "image":
        return "weight"
    if kind == "image" and not has_unit and looks_like_labels(array):
        return "labels"
    return kind


def _is_spectral(hdu: Hdu, axis: int) -> bool:
    kind = str(hdu.header.get(f"CTYPE{axis}") or "").strip().upper()
    return kind.startswith(_SPECTRAL_TYPES)


def _place(hdu: Hdu, kind: str, label: str) -> tuple[WCS | None, list[Problem]]:
    if kind in ("spectrum", "spectra", "array"):
        return None, []
    try:
        wcs, notes = wcs_from_header(hdu.header, hdu.shape)
    except InputError as error:
        return None, [Problem("warning", label, error.message)]
    return wcs, [Problem("note", label, note) for note in notes if not note.startswith("RADECSYS")]


def _wcs_summary(wcs: WCS | None, shape: tuple[int, ...]) -> WcsSummary | None:
    if wcs is None:
        return None
    x, y = (shape[-1] - 1) / 2, (shape[-2] - 1) / 2
    sky = wcs.celestial
    matrix = local_matrix(sky, x, y)
    centre = tuple(float(value) for value in sky.all_pix2world(x, y, 0))
    usable = all(math.isfinite(value) for value in centre)
    return WcsSummary(
        tuple(str(kind) for kind in wcs.wcs.ctype),
        centre if usable else None,  # type: ignore[arg-type]  # two values
        math.sqrt(abs(float(np.linalg.det(matrix)))),
        math.degrees(math.atan2(matrix[0, 1], matrix[1, 1])),
        wcs.sip is not None,
    )


def _spectral_axis(hdu: Hdu, kind: str) -> tuple[float, float, str, str] | None:
    """Return first and last wavelength of a linear or logarithmic axis, its unit and the medium."""
    axis = {"cube": 3, "spectra": 1, "spectrum": 1}.get(kind)
    if axis is None or not _is_spectral(hdu, axis):
        return None
    header = hdu.header
    start, increment = header.get(f"CRVAL{axis}"), header.get(f"CD{axis}_{axis}", header.get(f"CDELT{axis}"))
    if not isinstance(start, (int, float)) or not isinstance(increment, (int, float)):
        return None
    reference = header.get(f"CRPIX{axis}")
    reference = float(reference) if isinstance(reference, (int, float)) else 1.0
    offsets = (1.0 - reference, hdu.shape[-axis] - reference)
    written = str(header.get(f"CTYPE{axis}")).strip().upper()
    if written.endswith("-LOG"):
        first, last = (start * math.exp(offset * increment / start) for offset in offsets)
    else:
        first, last = (start + offset * increment for offset in offsets)
    unit = str(header.get(f"CUNIT{axis}") or "unit unknown").strip()
    return first, last, unit, _MEDIA.get(written.partition("-")[0], "medium unknown")
