"""Errors of a combination of images: the correlation of its noise, and the errors that its pixels share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image, Mode
from skyloom.core.noise import combine_correlation

__all__ = ["combined_modes", "mean_correlation"]

Array = NDArray[Any]
Float = NDArray[np.float64]


def mean_correlation(shares: Float, images: Sequence[Image]) -> Float | None:
    """Return the correlation of a combination, given the mean share of each image in its variance."""
    parts = [
        (float(share), image.correlation) for share, image in zip(shares, images, strict=False) if share > 0
    ]
    first = parts[0][1]
    if all(_same(first, other) for _, other in parts):
        return first
    return combine_correlation([share for share, _ in parts], [rho for _, rho in parts])


def combined_modes(
    images: Sequence[Image],
    names: Sequence[str],
    product: int,
    fixed: Float | None,
    scales: Float,
    slopes: Sequence[Array],
    common: Collection[str],
) -> tuple[Mode, ...]:
    """Pass shared errors through a continuum subtraction.

    Parameters
    ----------
    images, names
        The narrow band and the continua.
    product : int
        0: the excess; 1: the continuum.
    fixed : (2, 3) array, optional
        Factors of the images in both products, where they are the same everywhere.
    scales, slopes
        Otherwise: what the images are multiplied by, and the derivatives of the excess by them.
    common : collection of str
        Names of errors that are the same in all images; their maps are added up.
    """
    modes: list[Mode] = []
    joint: dict[str, list[Array | float]] = {}
    for number, image in enumerate(images):
        if not image.modes:
            continue
        factor: Array | float
        if fixed is not None:
            factor = float(fixed[product, number])
        elif product == 0:
            factor = slopes[number]
        else:
            factor = (np.float32(scales[0]) if number == 0 else np.float32(0.0)) - slopes[number]
        if np.ndim(factor) == 0 and factor == 0:
            continue
        for mode in image.modes:
            if mode.name in common:
                joint.setdefault(mode.name, []).append(_times(factor, mode.map) * mode.sigma)
            else:
                name = mode.name if number == 0 else f"{mode.name} ({names[number]})"
                modes.append(Mode(name, _times(factor, mode.map), mode.sigma))
    modes += [Mode(name, sum(parts[1:], start=parts[0]), 1.0) for name, parts in joint.items()]
    return tuple(modes)


def _times(factor: Array | float, plane: Array | float) -> Any:
    """Return the product, in the type of the map."""
    if np.ndim(plane) == 0:
        return factor * float(plane)
    return np.asarray(plane) * factor


def _same(first: Float | None, second: Float | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.shape == second.shape and bool(np.array_equal(first, second))
