"""PMAS/PPak: cubes and row-stacked spectra as the CALIFA survey writes them (V500, V1200, COMB).

The primary array has the fluxes, ERROR their standard deviations (1e10 where nothing is known), BADPIX what must not be
used. Wavelengths are in air, linear. The survey's fluxes are corrected for the extinction by the Milky Way already
(Husemann et al. 2013, 10.1051/0004-6361/201220582; Sanchez et al. 2016, 10.1051/0004-6361/201628661).
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.constants import c as speed_of_light
from numpy.typing import NDArray

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.provenance import step
from skyloom.core.psf import FWHM_PER_SIGMA, MoffatPSF
from skyloom.core.spectra import Spectra
from skyloom.core.units import parse_unit
from skyloom.errors import AssumptionWarning, FileFormatError, RepairWarning, ShapeError, UnitError
from skyloom.io.cubes.files import read_whole
from skyloom.io.cubes.layout import CubeLayout
from skyloom.io.cubes.observation import celestial_wcs, observation_meta
from skyloom.io.cubes.survey_noise import CALIFA_NOISE, califa_correlation
from skyloom.io.formats.files import FitsFile, Hdu, Header, header_number, open_fits
from skyloom.io.formats.headers import parse_bunit
from skyloom.io.formats.wavelengths import WaveAxis, header_wave, sampled_wave, wave_problem
from skyloom.kernels.tables.voxels import KINDS, finish_voxels

__all__ = ["SETUPS", "Setup", "layout", "pmas_meta", "read_pmas", "sniff"]

Float = NDArray[np.float64]

_UNIT = "1e-16 erg/(s cm2 AA)"
# The survey writes 1e10 for an unknown error; true ones are below 100.
_UNKNOWN_ERROR = 1e9
_NAMES = ("PMAS", "PPAK", "CALIFA")
# Typical of the survey's cubes (Garcia-Benito et al. 2015, 10.1051/0004-6361/201425080), not measured in this one.
_PSF = MoffatPSF(2.39, 1.73)
_POWER = re.compile(r"^\s*10?\s*(?:\^|\*\*|[eE])?\s*\(?\s*-\s*16\)?")


class Setup(NamedTuple):
    """A grating of the survey: below which step in A it is known, and its resolution (full width at half maximum)."""

    name: str
    largest_step: float
    fwhm: float


# Garcia-Benito et al. 2015 (10.1051/0004-6361/201425080). COMB cubes have the resolution of V500.
SETUPS = (Setup("V1200", 1.0, 2.3), Setup("V500", np.inf, 6.0))


def sniff(file: FitsFile) -> bool:
    """Tell whether a file holds a cube or row-stacked spectra of PMAS."""
    first = file[0]
    if not first.is_image or len(first.shape) not in (2, 3):
        return False
    names = {hdu.name for hdu in file}
    axis = 3 if len(first.shape) == 3 else 1
    if header_number(first.header, f"CRVAL{axis}") is None or "ERROR" not in names:
        return False
    if _says_pmas(first.header):
        return True
    if str(first.header.get("INSTRUME") or "").strip():
        return False
    # Row-stacked spectra are often written without a word about their origin.
    return "BADPIX" in names and str(first.header.get(f"CTYPE{axis}") or "").strip().upper().startswith(
        "WAVE"
    )


def _says_pmas(header: Header) -> bool:
    texts = [str(header.get(key) or "").upper() for key in ("INSTRUME", "SURVEY", "PROJECT", "ORIGIN")]
    named = any(name in re.split(r"[^A-Z0-9]+", text) for text in texts for name in _NAMES)
    return named or any(key.startswith(("CALIFA", "PIPE ")) for key in header)


def layout(
    file: FitsFile,
    *,
    unit: u.UnitBase | str | None = None,
    lsf: float | None = None,
    milky_way_corrected: bool = True,
) -> CubeLayout:
    """Find out from headers where everything of a PMAS/CALIFA cube stands.

    Parameters
    ----------
    file : FitsFile
    unit : unit or str, optional
        Of the data, instead of what the header says.
    lsf : float, optional
        Standard deviation of the line-spread function in A; by default the published one of the setup, which is known
        by its sampling.
    milky_way_corrected : bool
        False for cubes that did not go through the survey's pipeline.

    Notes
    -----
    The noise that spaxels share is that of the survey, see `skyloom.io.cubes.survey_noise.califa_correlation`.

    Raises
    ------
    FileFormatError, UnitError
        As `skyloom.io.cubes.files.open_cube`.
    """
    first = file[0]
    if len(first.shape) != 3:
        raise FileFormatError(
            f"the primary array has {len(first.shape)} dimensions; a cube has 3",
            source=file.path,
            remedy="read row-stacked spectra with skyloom.read",
        )
    axis = _wavelengths(first, 3, first.shape[0])
    chosen, unit_notes = _unit(first.header, unit)
    wcs, wcs_notes = celestial_wcs(first)
    meta, setup = _described(first.header, axis.wave, milky_way_corrected)
    meta["noise_correlation"] = CALIFA_NOISE
    meta["psf"] = "mean of the survey's cubes"
    return CubeLayout(
        data=0,
        error=_number(file, "ERROR"),
        error_kind="sigma",
        error_floor=_UNKNOWN_ERROR,
        mask=_number(file, "BADPIX"),
        wave=axis.wave,
        medium=axis.medium,
        unit=chosen,
        wcs=wcs,
        lsf=setup.fwhm / FWHM_PER_SIGMA if lsf is None else float(lsf),
        psf=_PSF,
        correlation=CubeCorrelation(califa_correlation(), None),
        meta=meta,
        notes=(*axis.notes, *wcs_notes, *unit_notes),
    )


def read_pmas(
    path: str | Path,
    *,
    unit: u.UnitBase | str | None = None,
    lsf: float | None = None,
    milky_way_corrected: bool = True,
) -> Cube | Spectra:
    """Read a cube or row-stacked spectra of PMAS/CALIFA; see `layout` for the options.

    Returns
    -------
    Cube or Spectra
        ``meta`` has object, setup, milky_way_corrected, and as far as the header knows ebv and redshift; for spectra
        ``empty``, the rows without a usable channel.

    Warns
    -----
    AssumptionWarning
        When the unit is not said and that of the survey is taken.

    Raises
    ------
    FileFormatError, ShapeError, UnitError, InputError
        When the file is truncated, has no errors, or its arrays differ in shape.
    """
    with open_fits(path) as file:
        if len(file[0].shape) == 2:
            return _read_spectra(file, unit, lsf, milky_way_corrected)
    options: dict[str, Any] = {"unit": unit, "lsf": lsf, "milky_way_corrected": milky_way_corrected}
    return read_whole(path, instrument="pmas", **options)


def pmas_meta(header: Header) -> dict[str, Any]:
    """Return what the header of a PMAS/CALIFA file says about the observation; only what is known."""
    meta = observation_meta(header, header)
    survey = any("CALIFA" in str(key) for key in header) or any(key.startswith("PIPE ") for key in header)
    meta["instrument"] = "CALIFA" if survey or meta.get("instrument", "").upper() == "CALIFA" else "PMAS"
    velocity = header_number(header, "MED_VEL")
    if velocity is not None and velocity > 0:
        meta["redshift"] = velocity / float(speed_of_light.to_value(u.km / u.s))
    ebv = next(
        (
            number
            for key in header
            if "EBV" in key.upper() and (number := header_number(header, key)) is not None
        ),
        None,
    )
    if ebv is not None:
        meta["ebv"] = ebv
    return meta


# ------------------------------------------------------------------------------------------------- headers


def _described(header: Header, wave: Float, corrected: bool) -> tuple[dict[str, Any], Setup]:
    sampling = float(np.median(np.diff(wave)))
    setup = next(setup for setup in SETUPS if sampling < setup.largest_step)
    meta = {**pmas_meta(header), "setup": setup.name, "milky_way_corrected": corrected}
    return meta, setup


def _wavelengths(hdu: Hdu, axis: int, size: int) -> WaveAxis:
    """Return the linear wavelengths of the header, which often does not name them as such."""
    if not wave_problem(hdu.header, axis):
        return header_wave(hdu, axis, size, medium="air")
    start = header_number(hdu.header, f"CRVAL{axis}")
    increment = header_number(hdu.header, f"CDELT{axis}") or header_number(hdu.header, f"CD{axis}_{axis}")
    if start is None or not increment:
        raise FileFormatError(
            "the header does not say start and step of the wavelengths",
            source=hdu.file.path,
            field=f"CRVAL{axis}",
            remedy="say them in the instrument block of a configuration",
        )
    reference = header_number(hdu.header, f"CRPIX{axis}") or 1.0
    return WaveAxis(sampled_wave(start + (1.0 - reference) * increment, increment, size), "air", ())


def _unit(header: Header, unit: u.UnitBase | str | None) -> tuple[u.UnitBase, tuple[str, ...]]:
    """Return the unit as asked, of the header (BUNIT, or the pipeline's UNITS), or the survey's, and a note on it."""
    if unit is not None:
        return parse_unit(unit), ()
    for key in ("BUNIT", *(key for key in header if key.upper().endswith("UNITS"))):
        written = str(header.get(key) or "").strip()
        if not written:
            continue
        try:
            found = parse_bunit(_POWER.sub("1e-16", written))
        except UnitError:
            return parse_unit(_UNIT), (
                f"{key} is {written!r}, which cannot be read: taken as {_UNIT}, the survey's",
            )
        return found, ()
    return parse_unit(_UNIT), (f"the header says no unit: taken as {_UNIT}, the survey's",)


def _number(file: FitsFile, name: str) -> int | None:
    return next((number for number, hdu in enumerate(file) if hdu.name == name and hdu.shape), None)


# ------------------------------------------------------------------------------------------------- spectra


def _read_spectra(
    file: FitsFile, unit: u.UnitBase | str | None, lsf: float | None, corrected: bool
) -> Spectra:
    first = file[0]
    axis = _wavelengths(first, 1, first.shape[1])
    chosen, notes = _unit(first.header, unit)
    data = np.ascontiguousarray(first.array(), dtype=np.float32)
    variance = np.ascontiguousarray(_plane(file, "ERROR", data.shape), dtype=np.float32)
    has_mask = _number(file, "BADPIX") is not None
    mask = _plane(file, "BADPIX", data.shape) != 0 if has_mask else np.zeros(data.shape, bool)
    flat = data.reshape(-1), variance.reshape(-1), mask.reshape(-1)
    negative = int(finish_voxels(*flat, KINDS.index("sigma"), _UNKNOWN_ERROR)[0])
    meta, setup = _described(first.header, axis.wave, corrected)
    meta["path"] = str(file.path)
    empty = np.flatnonzero(mask.all(axis=1)).tolist()
    if empty:
        meta["empty"] = empty
    for note in (*axis.notes, *notes):
        warnings.warn(f"{file.path}: {note}", AssumptionWarning, stacklevel=3)
    if negative:
        warnings.warn(f"{file.path}: {negative} negative errors masked", RepairWarning, stacklevel=3)
    width = setup.fwhm / FWHM_PER_SIGMA if lsf is None else float(lsf)
    done = step("read_pmas", path=str(file.path), sha256=file.sha256, masked=int(mask.sum()), empty=empty)
    return Spectra(
        data, variance, mask, chosen, axis.wave, axis.medium, lsf=width, meta=meta, history=(done,)
    )


def _plane(file: FitsFile, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    number = _number(file, name)
    if number is None:
        raise FileFormatError(
            f"there is no extension {name}: the errors of the spectra are not known", source=file.path
        )
    if file[number].shape != shape:
        raise ShapeError(
            f"{name} has shape {file[number].shape}; expected {shape}, that of the spectra", source=file.path
        )
    return file[number].array()
