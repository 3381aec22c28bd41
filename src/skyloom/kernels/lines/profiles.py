"""Gaussians averaged over channels, their derivatives, and small symmetric systems of equations."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]

SPEED_OF_LIGHT = 299792.458  # km/s
REACH = 5.0  # Profiles are zero beyond this many standard deviations.
ROOT_TWO = math.sqrt(2.0)
ROOT_TWO_PI = math.sqrt(2.0 * math.pi)
TINY_PIVOT = 1e-10
LEAST_SIGMA = 0.1  # A; keeps profiles finite where noise drives the width below that of the instrument.


@numba.njit(cache=True, nogil=True, error_model="numpy")
def reach_of(edges: Float, low: int, high: int, centre: float, sigma: float) -> tuple[int, int]:
    """Channels of low ... high - 1 that a line reaches, as a half-open range."""
    first = low + int(np.searchsorted(edges[low : high + 1], centre - REACH * sigma)) - 1
    last = low + int(np.searchsorted(edges[low : high + 1], centre + REACH * sigma))
    return max(first, low), max(min(last, high), max(first, low))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_profile(
    edges: Float, root: Float, first: int, last: int, low: int, centre: float, sigma: float, flux: float,
    moving: float, widening: float, by_flux: Float, by_velocity: Float, by_variance: Float,
) -> None:  # fmt: skip
    """Add a Gaussian averaged over each of the channels first ... last - 1, and its derivatives, times ``root``.

    ``edges`` are the (n_wave + 1,) borders of the channels; the outputs start at channel ``low``. ``moving`` is the
    derivative of the centre by the velocity, ``widening`` that of the variance in A2 by the variance in km2/s2.
    """
    if first >= last:
        return
    inverse = 1.0 / sigma
    x = (edges[first] - centre) * inverse
    total, density = 0.5 * math.erf(x / ROOT_TWO), math.exp(-0.5 * x * x) / ROOT_TWO_PI
    for channel in range(first, last):
        next_x = (edges[channel + 1] - centre) * inverse
        next_total, next_density = (
            0.5 * math.erf(next_x / ROOT_TWO),
            math.exp(-0.5 * next_x * next_x) / ROOT_TWO_PI,
        )
        share = flux * root[channel] / (edges[channel + 1] - edges[channel])
        by_flux[channel - low] += share * (next_total - total)
        by_velocity[channel - low] -= share * moving * inverse * (next_density - density)
        by_variance[channel - low] -= (
            share * widening * 0.5 * inverse * inverse * (next_x * next_density - x * density)
        )
        total, density, x = next_total, next_density, next_x


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_curvature(
    edges: Float, root: Float, first: int, last: int, low: int, centre: float, sigma: float, flux: float,
    moving: float, widening: float, mixed: Float, by_variance_twice: Float,
) -> None:  # fmt: skip
    """Add the second derivatives of `add_profile` by velocity and variance, and twice by the variance.

    The third one, twice by the velocity, is twice the first derivative by the variance (a Gaussian obeys the equation
    of heat), so nobody needs to work it out.
    """
    if first >= last:
        return
    inverse = 1.0 / sigma
    x = (edges[first] - centre) * inverse
    density = math.exp(-0.5 * x * x) / ROOT_TWO_PI
    second, third = (x * x - 1.0) * density, (3.0 - x * x) * x * density
    for channel in range(first, last):
        x = (edges[channel + 1] - centre) * inverse
        density = math.exp(-0.5 * x * x) / ROOT_TWO_PI
        next_second, next_third = (x * x - 1.0) * density, (3.0 - x * x) * x * density
        share = flux * root[channel] / (edges[channel + 1] - edges[channel])
        mixed[channel - low] -= share * moving * widening * 0.5 * inverse**3 * (next_second - second)
        by_variance_twice[channel - low] += (
            share * widening * widening * 0.25 * inverse**4 * (next_third - third)
        )
        second, third = next_second, next_third


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def dot(first: Float, second: Float) -> float:
    """Sum of products."""
    total = 0.0
    for i in range(first.size):
        total += first[i] * second[i]
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def products(
    first: Float, first_range: Int, n_first: int, second: Float, second_range: Int, n_second: int, result: Float
) -> None:  # fmt: skip
    """Sums of products of each of the first rows with each of the second, over the places where neither is 0."""
    for i in range(n_first):
        for j in range(n_second):
            total = 0.0
            start = max(first_range[i, 0], second_range[j, 0])
            stop = min(first_range[i, 1], second_range[j, 1])
            for channel in range(start, stop):
                total += first[i, channel] * second[j, channel]
            result[i, j] = total


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def products_with(rows: Float, ranges: Int, count: int, vector: Float, result: Float) -> None:
    """Sums of products of each row with a vector."""
    for i in range(count):
        total = 0.0
        for channel in range(ranges[i, 0], ranges[i, 1]):
            total += rows[i, channel] * vector[channel]
        result[i] = total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_rows(rows: Float, ranges: Int, count: int, weights: Float, factor: float, result: Float) -> None:
    """Add a linear combination of the rows."""
    for i in range(count):
        value = factor * weights[i]
        for channel in range(ranges[i, 0], ranges[i, 1]):
            result[channel] += value * rows[i, channel]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def factorise(matrix: Float, size: int) -> None:
    """Cholesky factor of the leading block of a symmetric matrix, in place; rows that depend on others are dropped.

    A dropped row has the diagonal 0 and takes no part in `solve`: its unknown becomes 0.
    """
    for i in range(size):
        scale = matrix[i, i]
        for j in range(i):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = total / matrix[j, j] if matrix[j, j] > 0.0 else 0.0
        total = scale
        for k in range(i):
            total -= matrix[i, k] * matrix[i, k]
        matrix[i, i] = math.sqrt(total) if scale > 0.0 and total > TINY_PIVOT * scale else 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def solve(factor: Float, size: int, right: Float) -> None:
    """Solve in place with a factor of `factorise`."""
    for i in range(size):
        total = right[i]
        for k in range(i):
            total -= factor[i, k] * right[k]
        right[i] = total / factor[i, i] if factor[i, i] > 0.0 else 0.0
    for i in range(size - 1, -1, -1):
        total = right[i]
        for k in range(i + 1, size):
            total -= factor[k, i] * right[k]
        right[i] = total / factor[i, i] if factor[i, i] > 0.0 else 0.0
