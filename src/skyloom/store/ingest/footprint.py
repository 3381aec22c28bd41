"""The region of the sky that something covers: centre, radius, outline."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.geometry import celestial, pixel_scale

__all__ = ["Footprint", "circle_of", "footprint_of", "icrs_positions"]

Float = NDArray[np.float64]
_EDGE_POINTS = 4  # Along each side, for the radius and for images so wide that their sides are curved.
_WIDE = 2.0  # deg


class Footprint(NamedTuple):
    """A region of the sky."""

    ra: float
    """Of the centre, deg, ICRS; NaN where nothing is known."""
    dec: float
    radius: float
    """Of the circle about the centre that holds everything, deg."""
    region: str
    """STC-S; empty where nothing is known."""
    pixel_scale: float
    """arcsec; NaN without pixels."""


NOWHERE = Footprint(math.nan, math.nan, math.nan, "", math.nan)


def circle_of(ra: float, dec: float, radius: float) -> Footprint:
    """Return the region of a fibre or an aperture; ``radius`` in deg."""
    if not (math.isfinite(ra) and math.isfinite(dec)):
        return NOWHERE
    ra %= 360.0
    region = (
        f"CIRCLE ICRS {ra:.9f} {dec:.9f} {radius:.9f}" if radius > 0 else f"POSITION ICRS {ra:.9f} {dec:.9f}"
    )
    return Footprint(ra, dec, radius, region, math.nan)


def footprint_of(wcs: WCS | None, shape: tuple[int, ...]) -> Footprint:
    """Return the region of an image of ``shape`` (ny, nx), outer edges of its pixels included.

    A WCS in other coordinates than ICRS or FK5 is converted; what lies off the sky makes the region unknown.
    """
    if wcs is None or not wcs.has_celestial:
        return NOWHERE
    sky = celestial(wcs)
    ny, nx = shape
    x, y = _outline(nx, ny)
    ra, dec = icrs_positions(sky, np.append(x, (nx - 1) / 2), np.append(y, (ny - 1) / 2))
    if not np.all(np.isfinite(ra + dec)):
        return NOWHERE
    distance = _distances(ra[:-1], dec[:-1], ra[-1], dec[-1])
    radius = float(np.degrees(distance.max()))
    kept = slice(None) if radius > _WIDE else slice(None, None, _EDGE_POINTS)
    corners = " ".join(f"{a:.9f} {d:.9f}" for a, d in zip(ra[:-1][kept], dec[:-1][kept], strict=True))
    return Footprint(
        float(ra[-1]), float(dec[-1]), radius, f"POLYGON ICRS {corners}", pixel_scale(sky, (ny, nx))
    )


def _outline(nx: int, ny: int) -> tuple[Float, Float]:
    """Return points around an image, each corner followed by points of the side that it begins."""
    along = np.arange(_EDGE_POINTS) / _EDGE_POINTS
    low, right, top = -0.5, nx - 0.5, ny - 0.5
    x = [low + along * nx, np.full(_EDGE_POINTS, right), right - along * nx, np.full(_EDGE_POINTS, low)]
    y = [np.full(_EDGE_POINTS, low), low + along * ny, np.full(_EDGE_POINTS, top), top - along * ny]
    return np.concatenate(x), np.concatenate(y)


def icrs_positions(sky: WCS, x: Float, y: Float) -> tuple[Float, Float]:
    """Return right ascensions and declinations (deg, ICRS) of pixels, counted from 0, of a celestial WCS."""
    longitude, latitude = sky.all_pix2world(x, y, 0)
    frame = str(sky.wcs.radesys).strip() or "ICRS"
    if str(sky.wcs.lngtyp).strip() == "RA" and frame in ("ICRS", "FK5"):
        # FK5 (J2000) and ICRS agree to 0.02 arcsec, less than the error of headers that say either.
        return np.asarray(longitude) % 360.0, np.asarray(latitude)
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from astropy.wcs.utils import wcs_to_celestial_frame

    place = SkyCoord(longitude * u.deg, latitude * u.deg, frame=wcs_to_celestial_frame(sky)).icrs
    return np.asarray(place.ra.deg), np.asarray(place.dec.deg)


def _distances(ra: Float, dec: Float, ra_0: float, dec_0: float) -> Float:
    """Return angles in radians from a point (haversine, which keeps its digits for small ones)."""
    half_dec, half_ra = np.radians(dec - dec_0) / 2, np.radians(ra - ra_0) / 2
    across = np.cos(np.radians(dec)) * math.cos(math.radians(dec_0))
    return np.asarray(
        2 * np.arcsin(np.sqrt(np.minimum(1.0, np.sin(half_dec) ** 2 + across * np.sin(half_ra) ** 2)))
    )
