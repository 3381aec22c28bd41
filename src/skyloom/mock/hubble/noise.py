"""Noise whose variance and correlation are known exactly, because it is made by a known linear filter.

Stationary noise of unit variance is white noise on a (possibly finer) grid passed through a kernel of unit
sum of squares; multiplied with the root of a variance map it follows the noise model of `skyloom.core.noise`.
Filtering happens on a frame padded by the kernel, so the noise is stationary up to the borders.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import fftconvolve

from skyloom.errors import InputError, ShapeError

__all__ = ["correlated_noise", "draw_noise", "drizzle_kernel", "kernel_correlation", "white_noise"]

Float = NDArray[np.float64]


def white_noise(variance: ArrayLike, generator: np.random.Generator) -> Float:
    """Return one realisation of independent Gaussian noise.

    Parameters
    ----------
    variance : (ny, nx) array
        Variance of each pixel, >= 0.
    generator : numpy.random.Generator
        Source of the random numbers.

    Returns
    -------
    (ny, nx) float64 array, in the root of the unit of ``variance``
    """
    return draw_noise(variance, None, generator, 1)[0]


def correlated_noise(
    variance: ArrayLike, kernel: ArrayLike | None, generator: np.random.Generator, *, step: int = 1
) -> Float:
    """Return one realisation of noise with autocorrelation ``kernel_correlation(kernel, step)``.

    Parameters
    ----------
    variance : (ny, nx) array
        Variance of each pixel, >= 0.
    kernel : (k, k) array or None
        Linear filter on a grid ``step`` times finer than the pixels, of any norm. None: white noise.
    generator : numpy.random.Generator
        Source of the random numbers.
    step : int
        Fine samples per pixel.

    Returns
    -------
    (ny, nx) float64 array, in the root of the unit of ``variance``
    """
    return draw_noise(variance, kernel, generator, 1, step=step)[0]


def draw_noise(
    variance: ArrayLike, kernel: ArrayLike | None, generator: np.random.Generator, n: int, *, step: int = 1
) -> Float:
    """Return ``n`` independent realisations of noise; the parameters are those of `correlated_noise`.

    Returns
    -------
    (n, ny, nx) float64 array
    """
    sigma = np.sqrt(_checked_variance(variance))
    if kernel is None:
        return sigma * generator.standard_normal((n, *sigma.shape))
    taps = _checked_kernel(kernel)
    taps = taps / np.sqrt(np.sum(taps**2))
    fine = tuple((pixels - 1) * step + size for pixels, size in zip(sigma.shape, taps.shape, strict=True))
    white = generator.standard_normal((n, *fine))
    unit = fftconvolve(white, taps[None], mode="valid", axes=(1, 2))
    return np.asarray(sigma * unit[:, ::step, ::step])


def kernel_correlation(kernel: ArrayLike | None, step: int = 1) -> Float:
    """Return the autocorrelation of white noise after ``kernel``, in pixels of ``step`` fine samples.

    Parameters
    ----------
    kernel : (k, k) array or None
        The filter; None: white noise.
    step : int
        Fine samples per pixel.

    Returns
    -------
    (m, m) float64 array, m odd
        Peak 1 in the centre, symmetric through it.

    Notes
    -----
    rho(d) = sum_x k(x) k(x + step d) / sum_x k(x)^2.
    """
    if kernel is None:
        return np.ones((1, 1))
    taps = _checked_kernel(kernel)
    lags = fftconvolve(taps, taps[::-1, ::-1], mode="full")
    lags = (lags + lags[::-1, ::-1]) / 2
    starts = [(size - 1) % step for size in taps.shape]
    rho = np.asarray(lags[starts[0] :: step, starts[1] :: step] / np.sum(taps**2))
    rho[rho.shape[0] // 2, rho.shape[1] // 2] = 1.0
    # FFTs leave rounding noise where the exact lag is zero.
    rho[np.abs(rho) < 1e-14] = 0.0
    return rho


def drizzle_kernel(ratio: float, pixfrac: float = 1.0, *, step: int = 1) -> Float:
    """Return the filter that drizzling many dithered exposures applies to the noise of their pixels.

    Parameters
    ----------
    ratio : float
        Side of a detector pixel in output pixels (0.05" / 0.06" for ACS, 0.128" / 0.06" for WFC3/IR).
    pixfrac : float
        Side of the drop in detector pixels, in (0, 1].
    step : int
        Fine samples per output pixel. With 1 the filter acts on the output grid itself; larger values approach
        the limit of infinitely many dither positions.

    Returns
    -------
    (k, k) float64 array, unit sum, k odd

    Raises
    ------
    InputError
        When a parameter is not positive or ``pixfrac`` exceeds 1.

    Notes
    -----
    An output pixel averages the detector pixels with weights equal to the area that it shares with their drops
    (Fruchter & Hook 2002, 10.1086/338393; their section 7 on correlated noise). Over many dithers the weight
    at distance d is the overlap of a box of side ``ratio * pixfrac`` with a box of one output pixel. ``step=1``
    keeps this weight at whole pixels only, as if every drop were centred on a pixel.
    """
    if not (ratio > 0 and 0 < pixfrac <= 1 and step >= 1):
        raise InputError(
            f"a drop of pixfrac {pixfrac} and detector pixels of {ratio} output pixels, step {step}",
            field="drizzle_kernel",
            remedy="use ratio > 0, 0 < pixfrac <= 1, step >= 1",
        )
    drop = ratio * pixfrac
    reach = int(np.ceil((drop + 1.0) / 2 * step))
    distance = np.abs(np.arange(-reach, reach + 1)) / step
    overlap = np.clip((drop + 1.0) / 2 - distance, 0.0, min(drop, 1.0))
    overlap = overlap[overlap > 0]
    return np.asarray(np.outer(overlap, overlap) / overlap.sum() ** 2)


def _checked_variance(variance: ArrayLike) -> Float:
    values = np.asarray(variance, dtype=np.float64)
    if values.ndim != 2:
        raise ShapeError(f"variance has {values.ndim} dimensions; expected 2 (y, x)", field="variance")
    if not np.all(values >= 0) or not np.all(np.isfinite(values)):
        raise InputError("variance has negative or non-finite pixels", field="variance")
    return values


def _checked_kernel(kernel: ArrayLike) -> NDArray[Any]:
    taps = np.asarray(kernel, dtype=np.float64)
    if taps.ndim != 2 or taps.shape[0] % 2 == 0 or taps.shape[1] % 2 == 0:
        raise ShapeError(f"the kernel has shape {taps.shape}; expected two odd dimensions", field="kernel")
    return taps
