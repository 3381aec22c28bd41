"""A field seen sharp on small turned pixels, and blurred by a known kernel on large ones: nothing of it is made by
the code under test.

Sources are round Gaussians, so that the sharp image is known in closed form; the blurred one is made on pixels six
times finer than its own.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import fftconvolve

from skyloom.core.image import Image
from skyloom.mock.hubble.noise import correlated_noise, kernel_correlation
from tests.grids import tangent_wcs

SHARP, COARSE, OVERSAMPLING = 0.04, 0.2, 6
SHARP_FWHM = 0.07
SIGMA = 1.0 / 2.3548200450309493
UNIT = "1e-20 erg / (s cm2 AA arcsec2)"
SHARP_FILTER = np.outer([0.4, 1.0, 0.4], [0.4, 1.0, 0.4])
COARSE_FILTER = np.outer([0.3, 1.0, 0.3], [0.3, 1.0, 0.3])


def sources(rng, count=60, radius=10.0):
    """Places (arcsec), fluxes and widths: points, knots and a smooth disc."""
    place = rng.uniform(-radius, radius, (count, 2))
    flux = 30.0 * rng.pareto(1.5, count) + 5.0
    width = rng.choice([0.0, 0.0, 0.1, 0.3], count)
    return (
        np.vstack([place, [[0.7, -0.4]]]),
        np.append(flux, 6000.0),
        np.append(width, 4.0),
    )


def brightness(x, y, scene, extra):
    """Sum of the sources at sky positions (arcsec), each widened by ``extra`` (sigma, arcsec)."""
    light = np.zeros(x.shape)
    for (x0, y0), flux, width in zip(*scene, strict=True):
        variance = width**2 + extra**2
        near = (np.abs(x - x0) < 7 * variance**0.5) & (np.abs(y - y0) < 7 * variance**0.5)
        squared = (x[near] - x0) ** 2 + (y[near] - y0) ** 2
        light[near] += flux / (2 * np.pi * variance) * np.exp(-0.5 * squared / variance)
    return light


def profile(fwhm, beta, step):
    """Values of a Gaussian (beta None) or a Moffat on a square grid of ``step``, sum 1; 30 arcsec across."""
    half = round(15.0 / step)
    axis = step * np.arange(-half, half + 1)
    squared = axis**2 + axis[:, np.newaxis] ** 2
    if beta is None:
        values = np.exp(-4 * np.log(2) * squared / fwhm**2)
    else:
        values = (1 + 4 * (2 ** (1 / beta) - 1) * squared / fwhm**2) ** -beta
    return values / values.sum()


def coarse_light(scene, shape, fwhm, beta, sharp_fwhm=SHARP_FWHM):
    """What the coarse pixels see through the kernel: sharp PSF, its pixel and its tile included."""
    step = COARSE / OVERSAMPLING
    # The mean of samples lacks the width of the little pixels that they stand for.
    sharp = np.sqrt((sharp_fwhm * SIGMA) ** 2 + SHARP**2 / 6 + step**2 / 12)
    pad = 40 * OVERSAMPLING  # light comes in from 8 arcsec around
    axes = [step * (np.arange(n * OVERSAMPLING + 2 * pad) - pad - (n * OVERSAMPLING - 1) / 2) for n in shape]
    y, x = np.meshgrid(*axes, indexing="ij")
    # East is to the left: the sky position is minus x.
    light = fftconvolve(brightness(-x, y, scene, sharp), profile(fwhm, beta, step), mode="same")
    light = light[pad:-pad, pad:-pad]
    ny, nx = shape
    return light.reshape(ny, OVERSAMPLING, nx, OVERSAMPLING).mean(axis=(1, 3))


def sharp_light(scene, wcs, shape, sharp_fwhm=SHARP_FWHM):
    """What the sharp pixels see: the sources with the PSF and the pixel's own width."""
    rows, columns = np.indices(shape)
    matrix = wcs.pixel_scale_matrix * 3600.0
    dx, dy = columns + 1 - wcs.wcs.crpix[0], rows + 1 - wcs.wcs.crpix[1]
    x, y = matrix[0, 0] * dx + matrix[0, 1] * dy, matrix[1, 0] * dx + matrix[1, 1] * dy
    return brightness(x, y, scene, np.sqrt((sharp_fwhm * SIGMA) ** 2 + SHARP**2 / 12))


class Field:
    """One scene on both grids, without noise."""

    def __init__(
        self,
        seed=1,
        *,
        fwhm=0.8,
        beta=2.8,
        shape=(90, 96),
        sharp_shape=(640, 640),
        angle=25.0,
        sharp_fwhm=SHARP_FWHM,
    ):
        scene = sources(np.random.default_rng(seed), radius=0.11 * min(shape))
        self.coarse_wcs = tangent_wcs(shape, COARSE)
        self.sharp_wcs = tangent_wcs(sharp_shape, SHARP, angle, (3.3, -5.6))
        self.coarse = coarse_light(scene, shape, fwhm, beta, sharp_fwhm)
        self.sharp = sharp_light(scene, self.sharp_wcs, sharp_shape, sharp_fwhm)

    def observe(
        self, rng, *, slope=1.3, offset=4.0, sharp_sigma=6.0, coarse_sigma=0.6, masked=0.0, poisson=0.0
    ):
        """Both images with correlated noise; ``poisson`` adds that share of the light to the variances."""
        sharp_variance = sharp_sigma**2 + poisson * sharp_sigma * self.sharp
        coarse = slope * self.coarse + offset
        coarse_variance = coarse_sigma**2 + poisson * coarse_sigma * self.coarse
        mask = rng.random(self.sharp.shape) < masked
        sharp = self.sharp + correlated_noise(sharp_variance, SHARP_FILTER, rng)
        sharp[mask] = np.nan
        return (
            Image(
                sharp,
                sharp_variance,
                mask,
                UNIT,
                self.sharp_wcs,
                correlation=kernel_correlation(SHARP_FILTER),
            ),
            Image(
                coarse + correlated_noise(coarse_variance, COARSE_FILTER, rng),
                coarse_variance,
                None,
                UNIT,
                self.coarse_wcs,
                correlation=kernel_correlation(COARSE_FILTER),
            ),
        )
