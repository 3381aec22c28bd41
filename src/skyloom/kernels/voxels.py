"""From the numbers of a file to variance and mask, in one pass over a block that fits the cache."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["KINDS", "finish_voxels"]

KINDS = ("variance", "sigma", "inverse_variance")


@njit(cache=True, nogil=True, error_model="numpy")
def finish_voxels(
    data: NDArray[np.float32],
    error: NDArray[np.float32],
    mask: NDArray[np.bool_],
    kind: int,
    floor: float,
) -> tuple[int, int, int]:
    """Turn errors into variances and complete the mask, both in place.

    Parameters
    ----------
    data : (n,) float32 array
    error : (n,) float32 array
        Variance, standard deviation or inverse variance on entry; the variance on return.
    mask : (n,) bool array
        True = unusable; voxels without a finite value or a positive, finite variance are added.
    kind : int
        Index into `KINDS`.
    floor : float
        Standard deviations of this and more mean that a voxel is bad; infinity for none.

    Returns
    -------
    negative, valued, known : int
        How many errors are negative, how many values are finite, and how many errors positive and finite.
    """
    negative = 0
    valued = 0
    known = 0
    largest = np.float32(floor) * np.float32(floor)
    for i in range(data.size):
        value = error[i]
        negative += int(value < 0)
        if kind == 1:
            variance = value * value if value > 0 else np.float32(0.0)
        elif kind == 2:
            variance = np.float32(1.0) / value if value > 0 else np.float32(0.0)
        else:
            variance = value
        error[i] = variance
        good = (variance > 0) & (variance < largest)
        finite = abs(data[i]) < np.inf
        known += int(good)
        valued += int(finite)
        mask[i] = mask[i] | (not (good & finite))
    return negative, valued, known
