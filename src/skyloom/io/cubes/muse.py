"""MUSE cubes and spectra: DATA and STAT, of the pipeline, of ESO phase 3 and of MPDAF.

STAT holds the variance, whatever its BUNIT says: the pipeline has written the unit of the data over an A2 there.
Wavelengths are in air (CTYPE AWAV). Where the header has no line-spread function, and none does, it is the published
fit to the sky lines of the Ultra Deep Field (Bacon et al. 2017, 10.1051/0004-6361/201730833).
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.provenance import step
from skyloom.core.psf import FWHM_PER_SIGMA, PSF, ChromaticPSF, MoffatPSF
from skyloom.core.spectra import Spectra
from skyloom.errors import (
    AssumptionWarning,
    FileFormatError,
    InputError,
    RepairWarning,
    ShapeError,
    UnitError,
)
from skyloom.io.cubes.files import missing_errors, read_whole
from skyloom.io.cubes.generic import error_extension, science_extension
from skyloom.io.cubes.layout import CubeLayout
from skyloom.io.cubes.observation import celestial_wcs, observation_meta, unit_of
from skyloom.io.formats.files import FitsFile, Hdu, Header, header_number, open_fits
from skyloom.io.formats.headers import parse_bunit
from skyloom.io.formats.wavelengths import header_wave, is_spectral
from skyloom.kernels.tables.voxels import KINDS, finish_voxels

__all__ = ["layout", "lsf_sigma", "muse_meta", "read_muse", "sniff"]

Float = NDArray[np.float64]

LSF_SOURCE = "Bacon et al. 2017 (10.1051/0004-6361/201730833), fit to the UDF-10 sky lines"
# How the parts of a source file of MPDAF are named.
_SOURCE_PARTS = re.compile(r"(?:SPE|IMA|CUB)_\w+_DATA")
_FSF_SAMPLES = 9


def lsf_sigma(wave: Float) -> Float:
    """Return the standard deviation of the MUSE line-spread function in A.

    Parameters
    ----------
    wave : (n,) array
        Wavelengths in A.

    Notes
    -----
    ``FWHM = 5.866e-8 wave^2 - 9.187e-4 wave + 6.040`` (Bacon et al. 2017, eqn. 8, 10.1051/0004-6361/201730833), from
    4650 to 9350 A; beyond, the value of the end.
    """
    inside = np.clip(np.asarray(wave, dtype=np.float64), 4600.0, 9400.0)
    return np.asarray((5.866e-8 * inside**2 - 9.187e-4 * inside + 6.040) / FWHM_PER_SIGMA)


def sniff(file: FitsFile) -> bool:
    """Tell whether a file holds a cube or a spectrum of MUSE."""
    if _is_source_file(file):
        return True
    hdu = _data_hdu(file)
    if hdu is None:
        return False
    headers = (file[0].header, hdu.header)
    if any(str(header.get("INSTRUME") or "").strip().upper() == "MUSE" for header in headers):
        return True
    # Cuts made with MPDAF keep the names, the unit and the sampling, and lose the instrument.
    axis = len(hdu.shape)
    increment = header_number(hdu.header, f"CD{axis}_{axis}") or header_number(hdu.header, f"CDELT{axis}")
    return (
        hdu.name == "DATA"
        and str(hdu.header.get(f"CTYPE{axis}") or "").strip() == "AWAV"
        and increment == 1.25
        and "-20" in str(hdu.header.get("BUNIT") or "")
    )


def _is_source_file(file: FitsFile) -> bool:
    return any(_SOURCE_PARTS.fullmatch(hdu.name) for hdu in file)


def _data_hdu(file: FitsFile) -> Hdu | None:
    """Return the extension with the data: three-dimensional, or a single spectrum."""
    arrays = [hdu for hdu in file if hdu.is_image and len(hdu.shape) in (1, 3)]
    spectral = [hdu for hdu in arrays if is_spectral(hdu.header, len(hdu.shape))]
    named = [hdu for hdu in spectral if hdu.name == "DATA"]
    return next(iter(named or [hdu for hdu in spectral if hdu.name != "STAT"]), None)


def layout(
    file: FitsFile,
    *,
    weight: str | Path | None = None,
    weight_kind: str = "variance",
    unit: u.UnitBase | str | None = None,
    medium: str | None = None,
    lsf: float | None = None,
) -> CubeLayout:
    """Find out from headers where everything of a MUSE cube stands.

    Parameters
    ----------
    file : FitsFile
    weight : str or path, optional
        File that holds the errors, where they are not in STAT.
    weight_kind : {"variance", "rms", "inverse_variance"}
        What that file holds.
    unit : unit or str, optional
        Of the data, instead of BUNIT.
    medium : {"air", "vacuum"}, optional
        Instead of what CTYPE3 says.
    lsf : float, optional
        Standard deviation of the line-spread function in A, instead of the published fit.

    Raises
    ------
    FileFormatError, UnitError, InputError
        As `skyloom.io.cubes.files.open_cube`.
    """
    _refuse_sources(file)
    hdu = _data_hdu(file)
    if hdu is not None and len(hdu.shape) == 1:
        raise FileFormatError(
            "the file holds a single spectrum, no cube", source=file.path, remedy="read it with skyloom.read"
        )
    data = science_extension(file, "DATA" if any(hdu.name == "DATA" for hdu in file) else None)
    errors = error_extension(file, data, weight=weight, weight_kind=weight_kind)
    axis = header_wave(file[data], 3, file[data].shape[0], medium=medium)
    chosen, unit_notes = unit_of(file[data], file[0].header, unit)
    wcs, wcs_notes = celestial_wcs(file[data])
    meta = muse_meta(file[0].header, file[data].header)
    if errors[2] is None:
        meta |= _stat_note(file[errors[0]], chosen)
    psf = None
    if wcs is not None:
        psf = field_spread(file[0].header, axis.wave)
    meta["lsf_source"] = LSF_SOURCE if lsf is None else "given"
    return CubeLayout(
        data=data,
        error=errors[0],
        error_kind=errors[1],
        error_path=errors[2],
        wave=axis.wave,
        medium=axis.medium,
        unit=chosen,
        mask=next((n for n, hdu in enumerate(file) if hdu.name == "DQ" and len(hdu.shape) == 3), None),
        wcs=wcs,
        lsf=lsf_sigma(axis.wave) if lsf is None else float(lsf),
        psf=psf,
        meta=meta,
        notes=(*axis.notes, *unit_notes, *wcs_notes),
    )


def _refuse_sources(file: FitsFile) -> None:
    if not _is_source_file(file):
        return
    parts = [hdu.name for hdu in file if _SOURCE_PARTS.fullmatch(hdu.name)]
    cubes = [name for name in parts if name.startswith("CUB_")]
    remedy = "export the spectrum or the cube that is wanted to a file of its own"
    if cubes:
        stat = cubes[0].removesuffix("_DATA") + "_STAT"
        remedy = (
            f"name its cube in an instrument block: data: {cubes[0]}, error: {stat}, error_kind: variance"
        )
    raise FileFormatError(
        f"this is a source file of MPDAF with several parts ({', '.join(parts[:4])}), no one cube or spectrum",
        source=file.path,
        remedy=remedy,
    )


def _stat_note(stat: Hdu, unit: u.UnitBase) -> dict[str, str]:
    """Return a note where the unit of STAT is not the square of that of the data; the pipeline writes it so."""
    written = str(stat.header.get("BUNIT") or "").strip()
    try:
        right = not written or parse_bunit(written) == unit**2
    except UnitError:
        right = False
    return {} if right else {"stat_unit": f"STAT is the variance, though its BUNIT is {written!r}"}


def read_muse(
    path: str | Path,
    *,
    weight: str | Path | None = None,
    weight_kind: str = "variance",
    unit: u.UnitBase | str | None = None,
    medium: str | None = None,
    lsf: float | None = None,
) -> Cube | Spectra:
    """Read a MUSE cube, or a single spectrum with DATA and STAT.

    Parameters
    ----------
    path : str or path
    weight, weight_kind, unit, medium, lsf
        See `layout`.

    Returns
    -------
    Cube or Spectra
        ``meta``, as far as the headers say: object, mode, exposure (s), mjd, seeing (FWHM in arcsec) and its source,
        n_combined, provenance, sky_method. ``lsf`` is the published fit (``meta["lsf_source"]``). The PSF is set where
        the header has MPDAF's model of it.

    Raises
    ------
    FileFormatError, ShapeError, UnitError, InputError
        See `skyloom.io.cubes.files.open_cube`; also when no voxel is usable.
    """
    with open_fits(path) as file:
        _refuse_sources(file)
        hdu = _data_hdu(file)
        if hdu is not None and len(hdu.shape) == 1 and weight is None:
            return _read_spectrum(file, hdu, unit, medium, lsf)
    options: dict[str, Any] = {"weight": weight, "weight_kind": weight_kind}
    return read_whole(path, instrument="muse", unit=unit, medium=medium, lsf=lsf, **options)


def _read_spectrum(
    file: FitsFile, hdu: Hdu, unit: u.UnitBase | str | None, medium: str | None, lsf: float | None
) -> Spectra:
    stat = next((other for other in file if other.name == "STAT"), None)
    if stat is None:
        raise missing_errors(file.path)
    if stat.shape != hdu.shape:
        raise ShapeError(f"STAT has shape {stat.shape}; expected {hdu.shape}, that of DATA", source=file.path)
    axis = header_wave(hdu, 1, hdu.shape[0], medium=medium)
    chosen, notes = unit_of(hdu, file[0].header, unit)
    for note in (*axis.notes, *notes):
        warnings.warn(f"{file.path}: {note}", AssumptionWarning, stacklevel=4)
    data, variance = (np.array(part.array(), dtype=np.float32) for part in (hdu, stat))
    mask = np.zeros(data.shape, bool)
    negative, _, _ = finish_voxels(data, variance, mask, KINDS.index("variance"), float(np.inf))
    if mask.all():
        raise InputError("no channel has both a finite value and a positive variance", source=file.path)
    if negative:
        warnings.warn(
            f"{file.path}: {negative} channels have a negative variance (STAT); masked",
            RepairWarning,
            stacklevel=4,
        )
    meta = muse_meta(file[0].header, hdu.header) | _stat_note(stat, chosen)
    meta |= {"path": str(file.path), "sha256": file.sha256}
    meta["lsf_source"] = LSF_SOURCE if lsf is None else "given"
    done = step("read_muse", path=str(file.path), sha256=file.sha256, masked=int(np.count_nonzero(mask)))
    return Spectra(
        data[np.newaxis],
        variance[np.newaxis],
        mask[np.newaxis],
        chosen,
        axis.wave,
        axis.medium,
        lsf=lsf_sigma(axis.wave) if lsf is None else float(lsf),
        meta=meta,
        history=(done,),
    )


# ------------------------------------------------------------------------------------------------- headers


def muse_meta(primary: Header, header: Header) -> dict[str, Any]:
    """Return what the headers of a MUSE file say; see `read_muse`."""
    meta = observation_meta(primary, header)
    meta["instrument"] = "MUSE"
    if "object" in meta:
        meta["object"] = re.sub(r"\s*\((?:DATA|STAT)\)$", "", meta["object"])
    numbers = {
        "exposure": ("TEXPTIME", "EXPTIME"),
        "mjd_end": ("MJD-END",),
        "n_combined": ("NCOMBINE",),
        "resolving_power": ("SPEC_RES",),
        "source_id": ("ID",),
        "ra": ("RA",),
        "dec": ("DEC",),
    }
    for name, keywords in numbers.items():
        found = [value for key in keywords if (value := header_number(primary, key)) is not None]
        if found:
            meta[name] = found[0]
    texts = {"mode": "ESO INS MODE", "program": "PROG_ID", "pipeline": "ESO PRO REC1 PIPE ID", "cube": "CUBE"}
    for name, keyword in texts.items():
        if written := str(primary.get(keyword) or "").strip():
            meta[name] = written
    provenance = [str(primary[key]) for key in primary if re.fullmatch(r"PROV\d+", key)]
    if provenance:
        meta["provenance"] = provenance
    method = _recipe_parameter(primary, "skymethod")
    if method:
        meta["sky_method"] = method
    return meta | _seeing(primary)


def _recipe_parameter(header: Header, wanted: str) -> str:
    """Return a parameter that a pipeline recipe ran with, empty when the header does not list it."""
    for key, value in header.items():
        if key.startswith("ESO PRO REC") and key.endswith(" NAME") and value == wanted:
            return str(header.get(key.removesuffix("NAME") + "VALUE") or "").strip()
    return ""


def _seeing(header: Header) -> dict[str, Any]:
    """Return the best measure of the image quality that a header has, as FWHM in arcsec, and where it is from."""
    resolution = header_number(header, "SKY_RES")
    if resolution is not None and resolution > 0:
        return {"seeing": resolution, "seeing_source": "SKY_RES"}
    measured: list[float] = []
    for key in header:
        if re.fullmatch(r"ESO QC \w+ FWHM\d* [XY]|ESO QC \w+ FWHM(?: MEDIAN)?", key):
            value = header_number(header, key)
            measured += [value] if value is not None and value > 0 else []
    if measured:
        # Extended objects are among the sources: the median is theirs only when they are the most.
        return {"seeing": float(np.median(measured)), "seeing_source": "ESO QC"}
    monitor = [header_number(header, f"ESO TEL AMBI FWHM {end}") for end in ("START", "END")]
    known = [value for value in monitor if value is not None and value > 0]
    return {"seeing": float(np.mean(known)), "seeing_source": "ESO TEL AMBI FWHM"} if known else {}


def field_spread(header: Header, wave: Float) -> PSF | None:
    """Return the PSF that MPDAF has put into a header (FSFMODE), None where there is none, or one per field.

    Parameters
    ----------
    header : dict
        Of the primary HDU.
    wave : (n_wave,) array
        Wavelengths in A.

    Notes
    -----
    A circular Moffat profile: ``MOFFAT1`` with FWHM = FWA + FWB wave and a fixed index; mode 2 with polynomials, the
    highest power first, of ``(wave - LB1) / (LB2 - LB1) - 1/2`` (the documentation of MPDAF, mpdaf.readthedocs.io).
    """
    mode = str(header.get("FSFMODE") or "").strip()
    prefixes = {key[:5] for key in header if re.fullmatch(r"FSF\d\d[FB]\w+", key)}
    if not mode or len(prefixes) != 1:
        return None
    samples = np.linspace(wave[0], wave[-1], _FSF_SAMPLES)
    widths, powers = _moffat(header, mode, prefixes.pop(), samples)
    if widths is None or powers is None or not (np.all(widths > 0) and np.all(powers > 1)):
        return None
    moffats = tuple(MoffatPSF(float(w), float(b)) for w, b in zip(widths, powers, strict=True))
    return ChromaticPSF(samples, moffats)


def _moffat(header: Header, mode: str, prefix: str, samples: Float) -> tuple[Float | None, Float | None]:
    if mode == "MOFFAT1":
        numbers = [header_number(header, f"{prefix}{key}") for key in ("FWA", "FWB", "BET")]
        if any(number is None for number in numbers):
            return None, None
        start, slope, power = (float(number or 0.0) for number in numbers)
        return np.asarray(start + slope * samples), np.full(samples.size, power)
    blue, red = header_number(header, "FSFLB1"), header_number(header, "FSFLB2")
    if mode != "2" or blue is None or red is None or red <= blue:
        return None, None
    place = (samples - blue) / (red - blue) - 0.5
    polynomials = []
    for letter in "FB":
        count = int(header_number(header, f"{prefix}{letter}NC") or 0)
        terms = [header_number(header, f"{prefix}{letter}{term:02d}") for term in range(count)]
        if not terms or any(term is None for term in terms):
            return None, None
        polynomials.append(np.asarray(np.polyval([float(term or 0.0) for term in terms], place), np.float64))
    return polynomials[0], polynomials[1]
