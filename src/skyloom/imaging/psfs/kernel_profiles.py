"""Round Gaussian and Moffat convolution kernels: analytic transforms, and samples on a pixel grid.

A kernel that turns one image of pixel means into another must not be integrated over pixels once more: its transform
is that of the profile itself, and its samples are the values of the profile at the pixel centres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from skyloom.core.psf import FWHM_PER_SIGMA, GaussianPSF, MoffatPSF

__all__ = ["MODELS", "RadialTransform", "kernel_psf", "kernel_reach", "sample_kernel", "transform"]

Float = NDArray[np.float64]
MODELS = ("gaussian", "moffat")
NODES = 1024
"""Of the table in which transforms are looked up: linear interpolation errs by less than 1e-5."""
STEP = 1e-3
"""Relative step of the width, and half the absolute step of 1 / beta, of numerical derivatives."""


def kernel_psf(model: str, fwhm: float, inverse_beta: float) -> GaussianPSF | MoffatPSF:
    """Return the profile of a kernel; ``inverse_beta`` is ignored for Gaussians."""
    return GaussianPSF(fwhm) if model == "gaussian" else MoffatPSF(fwhm, 1.0 / inverse_beta)


def transform(model: str, frequency: ArrayLike, fwhm: float, inverse_beta: float = 0.0) -> Float:
    """Return the Fourier transform of a round kernel of unit sum.

    Parameters
    ----------
    model : {"gaussian", "moffat"}
    frequency : array
        Cycles per arcsec.
    fwhm : float
        arcsec.
    inverse_beta : float
        1 / beta of a Moffat.

    Notes
    -----
    Gaussian: ``exp(-2 pi^2 sigma^2 f^2)``. Moffat: ``2 (x / 2)^(beta - 1) K_(beta - 1)(x) / Gamma(beta - 1)`` with
    ``x = 2 pi alpha f`` and the modified Bessel function K.
    """
    f = np.asarray(frequency, dtype=np.float64)
    if model == "gaussian":
        return np.asarray(np.exp(-2.0 * (np.pi * fwhm / FWHM_PER_SIGMA * f) ** 2))
    beta = 1.0 / inverse_beta
    alpha = fwhm / (2.0 * np.sqrt(2.0**inverse_beta - 1.0))
    x = 2.0 * np.pi * alpha * f
    values = np.ones_like(f)
    away = x > 1e-8
    with np.errstate(under="ignore"):
        # kve is exp(x) K(x); the logarithm keeps the product finite for steep wings.
        logarithm = (beta - 1.0) * np.log(0.5 * x[away]) + np.log(special.kve(beta - 1.0, x[away])) - x[away]
        values[away] = np.exp(np.log(2.0) - special.gammaln(beta - 1.0) + logarithm)
    return np.asarray(np.minimum(values, 1.0))


class RadialTransform:
    """Transforms of round kernels on a plane of frequencies, by way of a table in the radius.

    Parameters
    ----------
    model : {"gaussian", "moffat"}
    radius : array
        Cycles per arcsec.
    """

    def __init__(self, model: str, radius: Float) -> None:
        self.model = model
        # Denser towards 0, where the transform of a Moffat falls most steeply.
        last = float(radius.max())
        self._nodes = last * np.linspace(0.0, 1.0, NODES) ** 2
        place = np.sqrt(radius / last) * (NODES - 1)
        self._index = np.minimum(place.astype(np.intp), NODES - 2)
        self._fraction = place - self._index

    def __call__(self, fwhm: float, inverse_beta: float) -> Float:
        """Return the transform at all frequencies."""
        return self._spread(transform(self.model, self._nodes, fwhm, inverse_beta))

    def derivatives(self, fwhm: float, inverse_beta: float) -> list[Float]:
        """Return the derivatives by the width and, for a Moffat, by 1 / beta."""
        size = STEP * fwhm
        sides = [transform(self.model, self._nodes, fwhm + d, inverse_beta) for d in (size, -size)]
        result = [self._spread((sides[0] - sides[1]) / (2.0 * size))]
        if self.model == "moffat":
            sides = [transform(self.model, self._nodes, fwhm, inverse_beta + d) for d in (STEP, -STEP)]
            result.append(self._spread((sides[0] - sides[1]) / (2.0 * STEP)))
        return result

    def _spread(self, table: Float) -> Float:
        low = table[self._index]
        return np.asarray(low + self._fraction * (table[1:] - table[:-1])[self._index])


def kernel_reach(psf: GaussianPSF | MoffatPSF, lost: float) -> float:
    """Return the radius in arcsec outside of which a round profile has ``lost`` of its light."""
    if isinstance(psf, GaussianPSF):
        return float(psf.sigma * np.sqrt(-2.0 * np.log(lost)))
    return float(psf.alpha * np.sqrt(lost ** (1.0 / (1.0 - psf.beta)) - 1.0))


def sample_kernel(psf: GaussianPSF | MoffatPSF, matrix: ArrayLike, lost: float = 2e-3) -> Float:
    """Return a round profile at the centres of pixels.

    Parameters
    ----------
    psf : GaussianPSF or MoffatPSF
        Round; at least two pixels wide, or samples do not hold it.
    matrix : (2, 2) array
        Pixel offset (x, y) to sky offset (east, north), arcsec per pixel.
    lost : float
        Share of the light that may lie outside.

    Returns
    -------
    (n, n) float64 array, n odd, sum 1
    """
    pixel = np.asarray(matrix, dtype=np.float64)
    scale = float(np.sqrt(abs(np.linalg.det(pixel))))
    radius = max(1, int(np.ceil(kernel_reach(psf, lost) / scale)))
    axis = np.arange(-radius, radius + 1.0)
    metric = pixel.T @ pixel
    squared = (
        metric[0, 0] * axis**2
        + 2.0 * metric[0, 1] * np.outer(axis, axis)
        + metric[1, 1] * axis[:, np.newaxis] ** 2
    )
    if isinstance(psf, GaussianPSF):
        values = np.exp(-0.5 * squared / psf.sigma**2)
    else:
        values = (1.0 + squared / psf.alpha**2) ** -psf.beta
    return np.asarray(values / values.sum())
