"""From pixels to ICRS: the WCS of a plane and the rotation of its frame, once for many points."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

__all__ = ["Sky"]

Float = NDArray[np.float64]


class Sky:
    """Places of pixels on the sky.

    Parameters
    ----------
    wcs : WCS or None
        None, or one without celestial axes: the pixels have no place.
    """

    def __init__(self, wcs: WCS | None) -> None:
        self._wcs = None if wcs is None or not wcs.has_celestial else wcs.celestial
        self._rotation: Float | None = None if self._wcs is None else _to_icrs(self._wcs)

    @property
    def is_known(self) -> bool:
        """Whether the pixels have a place."""
        return self._wcs is not None

    @property
    def wcs(self) -> WCS | None:
        """The celestial axes of the WCS; None without any."""
        return self._wcs

    def directions(self, x: Float, y: Float) -> Float | None:
        """Return ICRS unit vectors of pixels, (..., 3), NaN where the projection has none."""
        if self._wcs is None:
            return None
        longitude, latitude = self._wcs.all_pix2world(np.ravel(x), np.ravel(y), 0)
        vectors = _vectors(np.radians(longitude), np.radians(latitude))
        if self._rotation is not None:
            vectors = vectors @ self._rotation.T
        return np.asarray(vectors.reshape(*np.shape(x), 3))

    def world(self, x: float, y: float) -> tuple[float, float] | None:
        """Return ICRS longitude and latitude of one pixel, in degrees."""
        vectors = self.directions(np.array([x], dtype=float), np.array([y], dtype=float))
        if vectors is None or not np.isfinite(vectors).all():
            return None
        a, b, c = vectors[0]
        return float(np.degrees(np.arctan2(b, a)) % 360.0), float(np.degrees(np.arctan2(c, np.hypot(a, b))))


def _vectors(longitude: Float, latitude: Float) -> Float:
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)],
        axis=-1,
    )


def _to_icrs(wcs: WCS) -> Float | None:
    """Return the rotation from the frame of a WCS to ICRS, None where it is ICRS or unknown."""
    from astropy.coordinates import ICRS, SkyCoord
    from astropy.wcs.utils import wcs_to_celestial_frame

    try:
        frame = wcs_to_celestial_frame(wcs)
    except ValueError:
        return None
    if isinstance(frame, ICRS):
        return None
    # FK5 and galactic coordinates differ from ICRS by a rotation; of FK4 it is a good approximation.
    axes = SkyCoord([0.0, 90.0, 0.0], [0.0, 0.0, 90.0], unit="deg", frame=frame).icrs
    return np.asarray(_vectors(axes.ra.radian, axes.dec.radian).T)
