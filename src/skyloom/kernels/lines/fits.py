"""The fit of lines to many spectra: first guess, kinematics, weak sets, bounded ratios, errors."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.bias import kinematic_bias
from skyloom.kernels.lines.errors import Linear, Noise, kinematic_covariance, linear_results, write_models
from skyloom.kernels.lines.fit_segments import minimise
from skyloom.kernels.lines.starts import (
    first_velocity,
    prepare,
    segment_channels,
    set_strengths,
    significances,
)
from skyloom.kernels.lines.types import Controls, Data, Plan, Results, State, Work, make_work

__all__ = ["Controls", "Results", "fit_rows"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]

# Bits of the flag of a set of kinematics.
BORROWED, AT_BOUND, NOT_CONVERGED, DEAD = 1, 2, 4, 8
SEEN = 0.75  # Of the significance that kinematics need; the first guess does not hit a line exactly.
LARGEST_CORRECTION = 0.5  # Of a standard deviation: beyond, an expansion to second order says nothing.


@numba.njit(cache=True, nogil=True, error_model="numpy")
def fit_rows(
    plan: Plan, controls: Controls, edges: Float, values: NDArray[np.float32], variances: NDArray[np.float32],
    mask: NDArray[np.bool_], lsf: Float, lags: Float, modes: NDArray[np.float32], scale: Float, start: Float,
    chosen: NDArray[np.bool_], first: int, last: int, results: Results,
) -> None:  # fmt: skip
    """Fit spectra first ... last - 1.

    ``values`` (n, n_wave) without their continuum; ``lsf`` (1 or n, n_wave) A; ``lags`` (n_wave, k); ``modes``
    (n, m, n_wave) shared errors in the unit of the values; ``scale`` (n,) 1 + redshift; ``start`` (n, 2 n_sets)
    kinematics; the velocity is searched around them when ``controls.search`` is not empty. ``chosen`` : (n or 0,
    n_segments) bool, the segments that determine the kinematics; with no rows, those where a line is seen.
    """
    n_wave = values.shape[1]
    flux, root, shared = np.empty(n_wave), np.empty(n_wave), np.empty((modes.shape[1], n_wave))
    work = make_work(plan, segment_channels(plan, edges, scale, first, last))
    for row in range(first, last):
        weigh(values[row], variances[row], mask[row], modes[row], flux, root, shared)
        data = Data(edges, flux, root, lsf[min(row, lsf.shape[0] - 1)], scale[row])
        _fit_row(plan, controls, data, work, Noise(lags, shared), start[row], chosen, row, results)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def weigh(
    values: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.bool_], modes: NDArray[np.float32],
    flux: Float, root: Float, shared: Float,
) -> None:  # fmt: skip
    """Bring a spectrum to units of its noise; what is masked gets no weight."""
    for i in range(values.size):
        usable = not mask[i] and variance[i] > 0.0
        root[i] = 1.0 / math.sqrt(variance[i]) if usable else 0.0
        flux[i] = values[i] * root[i] if usable else 0.0
    for mode in range(modes.shape[0]):
        for i in range(values.size):
            shared[mode, i] = modes[mode, i] * root[i] if root[i] > 0.0 else 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fit_row(
    plan: Plan, controls: Controls, data: Data, work: Work, noise: Noise, start: Float,
    chosen: NDArray[np.bool_], row: int, results: Results,
) -> None:  # fmt: skip
    kinematics = start.copy()
    prepare(plan, data, work, kinematics)
    state = first_state(plan, work)
    if controls.search.size:
        velocity = first_velocity(plan, controls, data, work, kinematics[0])
        for group in range(kinematics.size // 2):
            kinematics[2 * group] = velocity
    for k in range(kinematics.size):
        kinematics[k] = min(max(kinematics[k], plan.bounds[k, 0]), plan.bounds[k, 1])
    flags = np.zeros(kinematics.size // 2, dtype=np.int64)
    linear = Linear(
        results.flux[row], results.flux_variance[row], results.flux_lent[row], results.total[row],
        results.total_variance[row], results.total_lent[row], results.model[row], results.baseline[row],
    )  # fmt: skip
    if chosen.shape[0]:
        _restrict(work, state, chosen[row])
    else:
        _activate(plan, controls, data, work, kinematics, state, noise.lags)
    steps = 0
    sums = np.zeros(3)
    # At most three rounds: all free; weak sets borrowed; ratios at their bounds.
    for turn in range(3):
        if state.free.any():
            _, steps = minimise(plan, data, work, kinematics, state, controls.tolerance, controls.most)
        if turn == 0 and _borrow(plan, controls, data, work, kinematics, start, state, flags, noise.lags):
            continue
        errors = kinematic_covariance(plan, data, work, kinematics, state, noise)
        linear_results(plan, data, work, kinematics, state, noise, errors, linear, sums, results.seen[row])
        if turn == 2 or not _bind(plan, linear, state.tied):
            break
    write_models(plan, data, work, kinematics, linear)
    _flag(plan, work, kinematics, state, steps < 0, flags)
    bias = kinematic_bias(plan, data, work, kinematics, state, errors)
    for group in range(flags.size):
        for k in range(2):
            own, used = 2 * group + k, 2 * state.donor[group] + k
            known = state.free[used] and errors.covariance[used, used] > 0.0
            variance = errors.covariance[used, used] if known else np.nan
            results.kinematics[row, own] = kinematics[used]
            results.kinematic_variance[row, own] = variance
            if known and flags[group] & AT_BOUND == 0:
                results.kinematics[row, own] -= limited(bias[used], variance)
    _correct_fluxes(plan, work, state, linear)
    results.set_flags[row] = flags
    results.tied[row] = state.tied
    results.donor[row], results.active[row] = state.donor, state.active
    results.chi2[row], results.n_used[row] = sums[0], sums[1]
    results.n_unknown[row] = sums[2] + state.free.sum()
    results.seen[row, 2] += state.free.sum()


@numba.njit(cache=True, nogil=True, error_model="numpy")
def limited(bias: float, variance: float) -> float:
    """Return the bias, or the largest part of an error that may be taken for one."""
    most = LARGEST_CORRECTION * math.sqrt(variance)
    return min(max(bias, -most), most)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _correct_fluxes(plan: Plan, work: Work, state: State, linear: Linear) -> None:
    """Take the bias off fluxes and totals."""
    for segment in range(work.low.size):
        if not state.active[segment]:
            continue
        for place in range(work.filled[segment]):
            column = work.members[segment, place]
            total = plan.column_total[column]
            if linear.variance[column] > 0.0 and linear.total_variance[total] > 0.0:
                linear.flux[column] -= limited(work.bias[segment, place], linear.variance[column])
                linear.total[total] -= limited(work.bias[segment, place], linear.total_variance[total])
    for pair in range(plan.pairs.shape[0]):
        if not np.isnan(state.tied[pair]):
            first, second = plan.pairs[pair, 0], plan.pairs[pair, 1]
            here, there = plan.column_total[first], plan.column_total[second]
            linear.flux[first] = state.tied[pair] * linear.flux[second]
            linear.total[here] = state.tied[pair] * linear.total[there]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def first_state(plan: Plan, work: Work) -> State:
    """All that is covered is free, and every segment counts."""
    n_sets = plan.bounds.shape[0] // 2
    free = np.zeros(2 * n_sets, dtype=np.bool_)
    for group in range(n_sets):
        known = work.present[:, group].any()
        free[2 * group], free[2 * group + 1] = known, known
    return State(
        np.ones(work.low.size, dtype=np.bool_), free, np.arange(n_sets), np.full(plan.pairs.shape[0], np.nan),
        np.zeros(3),
    )  # fmt: skip


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _restrict(work: Work, state: State, chosen: NDArray[np.bool_]) -> None:
    """Leave the kinematics to some segments, if any."""
    if not chosen.any():
        return
    state.active[:] = chosen
    for group in range(state.donor.size):
        known = (work.present[:, group] & chosen).any()
        state.free[2 * group], state.free[2 * group + 1] = known, known


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _activate(
    plan: Plan, controls: Controls, data: Data, work: Work, kinematics: Float, state: State, lags: Float
) -> None:
    """Leave the kinematics to segments and sets where a line is seen at the first guess; to all, where none is.

    A segment of noise says nothing about velocities and would cost as much as one that does, and a set that is not
    seen would wander about.
    """
    significance = significances(plan, controls, data, work, kinematics, state, lags)
    segments, sets = np.zeros(state.active.size, dtype=np.bool_), np.zeros(state.donor.size, dtype=np.bool_)
    for segment in range(segments.size):
        for place in range(work.filled[segment]):
            column = work.members[segment, place]
            if significance[column] > SEEN * controls.weak:
                segments[segment], sets[plan.column_set[column]] = True, True
    if not segments.any():
        return
    state.active[:] = segments
    for group in range(sets.size):
        state.free[2 * group], state.free[2 * group + 1] = sets[group], sets[group]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _borrow(
    plan: Plan, controls: Controls, data: Data, work: Work, kinematics: Float, start: Float, state: State,
    flags: NDArray[np.int64], lags: Float,
) -> bool:  # fmt: skip
    """Give sets without a significant line the kinematics of the strongest set; whether any was given some."""
    n_sets = flags.size
    strength = set_strengths(plan, significances(plan, controls, data, work, kinematics, state, lags), n_sets)
    strongest = int(np.argmax(strength))
    found = strength[strongest] >= controls.weak
    changed = False
    for group in range(n_sets):
        if strength[group] >= controls.weak:
            # Seen at last, with the velocity of the others.
            changed = changed or not state.free[2 * group]
            state.free[2 * group], state.free[2 * group + 1] = True, True
            continue
        if not work.present[:, group].any():
            continue
        flags[group] |= BORROWED
        changed = True
        if found and not controls.alone[group]:
            state.donor[group] = strongest
        for k in range(2):
            own = 2 * group + k
            state.free[own] = False
            bounds = plan.bounds[own]
            kinematics[own] = min(max(start[own], bounds[0]), bounds[1])
    if changed:
        follow_donors(plan, work, state.donor)
    return changed


@numba.njit(cache=True, nogil=True, error_model="numpy")
def follow_donors(plan: Plan, work: Work, donor: Int) -> None:
    """Give each column the set whose kinematics it has."""
    work.present[:] = False
    for segment in range(work.low.size):
        for place in range(work.filled[segment]):
            group = donor[plan.column_set[work.members[segment, place]]]
            work.present[segment, group] = True
            work.groups[segment, place] = group


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _flag(
    plan: Plan, work: Work, kinematics: Float, state: State, unfinished: bool, flags: NDArray[np.int64]
) -> None:
    for group in range(flags.size):
        used = state.donor[group]
        if unfinished:
            flags[group] |= NOT_CONVERGED
        if not work.present[:, used].any():
            flags[group] |= DEAD
        for k in (2 * used, 2 * used + 1):
            if state.free[k] and (kinematics[k] <= plan.bounds[k, 0] or kinematics[k] >= plan.bounds[k, 1]):
                flags[group] |= AT_BOUND


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _bind(plan: Plan, linear: Linear, tied: Float) -> bool:
    """Fix ratios that came out beyond their bounds, where the two lines together are significant."""
    changed = False
    for pair in range(plan.pairs.shape[0]):
        first, second = plan.pairs[pair, 0], plan.pairs[pair, 1]
        total = linear.flux[first] + linear.flux[second]
        noise = math.sqrt(linear.variance[first] + linear.variance[second])
        if not (total > 3.0 * noise) or not np.isnan(tied[pair]):
            continue
        low, high = plan.pair_range[pair]
        if linear.flux[first] < low * linear.flux[second]:
            tied[pair], changed = low, True
        elif linear.flux[first] > high * linear.flux[second]:
            tied[pair], changed = high, True
    return changed
