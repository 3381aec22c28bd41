"""The PSF on the pixels of a coarser level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.core.psf import PSF, SampledPSF

__all__ = ["coarse_psf"]

Float = NDArray[np.float64]


def coarse_psf(psf: PSF | None, level: int) -> PSF | None:
    """Return the PSF of blocks of ``2^level`` pixels on each side.

    Whole pixels that are added integrate the light exactly as one large pixel does: nothing is blurred beyond the
    larger pixel. A profile before pixels integrate it stays the same therefore (`resampled_psf` would widen it: there,
    pixels are cut up). A `SampledPSF` has its pixels in it, and is added up over blocks about its centre.
    """
    if level == 0 or not isinstance(psf, SampledPSF):
        return psf
    side = 2**level
    return SampledPSF(_added(np.asarray(psf.array), side), np.asarray(psf.matrix) * side)


def _added(array: Float, side: int) -> Float:
    """Add up blocks of an even side of a centred odd array, the middle one about its centre."""
    from scipy.ndimage import map_coordinates

    centre = array.shape[0] // 2
    # The corner of the middle pixel is the centre of the middle block: the samples lie half-way between pixels.
    blocks = int(np.ceil((centre + 0.5) / side - 0.5))
    count = (2 * blocks + 1) * side
    places = np.arange(count) - (count - 1) / 2.0 + centre
    y, x = np.meshgrid(places, places, indexing="ij")
    fine = map_coordinates(array, [y, x], order=3, mode="constant")
    shape = (2 * blocks + 1, side, 2 * blocks + 1, side)
    return np.asarray(fine.reshape(shape).sum(axis=(1, 3)))
