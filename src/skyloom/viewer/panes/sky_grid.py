"""Where the pixels of a view lie on the sky, as few numbers as tell it to a tenth of a pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.geometry import local_matrix
from skyloom.viewer.planes.images import Planes
from skyloom.viewer.protocols import Box, PlaneSource

__all__ = ["POINTS", "affine_between", "local_scale", "pixel_at", "sky_grid"]

Float = NDArray[np.float64]
POINTS = 13
"""Along each side of a view. Between them directions are taken as linear: wrong by (side of a cell)^2 / 8, in radians,
which for a view of a degree is 0.05 arcsec, and less in proportion to its area."""


def sky_grid(source: PlaneSource, box: Box, points: int = POINTS) -> tuple[Float | None, list[float]]:
    """Return ICRS unit vectors of a grid over a box, (points, points, 3), and its edges and size.

    None where the source has no place on the sky.
    """
    x0, x1, y0, y1 = box
    x, y = np.meshgrid(np.linspace(x0, x1, points), np.linspace(y0, y1, points))
    directions = _directions(source, x, y)
    edges = [x0, x1, y0, y1, float(points)]
    return (None if directions is None else np.ascontiguousarray(directions)), edges


def _directions(source: PlaneSource, x: Float, y: Float) -> Float | None:
    if isinstance(source, Planes):
        return source.sky.directions(x, y)
    found = [source.world(float(a), float(b)) for a, b in zip(x.ravel(), y.ravel(), strict=True)]
    if all(place is None for place in found):
        return None
    places = np.radians(np.array([(np.nan, np.nan) if place is None else place for place in found]))
    longitude, latitude = places[:, 0], places[:, 1]
    vectors = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)],
        axis=-1,
    )
    return np.asarray(vectors.reshape(*x.shape, 3))


def local_scale(source: PlaneSource, x: float | None = None, y: float | None = None) -> Float | None:
    """Return the (2, 2) matrix from pixels (x, y) to the sky (east, north) in arcsec at a pixel, or at the middle.

    None where the source has no place on the sky.
    """
    ny, nx = source.shape
    place = ((nx - 1) / 2 if x is None else x, (ny - 1) / 2 if y is None else y)
    if source.world(*place) is None:
        return None
    matrix = local_matrix(_AsWcs(source), *place)  # type: ignore[arg-type]  # only pixel to world is asked for
    usable = np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 0
    return matrix if usable else None


class _AsWcs:
    """A source as the WCS that `local_matrix` asks."""

    def __init__(self, source: PlaneSource) -> None:
        self._source = source

    def all_pix2world(self, x: Float, y: Float, origin: int) -> tuple[Float, Float]:
        """Longitudes and latitudes in degrees, pixels counted from 0."""
        del origin
        found = [
            self._source.world(float(a), float(b)) or (np.nan, np.nan) for a, b in zip(x, y, strict=True)
        ]
        longitude, latitude = np.array(found, dtype=float).T
        return longitude, latitude


def affine_between(first: PlaneSource, second: PlaneSource, x: float, y: float) -> list[Any]:
    """Return the affine map (a, b, c, d, e, f) of pixels of one image to those of another, about a pixel of the first.

    ``x2 = a x + b y + c; y2 = d x + e y + f``; empty where either has no place on the sky, or they are far apart.
    """
    place, one = first.world(x, y), local_scale(first, x, y)
    there = None if place is None else pixel_at(second, *place)
    two = None if there is None else local_scale(second, *there)
    if one is None or two is None or there is None:
        return []
    turn = np.linalg.solve(two, one)
    offset = np.array(there) - turn @ np.array([x, y])
    return [turn[0, 0], turn[0, 1], offset[0], turn[1, 0], turn[1, 1], offset[1]]


def pixel_at(source: PlaneSource, longitude: float, latitude: float) -> tuple[float, float] | None:
    """Return the pixel of a place on the sky (ICRS, degrees), None where there is none.

    Newton's steps on the tangent plane, which need no more than `PlaneSource.world`.
    """
    ny, nx = source.shape
    x, y = (nx - 1) / 2, (ny - 1) / 2
    for _ in range(12):
        here, matrix = source.world(x, y), local_scale(source, x, y)
        if here is None or matrix is None:
            return None
        step = np.linalg.solve(matrix, _offset(here, (longitude, latitude)))
        if not np.isfinite(step).all():
            return None
        x, y = x + float(step[0]), y + float(step[1])
        if np.hypot(*step) < 1e-4:
            break
    return x, y


def _offset(origin: tuple[float, float], place: tuple[float, float]) -> Float:
    """Return how far a place lies east and north of another one, in arcsec, on the tangent plane."""
    alpha = np.radians(place[0] - origin[0])
    delta, delta0 = np.radians([place[1], origin[1]])
    east = np.cos(delta) * np.sin(alpha)
    north = np.sin(delta - delta0) + 2.0 * np.cos(delta) * np.sin(delta0) * np.sin(alpha / 2.0) ** 2
    depth = np.sin(delta) * np.sin(delta0) + np.cos(delta) * np.cos(delta0) * np.cos(alpha)
    if depth <= 0:
        return np.full(2, np.nan)
    return np.degrees(np.array([east, north]) / depth) * 3600.0
