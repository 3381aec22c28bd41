"""Images at coarser and coarser resolutions, each with the errors its pixels really have."""

from __future__ import annotations

from typing import Any

import numpy as np

from skyloom.core.image import Image
from skyloom.core.line_maps import SHARED_ERRORS
from skyloom.core.provenance import step
from skyloom.core.units import adds_up
from skyloom.errors import InputError
from skyloom.store.levels.image_noise import coarse_correlation, neighbour_lags
from skyloom.store.levels.image_planes import Planes, halved, level_count
from skyloom.store.levels.image_psf import coarse_psf
from skyloom.store.levels.image_wcs import coarse_wcs
from skyloom.store.levels.single_precision import in_single_precision
from skyloom.store.observation import Level

__all__ = ["image_levels"]


def image_levels(image: Image, n_levels: int) -> tuple[Level[Image], ...]:
    """Make an image at several resolutions.

    Parameters
    ----------
    image : Image
    n_levels : int
        Resolutions wanted, level 0 included. Levels whose shorter side would have fewer than 4 pixels are not made.

    Returns
    -------
    tuple of Level
        Level 0 is the image itself in single precision; a pixel of level z is a block of ``2^z`` pixels on each side,
        beginning at the first pixel. Sides that are no multiple are filled up with masked pixels.

    Notes
    -----
    With n good pixels of level 0 behind each value of level z, and the sums over the 2 x 2 values of a block,

    ``value = f sum n_i value_i / sum n_i``,
    ``variance = f^2 sum_ij n_i n_j sqrt(v_i v_j) rho_z(x_i - x_j) / (sum n_i)^2``,

    f = 4 for what adds up, fluxes and counts (`skyloom.core.units.adds_up`), and 1 for brightnesses and for maps of
    velocities, ratios and the like. Masked is what has no good pixel. ``rho_z`` is the correlation of means over blocks
    of white or correlated noise (``docs/numbers.md``). Flags of good pixels are collected, shared errors averaged like
    values; the PSF and the WCS follow the pixels. Where the pixels of a bin share one error (`skyloom.core.line_maps`),
    the errors of blocks do not follow from theirs, and level 0 alone is made.

    Raises
    ------
    InputError
        When fewer than one level is wanted, or the correlation leaves no noise in a block.
    """
    if n_levels < 1:
        raise InputError(f"n_levels is {n_levels}; expected 1 or more", field="n_levels")
    base = in_single_precision(image)
    area = 4.0 if adds_up(base.unit) else 1.0
    planes = Planes(
        base.data[np.newaxis],
        base.variance[np.newaxis],
        base.mask[np.newaxis],
        (~base.mask).view(np.uint8)[np.newaxis],
        None if base.flags is None else base.flags[np.newaxis],
        tuple(
            mode if np.ndim(mode.map) == 0 else mode._replace(map=np.asarray(mode.map)[np.newaxis])
            for mode in base.modes
        ),
    )
    levels = [Level(base, planes.n_good[0])]
    independent = np.zeros(1)
    made = 1 if SHARED_ERRORS in base.meta else level_count(base.shape, n_levels)
    for level in range(1, made):
        planes = halved(planes, neighbour_lags(base.correlation, level - 1), independent, 1, area)
        levels.append(Level(_image(base, planes, level), planes.n_good[0]))
    return tuple(levels)


def _image(base: Image, planes: Planes, level: int) -> Image:
    return base.evolve_checked(
        step("coarsen", level=level, source_shape=list(base.shape)),
        meta=_coarse_meta(base.meta, level),
        data=planes.data[0],
        variance=planes.variance[0],
        mask=planes.mask[0],
        wcs=coarse_wcs(base.wcs, level),
        psf=coarse_psf(base.psf, level),
        correlation=coarse_correlation(base.correlation, level),
        flags=None if planes.flags is None else planes.flags[0],
        modes=tuple(
            mode if np.ndim(mode.map) == 0 else mode._replace(map=np.asarray(mode.map)[0])
            for mode in planes.modes
        ),
    )


def _coarse_meta(meta: dict[str, Any], level: int) -> dict[str, Any]:
    """Return what is told of an image, the times of its rows as those of rows of ``2^level`` pixels."""
    if "row_time" not in meta:
        return meta
    first, step_of_row = meta["row_time"]
    side = 2**level
    return meta | {"row_time": [first + 0.5 * (side - 1) * step_of_row, side * step_of_row]}
