"""Mock bands and line maps for line models: blobs of two colours, drizzle-correlated noise, known weights and blur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from scipy.special import erf

from skyloom.core.image import Image
from skyloom.core.noise import convolve_correlation
from skyloom.core.psf import FWHM_PER_SIGMA, GaussianPSF
from skyloom.imaging.psfs.convolve import convolve
from tests.grids import tangent_wcs

BAND_UNIT, LINE_UNIT = "electron / s", "1e-20 erg / (s cm2)"
DRIZZLE = np.array([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])
BAND_FWHM, LINE_FWHM = 0.2, 0.65


@dataclass(frozen=True)
class Blobs:
    """Round Gaussians: place (arcsec east, north of the centre), width and flux in each band."""

    place: np.ndarray
    sigma: np.ndarray
    flux: np.ndarray

    def paint(self, amplitude, wcs, shape, fwhm, shift=(0.0, 0.0)):
        """Flux in each pixel, exactly; ``shift`` moves what is seen by (x, y) pixels."""
        scale = abs(wcs.wcs.cd[1, 1]) * 3600
        centre = (np.array(shape)[::-1] - 1) / 2
        x = centre[0] - self.place[:, 0] / scale + shift[0]
        y = centre[1] + self.place[:, 1] / scale + shift[1]
        width = np.hypot(self.sigma, fwhm / FWHM_PER_SIGMA) / scale

        def along(middle, n):
            edges = (np.arange(n + 1) - 0.5 - middle[:, np.newaxis]) / (np.sqrt(2) * width[:, np.newaxis])
            return np.diff(erf(edges), axis=1) / 2

        return np.einsum("k,ky,kx->yx", amplitude, along(y, shape[0]), along(x, shape[1]))


def blobs(seed=1, n=40, radius=1.3):
    """A clumpy galaxy whose clumps have their own colours."""
    rng = np.random.default_rng(seed)
    place = rng.normal(0, radius / 2, (n, 2))
    colour = rng.uniform(0.1, 0.9, n)
    total = rng.lognormal(0, 0.8, n)
    return Blobs(place, rng.uniform(0.05, 0.3, n), np.stack([total * colour, total * (1 - colour)]))


def drizzled(rng, truth, sigma, wcs: WCS, unit=BAND_UNIT, psf=None):
    """An image with noise as drizzling leaves it, of standard deviation ``sigma``."""
    kernel = DRIZZLE / np.sqrt(np.sum(DRIZZLE**2))
    plain = Image(rng.normal(size=truth.shape), np.ones(truth.shape), np.zeros(truth.shape, bool), unit, wcs)
    noise = convolve(plain, kernel, coverage=0.1).data
    correlation, _ = convolve_correlation(kernel)
    return Image(
        truth + sigma * noise, np.full(truth.shape, sigma**2), np.zeros(truth.shape, bool), unit, wcs,
        psf=psf, correlation=correlation,
    )  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """Bands, line map, and the line at the resolution of the bands on a grid."""

    bands: dict
    line_map: Image
    galaxy: Blobs
    weights: np.ndarray

    def line_truth(self, wcs, shape, fwhm=BAND_FWHM):
        """Flux of the line in each pixel."""
        return self.galaxy.paint(self.weights @ self.galaxy.flux, wcs, shape, fwhm)


def scene(
    seed=0,
    *,
    weights=(3.0, 7.0),
    shift=(0.3, -0.2),
    band_noise=0.002,
    line_noise=0.5,
    level=0.0,
    rotation=0.0,
):
    """Two bands at 0.06 arcsec and a line map at 0.2 arcsec; noise of ``seed``, always the same galaxy."""
    rng = np.random.default_rng(seed)
    galaxy, weights = blobs(), np.array(weights)
    fine, coarse = tangent_wcs((104, 104), 0.06), tangent_wcs((30, 30), 0.2)
    psf = GaussianPSF(BAND_FWHM)
    bands = {
        name: drizzled(rng, galaxy.paint(flux, fine, (104, 104), BAND_FWHM), band_noise, fine, psf=psf)
        for name, flux in zip(("blue", "red"), galaxy.flux, strict=True)
    }
    line = galaxy.paint(weights @ galaxy.flux, coarse, (30, 30), LINE_FWHM, shift)
    noise = rng.normal(size=line.shape) * line_noise
    line_map = Image(
        line + noise + level,
        np.full(line.shape, line_noise**2),
        np.zeros(line.shape, bool),
        LINE_UNIT,
        coarse,
    )
    return Scene(bands, line_map, galaxy, weights)
