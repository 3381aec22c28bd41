"""White noise on request, for images that are to be as noisy as others."""

from __future__ import annotations

import astropy.units as u
import numpy as np

from skyloom.core.image import Image
from skyloom.core.noise import combine_correlation
from skyloom.core.provenance import step
from skyloom.errors import InputError

__all__ = ["add_white_noise"]


def add_white_noise(image: Image, sigma: float | u.Quantity, *, seed: int) -> Image:
    """Add independent Gaussian noise to every pixel.

    Parameters
    ----------
    image : Image
    sigma : float or Quantity
        Standard deviation, in the unit of the image.
    seed : int
        The same seed gives the same noise; it stands in the history.

    Returns
    -------
    Image
        Its variance is larger by ``sigma**2``; the correlation becomes the mean of the old one and of white noise,
        weighted with the median variance and ``sigma**2`` (`skyloom.core.noise.combine_correlation`).

    Raises
    ------
    InputError
        When ``sigma`` is not > 0, has another unit, or all pixels are masked.
    """
    level = _in_unit(sigma, image.unit)
    if not 0 < level < np.inf:
        raise InputError(f"sigma is {sigma}; expected > 0", field="sigma")
    if not image.valid.any():
        raise InputError("all pixels are masked", field="mask")
    noise = level * np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    typical = float(np.median(image.variance[image.valid]))
    return image.evolve(
        step("add_white_noise", sigma=level, seed=int(seed)),
        data=np.where(image.mask, image.data, image.data + noise.astype(image.data.dtype)),
        variance=np.where(image.mask, image.variance, image.variance + image.variance.dtype.type(level**2)),
        correlation=combine_correlation([typical, level**2], [image.correlation, None]),
    )


def _in_unit(sigma: float | u.Quantity, unit: u.UnitBase) -> float:
    if not isinstance(sigma, u.Quantity):
        return float(sigma)
    try:
        return float(sigma.to_value(unit))
    except u.UnitConversionError as error:
        raise InputError(
            f"sigma is in {sigma.unit}, the image in {unit}",
            field="sigma",
            remedy="convert the image or give sigma in its unit",
        ) from error
