"""A galaxy as a line map shows it: a disc with HII blobs, whose truth is known and whose noise can be drawn again."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def disc_and_blobs(
    side=300, peak=3.0, scale_length=0.15, n_blobs=None, blob_peak=(4.0, 40.0), generator=None
):
    """Return truth and variance (ny, nx): an inclined exponential disc and round blobs over a sky of variance 1.

    Sizes of the disc scale with ``side``; blobs have a sigma of 1.5 to 4 px whatever the side, as HII regions that
    the seeing blurs, and their number grows with the area.
    """
    generator = np.random.default_rng(5) if generator is None else generator
    n_blobs = max(1, side * side // 1000) if n_blobs is None else n_blobs
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    along, across = 0.8 * x + 0.6 * y, (0.8 * y - 0.6 * x) / 0.7
    truth = peak * np.exp(-np.hypot(along, across) / (scale_length * side))
    for _ in range(n_blobs):
        radius, angle = scale_length * side * generator.exponential(1.2), generator.uniform(0, 2 * np.pi)
        width = generator.uniform(1.5, 4.0)
        height = np.exp(generator.uniform(*np.log(blob_peak)))
        row, column = (side - 1) / 2 + radius * np.sin(angle), (side - 1) / 2 + radius * np.cos(angle)
        reach = int(6 * width) + 1
        rows = np.arange(max(0, int(row) - reach), max(0, min(side, int(row) + reach + 1)))
        columns = np.arange(max(0, int(column) - reach), max(0, min(side, int(column) + reach + 1)))
        profile = (
            np.exp(-((axis - centre) ** 2) / (2 * width**2))
            for axis, centre in ((rows, row), (columns, column))
        )
        truth[np.ix_(rows, columns)] += height * np.outer(*profile)
    return truth, 1.0 + 0.1 * truth


def add_noise(truth, variance, seed, kernel_sigma=0.0):
    """Draw one realisation; ``kernel_sigma`` (px) correlates the noise of neighbours."""
    noise = np.random.default_rng(seed).normal(size=truth.shape)
    if kernel_sigma:
        noise = ndimage.gaussian_filter(noise, kernel_sigma, mode="wrap") / np.sqrt(
            gaussian_power(kernel_sigma)
        )
    return truth + noise * np.sqrt(variance)


def gaussian_power(sigma):
    """Variance that white noise of variance 1 keeps under the Gaussian filter."""
    return float(np.sum(_response(sigma) ** 2))


def gaussian_correlation(sigma, radius=3):
    """Autocorrelation of white noise after the Gaussian filter of ``add_noise``."""
    kernel = _response(sigma)
    size = kernel.shape[0]
    power = np.fft.irfft2(np.abs(np.fft.rfft2(kernel)) ** 2, kernel.shape)
    rho = np.fft.fftshift(power)
    centre = size // 2
    cut = rho[centre - radius : centre + radius + 1, centre - radius : centre + radius + 1]
    return (cut + cut[::-1, ::-1]) / 2 / cut[radius, radius]


def _response(sigma, size=64):
    delta = np.zeros((size, size))
    delta[size // 2, size // 2] = 1.0
    return ndimage.gaussian_filter(delta, sigma, mode="wrap")


def circular_mask(side, radius=None):
    """True outside a circle: the dead corners of a circular field."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.hypot(y, x) > (side / 2 if radius is None else radius)
