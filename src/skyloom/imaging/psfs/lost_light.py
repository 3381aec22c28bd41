"""Light of saturated stars that one of two images lacks, and the wings that it would have had outside the mask.

A star that saturates in a sharp image has lost light there, which the other image, of broader PSF, still has: under the
mask of the star, and as faint wings far beyond it. Compared with the sky these wings are small, but they cover a large
area, and a level fitted between the images would take them for a difference of the sky.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core.image import Image, Mode
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.errors import ShapeError

__all__ = ["add_lost_light", "find_lost_light"]

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
SIGNIFICANCE = 10.0
REACH = 15.0  # arcsec: beyond that the wings of a PSF are not known
WING_ERROR = 0.2
"""Relative error of the wings: that of a profile fitted to the cores and followed far outwards."""


def find_lost_light(image: Image, reference: Image, stars: Mask, psf: PSF) -> QTable:
    """Measure what ``reference`` has more than ``image`` under the masks of stars.

    Parameters
    ----------
    image, reference : Image
        On one grid, of one PSF and unit.
    stars : (ny, nx) bool array
        True on stars; connected pixels are one star.
    psf : PSF
        Of both images: the light under the mask is completed by the share of the PSF outside.

    Returns
    -------
    QTable
        ``x``, ``y`` in pixels and ``flux``, the sum over pixels in the unit of the image, of every star that lacks a
        significant amount.

    Raises
    ------
    ShapeError
        When the shapes differ.
    """
    if not image.shape == reference.shape == stars.shape:
        raise ShapeError(
            f"image, reference and stars have shapes {image.shape}, {reference.shape}, {stars.shape}",
            field="stars",
        )
    usable = image.valid & reference.valid
    difference = np.where(usable, reference.data - image.data, np.nan).astype(np.float64)
    sky = difference[usable & ~stars]
    level = float(np.median(sky)) if sky.size else 0.0
    variance = (image.variance + reference.variance).astype(np.float64)
    correlated = max(1.0, 1.0 if reference.correlation is None else float(reference.correlation.sum()))
    labels, number = ndimage.label(stars)
    rows = []
    for label, box in enumerate(ndimage.find_objects(labels, number), start=1):
        inside = (labels[box] == label) & usable[box]
        lost = np.where(inside, difference[box] - level, 0.0)
        flux = float(lost.sum())
        error = float(np.sqrt(correlated * variance[box][inside].sum()))
        if not flux > SIGNIFICANCE * error:
            continue
        y, x = np.indices(inside.shape)
        light = np.maximum(lost, 0.0)
        centre_y = float((light * y).sum() / light.sum()) + box[0].start
        centre_x = float((light * x).sum() / light.sum()) + box[1].start
        whole = np.zeros(inside.shape)
        _add_wings(whole, (box[0].start, box[1].start), image, psf, (centre_x, centre_y), 1.0)
        rows.append((centre_x, centre_y, flux / float(whole[inside].sum())))
    found = np.array(rows).reshape(-1, 3)
    return QTable({"x": found[:, 0], "y": found[:, 1], "flux": found[:, 2] * image.unit})


def add_lost_light(image: Image, lost: QTable, psf: PSF) -> Image:
    """Add what stars lack, with the PSF around each; its error is a shared mode.

    Parameters
    ----------
    image : Image
        On the grid that ``lost`` was measured on.
    lost : QTable
        From `find_lost_light`.
    psf : PSF
        Of the image.
    """
    if len(lost) == 0:
        return image
    added = np.zeros(image.shape)
    for row in lost:
        flux = row["flux"].to_value(image.unit)
        _add_wings(added, (0, 0), image, psf, (float(row["x"]), float(row["y"])), flux)
    return image.evolve(
        step("add_lost_light", stars=len(lost)),
        data=(image.data + added).astype(image.data.dtype),
        modes=(*image.modes, Mode("lost_light", added.astype(np.float32), WING_ERROR)),
    )


def _add_wings(
    plane: Float, corner: tuple[int, int], image: Image, psf: PSF, place: tuple[float, float], flux: float
) -> None:
    """Add the PSF of a star at (x, y) of an image, of this sum over all pixels within reach, to a part of it.

    ``corner``: row and column of the image at which the part begins.
    """
    half = int(np.ceil(REACH / image.pixel_scale))
    column, row = round(place[0]), round(place[1])
    stamp = _stamp(psf, image.pixel_matrix.tobytes(), 2 * half + 1, place[0] - column, place[1] - row)
    first_row, first_column = row - half - corner[0], column - half - corner[1]
    ny, nx = plane.shape
    top, left = max(0, first_row), max(0, first_column)
    bottom, right = min(ny, first_row + stamp.shape[0]), min(nx, first_column + stamp.shape[1])
    if bottom > top and right > left:
        plane[top:bottom, left:right] += (
            flux * stamp[top - first_row : bottom - first_row, left - first_column : right - first_column]
        )


@lru_cache(maxsize=64)
def _stamp(psf: PSF, matrix: bytes, side: int, x: float, y: float) -> Float:
    """Return the PSF around a position within a pixel; that of a star is asked for when measured and when added."""
    return psf.render(np.frombuffer(matrix).reshape(2, 2), side, (x, y))
