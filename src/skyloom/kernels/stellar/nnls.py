"""Least squares with non-negative unknowns, from the Gram matrix."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.profiles import factorise, solve

__all__ = ["gram", "solve_nonnegative"]

Float = NDArray[np.float64]
TOLERANCE = 1e-9  # Of the gradient, relative to what the column alone could have.


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def gram(columns: Float, size: int, values: Float, matrix: Float, vector: Float) -> None:
    """Write ``A^T A`` and ``A^T y`` of the first ``size`` columns of A (n, >= size)."""
    n = columns.shape[0]
    matrix[:size, :size] = 0.0
    vector[:size] = 0.0
    row = 0
    # Four rows at a time: the matrix, not the columns, is what is read and written most.
    while row + 3 < n:
        for i in range(size):
            a, b = columns[row, i], columns[row + 1, i]
            c, d = columns[row + 2, i], columns[row + 3, i]
            vector[i] += a * values[row] + b * values[row + 1] + c * values[row + 2] + d * values[row + 3]
            for j in range(i + 1):
                matrix[i, j] += (
                    a * columns[row, j] + b * columns[row + 1, j] + c * columns[row + 2, j]
                    + d * columns[row + 3, j]
                )  # fmt: skip
        row += 4
    while row < n:
        for i in range(size):
            vector[i] += columns[row, i] * values[row]
            for j in range(i + 1):
                matrix[i, j] += columns[row, i] * columns[row, j]
        row += 1
    for i in range(size):
        for j in range(i):
            matrix[j, i] = matrix[i, j]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _solve_passive(
    matrix: Float, vector: Float, size: int, passive: NDArray[np.bool_], block: Float, right: Float,
    members: NDArray[np.int64],
) -> int:  # fmt: skip
    """Solve for the passive unknowns alone; return their number."""
    count = 0
    for i in range(size):
        if passive[i]:
            members[count] = i
            count += 1
    for i in range(count):
        right[i] = vector[members[i]]
        for j in range(i + 1):
            block[i, j] = matrix[members[i], members[j]]
    factorise(block, count)
    solve(block, count, right)
    return count


@numba.njit(cache=True, nogil=True, error_model="numpy")
def solve_nonnegative(
    matrix: Float, vector: Float, size: int, n_bound: int, passive: NDArray[np.bool_], solution: Float
) -> bool:
    """Minimise ``x^T G x / 2 - b^T x`` with ``x >= 0`` for the first ``n_bound`` of ``size`` unknowns.

    The active-set method of Lawson & Hanson (1974, 10.1137/1.9781611971217) on the normal equations (Bro & de Jong
    1997, 10.1002/(SICI)1099-128X(199709/10)11:5<393::AID-CEM483>3.0.CO;2-L). ``passive`` (>= size) holds a guess of the
    unknowns that are not zero, and in the end those that are not; the other unknowns, free in sign, always are. Returns
    whether it ended within its steps.
    """
    block = np.empty((size, size))
    right = np.empty(size)
    members = np.empty(size, np.int64)
    for i in range(n_bound, size):
        passive[i] = True
    solution[:size] = 0.0
    barred = -1
    count = _solve_passive(matrix, vector, size, passive, block, right, members)
    # A guess may hold unknowns that want to be negative: these leave at once, with no path to follow yet.
    while _drop_negative(right, members, count, n_bound, passive):
        count = _solve_passive(matrix, vector, size, passive, block, right, members)
    for _ in range(4 * size + 10):
        solution[:size] = 0.0
        for k in range(count):
            solution[members[k]] = right[k]
        entering = _entering(matrix, vector, n_bound, passive, right, members, count, barred)
        if entering < 0:
            return True
        passive[entering] = True
        count = _solve_passive(matrix, vector, size, passive, block, right, members)
        # A column that only rounding tells from the others would leave at once and come back for ever.
        barred = -1
        for k in range(count):
            if members[k] == entering and right[k] <= 0.0:
                passive[entering] = False
                barred = entering
        if barred >= 0:
            count = _solve_passive(matrix, vector, size, passive, block, right, members)
        while _shorten(right, members, count, n_bound, passive, solution):
            count = _solve_passive(matrix, vector, size, passive, block, right, members)
    return False


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _drop_negative(
    right: Float, members: NDArray[np.int64], count: int, n_bound: int, passive: NDArray[np.bool_]
) -> bool:
    """Take what would not be positive out of the passive unknowns; return whether there was any."""
    dropped = False
    for k in range(count):
        if members[k] < n_bound and right[k] <= 0.0:
            passive[members[k]] = False
            dropped = True
    return dropped


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _shorten(
    right: Float, members: NDArray[np.int64], count: int, n_bound: int, passive: NDArray[np.bool_], solution: Float
) -> bool:  # fmt: skip
    """Go from the solution towards the one of the passive unknowns until the first becomes zero; False: all the way."""
    limit = 1.0
    first = -1
    for k in range(count):
        i = members[k]
        if i < n_bound and right[k] <= 0.0:
            share = solution[i] / (solution[i] - right[k]) if solution[i] > right[k] else 0.0
            if first < 0 or share < limit:
                limit, first = share, i
    if first < 0:
        return False
    for k in range(count):
        i = members[k]
        solution[i] += limit * (right[k] - solution[i])
        if i < n_bound and (i == first or (right[k] <= 0.0 and solution[i] <= 0.0)):
            passive[i] = False
            solution[i] = 0.0
    return True


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _entering(
    matrix: Float, vector: Float, n_bound: int, passive: NDArray[np.bool_], right: Float, members: NDArray[np.int64],
    count: int, barred: int,
) -> int:  # fmt: skip
    """The unknown at zero along which the sum of squares falls fastest; -1 where none is left."""
    best, entering = 0.0, -1
    for i in range(n_bound):
        if passive[i] or matrix[i, i] <= 0.0 or i == barred:
            continue
        gradient = vector[i]
        for k in range(count):
            gradient -= matrix[i, members[k]] * right[k]
        if gradient > TOLERANCE * abs(vector[i]) and gradient > best * np.sqrt(matrix[i, i]):
            best, entering = gradient / np.sqrt(matrix[i, i]), i
    return entering
