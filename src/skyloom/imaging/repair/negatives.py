"""Negative outliers of an image filled from their neighbours, without clipping the noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core.image import Flag, Image
from skyloom.core.provenance import step
from skyloom.errors import InputError
from skyloom.imaging.repair.local_fill import fill_from_neighbours
from skyloom.imaging.sky.sources import lower_envelope

__all__ = ["find_negatives", "repair_negatives"]

Mask = NDArray[np.bool_]
Method = Literal["outliers", "nonpositive"]
NEIGHBOURS = np.ones((3, 3), dtype=bool)
SAMPLE = 400_000  # Pixels that suffice for a median absolute deviation to 0.2 %.


def repair_negatives(
    image: Image,
    *,
    method: Method = "outliers",
    thresholds: Sequence[float] = (3.0, 5.0),
    kernel_arcsec: float | None = None,
) -> Image:
    """Replace negative outliers by what their neighbours lead one to expect.

    Parameters
    ----------
    image : Image
        With its sky subtracted: what is wrong is being far below zero.
    method : {"outliers", "nonpositive"}
        "outliers": pixels far below zero, compared with the scatter of the image. "nonpositive": every pixel <= 0, as
        some pipelines have it. **The latter clips the noise on one side**: each empty pixel that is negative becomes
        a mean of positive ones, and the mean of an empty sky rises by about one sigma. Use it for display only.
    thresholds : one or two floats
        In units of the scatter (1.4826 times the median absolute deviation of data over noise): pixels below minus the
        second are outliers, and so are pixels below minus the first that are connected with one of these; a single
        number stands for both. Where all pixels beyond it are replaced, the mean of Gaussian noise rises by 1.5e-6,
        1.3e-4 and 4.4e-3 sigma of a pixel for 5, 4 and 3: below 4 it is the noise that is clipped.
    kernel_arcsec : float, optional
        Sigma of the Gaussian weights of the neighbours. None: 1.5 pixels.

    Returns
    -------
    Image
        Replaced pixels are flagged ``Flag.NEGATIVE | Flag.INTERPOLATED``. Their variance is that of the weighted sum of
        the neighbours, correlation included, plus their scatter, and never below what the pixel had. Pixels with too
        few good neighbours within two widths of the kernel keep their value and are flagged ``Flag.NEGATIVE``. Masked
        pixels stay masked. The history holds the numbers, and by how much the mean of the image changed.

    Raises
    ------
    InputError
        When a threshold, the method or the kernel is not usable, or all pixels are masked.
    """
    if kernel_arcsec is not None and not kernel_arcsec > 0:
        raise InputError(f"kernel_arcsec is {kernel_arcsec}; expected > 0", field="kernel_arcsec")
    sigma = 1.5 if kernel_arcsec is None else kernel_arcsec / image.pixel_scale
    negative, scatter = _find(image, method, thresholds)
    fill = fill_from_neighbours(
        image, negative, image.valid & ~negative, sigma=sigma, plane=False, least=0.2, widest=2
    )
    data, variance = image.data.copy(), image.variance.copy()
    flags = np.zeros(image.shape, np.uint16) if image.flags is None else image.flags.copy()
    place = fill.rows[fill.found], fill.columns[fill.found]
    change = float(np.sum(fill.value[fill.found] - data[place]) / np.count_nonzero(image.valid))
    data[place] = fill.value[fill.found]
    variance[place] = np.maximum(fill.variance[fill.found], variance[place])
    flags[negative] |= np.uint16(Flag.NEGATIVE)
    flags[place] |= np.uint16(Flag.INTERPOLATED)
    record = step(
        "repair_negatives",
        method=method,
        thresholds=list(thresholds) if method == "outliers" else None,
        scatter=scatter,
        kernel_pixels=float(sigma),
        pixels=int(np.count_nonzero(negative)),
        interpolated=int(np.count_nonzero(fill.found)),
        mean_change=change,
    )
    return image.evolve(record, data=data, variance=variance, flags=flags)


def find_negatives(
    image: Image, *, method: Method = "outliers", thresholds: Sequence[float] = (3.0, 5.0)
) -> Mask:
    """Return the (ny, nx) bool array that is True on the pixels which `repair_negatives` replaces.

    The parameters are those of `repair_negatives`.
    """
    return _find(image, method, thresholds)[0]


def _find(image: Image, method: Method, thresholds: Sequence[float]) -> tuple[Mask, float | None]:
    """Return the negative pixels, and the scatter of the image over its claimed noise."""
    if method not in ("outliers", "nonpositive"):
        raise InputError(f"method is {method!r}; expected 'outliers' or 'nonpositive'", field="method")
    if not image.valid.any():
        raise InputError("all pixels are masked", field="mask")
    if method == "nonpositive":
        return image.valid & (np.where(image.mask, 1, image.data) <= 0), None
    low, high = (thresholds[0], thresholds[-1]) if len(thresholds) in (1, 2) else (np.nan, np.nan)
    if not 0 < low <= high < np.inf:
        raise InputError(
            f"thresholds are {tuple(thresholds)}; expected one, or two that ascend, > 0",
            field="thresholds",
            remedy="(3, 5): from 5 sigma on, with the pixels connected to these from 3 sigma on",
        )
    significance = np.zeros(image.shape, dtype=np.float32)
    np.divide(image.data, np.sqrt(image.variance, where=image.valid, out=np.ones_like(image.variance)),
              out=significance, where=image.valid, casting="same_kind")  # fmt: skip
    # 1.4826 times the median absolute deviation of the lower half: nebulae widen the upper one.
    values = significance[image.valid]
    scatter = lower_envelope(values[:: max(1, values.size // SAMPLE)])[1]
    if not scatter > 0:
        return np.zeros(image.shape, dtype=bool), 0.0
    deep = significance < -high * scatter
    connected = significance < -low * scatter
    return np.asarray(ndimage.binary_propagation(deep, NEIGHBOURS, connected)), scatter
