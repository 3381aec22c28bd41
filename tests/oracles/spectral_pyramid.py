"""Naive twin of spectra on the common grid and at coarser levels: explicit operators on a dense covariance."""

from __future__ import annotations

import numpy as np


def log_edges(step, first, n_wave, factor=1):
    """Edges of pixels whose centres are multiples of a step in log10, ``factor`` pixels in each."""
    return 10.0 ** (step * (first + factor * np.arange(n_wave + 1) - 0.5))


def dense_correlation(correlation, n_wave):
    """(n_wave, n_wave) from lags in any of their forms, the upper half read."""
    if correlation is None:
        return np.eye(n_wave)
    lags = np.asarray(correlation, float)
    if lags.ndim == 1:
        lags = np.tile(lags, (n_wave, 1))
    radius = lags.shape[1] // 2
    matrix = np.eye(n_wave)
    for i in range(n_wave):
        for d in range(1, radius + 1):
            if i + d < n_wave:
                matrix[i, i + d] = matrix[i + d, i] = lags[i, radius + d]
    return matrix


def resampling_operator(source, target):
    """(n_out, n_in) shares of output pixels on input pixels; rows that are not wholly covered are 0."""
    operator = np.zeros((target.size - 1, source.size - 1))
    for j in range(target.size - 1):
        for i in range(source.size - 1):
            shared = min(source[i + 1], target[j + 1]) - max(source[i], target[j])
            operator[j, i] = max(shared, 0.0) / (target[j + 1] - target[j])
    operator[operator < 1e-9] = 0.0
    operator[operator.sum(axis=1) < 1 - 1e-6] = 0.0
    total = operator.sum(axis=1, keepdims=True)
    return operator / np.where(total > 0, total, 1.0)


def on_grid(data, variance, mask, correlation, operator, scale=None):
    """Data, covariance and mask after an operator; pixels that touch a masked one are masked."""
    good = ~mask
    scale = np.ones(data.size) if scale is None else scale
    sigma = np.where(good, np.sqrt(np.where(good, variance, 0.0)), 0.0) * scale
    covariance = dense_correlation(correlation, data.size) * np.outer(sigma, sigma)
    hidden = ((operator > 0) & mask).any(axis=1) | (operator.sum(axis=1) == 0)
    operator = np.where(hidden[:, None], 0.0, operator)
    values = operator @ (np.where(good, data, 0.0) * scale)
    return values, operator @ covariance @ operator.T, hidden


def coarser(data, covariance, mask, widths, level):
    """Mean flux densities over blocks of 2^level pixels of the common grid, each good pixel by its width.

    Returns data, covariance, mask and the number of good pixels, all from level 0 in one operator.
    """
    block = 2**level
    n_out = -(-data.size // block)
    operator = np.zeros((n_out, data.size))
    counts = np.zeros(n_out, int)
    for j in range(n_out):
        for i in range(j * block, min((j + 1) * block, data.size)):
            if not mask[i]:
                operator[j, i] = widths[i]
                counts[j] += 1
    total = operator.sum(axis=1, keepdims=True)
    operator /= np.where(total > 0, total, 1.0)
    values = operator @ np.where(mask, 0.0, data)
    return values, operator @ covariance @ operator.T, counts == 0, counts


def correlation_of(covariance, i, j):
    """Correlation of two pixels; 0 where one has no noise, being masked."""
    scale = covariance[i, i] * covariance[j, j]
    return covariance[i, j] / np.sqrt(scale) if scale > 0 else 0.0


def random_bands(n_wave, radius, seed=1):
    """Symmetric lags that differ from channel to channel."""
    rng = np.random.default_rng(seed)
    matrix = np.zeros((n_wave, n_wave))
    for lag in range(1, radius + 1):
        matrix += np.diag(rng.uniform(0.1, 0.3, n_wave - lag), lag)
    matrix += matrix.T + np.eye(n_wave)
    bands = np.zeros((n_wave, 2 * radius + 1))
    for i in range(n_wave):
        for d in range(-radius, radius + 1):
            if 0 <= i + d < n_wave:
                bands[i, radius + d] = matrix[i, i + d]
    return bands
