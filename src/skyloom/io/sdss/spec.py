"""Spectra of SDSS, SEGUE, BOSS and eBOSS: one coadded spectrum per file (``spec-PLATE-MJD-FIBER.fits``).

Wavelengths are in vacuum and heliocentric, evenly spaced in their logarithm. The file lists them in single precision;
where the header's formula gives the same values they are taken from it, so that pixels of different spectra lie on each
other exactly. The inverse variance is 0 where nothing is known. The flux is not corrected for the Milky Way.

The mask has one word for all exposures (AND) and one for any (OR). What the pipeline distrusted wholly has no inverse
variance already; here pixels are masked in addition when the AND mask has one of `BAD_BITS`. Bits like BRIGHTSKY are
warnings: the errors there are larger, and say so.

The coaddition puts exposures onto common pixels, which correlates the noise of neighbours. The files do not tell by how
much; see `TYPICAL_CORRELATION`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra
from skyloom.core.units import parse_unit
from skyloom.errors import AssumptionWarning, FileFormatError, InputError, ShapeError
from skyloom.io.formats.files import FitsFile, Hdu, Header, header_number, open_fits, parse_header
from skyloom.io.formats.headers import parse_bunit
from skyloom.io.sdss.times import spectrum_times
from skyloom.kernels.tables.voxels import KINDS, finish_voxels

__all__ = ["BAD_BITS", "MASK_BITS", "TYPICAL_CORRELATION", "read_sdss_spectrum", "sniff"]

Float = NDArray[np.float64]
# SPPIXMASK of the survey's sdssMaskbits.par; up to 12 they concern the whole fibre.
MASK_BITS = {
    "NOPLUG": 0,
    "BADTRACE": 1,
    "BADFLAT": 2,
    "BADARC": 3,
    "MANYBADCOLUMNS": 4,
    "MANYREJECTED": 5,
    "LARGESHIFT": 6,
    "BADSKYFIBER": 7,
    "NEARWHOPPER": 8,
    "WHOPPER": 9,
    "SMEARIMAGE": 10,
    "SMEARHIGHSN": 11,
    "SMEARMEDSN": 12,
    "NEARBADPIXEL": 16,
    "LOWFLAT": 17,
    "FULLREJECT": 18,
    "PARTIALREJECT": 19,
    "SCATTEREDLIGHT": 20,
    "CROSSTALK": 21,
    "NOSKY": 22,
    "BRIGHTSKY": 23,
    "NODATA": 24,
    "COMBINEREJ": 25,
    "BADFLUXFACTOR": 26,
    "BADSKYCHI": 27,
    "REDMONSTER": 28,
}
BAD_BITS = ("NOPLUG", "BADTRACE", "BADFLAT", "BADARC", "FULLREJECT", "NOSKY", "NODATA", "BADFLUXFACTOR")
"""Bits of the AND mask that make a pixel unusable."""
TYPICAL_CORRELATION = (0.25, 1.0, 0.25)
"""Autocorrelation of the noise of a coadded spectrum, at lags of -1, 0 and 1 pixels.

Measured on 15 spectra of 1999 to 2010 (plates 411, 412, 3126, 4238, 4500): second differences of single spectra have
neighbours correlated by 0.20 to 0.32, and the differences of spectra of one object taken in several nights, divided by
their errors, by 0.10 to 0.24, with less than 0.07 two and three pixels apart. Pixels taken as independent make the
errors of sums over 20 pixels too small by 10 to 25 %; with this correlation they are right within 10 %.
"""
_UNIT = "1e-17 erg/(s cm2 AA)"
# So far may the listed wavelengths lie from the formula, in pixels: they are rounded to 0.002 of one.
_ROUNDING = 0.02
_FIRST_BOSS_PLATE = 3510
_PIXELS = ("flux", "loglam", "ivar", "and_mask", "or_mask", "wdisp")
_OBJECT_TEXTS = {
    "class": "CLASS",
    "subclass": "SUBCLASS",
    "survey": "SURVEY",
    "run2d": "RUN2D",
    "spectrograph": "INSTRUMENT",
    "programme": "PROGRAMNAME",
}
_OBJECT_NUMBERS = {"redshift": "Z", "redshift_err": "Z_ERR"}
_OBJECT_FLUXES = {
    "spectro_flux": "SPECTROFLUX",
    "fibre_flux": "FIBERFLUX",
    "fibre2_flux": "FIBER2FLUX",
    "psf_flux": "PSFFLUX",
}
_WANTED = (*_OBJECT_TEXTS.values(), *_OBJECT_NUMBERS.values(), *_OBJECT_FLUXES.values(), "ZWARNING")
_DISPERSION = re.compile(rb"TTYPE\d+ *= '(?:flux|loglam|FLUX|LOGLAM) *'")


def sniff(file: FitsFile) -> bool:
    """Tell whether a file holds a spectrum as SDSS distributes them: a table with flux and loglam."""
    return _coadd(file) is not None


def _coadd(file: FitsFile) -> Hdu | None:
    """Return the first table with columns flux and loglam."""
    for hdu in file:
        if not hdu.is_image and len({name.upper() for name in _DISPERSION.findall(hdu.cards)}) == 2:
            return hdu
    return None


def read_sdss_spectrum(
    path: str | Path,
    *,
    bad_bits: Sequence[str] = BAD_BITS,
    correlation: str | Sequence[float] | None = "typical",
) -> Spectra:
    """Read a coadded spectrum of SDSS.

    Parameters
    ----------
    path : str or path
    bad_bits : sequence of str
        Names (see `MASK_BITS`) of the bits of the AND mask that make a pixel unusable, besides an inverse variance
        of 0.
    correlation : {"typical", "independent"} or sequence of float, optional
        Autocorrelation of the noise over an odd number of lags. The files do not tell it. "typical":
        `TYPICAL_CORRELATION`, as measured on spectra of the survey; without it the errors of broad sums would be 10 to
        25 % too small. "independent" or None: none. ``skyloom inspect --errors`` measures that of a spectrum.

    Returns
    -------
    Spectra
        Of shape (1, n_wave) in 1e-17 erg/(s cm2 AA) through the fibre; variance that of the file.
        The line-spread function is that of ``wdisp``, given in pixels there. ``meta`` has instrument, telescope, plate,
        mjd, fiberid, object, ra, dec (deg), fibre_diameter (arcsec) and fibre_from (how it is known), exposure (s),
        time_start, time_stop and time_from (see `skyloom.io.sdss.times.spectrum_times`), heliocentric,
        milky_way_corrected, correlation_from ("typical", "given" or "independent"); and as far as the file tells
        redshift, class, survey, programme, spectro_flux, fibre_flux, fibre2_flux and psf_flux (nmgy in ugriz), and_mask
        and or_mask (pixels per bit).

    Warns
    -----
    AssumptionWarning
        When the unit is not said, or the diameter of the fibre had to be taken from the number of the plate.

    Raises
    ------
    FileFormatError
        When the file is truncated, has no table with flux, loglam and ivar, an inverse variance is negative, or the
        wavelengths are not ascending.
    InputError
        When a bit or the name of a correlation is unknown, or no pixel is usable.
    """
    bits = _bits(bad_bits)
    lags, lags_from = _correlation(correlation)
    with open_fits(path) as file:
        table = _coadd(file)
        if table is None:
            raise FileFormatError(
                "there is no table with the columns flux and loglam",
                source=path,
                remedy="give a file spec-*.fits of SDSS",
            )
        pixels = table.columns(*_PIXELS)
        data, variance, mask = _planes(pixels, bits, file.path)
        header = file[0].header
        wave = _wavelengths(header, pixels["loglam"], file.path)
        meta = _meta(file, table)
        meta |= {"path": str(file.path), "sha256": file.sha256, "correlation_from": lags_from}
        for name in ("and_mask", "or_mask"):
            if name in pixels:
                meta[name] = _bit_counts(pixels[name])
        lsf = _lsf(wave, pixels.get("wdisp"), mask)
        unit, notes = _unit(header)
    notes += meta.pop("notes")
    for note in notes:
        warnings.warn(f"{path}: {note}", AssumptionWarning, stacklevel=2)
    done = step(
        "read_sdss_spectrum",
        path=meta["path"],
        sha256=meta["sha256"],
        bad_bits=list(bad_bits),
        masked=int(np.count_nonzero(mask)),
    )
    return Spectra(
        data[None],
        variance[None],
        mask[None],
        unit,
        wave,
        "vacuum",
        lsf=lsf,
        correlation=lags,
        meta=meta,
        history=(done,),
    )


def _bits(names: Sequence[str]) -> int:
    value = 0
    for name in names:
        if name not in MASK_BITS:
            raise InputError(
                f"{name!r} is no bit of the mask", field="bad_bits", remedy=f"known: {', '.join(MASK_BITS)}"
            )
        value |= 1 << MASK_BITS[name]
    return value


def _correlation(correlation: str | Sequence[float] | None) -> tuple[Float | None, str]:
    """Return lags and where they come from."""
    if correlation is None or (isinstance(correlation, str) and correlation == "independent"):
        return None, "independent"
    if not isinstance(correlation, str):
        return np.asarray(correlation, dtype=np.float64), "given"
    if correlation != "typical":
        raise InputError(
            f"{correlation!r} is no correlation",
            field="correlation",
            remedy="give 'typical', 'independent', or numbers such as (0.25, 1, 0.25)",
        )
    return np.array(TYPICAL_CORRELATION), "typical"


def _planes(
    pixels: dict[str, NDArray[Any]], bits: int, path: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return values, variance and mask."""
    if "ivar" not in pixels:
        raise FileFormatError("the table has no column ivar", source=path, field="ivar")
    data = np.ascontiguousarray(pixels["flux"], dtype=np.float32)
    variance = np.array(pixels["ivar"], dtype=np.float32)
    if data.ndim != 1 or not data.size:
        raise ShapeError(
            f"flux has shape {data.shape}; expected one number per row", source=path, field="flux"
        )
    if variance.shape != data.shape:
        raise ShapeError(f"ivar has shape {variance.shape}; expected {data.shape}", source=path, field="ivar")
    mask = np.zeros(data.shape, bool)
    if bits and "and_mask" in pixels:
        mask |= (pixels["and_mask"] & np.int32(bits)) != 0
    negative, _, _ = finish_voxels(data, variance, mask, KINDS.index("inverse_variance"), np.inf)
    if negative:
        raise FileFormatError(
            f"{negative} inverse variances are negative",
            source=path,
            field="ivar",
            remedy="no error follows from them: fetch the spectrum again",
        )
    if mask.all():
        raise InputError(
            "no pixel has a finite value, a positive inverse variance and a clean mask",
            source=path,
            field="ivar",
            remedy="the fibre was dropped or unplugged: leave this file out",
        )
    return data, variance, mask


def _wavelengths(header: Header, loglam: NDArray[Any], path: Path) -> Float:
    """Return wavelengths in A: by the header's formula where it gives the listed ones to their rounding."""
    start, increment = (header_number(header, keyword) for keyword in ("COEFF0", "COEFF1"))
    listed = np.asarray(loglam, dtype=np.float64)
    if not (np.isfinite(listed).all() and np.all(listed > 2) and np.all(listed < 6)):
        raise FileFormatError("loglam is no logarithm of a wavelength in A", source=path, field="loglam")
    if np.any(np.diff(listed) <= 0):
        raise FileFormatError("loglam is not ascending", source=path, field="loglam")
    if start is not None and increment is not None and increment > 0:
        # The coadd begins at COEFF0 on paper; files hold the part of it that was observed.
        places = (listed - start) / increment
        first = round(float(places[0]))
        if np.abs(places - (first + np.arange(listed.size))).max() < _ROUNDING:
            return _grid(start, increment, first, listed.size)
        numbers = np.rint(places)
        if np.abs(places - numbers).max() < _ROUNDING:
            return np.asarray(10.0 ** (start + increment * numbers), dtype=np.float64)
    return np.asarray(10.0**listed, dtype=np.float64)


@lru_cache(maxsize=64)
def _grid(start: float, increment: float, first: int, size: int) -> Float:
    wave: Float = np.power(10.0, start + increment * (first + np.arange(size)))
    wave.flags.writeable = False  # It is shared.
    return wave


def _lsf(wave: Float, dispersion: NDArray[Any] | None, mask: NDArray[np.bool_]) -> Float | None:
    """Return standard deviations in A from those in pixels; interpolated where the file has none."""
    if dispersion is None or dispersion.shape != wave.shape:
        return None
    known = (dispersion > 0) & np.isfinite(dispersion)
    widths = dispersion.astype(np.float64)
    if not known.all():
        if not (known & ~mask).any():
            return None
        widths = np.interp(wave, wave[known], widths[known])
    pixel: Float = np.gradient(np.log(wave))
    sigma: Float = widths * pixel * wave
    return sigma


def _unit(header: Header) -> tuple[Any, tuple[str, ...]]:
    written = str(header.get("BUNIT") or "").strip()
    if written:
        return parse_bunit(written), ()
    return parse_unit(_UNIT), (f"the header says no unit: taken as {_UNIT}, the survey's",)


# ------------------------------------------------------------------------------------------------- the object


def _meta(file: FitsFile, table: Hdu) -> dict[str, Any]:
    header = file[0].header
    meta: dict[str, Any] = {
        "instrument": "SDSS spectrograph",
        "telescope": "SDSS 2.5-M",
        "milky_way_corrected": False,
        "heliocentric": True,
        "notes": (),
    }
    for name, keywords in (
        ("plate", ("PLATEID", "PLATE")),
        ("mjd", ("MJD",)),
        ("fiberid", ("FIBERID", "FIBER")),
    ):
        numbers = [header_number(header, keyword) for keyword in keywords]
        known = [number for number in numbers if number is not None]
        if known:
            meta[name] = int(known[0])
    if meta.keys() >= {"plate", "mjd", "fiberid"}:
        meta["object"] = f"{meta['plate']:04d}-{meta['mjd']}-{meta['fiberid']:04d}"
    # RA and DEC without PLUG_ are where the telescope pointed.
    for name, keyword in (("ra", "PLUG_RA"), ("dec", "PLUG_DEC"), ("exposure", "EXPTIME")):
        number = header_number(header, keyword)
        if number is not None:
            meta[name] = number
    meta |= _object(file, table)
    _fibre(meta)
    return meta | spectrum_times(header, _exposures(file, table), file.path)


def _object(file: FitsFile, table: Hdu) -> dict[str, Any]:
    """Return what the table about the object says, with one row: SPECOBJ, of BOSS SPALL."""
    known: dict[str, Any] = {}
    for hdu in file:
        if hdu is table or hdu.structure.get("NAXIS2") != 1:
            continue
        if str(hdu.structure.get("XTENSION", "")).strip() != "BINTABLE":
            continue
        row = {name: column[0] for name, column in hdu.columns(*_WANTED).items()}
        if "Z" not in row and "CLASS" not in row:
            continue
        for name, column in _OBJECT_TEXTS.items():
            text = row[column].decode("latin-1").strip() if isinstance(row.get(column), bytes) else ""
            if text:
                known[name] = text
        # Tables of the first spectra of BOSS name the survey as the programme alone.
        known.setdefault("survey", known.get("programme", ""))
        for name, column in _OBJECT_NUMBERS.items():
            if column in row and math.isfinite(row[column]):
                known[name] = float(row[column])
        for name, column in _OBJECT_FLUXES.items():
            if column in row and np.shape(row[column]) == (5,):
                known[name] = [float(value) for value in row[column]]
        if "ZWARNING" in row:
            known["zwarning"] = int(row["ZWARNING"])
        break
    return known


def _fibre(meta: dict[str, Any]) -> None:
    """Add the diameter of the fibre: 3" with the SDSS spectrographs, 2" with those of BOSS."""
    named = str(meta.get("spectrograph", "")).upper()
    version = str(meta.get("run2d", ""))
    if named in ("SDSS", "BOSS"):
        meta["fibre_diameter"], meta["fibre_from"] = (3.0 if named == "SDSS" else 2.0), "INSTRUMENT"
    elif version.isdigit() or version.startswith("v"):
        # Data of the old spectrographs were reduced by versions named with numbers: 26, 103, 104.
        meta["fibre_diameter"], meta["fibre_from"] = (3.0 if version.isdigit() else 2.0), "RUN2D"
    elif "plate" in meta:
        diameter = 2.0 if meta["plate"] >= _FIRST_BOSS_PLATE else 3.0
        meta["fibre_diameter"], meta["fibre_from"] = diameter, "PLATEID"
        meta["notes"] = (
            f"the spectrograph is not named; plate {meta['plate']} was taken with fibres of {diameter:g} arcsec",
        )


def _exposures(file: FitsFile, table: Hdu) -> list[tuple[float, float]]:
    """Return begin and end (s, TAI) of the single exposures that a full file keeps after the coadd."""
    found = []
    for hdu in file.hdus[1:]:
        if hdu is table or b"TAI-BEG =" not in hdu.cards:
            continue
        begin, end = (header_number(_one_card(hdu.cards, key), key) for key in ("TAI-BEG", "TAI-END"))
        if begin is not None and end is not None and end > begin:
            found.append((begin, end))
    return found


def _one_card(cards: bytes, keyword: str) -> Header:
    """Return one keyword of a header that is not worth parsing: exposures have hundreds of cards each."""
    place = cards.find(keyword.ljust(8).encode() + b"=")
    return parse_header(cards[place : place + 80]) if place >= 0 and place % 80 == 0 else {}


def _bit_counts(words: NDArray[Any]) -> dict[str, int]:
    """Return how many pixels have each bit, where any has."""
    any_bit = int(np.bitwise_or.reduce(words))
    return {
        name: int(np.count_nonzero(words & np.int32(1 << bit)))
        for name, bit in MASK_BITS.items()
        if any_bit >> bit & 1
    }
