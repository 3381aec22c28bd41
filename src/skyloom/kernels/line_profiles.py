"""Gaussians averaged over channels, their derivatives, and small symmetric systems of equations."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]

SPEED_OF_LIGHT = 299792.458  # km/s
REACH = 6.0  # Profiles are zero beyond this many standard deviations.
ROOT_TWO = math.sqrt(2.0)
ROOT_TWO_PI = math.sqrt(2.0 * math.pi)
TINY_PIVOT = 1e-10
LEAST_SIGMA = 0.1  # A; keeps profiles finite where noise drives the width below that of the instrument.


@numba.njit(cache=True, nogil=True, error_model="numpy")
def line_shape(
    edges: Float, lsf: Float, rest: float, scale: float, velocity: float, variance: float
) -> tuple[float, float, float]:
    """Centre and standard deviation of a line in A, and the derivative of the latter by the variance.

    ``rest`` in A, ``scale`` 1 + redshift, ``velocity`` in km/s, ``variance`` in km2/s2 without the instrument's.
    """
    unshifted = rest * scale
    channel = min(max(int(np.searchsorted(edges, unshifted)) - 1, 0), lsf.size - 1)
    widening = (unshifted / SPEED_OF_LIGHT) ** 2
    sigma = math.sqrt(max(lsf[channel] ** 2 + variance * widening, LEAST_SIGMA**2))
    return unshifted * (1.0 + velocity / SPEED_OF_LIGHT), sigma, widening / (2.0 * sigma)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_profile(
    edges: Float, low: int, high: int, centre: float, sigma: float, factor: float,
    by_flux: Float, by_centre: Float, by_sigma: Float,
) -> None:  # fmt: skip
    """Add a Gaussian of flux ``factor``, averaged over each channel, and its derivatives, to channels low ... high - 1.

    ``edges`` are the (n_wave + 1,) borders of the channels; the outputs start at channel ``low``.
    """
    first = max(low, int(np.searchsorted(edges, centre - REACH * sigma)) - 1)
    last = min(high, int(np.searchsorted(edges, centre + REACH * sigma)) + 1)
    if first >= last:
        return
    x = (edges[first] - centre) / sigma
    total, density = 0.5 * math.erf(x / ROOT_TWO), math.exp(-0.5 * x * x) / (ROOT_TWO_PI * sigma)
    slope = x * density
    for channel in range(first, last):
        x = (edges[channel + 1] - centre) / sigma
        next_total, next_density = (
            0.5 * math.erf(x / ROOT_TWO),
            math.exp(-0.5 * x * x) / (ROOT_TWO_PI * sigma),
        )
        next_slope = x * next_density
        share = factor / (edges[channel + 1] - edges[channel])
        by_flux[channel - low] += share * (next_total - total)
        by_centre[channel - low] -= share * (next_density - density)
        by_sigma[channel - low] -= share * (next_slope - slope)
        total, density, slope = next_total, next_density, next_slope


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
