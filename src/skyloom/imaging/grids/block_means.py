"""Means over blocks of pixels: what `reproject` onto a grid of whole blocks would give, at a fraction of its time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Flag, Image, Mode
from skyloom.core.noise import resample_correlation
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.core.units import adds_up
from skyloom.errors import InputError
from skyloom.imaging.psfs.resampled_psf import resampled_psf

__all__ = ["MASKED_SHARE", "any_in_blocks", "block_means", "block_noise", "sum_blocks"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]
MASKED_SHARE = 0.5
"""Largest share of a block that may be masked."""


def block_means(image: Image, side: int, *, mask: Mask | None = None) -> Image:
    """Average an image over blocks of ``side`` by ``side`` pixels; rows and columns that fill no block are dropped.

    Parameters
    ----------
    image : Image
        Without distortions (SIP) in its WCS.
    side : int
    mask : (ny, nx) bool array, optional
        Pixels to leave out beyond the image's own: with the same mask, several images lose the same light.

    Returns
    -------
    Image
        Fluxes per pixel are summed, brightnesses averaged. The mean of the usable pixels stands for the block when at
        least half are usable; otherwise the block is masked. Variance: the noise gain of the mean times the mean
        variance, over the usable share. Flags, shared errors and correlation go along, and the PSF is widened.

    Raises
    ------
    InputError
        When the WCS has distortions, or the image has not one block.
    """
    if side == 1 and mask is None:
        return image
    if image.wcs is not None and image.wcs.sip is not None:
        raise InputError("the WCS has distortions (SIP); expected a linear one", field="wcs")
    if side < 1 or min(image.shape) < side:
        raise InputError(f"side is {side}; expected 1 to {min(image.shape)}", field="side")
    unusable = image.mask if mask is None else image.mask | mask
    usable = ~unusable
    whole = bool(usable.all())
    share = np.ones(_blocks(image.shape, side)) if whole else sum_blocks(usable, side) / side**2
    bad = share < 1.0 - MASKED_SHARE
    correlation, gain = block_noise(image.correlation, side)
    area = float(side**2) if adds_up(image.unit) else 1.0
    weight = np.where(bad, 0.0, 1.0 / (np.where(bad, 1.0, share) * side**2))

    def mean(plane: Array) -> Array:
        return np.asarray(sum_blocks(plane if whole else np.where(unusable, 0.0, plane), side) * weight)

    kind = image.data.dtype
    data, variance = mean(image.data) * area, mean(image.variance) * (gain * area**2 * weight * side**2)
    modes = tuple(_mode(mode, mean, area, kind) for mode in image.modes)
    flags = None if image.flags is None else any_in_blocks(image.flags, side)
    if not whole:
        flags = np.zeros(share.shape, np.uint16) if flags is None else flags
        flags[(share < 1.0) & ~bad] |= np.uint16(Flag.LOW_COVERAGE)
    return Image(
        np.where(bad, np.nan, data).astype(kind),
        np.where(bad, np.nan, variance).astype(image.variance.dtype),
        bad,
        image.unit,
        _coarse_wcs(image, side),
        psf=_psf(image, side),
        correlation=correlation,
        flags=flags,
        modes=modes,
        meta=dict(image.meta),
        history=(*image.history, step("block_means", side=side, source_shape=list(image.shape))),
    )


def _psf(image: Image, side: int) -> PSF | None:
    if image.psf is None or image.wcs is None:
        return None
    return resampled_psf(image.psf, image.pixel_matrix, side * image.pixel_matrix, "area")


def block_noise(correlation: Array | None, side: int) -> tuple[Array, float]:
    """Return the correlation of means over blocks, and their variance in units of that of a pixel."""
    middle = (side - 1) / 2.0
    return resample_correlation("area", side * np.eye(2), correlation, np.array([[middle, middle]]))


def sum_blocks(plane: Array, side: int) -> Array:
    """Return the sums over blocks, in double precision."""
    ny, nx = _blocks(plane.shape, side)
    cut = plane[: ny * side, : nx * side]
    rows = np.zeros((ny, nx * side))
    # Whole rows are added at once: sums over short axes are slow.
    for row in range(side):
        rows += cut[row::side]
    total = np.zeros((ny, nx))
    for column in range(side):
        total += rows[:, column::side]
    return total


def any_in_blocks(flags: Array, side: int) -> Array:
    """Return the bits that any pixel of a block has."""
    ny, nx = _blocks(flags.shape, side)
    total = np.zeros((ny, nx), flags.dtype)
    for row in range(side):
        for column in range(side):
            total |= flags[row : ny * side : side, column : nx * side : side]
    return total


def _blocks(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    return shape[0] // side, shape[1] // side


def _mode(mode: Mode, mean: Any, area: float, kind: np.dtype[Any]) -> Mode:
    if np.ndim(mode.map) == 0:
        return mode._replace(map=float(mode.map) * area)
    return mode._replace(map=(mean(np.asarray(mode.map)) * area).astype(kind))


def _coarse_wcs(image: Image, side: int) -> Any:
    if image.wcs is None:
        return None
    wcs = image.wcs.deepcopy()
    # Positions count from 1, so that the corner of the first pixel lies at 0.5.
    wcs.wcs.crpix = (np.array(wcs.wcs.crpix) - 0.5) / side + 0.5
    if wcs.wcs.has_cd():
        wcs.wcs.cd = np.array(wcs.wcs.cd) * side
    else:
        wcs.wcs.cdelt = np.array(wcs.wcs.cdelt) * side
    wcs.wcs.set()
    return wcs
