"""How much of an object's light a broader PSF carries out of its mask."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.errors import ShapeError
from skyloom.imaging.psfs.stencil import Stencil

__all__ = ["estimate_lost_flux"]


def estimate_lost_flux(image: Image, stencil: Stencil, inside: NDArray[np.bool_]) -> float:
    """Return the share of the light inside a mask that a convolution moves out of it.

    Parameters
    ----------
    image : Image
        Sky-subtracted, before the convolution.
    stencil : Stencil
        The convolution kernel.
    inside : (ny, nx) bool array
        True on the object.

    Returns
    -------
    float
        ``1 - sum(in . (k conv (in . d))) / sum(in . d)``: the light inside is convolved by itself, and what falls
        outside is lost. NaN where the object has no positive flux. Light that comes in from neighbours is not counted.

    Raises
    ------
    ShapeError
        When ``inside`` has another shape than the image.
    """
    if inside.shape != image.shape:
        raise ShapeError(f"the mask has shape {inside.shape}; expected {image.shape}, that of the image")
    if stencil.is_identity:
        return 0.0
    used = inside & image.valid
    total = float(image.data[used].sum(dtype=np.float64))
    if not total > 0:
        return math.nan
    spread = stencil.convolve(np.ascontiguousarray(image.data), ~used)
    return float(1.0 - spread[inside].sum(dtype=np.float64) / total)
