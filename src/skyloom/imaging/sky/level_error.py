"""The statistical error of a sky level: correlated noise, and fluctuations wider than its correlation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from skyloom.core.image import Image
from skyloom.core.noise import lag_covariance
from skyloom.imaging.sky.wings import WingFit, inner

__all__ = ["level_error"]

Array = NDArray[Any]

LAG_RADIUS = 6  # Pixels; noise correlated over longer distances is caught by the scatter between blocks.
BLOCKS = 5  # Blocks along each axis.


def level_error(image: Image, sky: tuple[Array, Array], best: WingFit, scatter: float) -> float:
    """Return the standard error of a fitted sky level.

    Parameters
    ----------
    image : Image
        Its ``correlation`` is used; without one, that of the residuals.
    sky : (rows, columns)
        Indices of the sky pixels, in the order of the fit.
    best : WingFit
    scatter : float
        Standard deviation of the sky pixels.

    Returns
    -------
    float

    Notes
    -----
    ``Var = sum_ij w_i w_j C(x_i - x_j)`` with the weights w of the fit and C the noise covariance, times the excess
    of the scatter between blocks of the image over the expected one: fluctuations wider than the correlation kernel
    (flat field, unresolved sources) are an error of the level too.
    """
    used = (sky[0][best.used], sky[1][best.used])
    weights = np.zeros(image.shape)
    weights[used] = best.weights
    residuals = np.zeros(image.shape)
    residuals[used] = best.residuals[best.used]
    if image.correlation is None:
        present = np.zeros(image.shape, dtype=bool)
        present[used] = True
        covariance = lag_covariance(residuals, present, LAG_RADIUS)
        covariance *= scatter**2 / covariance[LAG_RADIUS, LAG_RADIUS]
    else:
        covariance = scatter**2 * image.correlation
    independent = scatter**2 * inner(best.weights, best.weights)
    variance = max(float(np.sum(covariance * _self_overlap(weights, covariance.shape[0] // 2))), independent)
    return math.sqrt(variance * _block_excess(residuals, used, scatter**2 * variance / independent))


def _self_overlap(weights: Array, radius: int) -> Array:
    """Return ``sum_x w(x) w(x + lag)`` for lags up to ``radius``."""
    shape = tuple(fft.next_fast_len(size + radius, real=True) for size in weights.shape)
    overlap = fft.irfft2(np.abs(fft.rfft2(weights.astype(np.float32), shape)) ** 2, shape)
    lags = np.arange(-radius, radius + 1)
    return np.asarray(overlap[np.ix_(lags, lags)])


def _block_excess(residuals: Array, used: tuple[Array, Array], variance: float) -> float:
    """Scatter of block means over the expected one, squared, but at least 1.

    ``variance`` is that of a pixel times the pixels that vary as one.
    """
    ny, nx = residuals.shape
    block = (used[0] * BLOCKS // ny) * BLOCKS + used[1] * BLOCKS // nx
    number = np.bincount(block, minlength=BLOCKS**2)
    total = np.bincount(block, weights=residuals[used], minlength=BLOCKS**2)
    full = number >= max(10.0, 0.2 * ny * nx / BLOCKS**2)
    freedom = int(np.count_nonzero(full)) - 2
    if freedom < 4 or not variance > 0:
        return 1.0
    return max(1.0, float(np.sum(total[full] ** 2 / number[full]) / variance / freedom))
