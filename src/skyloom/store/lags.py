"""Correlations along wavelength as they lie in a file: of each pair of channels one number, in single precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.spectral_noise import lag_bands
from skyloom.errors import ShapeError

__all__ = ["pack_lags", "unpack_lags"]

Float = NDArray[np.float64]


def pack_lags(correlation: ArrayLike | None, n_wave: int) -> NDArray[np.float32]:
    """Return the upper half of a correlation along wavelength.

    Parameters
    ----------
    correlation : (k,) or (n_wave, k) array, optional
        Lags with k odd, ``lags[i, k // 2 + d]`` the correlation of channels i and i + d; None: independent.
    n_wave : int

    Returns
    -------
    (n_wave, r) float32 array
        ``upper[i, d - 1]`` is the correlation of channels i and i + d, d = 1 to r = k // 2; 0 beyond the end of the
        axis. r = 0 when the channels are independent. Columns of zeros may be added on the right for a common r.

    Raises
    ------
    ShapeError, InputError
        When it is no correlation of that many channels.
    """
    if correlation is None:
        return np.empty((n_wave, 0), np.float32)
    bands = lag_bands(correlation, n_wave)
    return np.ascontiguousarray(bands[:, bands.shape[1] // 2 + 1 :], dtype=np.float32)


def unpack_lags(upper: NDArray[Any]) -> Float | None:
    """Return the band of lags that `pack_lags` made the upper half of.

    Parameters
    ----------
    upper : (n_wave, r) float array
        Columns of zeros on the right are dropped.

    Returns
    -------
    (n_wave, 2 r + 1) float64 array or None
        None when the channels are independent.

    Raises
    ------
    ShapeError
        When ``upper`` does not have two dimensions.
    """
    if upper.ndim != 2:
        raise ShapeError(f"lags have shape {upper.shape}; expected (n_wave, r)", field="lags")
    n_wave = upper.shape[0]
    used = np.flatnonzero(upper.any(axis=0))
    if used.size == 0:
        return None
    radius = int(used[-1]) + 1
    lags = np.zeros((n_wave, 2 * radius + 1))
    lags[:, radius] = 1.0
    for lag in range(1, min(radius, n_wave - 1) + 1):
        lags[:-lag, radius + lag] = upper[:-lag, lag - 1]
        lags[lag:, radius - lag] = upper[:-lag, lag - 1]
    return lags
