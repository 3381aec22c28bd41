"""Anchoring pixel by pixel: an image times, or plus, what its smoothed version lacks of the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image, Mode
from skyloom.core.noise import combine_correlation
from skyloom.core.provenance import step
from skyloom.errors import InputError
from skyloom.imaging.anchoring.pixels import check_grid, convert

__all__ = ["anchor_by_difference", "anchor_by_ratio"]

Array = NDArray[Any]
SIGNIFICANCE = 3.0
"""The smoothed image must exceed its error by this factor for a ratio to be taken."""


def anchor_by_ratio(
    image: Image, smoothed: Image, reference: Image, *, significance: float = SIGNIFICANCE
) -> Image:
    """Multiply an image with the ratio of the reference to its own smoothed version.

    Parameters
    ----------
    image : Image
    smoothed : Image
        The same, brought to the PSF of the reference, on the grid of ``image``.
    reference : Image
        On the grid of ``image``.
    significance : float
        The ratio is taken where ``smoothed`` exceeds this many times its error; elsewhere it is unknown and the
        pixel is masked.

    Returns
    -------
    Image
        ``image * reference / smoothed``.

    Raises
    ------
    ShapeError, UnitError
        When grids or units do not fit.
    InputError
        When the ratio is defined nowhere.

    Notes
    -----
    To first order ``Var = q^2 v_I + p^2 v_R + p^2 q^2 v_S - 2 p q^2 cov(I, S)`` with q = R / S and p = I / S. The noise
    of I is in S too: a Gaussian kernel k much wider than the noise correlation gives ``cov(I, S) = k(0) sum(rho) v_I
    = 2 v_S``. The correlation is the mean of the three, weighted with their typical shares; errors that image and
    smoothed image share (modes of one name) are taken together.
    """
    mask, planes = _planes(image, smoothed, reference)
    (own, own_variance), (wide, wide_variance), (theirs, their_variance) = planes
    mask |= ~(wide > significance * np.sqrt(wide_variance))
    if mask.all():
        raise InputError(
            f"the smoothed image exceeds {significance:g} times its error nowhere: no ratio can be taken",
            field="smoothed",
            remedy="use the difference, or the fitted anchor",
        )
    ratio = _divide(theirs, wide, mask)
    share = _divide(own, wide, mask)
    shared = _shared_variance(own_variance, wide_variance)
    parts = (ratio**2 * own_variance, share**2 * their_variance, (share * ratio) ** 2 * wide_variance)
    variance = parts[0] + parts[1] + parts[2] - 2.0 * share * ratio**2 * shared
    record = step("anchor_by_ratio", significance=significance, n_masked=int(mask.sum() - image.mask.sum()))
    maps = (ratio, -share * ratio, share)
    return _result(image, (image, smoothed, reference), own * ratio, variance, mask, parts, maps, record)


def anchor_by_difference(image: Image, smoothed: Image, reference: Image) -> Image:
    """Add to an image what its smoothed version lacks of the reference: ``image + reference - smoothed``.

    Parameters
    ----------
    image, smoothed, reference : Image
        As for `anchor_by_ratio`.

    Raises
    ------
    ShapeError, UnitError
        When grids or units do not fit.

    Notes
    -----
    ``Var = v_I + v_R + v_S - 2 cov(I, S)``, with cov(I, S) = 2 v_S as in `anchor_by_ratio`: the smoothed image takes
    noise away that it shares with the image, and the reference brings its own.
    """
    mask, planes = _planes(image, smoothed, reference)
    (own, own_variance), (wide, wide_variance), (theirs, their_variance) = planes
    shared = _shared_variance(own_variance, wide_variance)
    variance = own_variance + their_variance + wide_variance - 2.0 * shared
    one = np.ones((), dtype=own.dtype)
    parts = (own_variance, their_variance, wide_variance)
    return _result(
        image,
        (image, smoothed, reference),
        own + theirs - wide,
        variance,
        mask,
        parts,
        (one, -one, one),
        step("anchor_by_difference", n_masked=int(mask.sum() - image.mask.sum())),
    )


def _planes(
    image: Image, smoothed: Image, reference: Image
) -> tuple[NDArray[np.bool_], tuple[tuple[Array, Array], ...]]:
    """Return the joint mask, and data and variance of the three in one unit, harmless under that mask."""
    check_grid(image, smoothed, "smoothed")
    check_grid(image, reference, "reference")
    mask = image.mask | smoothed.mask | reference.mask
    pairs = (
        (image.data, image.variance),
        convert(smoothed, image.unit, "smoothed"),
        convert(reference, image.unit, "reference"),
    )
    kind = image.data.dtype
    return mask, tuple(
        (np.where(mask, 0.0, data).astype(kind), np.where(mask, 1.0, variance).astype(kind))
        for data, variance in pairs
    )


def _divide(numerator: Array, denominator: Array, mask: NDArray[np.bool_]) -> Array:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=~mask)


def _shared_variance(variance: Array, smooth_variance: Array) -> Array:
    """Covariance of a pixel with its smoothed self; never more than the two variances allow."""
    return np.minimum(2.0 * smooth_variance, 0.9 * np.sqrt(variance * smooth_variance))


def _result(
    image: Image,
    images: tuple[Image, Image, Image],
    data: Array,
    variance: Array,
    mask: NDArray[np.bool_],
    parts: tuple[Array, Array, Array],
    maps: tuple[Array, Array, Array],
    record: Any,
) -> Image:
    """Assemble the anchored image; parts are of image, reference, smoothed, maps of image, smoothed, reference."""
    valid = ~mask
    typical = [float(np.median(part[valid])) if valid.any() else 1.0 for part in parts]
    first, wide, theirs = images
    correlation = combine_correlation(typical, [first.correlation, theirs.correlation, wide.correlation])
    data, variance = np.where(mask, 0.0, data), np.where(mask, 1.0, variance)
    return image.evolve(
        record,
        data=data.astype(image.data.dtype),
        variance=variance.astype(image.variance.dtype),
        mask=mask,
        correlation=correlation,
        modes=_modes(images, maps, valid),
    )


def _modes(
    images: tuple[Image, Image, Image], maps: tuple[Array, Array, Array], valid: NDArray[np.bool_]
) -> tuple[Mode, ...]:
    """Modes of all three through their derivatives; those of one name in image and smoothed image are one error."""
    image, smoothed, reference = images
    joined: dict[str, Mode] = {}
    for source, factor, prefix in (
        (image, maps[0], ""),
        (smoothed, maps[1], ""),
        (reference, maps[2], "reference "),
    ):
        scale = float(source.unit.to(image.unit))
        for mode in source.modes:
            pattern = np.where(valid, factor * np.asarray(mode.map) * scale, 0.0).astype(image.data.dtype)
            name = prefix + mode.name
            earlier = joined.get(name)
            if earlier is not None:
                pattern = pattern * image.data.dtype.type(mode.sigma / earlier.sigma) + earlier.map
                joined[name] = earlier._replace(map=pattern)
            else:
                joined[name] = Mode(name, pattern, mode.sigma)
    return tuple(joined.values())
