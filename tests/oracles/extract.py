"""Naive twins of the extraction of spectra and of the measurement of a cube's noise."""

from __future__ import annotations

import numpy as np


def region_spectrum(data, variance, mask, inside, correlation=None, weight=None):
    """Sum, variance and usable share of one region per channel, from every ordered pair of its usable spaxels."""
    rho = np.ones((1, 1)) if correlation is None else correlation
    radius = rho.shape[0] // 2
    pixels = np.argwhere(inside)
    area = np.ones(inside.shape) if weight is None else weight
    sums = np.zeros((3, data.shape[0]))
    for channel in range(data.shape[0]):
        good = [(y, x) for y, x in pixels if not mask[channel, y, x]]
        sums[0, channel] = sum(area[y, x] * float(data[channel, y, x]) for y, x in good)
        for y1, x1 in good:
            for y2, x2 in good:
                dy, dx = y2 - y1, x2 - x1
                if abs(dy) <= radius and abs(dx) <= radius:
                    product = float(variance[channel, y1, x1]) * float(variance[channel, y2, x2])
                    pair = area[y1, x1] * area[y2, x2] * np.sqrt(product)
                    sums[1, channel] += pair * rho[radius + dy, radius + dx]
        sums[2, channel] = sum(area[y, x] for y, x in good) / area[inside].sum()
    return sums


def lag_products(planes, radius):
    """Sum of products of all pairs at each lag, pixel by pixel."""
    _, ny, nx = planes.shape
    sums = np.zeros((2 * radius + 1, 2 * radius + 1))
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            for y in range(ny):
                for x in range(nx):
                    if 0 <= y + dy < ny and 0 <= x + dx < nx:
                        sums[radius + dy, radius + dx] += float(
                            np.sum(planes[:, y, x].astype(float) * planes[:, y + dy, x + dx])
                        )
    return sums


def lag_response(projection, used, radius):
    """Expected lag sums of projected noise that has one lag: E[sum_i r_i r_(i+l)] for unit covariance at lag m."""
    n = projection.shape[0]
    response = np.zeros((radius + 1, radius + 1))
    for lag in range(radius + 1):
        covariance = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                if abs(i - j) == lag:
                    covariance[i, j] = 1.0
        projected = projection @ covariance @ projection.T
        for out in range(radius + 1):
            for i in range(n - out):
                if used[i] and used[i + out]:
                    response[out, lag] += projected[i, i + out]
    return response


def correlated_noise(rng, shape, spatial=0.6, spectral=0.4):
    """Unit-variance noise of a cube: white noise convolved with Gaussians (sigma in pixels and channels).

    Returns the noise and its exact correlations, spatial (k, k) and spectral (k,).
    """
    kernels = []
    for sigma in (spatial, spectral):
        radius = int(np.ceil(5 * sigma)) if sigma else 0
        kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2) if sigma else np.ones(1)
        kernels.append(kernel / np.sqrt(np.sum(kernel**2)))
    across, along = kernels
    margin, edge = across.size - 1, along.size - 1
    noise = rng.standard_normal((shape[0] + edge, shape[1] + margin, shape[2] + margin), dtype=np.float32)
    for axis, kernel in ((0, along), (1, across), (2, across)):
        size = noise.shape[axis] - kernel.size + 1
        noise = sum(
            np.float32(value) * noise[(slice(None),) * axis + (slice(i, i + size),)]
            for i, value in enumerate(kernel)
        )
    line = np.correlate(across, across, "full")
    return noise, np.outer(line, line), np.correlate(along, along, "full")
