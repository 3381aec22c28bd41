"""Naive twins of the kernels of the readers."""

from __future__ import annotations

import math

import numpy as np


def finish_voxels(
    data: np.ndarray, error: np.ndarray, mask: np.ndarray, kind: str, floor: float
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """Variance, mask and counts, voxel by voxel, in double precision."""
    variance, bad = np.empty(data.size), np.empty(data.size, bool)
    negative = valued = known = 0
    for i in range(data.size):
        value = float(error[i])
        negative += value < 0
        if kind == "variance":
            variance[i] = value
        elif kind == "sigma":
            variance[i] = value * value if value > 0 else 0.0
        else:
            variance[i] = 1.0 / value if value > 0 else 0.0
        good = math.isfinite(variance[i]) and 0 < variance[i] < floor**2
        finite = math.isfinite(float(data[i]))
        valued, known = valued + finite, known + good
        bad[i] = mask[i] or not (good and finite)
    return variance, bad, (negative, valued, known)
