"""A disc with nebulae seen by a sharp and a deep instrument that were brought to one grid and one PSF."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF
from skyloom.mock.hubble.noise import draw_noise, kernel_correlation
from tests.grids import tangent_wcs

UNIT = "1e-20 erg / (s cm2 AA arcsec2)"


def gaussian_kernel(sigma):
    reach = int(np.ceil(3 * sigma))
    profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.outer(profile, profile) / profile.sum() ** 2


SMOOTHED = gaussian_kernel(1.4)
"""Noise filter of an image that was convolved to the PSF of the other."""
DRIZZLED = gaussian_kernel(0.6)


class Scene(NamedTuple):
    continuum: np.ndarray
    lines: np.ndarray
    absorption: np.ndarray


def scene(rng, shape=(120, 120), n_nebulae=200):
    """Exponential disc, nebulae, diffuse lines of 2 % of the disc, 3.3 % +- 30 % absorption, no polynomial."""
    ny, nx = shape
    y, x = np.mgrid[:ny, :nx]
    u, v = 2 * x / nx - 1, 2 * y / ny - 1
    disc = 3000 * np.exp(-np.hypot(u, 1.3 * v) / 0.45)
    spots = np.zeros(shape)
    np.add.at(
        spots,
        (rng.integers(0, ny, n_nebulae), rng.integers(0, nx, n_nebulae)),
        500 * rng.lognormal(0, 1.2, n_nebulae),
    )
    phases = rng.uniform(0, 6.28, 4)
    pattern = np.sin(2.2 * u + phases[0]) * np.cos(1.7 * v + phases[1])
    pattern = pattern + 0.5 * np.sin(1.5 * v + phases[2]) * np.cos(2.0 * u + phases[3])
    return Scene(disc + 5.0, gaussian_filter(spots, 1.7) + 0.02 * disc, -0.033 * (1 + 0.3 * pattern))


def image(data, variance, noise, rng, wcs, **fields):
    """``data`` with noise of a known filter added."""
    variance = np.broadcast_to(variance, np.shape(data)).astype(np.float64)
    drawn = 0.0 if rng is None else draw_noise(variance, noise, rng, 1)[0]
    values = np.asarray(data + drawn, dtype=np.float32)
    return Image(
        values,
        variance.astype(np.float32),
        None,
        UNIT,
        wcs,
        psf=GaussianPSF(0.8),
        correlation=kernel_correlation(noise),
        **fields,
    )


def pair(rng, slope=1.1, offset=25.48, noise=1.0, shape=(120, 120), truth=None, scatter=0.0):
    """(image, reference, truth): ``image = slope * truth + offset``, the reference noisier than the image."""
    if truth is None:
        made = scene(np.random.default_rng(5), shape)
        truth = 0.1 * made.continuum + made.lines
    wcs = tangent_wcs(shape, 0.2)
    differs = 1 + scatter * 5 * gaussian_filter(rng.normal(size=shape), 1.5)
    first = image(slope * truth * differs + offset, noise * (3.0 + 0.02 * truth), SMOOTHED, rng, wcs)
    second = image(truth, noise * (30.0 + 0.1 * truth), DRIZZLED, rng, wcs)
    return first, second, truth


def triple(rng, made, slope=1.05, offset=-3.0, rotation=20.0, noise=1.0):
    """(excess, continuum, lines): ``excess = slope lines + offset + a continuum``, with noise shared."""
    wcs = tangent_wcs(made.lines.shape, 0.2, rotation)
    narrow_variance = noise * (0.6 + 2e-3 * (made.continuum + made.lines))
    continuum_variance = noise * (0.2 + 1e-3 * made.continuum)
    continuum = image(made.continuum, continuum_variance, SMOOTHED, rng, wcs)
    narrow = slope * made.lines + offset + (1 + made.absorption) * made.continuum
    narrow = narrow + draw_noise(narrow_variance, SMOOTHED, rng, 1)[0]
    excess = image(narrow - continuum.data, narrow_variance + continuum_variance, SMOOTHED, None, wcs)
    lines = image(made.lines, noise * (4.0 + 0.05 * made.lines), DRIZZLED, rng, wcs)
    return excess, continuum, lines
