"""From the numbers of a file to variance and mask, in one pass over a block that fits the cache."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["KINDS", "decode_voxels", "finish_voxels"]

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


@njit(cache=True, nogil=True, error_model="numpy")
def decode_voxels(
    stored_data: NDArray[np.uint32],
    stored_variance: NDArray[np.uint32],
    data: NDArray[np.uint32],
    variance: NDArray[np.uint32],
    mask: NDArray[np.bool_],
) -> bool:
    """Bring big-endian float32 values and variances into native order and complete the mask, in one pass.

    Everything is done on the bits: as integers, positive floats have the order of their values, those from 0x7F800000
    on are infinite or NaN, and those with the highest bit are negative. So the loop has no branches and no comparison
    that a NaN could upset.

    Parameters
    ----------
    stored_data, stored_variance : (n,) uint32 arrays
        Bytes of the file.
    data, variance : (n,) uint32 arrays
        Views of float32 arrays, written here.
    mask : (n,) bool array
        True = unusable; voxels without a finite value or a positive, finite variance are added.

    Returns
    -------
    bool
        Whether a variance may be negative (a NaN or zero with the highest bit set counts too).
    """
    highest = np.uint32(0)
    infinity = np.uint32(0x7F800000)
    for i in range(data.size):
        value = stored_data[i]
        # Operations on 32 bits give 64 in compiled code; what is shifted out on top must go.
        value = np.uint32(
            (value >> np.uint32(24))
            | ((value >> np.uint32(8)) & np.uint32(0xFF00))
            | ((value << np.uint32(8)) & np.uint32(0xFF0000))
            | (value << np.uint32(24))
        )
        error = stored_variance[i]
        error = np.uint32(
            (error >> np.uint32(24))
            | ((error >> np.uint32(8)) & np.uint32(0xFF00))
            | ((error << np.uint32(8)) & np.uint32(0xFF0000))
            | (error << np.uint32(24))
        )
        data[i] = value
        variance[i] = error
        highest |= error
        # Zero wraps around to the greatest integer: one comparison for zero, negative, infinite and NaN.
        mask[i] |= (np.uint32(error - np.uint32(1)) >= infinity - np.uint32(1)) | (
            (value & infinity) == infinity
        )
    return (highest >> np.uint32(31)) != np.uint32(0)
