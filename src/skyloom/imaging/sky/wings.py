"""Light that sources spread beyond their detected pixels, as templates for a fit of the sky.

A sky pixel near a galaxy holds sky, the galaxy's outskirts and the wings of the PSF. All three but the sky fall with
the distance from detected light, so the detected light convolved with an extended profile predicts their shape; its
amplitude and the sky are fitted together, and the sky is the value where the template has vanished.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["SLOPES", "WingFit", "fit_wings", "inner", "refit_level", "unbinned", "wing_templates"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]

SLOPES = (1.25, 1.5, 2.0)  # Exponents of (1 + r^2/r0^2): PSF aureoles fall as r^-2.5 to r^-3, haloes faster.
LARGEST_SIDE = (
    512  # Templates are smooth: larger images are binned to about this side, all by 2 if r0 allows it.
)
SMOOTH_RADIUS = 5.0
LARGEST_SAMPLE = 200_000


class WingFit(NamedTuple):
    """Sky and wings fitted to the sky pixels.

    ``level``: the sky; ``amplitude``: that of the template (>= 0); ``weights``: (n,) float64, those with which the
    ``used`` (n,) pixels enter ``level`` as long as the amplitude is free, sum 1 (an amplitude that noise has pushed to
    its bound leaves the level no better known); ``residuals``: (n,) of all sky pixels; ``scatter``: of the used ones.
    """

    level: float
    amplitude: float
    weights: Array
    used: Mask
    residuals: Array
    scatter: float


@lru_cache(maxsize=32)
def _profile_transform(shape: tuple[int, int], radius: float, slope: float) -> Array:
    """Transform of the wing profile centred on index (0, 0) of a periodic array of ``shape``."""
    y, x = (np.minimum(np.arange(size), size - np.arange(size)) for size in shape)
    profile = (1.0 + (y[:, None] ** 2 + x[None, :] ** 2) / radius**2) ** -slope
    transform: Array = fft.rfft2((profile / profile.sum()).astype(np.float32))
    transform.setflags(write=False)
    return transform


def wing_templates(
    light: Array, radius: float, slopes: tuple[float, ...] = SLOPES
) -> tuple[int, list[Array]]:
    """Spread detected light with extended profiles.

    Parameters
    ----------
    light : (ny, nx) array
        Light of the detected sources above the sky, 0 elsewhere.
    radius : float
        Core radius r0 of the profiles ``(1 + r^2/r0^2)^-slope``, in pixels.
    slopes : tuple of float

    Returns
    -------
    factor : int
        Pixels of the image along each side of a template's pixel: wings are smooth.
    templates : list of (ceil(ny / factor), ceil(nx / factor)) float32 arrays
        One per slope; beyond the image's own size the profile is cut.
    """
    ny, nx = light.shape
    factor = max(2 if radius >= SMOOTH_RADIUS else 1, -(-max(ny, nx) // LARGEST_SIDE))
    rows, columns = -(-ny // factor), -(-nx // factor)
    coarse = np.zeros((rows * factor, columns * factor), dtype=np.float32)
    coarse[:ny, :nx] = light
    coarse = coarse.reshape(rows, factor, columns, factor).sum(axis=(1, 3))
    padded = tuple(fft.next_fast_len(2 * size - 1, real=True) for size in coarse.shape)
    transform = fft.rfft2(coarse, padded)
    core = round(max(radius / factor, 1.0), 3)
    templates = []
    for slope in slopes:
        spread = fft.irfft2(transform * _profile_transform(padded, core, slope), padded)[:rows, :columns]
        templates.append(spread)
    return factor, templates


def unbinned(template: Array, factor: int, shape: tuple[int, int]) -> Array:
    """Return a template on the pixels of the image."""
    return np.asarray(template.repeat(factor, axis=0).repeat(factor, axis=1)[: shape[0], : shape[1]])


def fit_wings(values: Array, template: Array | None, level: float, scatter: float, clip: float) -> WingFit:
    """Fit ``level + amplitude * template`` to sky pixels, clipping outliers on both sides alike.

    Parameters
    ----------
    values : (n,) float64 array
        Sky pixels.
    template : (n,) array or None
        Template at these pixels; None: a constant alone.
    level, scatter : float
        First guess; the clip counts this scatter.
    clip : float

    Returns
    -------
    WingFit

    Notes
    -----
    Least squares with equal weights. The amplitude is not allowed below zero: sources take no light away.
    """
    shape = None if template is None else template.astype(np.float64)
    used = np.abs(values - level) < clip * scatter
    amplitude, residuals = 0.0, values - level
    for _ in range(6):
        if np.count_nonzero(used) < 3:
            used = np.ones(values.size, dtype=bool)
        level, amplitude = _line(values, shape, used)
        residuals = values - level if shape is None else values - level - amplitude * shape
        kept = np.abs(residuals) < clip * scatter
        if np.array_equal(kept, used):
            break
        fitted, used = used, kept
    else:
        used = fitted  # The clip still flips a pixel or two: the last fit stands, with the pixels it used.
    weights = np.full(np.count_nonzero(used), 1.0 / np.count_nonzero(used))
    if shape is not None:
        mean_shape = inner(weights, shape[used])
        deviation = shape[used] - mean_shape
        power = inner(deviation, deviation)
        if power > 0:
            weights -= mean_shape / power * deviation
    return WingFit(level, amplitude, weights, used, residuals, float(residuals[used].std()))


def inner(first: Array, second: Array) -> float:
    """Return the inner product, in this thread: BLAS would wake others for vectors this short, and spin."""
    return float(np.einsum("i,i->", first, second))


def refit_level(values: Array, template: Array, used: Mask) -> float:
    """Return the level with another template and the same pixels."""
    return _line(values, template.astype(np.float64), used)[0]


def _line(values: Array, shape: Array | None, used: Mask) -> tuple[float, float]:
    """Fit a constant and ``shape``, whose amplitude is >= 0, to the used pixels."""
    share = used / np.count_nonzero(used)
    mean_value = inner(share, values)
    if shape is None:
        return mean_value, 0.0
    mean_shape = inner(share, shape)
    deviation = share * (shape - mean_shape)
    power = inner(deviation, shape)
    amplitude = max(inner(deviation, values) / power, 0.0) if power > 1e-12 * mean_shape**2 else 0.0
    return mean_value - amplitude * mean_shape, amplitude
