"""Naive twins of the spectral layer: full matrices, every voxel by itself, nothing clever."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def lag_matrix(correlation, n_wave):
    """Full correlation matrix (n_wave, n_wave) of (k,) or (n_wave, k) lags."""
    matrix = np.eye(n_wave)
    if correlation is None:
        return matrix
    lags = np.asarray(correlation)
    radius = lags.shape[-1] // 2
    for i in range(n_wave):
        for j in range(n_wave):
            if abs(i - j) <= radius:
                row = lags if lags.ndim == 1 else lags[i]
                matrix[i, j] = row[radius + j - i]
    return matrix


def sum_variance(variance, weights, correlation):
    """Variance of one weighted sum over channels, from every ordered pair."""
    matrix = lag_matrix(correlation, len(variance))
    total = 0.0
    for i in range(len(variance)):
        for j in range(len(variance)):
            if weights[i] != 0 and weights[j] != 0:
                total += weights[i] * weights[j] * np.sqrt(variance[i] * variance[j]) * matrix[i, j]
    return total


def pixel_edges(wave):
    """Edges half-way between centres; in the logarithm when the logarithms are evenly spaced."""
    scale = np.asarray(wave, dtype=float)
    logs = np.log(scale)
    is_log = np.ptp(np.diff(logs)) / np.diff(logs).mean() < np.ptp(np.diff(scale)) / np.diff(scale).mean()
    centres = logs if is_log else scale
    edges = [centres[0] - 0.5 * (centres[1] - centres[0])]
    edges += [0.5 * (a + b) for a, b in pairwise(centres)]
    edges += [centres[-1] + 0.5 * (centres[-1] - centres[-2])]
    return np.exp(edges) if is_log else np.array(edges)


def overlap_matrix(wave_in, wave_out):
    """(n_out, n_in) shares of each output pixel that lie on each input pixel."""
    source, target = pixel_edges(wave_in), pixel_edges(wave_out)
    matrix = np.zeros((len(wave_out), len(wave_in)))
    for j in range(len(wave_out)):
        for i in range(len(wave_in)):
            low, high = max(source[i], target[j]), min(source[i + 1], target[j + 1])
            matrix[j, i] = max(0.0, high - low) / (target[j + 1] - target[j])
    return matrix


def resample_spectrum(wave_in, wave_out, data, variance, mask, correlation):
    """Data, variance and mask of one spectrum on another grid; the variance from the full covariance matrix."""
    matrix = overlap_matrix(wave_in, wave_out)
    matrix[matrix < 1e-9] = 0.0
    complete = np.abs(matrix.sum(axis=1) - 1) < 1e-6
    hidden = ~complete | ((matrix > 0) & mask).any(axis=1)
    sigma = np.sqrt(np.where(mask, 1.0, variance))
    covariance = sigma[:, None] * lag_matrix(correlation, len(wave_in)) * sigma[None, :]
    return matrix @ np.where(mask, 0.0, data), np.diag(matrix @ covariance @ matrix.T), hidden


def prepare_voxels(data, variance, wave_vacuum, redshift, av, curve):
    """Rest frame and dereddening, voxel by voxel in double precision; ``curve`` gives A / A_V at a wavelength."""
    new_data, new_variance = np.empty(data.shape), np.empty(data.shape)
    for channel, wavelength in enumerate(wave_vacuum):
        factor = (1 + redshift) * 10 ** (0.4 * av * float(curve(wavelength)))
        for place in np.ndindex(data.shape[1:]):
            new_data[(channel, *place)] = float(data[(channel, *place)]) * factor
            new_variance[(channel, *place)] = float(variance[(channel, *place)]) * factor * factor
    return new_data, new_variance
