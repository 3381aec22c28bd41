"""Windows of images and cubes: from a place on the sky and a size to pixels of a level."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.wcs import WCS

from skyloom.core.geometry import celestial, pixel_scale
from skyloom.errors import InputError
from skyloom.store.files.windows import Window
from skyloom.store.search.regions import position

__all__ = ["cutout_window", "pixel_of"]

LARGEST = 1 << 14
"""Pixels along a side of a cut-out."""


def pixel_of(wcs: WCS | None, place: Any) -> tuple[float, float]:
    """Return the pixel (x, y), counted from 0, of a SkyCoord or (ra, dec) in deg.

    Raises
    ------
    InputError
        When there is no celestial WCS, or the place is too far from the image for it.
    """
    sky = celestial(wcs, "a place on the sky")
    ra, dec = _in_frame(sky, *position(place))
    try:
        x, y = (float(value) for value in sky.all_world2pix(ra, dec, 0))
    except Exception as error:
        # astropy's NoConvergence and wcslib's errors share no base of their own.
        raise _too_far(ra, dec) from error
    if not (np.isfinite(x) and np.isfinite(y)):
        raise _too_far(ra, dec)
    return x, y


def _too_far(ra: float, dec: float) -> InputError:
    return InputError(
        f"({ra}, {dec}) is too far from the image",
        field="center",
        remedy="ask the store what covers this place",
    )


def _in_frame(sky: WCS, ra: float, dec: float) -> tuple[float, float]:
    """Bring an ICRS position to the coordinates of a WCS; FK5 (J2000) agrees with ICRS to 0.02 arcsec."""
    frame = str(sky.wcs.radesys).strip() or "ICRS"
    if str(sky.wcs.lngtyp).strip() == "RA" and frame in ("ICRS", "FK5"):
        return ra, dec
    from astropy.coordinates import SkyCoord
    from astropy.wcs.utils import wcs_to_celestial_frame

    place = SkyCoord(ra, dec, unit="deg").transform_to(wcs_to_celestial_frame(sky)).spherical
    return float(place.lon.deg), float(place.lat.deg)


def cutout_window(
    wcs: WCS | None, shape: tuple[int, int], center: Any = None, size: Any = None, pixel: Any = None
) -> Window | None:
    """Return the window of a cut-out; None for the whole image.

    Parameters
    ----------
    wcs : WCS
        Of the level.
    shape : (ny, nx)
        Of the level.
    center : SkyCoord or (ra, dec), optional
        Numbers are deg, ICRS.
    size : int, angle, or a pair of them (y, x), optional
        Numbers are pixels of the level.
    pixel : (x, y), optional
        The centre as a pixel of the level, counted from 0, instead of ``center``.

    Returns
    -------
    (slice y, slice x)
        Of ``size`` pixels; its middle is within half a pixel of the centre. Parts may lie outside the image.

    Raises
    ------
    InputError
        When there is a centre without a size, both kinds of centre, or a size that is none.
    """
    if center is None and pixel is None and size is None:
        return None
    if center is not None and pixel is not None:
        raise InputError("both center and pixel are given", field="center", remedy="give one of them")
    if size is None:
        raise InputError("a centre is given, but no size", field="size", remedy="give pixels or an angle")
    height, width = _sides(wcs, shape, size)
    if pixel is not None:
        x, y = (float(value) for value in pixel)
    elif center is not None:
        x, y = pixel_of(wcs, center)
    else:
        x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    left, top = (int(np.floor(middle - (side - 1) / 2 + 0.5)) for middle, side in ((x, width), (y, height)))
    return slice(top, top + height), slice(left, left + width)


def _sides(wcs: WCS | None, shape: tuple[int, int], size: Any) -> tuple[int, int]:
    pair = size if np.ndim(size) else (size, size)
    if len(pair) != 2:
        raise InputError(f"size is {size!r}; expected one or two sides", field="size")
    first, second = (_side(wcs, shape, side) for side in pair)
    return first, second


def _side(wcs: WCS | None, shape: tuple[int, int], side: Any) -> int:
    if hasattr(side, "unit") and side.unit.physical_type == "angle":
        scale = pixel_scale(celestial(wcs, "a size as an angle"), shape)
        pixels = max(1, round(float(side.to_value("arcsec")) / scale))
    else:
        number = float(getattr(side, "value", side))
        pixels = int(number) if number == int(number) else 0
    if not 1 <= pixels <= LARGEST:
        raise InputError(f"size is {side}; expected 1 to {LARGEST} whole pixels, or an angle", field="size")
    return pixels
