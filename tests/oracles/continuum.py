"""Continuum subtraction pixel by pixel, as slowly and plainly as it can be written; and scenes for its tests."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from scipy.optimize import brentq

from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Image
from skyloom.mock.hubble.noise import correlated_noise, kernel_correlation
from tests.grids import tangent_wcs

UNIT = u.Unit("1e-20 erg / (s cm2 AA arcsec2)")
NARROW = Bandpass.tophat(6584.0, 80.0, edge=20.0, name="F658N")
BLUE = Bandpass.tophat(5400.0, 1300.0, edge=100.0, name="F555W")
RED = Bandpass.tophat(8050.0, 1700.0, edge=100.0, name="F814W")
KERNELS = (
    np.outer([0.3, 1.0, 0.3], [0.3, 1.0, 0.3]),
    np.outer([1.0, 1.0, 1.0], [0.5, 1.0, 0.5]),
    np.outer([0.2, 0.8, 1.0, 0.8, 0.2], [0.1, 0.9, 1.0, 0.9, 0.1]),
)


def solve_excess(narrow, blue, red, k1, k2, w1, w2, interpolation, bracket=1e6):
    """E = N - C(B - k1 E, R - k2 E), by fixed-point iteration (linear) or bisection (log); the lower root."""
    if interpolation == "linear":
        excess = 0.0
        for _ in range(500):
            excess = narrow - w1 * (blue - k1 * excess) - w2 * (red - k2 * excess)
        return excess

    def miss(excess):
        return excess - narrow + (blue - k1 * excess) ** w1 * (red - k2 * excess) ** w2

    limits = [band / k for band, k in ((blue, k1), (red, k2)) if k > 0]
    high = min([0.999 * min(limits)] if limits else [bracket])
    return brentq(miss, -bracket, high, xtol=1e-12, rtol=1e-14)


def subtract_naively(data, variance, k1, k2, w1, w2, interpolation="linear"):
    """Excess and its variance to first order, from numerical derivatives; arrays (3, ny, nx)."""
    excess, spread = np.zeros(data.shape[1:]), np.zeros(data.shape[1:])
    for place in np.ndindex(*excess.shape):
        values = data[(slice(None), *place)].astype(float)
        excess[place] = solve_excess(*values, k1, k2, w1, w2, interpolation)
        for band in range(3):
            step = 1e-4 * max(1.0, abs(values[band]))
            moved = [values.copy(), values.copy()]
            moved[0][band] += step
            moved[1][band] -= step
            slope = np.subtract(*(solve_excess(*each, k1, k2, w1, w2, interpolation) for each in moved)) / (
                2 * step
            )
            spread[place] += slope**2 * variance[(band, *place)]
    return excess, spread


def make_images(
    planes, variances, *, masks=(None, None, None), dtype=np.float64, kernels=None, modes=((), (), ())
):
    """Three images on one grid, named by their bands."""
    shape = np.shape(planes[0])
    wcs = tangent_wcs(shape, 0.04, 25.0)
    names = ("F658N", "F555W", "F814W")
    return [
        Image(
            np.asarray(plane, dtype),
            np.broadcast_to(np.asarray(variance, dtype), shape).copy(),
            mask,
            UNIT,
            wcs,
            correlation=None if kernels is None else kernel_correlation(kernels[i]),
            modes=modes[i],
            meta={"band": names[i]},
        )
        for i, (plane, variance, mask) in enumerate(zip(planes, variances, masks, strict=True))
    ]


def pivot_weights():
    """Weights of the blue and the red band at the narrow one."""
    red = (NARROW.pivot - BLUE.pivot) / (RED.pivot - BLUE.pivot)
    return 1 - red, red


def true_bands(shape, interpolation, peak=20.0, floor=0.0, lines=0.0, colour=1.0):
    """Noise-free (narrow, blue, red, excess): a disc whose colour changes by a factor 2, with blobs of line light."""
    y, x = np.indices(shape) / np.max(shape)
    radius = np.hypot(y - 0.5, x - 0.5)
    blue = floor + peak * np.exp(-radius / 0.15)
    red = colour * blue * (0.6 + 0.9 * x)
    w1, w2 = pivot_weights()
    level = w1 * blue + w2 * red if interpolation == "linear" else blue**w1 * red**w2
    excess = lines * (np.sin(40 * x) * np.sin(37 * y)) ** 8
    return level + excess, blue, red, excess


def noisy_bands(truth, sigmas, rng, kernels=KERNELS):
    """The three planes with correlated noise of these standard deviations (numbers or maps)."""
    return [
        plane + correlated_noise(np.broadcast_to(np.square(sigma), plane.shape), kernel, rng)
        for plane, sigma, kernel in zip(truth, sigmas, kernels, strict=True)
    ]
