"""The variance of a drift-scan frame from its sky, its calibration and the noise of its CCD, in one pass."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["frame_variance"]


@njit(cache=True, nogil=True, error_model="numpy")
def frame_variance(
    data: NDArray[np.float32],
    calibration: NDArray[np.float32],
    sky: NDArray[np.float32],
    lower: NDArray[np.int64],
    share: NDArray[np.float32],
    gain: float,
    dark_variance: float,
    variance: NDArray[np.float32],
    mask: NDArray[np.bool_],
    flags: NDArray[np.uint16],
    flag: np.uint16,
) -> tuple[int, int]:
    """Fill in variance and mask of a calibrated, sky-subtracted frame.

    With the counts ``n = data / calibration + sky``, the variance is
    ``calibration^2 (max(n, 0) / gain + dark_variance)``.

    Parameters
    ----------
    data : (ny, nx) float32 array
    calibration : (nx,) float32 array
        Of the data over counts; positive and finite.
    sky : (n_sky, nx) float32 array
        In counts, interpolated along the rows already.
    lower : (ny,) int64 array
        Row of ``sky`` below each row of the frame, at most ``n_sky - 2``.
    share : (ny,) float32 array
        How far each row is from that one towards the next, 0 to 1.
    gain, dark_variance : float
        Electrons per count; squared counts.
    variance, mask : (ny, nx) arrays
        Written here; the mask is True where the value is not finite.
    flags : (ny, nx) uint16 array
        Written here: ``flag`` where there are less than no counts, else 0.
    flag : uint16

    Returns
    -------
    masked, negative : int
        How many pixels are masked, and how many have less than no counts.
    """
    masked = 0
    negative = 0
    nx = calibration.size
    per_count = np.empty(nx, np.float32)
    scale = np.empty(nx, np.float32)
    for x in range(nx):
        per_count[x] = np.float32(1.0) / calibration[x]
        scale[x] = calibration[x] * calibration[x]
    slope = np.float32(1.0 / gain)
    floor = np.float32(dark_variance)
    zero = np.float32(0.0)
    for y in range(data.shape[0]):
        first = sky[lower[y]]
        second = sky[lower[y] + 1]
        weight = share[y]
        row = data[y]
        row_variance = variance[y]
        row_mask = mask[y]
        row_flags = flags[y]
        for x in range(nx):
            value = row[x]
            counts = value * per_count[x] + first[x] + weight * (second[x] - first[x])
            below = counts < zero
            electrons = zero if below else counts
            good = abs(value) < np.inf
            row_variance[x] = scale[x] * (electrons * slope + floor)
            row_mask[x] = not good
            row_flags[x] = flag if below & good else np.uint16(0)
            masked += int(not good)
            negative += int(below & good)
    return masked, negative
