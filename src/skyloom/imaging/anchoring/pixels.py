"""What the anchors need of images: one grid, one unit, the pixels usable in all, smooth variances, block sizes."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from skyloom.core import geometry
from skyloom.core.image import Image
from skyloom.errors import InputError, ShapeError, UnitError
from skyloom.imaging.grids.block_means import block_means

__all__ = [
    "Pixels",
    "binned_medians",
    "block_width",
    "check_grid",
    "common_pixels",
    "convert",
    "gathered",
    "smooth_values",
]

Array = NDArray[Any]
Float = NDArray[np.float64]
FEWEST_PIXELS = 200
SMOOTHING = 2.0
"""Sigma in pixels of the average that makes weights independent of a pixel's own noise."""
PSFS_PER_BLOCK = 5.0
"""Width of a block in FWHM: structure that the model misses is correlated over less."""
WITHOUT_PSF = 5.0
MANY_PIXELS = 60_000
"""Pixels above which an image is averaged over blocks before it is fitted."""
ENOUGH_PIXELS = 30_000
LARGEST_BLOCK = 0.75
"""Side of such a block in FWHM of the PSF: what is averaged away is not seen anyway."""


class Pixels(NamedTuple):
    """Pixels that are usable in all images: where, and how many were left out by the caller's mask."""

    used: NDArray[np.bool_]
    rows: Array
    columns: Array


def check_grid(image: Image, other: Image, name: str) -> None:
    """Raise unless both images lie on one grid.

    Raises
    ------
    ShapeError, InputError
    """
    if image.shape != other.shape:
        raise ShapeError(
            f"{name} has shape {other.shape}; expected {image.shape}, the grid of the image",
            field=name,
            remedy="reproject it to the grid of the image",
        )
    if (
        image.wcs is not None
        and other.wcs is not None
        and not geometry.same_grid(image.wcs, image.shape, other.wcs, other.shape, 0.01)
    ):
        raise InputError(
            f"{name} has the shape of the image but lies elsewhere on the sky",
            field=name,
            remedy="reproject it to the grid of the image",
        )


def convert(image: Image, unit: u.UnitBase, name: str) -> tuple[Array, Array]:
    """Return data and variance of ``image`` in ``unit``.

    Raises
    ------
    UnitError
        When its unit is of another kind.
    """
    try:
        factor = float(image.unit.to(unit))
    except u.UnitConversionError:
        raise UnitError(
            f"{name} is in {image.unit}; expected a unit that converts to {unit}",
            field=name,
            remedy="convert it first, per pixel or per area like the image",
        ) from None
    if factor == 1.0:
        return image.data, image.variance
    kind = image.data.dtype.type
    return image.data * kind(factor), image.variance * kind(factor**2)


def common_pixels(images: dict[str, Image], mask: NDArray[np.bool_] | None) -> Pixels:
    """Return the pixels that are usable in all images and not masked.

    Raises
    ------
    ShapeError
        When ``mask`` has another shape.
    InputError
        When too few are left, saying which image or mask takes them.
    """
    shape = next(iter(images.values())).shape
    used = np.ones(shape, dtype=bool)
    for image in images.values():
        used &= image.valid
    if mask is not None:
        excluded = np.asarray(mask, dtype=bool)
        if excluded.shape != shape:
            raise ShapeError(f"mask has shape {excluded.shape}; expected {shape}", field="mask")
        used &= ~excluded
    count = int(np.count_nonzero(used))
    if count < FEWEST_PIXELS:
        each = ", ".join(f"{name} has {int(image.valid.sum())}" for name, image in images.items())
        if mask is not None:
            each += f", the mask leaves {int(np.count_nonzero(~np.asarray(mask, dtype=bool)))}"
        raise InputError(
            f"the images share {count} usable pixels; at least {FEWEST_PIXELS} are needed ({each} of {used.size})",
            field="overlap",
            remedy="check that the images cover the same sky and that the mask is True where pixels must not be used",
        )
    rows, columns = np.nonzero(used)
    return Pixels(used, rows, columns)


def gathered(
    images: dict[str, Image], mask: NDArray[np.bool_] | None
) -> tuple[dict[str, Image], NDArray[np.bool_] | None, int]:
    """Average large images over blocks no larger than their PSF, over the pixels that all of them have.

    A fit that is linear in the pixels holds for their means as well, with errors that are hardly larger, in a fraction
    of the time. Variance and correlation are those of the means.

    Returns
    -------
    images, mask
        As they came when they are small, distorted, or the PSF is narrow.
    side : int
        Of the blocks, in pixels; 1: nothing was averaged.
    """
    pixels = common_pixels(images, mask)
    side = min(_widest_block(list(images.values())), math.ceil(math.sqrt(pixels.rows.size / ENOUGH_PIXELS)))
    if pixels.rows.size <= MANY_PIXELS or side < 2:
        return images, mask, 1
    left_out = ~pixels.used
    means = {}
    for name, image in images.items():
        mean = block_means(image.evolve(flags=None, modes=(), psf=None), side, mask=left_out)
        means[name] = mean.evolve(psf=image.psf)
    return means, None, side


def _widest_block(images: list[Image]) -> int:
    """Return the side of blocks that average nothing away."""
    if any(image.wcs is None or image.wcs.sip is not None for image in images):
        return 1
    widths = [image.psf.fwhm / image.pixel_scale for image in images if image.psf is not None]
    return int(LARGEST_BLOCK * max(widths, default=1.0))


def smooth_values(plane: Array, pixels: Pixels, sigma: float = SMOOTHING) -> Float:
    """Return the Gaussian average of the usable pixels around each of them, as a list."""
    values = np.where(pixels.used, plane, 0.0).astype(np.float32)
    share = gaussian_filter(pixels.used.astype(np.float32), sigma, mode="constant", truncate=3.0)
    smooth = gaussian_filter(values, sigma, mode="constant", truncate=3.0)
    return np.asarray(smooth[pixels.used] / share[pixels.used], dtype=np.float64)


def block_width(*images: Image) -> float:
    """Return the width of blocks in pixels that differ independently: several times the widest PSF."""
    width = 0.0
    for image in images:
        if image.psf is not None and image.wcs is not None:
            width = max(width, float(image.psf.fwhm) / image.pixel_scale)
    return PSFS_PER_BLOCK * (width or WITHOUT_PSF)


def binned_medians(reference: Float, values: Float, used: NDArray[np.bool_], unit: u.UnitBase) -> QTable:
    """Return medians and 16-84 % half widths of ``values`` in 24 bins of ``reference``, finer at the bright end."""
    x, y = reference[used], values[used]
    shares = np.unique(np.concatenate([np.linspace(0, 0.9, 16), 1.0 - np.geomspace(0.1, 0.002, 9), [1.0]]))
    edges = np.unique(np.quantile(x, shares))
    rows = []
    for low, high in pairwise(edges):
        member = (x >= low) & ((x < high) if high < edges[-1] else (x <= high))
        if not member.any():
            continue
        lower, median, upper = np.quantile(y[member], [0.16, 0.5, 0.84])
        rows.append((np.median(x[member]), median, (upper - lower) / 2, int(member.sum())))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4)
    table = QTable()
    table["reference"], table["image"], table["scatter"] = (columns[:, i] * unit for i in range(3))
    table["n_pixels"] = columns[:, 3].astype(int)
    return table
