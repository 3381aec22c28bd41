"""Labels of regions on another grid: each pixel takes the label of the pixel in which its centre lies."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.labels import UNKNOWN, LabelMap
from skyloom.core.provenance import step
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import InputError
from skyloom.imaging.grids.pixel_map import PixelMap, pixel_map
from skyloom.kernels.images.label_grids import nearest_labels

__all__ = ["beyond_grid", "move_labels"]

Grid = tuple[WCS | None, tuple[int, int]]
ROWS = 256  # of the target that a thread fills at a time


def move_labels(labels: LabelMap, grid: Image | Grid) -> LabelMap:
    """Move labels to another grid by the WCS of both, without interpolating between labels.

    Parameters
    ----------
    labels : LabelMap
        With a WCS.
    grid : Image or (WCS, (ny, nx))
        Where they are to go.

    Returns
    -------
    LabelMap
        `skyloom.core.labels.UNKNOWN` where the grid reaches beyond the map. The WCS is evaluated on a coarse grid
        with splines in between (`skyloom.imaging.grids.pixel_map.pixel_map`), to 1e-6 of a pixel.

    Raises
    ------
    InputError
        When a WCS is missing, or map and grid do not overlap.
    """
    wcs, shape = _grid(grid)
    found = pixel_map(labels.wcs, labels.shape, wcs, shape)
    moved = np.full(shape, UNKNOWN, dtype=np.int32)
    if found.dense.size:
        _fill_dense(found, labels.labels, moved)
    else:
        values = np.ascontiguousarray(labels.labels)

        def fill(rows: slice) -> None:
            nearest_labels(found.coefficients, found.grid, found.window, values, rows.start, moved[rows])

        run_blocks(fill, blocks(shape[0], ROWS))
    if not np.any(moved != UNKNOWN):
        raise InputError(
            "the label map does not overlap the image",
            field="labels",
            remedy="check the WCS of both: is the map of another object?",
        )
    done = step("move_labels", from_shape=list(labels.shape), to_shape=list(shape))
    return labels.evolve(done, labels=moved, wcs=wcs)


def beyond_grid(labels: LabelMap, grid: Image | Grid) -> NDArray[np.bool_]:
    """Mark the pixels of a label map whose centres lie outside a grid.

    Parameters
    ----------
    labels : LabelMap
    grid : Image or (WCS, (ny, nx))

    Returns
    -------
    (ny, nx) bool array

    Raises
    ------
    InputError
        As by `move_labels`.
    """
    wcs, shape = _grid(grid)
    inside = LabelMap(np.zeros(shape, dtype=np.int32), wcs)
    return np.asarray(move_labels(inside, (labels.wcs, labels.shape)).labels == UNKNOWN)


def _grid(grid: Image | Grid) -> Grid:
    return (grid.wcs, grid.shape) if isinstance(grid, Image) else grid


def _fill_dense(found: PixelMap, labels: NDArray[np.int32], moved: NDArray[np.int32]) -> None:
    """Fill the window where the place of every pixel was computed; NaN where the projection does not reach."""
    top, bottom, left, right = (int(edge) for edge in found.window)
    ny, nx = labels.shape
    with np.errstate(invalid="ignore"):  # NaN lies nowhere, which is what the comparisons say.
        x, y = np.floor(found.dense[0] + 0.5), np.floor(found.dense[1] + 0.5)
        seen = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
    part = moved[top:bottom, left:right]
    part[seen] = labels[y[seen].astype(np.intp), x[seen].astype(np.intp)]
