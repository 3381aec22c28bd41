"""Naive twin of the synthetic images: one pixel after the other, full covariance matrices."""

from __future__ import annotations

import numpy as np

from skyloom.core.spectral_noise import lag_bands


def correlation_matrix(lags, n):
    bands = lag_bands(lags, n)
    radius = bands.shape[1] // 2
    matrix = np.eye(n)
    for i in range(n):
        for j in range(i + 1, min(n, i + radius + 1)):
            matrix[i, j] = matrix[j, i] = bands[i, radius + j - i]
    return matrix


def naive_means(cube, bandpass):
    """Weighted mean over the usable channels of every pixel, and its variance."""
    weights = bandpass.mean_weights(cube.wave, cube.medium, minimum_coverage=0.0)
    n, ny, nx = cube.shape
    rho = correlation_matrix(None if cube.correlation is None else cube.correlation.spectral, n)
    mean, variance = np.full((ny, nx), np.nan), np.full((ny, nx), np.nan)
    for y in range(ny):
        for x in range(nx):
            used = np.flatnonzero(~cube.mask[:, y, x] & (weights > 0))
            if used.size:
                share = weights[used] / weights[used].sum()
                mean[y, x] = share @ cube.data[used, y, x].astype(float)
                spread = share * np.sqrt(cube.variance[used, y, x].astype(float))
                variance[y, x] = spread @ rho[np.ix_(used, used)] @ spread
    return mean, variance
