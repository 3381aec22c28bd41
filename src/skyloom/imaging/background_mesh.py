"""A smooth map of the sky from the levels of cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline

from skyloom.errors import InputError
from skyloom.imaging.sources import lower_envelope
from skyloom.imaging.wings import fit_wings

__all__ = ["mesh_levels"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]

SMALLEST_SHARE = 0.1  # Of a cell's pixels that must be sky.


def mesh_levels(
    data: Array, sky: Mask, cells: tuple[int, int], clip: float, independent: float
) -> tuple[Array, Array]:
    """Interpolate the sky of cells.

    Parameters
    ----------
    data : (ny, nx) array
    sky : (ny, nx) bool array
        True on sky pixels.
    cells : (int, int)
        Cells along y and x.
    clip : float
        Clipping of the sky pixels of a cell, in units of their scatter.
    independent : float
        Independent values per sky pixel; below 1 where noise is correlated.

    Returns
    -------
    levels, errors : (ny, nx) arrays, the first of the type of ``data``, both in its unit
        Bicubic through the cells' centres (linear beyond them), and standard errors.

    Raises
    ------
    InputError
        When fewer than half of the cells hold enough sky.

    Notes
    -----
    Cells with too little sky take the value of the nearest one, with twice its error.
    """
    ny, nx = data.shape
    edges_y, edges_x = (
        np.linspace(0, size, number + 1).round().astype(int)
        for size, number in zip(data.shape, cells, strict=True)
    )
    levels = np.full(cells, np.nan)
    errors = np.full(cells, np.nan)
    for row in range(cells[0]):
        for column in range(cells[1]):
            box = (slice(edges_y[row], edges_y[row + 1]), slice(edges_x[column], edges_x[column + 1]))
            inside = sky[box]
            number = int(np.count_nonzero(inside))
            if number >= max(20.0, SMALLEST_SHARE * inside.size):
                values = data[box][inside].astype(np.float64)
                fit = fit_wings(values, None, *lower_envelope(values), clip)
                levels[row, column] = fit.level
                errors[row, column] = fit.scatter / np.sqrt(max(1.0, number * min(independent, 1.0)))
    missing = np.isnan(levels)
    if missing.mean() > 0.5:
        raise InputError(
            f"{int(missing.sum())} of {missing.size} cells hold too little sky for a mesh",
            field="mesh_arcsec",
            remedy="use larger cells, or one constant level",
        )
    if missing.any():
        nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
        levels = levels[tuple(nearest)]
        errors = np.where(missing, 2.0, 1.0) * errors[tuple(nearest)]
    centres_y, centres_x = (edges[:-1] + (np.diff(edges) - 1) / 2 for edges in (edges_y, edges_x))
    smooth = _interpolate(levels, centres_y, centres_x, (ny, nx), degree=3)
    error_map = _interpolate(errors, centres_y, centres_x, (ny, nx), degree=1)
    return smooth.astype(data.dtype), np.maximum(error_map, 0.5 * errors.min())


def _interpolate(values: Array, y: Array, x: Array, shape: tuple[int, int], degree: int) -> Array:
    """Spline through cell centres, after adding one cell on each side by linear extrapolation."""
    for axis in (0, 1):
        values = _extended(values, axis)
    y, x = _extended(y, 0), _extended(x, 0)
    spline = RectBivariateSpline(y, x, values, kx=min(degree, y.size - 1), ky=min(degree, x.size - 1))
    return np.asarray(spline(np.arange(shape[0]), np.arange(shape[1])))


def _extended(values: Array, axis: int) -> Array:
    """Add one element before and after along ``axis``, on the line through the two outermost."""
    lines = np.moveaxis(values, axis, 0)
    if lines.shape[0] == 1:
        return np.moveaxis(
            np.concatenate([lines - (lines.ndim == 1), lines, lines + (lines.ndim == 1)]), 0, axis
        )
    first, last = 2 * lines[0] - lines[1], 2 * lines[-1] - lines[-2]
    return np.moveaxis(np.concatenate([first[None], lines, last[None]]), 0, axis)
