"""Naive twins of the noise model: every pixel pair, every weight, written out."""

from __future__ import annotations

import numpy as np


def pair_variance(spread, labels, correlation, region):
    """Variance of the sum over one region, from every ordered pair of its pixels."""
    radius = correlation.shape[0] // 2
    total = 0.0
    pixels = np.argwhere(labels == region)
    for y1, x1 in pixels:
        for y2, x2 in pixels:
            dy, dx = y2 - y1, x2 - x1
            if abs(dy) <= radius and abs(dx) <= radius:
                total += spread[y1, x1] * spread[y2, x2] * correlation[radius + dy, radius + dx]
    return total


def noise_covariance(variance, correlation):
    """Full covariance matrix of n(x) = sqrt(v(x)) e(x), pixels in C order."""
    ny, nx = variance.shape
    y, x = np.indices((ny, nx))
    dy = y.ravel()[:, None] - y.ravel()[None, :]
    dx = x.ravel()[:, None] - x.ravel()[None, :]
    radius = correlation.shape[0] // 2
    near = (np.abs(dy) <= radius) & (np.abs(dx) <= radius)
    rho = np.zeros(dy.shape)
    rho[near] = correlation[dy[near] + radius, dx[near] + radius]
    sigma = np.sqrt(variance).ravel()
    return sigma[:, None] * rho * sigma[None, :]


def convolution_matrix(kernel, shape):
    """Matrix of a zero-padded convolution of an image in C order."""
    ny, nx = shape
    radius_y, radius_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    matrix = np.zeros((ny * nx, ny * nx))
    for y in range(ny):
        for x in range(nx):
            for row in range(kernel.shape[0]):
                for column in range(kernel.shape[1]):
                    source_y, source_x = y - (row - radius_y), x - (column - radius_x)
                    if 0 <= source_y < ny and 0 <= source_x < nx:
                        matrix[y * nx + x, source_y * nx + source_x] = kernel[row, column]
    return matrix
