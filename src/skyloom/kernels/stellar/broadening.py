"""Templates broadened, shifted and averaged over channels in one go, on plain arrays.

Templates are sums of narrow Gaussians on an even grid in ln(wavelength) (`skyloom.spectral.stellar.template_grid`). A
Gaussian stays one under broadening, so for any channel the broadened template is a sum over the grid with the weights
of one Gaussian: its variance is that of the narrow ones plus those of the stars' velocities and of the spectrograph,
which may differ from channel to channel. The mean over a channel of width w adds the variance w^2/12 and the cumulants
-w^4/120 and w^6/252 of a box, as Hermite polynomials (Edgeworth's series).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.lines.profiles import ROOT_TWO_PI, SPEED_OF_LIGHT

__all__ = ["Channels", "Taps", "broaden", "broaden_slopes", "fill_taps", "most_taps", "tap_space"]

Float = NDArray[np.float64]
REACH = 4.8  # Standard deviations to which a Gaussian is followed; 2e-6 of it lies beyond.
WIDEST = 1.2  # A channel wider than this many standard deviations is cut, for the series to hold to 1e-5.


class Channels(NamedTuple):
    """Where channels lie on the grid of templates, in its steps.

    ``place`` (n,) of the centres at velocity 0, ``width`` (n,), ``extra`` (n,): variance that the spectrograph has
    more than the templates (negative where less); ``spread``: variance of the narrow Gaussians; ``step``: of the grid,
    in ln(wavelength).
    """

    place: Float
    width: Float
    extra: Float
    spread: float
    step: float


class Taps(NamedTuple):
    """Weights (n, most) of the grid points ``first`` ... ``first + number - 1`` for each channel."""

    weights: Float
    first: NDArray[np.int64]
    number: NDArray[np.int64]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _variance(channels: Channels, p: int, squared: float) -> float:
    """Variance of channel p for a squared dispersion in km2/s2, without the narrow Gaussian and the channel."""
    scale = SPEED_OF_LIGHT * channels.step
    return channels.extra[p] + squared / (scale * scale)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def most_taps(channels: Channels, squared: float) -> int:
    """Return the number of grid points that the broadest channel can need."""
    most = 0.0
    for p in range(channels.place.size):
        variance = channels.spread + max(_variance(channels, p, squared), 0.0)
        most = max(
            most, 2.0 * REACH * math.sqrt(variance + channels.width[p] ** 2 / 12.0) + channels.width[p]
        )
    return int(most) + 3


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _gaussian(offset: float, variance: float, taps: int, out: Float) -> None:
    """Write ``exp(-u^2 / 2 variance)`` at u = offset, offset + 1, ... by recurrence, four chains beside each other."""
    inverse = 1.0 / variance
    value = math.exp(-0.5 * offset * offset * inverse)
    ratio, decay = math.exp(-(offset + 0.5) * inverse), math.exp(-inverse)
    # Three exponentials make all: they cost more than the rest.
    square = ratio * ratio
    apart = decay * decay * decay * decay
    first = square * square * apart * decay * decay
    slower = (apart * apart) * (apart * apart)
    for tap in range(min(4, taps)):
        out[tap] = value
        value *= ratio
        ratio *= decay
    second = first * apart
    third = second * apart
    fourth = third * apart
    tap = 4
    while tap + 3 < taps:
        out[tap] = out[tap - 4] * first
        out[tap + 1] = out[tap - 3] * second
        out[tap + 2] = out[tap - 2] * third
        out[tap + 3] = out[tap - 1] * fourth
        first *= slower
        second *= slower
        third *= slower
        fourth *= slower
        tap += 4
    while tap < taps:
        out[tap] = out[tap - 4] * first
        first, second, third = second, third, fourth
        tap += 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _weights(
    channels: Channels, p: int, shift: float, squared: float, n_grid: int, work: Float, out: Float
) -> tuple[int, int]:
    """Write the weights of channel p by tap (taps,); return the first tap and their number."""
    variance = channels.spread + max(_variance(channels, p, squared), 0.0)
    width = channels.width[p]
    parts = max(int(math.ceil(width / (WIDEST * math.sqrt(variance + width * width / 12.0)))), 1)
    # A narrower part has a smaller variance, so the count is checked once more with its own.
    parts = max(parts, int(math.ceil(width / (WIDEST * math.sqrt(variance + (width / parts) ** 2 / 12.0)))))
    width /= parts
    total = variance + width * width / 12.0
    sigma = math.sqrt(total)
    place = channels.place[p] - shift
    half = REACH * sigma + 0.5 * width * (parts - 1)
    first = min(max(int(math.ceil(place - half)), 0), n_grid - 1)
    last = min(max(int(math.floor(place + half)), first), n_grid - 1)
    taps = last - first + 1
    ratio = width * width / total
    fourth, sixth = -ratio * ratio / 2880.0, ratio**3 / 181440.0
    area = 1.0 / (ROOT_TWO_PI * sigma * parts)
    inverse = 1.0 / total
    for part in range(parts):
        offset = first - place - width * (part - 0.5 * (parts - 1))
        _gaussian(offset, total, taps, work)
        if part == 0:
            for tap in range(taps):
                out[tap] = 0.0
        for tap in range(taps):
            s = (offset + tap) * (offset + tap) * inverse
            series = fourth * ((s - 6.0) * s + 3.0) + sixth * (((s - 15.0) * s + 45.0) * s - 15.0)
            out[tap] += area * work[tap] * (1.0 + series)
    return first, taps


@numba.njit(cache=True, nogil=True, error_model="numpy")
def tap_space(channels: Channels, squared: float, n_grid: int) -> Taps:
    """Return space for taps up to a squared dispersion."""
    n = channels.place.size
    most = min(most_taps(channels, squared), n_grid) + 4
    return Taps(np.empty((n, most)), np.zeros(n, np.int64), np.zeros(n, np.int64))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def fill_taps(channels: Channels, velocity: float, squared: float, n_grid: int, taps: Taps) -> None:
    """Write the taps at a velocity (km/s) and a squared dispersion (km2/s2)."""
    shift = math.log1p(velocity / SPEED_OF_LIGHT) / channels.step
    work = np.empty(taps.weights.shape[1])
    for p in range(channels.place.size):
        taps.first[p], taps.number[p] = _weights(channels, p, shift, squared, n_grid, work, taps.weights[p])


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _add(coefficients: Float, first: int, taps: int, weights: Float, out: Float) -> None:
    """Write the sum of rows of ``coefficients`` times weights."""
    n_templates = coefficients.shape[1]
    for k in range(n_templates):
        out[k] = 0.0
    tap = 0
    while tap + 3 < taps:
        a, b, c, d = weights[tap], weights[tap + 1], weights[tap + 2], weights[tap + 3]
        i = first + tap
        for k in range(n_templates):
            out[k] += (
                a * coefficients[i, k] + b * coefficients[i + 1, k]
                + c * coefficients[i + 2, k] + d * coefficients[i + 3, k]
            )  # fmt: skip
        tap += 4
    while tap < taps:
        for k in range(n_templates):
            out[k] += weights[tap] * coefficients[first + tap, k]
        tap += 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def broaden(taps: Taps, coefficients: Float, out: Float) -> None:
    """Write templates, from coefficients (n_grid, n_templates), into the first columns of ``out`` (n, ...)."""
    for p in range(taps.first.size):
        _add(coefficients, taps.first[p], taps.number[p], taps.weights[p], out[p])


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def _moments(
    coefficients: Float, first: int, taps: int, weights: Float, offset: float
) -> tuple[float, float, float]:
    """Sums of weighted coefficients times powers 0, 1, 2 of their distance from the channel."""
    zero, one, two = 0.0, 0.0, 0.0
    for tap in range(taps):
        value = weights[tap] * coefficients[first + tap]
        u = offset + tap
        zero += value
        one += value * u
        two += value * u * u
    return zero, one, two


@numba.njit(cache=True, nogil=True, error_model="numpy")
def broaden_slopes(
    channels: Channels, taps: Taps, coefficients: Float, velocity: float, squared: float, out: Float
) -> None:
    """Write the derivatives of one spectrum (n_grid,) by velocity and squared dispersion, out (2, n).

    Those of the series that stands for the width of a channel are left out: a step of the fit, and errors, do not
    need them.
    """
    shift = math.log1p(velocity / SPEED_OF_LIGHT) / channels.step
    by_velocity = -1.0 / ((SPEED_OF_LIGHT + velocity) * channels.step)
    by_squared = 1.0 / (SPEED_OF_LIGHT * channels.step) ** 2
    for p in range(taps.first.size):
        own = _variance(channels, p, squared)
        inverse = 1.0 / (channels.spread + max(own, 0.0) + channels.width[p] ** 2 / 12.0)
        offset = taps.first[p] - (channels.place[p] - shift)
        zero, one, two = _moments(coefficients, taps.first[p], taps.number[p], taps.weights[p], offset)
        out[0, p] = one * inverse * by_velocity
        # Where the templates are too broad already, the dispersion changes nothing.
        out[1, p] = 0.5 * (two * inverse - zero) * inverse * by_squared if own >= 0.0 else 0.0
