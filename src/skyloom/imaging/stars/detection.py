"""Point sources: peaks that look like the PSF, and not like a nebula."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core.image import Image
from skyloom.errors import InputError, ShapeError

__all__ = ["find_point_sources"]

Float = NDArray[np.float64]
LARGEST_MISFIT = 0.15  # Root mean square of what the PSF leaves, over that of the star.
LINE_SHARE = 0.2  # Of a source's light: with more in the line it is a nebula.


def find_point_sources(
    image: Image, *, significance: float = 100.0, line: Image | None = None
) -> tuple[Float, Float, Float]:
    """Find sources that the PSF alone explains.

    Parameters
    ----------
    image : Image
        With a WCS and a PSF.
    significance : float
        Of the flux of the fitted PSF, with the correlation of the noise; beneath about 50, noise hides whether a source
        is a point.
    line : Image, optional
        Excess of the narrow band over the continuum, same grid and unit: sources with more than a fifth of their flux
        in it are left out.

    Returns
    -------
    x, y, flux : (n,) float64 arrays
        Places in pixels, and fluxes in the unit of the image summed over pixels.

    Raises
    ------
    InputError
        When the image has no PSF.
    ShapeError
        When ``line`` has another shape.

    Notes
    -----
    Each peak of 5 x 5 pixels is fitted with the PSF at its centroid and a constant, within 1.5 FWHM; it is a point when
    what is left has at most 15 % of the root mean square of the fitted star.
    """
    if image.psf is None:
        raise InputError(
            "the image has no PSF to tell stars by", field="psf", remedy="give image.evolve(psf=...)"
        )
    if line is not None and line.shape != image.shape:
        raise ShapeError(f"line has shape {line.shape}; expected {image.shape}", field="line")
    matrix = image.pixel_matrix
    half = max(2, int(np.ceil(1.5 * image.psf.fwhm / image.pixel_scale)))
    found: list[tuple[float, float, float]] = []
    for y, x in zip(*_peaks(image, significance, half), strict=True):
        box = slice(y - half, y + half + 1), slice(x - half, x + half + 1)
        if image.mask[box].any():
            continue
        values = image.data[box].astype(np.float64)
        centre = _centroid(values, half)
        stamp = image.psf.render(matrix, 4 * half + 1, centre)[half:-half, half:-half]
        flux, misfit = _fit(values, stamp)
        error = np.sqrt(float(image.variance[y, x]) * _noise_gain(stamp, image.correlation))
        if not (flux > significance * error and misfit < LARGEST_MISFIT):
            continue
        if line is not None and not line.mask[box].any():
            excess = _fit(line.data[box].astype(np.float64), stamp)[0]
            if excess > LINE_SHARE * flux:
                continue
        found.append((x + centre[0], y + centre[1], flux))
    columns = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return columns[0], columns[1], columns[2]


def _peaks(image: Image, significance: float, half: int) -> tuple[Any, Any]:
    """Highest pixels of 5 x 5, far above what is around them."""
    data = np.where(image.mask, -np.inf, image.data)
    highest = ndimage.maximum_filter(data, 5) == data
    highest &= image.valid
    highest[:half] = highest[-half:] = False
    highest[:, :half] = highest[:, -half:] = False
    rows, columns = np.nonzero(highest)
    # The peak of a point source of this significance stands out by at least a fifth of it.
    noise = np.sqrt(image.variance[rows, columns])
    bright = image.data[rows, columns] > 0.2 * significance * noise
    return rows[bright], columns[bright]


def _centroid(values: Float, half: int) -> tuple[float, float]:
    """Offset (x, y) of a peak from its pixel: two parabolas through the logarithms, or the values, of 3 pixels."""
    offset = []
    for triple in (values[half, half - 1 : half + 2], values[half - 1 : half + 2, half]):
        curve = np.log(triple) if triple.min() > 0 else triple
        bend = curve[0] - 2.0 * curve[1] + curve[2]
        shift = 0.5 * (curve[0] - curve[2]) / bend if bend < 0 else 0.0
        offset.append(float(np.clip(shift, -0.5, 0.5)))
    return offset[0], offset[1]


def _noise_gain(stamp: Float, correlation: Float | None) -> float:
    """Variance of the flux of `_fit` in units of that of a pixel."""
    shape = stamp - stamp.mean()
    smeared = shape if correlation is None else ndimage.convolve(shape, correlation, mode="constant")
    return float(np.sum(shape * smeared) / np.sum(shape**2) ** 2)


def _fit(values: Float, stamp: Float) -> tuple[float, float]:
    """Flux of the PSF over a constant, and the rms left over the rms of the star."""
    shape = stamp - stamp.mean()
    flux = float(np.sum(values * shape) / np.sum(shape**2))
    if not flux > 0:
        return flux, np.inf
    left = values - values.mean() - flux * shape
    return flux, float(np.sqrt(np.sum(left**2) / np.sum((flux * shape) ** 2)))
