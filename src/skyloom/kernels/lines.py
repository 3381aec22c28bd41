"""Gaussian lines in many spectra: shared kinematics by Levenberg-Marquardt, fluxes and baselines by linear algebra.

The model of a spectrum is a sum of *columns*, each one or several lines of fixed flux ratio, and of one polynomial per
*segment* of the wavelength axis. Columns belong to *kinematic sets*: all lines of a set share the velocity v (km/s)
and the intrinsic variance q (km2/s2, which noise may make negative). Fluxes and polynomials are linear: for given
kinematics they are solved exactly, segment by segment, and what is left depends on the kinematics alone (variable
projection: Golub & Pereyra 1973, 10.1137/0710036, with the Jacobian of Kaufman 1975, 10.1007/BF01932995).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.line_profiles import (
    SPEED_OF_LIGHT,
    add_profile,
    factorise,
    line_shape,
    solve,
)

Float = NDArray[np.float64]
Int = NDArray[np.int64]

LARGEST_DAMPING = 1e8


class Plan(NamedTuple):
    """What is fitted, the same for all spectra.

    ``rest``, ``ratio``, ``line_column`` : (n_lines,) wavelength in A, flux relative to its column, and the column;
    ``column_set`` : (n_columns,) kinematic set; ``column_total`` : (n_columns,) the sum of fluxes it is part of (the
    components of one line); ``segment_columns`` : (n_segments, p) columns, -1 fills up;
    ``segment_range`` : (n_segments, 2) rest wavelengths; ``pairs`` : (n_pairs, 2) columns with a bounded ratio, and
    ``pair_range`` : (n_pairs, 2) its bounds; ``bounds`` : (2 n_sets, 2) of v and q; ``degree`` of the polynomials.
    """

    rest: Float
    ratio: Float
    line_column: Int
    column_set: Int
    column_total: Int
    segment_columns: Int
    segment_range: Float
    pairs: Int
    pair_range: Float
    bounds: Float
    degree: int


class Data(NamedTuple):
    """One spectrum: ``edges`` (n_wave + 1,), ``flux`` and ``root`` (n_wave,): values times, and, 1 / sigma, 0 where
    masked; ``lsf`` (n_wave,) sigma in A; ``scale`` 1 + redshift.
    """

    edges: Float
    flux: Float
    root: Float
    lsf: Float
    scale: float


class State(NamedTuple):
    """What takes part in the fit of one spectrum.

    ``alive`` : (n_columns,) bool, columns whose lines are covered; ``active`` : (n_segments,) bool, segments that
    determine the kinematics; ``free`` : (2 n_sets,) bool; ``tied`` : (n_pairs,) ratio that is held, NaN where free.
    """

    alive: NDArray[np.bool_]
    active: NDArray[np.bool_]
    free: NDArray[np.bool_]
    tied: Float


class Segment(NamedTuple):
    """Weighted design matrix of a segment (m, p + degree + 1), and derivatives of its columns by v and q, (m, p)."""

    design: Float
    by_velocity: Float
    by_variance: Float
    columns: Int


@numba.njit(cache=True, nogil=True, error_model="numpy")
def channel_range(plan: Plan, data: Data, segment: int) -> tuple[int, int]:
    """Channels of a segment that lie on the axis."""
    n = data.root.size
    low = int(np.searchsorted(data.edges, plan.segment_range[segment, 0] * data.scale))
    high = int(np.searchsorted(data.edges, plan.segment_range[segment, 1] * data.scale))
    return min(low, n), min(max(high - 1, low), n)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def build(plan: Plan, data: Data, segment: int, kinematics: Float, state: State) -> Segment:
    """Make the design matrix of a segment for given kinematics."""
    low, high = channel_range(plan, data, segment)
    count = 0
    for column in plan.segment_columns[segment]:
        if column >= 0 and state.alive[column]:
            count += 1
    columns = np.empty(count, dtype=np.int64)
    count = 0
    for column in plan.segment_columns[segment]:
        if column >= 0 and state.alive[column]:
            columns[count] = column
            count += 1
    m, p = high - low, columns.size
    design = np.zeros((p + plan.degree + 1, m))
    by_velocity, by_variance = np.zeros((p, m)), np.zeros((p, m))
    profile, centre_slope, sigma_slope = np.empty(m), np.empty(m), np.empty(m)
    for place in range(p):
        group = plan.column_set[columns[place]]
        for line in range(plan.rest.size):
            if plan.line_column[line] != columns[place]:
                continue
            centre, sigma, widening = line_shape(
                data.edges,
                data.lsf,
                plan.rest[line],
                data.scale,
                kinematics[2 * group],
                kinematics[2 * group + 1],
            )
            profile[:] = 0.0
            centre_slope[:] = 0.0
            sigma_slope[:] = 0.0
            add_profile(
                data.edges, low, high, centre, sigma, plan.ratio[line], profile, centre_slope, sigma_slope
            )
            moving = plan.rest[line] * data.scale / SPEED_OF_LIGHT
            for i in range(m):
                root = data.root[low + i]
                design[place, i] += profile[i] * root
                by_velocity[place, i] += centre_slope[i] * root * moving
                by_variance[place, i] += sigma_slope[i] * root * widening
    _polynomial(data, low, high, p, plan.degree, design)
    _tie(plan, state.tied, columns, design, by_velocity, by_variance)
    return Segment(design, by_velocity, by_variance, columns)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _polynomial(data: Data, low: int, high: int, p: int, degree: int, design: Float) -> None:
    """Legendre polynomials over the segment, after its p columns."""
    if high <= low:
        return
    middle, half = 0.5 * (data.edges[low] + data.edges[high]), 0.5 * (data.edges[high] - data.edges[low])
    for i in range(high - low):
        x = (0.5 * (data.edges[low + i] + data.edges[low + i + 1]) - middle) / half
        value, previous = 1.0, 0.0
        for order in range(degree + 1):
            design[p + order, i] = value * data.root[low + i]
            value, previous = ((2 * order + 1) * x * value - order * previous) / (order + 1), value


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _tie(
    plan: Plan, tied: Float, columns: Int, design: Float, by_velocity: Float, by_variance: Float
) -> None:
    """Join the two columns of a pair at a fixed ratio: the second carries both, the first is emptied."""
    for pair in range(plan.pairs.shape[0]):
        if math.isnan(tied[pair]):
            continue
        first, second = -1, -1
        for place in range(columns.size):
            if columns[place] == plan.pairs[pair, 0]:
                first = place
            if columns[place] == plan.pairs[pair, 1]:
                second = place
        if first < 0 or second < 0:
            continue
        for matrix in (design, by_velocity, by_variance):
            for i in range(matrix.shape[1]):
                matrix[second, i] += tied[pair] * matrix[first, i]
                matrix[first, i] = 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _normal(design: Float) -> Float:
    """Cholesky factor of the normal matrix."""
    size = design.shape[0]
    factor = np.empty((size, size))
    for i in range(size):
        for j in range(i + 1):
            factor[i, j] = _dot(design[i], design[j])
    factorise(factor, size)
    return factor


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def _dot(first: Float, second: Float) -> float:
    total = 0.0
    for i in range(first.size):
        total += first[i] * second[i]
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def project(plan: Plan, part: Segment, factor: Float, amplitudes: Float) -> tuple[Float, Float]:
    """Derivatives of the model by the kinematics, freed of what the linear parameters can make up.

    Returns
    -------
    slopes : (2 n_sets, m) array
        ``D - B X``.
    absorbed : (2 n_sets, p + degree + 1) array
        ``X = (B^T B)^-1 B^T D``: how the linear parameters answer to a change of the kinematics.
    """
    n_kinematics, m = plan.bounds.shape[0], part.design.shape[1]
    slopes = np.zeros((n_kinematics, m))
    absorbed = np.zeros((n_kinematics, part.design.shape[0]))
    for place in range(part.columns.size):
        group = plan.column_set[part.columns[place]]
        for i in range(m):
            slopes[2 * group, i] += amplitudes[place] * part.by_velocity[place, i]
            slopes[2 * group + 1, i] += amplitudes[place] * part.by_variance[place, i]
    for k in range(n_kinematics):
        used = False
        for place in range(part.columns.size):
            used = used or plan.column_set[part.columns[place]] == k // 2
        if not used:
            continue
        for i in range(part.design.shape[0]):
            absorbed[k, i] = _dot(part.design[i], slopes[k])
        solve(factor, part.design.shape[0], absorbed[k])
        for i in range(part.design.shape[0]):
            for channel in range(m):
                slopes[k, channel] -= absorbed[k, i] * part.design[i, channel]
    return slopes, absorbed


@numba.njit(cache=True, nogil=True, error_model="numpy")
def amplitudes_of(part: Segment, factor: Float, flux: Float) -> Float:
    """Solve for the linear parameters of a segment."""
    right = np.empty(part.design.shape[0])
    for i in range(right.size):
        right[i] = _dot(part.design[i], flux)
    solve(factor, right.size, right)
    return right


@numba.njit(cache=True, nogil=True, error_model="numpy")
def evaluate(
    plan: Plan,
    data: Data,
    kinematics: Float,
    state: State,
    hessian: Float,
    gradient: Float,
) -> float:
    """Chi square at the best linear parameters; fills the Gauss-Newton matrix and the gradient by the kinematics."""
    hessian[:] = 0.0
    gradient[:] = 0.0
    chi2 = 0.0
    for segment in range(plan.segment_range.shape[0]):
        low, high = channel_range(plan, data, segment)
        if high <= low or not state.active[segment]:
            continue
        part = build(plan, data, segment, kinematics, state)
        if part.columns.size == 0:
            continue
        factor = _normal(part.design)
        flux = data.flux[low:high]
        amplitudes = amplitudes_of(part, factor, flux)
        residual = flux.copy()
        for i in range(amplitudes.size):
            for channel in range(residual.size):
                residual[channel] -= amplitudes[i] * part.design[i, channel]
        chi2 += _dot(residual, residual)
        slopes, _ = project(plan, part, factor, amplitudes)
        for k in range(gradient.size):
            gradient[k] += _dot(slopes[k], residual)
            for j in range(k + 1):
                hessian[k, j] += _dot(slopes[k], slopes[j])
    for k in range(gradient.size):
        for j in range(k):
            hessian[j, k] = hessian[k, j]
    return chi2


@numba.njit(cache=True, nogil=True, error_model="numpy")
def minimise(
    plan: Plan, data: Data, kinematics: Float, state: State, tolerance: float, most: int
) -> tuple[float, int]:  # fmt: skip
    """Levenberg-Marquardt over the free kinematics, in place; chi square, and the number of steps (-1: too many)."""
    size = kinematics.size
    hessian, gradient = np.zeros((size, size)), np.zeros(size)
    new_hessian, new_gradient = np.zeros((size, size)), np.zeros(size)
    matrix, change, trial = np.zeros((size, size)), np.zeros(size), np.zeros(size)
    chi2 = evaluate(plan, data, kinematics, state, hessian, gradient)
    damping = 1e-3
    for count in range(most):
        for k in range(size):
            change[k] = gradient[k] if state.free[k] else 0.0
            for j in range(size):
                matrix[k, j] = hessian[k, j] if state.free[k] and state.free[j] else 0.0
            matrix[k, k] = matrix[k, k] * (1.0 + damping) if state.free[k] else 1.0
        factorise(matrix, size)
        solve(matrix, size, change)
        for k in range(size):
            trial[k] = min(max(kinematics[k] + change[k], plan.bounds[k, 0]), plan.bounds[k, 1])
        new = evaluate(plan, data, trial, state, new_hessian, new_gradient)
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
