"""One spectrum on another grid, and halved, each with the lags of its own covariance.

A spectrum's lags depend on its own variance: where a sky line is beside a quiet channel, the share of noise that two
pixels have in common is another one than in a spectrum without it. So the covariance of near pixels is summed from the
input's own standard deviations, nothing typical, and no channel far apart is ever looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["halve_beside", "halve_spectrum", "largest_lags", "regrid_beside", "regrid_spectrum"]

Array = NDArray[Any]
Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
Flags = NDArray[np.uint16]


@njit(cache=True, nogil=True, error_model="numpy")
def _covariance(
    j: int, k: int, first: NDArray[np.int64], weights: Float, spread: Float, bands: Float
) -> float:  # pragma: no cover - compiled
    """Covariance of output pixels j <= k; of each pair of lags the upper one is read."""
    taps, radius = weights.shape[1], bands.shape[1] // 2
    total = 0.0
    for a in range(taps):
        left = first[j] + a
        share = weights[j, a] * spread[left]
        if share == 0.0:
            continue
        inner = 0.0
        for b in range(max(0, left - radius - first[k]), min(taps, left + radius + 1 - first[k])):
            right = first[k] + b
            rho = 1.0
            if right != left:
                rho = bands[min(left, right), radius + abs(right - left)]
            inner += weights[k, b] * spread[right] * rho
        total += share * inner
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def regrid_spectrum(
    data: Array,
    variance: Array,
    mask: Mask,
    scale: Float,
    first: NDArray[np.int64],
    weights: Float,
    bands: Float,
    out_data: Array,
    out_variance: Array,
    out_mask: Mask,
    out_lags: Float,
) -> None:  # pragma: no cover - compiled
    """Fill the planes and the lags of one spectrum on another grid.

    Parameters
    ----------
    data, variance : (n_wave,) float arrays
    mask : (n_wave,) bool array
    scale : (n_wave,) float64 array
        What values (not variances) are multiplied by first.
    first : (n_out,) int64 array
        First input channel of each output channel.
    weights : (n_out, m) float64 array
        Weights of input channels ``first`` to ``first + m - 1``. A row of zeros is an output channel that is masked.
    bands : (n_wave, k) float64 array
        Correlations of the input, k odd; k = 1 for independent channels.
    out_data, out_variance : (n_out,) float arrays
        NaN where masked.
    out_mask : (n_out,) bool array
        True where an input that counts is masked, and where the result is no number with an error.
    out_lags : (n_out, q) float64 array
        Correlations of the output, q odd, wide enough for all pixels that share noise. 0 where one is masked.
    """
    n_out = first.size
    reach = out_lags.shape[1] // 2
    spread = np.zeros(data.size)
    for i in range(data.size):
        if not mask[i]:
            spread[i] = scale[i] * np.sqrt(np.float64(variance[i]))
    for j in range(n_out):
        out_data[j] = _value(data, mask, scale, first[j], weights[j])
        out_variance[j] = _covariance(j, j, first, weights, spread, bands)
        out_lags[j, reach] = 1.0
    _hide(out_data, out_variance, out_mask)
    for j in range(n_out):
        for lag in range(1, min(reach, n_out - 1 - j) + 1):
            if out_mask[j] or out_mask[j + lag]:
                continue
            common = _covariance(j, j + lag, first, weights, spread, bands)
            rho = common / np.sqrt(np.float64(out_variance[j]) * np.float64(out_variance[j + lag]))
            out_lags[j, reach + lag] = rho
            out_lags[j + lag, reach - lag] = rho


@njit(cache=True, nogil=True, error_model="numpy")
def _value(
    data: Array, mask: Mask, scale: Float, first: int, weights: Float
) -> float:  # pragma: no cover - compiled
    """Weighted sum; NaN where a channel that counts is masked, or none counts."""
    value, used = 0.0, False
    for a in range(weights.size):
        if weights[a] != 0.0:
            if mask[first + a]:
                return np.nan
            used = True
            value += weights[a] * scale[first + a] * data[first + a]
    return value if used else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _hide(data: Array, variance: Array, mask: Mask) -> None:  # pragma: no cover - compiled
    """Mask what is no number with an error; sees to it that no usable channel is anything else."""
    for j in range(data.size):
        mask[j] = not (np.isfinite(data[j]) and variance[j] > 0.0 and variance[j] < np.inf)
        if mask[j]:
            data[j] = np.nan
            variance[j] = np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def regrid_beside(
    squares: Float,
    flags: Flags,
    first: NDArray[np.int64],
    weights: Float,
    out_squares: Float,
    out_flags: Flags,
) -> None:  # pragma: no cover - compiled
    """Fill what goes with one spectrum on another grid.

    Parameters
    ----------
    squares : (n_wave,) or (0,) float64 array
        Averaged with the weights, masked or not; of no channels: left out.
    flags : (n_wave,) or (0,) uint16 array
        Collected from all channels that count; of no channels: left out.
    first : (n_out,) int64 array
    weights : (n_out, m) float64 array
    out_squares : (n_out,) float64 array
    out_flags : (n_out,) uint16 array
    """
    for j in range(first.size):
        square, flag = 0.0, np.uint16(0)
        for a in range(weights.shape[1]):
            if weights[j, a] != 0.0:
                if squares.size:
                    square += weights[j, a] * squares[first[j] + a]
                if flags.size:
                    flag |= flags[first[j] + a]
        out_squares[j] = square
        out_flags[j] = flag


@njit(cache=True, nogil=True, error_model="numpy")
def halve_spectrum(
    data: Array,
    variance: Array,
    width: Float,
    bands: Float,
    out_data: Array,
    out_variance: Array,
    out_width: Float,
    out_mask: Mask,
    out_lags: Float,
) -> None:  # pragma: no cover - compiled
    """Join pairs of channels: the mean of what is good in them, with its covariance.

    Parameters
    ----------
    data, variance : (n,) float arrays
    width : (n,) float64 array
        Wavelengths behind each channel that are good; 0 where it is masked.
    bands : (n, k) float64 array
        Correlations, k odd.
    out_data, out_variance : (m,) float arrays, m = (n + 1) // 2
        NaN where masked. The second half of an odd last pair counts as masked.
    out_width : (m,) float64 array
    out_mask : (m,) bool array
    out_lags : (m, q) float64 array
        Correlations, q odd; q // 2 = (k // 2 + 1) // 2 holds them all.
    """
    n, m = data.size, out_data.size
    reach = out_lags.shape[1] // 2
    spread = np.zeros(n)
    for j in range(m):
        low, high = 2 * j, min(2 * j + 2, n)
        out_width[j] = np.sum(width[low:high])
        value = 0.0
        for i in range(low, high):
            if width[i] > 0.0:
                share = width[i] / out_width[j]
                value += share * data[i]
                spread[i] = share * np.sqrt(np.float64(variance[i]))
        out_data[j] = value
        out_variance[j] = _pair_covariance(j, j, spread, bands)
        out_lags[j, reach] = 1.0
    _hide(out_data, out_variance, out_mask)
    for j in range(m):
        if out_mask[j]:
            out_width[j] = 0.0
            continue
        for lag in range(1, min(reach, m - 1 - j) + 1):
            if out_mask[j + lag]:
                continue
            common = _pair_covariance(j, j + lag, spread, bands)
            rho = common / np.sqrt(np.float64(out_variance[j]) * np.float64(out_variance[j + lag]))
            out_lags[j, reach + lag] = rho
            out_lags[j + lag, reach - lag] = rho


@njit(cache=True, nogil=True, error_model="numpy")
def _pair_covariance(j: int, k: int, spread: Float, bands: Float) -> float:  # pragma: no cover - compiled
    """Covariance of the means of pairs j <= k."""
    n, radius = spread.size, bands.shape[1] // 2
    total = 0.0
    for left in range(2 * j, min(2 * j + 2, n)):
        for right in range(2 * k, min(2 * k + 2, n)):
            low, lag = min(left, right), abs(right - left)
            if lag <= radius:
                total += spread[left] * spread[right] * bands[low, radius + lag]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def halve_beside(
    squares: Float,
    flags: Flags,
    n_good: Flags,
    out_mask: Mask,
    out_squares: Float,
    out_flags: Flags,
    out_n_good: Flags,
) -> None:  # pragma: no cover - compiled
    """Fill what goes with a halved spectrum.

    Parameters
    ----------
    squares : (n,) or (0,) float64 array
        Averaged, masked or not, so that the mean is smooth; beside one that is no number the other one counts.
    flags : (n,) or (0,) uint16 array
        Collected from what is good in a pair; from all of it where none is.
    n_good : (n,) uint16 array
        Pixels behind each channel; 0 where it is masked.
    out_mask : (m,) bool array
    out_squares : (m,) float64 array
    out_flags, out_n_good : (m,) uint16 arrays
    """
    for j in range(out_mask.size):
        total, used, flag, count = 0.0, 0, np.uint16(0), 0
        for i in range(2 * j, min(2 * j + 2, n_good.size)):
            count += n_good[i]
            if squares.size and np.isfinite(squares[i]):
                total += squares[i]
                used += 1
            if flags.size and (out_mask[j] or n_good[i] > 0):
                flag |= flags[i]
        out_squares[j] = total / used if used > 0 else np.nan
        out_flags[j] = flag
        out_n_good[j] = 0 if out_mask[j] else count


@njit(cache=True, nogil=True, error_model="numpy")
def largest_lags(lags: Float) -> Float:  # pragma: no cover - compiled
    """Return the largest size of each lag above 0 in all channels: (k // 2,) of (n, k), k odd; NaN counts as none."""
    radius = lags.shape[1] // 2
    sizes = np.zeros(radius)
    for j in range(lags.shape[0]):
        for lag in range(radius):
            size = abs(lags[j, radius + 1 + lag])
            if size > sizes[lag]:
                sizes[lag] = size
    return sizes
