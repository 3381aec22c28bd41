"""What the curvature of the model does to the mean of its parameters, to second order.

Least squares is biased where the model bends within the error of its parameters. With derivatives ``F`` of the model
by all parameters, their covariance ``C`` and the second derivatives ``G_ij`` of the model, all in units of the noise,
the bias is ``-1/2 (F^T F)^-1 F^T m`` with ``m = sum_ij C_ij G_ij`` (Box 1971, 10.1111/j.2517-6161.1971.tb00871.x). The
curvature between two fluxes is 0, that between a flux and the kinematics is a first derivative of the profile, and
the covariance of fluxes and kinematics is ``-X C`` as far as the noise of the channels is independent.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.errors import Kinematic, projected_against
from skyloom.kernels.lines.fit_segments import line_shape
from skyloom.kernels.lines.profiles import add_curvature, products_with, reach_of, solve
from skyloom.kernels.lines.types import Data, Plan, State, Work

Float = NDArray[np.float64]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def kinematic_bias(
    plan: Plan, data: Data, work: Work, kinematics: Float, state: State, errors: Kinematic
) -> Float:
    """(2 n_sets,) bias of the kinematics; leaves that of the fluxes in ``work.bias``."""
    pull = np.zeros(kinematics.size)
    work.bias[:] = 0.0
    for segment in range(work.low.size):
        if work.filled[segment] == 0 or not state.active[segment]:
            continue
        _curvature(plan, data, work, segment, kinematics, state, errors.covariance)
        m = work.high[segment] - work.low[segment]
        projected_against(plan, work, segment, work.curvature[segment, :m], pull)
    bias = -0.5 * (errors.inverse @ pull)
    for segment in range(work.low.size):
        if work.filled[segment] == 0 or not state.active[segment]:
            continue
        size = work.filled[segment] + plan.degree + 1
        products_with(
            work.basis[segment], work.support[segment], size, work.curvature[segment], work.bias[segment]
        )
        solve(work.factor[segment], size, work.bias[segment])
        for i in range(size):
            work.bias[segment, i] *= -0.5
            for k in range(bias.size):
                if work.present[segment, k // 2]:
                    work.bias[segment, i] -= work.answer[segment, k, i] * bias[k]
    return bias


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _curvature(
    plan: Plan, data: Data, work: Work, segment: int, kinematics: Float, state: State, covariance: Float
) -> None:
    """Fill ``work.curvature`` with m of the module's docstring."""
    curvature = work.curvature[segment]
    curvature[: work.high[segment] - work.low[segment]] = 0.0
    _second_derivatives(plan, data, work, segment, kinematics, state.tied)
    for place in range(work.filled[segment]):
        group = work.groups[segment, place]
        start, stop = work.support[segment, place]
        if start >= stop or not state.free[2 * group]:
            continue
        slopes, bends = work.slopes[segment], work.bends[segment]
        v, q = 2 * group, 2 * group + 1
        value, with_v, with_q = work.linear[segment, place], 0.0, 0.0
        for k in range(covariance.shape[0]):
            if work.present[segment, k // 2]:
                with_v += covariance[v, k] * work.answer[segment, k, place]
                with_q += covariance[q, k] * work.answer[segment, k, place]
        for i in range(start, stop):
            by_q = slopes[2 * place + 1, i]
            bend = 2.0 * covariance[v, v] * by_q + 2.0 * covariance[v, q] * bends[2 * place, i]
            bend += covariance[q, q] * bends[2 * place + 1, i]
            curvature[i] += value * bend
            curvature[i] -= 2.0 * (with_v * slopes[2 * place, i] + with_q * by_q)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _second_derivatives(
    plan: Plan, data: Data, work: Work, segment: int, kinematics: Float, tied: Float
) -> None:
    low, high = work.low[segment], work.high[segment]
    bends = work.bends[segment]
    for place in range(work.filled[segment]):
        column, group = work.members[segment, place], work.groups[segment, place]
        bends[2 * place : 2 * place + 2, : high - low] = 0.0
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
            add_curvature(
                data.edges, data.root, first, last, low, centre, sigma, plan.ratio[line], moving, moving * moving,
                bends[2 * place], bends[2 * place + 1],
            )  # fmt: skip
    for pair in range(plan.pairs.shape[0]):
        if np.isnan(tied[pair]) or plan.pair_segment[pair] != segment:
            continue
        # As for the columns themselves: the second carries both.
        first, second = -1, -1
        for place in range(work.filled[segment]):
            first = place if work.members[segment, place] == plan.pairs[pair, 0] else first
            second = place if work.members[segment, place] == plan.pairs[pair, 1] else second
        if first >= 0 and second >= 0:
            bends[2 * second : 2 * second + 2] += tied[pair] * bends[2 * first : 2 * first + 2]
