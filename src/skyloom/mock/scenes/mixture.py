"""Sums of Gaussians on the sky: profiles of galaxies and point-spread functions.

Everything the mock paints is a sum of Gaussians, because a Gaussian convolved with a Gaussian is one again: no
convolution is ever computed on a grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import gammaincinv

from skyloom.core.psf import PSF, GaussianPSF, MoffatPSF
from skyloom.errors import InputError

__all__ = ["Mixture", "exponential_tiles", "psf_mixture", "sersic_mixture"]

Float = NDArray[np.float64]
# Components of a PSF below this share of its light are left out.
NEGLIGIBLE = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """A sum of Gaussians on the tangent plane.

    Parameters
    ----------
    fraction : (n,) array
        Share of each Gaussian in the light.
    centre : (n, 2) array
        Offsets (east, north) in arcsec.
    covariance : (n, 2, 2) array
        In arcsec2, (east, north); zero is a point.
    """

    fraction: Float
    centre: Float
    covariance: Float

    def __len__(self) -> int:
        return int(self.fraction.size)

    def moved(self, east: float, north: float) -> Mixture:
        """Return the mixture shifted by offsets in arcsec."""
        return Mixture(self.fraction, self.centre + np.array([east, north]), self.covariance)


def shape_matrix(axis_ratio: float, position_angle: float) -> Float:
    """Return the (2, 2) covariance (east, north) of an ellipse of unit major axis; the angle is north through east."""
    if not 0 < axis_ratio <= 1:
        raise InputError(f"axis_ratio is {axis_ratio}; expected 0 < axis_ratio <= 1", field="axis_ratio")
    angle = np.radians(position_angle)
    major = np.array([np.sin(angle), np.cos(angle)])
    minor = np.array([np.cos(angle), -np.sin(angle)])
    return np.asarray(np.outer(major, major) + axis_ratio**2 * np.outer(minor, minor))


def psf_mixture(psf: PSF | None) -> Mixture:
    """Return a Gaussian or Moffat PSF as a sum of Gaussians, of total weight 1.

    Raises
    ------
    InputError
        For PSFs of other kinds.

    Notes
    -----
    A Moffat profile is a continuous sum of Gaussians: (1 + r^2 / a^2)^-b is proportional to the integral over t of
    t^(b - 1) exp(-t) exp(-t r^2 / a^2), whose normalised Gaussians have variance a^2 / 2t and weight
    t^(b - 2) exp(-t) dt. The trapezoidal rule in ln(t) converges exponentially: the errors are below 2e-7 of the
    centre for b from 1.5 to 10, and no light is lost.
    """
    if psf is None:
        return Mixture(np.ones(1), np.zeros((1, 2)), np.zeros((1, 2, 2)))
    if isinstance(psf, GaussianPSF):
        return Mixture(np.ones(1), np.zeros((1, 2)), psf.covariance[np.newaxis])
    if not isinstance(psf, MoffatPSF):
        raise InputError(f"a {type(psf).__name__} is no sum of Gaussians", field="psf")
    step = 0.5 / np.sqrt(max(1.0, psf.beta / 2.0))
    t = np.exp(np.arange(-40.0, 5.0, step))
    weight = t ** (psf.beta - 1) * np.exp(-t)
    # The narrow Gaussians of large t matter by their peak, which exceeds their weight by t.
    used = weight * np.maximum(t, 1.0) > NEGLIGIBLE * weight.sum()
    shape = GaussianPSF.from_sigma(1.0, psf.axis_ratio, psf.position_angle).covariance
    covariance = (psf.alpha**2 / (2 * t[used]))[:, np.newaxis, np.newaxis] * shape
    fraction = weight[used] / weight[used].sum()
    return Mixture(fraction, np.zeros((fraction.size, 2)), covariance)


def sersic_mixture(
    effective_radius: float,
    index: float,
    *,
    axis_ratio: float = 1.0,
    position_angle: float = 0.0,
    n_gaussians: int = 8,
) -> Mixture:
    """Return concentric Gaussians that follow a Sersic profile between 0.03 and 8 effective radii.

    Parameters
    ----------
    effective_radius : float
        Of the major axis, in arcsec.
    index : float
        Sersic index.
    axis_ratio, position_angle : float
        Minor over major axis; degrees, north through east.
    n_gaussians : int
        Number of widths tried, spaced evenly in the logarithm.

    Notes
    -----
    Weights by non-negative least squares on the relative residuals, after Cappellari (2002,
    10.1046/j.1365-8711.2002.05412.x); good to a few per cent of the local brightness for indices 1 to 4. The mixture
    is the truth, the profile only its model.
    """
    if effective_radius <= 0 or index <= 0:
        raise InputError(
            f"effective radius {effective_radius} and index {index} must exceed 0", field="sersic"
        )
    radius = np.geomspace(0.03, 8.0, 80)
    brightness = np.exp(-gammaincinv(2 * index, 0.5) * radius ** (1 / index))
    sigma = np.geomspace(max(0.15**index, 0.03), 1.6 + 0.75 * index, n_gaussians)
    design = np.exp(-0.5 * (radius[:, np.newaxis] / sigma) ** 2) / sigma**2
    # Floor the relative weights, so that the faint outskirts do not rule the fit.
    scale = brightness + 1e-4 * brightness.max()
    weights = nnls(design / scale[:, np.newaxis], brightness / scale)[0]
    used = weights > 1e-6 * weights.sum()
    shape = shape_matrix(axis_ratio, position_angle)
    covariance = (effective_radius * sigma[used])[:, np.newaxis, np.newaxis] ** 2 * shape
    fraction = weights[used] / weights[used].sum()
    return Mixture(fraction, np.zeros((fraction.size, 2)), covariance)


def exponential_tiles(
    scale_length: float,
    *,
    axis_ratio: float,
    position_angle: float,
    extent: float = 4.0,
    spacing: float = 0.4,
) -> Mixture:
    """Return an inclined exponential disc as round Gaussians on a hexagonal lattice.

    Each tile can have a velocity, population and dust of its own, which concentric Gaussians could not.

    Parameters
    ----------
    scale_length : float
        In arcsec, along the major axis.
    axis_ratio, position_angle : float
        Minor over major axis; degrees, north through east.
    extent : float
        Radius of the disc in scale lengths.
    spacing : float
        Distance of the tiles in scale lengths along the minor axis's direction of a face-on disc; it shrinks with
        the root of the axis ratio.

    Notes
    -----
    Tiles of standard deviation 0.8 spacings overlap so that the lattice leaves ripples below 1e-6.
    """
    step = scale_length * spacing * np.sqrt(axis_ratio)
    reach = int(np.ceil(extent * scale_length / step * 2 / np.sqrt(3))) + 1
    i, j = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    centre = step * np.stack([i + 0.5 * j, np.sqrt(3) / 2 * j], axis=1)
    inverse = np.linalg.inv(shape_matrix(axis_ratio, position_angle))
    radius = np.sqrt(np.einsum("ni,ij,nj->n", centre, inverse, centre)) / scale_length
    inside = radius < extent
    weight = np.exp(-radius[inside])
    covariance = np.broadcast_to((0.8 * step) ** 2 * np.eye(2), (weight.size, 2, 2))
    return Mixture(weight / weight.sum(), centre[inside], np.array(covariance))
