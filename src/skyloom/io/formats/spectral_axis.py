"""The wavelength axis of our own cubes and spectra as header cards, for programs that know nothing of the table WAVE.

The extension ``WAVE`` holds the wavelengths, to the last digit and on any axis. Other programs look for ``CTYPE``,
``CUNIT`` and so on: even and logarithmic steps have such cards, other axes have none and get none. ``DISPAXIS`` says
which axis wavelengths run along; jdaviz and specutils take a file for spectra by it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.io.formats.blocks import card

__all__ = [
    "DISPERSION_AXIS",
    "DRIFT",
    "adds_axis",
    "axes_of",
    "axis_cards",
    "dispersion_axis",
    "frame_cards",
    "has_form",
    "with_third_axis",
    "without_third_axis",
]

Float = NDArray[np.float64]

# How far a channel may lie from what the cards describe, in channels.
DRIFT = 1e-4
DISPERSION_AXIS = {axis: card("DISPAXIS", axis, "wavelengths run along this axis") for axis in (1, 3)}
_THIRD = re.compile(r"C(?:TYPE|UNIT|RPIX|RVAL|DELT)3|(?:CD|PC)(?:3_\d|\d_3)|SPECSYS|ZSOURCE|DISPAXIS")


def has_form(wave: Float) -> bool:
    """Tell whether the steps of an axis are even, or even in the logarithm."""
    return _form(wave) is not None


def _form(wave: Float) -> tuple[str, float] | None:
    """Return the ending of CTYPE and the increment at the first channel; None for other axes."""
    if wave.size < 2:
        return None
    count = np.arange(wave.size)
    step = float(wave[-1] - wave[0]) / (wave.size - 1)
    if np.max(np.abs(wave - (wave[0] + step * count))) <= DRIFT * step:
        return "", step
    if wave[0] <= 0:
        return None
    ratio = float(np.log(wave[-1] / wave[0])) / (wave.size - 1)
    if np.max(np.abs(np.log(wave / wave[0]) - ratio * count)) <= DRIFT * ratio:
        return "-LOG", ratio * float(wave[0])
    return None


def axis_cards(wave: Float, medium: str, axis: int, *, matrix: bool = False) -> bytes:
    """Return the cards of a wavelength axis; none when it has no form in FITS.

    Parameters
    ----------
    wave : (n,) array
        A.
    medium : {"air", "vacuum"}
    axis : int
        Of FITS, counted from 1.
    matrix : bool
        Whether the other axes have a CD matrix, which cannot be mixed with CDELT.

    Notes
    -----
    ``-LOG``: ``wave = CRVAL exp(CDELT (p - CRPIX) / CRVAL)`` (Greisen et al. 2006, 10.1051/0004-6361:20053818).
    """
    form = _form(wave)
    if form is None:
        return b""
    ending, increment = form
    return (
        card(f"CTYPE{axis}", ("AWAV" if medium == "air" else "WAVE") + ending, f"wavelengths in {medium}")
        + card(f"CUNIT{axis}", "Angstrom")
        + card(f"CRPIX{axis}", 1.0)
        + card(f"CRVAL{axis}", float(wave[0]))
        + card(f"CD{axis}_{axis}" if matrix else f"CDELT{axis}", increment)
    )


def adds_axis(obj: Image | Cube | Spectra) -> bool:
    """Tell whether the WCS of a cube is of the sky, and its header gets a third axis that is not in it."""
    return isinstance(obj, Cube) and obj.wcs is not None and obj.wcs.naxis == 2


def axes_of(obj: Image | Cube | Spectra, sky: bytes) -> bytes:
    """Return the cards of all axes of an object.

    Parameters
    ----------
    obj : Image, Cube or Spectra
    sky : bytes
        Cards of its WCS.
    """
    if isinstance(obj, Image):
        return sky
    form = has_form(obj.wave)
    if isinstance(obj, Spectra):
        cards = axis_cards(obj.wave, obj.medium, 1)
        return card("WCSAXES", 2) + cards + DISPERSION_AXIS[1] + frame_cards(obj.meta) if form else b""
    if obj.wcs is not None and not adds_axis(obj):
        return sky + DISPERSION_AXIS[3] if form else sky
    if not form:
        return sky
    third = axis_cards(obj.wave, obj.medium, 3, matrix=obj.wcs is not None and obj.wcs.wcs.has_cd())
    return with_third_axis(sky, third) + DISPERSION_AXIS[3] + frame_cards(obj.meta)


def dispersion_axis(cards: bytes) -> bytes:
    """Return the card of the dispersion axis among others, for the primary header, where specutils looks."""
    return next((along for along in DISPERSION_AXIS.values() if along in cards), b"")


def frame_cards(meta: Mapping[str, Any]) -> bytes:
    """Return the cards that say that wavelengths are at rest, where they are."""
    redshift = meta.get("redshift_applied")
    if not isinstance(redshift, (int, float)):
        return b""
    return card("SPECSYS", "SOURCE", "wavelengths at rest") + card(
        "ZSOURCE", float(redshift), "redshift taken out of the wavelengths"
    )


def with_third_axis(sky: bytes, third: bytes) -> bytes:
    """Return the cards of a celestial WCS (none, perhaps) with those of a third axis behind them."""
    kept = [sky[i : i + 80] for i in range(0, len(sky), 80) if not sky[i : i + 8].startswith(b"WCSAXES")]
    return card("WCSAXES", 3) + b"".join(kept) + third


def without_third_axis(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return a header without what `with_third_axis` added to the celestial WCS."""
    flat = {keyword: value for keyword, value in header.items() if not _THIRD.fullmatch(keyword)}
    return flat | {"WCSAXES": 2}
