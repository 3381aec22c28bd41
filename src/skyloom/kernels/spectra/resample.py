"""Overlap-weighted resampling along wavelength, channel by channel over tiles of spaxels.

The weights of an output channel are few and the same for all spaxels, so the loops run over neighbouring spaxels of one
channel: contiguous memory, whole vectors, sums in double precision. A tile's input channels are still in the cache when
the next output channel needs them again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["resample_channels"]

Array = NDArray[Any]
TILE = 1024


@njit(cache=True, nogil=True, error_model="numpy")
def resample_channels(
    data: Array,
    variance: Array,
    mask: NDArray[np.bool_],
    first: NDArray[np.int64],
    weights: NDArray[np.float64],
    bands: NDArray[np.float64],
    start: int,
    stop: int,
    out_data: Array,
    out_variance: Array,
    out_mask: NDArray[np.bool_],
) -> None:  # pragma: no cover - compiled
    """Fill spaxels ``start`` to ``stop`` of the results.

    Parameters
    ----------
    data, variance : (n_wave, n) float arrays
    mask : (n_wave, n) bool array
    first : (n_out,) int64 array
        First input channel of each output channel.
    weights : (n_out, m) float64 array
        Weights of input channels ``first`` to ``first + m - 1``; those that are 0 do not count. A row of zeros is an
        output channel that is masked.
    bands : (n_wave, k) float64 array
        Correlations of the input, k odd; k = 1 for independent channels.
    start, stop : int
    out_data, out_variance : (n_out, n) float arrays
        NaN where masked.
    out_mask : (n_out, n) bool array
        True where any input that counts is masked.
    """
    n_out, taps = weights.shape
    radius = bands.shape[1] // 2
    values, errors, hidden = np.empty(TILE), np.empty(TILE), np.empty(TILE, np.bool_)
    for low in range(start, stop, TILE):
        size = min(TILE, stop - low)
        for j in range(n_out):
            values[:] = 0.0
            errors[:] = 0.0
            hidden[:] = True
            used = 0
            for a in range(taps):
                weight = weights[j, a]
                if weight == 0.0:
                    continue
                channel = first[j] + a
                source, bad = data[channel, low : low + size], mask[channel, low : low + size]
                spread = variance[channel, low : low + size]
                if used == 0:
                    hidden[:] = False
                used += 1
                for i in range(size):
                    values[i] += weight * source[i]
                    errors[i] += weight * weight * spread[i]
                    hidden[i] |= bad[i]
                for lag in range(1, min(radius, taps - 1 - a) + 1):
                    pair = 2.0 * weight * weights[j, a + lag]
                    if pair == 0.0:
                        continue
                    pair *= bands[channel, radius + lag]
                    other = variance[channel + lag, low : low + size]
                    for i in range(size):
                        errors[i] += pair * np.sqrt(np.float64(spread[i]) * np.float64(other[i]))
            to_data, to_variance = out_data[j, low : low + size], out_variance[j, low : low + size]
            to_mask = out_mask[j, low : low + size]
            for i in range(size):
                to_data[i] = np.nan if hidden[i] else values[i]
                to_variance[i] = np.nan if hidden[i] else errors[i]
                to_mask[i] = hidden[i]
