"""Exact images of Gaussians: convolved with a PSF and integrated over the pixels of any WCS.

Each Gaussian is carried to the pixel grid by the derivative of the WCS at its centre; the PSF, on the sky, is added
to its covariance. A Gaussian aligned with the pixels is a product of differences of error functions. A tilted one is
a row of aligned ones: its covariance is a diagonal one plus that of a line, along which the trapezoidal rule
converges exponentially. Nothing is sampled, so nothing depends on how fine the pixels are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.ndimage import spline_filter
from scipy.signal import fftconvolve
from scipy.special import ndtr

from skyloom.core.geometry import celestial, pixel_matrix
from skyloom.core.psf import PSF, SampledPSF
from skyloom.errors import InputError
from skyloom.mock.scenes.mixture import psf_mixture

__all__ = ["paint", "paint_each", "sky_to_pixel", "sky_to_plane"]

Float = NDArray[np.float64]
Response = Callable[[int, int, Float, Float], Float]
ARCSEC = 3600.0
# Beyond this many standard deviations a Gaussian is left out: 3e-11 of its light.
REACH = 6.7
# Correlation coefficients of x and y below this are taken for 0.
ALIGNED = 1e-6
# Standard deviation in pixels above which a short series replaces the error function.
WIDE = 3.5
# Smallest standard deviation in pixels: a point, for all purposes.
POINT = 1e-6


def plane_to_sky(east: Float, north: Float, centre: tuple[float, float]) -> tuple[Float, Float]:
    """Return longitude and latitude (degrees) of gnomonic offsets (arcsec) from ``centre`` (degrees).

    Calabretta & Greisen 2002, 10.1051/0004-6361:20021327, section 5.1.3.
    """
    x, y = np.radians(np.asarray(east) / ARCSEC), np.radians(np.asarray(north) / ARCSEC)
    latitude0 = np.radians(centre[1])
    depth = np.cos(latitude0) - y * np.sin(latitude0)
    longitude = np.radians(centre[0]) + np.arctan2(x, depth)
    latitude = np.arctan2(np.sin(latitude0) + y * np.cos(latitude0), np.hypot(x, depth))
    return np.degrees(longitude), np.degrees(latitude)


def sky_to_plane(longitude: Float, latitude: Float, centre: tuple[float, float]) -> tuple[Float, Float]:
    """Return the gnomonic offsets (east, north) in arcsec from ``centre``, the inverse of `plane_to_sky`."""
    alpha = np.radians(np.asarray(longitude) - centre[0])
    delta, delta0 = np.radians(latitude), np.radians(centre[1])
    depth = np.sin(delta) * np.sin(delta0) + np.cos(delta) * np.cos(delta0) * np.cos(alpha)
    x = np.cos(delta) * np.sin(alpha) / depth
    y = (np.sin(delta - delta0) + 2 * np.cos(delta) * np.sin(delta0) * np.sin(alpha / 2) ** 2) / depth
    return np.degrees(x) * ARCSEC, np.degrees(y) * ARCSEC


def sky_to_pixel(offsets: Float, centre: tuple[float, float], wcs: WCS) -> tuple[Float, Float]:
    """Return the pixel positions of tangent-plane offsets, and the derivative of the one by the other.

    Parameters
    ----------
    offsets : (n, 2) array
        East and north, in arcsec.
    centre : (float, float)
        Longitude and latitude of the tangent point, in degrees.
    wcs : astropy.wcs.WCS
        Of the image, distortions included.

    Returns
    -------
    (n, 2) array of x, y, counted from 0, and (n, 2, 2) array in pixels per arcsec
    """
    half = 0.05
    steps = half * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    points = (offsets[:, np.newaxis] + steps).reshape(-1, 2)
    longitude, latitude = plane_to_sky(points[:, 0], points[:, 1], centre)
    pixels = np.stack(celestial(wcs, "a truth image").all_world2pix(longitude, latitude, 0), axis=1)
    pixels = pixels.reshape(-1, 5, 2)
    columns = [(pixels[:, 1] - pixels[:, 2]) / (2 * half), (pixels[:, 3] - pixels[:, 4]) / (2 * half)]
    return pixels[:, 0], np.stack(columns, axis=2)


def paint(
    offsets: Float,
    covariance: Float,
    amplitudes: Float,
    centre: tuple[float, float],
    wcs: WCS,
    shape: tuple[int, int],
    psf: PSF | None = None,
) -> Float:
    """Return images of a sum of Gaussians, convolved with a PSF and integrated over pixels.

    Parameters
    ----------
    offsets : (n, 2) array
        Centres, east and north of ``centre``, in arcsec on the tangent plane.
    covariance : (n, 2, 2) array
        In arcsec2, (east, north); zeros are points.
    amplitudes : (m, n) array
        Light of each Gaussian, for m images at once.
    centre : (float, float)
        Longitude and latitude of the tangent point, in degrees.
    wcs, shape
        Of the image; shape is (ny, nx).
    psf : PSF, optional
        None: no blurring. A `SampledPSF` must be sampled on the pixels of the image (its pixels are then those that
        integrate the light) and is continued between its samples by cubic splines.

    Returns
    -------
    (m, ny, nx) float64 array
        Light per pixel.
    """
    if isinstance(psf, SampledPSF):
        return _paint_sampled(offsets, covariance, amplitudes, centre, wcs, shape, psf)
    position, derivative = sky_to_pixel(offsets, centre, wcs)
    mixture = psf_mixture(psf)
    image = np.zeros((amplitudes.shape[0], *shape))
    for fraction, blur in zip(mixture.fraction, mixture.covariance, strict=True):
        total = derivative @ (covariance + blur) @ derivative.transpose(0, 2, 1)
        _add_aligned(image, *_align(position, total, fraction * amplitudes), _pixel_integrals)
    return image


def paint_each(
    offsets: Float,
    covariance: Float,
    centre: tuple[float, float],
    wcs: WCS,
    shape: tuple[int, int],
    psf: PSF | None = None,
) -> NDArray[np.float32]:
    """Return one image of unit light per Gaussian; the parameters are those of `paint`.

    Returns
    -------
    (n, ny, nx) float32 array
        Share of each Gaussian's light in every pixel. A matrix product with the Gaussians' spectra makes a cube.
    """
    position, derivative = sky_to_pixel(offsets, centre, wcs)
    mixture = psf_mixture(psf)
    ny, nx = shape
    images = np.zeros((position.shape[0], ny, nx), dtype=np.float32)
    for index, image in enumerate(images):
        matrix = derivative[index]
        total = matrix @ (covariance[index] + mixture.covariance) @ matrix.T
        places = np.broadcast_to(position[index], (len(mixture), 2))
        place, sigma, share = _align(places, total, mixture.fraction[np.newaxis])
        near = np.all(place > -REACH * sigma - 2.5, axis=1)
        near &= np.all(place < np.array([nx, ny]) + REACH * sigma + 2.5, axis=1)
        along_x = _pixel_integrals(0, nx, place[near, 0], sigma[near, 0])
        along_y = _pixel_integrals(0, ny, place[near, 1], sigma[near, 1])
        image[...] = (along_y * share[0, near, np.newaxis]).T @ along_x
    return images


def _paint_sampled(
    offsets: Float,
    covariance: Float,
    amplitudes: Float,
    centre: tuple[float, float],
    wcs: WCS,
    shape: tuple[int, int],
    psf: SampledPSF,
) -> Float:
    """Paint with cubic B-splines as pixels, then convolve with the spline coefficients of the PSF."""
    if not np.allclose(pixel_matrix(wcs, shape), psf.matrix, rtol=0, atol=2e-3 * psf.pixel_scale):
        raise InputError(
            f"the PSF is sampled on pixels of {psf.pixel_scale:.4g} arcsec that are not those of the image",
            field="psf",
            remedy="give a Gaussian or Moffat PSF, or one sampled on the grid of the image",
        )
    position, derivative = sky_to_pixel(offsets, centre, wcs)
    total = derivative @ covariance @ derivative.transpose(0, 2, 1)
    margin = psf.array.shape[0] // 2 + 2
    image = np.zeros((amplitudes.shape[0], shape[0] + 2 * margin, shape[1] + 2 * margin))
    _add_aligned(image, *_align(position + margin, total, amplitudes), _spline_samples)
    coefficients = spline_filter(np.pad(psf.array, 2), order=3, mode="mirror")
    inner = slice(margin, -margin)
    blurred = fftconvolve(image, coefficients[np.newaxis], mode="same", axes=(1, 2))
    return np.asarray(blurred[:, inner, inner])


def _align(position: Float, covariance: Float, amplitudes: Float) -> tuple[Float, Float, Float]:
    """Turn Gaussians of any covariance (in pixels) into Gaussians aligned with the pixels.

    With c the covariance of x and y, r = (sx, +-sy) sqrt(|c| / (sx sy)): the Gaussian is the average over t, normally
    distributed, of Gaussians at position + t r whose variances are smaller by the factor 1 - |c| / (sx sy).
    """
    sigma = np.sqrt(np.maximum(covariance[:, [0, 1], [0, 1]], POINT**2))
    correlation = covariance[:, 0, 1] / np.prod(sigma, axis=1)
    size = np.abs(correlation)
    tilted = size > ALIGNED
    if not tilted.any():
        return position, sigma, amplitudes
    largest = min(float(size[tilted].max()), 1.0 - 1e-6)
    # The integrand is a Gaussian in t; a step of its own standard deviation errs by 2 exp(-2 pi^2) = 5e-9.
    step = np.sqrt((1 - largest) / (1 + largest))
    t = step * np.arange(-np.ceil(6.2 / step), np.ceil(6.2 / step) + 1)
    weight = np.exp(-0.5 * t**2)
    weight /= weight.sum()
    direction = sigma[tilted] * np.sqrt(size[tilted])[:, np.newaxis]
    direction[:, 1] *= np.sign(correlation[tilted])
    row = position[tilted, np.newaxis] + t[:, np.newaxis] * direction[:, np.newaxis]
    narrow = sigma[tilted] * np.sqrt(1 - np.minimum(size[tilted], 1.0 - 1e-6))[:, np.newaxis]
    share = amplitudes[:, tilted, np.newaxis] * weight
    return (
        np.concatenate([position[~tilted], row.reshape(-1, 2)]),
        np.concatenate([sigma[~tilted], np.repeat(narrow, t.size, axis=0)]),
        np.concatenate([amplitudes[:, ~tilted], share.reshape(amplitudes.shape[0], -1)], axis=1),
    )


def _add_aligned(image: Float, position: Float, sigma: Float, amplitudes: Float, response: Response) -> None:
    """Add Gaussians aligned with the pixels to the images."""
    ny, nx = image.shape[1:]
    half = REACH * sigma + 2.5
    seen = np.any(amplitudes != 0, axis=0)
    seen &= np.all((position > -half) & (position < np.array([nx, ny]) + half), axis=1)
    # On large images a narrow Gaussian is added to its own box; everywhere else one matrix product adds them all.
    boxed = seen & (np.prod(2 * half, axis=1) < nx * ny / 50) & (nx * ny > 90_000)
    for index in np.flatnonzero(boxed):
        low = np.maximum(np.floor(position[index] - half[index]).astype(int), 0)
        high = np.minimum(np.ceil(position[index] + half[index]).astype(int) + 1, (nx, ny))
        if np.all(high > low):
            near_x, near_y = (
                response(
                    low[axis], high[axis], position[index : index + 1, axis], sigma[index : index + 1, axis]
                )[0]
                for axis in (0, 1)
            )
            patch = amplitudes[:, index, np.newaxis, np.newaxis] * np.outer(near_y, near_x)
            image[:, low[1] : high[1], low[0] : high[0]] += patch
    rest = seen & ~boxed
    narrow = rest & (half.max(axis=1) < min(nx, ny) / 8)
    wide = rest & ~narrow & (sigma.min(axis=1) > WIDE)
    groups = ((wide, response), (rest & ~narrow & ~wide, response), (narrow, partial(_windowed, response)))
    for group, profile in groups:
        chosen = np.flatnonzero(group)
        # Chunks of this size stay in the cache.
        for chunk in np.array_split(chosen, 1 + chosen.size * (nx + ny) // 200_000):
            along_x = profile(0, nx, position[chunk, 0], sigma[chunk, 0])
            along_y = profile(0, ny, position[chunk, 1], sigma[chunk, 1])
            for plane, amplitude in zip(image, amplitudes[:, chunk], strict=True):
                lit = amplitude != 0
                if lit.all():
                    plane += (along_y * amplitude[:, np.newaxis]).T @ along_x
                elif lit.any():
                    plane += (along_y[lit] * amplitude[lit, np.newaxis]).T @ along_x[lit]


def _windowed(response: Response, start: int, stop: int, position: Float, sigma: Float) -> Float:
    """Evaluate ``response`` only within reach of each Gaussian, and leave 0 elsewhere."""
    samples = np.zeros((position.size, stop - start))
    if position.size == 0:
        return samples
    half = int(np.ceil(REACH * sigma.max() + 2.5))
    first = np.rint(position).astype(int) - half
    window = first[:, np.newaxis] + np.arange(2 * half + 1)
    values = response(0, 2 * half + 1, position - first, sigma)
    inside = (window >= start) & (window < stop)
    rows = np.broadcast_to(np.arange(position.size)[:, np.newaxis], window.shape)
    samples[rows[inside], window[inside] - start] = values[inside]
    return samples


def _pixel_integrals(start: int, stop: int, position: Float, sigma: Float) -> Float:
    """Integrals of unit Gaussians over the pixels from ``start`` to ``stop``: (n, stop - start)."""
    if position.size and sigma.min() > WIDE:
        return _wide_integrals(np.arange(start, stop), position, sigma)
    edges = np.arange(start, stop + 1) - 0.5
    return np.diff(ndtr((edges - position[:, np.newaxis]) / sigma[:, np.newaxis]), axis=1)


def _wide_integrals(centres: NDArray[np.int_], position: Float, sigma: Float) -> Float:
    """Integrals over pixels by the Taylor series of the density, of which three terms leave 2e-8 of the peak.

    With h the pixel in standard deviations, int phi = h phi(z) (1 + h^2 He2(z) / 24 + h^4 He4(z) / 1920).
    """
    step = 1.0 / sigma[:, np.newaxis]
    square = ((centres - position[:, np.newaxis]) * step) ** 2
    density = np.exp(-0.5 * square)
    series = 1.0 + step**2 * ((square - 1) / 24 + step**2 * ((square - 6) * square + 3) / 1920)
    return np.asarray(density * series * (step / np.sqrt(2 * np.pi)))


def _spline_samples(start: int, stop: int, position: Float, sigma: Float) -> Float:
    """Unit Gaussians convolved with the cubic B-spline, at the pixels' centres: (n, stop - start).

    The spline is the fourth difference of a cubic, so the result is that of the Gaussian's fourth antiderivative,
    ((u^3 + 3 u) Phi(u) + (u^2 + 2) phi(u)) / 6.
    """
    places = np.arange(start - 2, stop + 2)
    width = sigma[:, np.newaxis]
    u = (places - position[:, np.newaxis]) / width
    density = np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi)
    fourth = ((u**3 + 3 * u) * ndtr(u) + (u**2 + 2) * density) / 6
    samples = np.diff(fourth, n=4, axis=1) * width**3
    # Far away, where the exact value is 0, the differences leave the rounding of large cubes.
    return np.where(np.abs(u[:, 2:-2]) * width < REACH * width + 2, samples, 0.0)
