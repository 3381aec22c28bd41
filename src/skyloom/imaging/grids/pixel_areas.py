"""The areas of all pixels of an image, as one number or a polynomial of the position wherever that is exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from skyloom.core.geometry import celestial
from skyloom.errors import InputError

__all__ = ["PixelAreas", "pixel_areas"]

Float = NDArray[np.float64]
CONSTANT = 1e-7  # Largest relative change of the area over an image that is taken for none.
# A polynomial must meet the areas at points of its own choosing to this; their rounding is a few 1e-9.
ACCURACY = 3e-8
DEGREES = (2, 4, 8, 12)
ARCSEC2 = np.degrees(3600.0) ** 2


@dataclass(frozen=True, slots=True, eq=False)
class PixelAreas:
    """Areas of the pixels of a grid.

    Parameters
    ----------
    mean : float
        Area of a typical pixel, arcsec2.
    shape : (int, int)
        (ny, nx).
    spread : float
        Largest area less the smallest, in units of ``mean``.
    columns : (n, nx) float array, optional
        Coefficients, for each column, of a Chebyshev series in y (-1 to 1 over the image): the area in units of
        ``mean``.
    wcs : astropy.wcs.WCS, optional
        Where no series is good enough (look-up tables of distortions): the areas are taken from it.
    """

    mean: float
    shape: tuple[int, int]
    spread: float = 0.0
    columns: Float | None = None
    wcs: WCS | None = None

    @property
    def constant(self) -> bool:
        """True where one number serves for all pixels to 1e-7."""
        return self.columns is None and self.wcs is None

    def relative(self, rows: slice) -> Float:
        """Return the (n, nx) areas of some rows in units of `mean`."""
        ny, nx = self.shape
        start, stop, _ = rows.indices(ny)
        if self.wcs is not None:
            x, y = np.meshgrid(np.arange(nx, dtype=np.float64), np.arange(start, stop, dtype=np.float64))
            return _areas(self.wcs, x, y) / self.mean
        if self.columns is None:
            return np.ones((stop - start, nx))
        down = chebyshev.chebvander(_unit_interval(np.arange(start, stop), ny), self.columns.shape[0] - 1)
        return np.asarray(down @ self.columns)


def pixel_areas(wcs: WCS | None, shape: tuple[int, int]) -> PixelAreas:
    """Return the areas of all pixels, distortions included, without computing them one by one where they are smooth.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
    shape : (int, int)
        (ny, nx).

    Notes
    -----
    The areas at Chebyshev points are fitted with polynomials of growing degree, until one meets the areas at other
    points to 3e-8; if none does, or distortions come as look-up tables, every pixel is computed, as by
    `skyloom.core.geometry.pixel_area_map`. An area that changes by less than 1e-7 is one number: so is that of a
    tangential image up to 2 arcmin across. Across 5 arcmin it changes by 2e-6.

    Raises
    ------
    InputError
        When there is no WCS, it is not celestial, or part of the image lies off the sky.
    """
    sky = celestial(wcs, "a pixel area")
    ny, nx = shape
    steps = np.linspace(-1.0, 1.0, 13)
    tested = _areas(sky, *_pixels(steps, shape))
    mean = float(np.median(tested))
    if not (np.all(np.isfinite(tested)) and mean > 0):
        raise InputError(
            f"the WCS gives no area to {int(np.count_nonzero(~np.isfinite(tested)))} of {tested.size} pixels",
            field="wcs",
            remedy="check CRPIX, CRVAL and the CD matrix, or cut the image to where it shows the sky",
        )
    spread = float(np.ptp(tested)) / mean
    if any(table is not None for table in (sky.cpdis1, sky.cpdis2, sky.det2im1, sky.det2im2)):
        return PixelAreas(mean, (ny, nx), spread, wcs=sky)
    if spread <= CONSTANT:
        return PixelAreas(mean, (ny, nx))
    for degree in DEGREES:
        nodes = chebyshev.chebpts1(degree + 3)
        areas = _areas(sky, *_pixels(nodes, shape)) / mean
        inverse = np.linalg.pinv(chebyshev.chebvander(nodes, degree))
        coefficients = inverse @ areas @ inverse.T
        basis = chebyshev.chebvander(steps, degree)
        if np.max(np.abs(basis @ coefficients @ basis.T - tested / mean)) < ACCURACY:
            across = chebyshev.chebvander(_unit_interval(np.arange(nx), nx), degree)
            return PixelAreas(mean, (ny, nx), spread, coefficients @ across.T)
    return PixelAreas(mean, (ny, nx), spread, wcs=sky)


def _unit_interval(pixels: NDArray[np.int_], size: int) -> Float:
    return np.asarray((2.0 * pixels - (size - 1)) / max(size - 1, 1))


def _pixels(points: Float, shape: tuple[int, int]) -> tuple[Float, Float]:
    """Return x and y, (n, n) arrays, of points from -1 to 1 over the image."""
    ny, nx = shape
    x, y = np.meshgrid(0.5 * (nx - 1) * (points + 1.0), 0.5 * (ny - 1) * (points + 1.0))
    return x, y


def _areas(sky: WCS, x: Float, y: Float) -> Float:
    """Return the areas in arcsec2 of unit pixels around (x, y), from unit vectors at their corners."""
    corners = []
    for shift_x, shift_y in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)):
        longitude, latitude = sky.all_pix2world((x + shift_x).ravel(), (y + shift_y).ravel(), 0)
        alpha, delta = np.radians(longitude), np.radians(latitude)
        corners.append(
            np.stack([np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)], axis=-1)
        )
    diagonals = np.cross(corners[2] - corners[0], corners[3] - corners[1])
    return np.asarray(0.5 * np.linalg.norm(diagonals, axis=-1).reshape(x.shape) * ARCSEC2)
