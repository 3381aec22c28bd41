"""A smooth map of the sky from the levels of cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.errors import InputError
from skyloom.imaging.sky.sources import lower_envelope
from skyloom.imaging.sky.wings import fit_wings

__all__ = ["mesh_levels", "rough_mesh"]

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
    boxes = _boxes(data.shape, cells)
    levels = np.full(cells, np.nan)
    errors = np.full(cells, np.nan)
    for cell, box in boxes.items():
        inside = sky[box]
        number = int(np.count_nonzero(inside))
        if number >= max(20.0, SMALLEST_SHARE * inside.size):
            values = data[box][inside].astype(np.float64)
            fit = fit_wings(values, None, *lower_envelope(values), clip)
            levels[cell] = fit.level
            errors[cell] = fit.scatter / np.sqrt(max(1.0, number * min(independent, 1.0)))
    missing = np.isnan(levels)
    if missing.mean() > 0.5:
        raise InputError(
            f"{int(missing.sum())} of {missing.size} cells hold too little sky for a mesh",
            field="mesh_arcsec",
            remedy="use larger cells, or one constant level",
        )
    nearest = _nearest(missing)
    errors = np.where(missing, 2.0, 1.0) * errors[nearest]
    smooth = _interpolate(levels[nearest], data.shape, degree=3)
    error_map = _interpolate(errors, data.shape, degree=1)
    return smooth.astype(data.dtype), np.maximum(error_map, 0.5 * errors.min())


def rough_mesh(data: Array, usable: Mask, cells: tuple[int, int]) -> Array:
    """Return a map of the sky good enough to find sources on: lower envelopes of cells, median of 3 x 3 cells.

    Parameters
    ----------
    data : (ny, nx) array
    usable : (ny, nx) bool array
    cells : (int, int)
        Cells along y and x.

    Returns
    -------
    (ny, nx) array of the type of ``data``
    """
    levels = np.full(cells, np.nan)
    for cell, box in _boxes(data.shape, cells).items():
        values = data[box][usable[box]]
        if values.size >= max(20.0, SMALLEST_SHARE * usable[box].size):
            levels[cell] = lower_envelope(values)[0]
    missing = np.isnan(levels)
    if missing.all():
        return np.zeros(data.shape, dtype=data.dtype)
    # Extended on straight lines, so that the median keeps a gradient up to the border.
    extended = _extended(_extended(levels[_nearest(missing)], 0), 1)
    smooth = ndimage.median_filter(extended, size=3)[1:-1, 1:-1]
    return _interpolate(smooth, data.shape, degree=1).astype(data.dtype)


def _boxes(shape: tuple[int, ...], cells: tuple[int, int]) -> dict[tuple[int, int], tuple[slice, slice]]:
    """Return the pixels of each cell."""
    rows, columns = (_edges(size, number) for size, number in zip(shape, cells, strict=True))
    return {
        (row, column): (slice(rows[row], rows[row + 1]), slice(columns[column], columns[column + 1]))
        for row in range(cells[0])
        for column in range(cells[1])
    }


def _edges(size: int, number: int) -> NDArray[np.int64]:
    return np.linspace(0, size, number + 1).round().astype(np.int64)


def _nearest(missing: Mask) -> tuple[Array, ...]:
    """Index of the nearest cell that is there, for each cell."""
    if not missing.any():
        return tuple(np.indices(missing.shape))
    return tuple(ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True))


def _interpolate(values: Array, shape: tuple[int, ...], degree: int) -> Array:
    """Spline through cell centres, after adding one cell on each side by linear extrapolation."""
    from scipy.interpolate import RectBivariateSpline  # It takes long to load, and a constant does without.

    centres = []
    for axis, size in enumerate(shape):
        edges = _edges(size, values.shape[axis])
        centres.append(_extended(edges[:-1] + (np.diff(edges) - 1) / 2, 0))
    for axis in (0, 1):
        values = _extended(values, axis)
    degrees = [min(degree, size - 1) for size in values.shape]
    spline = RectBivariateSpline(*centres, values, kx=degrees[0], ky=degrees[1])
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
