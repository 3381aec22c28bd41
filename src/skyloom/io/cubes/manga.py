"""MaNGA: data cubes (LOGCUBE, LINCUBE), row-stacked spectra (LOGRSS), and sets of spectra taken from cubes.

Wavelengths are in vacuum and, in LOG files, evenly spaced in their logarithm. IVAR is an inverse variance; 0 means that
nothing is known. The fluxes are not corrected for the extinction by the Milky Way (Law et al. 2016,
10.3847/0004-6256/152/4/83).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.provenance import step
from skyloom.core.psf import FWHM_PER_SIGMA, PSF, ChromaticPSF, GaussianPSF
from skyloom.core.spectra import Spectra
from skyloom.core.units import parse_unit
from skyloom.errors import AssumptionWarning, FileFormatError, InputError, RepairWarning, ShapeError
from skyloom.io.cubes.files import read_whole
from skyloom.io.cubes.layout import CubeLayout
from skyloom.io.cubes.observation import celestial_wcs
from skyloom.io.cubes.survey_noise import MANGA_NOISE, correlation_of_tables, manga_correlation
from skyloom.io.formats.files import FitsFile, Header, header_number, open_fits
from skyloom.io.formats.headers import parse_bunit
from skyloom.io.formats.wavelengths import header_wave
from skyloom.kernels.tables.voxels import KINDS, finish_voxels

__all__ = ["CUBE_BAD_BITS", "RSS_BAD_BITS", "layout", "manga_meta", "read_manga", "sniff"]

Float = NDArray[np.float64]

# MANGA_DRP3PIXMASK: NOCOV, LOWCOV, DEADFIBER, FORESTAR, DONOTUSE.
CUBE_BAD_BITS = (1 << 0) | (1 << 1) | (1 << 2) | (1 << 3) | (1 << 10)
# MANGA_DRP2PIXMASK: DEADFIBER, FULLREJECT, NOSKY, NODATA, 3DREJECT.
RSS_BAD_BITS = (1 << 13) | (1 << 19) | (1 << 23) | (1 << 25) | (1 << 30)
# MANGA_DRP3QUAL: CRITICAL.
_CRITICAL = 1 << 30
_NEEDED = {"FLUX", "IVAR", "MASK", "WAVE"}
_UNIT = "1e-17 erg/(s cm2 AA)"
# Mean wavelengths of the SDSS bands in A (Fukugita et al. 1996, 10.1086/117915).
_BANDS = {"G": 4686.0, "R": 6166.0, "I": 7480.0, "Z": 8932.0}
_MATRICES = ("GCORREL", "RCORREL", "ICORREL", "ZCORREL")
# Names of the line-spread functions, of DR17 and of earlier releases.
_LSF_CUBES = {"pre": ("LSFPRE", "PREDISP"), "post": ("LSFPOST", "DISP")}
_LSF_VECTORS = {"pre": ("PRESPECRES", "SPECRES"), "post": ("SPECRES", "PRESPECRES")}
LSF_CHOICES = ("pre", "post", "median")
# Resolving powers of the instrument lie between 1000 and 3000; what is far from them is no measurement.
_RESOLUTION = (300.0, 10000.0)
# So far may the listed wavelengths lie from the header's formula, in channels.
_WAVE_TOLERANCE = 0.1


def sniff(file: FitsFile) -> bool:
    """Tell whether a file holds a cube or spectra of MaNGA."""
    names = {hdu.name for hdu in file}
    if not names >= _NEEDED:
        return False
    header = file[0].header
    texts = [str(header.get(key) or "") for key in ("INSTRUME", "MASKNAME", "SRVYMODE", "PLATETYP")]
    return any("MANGA" in text.upper() for text in texts) or ("SRES" in names and "DRPVER" in header)


def layout(file: FitsFile, *, lsf: str = "pre", unit: u.UnitBase | str | None = None) -> CubeLayout:
    """Find out from headers (and small tables) where everything of a MaNGA cube stands.

    Parameters
    ----------
    file : FitsFile
    lsf : {"pre", "post", "median"}
        Line-spread function per voxel before or after the integration over pixels, or one per channel for all
        spaxels. "pre" is right for models that are integrated over pixels themselves (Law et al. 2021,
        10.3847/1538-3881/abcaa2); what a release does not have is replaced by what it has, see ``meta["lsf"]``.
    unit : unit or str, optional
        Of the data, instead of BUNIT.

    Notes
    -----
    The spatial correlation is the mean of the matrices of the file (data release 15 and later); where it has none, the
    published Gaussian, said in ``meta["noise_correlation"]``.

    Raises
    ------
    FileFormatError, UnitError, InputError
        As `skyloom.io.cubes.files.open_cube`.
    """
    numbers = {hdu.name: number for number, hdu in reversed(list(enumerate(file)))}
    flux = file["FLUX"]
    if len(flux.shape) != 3:
        raise FileFormatError(
            f"FLUX has {len(flux.shape)} dimensions; a cube has 3",
            source=file.path,
            remedy="read row-stacked spectra with skyloom.read",
        )
    primary = file[0].header
    _check_mask_name(file, ("MANGA_DRP3PIXMASK",))
    wave, wave_notes = _wavelengths(file, flux.shape[0])
    wcs, wcs_notes = celestial_wcs(flux)
    chosen, unit_notes = _unit(file, unit)
    meta = manga_meta(primary)
    width, meta["lsf"], lsf_notes = _cube_lsf(file, numbers, wave, lsf)
    kernel = correlation_of_tables(file, _MATRICES, flux.shape[1:3])
    meta["noise_correlation"] = MANGA_NOISE if kernel is None else "mean of the matrices of the file"
    notes = [*wave_notes, *wcs_notes, *unit_notes, *lsf_notes]
    if int(header_number(primary, "DRP3QUAL") or 0) & _CRITICAL:
        notes.append("DRP3QUAL has the bit CRITICAL: the survey advises against using this cube")
    return CubeLayout(
        data=numbers["FLUX"],
        error=numbers["IVAR"],
        error_kind="inverse_variance",
        mask=numbers["MASK"],
        bad_bits=CUBE_BAD_BITS,
        wave=wave,
        medium="vacuum",
        unit=chosen,
        wcs=wcs,
        lsf=width,
        psf=_psf(primary),
        correlation=CubeCorrelation(manga_correlation() if kernel is None else kernel, None),
        meta=meta,
        notes=tuple(notes),
    )


def read_manga(path: str | Path, *, lsf: str = "pre", unit: u.UnitBase | str | None = None) -> Cube | Spectra:
    """Read a cube, row-stacked spectra or a set of spectra of MaNGA.

    Parameters
    ----------
    path : str or path
    lsf, unit
        See `layout`; of spectra, "median" is the same as "pre".

    Returns
    -------
    Cube or Spectra
        ``meta`` has, as far as the file says: object and plateifu, mangaid, ebv, milky_way_corrected (False),
        redshift (a list with one per spectrum where the file lists them), positions (fibres, arcsec from the centre),
        empty (rows without a usable channel).

    Warns
    -----
    RepairWarning
        When inverse variances or resolutions are negative, with their number and rows.
    AssumptionWarning
        When the unit is not said.

    Raises
    ------
    FileFormatError, ShapeError, UnitError, InputError
        When the file is truncated, lacks an extension, or its arrays differ in shape.
    """
    with open_fits(path) as file:
        missing = sorted(_NEEDED - {hdu.name for hdu in file})
        if missing:
            raise FileFormatError(f"the extension {missing[0]} is missing", source=path)
        if len(file["FLUX"].shape) == 2:
            return _read_spectra(file, lsf, unit)
    return read_whole(path, instrument="manga", lsf=lsf, unit=unit)


def manga_meta(primary: Header) -> dict[str, Any]:
    """Return what the primary header of a MaNGA file says about the observation; only what is known."""
    meta: dict[str, Any] = {"instrument": "MaNGA", "milky_way_corrected": False, "telescope": "SDSS 2.5-M"}
    texts = {"plateifu": "PLATEIFU", "mangaid": "MANGAID", "time": "DATE-OBS", "pipeline": "VERSDRP3"}
    for name, keyword in texts.items():
        value = str(
            primary.get(keyword) or primary.get("DRPVER" if name == "pipeline" else keyword) or ""
        ).strip()
        if value:
            meta[name] = value
    if "plateifu" in meta:
        meta["object"] = meta["plateifu"]
    numbers = {"ebv": "EBVGAL", "ra": "OBJRA", "dec": "OBJDEC", "exposure": "EXPTIME", "quality": "DRP3QUAL"}
    for name, keyword in numbers.items():
        number = header_number(primary, keyword)
        if number is not None:
            meta[name] = int(number) if name == "quality" else number
    return meta


# ------------------------------------------------------------------------------------------------- headers


def _check_mask_name(file: FitsFile, known: tuple[str, ...]) -> str:
    """Return which survey bits the mask holds, the first of those known where the file does not say."""
    name = str(file[0].header.get("MASKNAME") or file["FLUX"].header.get("MASKNAME") or known[0]).strip()
    if name not in known:
        raise FileFormatError(
            f"MASKNAME is {name!r}; expected {' or '.join(known)}",
            source=file.path,
            field="MASKNAME",
            remedy="give a file of the data reduction pipeline (manga-*-LOGCUBE, -LINCUBE or -LOGRSS)",
        )
    return name


def _wavelengths(file: FitsFile, size: int) -> tuple[Float, tuple[str, ...]]:
    """Return the listed wavelengths, or those of the header where the list cannot be one."""
    listed = np.asarray(file["WAVE"].array(), dtype=np.float64)
    if listed.shape != (size,):
        raise ShapeError(f"WAVE has shape {listed.shape}; expected ({size},)", source=file.path, field="WAVE")
    formula = None
    flux = file["FLUX"]
    if len(flux.shape) == 3 and "CTYPE3" in flux.header:
        formula = header_wave(flux, 3, size, medium="vacuum").wave
    ascending = np.all(np.isfinite(listed)) and np.all(np.diff(listed) > 0) and listed[0] > 0
    if not ascending:
        if formula is None:
            raise FileFormatError(
                "the wavelengths are not positive and ascending", source=file.path, field="WAVE"
            )
        return formula, ("WAVE holds no ascending wavelengths; taken from the header's formula",)
    if formula is not None and np.max(np.abs(formula - listed)) > _WAVE_TOLERANCE * np.min(np.diff(listed)):
        worst = float(np.max(np.abs(formula - listed)))
        return listed, (f"the header's formula is up to {worst:.3g} A off the wavelengths listed in WAVE",)
    return listed, ()


def _unit(file: FitsFile, unit: u.UnitBase | str | None) -> tuple[u.UnitBase, tuple[str, ...]]:
    if unit is not None:
        return parse_unit(unit), ()
    written = str(file["FLUX"].header.get("BUNIT") or file[0].header.get("BUNIT") or "").strip()
    if written:
        return parse_bunit(written), ()
    return parse_unit(_UNIT), (
        f"the header says no unit: taken as {_UNIT} per spaxel or fibre, the survey's",
    )


def _psf(primary: Header) -> PSF | None:
    """Return the reconstructed PSF: Gaussians of the widths in the griz bands."""
    widths = {wave: header_number(primary, f"{band}FWHM") for band, wave in _BANDS.items()}
    known = {wave: width for wave, width in widths.items() if width is not None and width > 0}
    if not known:
        return None
    return ChromaticPSF(np.array(list(known)), tuple(GaussianPSF(width) for width in known.values()))


def _cube_lsf(
    file: FitsFile, numbers: dict[str, int], wave: Float, choice: str
) -> tuple[Float | int | None, str, tuple[str, ...]]:
    """Return the line-spread function as `CubeLayout` has it, its name, and notes."""
    if choice not in LSF_CHOICES:
        raise InputError(f"lsf is {choice!r}", field="lsf", remedy=f"use one of {', '.join(LSF_CHOICES)}")
    if choice != "median":
        for name in (*_LSF_CUBES[choice], *_LSF_CUBES["post" if choice == "pre" else "pre"]):
            if name in numbers and file[numbers[name]].shape == file["FLUX"].shape:
                return numbers[name], name, ()
    for name in _LSF_VECTORS["post" if choice == "post" else "pre"]:
        if name in numbers:
            sigma = _sigma_of_resolution(wave, np.asarray(file[numbers[name]].array(), dtype=np.float64))
            if np.all(np.isfinite(sigma)):
                return sigma, name, ()
            return (
                None,
                "",
                (f"{name} holds no resolving power of the instrument; the line spread is not known",),
            )
    return None, "", ("the file has no line-spread function",)


def _sigma_of_resolution(wave: Float, resolution: Float) -> Float:
    """Return ``wave / R / 2.355`` in A, interpolated where R is none of the instrument; NaN where it never is."""
    known = (resolution > _RESOLUTION[0]) & (resolution < _RESOLUTION[1])
    if resolution.shape != wave.shape or not np.any(known):
        return np.full(wave.shape, np.nan)
    return np.asarray(wave / np.interp(wave, wave[known], resolution[known]) / FWHM_PER_SIGMA)


# ------------------------------------------------------------------------------------------------- spectra


def _read_spectra(file: FitsFile, lsf: str, unit: u.UnitBase | str | None) -> Spectra:
    if lsf not in LSF_CHOICES:
        raise InputError(
            f"lsf is {lsf!r}", source=file.path, field="lsf", remedy=f"use one of {', '.join(LSF_CHOICES)}"
        )
    data = np.ascontiguousarray(file["FLUX"].array(), dtype=np.float32)
    variance = np.ascontiguousarray(file["IVAR"].array(), dtype=np.float32)
    codes = file["MASK"].array()
    for name, plane in (("IVAR", variance), ("MASK", codes)):
        if plane.shape != data.shape:
            raise ShapeError(
                f"{name} has shape {plane.shape}; expected {data.shape}, that of FLUX", source=file.path
            )
    stacked = _check_mask_name(file, ("MANGA_DRP3PIXMASK", "MANGA_DRP2PIXMASK")) == "MANGA_DRP2PIXMASK"
    bits = RSS_BAD_BITS if stacked else CUBE_BAD_BITS
    mask = np.ascontiguousarray((codes & codes.dtype.type(bits)) != 0)
    kind = KINDS.index("inverse_variance")
    negative = finish_voxels(data.reshape(-1), variance.reshape(-1), mask.reshape(-1), kind, np.inf)[0]
    wave, wave_notes = _wavelengths(file, data.shape[1])
    widths, source, bad = _spectra_lsf(file, wave, data.shape, lsf)
    chosen, unit_notes = _unit(file, unit)
    meta = {**manga_meta(file[0].header), "path": str(file.path), "lsf": source}
    meta |= _listed_meta(file, data.shape)
    empty = np.flatnonzero(mask.all(axis=1)).tolist()
    if empty:
        meta["empty"] = empty
    _warn_of_spectra(file.path, (*wave_notes, *unit_notes), int(negative), bad, empty)
    done = step("read_manga", path=str(file.path), sha256=file.sha256, masked=int(mask.sum()), empty=empty)
    return Spectra(data, variance, mask, chosen, wave, "vacuum", lsf=widths, meta=meta, history=(done,))


def _spectra_lsf(
    file: FitsFile, wave: Float, shape: tuple[int, ...], choice: str
) -> tuple[Float | None, str, NDArray[np.int64]]:
    """Return standard deviations in A, where they come from, and how many of each row were no measurement."""
    kinds = ("post", "pre") if choice == "post" else ("pre", "post")
    for name in (name for kind in kinds for name in _LSF_CUBES[kind]):
        found = [hdu for hdu in file if hdu.name == name and hdu.shape == shape]
        if found:
            return found[0].array().astype(np.float64), name, np.zeros(shape[0], np.int64)
    for hdu in file:
        if hdu.name == "SRES" and hdu.shape == shape:
            resolution = hdu.array().astype(np.float64)
            bad = np.count_nonzero(~(resolution > 0), axis=1)
            return np.stack([_sigma_of_resolution(wave, row) for row in resolution]), "SRES", bad
    return None, "", np.zeros(shape[0], np.int64)


def _listed_meta(file: FitsFile, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return redshifts and positions of the spectra, where the file lists them."""
    meta: dict[str, Any] = {}
    arrays = {hdu.name: hdu for hdu in file if hdu.name in ("Z", "XPOS", "YPOS")}
    if "Z" in arrays and arrays["Z"].shape == shape[:1]:
        meta["redshift"] = arrays["Z"].array().astype(np.float64).tolist()
    if "XPOS" in arrays and "YPOS" in arrays and arrays["XPOS"].shape == arrays["YPOS"].shape == shape:
        # They drift by fractions of a fibre with wavelength (differential refraction); the middle stands for all.
        meta["positions"] = np.stack(
            [np.median(arrays[key].array(), axis=1) for key in ("XPOS", "YPOS")], axis=1
        )
    return meta


def _warn_of_spectra(
    path: Path, notes: tuple[str, ...], negative: int, bad: NDArray[Any], empty: list[int]
) -> None:
    for note in notes:
        warnings.warn(f"{path}: {note}", AssumptionWarning, stacklevel=4)
    repairs = []
    if negative:
        repairs.append(f"{negative} negative inverse variances masked")
    if np.any(bad):
        rows = ", ".join(str(row) for row in np.flatnonzero(bad))
        repairs.append(
            f"{int(bad.sum())} resolutions that are not positive, in spectrum {rows}, interpolated"
        )
    if repairs:
        named = f"; no usable channel in spectrum {', '.join(map(str, empty))}" if empty else ""
        warnings.warn(f"{path}: {'; '.join(repairs)}{named}", RepairWarning, stacklevel=4)
