"""Pixels on the sky: scales, areas and orientation, always from the whole WCS.

All results are for the celestial axes. A WCS with distortions (SIP) is linearised at the place that is asked for;
``CD1_1`` alone is never a pixel scale, because it shrinks with rotation.
"""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.errors import InputError

__all__ = [
    "celestial",
    "local_matrix",
    "pixel_area",
    "pixel_area_map",
    "pixel_matrix",
    "pixel_scale",
    "same_grid",
]

ARCSEC = 3600.0
Float = NDArray[np.float64]


def celestial(wcs: WCS | None, what: str = "this operation") -> WCS:
    """Return the celestial part of ``wcs``.

    Raises
    ------
    InputError
        When there is no WCS, or it has no celestial axes.
    """
    if wcs is None:
        raise InputError(
            f"{what} needs a WCS, and the image has none", field="wcs", remedy="give the image a WCS"
        )
    if wcs.naxis == 2 and wcs.has_celestial:
        return wcs
    if not wcs.has_celestial:
        raise InputError(
            f"the WCS has axes {list(wcs.wcs.ctype)}, none of them celestial",
            field="wcs",
            remedy="check CTYPE1, CTYPE2",
        )
    return wcs.celestial


def local_matrix(wcs: WCS, x: float, y: float) -> Float:
    """Return the (2, 2) matrix that turns a pixel offset (x, y) into a sky offset (east, north) in arcsec.

    Central differences of half a pixel on the tangent plane of the point; exact to 1e-8 for any smooth projection.
    """
    half = 0.5
    x_points = np.array([x, x + half, x - half, x, x])
    y_points = np.array([y, y, y, y + half, y - half])
    longitude, latitude = wcs.all_pix2world(x_points, y_points, 0)
    east, north = _tangent_offsets(longitude, latitude)
    return np.array([[east[1] - east[2], east[3] - east[4]], [north[1] - north[2], north[3] - north[4]]])


def _tangent_offsets(longitude: Float, latitude: Float) -> tuple[Float, Float]:
    """Gnomonic offsets in arcsec from the first point (Calabretta & Greisen 2002, 10.1051/0004-6361:20021327)."""
    alpha = np.radians(longitude - longitude[0])
    delta, delta0 = np.radians(latitude), np.radians(latitude[0])
    depth = np.sin(delta) * np.sin(delta0) + np.cos(delta) * np.cos(delta0) * np.cos(alpha)
    east = np.cos(delta) * np.sin(alpha) / depth
    # sin(d - d0) keeps its digits for the tiny offsets of neighbouring pixels, where the textbook form cancels.
    north = (np.sin(delta - delta0) + 2.0 * np.cos(delta) * np.sin(delta0) * np.sin(alpha / 2) ** 2) / depth
    return np.degrees(east) * ARCSEC, np.degrees(north) * ARCSEC


def pixel_matrix(wcs: WCS | None, shape: tuple[int, int]) -> Float:
    """Return `local_matrix` at the centre of an image of ``shape`` (ny, nx)."""
    ny, nx = shape
    return local_matrix(celestial(wcs, "a pixel scale"), (nx - 1) / 2, (ny - 1) / 2)


def pixel_area(wcs: WCS | None, shape: tuple[int, int]) -> float:
    """Return the area of the central pixel in arcsec2."""
    return float(abs(np.linalg.det(pixel_matrix(wcs, shape))))


def pixel_scale(wcs: WCS | None, shape: tuple[int, int]) -> float:
    """Return the side in arcsec of a square of the central pixel's area."""
    return float(np.sqrt(pixel_area(wcs, shape)))


def pixel_area_map(wcs: WCS | None, shape: tuple[int, int]) -> Float:
    """Return the (ny, nx) areas of all pixels in arcsec2, distortions included.

    The area is the Jacobian of the pixel-to-sky map, from unit vectors at the pixels' corners.
    """
    sky = celestial(wcs, "a map of pixel areas")
    ny, nx = shape
    x, y = np.meshgrid(np.arange(nx + 1) - 0.5, np.arange(ny + 1) - 0.5)
    longitude, latitude = (np.radians(axis) for axis in sky.all_pix2world(x.ravel(), y.ravel(), 0))
    vectors = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)],
        axis=-1,
    ).reshape(ny + 1, nx + 1, 3)
    diagonal = vectors[1:, 1:] - vectors[:-1, :-1]
    antidiagonal = vectors[1:, :-1] - vectors[:-1, 1:]
    area = 0.5 * np.linalg.norm(np.cross(diagonal, antidiagonal), axis=-1)
    return np.asarray(area * np.degrees(ARCSEC) ** 2)


def same_grid(
    wcs_a: WCS, shape_a: tuple[int, int], wcs_b: WCS, shape_b: tuple[int, int], tolerance: float = 1e-4
) -> bool:
    """Tell whether two grids coincide to ``tolerance`` pixels at nine points of the image."""
    if tuple(shape_a) != tuple(shape_b):
        return False
    ny, nx = shape_a
    x, y = (
        axis.ravel() for axis in np.meshgrid([0.0, (nx - 1) / 2, nx - 1.0], [0.0, (ny - 1) / 2, ny - 1.0])
    )
    first, second = celestial(wcs_a), celestial(wcs_b)
    longitude_a, latitude_a = first.all_pix2world(x, y, 0)
    longitude_b, latitude_b = second.all_pix2world(x, y, 0)
    if not np.all(np.isfinite([longitude_a, latitude_a, longitude_b, latitude_b])):
        return False
    turn = (longitude_a - longitude_b + 180.0) % 360.0 - 180.0
    distance = np.hypot(turn * np.cos(np.radians(latitude_a)), latitude_a - latitude_b) * ARCSEC
    return bool(np.all(distance < tolerance * pixel_scale(first, shape_a)))
