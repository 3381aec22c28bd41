"""Grids derived from a grid: with a margin around it, or with its pixels divided."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS, Sip

__all__ = ["derived_grid"]


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
