"""Errors of a fitted stellar model: its parameters, each channel, and the shared errors that lines feel most."""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.profiles import SPEED_OF_LIGHT, factorise, solve
from skyloom.kernels.stellar.broadening import Taps, fill_taps, tap_space
from skyloom.kernels.stellar.fit import State
from skyloom.kernels.stellar.model import GasLines, Row, derivatives, fill_columns

__all__ = ["Errors", "model_errors", "weighted_model"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
WINDOW = 1500.0  # km/s on either side of a line, over which a straight line is taken off.
PROFILE = 100.0  # km/s: dispersion of the lines whose errors the modes are to hold.
GLOBAL_SHARE = 1e-4  # What all channels together count beside the lines, when modes are chosen.


class Errors(NamedTuple):
    """Variances of parameters (0 where held or at a limit), model (n,) of the stars, its variance, modes (m, n)."""

    parameters: Float
    model: Float
    variance: Float
    modes: Float


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _in_use(coefficients: Float, state: State, n_free: int) -> tuple[Float, Float]:
    """Coefficients and weights of the templates that have one; free columns follow in the weights."""
    n_templates = coefficients.shape[1]
    members = np.flatnonzero(state.passive[:n_templates])
    few = np.empty((coefficients.shape[0], members.size))
    weights = np.empty(members.size + n_free)
    for k in range(members.size):
        few[:, k] = coefficients[:, members[k]]
        weights[k] = state.solution[members[k]]
    weights[members.size :] = state.solution[n_templates : n_templates + n_free]
    return few, weights


@numba.njit(cache=True, nogil=True, error_model="numpy")
def weighted_model(
    row: Row, gas: GasLines, coefficients: Float, state: State, n_free: int, n_added: int
) -> Float:
    """Return the weighted model with the first ``n_added`` of its free columns (all of them: with the lines)."""
    few, weights = _in_use(coefficients, state, n_free)
    taps = _taps(row, few.shape[0], state.parameters)
    columns = np.empty((row.root.size, weights.size))
    fill_columns(row, gas, taps, few, state.parameters, columns)
    total = np.zeros(row.root.size)
    for p in range(total.size):
        for k in range(few.shape[1] + n_added):
            total[p] += columns[p, k] * weights[k]
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _taps(row: Row, n_grid: int, parameters: Float) -> Taps:
    squared = max(parameters[1], 0.0)
    taps = tap_space(row.channels, squared, n_grid)
    fill_taps(row.channels, parameters[0], squared, n_grid, taps)
    return taps


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _jacobian(row: Row, gas: GasLines, few: Float, weights: Float, state: State, fitted: Int) -> Float:
    """Derivatives (n_unknown, n) of the weighted model by the weights in use, then by the parameters ``fitted``."""
    n, n_linear, n_parameters = row.root.size, weights.size, state.parameters.size
    taps = _taps(row, few.shape[0], state.parameters)
    columns, slopes = np.empty((n, n_linear)), np.zeros((n, n_parameters))
    fill_columns(row, gas, taps, few, state.parameters, columns)
    derivatives(row, gas, taps, few, state.parameters, weights, columns, slopes)
    out = np.empty((n_linear + fitted.size, n))
    for p in range(n):
        for k in range(n_linear):
            out[k, p] = columns[p, k]
        for k in range(fitted.size):
            out[n_linear + k, p] = slopes[p, fitted[k]]
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _correlated(values: Float, lags: Float, index: Int) -> Float:
    """Multiply the values at channels ``index`` with the correlation between these channels."""
    reach = lags.shape[1] // 2
    if reach == 0:
        return values
    full = np.zeros(lags.shape[0])
    full[index] = values
    out = np.empty(index.size)
    for i in range(index.size):
        channel = index[i]
        total = 0.0
        for j in range(max(0, channel - reach), min(full.size, channel + reach + 1)):
            total += lags[channel, reach + j - channel] * full[j]
        out[i] = total
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _covariance(jacobian: Float, lags: Float, index: Int) -> Float:
    """Covariance of the unknowns, ``H^-1 J^T R J H^-1``; unknowns that depend on others have none."""
    size = jacobian.shape[0]
    norm = np.empty(size)
    for i in range(size):
        norm[i] = math.sqrt(np.sum(jacobian[i] ** 2))
        if norm[i] > 0.0:
            jacobian[i] /= norm[i]
    square, noise = np.empty((size, size)), np.empty((size, size))
    for i in range(size):
        smeared = _correlated(jacobian[i], lags, index)
        for j in range(size):
            square[i, j] = np.sum(jacobian[i] * jacobian[j])
            noise[i, j] = np.sum(smeared * jacobian[j])
    factorise(square, size)
    inverse = np.eye(size)
    for i in range(size):
        solve(square, size, inverse[i])
        if not norm[i] > 0.0:
            norm[i] = np.inf
    return _sandwich(inverse, noise, norm)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sandwich(inverse: Float, noise: Float, norm: Float) -> Float:
    """``N^-1 H^-1 V H^-1 N^-1`` for symmetric H^-1, V and a diagonal N."""
    size = norm.size
    half, out = np.zeros((size, size)), np.zeros((size, size))
    for i in range(size):
        for k in range(size):
            half[i] += inverse[i, k] * noise[k]
    for i in range(size):
        for k in range(size):
            out[i] += half[i, k] * inverse[k]
        out[i] /= norm[i] * norm
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _line_response(wave: float, edges: Float, lsf: Float, noise: Float, index: Int, errors: Float) -> Float:
    """What a line's flux gains from each of the errors (m, n), in units of its own noise."""
    response = np.zeros(errors.shape[0])
    low = np.searchsorted(edges, wave * (1.0 - WINDOW / SPEED_OF_LIGHT))
    high = np.searchsorted(edges, wave * (1.0 + WINDOW / SPEED_OF_LIGHT)) - 1
    first, last = np.searchsorted(index, low), np.searchsorted(index, high)
    if last - first < 5:
        return response
    channel = min(max(int(np.searchsorted(edges, wave)) - 1, 0), lsf.size - 1)
    sigma = math.hypot(lsf[channel], wave * PROFILE / SPEED_OF_LIGHT)
    x, profile = np.empty(last - first), np.empty(last - first)
    for i in range(x.size):
        centre = 0.5 * (edges[index[first + i]] + edges[index[first + i] + 1])
        x[i] = (centre - wave) / sigma
        profile[i] = math.exp(-0.5 * x[i] * x[i])
    x -= x.mean()
    profile -= profile.mean()
    profile -= x * (np.sum(x * profile) / np.sum(x * x))
    own = math.sqrt(np.sum(profile**2 * noise[first:last]))
    for k in range(response.size):
        response[k] = np.sum(profile * errors[k, first:last]) / own
    return response


@numba.njit(cache=True, nogil=True, error_model="numpy")
def model_errors(
    used: Row, every: Row, gas: GasLines, coefficients: Float, state: State, n_free: int, lags: Float, lines: Float,
    noise: Float, n_modes: int,
) -> Errors:  # fmt: skip
    """Return errors of parameters and model.

    Parameters
    ----------
    used : Row
        Channels that were fitted.
    every : Row
        Channels where there is a model, with weight 1.
    lags : (n_wave, k) array
        Correlation of the noise.
    lines : (n_lines,) array
        Observed wavelengths, A, of lines that the modes are to serve.
    noise : (n of every,) array
        Variance of the data.

    Notes
    -----
    The unknowns are the weights in use, the free columns and the parameters that are neither held nor at a limit.
    With their covariance ``C = L L^T`` and the derivatives J of the model, ``F = J L`` has the model's covariance
    ``F F^T``. Modes are ``F u`` for the leading eigenvectors u of ``sum_l (F^T a_l)(a_l^T F)`` over the estimators
    a_l of the lines' fluxes: those that lines feel, not slopes that a line's own baseline takes up.
    """
    few, weights = _in_use(coefficients, state, n_free)
    n_parameters = state.parameters.size
    inside = (state.low < state.parameters) & (state.parameters < state.high) & ~state.held
    fitted = np.flatnonzero(inside)
    derivative = _jacobian(every, gas, few, weights, state, fitted)
    place = np.searchsorted(every.places, used.places)
    jacobian = np.empty((derivative.shape[0], place.size))
    for p in range(place.size):
        jacobian[:, p] = derivative[:, place[p]] * used.root[p]
    if gas.wave.size:
        # What follows is about the stars: lines of the gas are no part of the continuum.
        derivative[few.shape[1] + used.added.shape[0] : weights.size] = 0.0
        derivative[weights.size :][fitted >= n_parameters - 2] = 0.0
    covariance = _covariance(jacobian, lags, used.places)
    variances = np.zeros(n_parameters)
    for k in range(fitted.size):
        variances[fitted[k]] = covariance[weights.size + k, weights.size + k]
    n = every.root.size
    model, variance = np.zeros(n), np.zeros(n)
    for k in range(weights.size):
        model += weights[k] * derivative[k]
    errors = _root_of(covariance, derivative)
    for k in range(errors.shape[0]):
        variance += errors[k] ** 2
    return Errors(variances, model, variance, _modes(errors, gas, lines, noise, every.places, n_modes))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _root_of(covariance: Float, derivative: Float) -> Float:
    """Independent errors (m, n) of the model whose squares add up to its covariance."""
    size, n = derivative.shape
    norm = np.sqrt(np.diag(covariance))
    for i in range(size):
        if not norm[i] > 0.0:
            norm[i] = 1.0
    scaled = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            scaled[i, j] = 0.5 * (covariance[i, j] + covariance[j, i]) / (norm[i] * norm[j])
    values, vectors = np.linalg.eigh(scaled)
    errors = np.zeros((size, n))
    for k in range(size):
        scale = math.sqrt(max(values[k], 0.0))
        for i in range(size):
            factor = scale * vectors[i, k] * norm[i]
            for p in range(n):
                errors[k, p] += factor * derivative[i, p]
    return errors


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _modes(errors: Float, gas: GasLines, lines: Float, noise: Float, index: Int, n_modes: int) -> Float:
    size, n = errors.shape
    matrix = np.zeros((size, size))
    for i in range(size):
        for j in range(i + 1):
            matrix[i, j] = GLOBAL_SHARE * np.sum(errors[i] * errors[j] / noise) / n
    for line in range(lines.size):
        response = _line_response(lines[line], gas.edges, gas.lsf, noise, index, errors)
        for i in range(size):
            for j in range(i + 1):
                matrix[i, j] += response[i] * response[j]
    for i in range(size):
        for j in range(i):
            matrix[j, i] = matrix[i, j]
    _, vectors = np.linalg.eigh(matrix)
    modes = np.zeros((n_modes, n))
    for m in range(min(n_modes, size)):
        for k in range(size):
            for p in range(n):
                modes[m, p] += vectors[k, size - 1 - m] * errors[k, p]
    return modes
