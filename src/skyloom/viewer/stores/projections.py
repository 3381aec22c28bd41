"""The sky on a plane: Mollweide's whole sky, or the tangent plane about a place; in deg, east on the left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.store.search.sphere import unit_vectors

__all__ = [
    "WIDE",
    "Mollweide",
    "Projection",
    "Tangent",
    "Window",
    "field_of",
    "projection_for",
    "whole_window",
]

Float = NDArray[np.float64]
Window = tuple[float, float, float, float]
"""x0, x1, y0, y1 of a map."""

WIDE = 50.0
"""deg; views wider than this are of the whole sky."""
_EDGE = np.degrees(2.0 * np.sqrt(2.0))
_SAMPLED = 200_000
_SMALLEST = 0.01  # deg, so that a single fibre has a map about it.


class Projection(Protocol):
    """From the sky to a map and back; all in deg."""

    @property
    def name(self) -> str:
        """As it is called."""

    @property
    def centre(self) -> tuple[float, float]:
        """The position (ra, dec) that lies at (0, 0)."""

    def forward(self, ra: ArrayLike, dec: ArrayLike) -> tuple[Float, Float]:
        """Return x, y; NaN for what the map does not show."""

    def backward(self, x: ArrayLike, y: ArrayLike) -> tuple[Float, Float]:
        """Return ra, dec; NaN where the map shows nothing."""


@dataclass(frozen=True, slots=True)
class Tangent:
    """The gnomonic projection about a place: great circles are straight lines."""

    ra: float
    dec: float

    @property
    def name(self) -> str:
        """As it is called."""
        return "tangent plane"

    @property
    def centre(self) -> tuple[float, float]:
        """The position that lies at (0, 0)."""
        return self.ra, self.dec

    def forward(self, ra: ArrayLike, dec: ArrayLike) -> tuple[Float, Float]:
        """Return x, y; NaN behind the plane."""
        along = np.radians(np.asarray(ra, float) - self.ra)
        up, up_0 = np.radians(dec), np.radians(self.dec)
        ahead = np.sin(up) * np.sin(up_0) + np.cos(up) * np.cos(up_0) * np.cos(along)
        # Closer to the horizon than 10 deg lines run off to infinity.
        ahead = np.where(ahead > 0.17, ahead, np.nan)
        x = -np.cos(up) * np.sin(along) / ahead
        y = (np.sin(up) * np.cos(up_0) - np.cos(up) * np.sin(up_0) * np.cos(along)) / ahead
        return np.degrees(x), np.degrees(y)

    def backward(self, x: ArrayLike, y: ArrayLike) -> tuple[Float, Float]:
        """Return ra, dec."""
        east, north = -np.radians(x), np.radians(y)
        up_0 = np.radians(self.dec)
        ahead = np.cos(up_0) - north * np.sin(up_0)
        ra = self.ra + np.degrees(np.arctan2(east, ahead))
        dec = np.degrees(np.arctan2(np.sin(up_0) + north * np.cos(up_0), np.hypot(east, ahead)))
        return ra % 360.0, dec


@dataclass(frozen=True, slots=True)
class Mollweide:
    """The whole sky as an ellipse on which equal areas are equal, with a meridian in its middle."""

    ra: float

    @property
    def name(self) -> str:
        """As it is called."""
        return "Mollweide"

    @property
    def centre(self) -> tuple[float, float]:
        """The position that lies at (0, 0)."""
        return self.ra, 0.0

    def forward(self, ra: ArrayLike, dec: ArrayLike) -> tuple[Float, Float]:
        """Return x, y."""
        east = (np.asarray(ra, float) - self.ra + 180.0) % 360.0 - 180.0
        return self.placed(east, dec)

    def placed(self, east: ArrayLike, dec: ArrayLike) -> tuple[Float, Float]:
        """Return x, y of degrees east of the middle, from -180 to 180."""
        angle = _auxiliary(np.asarray(dec, float))
        x = -_EDGE * np.asarray(east) / 180.0 * np.cos(angle)
        return x, np.degrees(np.sqrt(2.0)) * np.sin(angle)

    def backward(self, x: ArrayLike, y: ArrayLike) -> tuple[Float, Float]:
        """Return ra, dec; NaN beyond the ellipse."""
        sine = np.asarray(y, float) / np.degrees(np.sqrt(2.0))
        angle = np.arcsin(np.where(np.abs(sine) <= 1, sine, np.nan))
        dec = np.degrees(np.arcsin(np.clip((2 * angle + np.sin(2 * angle)) / np.pi, -1, 1)))
        east = -np.asarray(x, float) / _EDGE * 180.0 / np.maximum(np.cos(angle), 1e-12)
        inside = np.abs(east) <= 180.0
        return np.where(inside, (self.ra + east) % 360.0, np.nan), np.where(inside, dec, np.nan)


def _auxiliary(dec: Float) -> Float:
    """Solve ``2 t + sin 2t = pi sin dec``, by a table: exact to 1e-7 but for the last degrees about the poles."""
    return np.asarray(np.interp(dec, *_TABLE))


def _table() -> tuple[Float, Float]:
    # Dense towards the poles, where the slope has no bound.
    angle = 0.5 * np.pi * np.sin(np.linspace(-0.5, 0.5, 20001) * np.pi)
    return np.degrees(np.arcsin(np.clip((2 * angle + np.sin(2 * angle)) / np.pi, -1, 1))), angle


_TABLE = _table()


def field_of(ra: Float, dec: Float, radius: Float) -> tuple[float, float, float]:
    """Return the centre and the radius (deg) of the circle about it that holds observations.

    Of very many a sample is looked at. Positions that are not finite are left out; without any the whole sky.
    """
    step = max(1, ra.size // _SAMPLED)
    ra, dec, radius = ra[::step], dec[::step], np.nan_to_num(radius[::step])
    known = np.isfinite(ra) & np.isfinite(dec)
    if not known.any():
        return 180.0, 0.0, 180.0
    vectors = unit_vectors(ra[known], dec[known])
    mean = vectors.mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < 0.3:
        return 180.0, 0.0, 180.0
    # Of what lies apart the middle between the extremes: a crowd of epochs in one corner does not pull it there.
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    middle = 0.5 * (low + high)
    middle /= np.linalg.norm(middle) or 1.0
    distance = 2 * np.degrees(np.arcsin(np.clip(0.5 * np.linalg.norm(vectors - middle, axis=1), 0, 1)))
    centre_dec = float(np.degrees(np.arcsin(np.clip(middle[2], -1, 1))))
    centre_ra = float(np.degrees(np.arctan2(middle[1], middle[0])) % 360.0)
    return centre_ra, centre_dec, max(float((distance + radius[known]).max()), _SMALLEST)


def projection_for(ra: float, dec: float, radius: float) -> Projection:
    """Return the projection for a circle on the sky: the tangent plane, or the whole sky of what is wide."""
    if 2.0 * radius > WIDE:
        # Whole hours, so that the meridians have round numbers.
        return Mollweide(round(ra / 15.0) * 15.0 % 360.0)
    return Tangent(ra, dec)


def whole_window(projection: Projection, radius: float, aspect: float) -> Window:
    """Return the part of a map, ``aspect`` times as wide as high, that shows all within ``radius`` of its centre."""
    if isinstance(projection, Mollweide):
        height = max(0.54 * _EDGE, 1.04 * _EDGE / aspect)
    else:
        height = 1.1 * float(np.degrees(np.tan(np.radians(min(radius, 60.0)))))
    return -aspect * height, aspect * height, -height, height
