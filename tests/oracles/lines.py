"""Naive twins of the line fit: every parameter free, numerical derivatives, dense matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.special import erf

from skyloom.core.linelist import LineList
from skyloom.core.spectra import Spectra

SPEED_OF_LIGHT = 299792.458


def edges_of(wave: np.ndarray) -> np.ndarray:
    """Borders of channels half-way between their centres."""
    middle = 0.5 * (wave[1:] + wave[:-1])
    return np.concatenate([[2 * wave[0] - middle[0]], middle, [2 * wave[-1] - middle[-1]]])


def gaussian(edges: np.ndarray, centre: float, sigma: float) -> np.ndarray:
    """Unit flux, averaged over channels."""
    x = (edges - centre) / (np.sqrt(2) * sigma)
    return 0.5 * np.diff(erf(x)) / np.diff(edges)


def line_profile(
    rest: float, edges: np.ndarray, lsf: np.ndarray, redshift: float, velocity: float, variance: float
) -> np.ndarray:
    """A line of unit flux, with the instrument's width of the channel that it has at rest."""
    unshifted = rest * (1 + redshift)
    width = lsf[np.searchsorted(edges, unshifted) - 1]
    sigma = np.sqrt(width**2 + variance * (unshifted / SPEED_OF_LIGHT) ** 2)
    return gaussian(edges, unshifted * (1 + velocity / SPEED_OF_LIGHT), sigma)


def mock_spectra(
    wave: np.ndarray, lines: LineList, fluxes: dict[str, float], *, n: int, rng: np.random.Generator,
    velocity: float = 30.0, sigma: float = 60.0, noise: float = 1.0, level: float = 5.0, lsf: Any = 1.1,
    redshift: Any = 0.0, medium: str = "air", lags: np.ndarray | None = None, unit: str = "1e-20 erg/(s cm2 AA)",
) -> Spectra:  # fmt: skip
    """Lines on a flat continuum with Gaussian noise; lags are a moving average's, given as its weights."""
    edges = edges_of(wave)
    width = np.broadcast_to(np.asarray(lsf, dtype=float), wave.shape)
    data = np.empty((n, wave.size))
    for row, z in enumerate(np.broadcast_to(redshift, n)):
        if row == 0 or np.ndim(redshift):
            clean = np.full(wave.size, level)
            for key, flux in fluxes.items():
                clean = clean + flux * line_profile(
                    lines[key].rest(medium), edges, width, z, velocity, sigma**2
                )
        data[row] = clean
    draws = rng.normal(size=(n, wave.size + 20))
    correlation = None
    if lags is not None:
        kernel = lags / np.sqrt(np.sum(lags**2))
        draws = np.apply_along_axis(np.convolve, 1, draws, kernel, mode="same")
        correlation = np.correlate(kernel, kernel, mode="full")
    data += noise * draws[:, 10 : 10 + wave.size]
    return Spectra(
        data.astype(np.float32), np.full(data.shape, noise**2, dtype=np.float32), np.zeros(data.shape, bool), unit,
        wave, medium, lsf=lsf, correlation=correlation,
    )  # fmt: skip


@dataclass
class DenseFit:
    """Parameters in the order v, q, fluxes of the free lines, polynomial coefficients.

    ``lent`` is the part of their variances that comes through v and q.
    """

    values: np.ndarray
    covariance: np.ndarray
    bias: np.ndarray
    lent: np.ndarray
    chi2: float


def dense_fit(
    spectra: Spectra, row: int, free: list[tuple[float, list[tuple[float, float]]]], window: tuple[float, float],
    start: tuple[float, float], *, redshift: float = 0.0, degree: int = 1, modes: np.ndarray | None = None,
) -> DenseFit:  # fmt: skip
    """Fit one segment and one kinematic set with `scipy.optimize.least_squares`.

    ``free`` has for each flux its starting value and the (rest wavelength, ratio) of the lines that share it.
    """
    edges = edges_of(spectra.wave)
    low, high = np.searchsorted(edges, np.array(window) * (1 + redshift))
    inside = np.zeros(spectra.wave.size, bool)
    inside[low : high - 1] = True
    x = (spectra.wave - spectra.wave[inside].mean()) / np.ptp(spectra.wave[inside]) * 2
    used = inside & ~spectra.mask[row]
    lsf = np.broadcast_to(spectra.lsf[row] if np.ndim(spectra.lsf) == 2 else spectra.lsf, spectra.wave.shape)
    root = 1 / np.sqrt(spectra.variance[row].astype(float))

    def model(p: np.ndarray) -> np.ndarray:
        total = np.polynomial.polynomial.polyval(x, p[2 + len(free) :])
        for flux, (_, members) in zip(p[2 : 2 + len(free)], free, strict=True):
            for rest, ratio in members:
                total = total + flux * ratio * line_profile(rest, edges, lsf, redshift, p[0], p[1])
        return (total * root)[used]

    data = (spectra.data[row] * root)[used]
    first = np.concatenate([start, [flux for flux, _ in free], np.zeros(degree + 1)])
    scale = np.concatenate([[10, 1000], np.maximum(np.abs(first[2 : 2 + len(free)]), 1), np.ones(degree + 1)])
    fit = least_squares(lambda p: model(p * scale) - data, first / scale, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    best = fit.x * scale
    step = 1e-3 * scale
    eye = np.eye(best.size)
    jacobian = np.array([(model(best + step * e) - model(best - step * e)) for e in eye]).T / (2 * step)
    inverse = np.linalg.inv(jacobian.T @ jacobian)
    correlation = _dense_correlation(spectra.correlation, spectra.wave.size)[np.ix_(used, used)]
    estimator = inverse @ jacobian.T
    covariance = estimator @ correlation @ estimator.T
    for mode in [] if modes is None else modes:
        shift = estimator @ (mode * root)[used]
        covariance += np.outer(shift, shift)
    bend = np.zeros(data.size)
    for i in range(best.size):
        for j in range(best.size):
            a, b = step[i] * eye[i] * 10, step[j] * eye[j] * 10
            second = model(best + a + b) - model(best + a - b) - model(best - a + b) + model(best - a - b)
            bend += covariance[i, j] * second / (4 * step[i] * step[j] * 100)
    answer = np.linalg.lstsq(jacobian[:, 2:], jacobian[:, :2], rcond=None)[0]
    lent = np.append(np.zeros(2), np.diag(answer @ covariance[:2, :2] @ answer.T))
    return DenseFit(best, covariance, -0.5 * estimator @ bend, lent, 2 * fit.cost)


def _dense_correlation(lags: np.ndarray | None, n: int) -> np.ndarray:
    if lags is None:
        return np.eye(n)
    matrix = np.zeros((n, n))
    reach = lags.shape[-1] // 2
    band = np.broadcast_to(lags, (n, lags.shape[-1]))
    for i in range(n):
        for d in range(-reach, reach + 1):
            if 0 <= i + d < n:
                matrix[i, i + d] = band[i, reach + d]
    return matrix
