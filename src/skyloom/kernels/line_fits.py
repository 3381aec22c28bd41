"""The fit of lines to many spectra: first guess, kinematics, weak sets, bounded ratios, errors."""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.line_errors import Kinematic, Linear, kinematic_covariance, linear_results
from skyloom.kernels.line_profiles import line_shape
from skyloom.kernels.lines import Data, Plan, State, channel_range, minimise

Float = NDArray[np.float64]

# Bits of the flag of a set of kinematics.
BORROWED, AT_BOUND, NOT_CONVERGED, DEAD = 1, 2, 4, 8
SEEN = 0.75  # Of the significance that kinematics need; the first guess does not hit a line exactly.
LEAST_COVERAGE = 0.6  # Share of a profile that must fall on usable channels.


class Controls(NamedTuple):
    """How the fit proceeds.

    ``search`` : (n_velocities,) km/s, tried as first guess; ``start_variance`` : km2/s2; ``anchors`` : (n_columns,)
    bool, columns that the first guess looks at; ``absorbing`` : (n_columns,) bool, columns that usually are negative;
    ``weak`` : significance below which a set borrows the kinematics of the strongest one; ``tolerance`` : of chi
    square; ``most`` : steps.
    """

    search: Float
    start_variance: float
    anchors: NDArray[np.bool_]
    absorbing: NDArray[np.bool_]
    weak: float
    tolerance: float
    most: int


class Results(NamedTuple):
    """Arrays that are filled, one row per spectrum."""

    kinematics: Float
    kinematic_variance: Float
    flux: Float
    flux_variance: Float
    total: Float
    total_variance: Float
    set_flags: NDArray[np.int64]
    tied: Float
    chi2: Float
    n_used: NDArray[np.int64]
    n_unknown: NDArray[np.int64]
    model: NDArray[np.float32]
    baseline: NDArray[np.float32]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def fit_rows(
    plan: Plan, controls: Controls, edges: Float, values: NDArray[np.float32], variances: NDArray[np.float32],
    mask: NDArray[np.bool_], lsf: Float, lags: Float, modes: NDArray[np.float32], scale: Float, start: Float,
    guessed: bool, first: int, last: int, results: Results,
) -> None:  # fmt: skip
    """Fit spectra first ... last - 1.

    ``values`` (n, n_wave) without their continuum; ``lsf`` (1 or n, n_wave) A; ``lags`` (n_wave, k); ``modes``
    (n, m, n_wave) shared errors in the unit of the values; ``scale`` (n,) 1 + redshift; ``start`` (n, 2 n_sets)
    kinematics, used as they are when ``guessed``, otherwise their velocity is searched around.
    """
    n_wave = values.shape[1]
    flux, root = np.empty(n_wave), np.empty(n_wave)
    for row in range(first, last):
        for i in range(n_wave):
            usable = not mask[row, i] and variances[row, i] > 0.0
            root[i] = 1.0 / math.sqrt(variances[row, i]) if usable else 0.0
            flux[i] = values[row, i] * root[i] if usable else 0.0
        shared = np.empty((modes.shape[1], n_wave))
        for mode in range(modes.shape[1]):
            for i in range(n_wave):
                shared[mode, i] = modes[row, mode, i] * root[i] if root[i] > 0.0 else 0.0
        data = Data(edges, flux, root, lsf[min(row, lsf.shape[0] - 1)], scale[row])
        _fit_row(plan, controls, data, lags, shared, start[row], guessed, row, results)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fit_row(
    plan: Plan, controls: Controls, data: Data, lags: Float, modes: Float, start: Float, guessed: bool, row: int,
    results: Results,
) -> None:  # fmt: skip
    kinematics = start.copy()
    state = first_state(plan, data, kinematics)
    if not guessed:
        velocity = first_velocity(plan, controls, data, kinematics, state.alive)
        for group in range(kinematics.size // 2):
            kinematics[2 * group] = min(max(velocity, plan.bounds[2 * group, 0]), plan.bounds[2 * group, 1])
    flags = np.zeros(kinematics.size // 2, dtype=np.int64)
    linear = empty_linear(plan, data.root.size)
    activate(plan, controls, data, kinematics, state, lags)
    # At most three rounds: all free; weak sets borrowed; ratios at their bounds.
    for turn in range(3):
        _, steps = minimise(plan, data, kinematics, state, controls.tolerance, controls.most)
        if turn == 0 and _borrow(plan, controls, data, kinematics, start, state, flags, lags):
            continue
        errors = kinematic_covariance(plan, data, kinematics, state, lags, modes)
        chi2, n_used, n_linear = linear_results(plan, data, kinematics, state, lags, modes, errors, linear)
        if turn == 2 or not _bind(plan, linear, state.tied):
            break
    _flag(plan, kinematics, state.free, steps < 0, flags)
    for k in range(kinematics.size):
        results.kinematics[row, k] = kinematics[k]
        results.kinematic_variance[row, k] = errors.covariance[k, k] if state.free[k] else np.nan
    results.flux[row], results.flux_variance[row] = linear.flux, linear.variance
    results.total[row], results.total_variance[row] = linear.total, linear.total_variance
    results.set_flags[row] = flags
    results.tied[row] = state.tied
    results.chi2[row] = chi2
    results.n_used[row] = n_used
    results.n_unknown[row] = n_linear + state.free.sum()
    results.model[row] = linear.model
    results.baseline[row] = linear.baseline


@numba.njit(cache=True, nogil=True, error_model="numpy")
def empty_linear(plan: Plan, n_wave: int) -> Linear:
    """Room for the linear results of one spectrum."""
    n_columns = plan.column_set.size
    n_totals = plan.column_total.max() + 1 if n_columns else 0
    return Linear(
        np.empty(n_columns), np.empty(n_columns), np.empty(n_totals), np.empty(n_totals), np.empty(n_wave),
        np.empty(n_wave),
    )  # fmt: skip


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _flag(
    plan: Plan, kinematics: Float, free: NDArray[np.bool_], unfinished: bool, flags: NDArray[np.int64]
) -> None:
    for group in range(flags.size):
        if unfinished:
            flags[group] |= NOT_CONVERGED
        if not free[2 * group] and flags[group] & BORROWED == 0:
            flags[group] |= DEAD
        for k in (2 * group, 2 * group + 1):
            if free[k] and (kinematics[k] <= plan.bounds[k, 0] or kinematics[k] >= plan.bounds[k, 1]):
                flags[group] |= AT_BOUND


@numba.njit(cache=True, nogil=True, error_model="numpy")
def covered(plan: Plan, data: Data, kinematics: Float) -> NDArray[np.bool_]:
    """Which columns have their lines on usable channels."""
    alive = np.zeros(plan.column_set.size, dtype=np.bool_)
    for segment in range(plan.segment_columns.shape[0]):
        low, high = channel_range(plan, data, segment)
        usable = 0
        for i in range(low, high):
            usable += data.root[i] > 0.0
        n_columns = 0
        for column in plan.segment_columns[segment]:
            n_columns += column >= 0
        # Fewer channels than unknowns cannot be fitted, whatever they cover.
        if usable < n_columns + plan.degree + 4:
            continue
        for column in plan.segment_columns[segment]:
            if column >= 0:
                alive[column] = _coverage(plan, data, column, kinematics) >= LEAST_COVERAGE
    return alive


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _coverage(plan: Plan, data: Data, column: int, kinematics: Float) -> float:
    """Share of the profile of the column's strongest line, twice as wide as the instrument's, on usable channels."""
    best = -1
    for line in range(plan.rest.size):
        if plan.line_column[line] == column and (best < 0 or plan.ratio[line] > plan.ratio[best]):
            best = line
    group = plan.column_set[column]
    centre, sigma, _ = line_shape(
        data.edges, data.lsf, plan.rest[best], data.scale, kinematics[2 * group], 0.0
    )
    inside = 0.0
    low = int(np.searchsorted(data.edges, centre - 4.0 * sigma)) - 1
    high = int(np.searchsorted(data.edges, centre + 4.0 * sigma)) + 1
    for i in range(max(low, 0), min(high, data.root.size)):
        if data.root[i] > 0.0:
            inside += 0.5 * (
                math.erf((data.edges[i + 1] - centre) / (sigma * 2.0 * math.sqrt(2.0)))
                - math.erf((data.edges[i] - centre) / (sigma * 2.0 * math.sqrt(2.0)))
            )
    # Four standard deviations of the instrument hold 0.954 of a profile twice as wide.
    return inside / 0.954


@numba.njit(cache=True, nogil=True, error_model="numpy")
def first_velocity(
    plan: Plan, controls: Controls, data: Data, kinematics: Float, alive: NDArray[np.bool_]
) -> float:
    """Velocity at which the anchors together are most significant, by matched filters above a median baseline."""
    n_search = controls.search.size
    if n_search == 0:
        return kinematics[0]
    if n_search == 1:
        return kinematics[0] + controls.search[0]
    score = np.zeros(n_search)
    for segment in range(plan.segment_columns.shape[0]):
        low, high = channel_range(plan, data, segment)
        if high - low < 5:
            continue
        level = _median_level(data, low, high)
        for line in range(plan.rest.size):
            column = plan.line_column[line]
            inside = False
            for member in plan.segment_columns[segment]:
                inside = inside or member == column
            if not inside or not alive[column] or not controls.anchors[column]:
                continue
            for trial in range(n_search):
                velocity = kinematics[2 * plan.column_set[column]] + controls.search[trial]
                centre, sigma, _ = line_shape(
                    data.edges, data.lsf, plan.rest[line], data.scale, velocity, controls.start_variance
                )
                height = _matched(data, low, high, centre, sigma, level)
                height = -height if controls.absorbing[column] else height
                if height > 0.0:
                    score[trial] += height * height
    best = int(np.argmax(score))
    return kinematics[0] + controls.search[best]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _median_level(data: Data, low: int, high: int) -> float:
    count = 0
    values = np.empty(high - low)
    for i in range(low, high):
        if data.root[i] > 0.0:
            values[count] = data.flux[i] / data.root[i]
            count += 1
    return float(np.median(values[:count])) if count else 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _matched(data: Data, low: int, high: int, centre: float, sigma: float, level: float) -> float:
    """Significance of a Gaussian at a place: sum of profile x value over the root of the sum of their squares."""
    start = max(low, int(np.searchsorted(data.edges, centre - 2.5 * sigma)) - 1)
    stop = min(high, int(np.searchsorted(data.edges, centre + 2.5 * sigma)))
    top, bottom = 0.0, 0.0
    for i in range(start, stop):
        x = (0.5 * (data.edges[i] + data.edges[i + 1]) - centre) / sigma
        profile = math.exp(-0.5 * x * x) * data.root[i]
        top += profile * (data.flux[i] - level * data.root[i])
        bottom += profile * profile
    return top / math.sqrt(bottom) if bottom > 0.0 else 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _borrow(
    plan: Plan, controls: Controls, data: Data, kinematics: Float, start: Float, state: State,
    flags: NDArray[np.int64], lags: Float,
) -> bool:  # fmt: skip
    """Give sets without a significant line the kinematics of the strongest set; whether any was given some."""
    strength = set_strengths(plan, controls, data, kinematics, state, lags)
    donor = int(np.argmax(strength))
    found = strength[donor] >= controls.weak
    changed = False
    for group in range(strength.size):
        strong = strength[group] >= controls.weak and state.free[2 * group]
        if strong or not _has_columns(plan, state, group):
            continue
        flags[group] |= BORROWED
        changed = True
        for k in range(2):
            state.free[2 * group + k] = False
            value = kinematics[2 * donor + k] if found else start[2 * group + k]
            bounds = plan.bounds[2 * group + k]
            kinematics[2 * group + k] = min(max(value, bounds[0]), bounds[1])
    return changed


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _has_columns(plan: Plan, state: State, group: int) -> bool:
    return bool(np.any(state.alive & (plan.column_set == group)))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def set_strengths(
    plan: Plan, controls: Controls, data: Data, kinematics: Float, state: State, lags: Float
) -> Float:
    """Significance of the most significant line of each set."""
    significance = significances(plan, controls, data, kinematics, state, lags)
    strength = np.zeros(kinematics.size // 2)
    for column in range(significance.size):
        group = plan.column_set[column]
        strength[group] = max(strength[group], significance[column])
    return strength


@numba.njit(cache=True, nogil=True, error_model="numpy")
def significances(
    plan: Plan, controls: Controls, data: Data, kinematics: Float, state: State, lags: Float
) -> Float:
    """Flux over error of each column in the direction that is expected of it, 0 where it is not covered.

    The kinematics count as given: what matters is how far the flux is from none, not how well the width is known.
    """
    size = kinematics.size
    given = Kinematic(np.zeros((size, size)), np.zeros((size, size)), np.zeros((0, size)))
    linear = empty_linear(plan, data.root.size)
    linear_results(plan, data, kinematics, state, lags, np.zeros((0, data.root.size)), given, linear)
    result = np.zeros(linear.flux.size)
    for column in range(linear.flux.size):
        if state.alive[column] and linear.variance[column] > 0.0:
            value = linear.flux[column] / math.sqrt(linear.variance[column])
            result[column] = abs(value) if controls.absorbing[column] else value
    return result


@numba.njit(cache=True, nogil=True, error_model="numpy")
def first_state(plan: Plan, data: Data, kinematics: Float) -> State:
    """All that is covered is free, and every segment counts."""
    alive = covered(plan, data, kinematics)
    free = np.zeros(kinematics.size, dtype=np.bool_)
    for column in range(alive.size):
        if alive[column]:
            free[2 * plan.column_set[column]] = True
            free[2 * plan.column_set[column] + 1] = True
    active = np.ones(plan.segment_range.shape[0], dtype=np.bool_)
    return State(alive, active, free, np.full(plan.pairs.shape[0], np.nan))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def activate(
    plan: Plan, controls: Controls, data: Data, kinematics: Float, state: State, lags: Float
) -> None:
    """Leave the kinematics to the segments where a line is seen at the first guess; to all, where none is.

    A segment of noise says nothing about velocities and would cost as much as one that does.
    """
    significance = significances(plan, controls, data, kinematics, state, lags)
    seen = np.zeros(state.active.size, dtype=np.bool_)
    for segment in range(seen.size):
        for column in plan.segment_columns[segment]:
            seen[segment] = seen[segment] or (column >= 0 and significance[column] > SEEN * controls.weak)
    if seen.any():
        state.active[:] = seen
    for group in range(kinematics.size // 2):
        known = False
        for segment in range(seen.size):
            for column in plan.segment_columns[segment]:
                inside = column >= 0 and state.alive[column] and plan.column_set[column] == group
                known = known or (inside and state.active[segment])
        state.free[2 * group] = state.free[2 * group] and known
        state.free[2 * group + 1] = state.free[2 * group + 1] and known


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
