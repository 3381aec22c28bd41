"""Naive twins of convolution and PSF matching: loops over pixels, dense matrices, written out."""

from __future__ import annotations

import numpy as np


def normalised_convolution(data, variance, mask, kernel, variance_kernel):
    """Data, variance, coverage after a convolution that leaves masked and missing pixels out, by loops."""
    ny, nx = data.shape
    half_y, half_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    out, out_variance, coverage = np.zeros((ny, nx)), np.zeros((ny, nx)), np.zeros((ny, nx))
    for y in range(ny):
        for x in range(nx):
            total = weight = noise = absolute = 0.0
            for row in range(kernel.shape[0]):
                for column in range(kernel.shape[1]):
                    source_y, source_x = y - (row - half_y), x - (column - half_x)
                    if 0 <= source_y < ny and 0 <= source_x < nx and not mask[source_y, source_x]:
                        total += kernel[row, column] * float(data[source_y, source_x])
                        noise += variance_kernel[row, column] * float(variance[source_y, source_x])
                        weight += kernel[row, column]
                        absolute += abs(kernel[row, column])
            share = weight / kernel.sum()
            out[y, x] = total / share if share > 0 else np.nan
            out_variance[y, x] = noise / share**2 if share > 0 else np.nan
            coverage[y, x] = min(share, absolute / np.abs(kernel).sum())
    return out, out_variance, coverage


def matched_weights(kernel, mask, weights):
    """Weights of the input pixels in ``sum(weights * normalised convolution)``: the adjoint, pixel by pixel."""
    ny, nx = mask.shape
    half_y, half_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    adjoint = np.zeros((ny, nx))
    for y, x in np.argwhere(weights != 0):
        from_y, to_y, from_x, to_x = (
            max(0, y - half_y),
            min(ny, y + half_y + 1),
            max(0, x - half_x),
            min(nx, x + half_x + 1),
        )
        # Output (y, x) takes kernel element (y - s + half) from source pixel s.
        rows = y - np.arange(from_y, to_y) + half_y
        columns = x - np.arange(from_x, to_x) + half_x
        taps = kernel[np.ix_(rows, columns)] * ~mask[from_y:to_y, from_x:to_x]
        adjoint[from_y:to_y, from_x:to_x] += weights[y, x] * taps * kernel.sum() / taps.sum()
    return adjoint


def gaussian_on_pixels(shape, x, y, sigma_x, sigma_y):
    """A unit Gaussian integrated over pixels by brute force on an 11-fold finer grid."""
    fine = 11
    offsets = (np.arange(fine) + 0.5) / fine - 0.5
    columns = (np.arange(shape[1])[:, None] + offsets).ravel()
    rows = (np.arange(shape[0])[:, None] + offsets).ravel()
    along_x = np.exp(-0.5 * ((columns - x) / sigma_x) ** 2) / (np.sqrt(2 * np.pi) * sigma_x)
    along_y = np.exp(-0.5 * ((rows - y) / sigma_y) ** 2) / (np.sqrt(2 * np.pi) * sigma_y)
    return np.outer(
        along_y.reshape(shape[0], fine).mean(axis=1), along_x.reshape(shape[1], fine).mean(axis=1)
    )
