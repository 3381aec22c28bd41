"""What FITS headers say and how it is said: units, numbers, world coordinates; and opening a FITS file safely."""

from __future__ import annotations

import hashlib
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.errors import FileFormatError, InputError, UnitError
from skyloom.io.blocks import card

__all__ = [
    "check_complete",
    "digest",
    "exact_wcs",
    "header_number",
    "open_fits",
    "parse_bunit",
    "pixels",
    "unit_text",
    "wcs_cards",
    "wcs_from_header",
]

_UNREADABLE = (OSError, EOFError, ValueError, TypeError, zlib.error, AstropyUserWarning)


@contextmanager
def open_fits(path: str | Path) -> Iterator[fits.HDUList]:
    """Open a FITS file (also .gz and .bz2) for reading; what is no FITS file is refused with its name.

    Raises
    ------
    FileFormatError
        When there is no such file, or it is not FITS, or ends before its first header does.
    """
    if not Path(path).is_file():
        raise FileFormatError("there is no such file", source=path)
    with warnings.catch_warnings():
        # Astropy announces a truncated file with a warning and fails later; check_complete says it with an error.
        warnings.filterwarnings("ignore", message=".*may have been truncated", category=AstropyUserWarning)
        # BLANK in a header of floats has no meaning; astropy ignores it, as it should be.
        warnings.filterwarnings("ignore", message="Invalid 'BLANK'", category=AstropyUserWarning)
        try:
            hdus = fits.open(path, memmap=False)
            hdus[0].header  # noqa: B018  # a file that is not FITS shows here
        except _UNREADABLE as error:
            raise FileFormatError(
                f"this is not a readable FITS file ({_reason(error)})", source=path
            ) from error
        with hdus:
            yield hdus


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def check_complete(hdus: fits.HDUList, path: str | Path) -> None:
    """Raise when the file is shorter than its headers promise.

    Raises
    ------
    FileFormatError
        With the number of bytes that are missing.
    """
    size = Path(path).stat().st_size
    for number, hdu in enumerate(hdus):
        place = hdu.fileinfo()
        if place is None or getattr(place["file"], "compression", None):
            return  # The length of a compressed file is only known by reading it; `pixels` reports what is missing.
        end = place["datLoc"] + hdu.size
        if end > size:
            raise FileFormatError(
                f"the file is truncated: extension {number} needs {end} bytes, {size} are there",
                source=path,
                remedy="fetch or write it again",
            )


def pixels(hdu: Any, path: str | Path) -> NDArray[Any]:
    """Return the array of an HDU in native byte order.

    Raises
    ------
    FileFormatError
        When it cannot be read, or there is none.
    """
    try:
        data = hdu.data
    except _UNREADABLE as error:
        raise FileFormatError(
            f"extension {hdu.name or 'PRIMARY'} cannot be read; the file is truncated or damaged ({_reason(error)})",
            source=path,
        ) from error
    if data is None:
        raise FileFormatError(f"extension {hdu.name or 'PRIMARY'} holds no array", source=path)
    if data.dtype.isnative:
        return np.asarray(data)
    return np.asarray(data.astype(data.dtype.newbyteorder("=")))


def digest(path: str | Path) -> str:
    """Return the SHA-256 of a file, as it is on the disk."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def header_number(header: fits.Header, keyword: str) -> float | None:
    """Return a keyword as a finite float, also when the header holds it as text; None when absent or no number."""
    try:
        value = float(header[keyword])
    except (KeyError, ValueError, TypeError, fits.VerifyError):
        return None
    return value if np.isfinite(value) else None


# ------------------------------------------------------------------------------------------------------ units

# How telescopes spell what astropy knows under another name; everything is compared in upper case.
_SPELLINGS = {
    "ELECTRON": "electron",
    "ELECTRONS": "electron",
    "E": "electron",
    "E-": "electron",
    "COUNT": "ct",
    "COUNTS": "ct",
    "CTS": "ct",
    "DN": "DN",
    "ADU": "adu",
    "NANOMAGGIES": "nmgy",
    "NANOMAGGY": "nmgy",
}
_RATES = {"CPS": "ct / s", "EPS": "electron / s"}


@lru_cache(maxsize=256)
def parse_bunit(text: str) -> u.UnitBase:
    """Return the unit that a BUNIT means, in the spellings that telescopes use.

    Raises
    ------
    UnitError
        When it cannot be read.
    """
    shown = text.strip()
    if shown.upper() in _RATES:
        return u.Unit(_RATES[shown.upper()])
    counted = re.fullmatch(
        r"([A-Za-z]+-?)\s*(/\s*(?:SEC|S)|\s(?:SEC|S)\s*(?:\^|\*\*)?-1)?", shown, re.IGNORECASE
    )
    if counted and counted[1].upper() in _SPELLINGS:
        base = u.Unit(_SPELLINGS[counted[1].upper()])
        return base / u.s if counted[2] else base
    try:
        # "Ang" and "spaxel" are not units of astropy; a spaxel is what the array counts anyway.
        plain = re.sub(r"\bAng\b", "Angstrom", re.sub(r"/\s*(?:spaxel|pixel|pix)\b", "", shown))
        with warnings.catch_warnings():
            # Several slashes, deprecated spellings: discouraged by the standard, but with one meaning only.
            warnings.simplefilter("ignore", u.UnitsWarning)
            return u.Unit(plain)
    except (ValueError, TypeError) as error:
        raise UnitError(
            f"{text!r} is not a unit that can be read",
            field="BUNIT",
            remedy='pass unit="..." to say what it is',
        ) from error


@lru_cache(maxsize=256)
def unit_text(unit: u.UnitBase) -> str:
    """Return a unit as text for BUNIT, from which astropy makes the same unit.

    Raises
    ------
    UnitError
        When its scale is not a power of ten, which FITS cannot say.
    """
    exponent = float(np.log10(abs(unit.scale))) if unit.scale else np.nan
    if not abs(exponent - round(exponent)) < 1e-12:
        raise UnitError(
            f"the unit {unit} has the scale {unit.scale:g}; FITS units carry powers of ten only",
            field="unit",
            remedy="multiply the data by the scale (the variance by its square) and write it in the unit without it",
        )
    try:
        text = str(unit.to_string("fits"))
    except ValueError:
        # Units like electron or nmgy are outside the standard; astropy reads them by name.
        text = str(unit.to_string("generic", fraction=False))
    if u.Unit(text) != unit:
        raise UnitError(f"the unit {unit} has no form in FITS that reads back", field="unit")
    return text


# ------------------------------------------------------------------------------------------- world coordinates

_WCS_KEYWORD = re.compile(
    r"WCSAXES|C(?:TYPE|UNIT|RPIX|RVAL|DELT|ROTA)\d|(?:CD|PC)\d_\d|P[VS]\d_\d+|LON(?:G)?POLE|LATPOLE|RADE(?:C?SYS)|EQUINOX"
    r"|[AB]P?_(?:ORDER|\d_\d)"
)
_SIP_KEYWORD = re.compile(r"[AB]P?_(?:ORDER|DMAX|\d_\d)")
_NO_WCS = re.compile(
    r"XTENSION|SIMPLE|BITPIX|NAXIS|[PG]COUNT|EXTEND|EXTNAME|B(?:SCALE|ZERO|UNIT)|DATASUM|CHECKSUM|COMMENT|TELESCOP|INSTRUME"
    r"|DETECTOR|FILTER|EXPTIME|PHOT|$"
)
_NUMERIC_CARD = re.compile(
    r"C(?:RPIX|RVAL|DELT|ROTA)\d|(?:CD|PC)\d_\d|PV\d_\d+|LONPOLE|LATPOLE|EQUINOX|REST(?:FRQ|WAV)|MJD-OBS"
)


def wcs_from_header(header: fits.Header, shape: tuple[int, ...]) -> tuple[WCS | None, tuple[str, ...]]:
    """Return the WCS of a header, and what had to be mended in it.

    Only the keywords that place pixels are looked at: long headers cost nothing, and dates that do not parse cannot
    spoil the coordinates. ``-SIP`` in CTYPE without coefficients, as drizzling leaves it behind, is read as the plain
    projection, because there is nothing to correct with; coefficients without ``-SIP`` in CTYPE are left out, because
    the SIP convention applies them only where CTYPE asks for them. ``RADECSYS`` is read as ``RADESYS``.

    Parameters
    ----------
    header : astropy.io.fits.Header
    shape : tuple of int
        Of the array, slowest axis first.

    Returns
    -------
    wcs : WCS or None
        None when the header places no pixels, or not on the sky.
    notes : tuple of str
        One sentence per mend.

    Raises
    ------
    FileFormatError
        When the keywords contradict each other or cannot be read.
    """
    cards: dict[str, Any] = {}
    for keyword in header:
        if _WCS_KEYWORD.fullmatch(keyword):
            cards[keyword] = header[keyword]
    notes = _mend(cards)
    if "CTYPE1" not in cards or "CTYPE2" not in cards:
        return None, notes
    wcs = _wcs_of_cards(cards, shape)
    return (wcs if wcs.has_celestial else None), notes


def exact_wcs(header: fits.Header, shape: tuple[int, ...]) -> WCS:
    """Return the WCS that `wcs_cards` wrote into a header, dates and rest wavelengths included."""
    return _wcs_of_cards(
        {item.keyword: item.value for item in header.cards if not _NO_WCS.match(item.keyword)}, shape
    )


def _wcs_of_cards(cards: dict[str, Any], shape: tuple[int, ...]) -> WCS:
    wcs = _cached_wcs(b"".join(card(keyword, value) for keyword, value in cards.items())).deepcopy()
    if wcs.naxis == len(shape):
        wcs.pixel_shape = shape[::-1]
    return wcs


def _mend(cards: dict[str, Any]) -> tuple[str, ...]:
    """Bring WCS keywords into the form of the standard, in place; return what was done."""
    notes = []
    if "RADECSYS" in cards:
        old = cards.pop("RADECSYS")
        cards.setdefault("RADESYS", old)
        notes.append("RADECSYS is the old name of RADESYS: read as such")
    if "LONGPOLE" in cards:
        cards.setdefault("LONPOLE", cards.pop("LONGPOLE"))
    types = [str(cards.get(f"CTYPE{axis}", "")).strip() for axis in (1, 2)]
    distorted = [kind.endswith("-SIP") for kind in types]
    coefficients = [keyword for keyword in cards if _SIP_KEYWORD.fullmatch(keyword)]
    terms = [keyword for keyword in coefficients if not keyword.endswith("ORDER")]
    complete = "A_ORDER" in cards and "B_ORDER" in cards
    if any(distorted) and not (terms and complete):
        for axis in (1, 2):
            cards[f"CTYPE{axis}"] = types[axis - 1].removesuffix("-SIP")
        notes.append("CTYPE says -SIP but there are no SIP coefficients: read without distortion")
    elif coefficients and not any(distorted):
        notes.append("there are SIP coefficients but CTYPE does not say -SIP: read without distortion")
    if coefficients and not (all(distorted) and terms and complete):
        for keyword in coefficients:
            del cards[keyword]
    equinox = cards.get("EQUINOX")
    if isinstance(equinox, str):
        cards.pop("EQUINOX")
        digits = re.search(r"\d{4}(?:\.\d*)?", equinox)
        if digits:
            cards["EQUINOX"] = float(digits[0])
        notes.append(f"EQUINOX is the text {equinox!r}")
    return tuple(notes)


@lru_cache(maxsize=64)
def _cached_wcs(text: bytes) -> WCS:
    """Parse WCS cards once; the bands of an object share them. The caller copies before handing out."""
    try:
        with warnings.catch_warnings():
            # Astropy says what it normalised (units, dates); nothing of that moves a pixel.
            warnings.simplefilter("ignore")
            wcs = WCS(fits.Header.fromstring(text))
            wcs.wcs.set()
            return wcs
    except (ValueError, TypeError, KeyError, MemoryError, AssertionError, fits.VerifyError) as error:
        raise FileFormatError(
            f"the world coordinates cannot be read ({_reason(error)})",
            field="WCS",
            remedy="check CTYPE, CRVAL, CRPIX and the CD or PC matrix",
        ) from error


def wcs_cards(wcs: WCS | None) -> bytes:
    """Return header cards of a WCS with every digit of its numbers, SIP included.

    `astropy.wcs.WCS.to_header` writes 12 significant digits, which moves pixels by up to 1e-4 of their size.

    Raises
    ------
    InputError
        When the WCS holds lookup tables, which need extensions of their own.
    """
    if wcs is None:
        return b""
    tables = (wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2)
    if any(table is not None for table in tables) or wcs.wcs.tab:
        raise InputError(
            "the WCS has distortion or coordinate tables, which are not written",
            field="wcs",
            remedy="drizzle or reproject the data to a plain projection first",
        )
    with warnings.catch_warnings():
        # Astropy explains that it wrote SIP, or what it normalised; the round trip is tested instead.
        warnings.simplefilter("ignore")
        header = wcs.to_header(relax=True)
    if not wcs.wcs.dateref:
        # Astropy writes a default that would read back as a date that was never given.
        header.remove("MJDREF", ignore_missing=True)
    kept = [item for item in header.cards if not _NUMERIC_CARD.fullmatch(item.keyword)]
    return b"".join(card(item.keyword, item.value) for item in kept) + _exact_cards(wcs.wcs)


def _exact_cards(parameters: Any) -> bytes:
    """Cards of the numbers of a WCS, from the numbers themselves."""
    values: dict[str, float] = {}
    matrix_name = "CD" if parameters.has_cd() else "PC"
    matrix = parameters.cd if parameters.has_cd() else parameters.get_pc()
    increments = parameters.get_cdelt()
    for i in range(parameters.naxis):
        values[f"CRPIX{i + 1}"] = parameters.crpix[i]
        values[f"CRVAL{i + 1}"] = parameters.crval[i]
        if matrix_name == "PC":
            values[f"CDELT{i + 1}"] = increments[i]
        for j in range(parameters.naxis):
            values[f"{matrix_name}{i + 1}_{j + 1}"] = matrix[i, j]
    values |= {f"PV{axis}_{index}": value for axis, index, value in parameters.get_pv()}
    values |= {"LONPOLE": parameters.lonpole, "LATPOLE": parameters.latpole, "EQUINOX": parameters.equinox}
    values["MJD-OBS"] = parameters.mjdobs
    for keyword, value in (("RESTFRQ", parameters.restfrq), ("RESTWAV", parameters.restwav)):
        values[keyword] = value if value else np.nan
    return b"".join(card(keyword, float(value)) for keyword, value in values.items() if np.isfinite(value))
