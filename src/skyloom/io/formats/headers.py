"""What FITS headers say and how it is said: units, numbers, world coordinates."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from skyloom.errors import FileFormatError, InputError, UnitError
from skyloom.io.formats.blocks import card
from skyloom.io.formats.files import Header

__all__ = [
    "exact_wcs",
    "parse_bunit",
    "unit_text",
    "wcs_cards",
    "wcs_from_header",
]


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


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
    # A pixel, spaxel or fibre is what the array counts anyway.
    counted_as = r"(?:spaxel|pixel|pix|fiber|fibre)s?"
    pattern = rf"\s*/\s*{counted_as}\b|[\s.*]+{counted_as}\s*(?:\^|\*\*)?\s*\(?-1\)?"
    shown = re.sub(pattern, "", text.strip(), flags=re.IGNORECASE)
    squared = re.fullmatch(r"\((.*)\)\s*(?:\*\*|\^)\s*2", shown)
    if squared:
        return parse_bunit(squared[1]) ** 2
    if shown.upper() in _RATES:
        return u.Unit(_RATES[shown.upper()])
    counted = re.fullmatch(
        r"([A-Z]+-?)\s*(/\s*(?:SEC|S)|\s(?:SEC|S)\s*(?:\^|\*\*)?-1)?", shown, re.IGNORECASE
    )
    if counted and counted[1].upper() in _SPELLINGS:
        base = u.Unit(_SPELLINGS[counted[1].upper()])
        return base / u.s if counted[2] else base
    try:
        with warnings.catch_warnings():
            # Several slashes, deprecated spellings: discouraged by the standard, but with one meaning only.
            warnings.simplefilter("ignore", u.UnitsWarning)
            return u.Unit(_spelled_lengths(shown))
    except (ValueError, TypeError) as error:
        raise UnitError(
            f"{text!r} is not a unit that can be read",
            field="BUNIT",
            remedy='pass unit="..." to say what it is',
        ) from error


def _spelled_lengths(text: str) -> str:
    """Return a unit with Angstroms written so that they are not taken for amperes."""
    spelled = re.sub(r"\bAng(?:stroms)?(?=\b|[-^*\d])", "Angstrom", text, flags=re.IGNORECASE)
    if re.search(r"\b(?:erg|W|photons?|ph|J)\b", spelled):
        spelled = re.sub(r"(?<![A-Za-z])A(?![A-Za-z])", "Angstrom", spelled)
    return spelled


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


def wcs_from_header(header: Header, shape: tuple[int, ...]) -> tuple[WCS | None, tuple[str, ...]]:
    """Return the WCS of a header, and what had to be mended in it.

    Only the keywords that place pixels are looked at: long headers cost nothing, and dates that do not parse cannot
    spoil the coordinates. ``-SIP`` in CTYPE without coefficients, as drizzling leaves it behind, is read as the plain
    projection, because there is nothing to correct with; coefficients without ``-SIP`` in CTYPE are left out, because
    the SIP convention applies them only where CTYPE asks for them. ``RADECSYS`` is read as ``RADESYS``.

    Parameters
    ----------
    header : dict
        See `skyloom.io.formats.files.parse_header`.
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
    cards = {keyword: value for keyword, value in header.items() if _WCS_KEYWORD.fullmatch(keyword)}
    notes = _mend(cards)
    if "CTYPE1" not in cards or "CTYPE2" not in cards:
        return None, notes
    for keyword, value in cards.items():
        if isinstance(value, str) and _NUMERIC_CARD.fullmatch(keyword):
            # wcslib takes what is no number as missing, and the pixels lie somewhere else.
            raise _bad_wcs(f"{keyword} is the text {value!r}")
    matrix = [value for keyword, value in cards.items() if keyword.startswith("CD") and "_" in keyword]
    if matrix and not any(matrix):
        # wcslib takes a matrix of zeros as missing, and the pixels as one degree wide.
        raise _bad_wcs("the CD matrix is zero")
    wcs = _wcs_of_cards(cards, shape)
    return (wcs if wcs.has_celestial else None), notes


def exact_wcs(header: Header, shape: tuple[int, ...]) -> WCS:
    """Return the WCS that `wcs_cards` wrote into a header, dates and rest wavelengths included."""
    return _wcs_of_cards(
        {keyword: value for keyword, value in header.items() if not _NO_WCS.match(keyword)}, shape
    )


def _wcs_of_cards(cards: Header, shape: tuple[int, ...]) -> WCS:
    wcs = _cached_wcs(b"".join(card(keyword, value) for keyword, value in cards.items())).deepcopy()
    if wcs.naxis == len(shape):
        wcs.pixel_shape = shape[::-1]
    return wcs


def _mend(cards: Header) -> tuple[str, ...]:
    """Bring WCS keywords into the form of the standard, in place; return what was done."""
    notes = []
    if "RADECSYS" in cards:
        old = cards.pop("RADECSYS")
        cards.setdefault("RADESYS", old)
        notes.append("RADECSYS is the old name of RADESYS: read as such")
    if "LONGPOLE" in cards:
        cards.setdefault("LONPOLE", cards.pop("LONGPOLE"))
    if str(cards.get("CTYPE3", "")).strip().endswith("-TAB"):
        for keyword in [key for key in cards if re.search(r"3(?:_\d+)?$|_3$", key)]:
            del cards[keyword]
        cards["WCSAXES"] = 2
        notes.append("the third axis is a table of coordinates: the sky coordinates alone were read")
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
            matrix = wcs.pixel_scale_matrix
            if not abs(np.linalg.det(matrix)) > 1e-10 * np.prod(np.linalg.norm(matrix, axis=1)):
                raise ValueError("the matrix of the pixels cannot be inverted")
            return wcs
    except (ValueError, TypeError, KeyError, MemoryError, AssertionError, fits.VerifyError) as error:
        raise _bad_wcs(_reason(error)) from error


def _bad_wcs(reason: str) -> FileFormatError:
    return FileFormatError(
        f"the world coordinates cannot be read ({reason})",
        field="WCS",
        remedy="check CTYPE, CRVAL, CRPIX and the CD or PC matrix",
    )


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
