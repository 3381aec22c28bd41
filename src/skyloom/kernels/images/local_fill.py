"""Values of single pixels from their neighbours: a Gaussian-weighted mean or plane, with the noise of its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["fill_pixels", "sharpness"]

Array = NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy")
def fill_pixels(
    data: Array,
    variance: Array,
    good: Array,
    rows: Array,
    columns: Array,
    sigma: float,
    radius: int,
    plane: bool,
    rho: Array,
) -> Array:
    """Predict pixels from the good ones around them.

    Parameters
    ----------
    data, variance : (ny, nx) arrays
    good : (ny, nx) bool array
        Pixels to predict from; the predicted pixel itself never counts.
    rows, columns : (n,) int64 arrays
        Pixels to predict.
    sigma : float
        Of the Gaussian weights, in pixels.
    radius : int
        Weights end there.
    plane : bool
        Fit a plane where the neighbours allow it; where they are few or lie on one side, and when False: the mean.
    rho : (k, k) float64 array
        Noise autocorrelation.

    Returns
    -------
    (n, 5) float64 array
        Value, variance of its noise, weighted mean square of the neighbours about the fit, weighted mean of the
        neighbours' variance, share of the kernel's weight that was good (0: the value is NaN).
    """
    room = (2 * radius + 1) ** 2
    weight, share = np.zeros(room), np.zeros(room)
    value, spread = np.zeros(room), np.zeros(room)
    place = np.zeros((room, 2), np.int64)
    out = np.zeros((rows.size, 5))
    everything = 0.0
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if 0 < dy * dy + dx * dx <= radius * radius:
                everything += np.exp(-0.5 * (dy * dy + dx * dx) / (sigma * sigma))
    for index in range(rows.size):
        n = 0
        for dy in range(-radius, radius + 1):
            y = rows[index] + dy
            if y < 0 or y >= data.shape[0]:
                continue
            for dx in range(-radius, radius + 1):
                x = columns[index] + dx
                distance = dy * dy + dx * dx
                if x < 0 or x >= data.shape[1] or distance == 0 or distance > radius * radius:
                    continue
                if good[y, x]:
                    weight[n] = np.exp(-0.5 * distance / (sigma * sigma))
                    place[n, 0], place[n, 1] = dy, dx
                    value[n], spread[n] = data[y, x], np.sqrt(variance[y, x])
                    n += 1
        if n == 0:
            out[index, 0] = np.nan
            continue
        total, scatter = _fit(weight, place, value, n, plane, share)
        typical = 0.0
        for i in range(n):
            out[index, 0] += share[i] * value[i]
            typical += weight[i] * spread[i] * spread[i]
        out[index, 1] = _noise(share, place, spread, n, rho)
        out[index, 2], out[index, 3] = scatter, typical / total
        out[index, 4] = total / everything
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _fit(weight: Array, place: Array, value: Array, n: int, plane: bool, share: Array) -> tuple[float, float]:
    """Fill ``share`` with each neighbour's weight in the value; return the sum of weights and the mean square left."""
    total, sum_x, sum_y, sum_xx, sum_yy, sum_xy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        w, dy, dx = weight[i], place[i, 0], place[i, 1]
        total += w
        sum_x += w * dx
        sum_y += w * dy
        sum_xx += w * dx * dx
        sum_yy += w * dy * dy
        sum_xy += w * dx * dy
    # The intercept of a weighted plane has the weights w (1 - a x - b y) / norm, (a, b) from the normal equations.
    determinant = sum_xx * sum_yy - sum_xy * sum_xy
    tilt_x, tilt_y, norm = 0.0, 0.0, total
    fitted = plane and n >= 5 and determinant > 1e-3 * (sum_xx + sum_yy) ** 2
    if fitted:
        tilt_x = (sum_x * sum_yy - sum_y * sum_xy) / determinant
        tilt_y = (sum_y * sum_xx - sum_x * sum_xy) / determinant
        norm = total - tilt_x * sum_x - tilt_y * sum_y
        if norm < 0.5 * total:
            # Neighbours on one side: a plane would extrapolate noise.
            fitted, tilt_x, tilt_y, norm = False, 0.0, 0.0, total
    mean, moment_x, moment_y = 0.0, 0.0, 0.0
    for i in range(n):
        share[i] = weight[i] * (1.0 - tilt_x * place[i, 1] - tilt_y * place[i, 0]) / norm
        mean += share[i] * value[i]
    slope_x, slope_y = 0.0, 0.0
    if fitted:
        for i in range(n):
            moment_x += weight[i] * place[i, 1] * (value[i] - mean)
            moment_y += weight[i] * place[i, 0] * (value[i] - mean)
        slope_x = (moment_x * sum_yy - moment_y * sum_xy) / determinant
        slope_y = (moment_y * sum_xx - moment_x * sum_xy) / determinant
    scatter = 0.0
    for i in range(n):
        residual = value[i] - mean - slope_x * place[i, 1] - slope_y * place[i, 0]
        scatter += weight[i] * residual * residual
    return total, scatter / total


@njit(cache=True, nogil=True, error_model="numpy")
def _noise(share: Array, place: Array, spread: Array, n: int, rho: Array) -> float:
    """Variance of the weighted sum of correlated neighbours."""
    reach = rho.shape[0] // 2
    total = 0.0
    for i in range(n):
        total += (share[i] * spread[i]) ** 2
        for j in range(i):
            dy, dx = place[i, 0] - place[j, 0], place[i, 1] - place[j, 1]
            if abs(dy) <= reach and abs(dx) <= reach:
                total += 2.0 * share[i] * share[j] * spread[i] * spread[j] * rho[dy + reach, dx + reach]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def sharpness(
    data: Array,
    variance: Array,
    valid: Array,
    rows: Array,
    columns: Array,
    background: Array,
    ratios: Array,
) -> Array:
    """Tell by how many sigma pixels are sharper than any source that passed through the PSF.

    Parameters
    ----------
    data, variance : (ny, nx) arrays
    valid : (ny, nx) bool array
    rows, columns : (n,) int64 arrays
        Pixels to judge.
    background : (n,) float64 array
        Level around each of them.
    ratios : (4,) float64 array
        Mean of two opposite neighbours over the pixel between them, the smallest that a point source can show:
        along x, along y, along both diagonals.

    Returns
    -------
    (n,) float64 array
        Largest significance over the directions in which both neighbours are valid; NaN when there is none.
    """
    step_y = (0, 1, 1, 1)
    step_x = (1, 0, 1, -1)
    out = np.full(rows.size, np.nan)
    for index in range(rows.size):
        y, x = rows[index], columns[index]
        for k in range(4):
            y1, x1, y2, x2 = y + step_y[k], x + step_x[k], y - step_y[k], x - step_x[k]
            if min(y1, y2, x1, x2) < 0 or max(y1, y2) >= data.shape[0] or max(x1, x2) >= data.shape[1]:
                continue
            if not (valid[y1, x1] and valid[y2, x2]):
                continue
            pair = 0.5 * (data[y1, x1] + data[y2, x2]) - background[index]
            excess = data[y, x] - background[index] - pair / ratios[k]
            noise = variance[y, x] * (1.0 + 0.5 / ratios[k] ** 2)
            found = excess / np.sqrt(noise)
            if not found <= out[index]:
                out[index] = found
    return out
