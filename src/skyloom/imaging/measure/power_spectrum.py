"""How much structure an image has at each scale, how much of it is noise, and what its PSF lets through."""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray
from scipy import fft, ndimage

from skyloom.core.image import Image
from skyloom.core.threads import blocks
from skyloom.errors import InputError

__all__ = ["PowerSpectrum", "power_spectrum"]

Float = NDArray[np.float64]
SEGMENT = 2048
"""Longest side, in pixels, of the pieces that large images are cut into; their spectra are averaged."""
COARSE = 8
"""Side of the blocks of pixels on which the border of the field is found."""
LEAST_SHARE = 0.3
"""A piece with less of its area inside the field does not count."""


@dataclass(frozen=True, slots=True, eq=False)
class PowerSpectrum:
    """Azimuthally averaged power spectrum of an image.

    Parameters
    ----------
    table : QTable
        ``frequency`` (1/arcsec), ``power`` and its standard error ``power_err`` (unit2 arcsec2: the variance of the
        image is the integral over the plane of frequencies), ``noise`` (what variance and correlation claim),
        ``n_modes``.
    fwhm : float
        Of the PSF, arcsec; NaN when the image has none.
    scale : float
        Pixel scale, arcsec.
    """

    table: QTable
    fwhm: float
    scale: float


def power_spectrum(image: Image, *, bins: int = 40, apodisation: float = 0.1) -> PowerSpectrum:
    """Return the power spectrum of an image, averaged over directions.

    Parameters
    ----------
    image : Image
        With a WCS.
    bins : int
        Rings of frequency with equal steps of the logarithm; rings without a mode are left out.
    apodisation : float
        Width of the smooth border, as a share of the smaller side of the field.

    Returns
    -------
    PowerSpectrum

    Raises
    ------
    InputError
        When no part of the image is usable.

    Notes
    -----
    ``P(k) = A |FFT[(data - mean) w]|^2 / sum w^2`` with A the pixel area and w a window that falls smoothly (sin2) to
    zero at the border of the field, however that lies in the image; pixels under the mask within it count as the mean.
    ``noise(k) = A sum(w^2 v)/sum(w^2) FT[rho](k)``. Errors that pixels share are not part of the noise. Of images
    beyond 2048 pixels pieces are averaged, so that scales larger than a piece are not seen.
    """
    ny, nx = image.shape
    pieces = [
        (rows, columns)
        for rows in blocks(ny, -(-ny // -(-ny // SEGMENT)))
        for columns in blocks(nx, -(-nx // -(-nx // SEGMENT)))
    ]
    rings: list[NDArray[np.float64]] = []
    scale = image.pixel_scale
    longest = max(min(image.shape[0], SEGMENT), min(image.shape[1], SEGMENT)) * scale
    edges = np.geomspace(0.8 / longest, np.sqrt(0.5) / scale, bins + 1)
    for piece in pieces:
        ring = _piece(image, piece, apodisation, edges, scale)
        if ring is not None:
            rings.append(ring)
    if not rings:
        raise InputError("no part of the image is usable", field="mask")
    number, frequency, power, noise, square = np.sum(rings, axis=0)
    full = number > 0
    number, frequency, power, noise, square = (
        part[full] for part in (number, frequency, power, noise, square)
    )
    mean = power / number
    # Half of the modes of a real image are conjugates of the others; the window mixes neighbours.
    scatter = np.sqrt(np.maximum(square / number - mean**2, 0.0) / np.maximum(0.5 * number, 1.0))
    unit = image.unit**2 * u.arcsec**2
    table = QTable()
    table["frequency"] = frequency / number / u.arcsec
    table["power"] = mean * unit
    table["power_err"] = np.maximum(scatter, mean / np.sqrt(np.maximum(0.5 * number, 1.0))) * unit
    table["noise"] = noise / number * unit
    table["n_modes"] = number.astype(np.int64)
    table["noise"].info.description = "what variance and correlation claim"
    fwhm = float("nan") if image.psf is None else float(image.psf.fwhm)
    return PowerSpectrum(table, fwhm, scale)


def _piece(
    image: Image, piece: tuple[slice, slice], apodisation: float, edges: Float, scale: float
) -> Float | None:
    """Sums over rings of one piece: modes, frequency, power, noise, squared power."""
    mask = image.mask[piece]
    window = _window(mask, apodisation)
    total = float(np.sum(window, dtype=np.float64))
    if total < LEAST_SHARE * window.size * (1 - apodisation) ** 2:
        return None
    usable = ~mask
    squares = float(np.sum(np.square(window), where=usable, dtype=np.float64))
    data = np.where(usable, image.data[piece], 0).astype(np.float32)
    mean = float(np.sum(window * data, dtype=np.float64)) / float(
        np.sum(window, where=usable, dtype=np.float64)
    )
    waves = fft.rfft2((data - np.float32(mean)) * window * usable)
    area = scale**2
    power = (waves.real.astype(np.float64) ** 2 + waves.imag.astype(np.float64) ** 2) * (area / squares)
    ny, nx = mask.shape
    down, across = fft.fftfreq(ny), fft.rfftfreq(nx)
    frequency = np.hypot(down[:, np.newaxis], across) / scale
    variance = np.where(usable, image.variance[piece], 0)
    level = float(np.sum(np.square(window) * variance, dtype=np.float64)) / squares
    noise = level * area * _transform(image.correlation, down, across)
    ring = np.digitize(frequency.ravel(), edges) - 1
    # The columns of a real transform stand for two, the first (and the last of an even side) for one.
    twice = np.full(across.size, 2.0)
    twice[0] = 1.0
    if nx % 2 == 0:
        twice[-1] = 1.0
    number = np.broadcast_to(twice, frequency.shape).ravel()
    inside = (ring >= 0) & (ring < edges.size - 1)
    ring, number = ring[inside], number[inside]
    planes = (np.ones_like(frequency), frequency, power, noise, power**2)
    return np.array(
        [np.bincount(ring, number * plane.ravel()[inside], edges.size - 1) for plane in planes],
        dtype=np.float64,
    )


def _window(mask: NDArray[np.bool_], apodisation: float) -> NDArray[np.float32]:
    """Return a window that is 1 inside the field and falls to 0 at its border; holes in the field are part of it."""
    ny, nx = mask.shape
    side = max(1, min(COARSE, min(ny, nx) // 64))
    rows, columns = -(-ny // side), -(-nx // side)
    padded = np.ones((rows * side, columns * side), bool)
    padded[:ny, :nx] = mask
    field = padded.reshape(rows, side, columns, side).mean(axis=(1, 3)) < 0.5
    field = np.pad(ndimage.binary_fill_holes(field), 1)
    distance = ndimage.distance_transform_edt(field)[1:-1, 1:-1]
    width = max(1.0, apodisation * min(ny, nx) / side)
    coarse = np.sin(0.5 * np.pi * np.clip((distance - 0.5) / width, 0.0, 1.0)) ** 2
    if side == 1:
        return np.asarray(coarse, dtype=np.float32)
    y = np.clip((np.arange(ny) + 0.5) / side - 0.5, 0, rows - 1)
    x = np.clip((np.arange(nx) + 0.5) / side - 0.5, 0, columns - 1)
    i, k = np.minimum(y.astype(int), rows - 2), np.minimum(x.astype(int), columns - 2)
    t, s = (y - i).astype(np.float32)[:, np.newaxis], (x - k).astype(np.float32)
    coarse = coarse.astype(np.float32)
    along = coarse[:, k] * (1 - s) + coarse[:, k + 1] * s
    return np.asarray(along[i] * (1 - t) + along[i + 1] * t)


def _transform(correlation: Float | None, down: Float, across: Float) -> Float:
    """Return the Fourier transform of a noise correlation at these frequencies, not below zero."""
    if correlation is None:
        return np.ones((down.size, across.size))
    radius = correlation.shape[0] // 2
    lags = np.arange(-radius, radius + 1)
    first = np.exp(-2j * np.pi * np.outer(down, lags))
    second = np.exp(-2j * np.pi * np.outer(lags, across))
    return np.asarray(np.maximum((first @ correlation @ second).real, 0.0))
