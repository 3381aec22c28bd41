"""Intervals from the profile of chi square: how far a parameter moves, all others refitted, before chi square rises.

For noise that is independent from channel to channel the interval of 68.27 % ends where chi square has risen by 1.
With correlated channels it ends where it has risen by the ratio of the variance of the full covariance to that of
independent noise, so that both agree where the profile is a parabola (Chandler & Bate 2007, 10.1093/biomet/asm015).
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.errors import Kinematic, Linear, Noise, kinematic_covariance, linear_results
from skyloom.kernels.lines.fit_segments import minimise
from skyloom.kernels.lines.fits import first_state, follow_donors, weigh
from skyloom.kernels.lines.starts import prepare, segment_channels
from skyloom.kernels.lines.types import Controls, Data, Plan, Results, State, Work, make_work

__all__ = ["profile_rows"]

Float = NDArray[np.float64]
TRIALS = 14
CLOSE = 0.01  # Of the rise of chi square that is looked for.
STIFF = 1e6  # Weight of a pinned total over that of its measurement.


@numba.njit(cache=True, nogil=True, error_model="numpy")
def profile_rows(
    plan: Plan, controls: Controls, edges: Float, values: NDArray[np.float32], variances: NDArray[np.float32],
    mask: NDArray[np.bool_], lsf: Float, lags: Float, modes: NDArray[np.float32], scale: Float, results: Results,
    first: int, last: int, kinematic_ends: Float, total_ends: Float,
) -> None:  # fmt: skip
    """Fill the ends of the intervals of spectra first ... last - 1 that ``results`` has the fits of.

    ``kinematic_ends`` : (n, 2 n_sets, 2) distances down and up from the minimum of chi square, NaN where the set was
    not free; ``total_ends`` : (n, n_totals, 2). Other arguments as for `skyloom.kernels.lines.fits.fit_rows`.
    """
    n_wave = values.shape[1]
    flux, root, shared = np.empty(n_wave), np.empty(n_wave), np.empty((modes.shape[1], n_wave))
    work = make_work(plan, segment_channels(plan, edges, scale, first, last))
    model, baseline = np.zeros(n_wave, dtype=np.float32), np.zeros(n_wave, dtype=np.float32)
    for row in range(first, last):
        weigh(values[row], variances[row], mask[row], modes[row], flux, root, shared)
        data = Data(edges, flux, root, lsf[min(row, lsf.shape[0] - 1)], scale[row])
        kinematics = results.kinematics[row].copy()
        for k in range(kinematics.size):
            kinematics[k] = min(max(kinematics[k], plan.bounds[k, 0]), plan.bounds[k, 1])
        prepare(plan, data, work, kinematics)
        state = _state_of(plan, work, results, row)
        linear = Linear(
            np.empty(plan.column_set.size), np.empty(plan.column_set.size), np.empty(plan.column_set.size),
            np.empty(total_ends.shape[1]), np.empty(total_ends.shape[1]), np.empty(total_ends.shape[1]), model,
            baseline,
        )  # fmt: skip
        _profile_row(
            plan, controls, data, work, Noise(lags, shared), kinematics, state, linear, kinematic_ends[row],
            total_ends[row],
        )  # fmt: skip


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _state_of(plan: Plan, work: Work, results: Results, row: int) -> State:
    """What took part in the fit of a spectrum."""
    state = first_state(plan, work)
    state.active[:], state.donor[:], state.tied[:] = (
        results.active[row],
        results.donor[row],
        results.tied[row],
    )
    for group in range(state.donor.size):
        own = state.donor[group] == group
        for k in (2 * group, 2 * group + 1):
            state.free[k] = own and np.isfinite(results.kinematic_variance[row, k])
    follow_donors(plan, work, state.donor)
    return state


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _profile_row(
    plan: Plan, controls: Controls, data: Data, work: Work, noise: Noise, kinematics: Float, state: State,
    linear: Linear, kinematic_ends: Float, total_ends: Float,
) -> None:  # fmt: skip
    kinematic_ends[:], total_ends[:] = np.nan, np.nan
    if state.free.any():
        minimise(plan, data, work, kinematics, state, 1e-3 * controls.tolerance, controls.most)
    errors = kinematic_covariance(plan, data, work, kinematics, state, noise)
    sums, seen = np.zeros(3), np.zeros(3)
    white = Noise(np.ones((data.root.size, 1)), np.zeros((0, data.root.size)))
    plain = Kinematic(errors.inverse, errors.inverse, errors.shifts)
    linear_results(plan, data, work, kinematics, state, white, plain, linear, sums, seen)
    plain_variance = linear.total_variance.copy()
    linear_results(plan, data, work, kinematics, state, noise, errors, linear, sums, seen)
    for k in range(kinematics.size):
        if not state.free[k] or not errors.inverse[k, k] > 0.0:
            continue
        rise = errors.covariance[k, k] / errors.inverse[k, k]
        for side in range(2):
            kinematic_ends[k, side] = _end(
                plan, controls, data, work, kinematics, state, k, -1, kinematics[k], 2.0 * side - 1.0,
                math.sqrt(errors.covariance[k, k]), seen[0], rise,
            )  # fmt: skip
    for total in range(total_ends.shape[0]):
        if not linear.total_variance[total] > 0.0:
            continue
        error = math.sqrt(linear.total_variance[total])
        rise = linear.total_variance[total] / plain_variance[total]
        for side in range(2):
            total_ends[total, side] = error
            if state.free.any() and _is_active(plan, work, state, total):
                total_ends[total, side] = _end(
                    plan, controls, data, work, kinematics, state, -1, total, linear.total[total],
                    2.0 * side - 1.0, error, seen[0], rise,
                )  # fmt: skip


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _is_active(plan: Plan, work: Work, state: State, total: int) -> bool:
    """Whether a total is in a segment that takes part, and no ratio holds it."""
    for pair in range(plan.pairs.shape[0]):
        if not np.isnan(state.tied[pair]) and plan.column_total[plan.pairs[pair, 0]] == total:
            return False
    for segment in range(work.low.size):
        for place in range(work.filled[segment]):
            if state.active[segment] and plan.column_total[work.members[segment, place]] == total:
                return True
    return False


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _end(
    plan: Plan, controls: Controls, data: Data, work: Work, kinematics: Float, state: State, fixed: int, pinned: int,
    centre: float, direction: float, error: float, lowest: float, rise: float,
) -> float:  # fmt: skip
    """Distance from ``centre`` at which chi square has risen; a bound of the kinematics ends the search."""
    trial = kinematics.copy()
    inner, outer, distance = 0.0, np.inf, error
    for _ in range(TRIALS):
        trial[:] = kinematics
        if fixed >= 0:
            edge = plan.bounds[fixed, 1 if direction > 0.0 else 0]
            distance = min(distance, abs(edge - centre))
            trial[fixed] = centre + direction * distance
            state.free[fixed] = False
        else:
            state.pin[0], state.pin[1] = float(pinned), centre + direction * distance
            state.pin[2] = STIFF * rise / error**2
        chi2, _steps = minimise(plan, data, work, trial, state, 0.1 * controls.tolerance, controls.most)
        if fixed >= 0:
            state.free[fixed] = True
        state.pin[2] = 0.0
        above = max(chi2 - lowest, 1e-3 * rise)
        if abs(above - rise) < CLOSE * rise:
            break
        if fixed >= 0 and above < rise and distance == abs(edge - centre):
            break
        if above < rise:
            inner = distance
        else:
            outer = distance
        distance *= min(max(math.sqrt(rise / above), 0.4), 2.5)
        if not inner < distance < outer:
            distance = 0.5 * (inner + outer)
    return distance
