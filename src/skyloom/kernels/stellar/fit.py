"""Stellar continua fitted to many spectra: non-negative weights inside, kinematics and dust outside.

For given parameters the weights follow from a Gram matrix (`skyloom.kernels.stellar.nnls`). Parameters are found by
Levenberg-Marquardt on what the weights leave over (variable projection, Golub & Pereyra 1973, 10.1137/0710036), with
the templates that have a weight alone; all templates are tried again at the end of each round.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.profiles import factorise, solve
from skyloom.kernels.stellar.broadening import Taps, fill_taps, tap_space
from skyloom.kernels.stellar.model import GasLines, Row, derivatives, fill_columns
from skyloom.kernels.stellar.nnls import gram, solve_nonnegative

__all__ = ["State", "fit_row", "search_velocity"]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
ROUNDS = 8
STEPS = 25
ROUND_TOLERANCE = 25.0  # Times the tolerance of chi square, for templates that come or go.
ENOUGH = 10.0  # A step that gains this many tolerances leaves less than one to be gained.
MOST_DAMPING = 1e6


class State(NamedTuple):
    """Parameters with their limits, and which are held; weights and which of them are in use."""

    parameters: Float
    low: Float
    high: Float
    held: Bool
    solution: Float
    passive: Bool


class Work(NamedTuple):
    """Space for the columns (n, size), their Gram matrix and vector."""

    columns: Float
    matrix: Float
    vector: Float


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _space(n: int, size: int) -> Work:
    return Work(np.empty((n, size)), np.empty((size, size)), np.empty(size))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _move_taps(row: Row, n_grid: int, parameters: Float, taps: Taps) -> None:
    fill_taps(row.channels, parameters[0], max(parameters[1], 0.0), n_grid, taps)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _residual(row: Row, columns: Float, passive: Bool, solution: Float) -> Float:
    members = np.flatnonzero(passive)
    left = row.values.copy()
    for p in range(left.size):
        for k in members:
            left[p] -= columns[p, k] * solution[k]
    return left


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _weights_at(
    row: Row, gas: GasLines, taps: Taps, coefficients: Float, parameters: Float, work: Work, passive: Bool,
    solution: Float,
) -> float:  # fmt: skip
    """Solve for the weights at given parameters, to which the taps belong; return chi square."""
    fill_columns(row, gas, taps, coefficients, parameters, work.columns)
    size = work.columns.shape[1]
    gram(work.columns, size, row.values, work.matrix, work.vector)
    solve_nonnegative(work.matrix, work.vector, size, coefficients.shape[1], passive, solution)
    left = _residual(row, work.columns, passive, solution)
    return float(np.sum(left * left))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _normal_equations(
    row: Row, work: Work, passive: Bool, solution: Float, slopes: Float
) -> tuple[Float, Float]:
    """Matrix and gradient of the parameters, freed of the columns in use."""
    n, n_parameters = slopes.shape
    columns, matrix = work.columns, work.matrix
    members = np.flatnonzero(passive)
    count = members.size
    cross, square, gradient = (
        np.zeros((n_parameters, count)),
        np.zeros((n_parameters, n_parameters)),
        np.zeros(n_parameters),
    )
    for p in range(n):
        left = row.values[p]
        for k in range(count):
            left -= columns[p, members[k]] * solution[members[k]]
        for i in range(n_parameters):
            slope = slopes[p, i]
            gradient[i] += slope * left
            for k in range(count):
                cross[i, k] += slope * columns[p, members[k]]
            for j in range(i + 1):
                square[i, j] += slope * slopes[p, j]
    block = np.empty((count, count))
    for i in range(count):
        for j in range(count):
            block[i, j] = matrix[members[i], members[j]]
    factorise(block, count)
    for i in range(n_parameters):
        projected = cross[i].copy()
        solve(block, count, projected)
        for j in range(i, n_parameters):
            total = 0.0
            for k in range(count):
                total += projected[k] * cross[j, k]
            square[j, i] -= total
            square[i, j] = square[j, i]
    return square, gradient


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _step(square: Float, gradient: Float, damping: float, state: State, trial: Float) -> float:
    """Write the next parameters; return the decrease of chi square that is expected of a small step."""
    n = gradient.size
    free = np.zeros(n, np.bool_)
    for i in range(n):
        at_low = state.parameters[i] <= state.low[i] and gradient[i] <= 0.0
        at_high = state.parameters[i] >= state.high[i] and gradient[i] >= 0.0
        free[i] = not (state.held[i] or at_low or at_high) and square[i, i] > 0.0
    members = np.flatnonzero(free)
    m = members.size
    matrix, right = np.empty((m, m)), np.empty(m)
    for i in range(m):
        right[i] = gradient[members[i]]
        for j in range(m):
            matrix[i, j] = square[members[i], members[j]]
        matrix[i, i] *= 1.0 + damping
    factorise(matrix, m)
    solve(matrix, m, right)
    trial[:] = state.parameters
    expected = 0.0
    for i in range(m):
        k = members[i]
        trial[k] = min(max(trial[k] + right[i], state.low[k]), state.high[k])
        expected += gradient[k] * (trial[k] - state.parameters[k])
    return expected


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _improve(
    row: Row,
    gas: GasLines,
    here: Taps,
    there: Taps,
    coefficients: Float,
    state: State,
    n_free: int,
    tolerance: float,
) -> tuple[float, bool, bool]:
    """Find the parameters with the templates given; return chi square, whether it converged, whether taps swapped.

    ``here`` holds the taps of the parameters at the start, and in the end, unless they swapped.
    """
    n, size = row.root.size, coefficients.shape[1] + n_free
    n_parameters = state.parameters.size
    # Two spaces, so that a step that is not accepted leaves the one before as it was.
    now, then = _space(n, size), _space(n, size)
    slopes = np.zeros((n, n_parameters))
    trial, solution = np.empty(n_parameters), np.empty(size)
    chi2 = _weights_at(row, gas, here, coefficients, state.parameters, now, state.passive, state.solution)
    damping, swapped = 0.0, False
    for _ in range(STEPS):
        derivatives(row, gas, here, coefficients, state.parameters, state.solution, now.columns, slopes)
        square, gradient = _normal_equations(row, now, state.passive, state.solution, slopes)
        while True:
            if _step(square, gradient, damping, state, trial) < tolerance:
                return chi2, True, swapped
            passive = state.passive.copy()
            _move_taps(row, coefficients.shape[0], trial, there)
            new = _weights_at(row, gas, there, coefficients, trial, then, passive, solution)
            if new <= chi2:
                break
            damping = max(10.0 * damping, 1e-1)
            if damping > MOST_DAMPING:
                return chi2, False, swapped
        here, there, now, then, swapped = there, here, then, now, not swapped
        gained = chi2 - new
        damping = 0.1 * damping if damping > 1e-3 else 0.0
        chi2 = new
        state.parameters[:] = trial
        state.solution[:] = solution
        state.passive[:] = passive
        if gained < ENOUGH * tolerance and damping == 0.0:
            return chi2, True, swapped
    return chi2, False, swapped


@numba.njit(cache=True, nogil=True, error_model="numpy")
def fit_row(
    row: Row, gas: GasLines, coefficients: Float, state: State, n_free: int, tolerance: float
) -> tuple[Float, bool]:
    """Fit weights and parameters of one spectrum in place; return the weighted residuals and whether it converged."""
    n_grid, n_templates = coefficients.shape
    work = _space(row.root.size, n_templates + n_free)
    here, there = (
        tap_space(row.channels, state.high[1], n_grid),
        tap_space(row.channels, state.high[1], n_grid),
    )
    _move_taps(row, n_grid, state.parameters, here)
    before, settled = math.inf, True
    for _ in range(ROUNDS):
        chi2 = _weights_at(
            row, gas, here, coefficients, state.parameters, work, state.passive, state.solution
        )
        members = np.flatnonzero(state.passive[:n_templates])
        if before - chi2 < ROUND_TOLERANCE * tolerance or members.size == 0:
            return _residual(row, work.columns, state.passive, state.solution), settled
        few = np.empty((n_grid, members.size))
        for i in range(n_grid):
            for k in range(members.size):
                few[i, k] = coefficients[i, members[k]]
        part = State(
            state.parameters, state.low, state.high, state.held, np.zeros(members.size + n_free),
            np.ones(members.size + n_free, np.bool_),
        )  # fmt: skip
        before, settled, swapped = _improve(row, gas, here, there, few, part, n_free, tolerance)
        if swapped:
            here, there = there, here
        state.passive[:n_templates] = False
        state.passive[members] = part.passive[: members.size]
    _weights_at(row, gas, here, coefficients, state.parameters, work, state.passive, state.solution)
    return _residual(row, work.columns, state.passive, state.solution), False


@numba.njit(cache=True, nogil=True, error_model="numpy")
def search_velocity(
    row: Row, gas: GasLines, coefficients: Float, parameters: Float, velocities: Float
) -> float:
    """Return the velocity with the least chi square, for a few templates and the polynomials of ``row``."""
    n_grid, n_templates = coefficients.shape
    size = n_templates + row.added.shape[0]
    work = _space(row.root.size, size)
    taps = tap_space(row.channels, max(parameters[1], 0.0), n_grid)
    passive, solution = np.zeros(size, np.bool_), np.empty(size)
    trial = parameters.copy()
    least, best = math.inf, 0.0
    for velocity in velocities:
        trial[0] = velocity
        _move_taps(row, n_grid, trial, taps)
        chi2 = _weights_at(row, gas, taps, coefficients, trial, work, passive, solution)
        if chi2 < least:
            least, best = chi2, velocity
    return best
