"""The correlation of noise from level to level: what neighbouring blocks share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.core.noise import truncate_correlation
from skyloom.core.resampling_noise import resample_covariance
from skyloom.core.spectral_noise import lag_bands, resample_lags, truncate_lags
from skyloom.errors import InputError

__all__ = ["coarse_correlation", "coarse_lags", "neighbour_lags", "pair_lags"]

Float = NDArray[np.float64]
SMALLEST_EIGENVALUE = 1e-6
"""Of the correlations within a block: below it, a sum could have a variance of zero or less."""


def _block_covariance(correlation: Float | None, level: int) -> Float | None:
    """Return the covariance of means over blocks of ``2^level`` pixels at all lags; None for independent pixels."""
    if correlation is None or np.count_nonzero(correlation) == 1:
        return None
    side = 2**level
    if level == 0:
        return np.asarray(correlation, dtype=np.float64)
    middle = (side - 1) / 2.0
    rho = np.asarray(correlation, dtype=np.float64)
    covariance = resample_covariance("area", side * np.eye(2), rho, np.array([[middle, middle]]))
    gain = covariance[covariance.shape[0] // 2, covariance.shape[1] // 2]
    if not gain > 0:
        raise InputError(
            f"the mean of blocks of {side} pixels has a noise variance of {gain} times that of a pixel",
            field="correlation",
            remedy="give an autocorrelation whose sum is > 0",
        )
    return np.asarray(covariance / gain)


def coarse_correlation(correlation: Float | None, level: int) -> Float | None:
    """Return the noise autocorrelation of level ``level`` from that of level 0, cut by the 1 % rule.

    Means over blocks of the same side: `resample_correlation` with an area kernel at the one phase that occurs. Each
    level is made from level 0, so that nothing is cut twice.
    """
    if level == 0:
        return correlation
    covariance = _block_covariance(correlation, level)
    return None if covariance is None else truncate_correlation(covariance)


def neighbour_lags(correlation: Float | None, level: int) -> Float:
    """Return the correlation of pixels of one level that get into one block of the next, nothing cut.

    Returns
    -------
    (4,) float64 array
        Along x, along y, along the diagonals (1, 1) and (-1, 1). A measured correlation need not be one: where the
        four would allow a negative variance, all are lowered until they do not.
    """
    covariance = _block_covariance(correlation, level)
    if covariance is None:
        return np.zeros(4)
    near = np.pad(covariance, 1)
    y, x = near.shape[0] // 2, near.shape[1] // 2
    lags = np.array([near[y, x + 1], near[y + 1, x], near[y + 1, x + 1], near[y + 1, x - 1]])
    along_x, along_y, down, up = lags
    block = np.array(
        [
            [1.0, along_x, along_y, down],
            [along_x, 1.0, up, along_y],
            [along_y, up, 1.0, along_x],
            [down, along_y, along_x, 1.0],
        ]
    )
    return lags * _allowed(float(np.linalg.eigvalsh(block)[0]))


def _allowed(eigenvalue: float) -> float:
    """Return the factor on all correlations that lifts the smallest eigenvalue of their matrix above 0."""
    if eigenvalue >= SMALLEST_EIGENVALUE:
        return 1.0
    return (1.0 - SMALLEST_EIGENVALUE) / (1.0 - eigenvalue)


def pair_lags(lags: Float | None, n_wave: int) -> Float:
    """Return the correlation of the two channels of each pair, (ceil(n_wave / 2),)."""
    n_pairs = (n_wave + 1) // 2
    if lags is None or lags.shape[-1] == 1:
        return np.zeros(n_pairs)
    bands = lag_bands(lags, n_wave)
    pairs = bands[::2, bands.shape[1] // 2 + 1]
    limit = 1.0 - SMALLEST_EIGENVALUE
    return np.clip(pairs, -limit, limit)


def coarse_lags(lags: Float | None, variance: Float) -> Float | None:
    """Return the lags of means over pairs of channels.

    Parameters
    ----------
    lags : (k,) or (n_wave, k) array, or None
    variance : (n_wave,) array
        Typical variance of each channel: where it changes within a channel or two it decides what pairs share. Not
        needed for (k,) lags, which hold for every channel and stay (j,).
    """
    if lags is None:
        return None
    if lags.ndim == 1:
        radius = lags.size // 2
        covariance = np.convolve(lags, [0.25, 0.5, 0.25])
        middle = radius + 1
        reach = middle // 2
        coarse = covariance[middle - 2 * reach : middle + 2 * reach + 1 : 2] / covariance[middle]
        cut = truncate_lags(coarse)
        return None if cut.size == 1 else cut
    n_wave = lags.shape[0]
    n_pairs = (n_wave + 1) // 2
    weights = np.full((n_pairs, 2), 0.5)
    if n_wave % 2:
        weights[-1] = 1.0, 0.0
    return resample_lags(2 * np.arange(n_pairs), weights, lags, variance)
