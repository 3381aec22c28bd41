"""Errors of fitted lines from the full covariance: kinematics, fluxes, baselines, correlated channels.

The linear estimator at the minimum is written out and applied to the noise: with the derivatives ``D`` of the model by
the kinematics, freed of the linear columns ``B`` (``S = D - B X``), and ``H = S^T S``,
``d theta = H^-1 S^T n`` and ``d a = (B^T B)^-1 B^T n - X d theta`` for noise n in units of its standard deviation,
whose covariance is the correlation between channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.line_profiles import factorise, solve
from skyloom.kernels.lines import (
    Data,
    Plan,
    State,
    _dot,
    _normal,
    amplitudes_of,
    build,
    channel_range,
    project,
)

Float = NDArray[np.float64]


class Linear(NamedTuple):
    """What is solved for given kinematics: fluxes and variances of columns, and of the totals that columns add up to;
    the model of the lines and the baseline, both in the unit of the flux.
    """

    flux: Float
    variance: Float
    total: Float
    total_variance: Float
    model: Float
    baseline: Float


class Kinematic(NamedTuple):
    """What `kinematic_covariance` returns."""

    inverse: Float
    covariance: Float
    shifts: Float


@numba.njit(cache=True, nogil=True, error_model="numpy")
def correlate(row: Float, lags: Float, low: int, used: Float) -> Float:
    """Multiply a row over the channels from ``low`` on with their correlation; masked channels have no noise.

    ``lags`` is (n_wave, k), ``used`` (n_wave,) is 0 where masked.
    """
    reach = lags.shape[1] // 2
    if reach == 0:
        return row.copy()
    n = row.size
    result = np.zeros(n)
    for i in range(n):
        if used[low + i] == 0.0:
            continue
        total = 0.0
        for j in range(max(0, i - reach), min(n, i + reach + 1)):
            total += lags[low + i, reach + j - i] * row[j]
        result[i] = total
    return result


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _inverse(matrix: Float) -> Float:
    """Inverse of a symmetric matrix; rows without information are 0."""
    size = matrix.shape[0]
    factor = matrix.copy()
    factorise(factor, size)
    result = np.zeros((size, size))
    for k in range(size):
        if factor[k, k] > 0.0:
            result[k, k] = 1.0
            solve(factor, size, result[k])
    return result


@numba.njit(cache=True, nogil=True, error_model="numpy")
def kinematic_covariance(
    plan: Plan, data: Data, kinematics: Float, state: State, lags: Float, modes: Float
) -> Kinematic:  # fmt: skip
    """Covariance of the kinematics.

    Returns
    -------
    inverse : (2 n_sets, 2 n_sets) array
        ``H^-1`` over the free kinematics.
    covariance : the same shape
        With correlated channels and the shared errors ``modes`` (m, n_wave), which are in units of the noise.
    shifts : (m, 2 n_sets) array
        What one standard deviation of each mode does to the kinematics.
    """
    size = kinematics.size
    hessian, noise = np.zeros((size, size)), np.zeros((size, size))
    shifts = np.zeros((modes.shape[0], size))
    for segment in range(plan.segment_range.shape[0]):
        low, high = channel_range(plan, data, segment)
        if high <= low or not state.active[segment]:
            continue
        part = build(plan, data, segment, kinematics, state)
        if part.columns.size == 0:
            continue
        factor = _normal(part.design)
        slopes, _ = project(plan, part, factor, amplitudes_of(part, factor, data.flux[low:high]))
        for k in range(size):
            if not state.free[k]:
                continue
            smeared = correlate(slopes[k], lags, low, data.root)
            for j in range(size):
                if state.free[j]:
                    hessian[k, j] += _dot(slopes[k], slopes[j])
                    noise[k, j] += _dot(smeared, slopes[j])
            for mode in range(modes.shape[0]):
                shifts[mode, k] += _dot(slopes[k], modes[mode, low:high])
    inverse = _inverse(hessian)
    covariance = inverse @ noise @ inverse
    shifts = shifts @ inverse
    covariance += shifts.T @ shifts
    return Kinematic(inverse, covariance, shifts)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def clear(result: Linear) -> None:
    """Reset to unknown fluxes and an empty model."""
    result.flux[:], result.variance[:] = np.nan, np.nan
    result.total[:], result.total_variance[:] = np.nan, np.nan
    result.model[:], result.baseline[:] = 0.0, 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def linear_results(
    plan: Plan, data: Data, kinematics: Float, state: State, lags: Float, modes: Float, errors: Kinematic,
    result: Linear,
) -> tuple[float, int, int]:  # fmt: skip
    """Fill ``result``; returns chi square, and the numbers of channels and of linear unknowns."""
    clear(result)
    chi2, n_used, n_linear = 0.0, 0, 0
    for segment in range(plan.segment_range.shape[0]):
        low, high = channel_range(plan, data, segment)
        if high <= low:
            continue
        part = build(plan, data, segment, kinematics, state)
        if part.columns.size == 0:
            continue
        factor = _normal(part.design)
        linear = amplitudes_of(part, factor, data.flux[low:high])
        slopes, absorbed = project(plan, part, factor, linear)
        if not state.active[segment]:
            # The noise of this segment had no part in the kinematics.
            slopes[:] = 0.0
        estimator = _Estimator(part.design, factor, slopes, absorbed, lags, modes, low)
        for place in range(part.columns.size):
            column = part.columns[place]
            result.flux[column] = linear[place]
            weights = np.zeros(linear.size)
            weights[place] = 1.0
            result.variance[column] = _variance(estimator, data, errors, weights)
        _add_totals(plan, part.columns, linear, estimator, data, errors, result)
        chi2 += _add_models(data, part.design, linear, part.columns.size, low, result)
        for i in range(low, high):
            n_used += data.root[i] > 0.0
        for place in range(linear.size):
            n_linear += factor[place, place] > 0.0
    _follow_ties(plan, state.tied, result)
    return chi2, n_used, n_linear


class _Estimator(NamedTuple):
    """The linear estimator of a segment; ``absorbed`` is X, ``slopes`` S of the module's docstring."""

    design: Float
    factor: Float
    slopes: Float
    absorbed: Float
    lags: Float
    modes: Float
    low: int


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_totals(
    plan: Plan, columns: NDArray[np.int64], linear: Float, estimator: _Estimator, data: Data, errors: Kinematic,
    result: Linear,
) -> None:  # fmt: skip
    """Sums over the components of each line that has several."""
    for place in range(columns.size):
        total = plan.column_total[columns[place]]
        weights, value, members, first = np.zeros(linear.size), 0.0, 0, True
        for other in range(columns.size):
            if plan.column_total[columns[other]] == total:
                weights[other] = 1.0
                value += linear[other]
                members += 1
                first = first and other >= place
        if not first:
            continue
        result.total[total] = value
        if members == 1:
            result.total_variance[total] = result.variance[columns[place]]
        else:
            result.total_variance[total] = _variance(estimator, data, errors, weights)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_models(data: Data, design: Float, linear: Float, p: int, low: int, result: Linear) -> float:
    """Write the models of a segment, and return its chi square."""
    chi2 = 0.0
    for i in range(design.shape[1]):
        root = data.root[low + i]
        if root == 0.0:
            continue
        lines, rest = 0.0, 0.0
        for place in range(p):
            lines += linear[place] * design[place, i]
        for place in range(p, linear.size):
            rest += linear[place] * design[place, i]
        chi2 += (data.flux[low + i] - lines - rest) ** 2
        result.model[low + i] = lines / root
        result.baseline[low + i] = rest / root
    return chi2


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _follow_ties(plan: Plan, tied: Float, result: Linear) -> None:
    """Give the emptied column of a pair the flux that the ratio gives it."""
    for pair in range(plan.pairs.shape[0]):
        ratio = tied[pair]
        if np.isnan(ratio):
            continue
        first, second = plan.pairs[pair, 0], plan.pairs[pair, 1]
        here, there = plan.column_total[first], plan.column_total[second]
        result.flux[first] = ratio * result.flux[second]
        result.variance[first] = ratio**2 * result.variance[second]
        result.total[here] = ratio * result.total[there]
        result.total_variance[here] = ratio**2 * result.total_variance[there]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _variance(estimator: _Estimator, data: Data, errors: Kinematic, weights: Float) -> float:
    """Variance of a weighted sum of linear parameters of a segment; the derivation is in the module's docstring."""
    size, m = estimator.design.shape
    n_kinematics = errors.covariance.shape[0]
    through = np.zeros(n_kinematics)
    known = False
    for j in range(size):
        known = known or (weights[j] != 0.0 and estimator.factor[j, j] > 0.0)
        for k in range(n_kinematics):
            through[k] += estimator.absorbed[k, j] * weights[j]
    if not known:
        return np.nan
    solution = weights.copy()
    solve(estimator.factor, size, solution)
    row = np.zeros(m)
    for j in range(size):
        for i in range(m):
            row[i] += solution[j] * estimator.design[j, i]
    smeared = correlate(row, estimator.lags, estimator.low, data.root)
    variance = _dot(row, smeared)
    for k in range(n_kinematics):
        if through[k] == 0.0:
            continue
        # Noise of this segment reaches the flux by itself and through the kinematics.
        pull = 0.0
        for j in range(n_kinematics):
            pull += errors.inverse[k, j] * _dot(estimator.slopes[j], smeared)
            variance += through[k] * errors.covariance[k, j] * through[j]
        variance -= 2.0 * through[k] * pull
    for mode in range(estimator.modes.shape[0]):
        direct = _dot(row, estimator.modes[mode, estimator.low : estimator.low + m])
        moved = 0.0
        for k in range(n_kinematics):
            moved += through[k] * errors.shifts[mode, k]
        # The square of the second part alone is in the covariance already.
        variance += direct * direct - 2.0 * direct * moved
    return max(variance, 0.0)
