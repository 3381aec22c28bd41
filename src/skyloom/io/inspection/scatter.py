"""Whether the errors of a file are what they say: the scatter of its values against them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.io.formats.files import Hdu
from skyloom.io.images import noise_scale

__all__ = ["PLAUSIBLE", "best_kind", "sample_channels"]

Array = NDArray[Any]

PLAUSIBLE = 5.0  # Scatter over claimed error within this factor: correlation and sources do as much.
_SPECTRAL_LAG = 3  # Channels; beyond the covariance of resampled spectra, within the width of lines.
_STRETCH = 16
_SAMPLE_BYTES = 2**24


def sample_channels(hdu: Hdu, max_bytes: int = _SAMPLE_BYTES) -> tuple[Array, int]:
    """Return stretches of neighbouring channels of a cube, spread evenly over its wavelengths.

    Parameters
    ----------
    hdu : Hdu
        Of a three-dimensional array.
    max_bytes : int
        Of the sample, as stored; one stretch may take more.

    Returns
    -------
    sample : (n, ny, nx) array
        The whole cube where it is small enough.
    stretch : int
        Length of each stretch, all of them equal; n where the cube is whole.
    """
    n_wave = hdu.shape[0]
    if hdu.size <= max_bytes or n_wave <= 2 * _STRETCH:
        return hdu.section(), n_wave
    count = int(np.clip(max_bytes // (hdu.size // n_wave * _STRETCH), 1, n_wave // _STRETCH))
    starts = np.round((np.arange(count) + 0.5) * (n_wave - _STRETCH) / count).astype(int)
    return np.concatenate([hdu.section(slice(start, start + _STRETCH)) for start in starts]), _STRETCH


def best_kind(
    data: Array, errors: Array, *, axis: int | None = None, stretch: int | None = None
) -> tuple[str, dict[str, float]]:
    """Return which reading of errors fits the scatter of the values best.

    The scatter is that of differences between neighbours, along both axes of an image or along wavelength, so that
    continua and smooth light cancel (`skyloom.io.images.noise_scale`).

    Parameters
    ----------
    data, errors : arrays of one shape
    axis : int, optional
        The wavelength axis; None for images.
    stretch : int, optional
        Along the first axis, only every so many channels are neighbours; see `sample_channels`.

    Returns
    -------
    best : str
        variance, sigma or inverse_variance; empty when that cannot be told.
    ratios : dict of str to float
        Scatter over error, in standard deviations, for each reading; NaN when it cannot be measured.
    """
    values = errors.astype(np.float64)
    with np.errstate(invalid="ignore"):
        mask = ~(np.isfinite(data) & np.isfinite(values) & (values > 0))
    values[mask] = 1.0
    if stretch is not None and stretch < data.shape[0]:
        data, values, mask = (_apart(plane, stretch) for plane in (data, values, mask))
    readings = {"variance": values, "sigma": values**2, "inverse_variance": 1.0 / values}
    where: dict[str, Any] = {} if axis is None else {"axes": (axis,), "lag": _SPECTRAL_LAG}
    ratios = {
        kind: float(np.sqrt(noise_scale(data, variance, mask, **where)))
        for kind, variance in readings.items()
    }
    usable = {kind: ratio for kind, ratio in ratios.items() if np.isfinite(ratio) and ratio > 0}
    best = min(usable, key=lambda kind: abs(np.log(usable[kind]))) if usable else ""
    return best, ratios


def _apart(plane: Array, stretch: int) -> Array:
    """Return stretches of channels with masked ones between, so that no difference reaches from one to the next."""
    pieces = plane.reshape(-1, stretch, *plane.shape[1:])
    filler = np.ones((pieces.shape[0], _SPECTRAL_LAG, *plane.shape[1:]), plane.dtype)
    return np.concatenate([pieces, filler], axis=1).reshape(-1, *plane.shape[1:])
