"""Naive twins of the mock: densities written out and added up on fine subpixels."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS

from skyloom.core.linelist import default_lines
from skyloom.mock.scenes.render import sky_to_plane
from skyloom.mock.scenes.scene import Scene, attenuation_curve
from skyloom.mock.scenes.templates import SPEED_OF_LIGHT, populations


def painted(
    offsets: np.ndarray,
    covariance: np.ndarray,
    amplitude: np.ndarray,
    centre: tuple[float, float],
    wcs: WCS,
    shape: tuple[int, int],
    order: int = 10,
) -> np.ndarray:
    """Integrate Gaussians over the pixels of a WCS by Gauss-Legendre points, each carried to the sky."""
    ny, nx = shape
    nodes, weights = np.polynomial.legendre.leggauss(order)
    x = (np.arange(nx)[:, None] + nodes / 2).ravel()
    y = (np.arange(ny)[:, None] + nodes / 2).ravel()
    east, north = (axis.reshape(y.size, x.size) for axis in plane_of_pixels(wcs, centre, x, y))
    # The area of a piece of a pixel follows from the derivative of the map.
    half = 0.05
    right, left = (np.array(plane_of_pixels(wcs, centre, x + sign * half, y)) for sign in (1, -1))
    above, below = (np.array(plane_of_pixels(wcs, centre, x, y + sign * half)) for sign in (1, -1))
    along_x, along_y = (right - left) / (2 * half), (above - below) / (2 * half)
    jacobian = (along_x[0] * along_y[1] - along_x[1] * along_y[0]).reshape(y.size, x.size)
    total = np.zeros((y.size, x.size))
    for place, spread, light in zip(offsets, covariance, amplitude, strict=True):
        inverse = np.linalg.inv(spread)
        dx, dy = east - place[0], north - place[1]
        distance = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
        total += light * np.exp(-0.5 * distance) * np.sqrt(np.linalg.det(inverse)) / (2 * np.pi)
    total *= np.abs(jacobian)
    pieces = total.reshape(ny, order, nx, order)
    return np.einsum("iajb,a,b->ij", pieces, weights / 2, weights / 2)


def plane_of_pixels(wcs: WCS, centre: tuple[float, float], x: np.ndarray, y: np.ndarray) -> tuple:
    """Tangent-plane offsets (arcsec) of the grid of pixel positions x, y."""
    columns, rows = (axis.ravel() for axis in np.meshgrid(x, y))
    longitude, latitude = wcs.all_pix2world(columns, rows, 0)
    return sky_to_plane(longitude, latitude, centre)


def sampled_spectra(scene: Scene, vacuum: np.ndarray, lsf: np.ndarray) -> np.ndarray:
    """Spectra of all Gaussians, one after the other, each population shifted and broadened for itself."""
    rows = []
    for part in scene.components:
        rest = vacuum / (1 + part.redshift)
        for index in range(len(part.mixture)):
            shifted = rest / (1 + part.velocity[index] / SPEED_OF_LIGHT)
            broadening = np.hypot(part.dispersion[index], SPEED_OF_LIGHT * lsf / vacuum)
            stars = part.population[index] @ populations().evaluate(shifted, broadening)
            dust = 10 ** (-0.4 * part.attenuation[index] * (attenuation_curve(rest) - 1))
            row = part.continuum[index] * stars * dust
            for key, flux in part.lines.items():
                centre = default_lines()[key].rest_vacuum * (1 + part.redshift)
                centre *= 1 + part.gas_velocity[index] / SPEED_OF_LIGHT
                sigma = np.hypot(centre * part.gas_dispersion[index] / SPEED_OF_LIGHT, lsf)
                row = (
                    row
                    + flux[index]
                    * np.exp(-0.5 * ((vacuum - centre) / sigma) ** 2)
                    / np.sqrt(2 * np.pi)
                    / sigma
                )
            rows.append(row)
    return np.array(rows)
