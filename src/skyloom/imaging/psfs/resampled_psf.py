"""What resampling does to a PSF: the interpolation kernel blurs it, and other pixels integrate it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from skyloom.core.psf import PSF, ChromaticPSF, GaussianPSF, SampledPSF
from skyloom.kernels.images.lanczos import lanczos3

__all__ = ["resampled_psf"]

Float = NDArray[np.float64]
PIXEL_VARIANCE = 1.0 / 12.0
"""Second moment of a pixel along one side."""
FINE = 64
"""Samples per pixel of tabulated one-dimensional kernels."""


def resampled_psf(psf: PSF | None, source: Float, target: Float, method: str) -> PSF | None:
    """Return the PSF of a resampled image, averaged over sub-pixel phases.

    Parameters
    ----------
    psf : PSF or None
    source, target : (2, 2) arrays
        Pixel matrices of the image and of the target, arcsec per pixel.
    method : {"bilinear", "lanczos3", "area"}

    Returns
    -------
    PSF or None
        A Gaussian stays one: second moments add (that of the interpolation kernel, and the difference of the two
        pixels' own, because a `GaussianPSF` is the profile before pixels integrate it). Any other profile
        becomes a `SampledPSF` on the target's pixels.
    """
    if psf is None:
        return None
    if isinstance(psf, GaussianPSF):
        return _widened(psf, source, target, method)
    if isinstance(psf, ChromaticPSF) and isinstance(psf.psfs[0], GaussianPSF):
        widened = tuple(
            _widened(item, source, target, method) for item in psf.psfs if isinstance(item, GaussianPSF)
        )
        return ChromaticPSF(psf.wave, widened)
    return _sampled(psf, source, target, method)


def _widened(psf: GaussianPSF, source: Float, target: Float, method: str) -> GaussianPSF:
    if method == "area":
        # The source pixel blurs twice (when it was observed, and as the flat tile that is cut up); the target
        # pixel's own integral is left to whoever renders the PSF.
        extra = 2.0 * PIXEL_VARIANCE * source @ source.T
    else:
        extra = (
            PIXEL_VARIANCE + _second_moment(method)
        ) * source @ source.T - PIXEL_VARIANCE * target @ target.T
    covariance = psf.covariance + extra
    values, vectors = np.linalg.eigh(covariance)
    # A PSF far narrower than a coarser target's pixel cannot be told from a point.
    floor = 1e-4 * abs(np.linalg.det(target))
    return GaussianPSF.from_covariance(vectors @ np.diag(np.maximum(values, floor)) @ vectors.T)


@lru_cache(maxsize=4)
def _kernel(method: str) -> tuple[Float, Float]:
    """Interpolation kernel along one axis: offsets and values that sum to 1."""
    offset = (np.arange(6 * FINE) + 0.5) / FINE - 3.0
    if method == "lanczos3":
        values = lanczos3(offset)
    elif method == "bilinear":
        values = np.maximum(0.0, 1.0 - np.abs(offset))
    else:  # the source pixel as a tile; the target's pixel is integrated over by the caller
        values = np.where(np.abs(offset) < 0.5, 1.0, 0.0)
    return offset, values / values.sum()


def _second_moment(method: str) -> float:
    offset, values = _kernel(method)
    return float(np.sum(values * offset**2))


@lru_cache(maxsize=4)
def _blur(method: str) -> Float:
    """Interpolation kernel as a convolution of samples: blurred with the kernel that reads between samples."""
    offset, values = _kernel(method)
    lag = np.arange(-6, 7)
    return np.asarray(lanczos3(lag[:, np.newaxis] - offset) @ values)


def _sampled(psf: PSF, source: Float, target: Float, method: str) -> SampledPSF:
    """Blur the PSF on the source's pixels and read it at the target's."""
    # The images of a survey share their pixels to 1e-6: rounded, they share the result.
    array = np.ascontiguousarray(psf.render(source))
    step = np.round(np.linalg.inv(source) @ target, 6) + 0.0
    return SampledPSF(_blurred(array.tobytes(), array.shape[0], step.tobytes(), method), target)


@lru_cache(maxsize=64)
def _blurred(array_key: bytes, side: int, step_key: bytes, method: str) -> Float:
    """Return a PSF at output pixels that lie ``step`` input pixels apart."""
    from scipy.ndimage import convolve1d, map_coordinates, spline_filter

    array = np.pad(np.frombuffer(array_key).reshape(side, side), 6)
    matrix = np.frombuffer(step_key).reshape(2, 2)
    kernel = _blur(method)
    blurred = convolve1d(convolve1d(array, kernel, axis=0, mode="constant"), kernel, axis=1, mode="constant")
    spline = spline_filter(blurred, order=3)
    half = int(np.ceil((array.shape[0] // 2 - 6) / np.sqrt(abs(np.linalg.det(matrix)))))
    axis = np.arange(-half, half + 1.0)
    nodes, weights = np.zeros(1), np.ones(1)
    if method == "area":
        count = 2 + int(np.ceil(np.linalg.norm(matrix, 2)))
        nodes, weights = np.polynomial.legendre.leggauss(min(count, 32))
        nodes, weights = nodes / 2, weights / 2
    result = np.zeros((axis.size, axis.size))
    for dy, weight_y in zip(nodes, weights, strict=True):
        for dx, weight_x in zip(nodes, weights, strict=True):
            x, y = np.meshgrid(axis + dx, axis + dy)
            where = np.tensordot(matrix, np.stack([x, y]), axes=1) + array.shape[0] // 2
            values = map_coordinates(spline, where[::-1], order=3, mode="constant", prefilter=False)
            result += weight_x * weight_y * values
    result.flags.writeable = False  # Shared by all who ask for it.
    return result
