"""Errors of a fitted model from its derivatives, with noise that is correlated between channels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr, solve_triangular

__all__ = ["ModelErrors", "model_errors"]

Float = NDArray[np.float64]
RANK = 1e-8  # Directions whose share of the largest is smaller cannot be told from others.


class ModelErrors(NamedTuple):
    """Errors of a model.

    Attributes
    ----------
    variance : (n_wave,) array
        Of the model.
    modes : (m, n_wave) array
        Its leading shared errors, one standard deviation each.
    parameters : (n_parameters,) array
        Errors of the parameters; NaN where the data do not tell them from others.
    """

    variance: Float
    modes: Float
    parameters: Float


def model_errors(
    derivatives: Float, noise: Float, used: NDArray[np.bool_], bands: Float, n_modes: int
) -> ModelErrors:
    """Return the errors of a least-squares model.

    Parameters
    ----------
    derivatives : (n_wave, n_parameters) array
        Of the model by each parameter, in all channels.
    noise : (n_wave,) array
        Standard deviation of the data.
    used : (n_wave,) bool array
        Channels that were fitted, with weights ``1 / noise**2``.
    bands : (n_wave, k) array
        Correlation of the noise: ``bands[i, k // 2 + d]`` of channels i and i + d.
    n_modes : int

    Notes
    -----
    With whitened derivatives ``A = Q R`` in the used channels, the estimate is ``R^-1 Q^T d`` and its covariance
    ``R^-1 (Q^T C Q) R^-T``, C being the correlation of the noise: the weights need not be the inverse covariance.
    """
    scaled = np.where(used[:, np.newaxis], derivatives / noise[:, np.newaxis], 0.0)
    lengths = np.sqrt(np.sum(scaled**2, axis=0))
    lengths[lengths == 0] = 1.0
    whole, triangle, order = qr(scaled / lengths, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(triangle))
    rank = int(np.count_nonzero(diagonal > RANK * max(float(diagonal[0]), 1e-300))) if diagonal.size else 0
    basis = whole[:, :rank]
    inverse = solve_triangular(triangle[:rank, :rank], np.eye(rank))
    root = np.linalg.cholesky(_banded(basis, bands) + 1e-12 * np.eye(rank))
    chosen = order[:rank]
    change = inverse @ root  # of the scaled parameters, one column per independent standard deviation
    parameters = np.full(derivatives.shape[1], np.nan)
    if rank == derivatives.shape[1]:
        parameters[chosen] = np.sqrt(np.sum(change**2, axis=1)) / lengths[chosen]
    else:
        parameters = _known_only(triangle, rank, order, change, lengths)
    shared = (derivatives[:, chosen] / lengths[chosen]) @ change
    left, strengths, _ = np.linalg.svd(shared, full_matrices=False)
    modes = np.zeros((n_modes, len(noise)))
    kept = min(n_modes, strengths.size)
    modes[:kept] = (left[:, :kept] * strengths[:kept]).T
    return ModelErrors(np.sum(shared**2, axis=1), modes, parameters)


def _known_only(triangle: Float, rank: int, order: NDArray[np.int64], change: Float, lengths: Float) -> Float:
    """Return errors of the parameters in which no dropped direction takes part; NaN for the others."""
    parameters = np.full(lengths.size, np.nan)
    mixing = solve_triangular(triangle[:rank, :rank], triangle[:rank, rank:])
    alone = np.all(np.abs(mixing) < 1e-3, axis=1)
    errors = np.sqrt(np.sum(change**2, axis=1)) / lengths[order[:rank]]
    parameters[order[:rank][alone]] = errors[alone]
    return parameters


def _banded(basis: Float, bands: Float) -> Float:
    """Return ``basis^T C basis``."""
    n, radius = len(basis), bands.shape[1] // 2
    total = np.zeros((basis.shape[1],) * 2)
    for lag in range(-radius, radius + 1):
        first, last = max(0, -lag), min(n, n - lag)
        if first < last:
            total += (basis[first:last] * bands[first:last, radius + lag, np.newaxis]).T @ basis[
                first + lag : last + lag
            ]
    return 0.5 * (total + total.T)
