"""Small cubes with known lines, velocities and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from scipy.ndimage import convolve1d
from scipy.special import erf

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.linelist import default_lines
from skyloom.spectral.axes.widths import LIGHT, channel_edges

LSF = 1.1
UNIT = "1e-20 erg/(s cm2 AA)"


def celestial() -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [5.0, 5.0]
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    return wcs


def axis(centre: float, n: int = 120, width: float = 1.25) -> np.ndarray:
    return centre + width * (np.arange(n) - n // 2)


def line_profile(wave: np.ndarray, centre: np.ndarray, sigma: float) -> np.ndarray:
    """Line of flux 1 averaged over channels: (n, *centre.shape), per A."""
    edges = channel_edges(wave)
    centre = np.asarray(centre, dtype=float)
    reach = (edges.reshape(-1, *[1] * centre.ndim) - centre) / (np.sqrt(2) * sigma)
    return 0.5 * np.diff(erf(reach), axis=0) / np.diff(edges).reshape(-1, *[1] * centre.ndim)


def noise_of(
    variance: np.ndarray, rng: np.random.Generator, kernel: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Gaussian noise of this variance, correlated along wavelength by a kernel; and its lags."""
    white = rng.standard_normal(variance.shape)
    if kernel is None:
        return white * np.sqrt(variance), None
    kernel = kernel / np.sqrt(np.sum(kernel**2))
    # wrapped at the ends, so that every channel has the same correlation
    return convolve1d(white, kernel, axis=0, mode="wrap") * np.sqrt(variance), np.correlate(
        kernel, kernel, "full"
    )


def uneven_variance(shape: tuple[int, int, int]) -> np.ndarray:
    """Variance with a slope over the field, one along wavelength, and a few bright sky lines."""
    n, ny, nx = shape
    field = 1.0 + 2.0 * np.arange(nx) / nx + np.arange(ny)[:, np.newaxis] / ny
    run = 1.0 + 0.5 * np.arange(n) / n
    run[n // 2 + 4] = 6.0
    run[n // 2 - 25 : n // 2 - 22] = 9.0
    return run[:, np.newaxis, np.newaxis] * field


def cube_of(
    data, variance, wave, *, mask=None, lags=None, spatial=None, lsf=LSF, medium="air", **more
) -> Cube:
    correlation = None if lags is None and spatial is None else CubeCorrelation(spatial, lags)
    return Cube(
        np.asarray(data, np.float32), np.asarray(variance, np.float32), mask, UNIT, celestial(), wave, medium,
        lsf=lsf, correlation=correlation, **more,
    )  # fmt: skip


def noise_cube(rng, shape=(120, 100, 100), *, kernel=None, redshift=0.0, uneven=True) -> Cube:
    """Nothing but noise about the wavelength of Halpha."""
    variance = uneven_variance(shape) if uneven else np.ones(shape)
    noise, lags = noise_of(variance, rng, kernel)
    wave = axis(default_lines()["Halpha"].rest("air") * (1 + redshift), shape[0])
    return cube_of(noise, variance, wave, lags=lags)


@dataclass
class Disc:
    """A rotating disc: the cube, the same without noise, and its maps."""

    cube: Cube
    truth: Cube
    velocity: np.ndarray
    flux: np.ndarray
    sigma: float


def rotating_disc(
    rng,
    *,
    side=60,
    n=120,
    scale_length=8.0,
    peak=60.0,
    speed=200.0,
    dispersion=30.0,
    turnover=3.0,
    kernel=None,
) -> Disc:
    """Halpha of an inclined exponential disc that turns with +-200 km/s on a flat curve, on a sloping continuum."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    angle, ratio = np.radians(35.0), 0.6
    major, minor = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / ratio
    radius = np.hypot(major, minor)
    velocity = speed * np.tanh(radius / turnover) * major / np.maximum(radius, 1e-9)
    flux = peak * np.exp(-radius / scale_length)
    rest = default_lines()["Halpha"].rest("air")
    wave = axis(rest, n)
    width = np.hypot(LSF, rest * dispersion / LIGHT)
    light = flux * line_profile(wave, rest * (1 + velocity / LIGHT), width)
    light += (0.3 * flux) * (1 + 0.002 * (wave - rest))[:, np.newaxis, np.newaxis]
    variance = np.ones_like(light)
    noise, lags = noise_of(variance, rng, kernel)
    cube = cube_of(light + noise, variance, wave, lags=lags)
    return Disc(cube, cube_of(light, variance, wave, lags=lags), velocity, flux, dispersion)
