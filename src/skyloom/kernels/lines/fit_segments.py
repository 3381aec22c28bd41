"""Gaussian lines in many spectra: shared kinematics by Levenberg-Marquardt, fluxes and baselines by linear algebra.

The model of a spectrum is a sum of *columns*, each one or several lines of fixed flux ratio, and of one polynomial per
*segment* of the wavelength axis. Columns belong to *kinematic sets*: all lines of a set share the velocity v (km/s)
and the intrinsic variance q (km2/s2, which noise may make negative). Fluxes and polynomials are linear: for given
kinematics they are solved exactly, segment by segment, and what is left depends on the kinematics alone (variable
projection: Golub & Pereyra 1973, 10.1137/0710036, with the Jacobian of Kaufman 1975, 10.1007/BF01932995).

Nothing here ever forms the projected Jacobian ``S = D - B X``: with ``X = (B^T B)^-1 B^T D`` its products follow from
those of ``B`` and ``D``, which are sums over the few channels that a line reaches.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.profiles import (
    add_profile,
    add_rows,
    dot,
    factorise,
    products,
    products_with,
    reach_of,
    solve,
)
from skyloom.kernels.lines.types import LEAST_SIGMA, Data, Plan, State, Work

Float = NDArray[np.float64]
Int = NDArray[np.int64]

LARGEST_DAMPING = 1e8


@numba.njit(cache=True, nogil=True, error_model="numpy")
def line_shape(
    unshifted: float, moving: float, instrument: float, velocity: float, variance: float
) -> tuple[float, float]:  # fmt: skip
    """Centre and standard deviation of a line in A; what goes in is described in `skyloom.kernels.lines.types.Work`."""
    sigma = math.sqrt(max(instrument + variance * moving * moving, LEAST_SIGMA**2))
    return unshifted + moving * velocity, sigma


@numba.njit(cache=True, nogil=True, error_model="numpy")
def shape_segment(plan: Plan, data: Data, work: Work, segment: int, kinematics: Float, tied: Float) -> None:
    """Fill the columns of a segment, and their derivatives, for given kinematics; all are in units of the noise."""
    low, high = work.low[segment], work.high[segment]
    basis, slopes, support, reach = (
        work.basis[segment], work.slopes[segment], work.support[segment], work.reach[segment],
    )  # fmt: skip
    for place in range(work.filled[segment]):
        by_flux, by_velocity, by_variance = basis[place], slopes[2 * place], slopes[2 * place + 1]
        by_flux[support[place, 0] : support[place, 1]] = 0.0
        by_velocity[support[place, 0] : support[place, 1]] = 0.0
        by_variance[support[place, 0] : support[place, 1]] = 0.0
        column, group = work.members[segment, place], work.groups[segment, place]
        start, stop = high, low
        for at in range(plan.first_line[column], plan.first_line[column + 1]):
            line = plan.lines_by_column[at]
            moving = work.moving[line]
            centre, sigma = line_shape(
                work.unshifted[line],
                moving,
                work.instrument[line],
                kinematics[2 * group],
                kinematics[2 * group + 1],
            )
            first, last = reach_of(data.edges, low, high, centre, sigma)
            add_profile(
                data.edges, data.root, first, last, low, centre, sigma, plan.ratio[line], moving, moving * moving,
                by_flux, by_velocity, by_variance,
            )  # fmt: skip
            start, stop = min(start, first), max(stop, last)
        set_range(support, reach, place, start - low, max(start, stop) - low)
    if plan.pairs.shape[0]:
        tie(plan, work, segment, tied, basis, slopes)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def set_range(support: Int, reach: Int, place: int, start: int, stop: int) -> None:
    """Say where a column and its derivatives are not 0."""
    support[place, 0], support[place, 1] = start, stop
    for row in (2 * place, 2 * place + 1):
        reach[row, 0], reach[row, 1] = start, stop


@numba.njit(cache=True, nogil=True, error_model="numpy")
def tie(plan: Plan, work: Work, segment: int, tied: Float, basis: Float, slopes: Float) -> None:
    """Join the two columns of a pair at a fixed ratio: the second carries both, the first is emptied."""
    for pair in range(plan.pairs.shape[0]):
        if math.isnan(tied[pair]) or plan.pair_segment[pair] != segment:
            continue
        first, second = -1, -1
        for place in range(work.filled[segment]):
            if work.members[segment, place] == plan.pairs[pair, 0]:
                first = place
            if work.members[segment, place] == plan.pairs[pair, 1]:
                second = place
        if first < 0 or second < 0:
            continue
        support = work.support[segment]
        start, stop = support[first, 0], support[first, 1]
        for i in range(start, stop):
            basis[second, i] += tied[pair] * basis[first, i]
            basis[first, i] = 0.0
            for k in range(2):
                slopes[2 * second + k, i] += tied[pair] * slopes[2 * first + k, i]
                slopes[2 * first + k, i] = 0.0
        if start < stop:
            start, stop = min(support[second, 0], start), max(support[second, 1], stop)
            set_range(support, work.reach[segment], second, start, stop)
        set_range(support, work.reach[segment], first, 0, 0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def solve_segment(plan: Plan, data: Data, work: Work, segment: int, pin: Float) -> float:
    """Solve for the linear parameters of a segment; leaves factor, solution and residual, returns chi square."""
    low, high = work.low[segment], work.high[segment]
    size = work.filled[segment] + plan.degree + 1
    basis, support = work.basis[segment], work.support[segment]
    factor, linear, residual = work.factor[segment], work.linear[segment], work.residual[segment]
    flux = data.flux[low:high]
    products(basis, support, size, basis, support, size, factor)
    products_with(basis, support, size, flux, linear)
    pinned = pin[2] > 0.0 and _pin(plan, work, segment, pin)
    factorise(factor, size)
    solve(factor, size, linear)
    residual[: high - low] = flux
    add_rows(basis, support, size, linear, -1.0, residual)
    chi2 = dot(residual[: high - low], residual[: high - low])
    if pinned:
        away = -pin[1]
        for place in range(work.filled[segment]):
            if plan.column_total[work.members[segment, place]] == pin[0]:
                away += linear[place]
        chi2 += away * away * pin[2]
    return chi2


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _pin(plan: Plan, work: Work, segment: int, pin: Float) -> bool:
    """Add the one measurement "this total has that flux" to the equations of a segment."""
    factor, linear, found = work.factor[segment], work.linear[segment], False
    for place in range(work.filled[segment]):
        if plan.column_total[work.members[segment, place]] != pin[0]:
            continue
        found = True
        linear[place] += pin[1] * pin[2]
        for other in range(work.filled[segment]):
            if plan.column_total[work.members[segment, other]] == pin[0]:
                factor[place, other] += pin[2]
    return found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def answer_kinematics(plan: Plan, work: Work, segment: int) -> None:
    """Work out ``B^T D`` and ``X = (B^T B)^-1 B^T D`` of a solved segment: how linear parameters answer to kinematics.

    ``D`` are the derivatives of the model by the kinematics.
    """
    count, size = work.filled[segment], work.filled[segment] + plan.degree + 1
    back, answer, cross, groups = work.back[segment], work.answer[segment], work.cross, work.groups[segment]
    linear, factor, present = work.linear[segment], work.factor[segment], work.present[segment]
    products(
        work.basis[segment],
        work.support[segment],
        size,
        work.slopes[segment],
        work.reach[segment],
        2 * count,
        cross,
    )
    for group in range(present.size):
        if present[group]:
            back[2 * group : 2 * group + 2, :size] = 0.0
    for place in range(count):
        for k in range(2):
            for i in range(size):
                back[2 * groups[place] + k, i] += linear[place] * cross[i, 2 * place + k]
    for group in range(present.size):
        if present[group]:
            for k in (2 * group, 2 * group + 1):
                for i in range(size):
                    answer[k, i] = back[k, i]
                solve(factor, size, answer[k])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def slopes_against(work: Work, segment: int, vector: Float, result: Float) -> None:
    """Add ``D^T`` times a vector over the channels of a segment to ``result`` (2 n_sets,)."""
    count, line = work.filled[segment], work.line
    products_with(work.slopes[segment], work.reach[segment], 2 * count, vector, line)
    for place in range(count):
        group, value = work.groups[segment, place], work.linear[segment, place]
        result[2 * group] += value * line[2 * place]
        result[2 * group + 1] += value * line[2 * place + 1]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_normal(plan: Plan, work: Work, segment: int, hessian: Float) -> None:
    """Add ``S^T S = D^T D - (B^T D)^T X`` of a segment to ``hessian``."""
    count, size = work.filled[segment], work.filled[segment] + plan.degree + 1
    slopes, reach, square, linear = (
        work.slopes[segment],
        work.reach[segment],
        work.square,
        work.linear[segment],
    )
    back, answer, groups, present = (
        work.back[segment], work.answer[segment], work.groups[segment], work.present[segment],
    )  # fmt: skip
    products(slopes, reach, 2 * count, slopes, reach, 2 * count, square)
    for i in range(2 * count):
        for j in range(2 * count):
            value = linear[i // 2] * linear[j // 2] * square[i, j]
            hessian[2 * groups[i // 2] + i % 2, 2 * groups[j // 2] + j % 2] += value
    for k in range(hessian.shape[0]):
        if not present[k // 2]:
            continue
        for j in range(hessian.shape[0]):
            if present[j // 2]:
                for i in range(size):
                    hessian[k, j] -= back[k, i] * answer[j, i]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def evaluate(
    plan: Plan, data: Data, work: Work, kinematics: Float, state: State, hessian: Float, gradient: Float
) -> float:  # fmt: skip
    """Chi square at the best linear parameters; fills the Gauss-Newton matrix and the gradient by the kinematics."""
    hessian[:] = 0.0
    gradient[:] = 0.0
    chi2 = 0.0
    for segment in range(work.low.size):
        if work.filled[segment] == 0 or not state.active[segment]:
            continue
        shape_segment(plan, data, work, segment, kinematics, state.tied)
        chi2 += solve_segment(plan, data, work, segment, state.pin)
        answer_kinematics(plan, work, segment)
        slopes_against(work, segment, work.residual[segment], gradient)
        add_normal(plan, work, segment, hessian)
    return chi2


@numba.njit(cache=True, nogil=True, error_model="numpy")
def minimise(
    plan: Plan, data: Data, work: Work, kinematics: Float, state: State, tolerance: float, most: int
) -> tuple[float, int]:  # fmt: skip
    """Levenberg-Marquardt over the free kinematics, in place; chi square, and the number of steps (-1: too many)."""
    size = kinematics.size
    hessian, gradient = np.zeros((size, size)), np.zeros(size)
    new_hessian, new_gradient = np.zeros((size, size)), np.zeros(size)
    matrix, change, trial = np.zeros((size, size)), np.zeros(size), kinematics.copy()
    moves = np.zeros(size, dtype=np.bool_)
    chi2 = evaluate(plan, data, work, kinematics, state, hessian, gradient)
    damping = 1e-3
    for count in range(most):
        expected = 0.0
        for k in range(size):
            outward = gradient[k] > 0.0 and kinematics[k] >= plan.bounds[k, 1]
            outward = outward or (gradient[k] < 0.0 and kinematics[k] <= plan.bounds[k, 0])
            moves[k] = state.free[k] and not outward
        for k in range(size):
            change[k] = gradient[k] if moves[k] else 0.0
            for j in range(size):
                matrix[k, j] = hessian[k, j] if moves[k] and moves[j] else 0.0
            matrix[k, k] = matrix[k, k] * (1.0 + damping) if moves[k] else 1.0
        factorise(matrix, size)
        solve(matrix, size, change)
        for k in range(size):
            expected += gradient[k] * change[k]
            if moves[k]:
                trial[k] = min(max(kinematics[k] + change[k], plan.bounds[k, 0]), plan.bounds[k, 1])
        if expected < 0.1 * tolerance and damping < 1.0:
            return chi2, count
        new = evaluate(plan, data, work, trial, state, new_hessian, new_gradient)
        if new <= chi2:
            gain = chi2 - new
            chi2 = new
            kinematics[:] = trial
            hessian[:] = new_hessian
            gradient[:] = new_gradient
            if gain < tolerance and damping < 1.0:
                return chi2, count + 1
            damping = max(0.1 * damping, 1e-9)
        else:
            damping *= 10.0
            if damping > LARGEST_DAMPING:
                return chi2, count + 1
    return chi2, -1
