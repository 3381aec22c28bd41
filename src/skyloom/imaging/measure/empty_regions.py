"""What empty regions of an image say of its claimed errors."""

from __future__ import annotations

from typing import NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.labels import NO_REGION
from skyloom.core.noise import region_variances
from skyloom.errors import ShapeError
from skyloom.imaging.measure.comparison import MAD_ERROR, scatter_of

__all__ = ["EmptyRegions", "empty_regions"]

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
TILE = 480
MOST_TILES = 24
FARTHEST = 12
"""Pixels between a box and its neighbours at most, however far the correlation reaches."""


class EmptyRegions(NamedTuple):
    """What sums over boxes in source-free areas say of the claimed errors.

    Parameters
    ----------
    table : QTable
        A row per size: ``size`` (pixels along a side), ``n_boxes``, ``scatter`` and ``claimed`` of the sums,
        ``ratio`` of the two (1: the errors are right), ``ratio_err``.
    pulls : dict
        Size -> sums over their claimed errors.
    """

    table: QTable
    pulls: dict[int, Float]


def empty_regions(
    image: Image, sources: Mask | None = None, *, sizes: tuple[int, ...] = (1, 5, 20)
) -> EmptyRegions:
    """Compare the scatter of sums over boxes in source-free areas with what variance and correlation claim.

    Parameters
    ----------
    image : Image
    sources : (ny, nx) bool array, optional
        True on sources, which are left out.
    sizes : tuple of int
        Sides of the boxes, in pixels.

    Returns
    -------
    EmptyRegions

    Notes
    -----
    A value is a box less the mean of two boxes on either side of it (1, -1/2, -1/2), as far away as the correlation
    reaches: levels and gradients of the sky, of diffuse light and of the shared errors drop out. Its claimed variance
    is ``sum_ij w_i w_j sqrt(v_i v_j) rho(x_i - x_j)`` with these weights. The scatter is the median absolute deviation
    times 1.4826, blind to the few boxes with a source in them. Of large images a regular sample of tiles is used.
    """
    if sources is not None and sources.shape != image.shape:
        raise ShapeError(
            f"the mask of sources has shape {sources.shape}; expected {image.shape}", field="sources"
        )
    used = image.valid if sources is None else image.valid & ~sources
    tiles = _tiles(used)
    reach = 0 if image.correlation is None else image.correlation.shape[0] // 2
    rows, pulls = [], {}
    for size in sizes:
        gap = min(reach, FARTHEST)
        parts = [_triples(image, used, tile, size, gap) for tile in tiles]
        values = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0)
        errors = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0)
        pull = values / errors
        pulls[size] = pull
        # Scatter and claim of one box: a triple has 3/2 of its variance where boxes are independent.
        claimed = float(np.sqrt(np.median(errors**2) / 1.5)) if pull.size else np.nan
        ratio = scatter_of(pull)
        rows.append(
            (size, pull.size, ratio * claimed, claimed, ratio, ratio * MAD_ERROR / np.sqrt(max(pull.size, 1)))
        )
    table = QTable(rows=rows, names=("size", "n_boxes", "scatter", "claimed", "ratio", "ratio_err"))
    table["size"].unit = u.pixel
    for name in ("scatter", "claimed"):
        table[name] = table[name] * image.unit
        table[name].info.description = "of the sum over the pixels of a box"
    table["ratio"].info.description = "scatter over claimed"
    return EmptyRegions(table, pulls)


def _tiles(used: Mask) -> list[tuple[slice, slice]]:
    """Cut an image into tiles, and choose some of those that have many usable pixels, spread evenly."""
    ny, nx = used.shape
    tiles = [
        (slice(y, min(y + TILE, ny)), slice(x, min(x + TILE, nx)))
        for y in range(0, ny, TILE)
        for x in range(0, nx, TILE)
    ]
    share = np.array([used[tile][::4, ::4].sum() for tile in tiles])
    worth = np.flatnonzero(share >= max(1, 0.25 * share.max()))
    chosen = worth[np.unique(np.linspace(0, worth.size - 1, min(MOST_TILES, worth.size)).astype(int))]
    return [tiles[number] for number in chosen]


def _triples(image: Image, used: Mask, tile: tuple[slice, slice], size: int, gap: int) -> tuple[Float, Float]:
    """Values and claimed errors of boxes less their neighbours, for the triples of a tile that are usable."""
    ny, nx = image.data[tile].shape
    length = 3 * size + 2 * gap
    down, across = ny // (size + gap if size == 1 else size), nx // length
    step = ny // down if down else 1
    if down == 0 or across == 0:
        return np.zeros(0), np.zeros(0)
    pattern = np.zeros((step, length))
    for start, weight in ((0, -0.5), (size + gap, 1.0), (2 * (size + gap), -0.5)):
        pattern[:size, start : start + size] = weight
    weights = np.tile(pattern, (down, across))
    labels = np.repeat(np.repeat(np.arange(down * across).reshape(down, across), step, 0), length, 1)
    labels[weights == 0] = NO_REGION
    part = (slice(0, down * step), slice(0, across * length))
    good = used[tile][part]
    spoilt = np.unique(labels[~good & (labels >= 0)])
    keep = np.ones(down * across, bool)
    keep[spoilt] = False
    number = np.where(keep, np.cumsum(keep) - 1, NO_REGION)
    labels = np.where(labels >= 0, number[np.maximum(labels, 0)], NO_REGION).astype(np.int32)
    inside = labels >= 0
    total = int(keep.sum())
    data = image.data[tile][part][inside].astype(np.float64) * weights[inside]
    sums = np.bincount(labels[inside], weights=data, minlength=total)
    variance = np.where(inside, image.variance[tile][part], 1.0)
    claimed = region_variances(variance, labels, total, image.correlation, weights)
    return np.asarray(sums), np.sqrt(np.maximum(claimed, 1e-300))
