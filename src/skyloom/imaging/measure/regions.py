"""Sums over regions and apertures, with errors that know the noise correlation and the shared errors."""

from __future__ import annotations

from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import ArrayLike, NDArray

from skyloom.core.apertures import circle_overlap
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap, as_labels
from skyloom.core.line_maps import SHARED_ERRORS
from skyloom.core.noise import region_variances, sum_variance
from skyloom.core.threads import blocks
from skyloom.core.units import area_unit, sum_unit
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.grids.pixel_areas import pixel_areas

__all__ = ["sum_apertures", "sum_regions"]

Array = NDArray[Any]
STRIPE = 512  # Rows whose areas are computed at a time.


class _Weights(NamedTuple):
    """What pixel values are multiplied with in a sum: None (1), a number or a map; and the unit of the sum."""

    values: Array | None
    unit: u.UnitBase


def sum_regions(image: Image, labels: ArrayLike | LabelMap) -> QTable:
    """Add up the pixels of each region.

    Parameters
    ----------
    image : Image
    labels : (ny, nx) int array or LabelMap
        Region of each pixel; negative: none.

    Returns
    -------
    QTable
        One row per label, ascending: ``label``; ``n_pixels`` that were added; ``n_masked`` of the region that were
        not; ``flux`` and its standard error ``flux_err``. Surface brightnesses are multiplied by the area of each
        pixel (distortions included). A region without any usable pixel has a flux of NaN: unknown, not zero.

    Raises
    ------
    ShapeError
        When labels and image differ in shape.
    InputError
        When labels are not whole numbers, a surface brightness comes without a WCS, or the image is a map of bins whose
        pixels share one error (`skyloom.spectral.gas.maps.sum_bins` adds those up).

    Notes
    -----
    ``Var = sum_ij r_i r_j sqrt(v_i v_j) rho(x_i - x_j) + sum_modes (sum_i r_i map_i)^2 sigma^2`` with r the pixel
    area or 1. Pixels under the mask are left out, not filled in: the flux is that of ``n_pixels``.
    """
    regions = as_labels(labels)
    if regions.shape != image.shape:
        raise ShapeError(
            f"labels have shape {regions.shape}; expected {image.shape}, the shape of the image",
            field="labels",
        )
    ids, dense = _dense(regions)
    n_regions = ids.size
    inside = dense >= 0
    n_all = np.bincount(dense[inside], minlength=n_regions)
    dense[image.mask] = -1
    used = dense >= 0
    member = dense[used]
    n_pixels = np.bincount(member, minlength=n_regions)
    weights = _pixel_weights(image)
    share = None if weights.values is None else np.broadcast_to(weights.values, image.shape)[used]
    values = image.data[used].astype(np.float64)
    flux = np.bincount(member, weights=values if share is None else values * share, minlength=n_regions)
    spread = None if weights.values is None else np.broadcast_to(weights.values, image.shape)
    variance = region_variances(image.variance, dense, n_regions, image.correlation, spread)
    for mode in image.modes:
        pattern = np.broadcast_to(np.asarray(mode.map, dtype=np.float64), image.shape)[used]
        total = np.bincount(
            member, weights=pattern if share is None else pattern * share, minlength=n_regions
        )
        variance = variance + (total * mode.sigma) ** 2
    empty = n_pixels == 0
    flux = np.where(empty, np.nan, flux)
    error = np.sqrt(np.maximum(variance, 0.0))
    error[empty] = np.nan
    table = QTable()
    table["label"] = ids
    table["n_pixels"] = n_pixels
    table["n_masked"] = n_all - n_pixels
    table["flux"] = flux * weights.unit
    table["flux_err"] = error * weights.unit
    return table


def sum_apertures(image: Image, x: ArrayLike, y: ArrayLike, radius: float | ArrayLike) -> QTable:
    """Add up the light in circular apertures, with the exact overlap of circle and pixels.

    Parameters
    ----------
    image : Image
    x, y : (n,) array
        Centres in pixels, 0 being the centre of the first pixel.
    radius : float or (n,) array
        Radii in pixels.

    Returns
    -------
    QTable
        ``x``, ``y``, ``radius``; ``area`` that was added and ``masked_area`` that was not (masked or beyond the
        border), in pixels; ``flux`` and ``flux_err``, NaN where nothing could be added.

    Raises
    ------
    InputError
        When a radius is not > 0, a surface brightness comes without a WCS, or pixels share errors (see `sum_regions`).
    ShapeError
        When the positions differ in number.
    """
    x_all, y_all, radii = (np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in (x, y, radius))
    if x_all.shape != y_all.shape or x_all.ndim != 1 or radii.size not in (1, x_all.size):
        raise ShapeError(
            f"x, y and radius have shapes {x_all.shape}, {y_all.shape}, {radii.shape}; expected n positions",
            field="x",
        )
    if not np.all(radii > 0):
        raise InputError(f"a radius is {radii.min()}; expected > 0", field="radius")
    radii = np.broadcast_to(radii, x_all.shape)
    weights = _pixel_weights(image)
    sums = np.array(
        [_aperture(image, weights.values, *place) for place in zip(x_all, y_all, radii, strict=True)]
    ).reshape(-1, 3)
    table = QTable({"x": x_all, "y": y_all, "radius": radii.copy()})
    table["area"] = sums[:, 0]
    table["masked_area"] = np.pi * radii**2 - sums[:, 0]
    table["flux"] = sums[:, 1] * weights.unit
    table["flux_err"] = sums[:, 2] * weights.unit
    return table


def _aperture(
    image: Image, weights: Array | None, x: float, y: float, radius: float
) -> tuple[float, float, float]:
    """Area, flux and error of one aperture, from the pixels around it."""
    ny, nx = image.shape
    rows = slice(max(0, int(np.floor(y - radius))), max(0, min(ny, int(np.ceil(y + radius)) + 1)))
    columns = slice(max(0, int(np.floor(x - radius))), max(0, min(nx, int(np.ceil(x + radius)) + 1)))
    box = (rows, columns)
    usable = ~image.mask[box]
    if not usable.any():
        return 0.0, np.nan, np.nan
    overlap = np.where(usable, circle_overlap(usable.shape, x - columns.start, y - rows.start, radius), 0.0)
    area = float(overlap.sum())
    if area == 0.0:
        return 0.0, np.nan, np.nan
    if weights is not None:
        overlap = overlap * (weights if weights.ndim == 0 else weights[box])
    used = overlap != 0
    flux = float(np.sum(overlap[used] * image.data[box][used]))
    variance = sum_variance(image.variance[box], overlap, image.correlation)
    for mode in image.modes:
        pattern = np.asarray(mode.map, dtype=np.float64)
        pattern = pattern if pattern.ndim == 0 else pattern[box][used]
        variance += (float(np.sum(overlap[used] * pattern)) * mode.sigma) ** 2
    return area, flux, float(np.sqrt(max(variance, 0.0)))


def _pixel_weights(image: Image) -> _Weights:
    """Pixel areas where the unit is a surface brightness."""
    if image.meta.get(SHARED_ERRORS):
        raise InputError(
            f"pixels of this map share errors within {image.meta[SHARED_ERRORS]}; a sum would get a wrong one",
            field=SHARED_ERRORS,
            remedy="use skyloom.spectral.gas.maps.sum_bins",
        )
    unit = sum_unit(image.unit)
    per = area_unit(image.unit)
    if per is None:
        return _Weights(None, unit)
    areas = pixel_areas(image.wcs, image.shape)
    mean = areas.mean * float((u.arcsec**2).to(per))
    if areas.constant:
        return _Weights(np.array(mean), unit)
    values = np.empty(image.shape)
    for rows in blocks(image.shape[0], STRIPE):
        values[rows] = mean * areas.relative(rows)
    return _Weights(values, unit)


def _dense(labels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the labels that occur and the map with them numbered from 0; negative ones become -1."""
    highest = int(labels.max(initial=-1))
    if highest < 0:
        return np.zeros(0, dtype=np.int32), np.full(labels.shape, -1, dtype=np.int32)
    if (
        highest > 4 * labels.size + 1000
    ):  # A table of all numbers up to this one would not be worth its memory.
        ids = np.unique(labels)
        ids = ids[ids >= 0]
        dense = np.searchsorted(ids, labels).astype(np.int32)
        dense[labels < 0] = -1
        return ids.astype(np.int32), dense
    present = np.bincount(labels[labels >= 0], minlength=highest + 1) > 0
    number = np.full(highest + 2, -1, dtype=np.int32)  # The last place serves the negative labels.
    number[:-1][present] = np.arange(np.count_nonzero(present), dtype=np.int32)
    return np.flatnonzero(present).astype(np.int32), number[np.maximum(labels, -1)]
