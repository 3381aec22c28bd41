"""Naive twins of the line functionals: dense matrices, one spaxel at a time, nothing clever."""

from __future__ import annotations

import numpy as np
from scipy.special import erf


def covariance(variance, lags):
    """Full covariance of n channels from their variances and a band (n, k) of lags."""
    n, k = len(variance), lags.shape[1]
    matrix = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if abs(j - i) <= k // 2:
                matrix[i, j] = lags[i, k // 2 + j - i] * np.sqrt(variance[i] * variance[j])
    return matrix


def overlap(edges, windows):
    """Length of every channel inside the windows."""
    lengths = np.zeros(len(edges) - 1)
    for low, high in windows:
        lengths += np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
    return lengths


def shares(edges, centre, sigma):
    return 0.5 * np.diff(erf((edges - centre) / (np.sqrt(2) * sigma)))


def line_weights(
    usable, edges, common, stretch, sigma, centres, wanted, line_windows, side_windows, matched, degree
):
    """Weights of a spaxel whose windows lie on the axis and have enough usable channels, and its coverage.

    The continuum is projected out with least-squares matrices, the amplitudes with the design matrix of profiles.
    """
    width = np.diff(edges)
    middle = 0.5 * (edges[1:] + edges[:-1])
    light = np.array([shares(edges, c * stretch, s) for c, s in zip(centres, sigma, strict=True)])
    use = np.asarray(usable, float)
    if matched:
        design = (light / width).T
        inverse = np.diag(use / common)
        amplitudes = np.linalg.solve(design.T @ inverse @ design, design.T @ inverse)
        line = wanted @ amplitudes
        coverage = (wanted @ light @ use) / wanted.sum()
    else:
        line = overlap(edges, line_windows * stretch)
        expected = (wanted @ light) * line / width
        coverage = (expected @ use) / expected.sum()
        line = line * use / coverage
    side = overlap(edges, side_windows * stretch) / width * use / common
    basis = np.stack([middle**0, middle - middle.mean()][: degree + 1], axis=1)
    fit = basis @ np.linalg.solve(basis.T @ (side[:, np.newaxis] * basis), (basis * side[:, np.newaxis]).T)
    return line - line @ fit, coverage


def scatter(values, variance, usable, lags, edges, common, windows, degree):
    """Mean of a polynomial through windows, weighted squares of residuals, and their expectation."""
    width = np.diff(edges)
    weights = overlap(edges, windows) / width * usable / common
    used = weights > 0
    middle = 0.5 * (edges[1:] + edges[:-1])
    x = (middle - middle.mean())[used] / np.ptp(middle)
    u = weights[used]
    basis = np.vander(x, degree + 1)
    hat = basis @ np.linalg.solve(basis.T @ (u[:, np.newaxis] * basis), basis.T * u)
    model = hat @ values[used]
    away = np.eye(used.sum()) - hat
    noise = away @ covariance(variance, lags)[np.ix_(used, used)] @ away.T
    count = (overlap(edges, windows) / width * usable).sum()
    return np.average(model, weights=u), np.sum(u * (values[used] - model) ** 2), u @ np.diag(noise), count


def peak(values, usable, centre, half, inner, outer):
    """Maximum minus mean beside it, and the standard deviation there."""
    index = np.arange(len(values))
    away = np.abs(index - centre)
    side = values[usable & (away >= inner) & (away <= outer)]
    return values[usable & (away <= half)].max() - side.mean(), side.std(ddof=1)
