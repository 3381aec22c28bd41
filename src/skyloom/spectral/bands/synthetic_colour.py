"""The colour of every pixel, which tells what a band holds where the cube does not.

A colour is a slope: change of flux density per A. It comes from windows at both ends of the band, each the median of
several means, so that emission lines and left-over sky lines do not count; where a pixel is too faint to have a colour
of its own, it gets that of the field.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "END_WINDOWS",
    "N_WINDOWS",
    "STEEPEST",
    "Colours",
    "long_sum_inflation",
    "measure_colours",
    "move_means",
]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
N_WINDOWS, END_WINDOWS = 15, 5
STEEPEST = 3.0  # Standard deviation of d ln f / d ln wave among spectra.
# Variance of the median of n independent values of unit variance, times n.
MEDIAN_LOSS = np.array([1.0, 1.0, 1.0, 1.346, 1.193, 1.434])
ROUNDS = 3
CLIP = 4.0  # standard deviations


class Colours(NamedTuple):
    """Slopes of the flux density with wavelength.

    Parameters
    ----------
    slope, variance, covariance : (m,) arrays
        Measured slope of each pixel per A, the variance of its noise, and its covariance with the flux density.
    own : (m,) array
        Weight of that slope, against that of the field times the flux density.
    field, field_error, scatter : float
        Slope of the field divided by its flux density, per A, its error, and its scatter over the pixels.
    curve : float
        Second coefficient of a parabola through the field's spectrum, divided by its flux density, per A2.
    structure : float
        Scatter of the windows about that parabola, divided by the flux density: what lines and breaks amount to.
    """

    slope: Float
    variance: Float
    covariance: Float
    own: Float
    field: float
    field_error: float
    scatter: float
    curve: float
    structure: float


def measure_colours(flux: Float, used: Bool, windows: Float, *, inflation: float, steepest: float) -> Colours:
    """Measure slopes.

    Parameters
    ----------
    flux : (m,) array
        Flux density of each pixel in the band.
    used : (m,) bool array
        Where it is known.
    windows : (k, 5, m) array
        Sums in windows of ascending wavelength: of the data, of 1, of the variance, of the distance from a reference
        wavelength, and of the variance times the channel's weight in ``flux``.
    inflation : float
        Variance of a sum over many channels, in units of that of independent ones.
    steepest : float
        Standard deviation of relative slopes among all spectra, per A; decides where the field shows no light.

    Notes
    -----
    s = (m2 - m1) / (l2 - l1) with the medians m of the end windows. The estimate is the mean of s and c f, the
    field's relative slope c times the flux density, weighted by 1 / var(s) and 1 / (tau f)^2, with tau the scatter of
    s / f over the field beyond the noise. c is fitted to all pixels, s = c f, with the sum of both variances.
    """
    count = windows[:, 1]
    enough = (count > 0) & (count >= 0.5 * count.max(axis=1, keepdims=True))
    safe = np.where(enough, count, 1.0)
    means = np.where(enough, windows[:, 0] / safe, np.nan)
    errors = np.where(enough, inflation * windows[:, 2] / safe**2, np.nan)
    distances = np.where(enough, windows[:, 3] / safe, np.nan)
    shared = np.where(enough, inflation * windows[:, 4] / safe, np.nan)
    slope = np.zeros(flux.size)
    for _ in range(ROUNDS):
        # Without its slope the median of a steep spectrum would be the middle window alone.
        blue, red = (
            _medians(means[part], errors[part], shared[part], distances[part], slope)
            for part in (slice(0, END_WINDOWS), slice(-END_WINDOWS, None))
        )
        known = used & (blue.number > 0) & (red.number > 0)
        span = np.where(known, red.distance - blue.distance, 1.0)
        slope = np.where(known, (red.value - blue.value) / span, 0.0)
    variance = np.where(known, (red.variance + blue.variance) / span**2, 0.0)
    field, error, scatter = _fit_field(slope, variance, np.where(known, flux, 0.0), known)
    field *= steepest**2 / (steepest**2 + error**2)
    own = np.zeros(flux.size)
    spread = np.square(scatter * np.maximum(np.where(known, flux, 0.0), 0.0))
    np.divide(spread, spread + variance, out=own, where=known)
    covariance = np.where(known, (red.covariance - blue.covariance) / span, 0.0)
    whole = known & enough.all(axis=0)
    curve, structure = 0.0, 0.0
    if whole.any():
        curve, structure = _curve(
            means[:, whole].sum(axis=1), float(flux[whole].sum()), distances[:, whole].mean(axis=1)
        )
    return Colours(slope, variance, covariance, own, field, min(error, steepest), scatter, curve, structure)


def move_means(flux: Float, error: Float, shift: Float, colours: Colours) -> tuple[Float, Float]:
    """Move means along slopes by ``shift`` A; return them, and the variance with what is not known of the slopes."""
    own = colours.own
    factor = 1.0 + shift * (1.0 - own) * colours.field
    moved = flux * factor + shift * own * colours.slope
    noise = factor**2 * error + (shift * own) ** 2 * colours.variance
    noise += 2.0 * factor * shift * own * colours.covariance
    noise += (shift * (1.0 - own) * colours.scatter * np.maximum(flux, 0.0)) ** 2
    return moved, np.where(noise > 0, noise, error)


def long_sum_inflation(spectral: Float | None) -> float:
    """Return the variance of a long sum over that of independent channels."""
    return 1.0 if spectral is None else float(max(np.mean(np.sum(np.atleast_2d(spectral), axis=1)), 0.1))


class _Level(NamedTuple):
    value: Float
    variance: Float
    covariance: Float
    distance: Float
    number: NDArray[np.int64]


def _medians(means: Float, errors: Float, shared: Float, distances: Float, slope: Float) -> _Level:
    """Medians over the first axis at the mean distance, after a slope is taken off; 0 where there is no value.

    By symmetry the covariance of a median with anything linear is that of the mean.
    """
    number = np.isfinite(means).sum(axis=0)
    safe = np.maximum(number, 1)
    middle = np.nansum(distances, axis=0) / safe
    ordered = np.sort(means - slope * (distances - middle), axis=0)  # NaN goes last
    below, above = (
        np.take_along_axis(ordered, row[np.newaxis], 0)[0] for row in ((safe - 1) // 2, safe // 2)
    )
    return _Level(
        np.where(number > 0, 0.5 * (below + above), 0.0),
        MEDIAN_LOSS[number] * np.nansum(errors, axis=0) / safe**2,
        np.nansum(shared, axis=0) / safe,
        middle,
        number,
    )


def _fit_field(slope: Float, variance: Float, flux: Float, known: Bool) -> tuple[float, float, float]:
    """Fit slope = c flux with scatter tau flux; return c, its error and tau."""
    used = known & (flux != 0)
    centre, error, scatter = 0.0, np.inf, 0.0
    for _ in range(6):
        if np.count_nonzero(used) < 2:
            break
        weight = 1.0 / (variance[used] + (scatter * flux[used]) ** 2)
        normal = float(np.sum(weight * flux[used] ** 2))
        centre, error = float(np.sum(weight * flux[used] * slope[used])) / normal, normal**-0.5
        rest = slope - centre * flux
        excess = np.sum(weight**2 * (rest[used] ** 2 - variance[used]) * flux[used] ** 2)
        scatter = float(np.sqrt(max(0.0, excess / np.sum(weight**2 * flux[used] ** 4))))
        used = known & (flux != 0) & (rest**2 < CLIP**2 * (variance + (scatter * flux) ** 2))
    return centre, error, scatter


def _curve(spectrum: Float, flux: float, distances: Float) -> tuple[float, float]:
    """Relative second coefficient of a parabola through a spectrum, lines clipped, and the scatter with lines."""
    if not flux > 0:
        return 0.0, 0.0
    relative, used = spectrum / flux, np.ones(spectrum.size, dtype=bool)
    curve, rest = 0.0, np.zeros(spectrum.size)
    for _ in range(3):
        coefficients = np.polynomial.polynomial.polyfit(distances[used], relative[used], 2)
        rest = relative - np.polynomial.polynomial.polyval(distances, coefficients)
        curve = float(coefficients[2])
        used = np.abs(rest) <= CLIP * 1.4826 * np.median(np.abs(rest[used]))
        if np.count_nonzero(used) <= spectrum.size // 2:
            break
    return curve, float(np.sqrt(np.sum(rest**2) / (spectrum.size - 3)))
