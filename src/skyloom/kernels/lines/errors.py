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

from skyloom.kernels.lines.fit_segments import (
    add_normal,
    answer_kinematics,
    line_shape,
    shape_segment,
    slopes_against,
    solve_segment,
)
from skyloom.kernels.lines.profiles import (
    add_profile,
    add_rows,
    dot,
    factorise,
    products_with,
    reach_of,
    solve,
)
from skyloom.kernels.lines.types import Data, Plan, State, Work

Float = NDArray[np.float64]


class Linear(NamedTuple):
    """What is solved for given kinematics: fluxes and variances of columns, and of the totals that columns add up to;
    what part of these variances comes through the kinematics (``lent``); the model of the lines and the baseline, both
    in the unit of the flux.
    """

    flux: Float
    variance: Float
    lent: Float
    total: Float
    total_variance: Float
    total_lent: Float
    model: NDArray[np.float32]
    baseline: NDArray[np.float32]


class Kinematic(NamedTuple):
    """What `kinematic_covariance` returns."""

    inverse: Float
    covariance: Float
    shifts: Float


class Noise(NamedTuple):
    """What is known of the noise beside its variance: ``lags`` (n_wave, k) between channels; ``modes`` (m, n_wave),
    errors that channels share, in units of the noise; both as in `skyloom.kernels.lines.fits.fit_rows`.
    """

    lags: Float
    modes: Float


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
def inverse_of(matrix: Float) -> Float:
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
    plan: Plan, data: Data, work: Work, kinematics: Float, state: State, noise: Noise
) -> Kinematic:  # fmt: skip
    """Covariance of the kinematics; leaves the active segments solved in ``work``.

    Returns
    -------
    inverse : (2 n_sets, 2 n_sets) array
        ``H^-1`` over the free kinematics.
    covariance : the same shape
        With correlated channels and shared errors.
    shifts : (m, 2 n_sets) array
        What one standard deviation of each mode does to the kinematics.
    """
    size = kinematics.size
    hessian, scatter = np.zeros((size, size)), np.zeros((size, size))
    shifts = np.zeros((noise.modes.shape[0], size))
    white = noise.lags.shape[1] == 1
    for segment in range(work.low.size):
        if work.filled[segment] == 0 or not state.active[segment]:
            continue
        shape_segment(plan, data, work, segment, kinematics, state.tied)
        solve_segment(plan, data, work, segment, state.pin)
        answer_kinematics(plan, work, segment)
        add_normal(plan, work, segment, hessian)
        if not white:
            _add_scatter(plan, data, work, segment, state, noise.lags, scatter)
        low, high = work.low[segment], work.high[segment]
        for mode in range(shifts.shape[0]):
            projected_against(plan, work, segment, noise.modes[mode, low:high], shifts[mode])
    for k in range(size):
        for j in range(size):
            if not (state.free[k] and state.free[j]):
                hessian[k, j] = 0.0
                scatter[k, j] = 0.0
    inverse = inverse_of(hessian)
    covariance = inverse.copy() if white else inverse @ scatter @ inverse
    shifts = shifts @ inverse
    covariance += shifts.T @ shifts
    return Kinematic(inverse, covariance, shifts)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def projected_against(plan: Plan, work: Work, segment: int, vector: Float, result: Float) -> None:
    """Add ``S^T`` times a vector over the channels of a segment to ``result`` (2 n_sets,)."""
    slopes_against(work, segment, vector, result)
    size = work.filled[segment] + plan.degree + 1
    against = np.empty(size)
    products_with(work.basis[segment], work.support[segment], size, vector, against)
    for k in range(result.size):
        if work.present[segment, k // 2]:
            result[k] -= dot(work.answer[segment, k, :size], against)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_scatter(
    plan: Plan, data: Data, work: Work, segment: int, state: State, lags: Float, scatter: Float
) -> None:
    """Add ``S^T R S`` of a segment, R the correlation between channels."""
    low, m, count = work.low[segment], work.high[segment] - work.low[segment], work.filled[segment]
    size = count + plan.degree + 1
    for k in range(scatter.shape[0]):
        if not work.present[segment, k // 2] or not state.free[k]:
            continue
        slope = np.zeros(m)
        for place in range(count):
            if work.groups[segment, place] == k // 2:
                row = 2 * place + k % 2
                start, stop = work.reach[segment, row]
                for i in range(start, stop):
                    slope[i] += work.linear[segment, place] * work.slopes[segment, row, i]
        add_rows(work.basis[segment], work.support[segment], size, work.answer[segment, k], -1.0, slope)
        smeared = correlate(slope, lags, low, data.root)
        projected_against(plan, work, segment, smeared, scatter[k])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def linear_results(
    plan: Plan, data: Data, work: Work, kinematics: Float, state: State, noise: Noise, errors: Kinematic,
    result: Linear, everywhere: Float, seen: Float,
) -> None:  # fmt: skip
    """Fill ``result``, and chi square and the numbers of channels and of linear unknowns in all and in active segments.

    Follows `kinematic_covariance`, which has solved the active segments.
    """
    result.flux[:], result.variance[:] = np.nan, np.nan
    result.total[:], result.total_variance[:] = np.nan, np.nan
    result.lent[:], result.total_lent[:] = np.nan, np.nan
    everywhere[:], seen[:] = 0.0, 0.0
    for segment in range(work.low.size):
        count = work.filled[segment]
        if count == 0:
            continue
        if not state.active[segment]:
            shape_segment(plan, data, work, segment, kinematics, state.tied)
            solve_segment(plan, data, work, segment, state.pin)
            answer_kinematics(plan, work, segment)
        weights = np.zeros(count + plan.degree + 1)
        for place in range(count):
            column = work.members[segment, place]
            result.flux[column] = work.linear[segment, place]
            weights[place] = 1.0
            result.variance[column], result.lent[column] = weighted_variance(
                plan, data, work, segment, state, noise, errors, weights
            )
            weights[place] = 0.0
        _add_totals(plan, data, work, segment, state, noise, errors, result)
        _count(data, work, segment, count + plan.degree + 1, everywhere)
        if state.active[segment]:
            _count(data, work, segment, count + plan.degree + 1, seen)
    _follow_ties(plan, state.tied, result)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _count(data: Data, work: Work, segment: int, size: int, sums: Float) -> None:
    """Add chi square, channels and linear unknowns of a segment."""
    low, high = work.low[segment], work.high[segment]
    sums[0] += dot(work.residual[segment, : high - low], work.residual[segment, : high - low])
    for i in range(low, high):
        sums[1] += data.root[i] > 0.0
    for place in range(size):
        sums[2] += work.factor[segment, place, place] > 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_totals(
    plan: Plan, data: Data, work: Work, segment: int, state: State, noise: Noise, errors: Kinematic, result: Linear
) -> None:  # fmt: skip
    """Sums over the components of each line that has several."""
    count = work.filled[segment]
    for place in range(count):
        column = work.members[segment, place]
        total = plan.column_total[column]
        value, members, first = 0.0, 0, True
        weights = np.zeros(count + plan.degree + 1)
        for other in range(count):
            if plan.column_total[work.members[segment, other]] == total:
                weights[other] = 1.0
                value += work.linear[segment, other]
                members += 1
                first = first and other >= place
        if not first:
            continue
        result.total[total] = value
        if members == 1:
            result.total_variance[total], result.total_lent[total] = (
                result.variance[column],
                result.lent[column],
            )
        else:
            result.total_variance[total], result.total_lent[total] = weighted_variance(
                plan, data, work, segment, state, noise, errors, weights
            )


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
        result.lent[first] = ratio**2 * result.lent[second]
        result.total_lent[here] = ratio**2 * result.total_lent[there]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def weighted_variance(
    plan: Plan, data: Data, work: Work, segment: int, state: State, noise: Noise, errors: Kinematic, weights: Float
) -> tuple[float, float]:  # fmt: skip
    """Variance of a weighted sum of linear parameters of a segment, and the part that comes through the kinematics.

    The derivation is in the module's docstring.
    """
    size, n_kinematics = weights.size, errors.covariance.shape[0]
    low, m = work.low[segment], work.high[segment] - work.low[segment]
    through = np.zeros(n_kinematics)
    known = False
    for j in range(size):
        known = known or (weights[j] != 0.0 and work.factor[segment, j, j] > 0.0)
    if not known:
        return np.nan, np.nan
    for k in range(n_kinematics):
        if work.present[segment, k // 2]:
            through[k] = dot(work.answer[segment, k, :size], weights)
    solution = weights.copy()
    solve(work.factor[segment], size, solution)
    lent = 0.0
    for k in range(n_kinematics):
        if through[k] != 0.0:
            lent += through[k] * dot(errors.covariance[k], through)
    if noise.lags.shape[1] == 1 and noise.modes.shape[0] == 0:
        return max(dot(weights, solution) + lent, 0.0), lent
    row = np.zeros(m)
    add_rows(work.basis[segment], work.support[segment], size, solution, 1.0, row)
    smeared = correlate(row, noise.lags, low, data.root)
    variance = dot(row, smeared) + lent
    if state.active[segment]:
        # Noise of this segment reaches the flux by itself and through the kinematics.
        pull = np.zeros(n_kinematics)
        projected_against(plan, work, segment, smeared, pull)
        variance -= 2.0 * dot(through, errors.inverse @ pull)
    for mode in range(noise.modes.shape[0]):
        direct = dot(row, noise.modes[mode, low : low + m])
        # The square of the second part alone is in the covariance already.
        variance += direct * direct - 2.0 * direct * dot(through, errors.shifts[mode])
    return max(variance, 0.0), lent


@numba.njit(cache=True, nogil=True, error_model="numpy")
def write_models(plan: Plan, data: Data, work: Work, kinematics: Float, result: Linear) -> None:
    """Write lines and baseline to all channels of the segments, masked ones as well."""
    for segment in range(work.low.size):
        low, high, count = work.low[segment], work.high[segment], work.filled[segment]
        if count == 0:
            continue
        lines, rest = np.zeros(high - low), np.zeros(high - low)
        whole = True
        for i in range(low, high):
            whole = whole and data.root[i] > 0.0
        if whole:
            _scaled_columns(plan, data, work, segment, lines, rest)
        else:
            _profiles_anew(plan, data, work, segment, kinematics, result.flux, lines, rest)
        for i in range(high - low):
            result.model[low + i], result.baseline[low + i] = lines[i], rest[i]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _scaled_columns(plan: Plan, data: Data, work: Work, segment: int, lines: Float, rest: Float) -> None:
    low, count = work.low[segment], work.filled[segment]
    basis, support, linear = work.basis[segment], work.support[segment], work.linear[segment]
    add_rows(basis, support, count, linear, 1.0, lines)
    add_rows(basis[count:], support[count:], plan.degree + 1, linear[count:], 1.0, rest)
    for i in range(lines.size):
        lines[i] /= data.root[low + i]
        rest[i] /= data.root[low + i]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _profiles_anew(
    plan: Plan, data: Data, work: Work, segment: int, kinematics: Float, flux: Float, lines: Float, rest: Float
) -> None:  # fmt: skip
    """Do what `_scaled_columns` does where some channels have no weight to divide by."""
    low, high, count = work.low[segment], work.high[segment], work.filled[segment]
    ones, unused = np.ones(data.root.size), np.zeros((2, high - low))
    for place in range(count):
        column, group = work.members[segment, place], work.groups[segment, place]
        for at in range(plan.first_line[column], plan.first_line[column + 1]):
            line = plan.lines_by_column[at]
            centre, sigma = line_shape(
                work.unshifted[line], work.moving[line], work.instrument[line], kinematics[2 * group],
                kinematics[2 * group + 1],
            )  # fmt: skip
            first, last = reach_of(data.edges, low, high, centre, sigma)
            factor = flux[column] * plan.ratio[line]
            add_profile(
                data.edges,
                ones,
                first,
                last,
                low,
                centre,
                sigma,
                factor,
                1.0,
                1.0,
                lines,
                unused[0],
                unused[1],
            )
    polynomials = np.zeros((plan.degree + 1, high - low))
    legendre(data.edges, ones, low, high, polynomials)
    for order in range(plan.degree + 1):
        for i in range(rest.size):
            rest[i] += work.linear[segment, count + order] * polynomials[order, i]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def legendre(edges: Float, root: Float, low: int, high: int, result: Float) -> None:
    """Fill Legendre polynomials over the channels low ... high - 1, times ``root``; ``result`` (orders, high - low)."""
    if high <= low:
        return
    middle, half = 0.5 * (edges[low] + edges[high]), 0.5 * (edges[high] - edges[low])
    for i in range(high - low):
        x = (0.5 * (edges[low + i] + edges[low + i + 1]) - middle) / half
        value, previous = 1.0, 0.0
        for order in range(result.shape[0]):
            result[order, i] = value * root[low + i]
            value, previous = ((2 * order + 1) * x * value - order * previous) / (order + 1), value
