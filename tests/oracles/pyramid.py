"""Naive twins of the pyramid: blocks pixel by pixel, and the noise of block means from the whole covariance."""

from __future__ import annotations

import itertools

import numpy as np


def halved(data, variance, n_good, correlation, area, spectral=None):
    """Blocks of 2 x 2 (x 2) pixels of (n_wave, ny, nx) planes; ``spectral`` lags (n_wave, k), None for one channel.

    Returns data, variance and n_good of the blocks.
    """
    n_wave, ny, nx = data.shape
    depth = 1 if spectral is None else 2
    shape = (-(-n_wave // depth), -(-ny // 2), -(-nx // 2))
    values, errors, counts = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, int)
    for block in np.ndindex(shape):
        ranges = zip(block, (depth, 2, 2), data.shape, strict=True)
        pixels = list(
            itertools.product(*(range(k * side, min((k + 1) * side, size)) for k, side, size in ranges))
        )
        pixels = [pixel for pixel in pixels if n_good[pixel] > 0]
        counts[block] = sum(int(n_good[pixel]) for pixel in pixels)
        if not pixels:
            continue
        weight = {pixel: area * int(n_good[pixel]) / counts[block] for pixel in pixels}
        values[block] = sum(weight[pixel] * float(data[pixel]) for pixel in pixels)
        errors[block] = sum(
            weight[a]
            * weight[b]
            * np.sqrt(float(variance[a]) * float(variance[b]))
            * pair_correlation(correlation, spectral, a, b)
            for a in pixels
            for b in pixels
        )
    return values, errors, counts


def pair_correlation(correlation, spectral, a, b):
    """Correlation of two voxels (channel, y, x): that on the sky times that along wavelength."""
    return _spatial(correlation, b[1] - a[1], b[2] - a[2]) * _spectral(spectral, a[0], b[0])


def _spatial(correlation, dy, dx):
    if correlation is None:
        return 1.0 if dy == dx == 0 else 0.0
    radius = correlation.shape[0] // 2
    if max(abs(dy), abs(dx)) > radius:
        return 0.0
    return correlation[radius + dy, radius + dx]


def _spectral(lags, first, second):
    if lags is None or first == second:
        return 1.0 if first == second else 0.0
    radius = lags.shape[1] // 2
    distance = second - first
    return lags[first, radius + distance] if abs(distance) <= radius else 0.0


def block_correlation(correlation, side, reach):
    """Correlation of means over blocks of stationary noise, from all pairs of their pixels; lags up to ``reach``."""
    covariance = np.zeros((2 * reach + 1, 2 * reach + 1))
    steps = list(itertools.product(range(side), repeat=2))
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            covariance[dy + reach, dx + reach] = sum(
                _spatial(correlation, dy * side + b[0] - a[0], dx * side + b[1] - a[1])
                for a in steps
                for b in steps
            )
    return covariance / covariance[reach, reach]
