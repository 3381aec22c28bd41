"""What a fit of lines starts from: which lines are covered, where they are, and which of them are seen."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.errors import legendre
from skyloom.kernels.lines.fit_segments import line_shape, shape_segment, solve_segment
from skyloom.kernels.lines.profiles import solve
from skyloom.kernels.lines.types import SPEED_OF_LIGHT, Controls, Data, Plan, State, Work

Float = NDArray[np.float64]
Int = NDArray[np.int64]

LEAST_COVERAGE = 0.6  # Share of a profile that must fall on usable channels.
LEAST_SPARE = 3  # Channels beyond the unknowns of a segment.
ROOT_EIGHT = math.sqrt(8.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def channel_range(plan: Plan, edges: Float, scale: float, segment: int) -> tuple[int, int]:
    """Channels of a segment that lie on the axis, as a half-open range."""
    n = edges.size - 1
    low = int(np.searchsorted(edges, plan.segment_range[segment, 0] * scale))
    high = int(np.searchsorted(edges, plan.segment_range[segment, 1] * scale))
    return min(low, n), min(max(high - 1, low), n)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def segment_channels(plan: Plan, edges: Float, scale: Float, first: int, last: int) -> int:
    """Channels of the largest segment of the spectra first ... last - 1."""
    most = 1
    for row in range(first, last):
        for segment in range(plan.segment_range.shape[0]):
            low, high = channel_range(plan, edges, scale[row], segment)
            most = max(most, high - low)
    return most


@numba.njit(cache=True, nogil=True, error_model="numpy")
def prepare(plan: Plan, data: Data, work: Work, kinematics: Float) -> None:
    """Set up what does not depend on the kinematics of one spectrum: channels, covered columns, polynomials."""
    for line in range(plan.rest.size):
        unshifted = plan.rest[line] * data.scale
        channel = min(max(int(np.searchsorted(data.edges, unshifted)) - 1, 0), data.lsf.size - 1)
        work.unshifted[line], work.moving[line] = unshifted, unshifted / SPEED_OF_LIGHT
        work.instrument[line] = data.lsf[channel] ** 2
    work.present[:] = False
    for segment in range(work.low.size):
        _clear(work, segment)
        low, high = channel_range(plan, data.edges, data.scale, segment)
        work.low[segment], work.high[segment] = low, high
        _members(plan, data, work, segment, kinematics)
        if work.filled[segment] == 0:
            continue
        count, orders = work.filled[segment], plan.degree + 1
        work.support[segment, count : count + orders, 0] = 0
        work.support[segment, count : count + orders, 1] = high - low
        legendre(data.edges, data.root, low, high, work.basis[segment, count : count + orders])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _clear(work: Work, segment: int) -> None:
    """Take away what the spectrum before this one left; its polynomials are written over."""
    for place in range(work.members.shape[1]):
        for i in range(work.support[segment, place, 0], work.support[segment, place, 1]):
            work.basis[segment, place, i] = 0.0
            work.slopes[segment, 2 * place, i], work.slopes[segment, 2 * place + 1, i] = 0.0, 0.0
        work.support[segment, place, 0], work.support[segment, place, 1] = 0, 0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _members(plan: Plan, data: Data, work: Work, segment: int, kinematics: Float) -> None:
    """List the columns of a segment whose lines are covered; none where there are fewer channels than unknowns."""
    low, high = work.low[segment], work.high[segment]
    usable, wanted = 0, 0
    for i in range(low, high):
        usable += data.root[i] > 0.0
    for column in plan.segment_columns[segment]:
        wanted += column >= 0
    count = 0
    for column in plan.segment_columns[segment]:
        if column < 0 or usable < wanted + plan.degree + 1 + LEAST_SPARE:
            continue
        group = plan.column_set[column]
        strongest = _strongest(plan, column)
        centre, _ = line_shape(
            work.unshifted[strongest],
            work.moving[strongest],
            work.instrument[strongest],
            kinematics[2 * group],
            0.0,
        )
        if _coverage(data, centre, math.sqrt(work.instrument[strongest])) >= LEAST_COVERAGE:
            work.members[segment, count], work.groups[segment, count] = column, group
            work.present[segment, group] = True
            count += 1
    work.filled[segment] = count


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _strongest(plan: Plan, column: int) -> int:
    best = plan.lines_by_column[plan.first_line[column]]
    for at in range(plan.first_line[column], plan.first_line[column + 1]):
        line = plan.lines_by_column[at]
        if plan.ratio[line] > plan.ratio[best]:
            best = line
    return int(best)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _coverage(data: Data, centre: float, sigma: float) -> float:
    """Share of a profile twice as wide as the instrument's that falls on usable channels."""
    low = int(np.searchsorted(data.edges, centre - 4.0 * sigma)) - 1
    high = int(np.searchsorted(data.edges, centre + 4.0 * sigma)) + 1
    whole = low >= 0 and high <= data.root.size
    low, high = max(low, 0), min(high, data.root.size)
    for i in range(low, high):
        whole = whole and data.root[i] > 0.0
    if whole:
        return 1.0
    inside = 0.0
    for i in range(low, high):
        if data.root[i] > 0.0:
            inside += 0.5 * math.erf((data.edges[i + 1] - centre) / (sigma * ROOT_EIGHT))
            inside -= 0.5 * math.erf((data.edges[i] - centre) / (sigma * ROOT_EIGHT))
    # Four standard deviations of the instrument hold 0.954 of a profile twice as wide.
    return inside / 0.954


@numba.njit(cache=True, nogil=True, error_model="numpy")
def first_velocity(plan: Plan, controls: Controls, data: Data, work: Work, velocity: float) -> float:
    """Velocity at which the anchors together are most significant, by matched filters above a median baseline."""
    if controls.search.size == 0:
        return velocity
    score = np.zeros(controls.search.size)
    for segment in range(work.low.size):
        low, high, level = work.low[segment], work.high[segment], np.nan
        for place in range(work.filled[segment]):
            column = work.members[segment, place]
            if not controls.anchors[column]:
                continue
            if math.isnan(level):
                level = _median_level(data, low, high)
            for at in range(plan.first_line[column], plan.first_line[column + 1]):
                line = plan.lines_by_column[at]
                for trial in range(score.size):
                    centre, sigma = line_shape(
                        work.unshifted[line], work.moving[line], work.instrument[line],
                        velocity + controls.search[trial], controls.start_variance,
                    )  # fmt: skip
                    height = _matched(data, low, high, centre, sigma, level)
                    height = -height if controls.absorbing[column] else height
                    if height > 0.0:
                        score[trial] += height * height
    return velocity + controls.search[int(np.argmax(score))]


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
    edges = data.edges[low : high + 1]
    start = low + max(0, int(np.searchsorted(edges, centre - 2.5 * sigma)) - 1)
    stop = min(high, low + int(np.searchsorted(edges, centre + 2.5 * sigma)))
    top, bottom = 0.0, 0.0
    for i in range(start, stop):
        x = (0.5 * (data.edges[i] + data.edges[i + 1]) - centre) / sigma
        profile = math.exp(-0.5 * x * x) * data.root[i]
        top += profile * (data.flux[i] - level * data.root[i])
        bottom += profile * profile
    return top / math.sqrt(bottom) if bottom > 0.0 else 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def significances(
    plan: Plan, controls: Controls, data: Data, work: Work, kinematics: Float, state: State, lags: Float
) -> Float:
    """Flux over error of each column in the direction that is expected of it, 0 where it is not covered.

    The kinematics count as given: what matters is how far the flux is from none, not how well the width is known.
    Correlation between channels counts as for a line much wider than it reaches.
    """
    result = np.zeros(plan.column_set.size)
    for segment in range(work.low.size):
        count = work.filled[segment]
        if count == 0 or not state.active[segment]:
            continue
        shape_segment(plan, data, work, segment, kinematics, state.tied)
        solve_segment(plan, data, work, segment, state.pin)
        size = count + plan.degree + 1
        spread = 1.0
        if lags.shape[1] > 1:
            spread = max(lags[(work.low[segment] + work.high[segment]) // 2].sum(), 0.1)
        for place in range(count):
            column = work.members[segment, place]
            work.line[:] = 0.0
            work.line[place] = 1.0
            solve(work.factor[segment], size, work.line)
            if work.line[place] > 0.0:
                value = work.linear[segment, place] / math.sqrt(work.line[place] * spread)
                result[column] = abs(value) if controls.absorbing[column] else value
    return result


@numba.njit(cache=True, nogil=True, error_model="numpy")
def set_strengths(plan: Plan, significance: Float, n_sets: int) -> Float:
    """Significance of the most significant line of each set."""
    strength = np.zeros(n_sets)
    for column in range(significance.size):
        group = plan.column_set[column]
        strength[group] = max(strength[group], significance[column])
    return strength
