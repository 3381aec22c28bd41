"""Grids derived from a grid: with a margin around it, with its pixels divided, or the window with most to see."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS, Sip
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core.geometry import celestial
from skyloom.core.image import Image

__all__ = ["derived_grid", "richest_window"]

WIDTHS = (1.5, 4.0)
"""Of the filters, in pixels, that look for structure."""


def derived_grid(
    wcs: WCS, shape: tuple[int, int], *, margin: int = 0, factor: int = 1
) -> tuple[WCS, tuple[int, int]]:
    """Return a grid with ``margin`` more pixels on every side, each divided into ``factor`` by ``factor``.

    Parameters
    ----------
    wcs : WCS
        Celestial, two-dimensional; distortions (SIP) are kept.
    shape : (ny, nx)
    margin : int
        In pixels of the given grid.
    factor : int

    Returns
    -------
    (WCS, (ny, nx))
        Pixel (x, y) of the given grid is the block that starts at ``factor * (x + margin)``,
        ``factor * (y + margin)``.
    """
    grid = wcs.deepcopy()

    def moved(position: object) -> np.ndarray:
        # Positions count from 1, so that the corner of the first pixel lies at 0.5.
        return (np.array(position, dtype=np.float64) + margin - 0.5) * factor + 0.5

    grid.wcs.crpix = moved(wcs.wcs.crpix)
    if wcs.wcs.has_cd():
        grid.wcs.cd = np.array(wcs.wcs.cd) / factor
    else:
        grid.wcs.cdelt = np.array(wcs.wcs.cdelt) / factor
    if wcs.sip is not None:
        order = np.add.outer(np.arange(10), np.arange(10))
        scaled = [
            None if terms is None else terms * float(factor) ** (1 - order[: len(terms), : len(terms)])
            for terms in (wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp)
        ]
        grid.sip = Sip(*scaled, moved(wcs.sip.crpix))
    grid.wcs.set()
    ny, nx = shape
    return grid, (factor * (ny + 2 * margin), factor * (nx + 2 * margin))


def richest_window(image: Image, used: NDArray[np.bool_], largest: int) -> tuple[Image, NDArray[np.bool_]]:
    """Cut out of a large image the window whose structures stand out most from the noise.

    Parameters
    ----------
    image : Image
    used : (ny, nx) bool array
        Pixels that count.
    largest : int
        Longest side of the window; images that are no larger stay as they are.

    Returns
    -------
    Image, bool array
        Window of both, without flags and shared errors.
    """
    if max(image.shape) <= largest or not used.any():
        return image, used
    values = np.where(used, image.data, np.median(image.data[used])).astype(np.float64)
    gradients = sum(ndimage.gaussian_gradient_magnitude(values, width) ** 2 for width in WIDTHS)
    worth = np.zeros(image.shape)
    # Roots, so that no single star decides.
    worth[used] = np.sqrt(gradients[used] / image.variance[used])
    total = np.pad(worth, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    height, width = (min(largest, side) for side in image.shape)
    sums = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    top, left = (int(index) for index in np.unravel_index(int(np.argmax(sums)), sums.shape))
    window = slice(top, top + height), slice(left, left + width)
    wcs = celestial(image.wcs).deepcopy()
    wcs.wcs.crpix = np.array(wcs.wcs.crpix) - [left, top]
    if wcs.sip is not None:
        wcs.sip = Sip(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, np.array(wcs.sip.crpix) - [left, top])
    wcs.wcs.set()
    planes = {name: getattr(image, name)[window] for name in ("data", "variance", "mask")}
    return image.evolve(wcs=wcs, flags=None, modes=(), **planes), used[window]
