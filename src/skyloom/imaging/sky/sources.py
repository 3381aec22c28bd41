"""Where the sources are: significance of smoothed excursions above a robust, lower-envelope sky."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core.image import Image
from skyloom.errors import InputError, ShapeError

__all__ = ["Excursions", "as_source_mask", "detect_sources", "find_excursions", "grow_mask", "lower_envelope"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]

SCALES = (1.5, 4.0)  # Sigma in pixels of the smoothing: knots and stars, and the outskirts of galaxies.
THRESHOLD = 3.5
MINIMUM_PIXELS = 50
LARGEST_ROWWISE = 16  # Rows that a mask grows by up to which chords are faster than a distance transform.
SAMPLE = 2500  # Pixels that suffice to scale an image to its noise; what is smoothed is scaled again, by all pixels.


class Excursions(NamedTuple):
    """How far the smoothed image leaves the sky, in units of the scatter of the smoothed sky.

    ``highest`` is the largest and ``lowest`` the smallest excursion over the smoothing scales, (ny, nx) float32.
    """

    highest: Array
    lowest: Array


def lower_envelope(values: Array, clip: float = 2.5) -> tuple[float, float]:
    """Return level and scatter of the lowest population in ``values``.

    Parameters
    ----------
    values : (n,) array
        Sky pixels and, above them, what sources left behind. No NaN.
    clip : float
        Values further from the level, in units of the scatter, do not take part.

    Returns
    -------
    level, scatter : float
        Median of the values within ``clip`` times the scatter; scatter from the half below the level only, because
        sources add light and never take any. It is scaled to the sigma of a Gaussian.
    """
    ordered = np.sort(values)
    size = ordered.size
    exact = ordered.dtype.type  # A number of another type would convert the whole array for each search.
    level, scatter = float(ordered[size // 2]), 0.0
    for _ in range(30):
        below = int(ordered.searchsorted(exact(level)))
        scatter = 1.4826 * (level - float(ordered[below // 2]))
        low = int(ordered.searchsorted(exact(level - clip * scatter)))
        high = int(ordered.searchsorted(exact(level + clip * scatter)))
        if high <= low:
            break
        previous, level = level, float(ordered[(low + high) // 2])
        if abs(level - previous) <= 1e-3 * scatter:
            break
    return level, scatter


def find_excursions(
    image: Image, *, scales: tuple[float, ...] = SCALES, source_mask: Mask | None = None
) -> Excursions:
    """Measure by how much the smoothed image leaves the sky.

    Parameters
    ----------
    image : Image
        The relative, not the absolute, scale of its variance matters: thresholds count the scatter that is seen,
        because the weights of drizzled images understate it and its noise is correlated.
    scales : tuple of float
        Sigma of the Gaussian smoothing, in pixels.
    source_mask : (ny, nx) bool array, optional
        Pixels known to be sources: they do not enter the level and the scatter.

    Returns
    -------
    Excursions

    Raises
    ------
    InputError
        When hardly any usable pixel is left.
    """
    usable = image.valid if source_mask is None else image.valid & ~source_mask
    if np.count_nonzero(usable) < MINIMUM_PIXELS:
        raise InputError(
            f"{np.count_nonzero(usable)} usable pixels outside the source mask; at least {MINIMUM_PIXELS} are needed",
            field="source_mask",
            remedy="mask fewer pixels, or use a larger cut-out",
        )
    normalised = _normalised(image, usable)
    complete = not image.mask.any()
    share = None if complete else image.valid.astype(np.float32)
    highest = np.full(image.shape, -np.inf, dtype=np.float32)
    lowest = np.full(image.shape, np.inf, dtype=np.float32)
    for scale in scales:
        smooth = ndimage.gaussian_filter(normalised, scale, mode="nearest")
        if share is not None:
            coverage = ndimage.gaussian_filter(share, scale, mode="nearest")
            smooth = np.divide(smooth, coverage, out=np.zeros_like(smooth), where=coverage > 0.3)
        level, scatter = lower_envelope(smooth[usable])
        if scatter > 0:
            excursion = (smooth - np.float32(level)) / np.float32(scatter)
            np.maximum(highest, excursion, out=highest)
            np.minimum(lowest, excursion, out=lowest)
    return Excursions(highest, lowest)


def _normalised(image: Image, usable: Mask) -> Array:
    """Return the image over its noise, float32, zero where masked."""
    every = max(1, np.count_nonzero(usable) // SAMPLE)
    level, scatter = lower_envelope(image.data[usable][::every])
    if not scatter > 0:
        return np.where(image.mask, 0.0, image.data > level).astype(np.float32)
    typical = float(np.median(image.variance[usable][::every]))
    normalised = np.zeros(image.shape, dtype=np.float32)
    relative = np.divide(typical, image.variance, out=np.zeros_like(image.variance), where=image.valid)
    factor = np.sqrt(relative) / scatter
    np.multiply(image.data - level, factor, out=normalised, where=image.valid, casting="same_kind")
    return normalised


def detect_sources(
    image: Image,
    *,
    threshold: float = THRESHOLD,
    scales: tuple[float, ...] = SCALES,
    source_mask: Mask | None = None,
) -> Mask:
    """Find the pixels that belong to sources.

    Parameters
    ----------
    image : Image
    threshold : float
        Significance, on the smoothed image, from which on a pixel belongs to a source.
    scales : tuple of float
        Sigma of the Gaussian smoothing, in pixels.
    source_mask : (ny, nx) bool array, optional
        Pixels known to be sources; they are part of the result.

    Returns
    -------
    (ny, nx) bool array
        True on sources, not grown; False where the image is masked unless ``source_mask`` says otherwise.

    Raises
    ------
    InputError
        When hardly any usable pixel is left.
    """
    known = as_source_mask(source_mask, image.shape)
    found = (find_excursions(image, scales=scales, source_mask=known).highest > threshold) & image.valid
    return found if known is None else found | known


def grow_mask(mask: Mask, radius: float, sampling: tuple[float, float] = (1.0, 1.0)) -> Mask:
    """Return ``mask`` grown by a Euclidean ``radius``, in the unit of ``sampling`` (the step of a pixel in y, x)."""
    reach = int(radius / sampling[0])
    if radius <= 0 or not mask.any():
        return mask.copy()
    if reach > LARGEST_ROWWISE:
        return np.asarray(ndimage.distance_transform_edt(~mask, sampling=sampling) <= radius)
    ny, nx = mask.shape
    grown = np.zeros(mask.shape, dtype=bool)
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = int(rows[0]), int(rows[-1]) + 1
    running = np.zeros((last - first, nx + 1), dtype=np.int32)
    np.cumsum(mask[first:last], axis=1, out=running[:, 1:])
    column = np.arange(nx)
    for offset in range(-reach, reach + 1):
        # The chord of the disc in this row: any masked pixel within it grows the pixel at its centre.
        half = int(np.sqrt(max(radius**2 - (offset * sampling[0]) ** 2, 0.0)) / sampling[1] + 1e-9)
        inside = running[:, np.minimum(column + half + 1, nx)] > running[:, np.maximum(column - half, 0)]
        top, bottom = max(first + offset, 0), min(last + offset, ny)
        if top < bottom:
            grown[top:bottom] |= inside[top - first - offset : bottom - first - offset]
    return grown


def as_source_mask(source_mask: object, shape: tuple[int, int]) -> Mask | None:
    """Return a source mask as a bool array of ``shape``, or None.

    Raises
    ------
    ShapeError
        When its shape is another.
    InputError
        When it is not boolean: labels must be turned into a mask first.
    """
    if source_mask is None:
        return None
    mask = np.asarray(source_mask)
    if mask.shape != shape:
        raise ShapeError(
            f"source_mask has shape {mask.shape}; expected {shape}, the shape of the image",
            field="source_mask",
        )
    if mask.dtype != np.bool_:
        raise InputError(
            f"source_mask has type {mask.dtype}; expected bool",
            field="source_mask",
            remedy="turn labels into a mask with skyloom.imaging.measure.masks.source_mask",
        )
    return mask
