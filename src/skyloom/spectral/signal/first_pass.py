"""A first map of velocities, good enough to place a matched filter and blind to the noise it will be used on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from scipy.special import ndtri

from skyloom.core.cube import Cube
from skyloom.core.image import Flag, Image
from skyloom.core.linelist import LineList
from skyloom.core.provenance import step
from skyloom.core.threads import thread_count
from skyloom.errors import InputError
from skyloom.kernels.signal.weights import MEASURED
from skyloom.spectral.axes.widths import LIGHT
from skyloom.spectral.signal.functional import cut_channels, measure
from skyloom.spectral.signal.line_setup import LineSetup, set_up_line
from skyloom.spectral.signal.windows import FREE_ALLOWANCE, Continuum, Lines

__all__ = ["first_velocity_map"]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

GRID_STEP = 0.4  # Step of the trial velocities in standard deviations of the line.
CORRELATED = 0.01  # Spaxels whose noise is correlated by more than this with a spaxel's count as its own.
CUT = 3.0  # Kernels end at this many standard deviations.
COVERAGE = (0.7, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class _Trials:
    """Flux of the line at trial velocities, divided by its variance; of each spaxel the inverse variance."""

    velocities: Float
    weighted: Float
    inverse: Float
    shape: Float


def first_velocity_map(
    cube: Cube,
    line: Lines,
    redshift: float | ArrayLike | Image,
    *,
    max_velocity: float = 400.0,
    sigma: float = 40.0,
    continuum: Continuum = None,
    scales: ArrayLike | None = None,
    hole: float | None = None,
    false_alarm: float = 0.01,
    scale: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    lines: LineList | None = None,
    workers: int | None = None,
) -> Image:
    """Estimate the velocity of a line in every spaxel from the spaxels around it.

    Parameters
    ----------
    cube : Cube
    line : str, float, Line or a sequence of them
        A strong one; the lines of a sequence are taken as equally strong.
    redshift : float, (ny, nx) array or Image
        Velocities are relative to it.
    max_velocity : float
        Velocities to look at, km/s, on both sides.
    sigma : float
        Velocity dispersion of the line, km/s.
    continuum, scale, exclude, lines, workers
        As for `line_snr`.
    scales : sequence of float, optional
        Standard deviations, px, of the Gaussians that neighbours are weighted with. Default: from the size of the
        hole upwards by factors of 1.6 to a quarter of the field.
    hole : float, optional
        Spaxels nearer than this, px, have no say, itself included. Default: the extent of the spatial correlation
        of the noise, at least 1.5 (the eight neighbours).
    false_alarm : float
        Expected number of significant velocities that noise alone yields in the whole field.

    Returns
    -------
    Image
        Velocity in km/s relative to ``redshift`` (optical, ``(1 + z)(1 + v / c)``), with its variance. Spaxels around
        which nothing is significant have the flag INTERPOLATED and the weighted mean of significant ones, or 0
        when there is none in the field; their variance says so.

    Raises
    ------
    InputError
        As for `line_snr`; also when the velocities lead off the axis.

    Notes
    -----
    For each trial velocity the matched filter gives a flux and its variance per spaxel. These are added, weighted by
    inverse variance and a Gaussian with a hole, at several scales; the smallest scale counts at which the best
    velocity exceeds a threshold set by the number of trials (velocities times independent places). The velocity
    is the vertex of a parabola through (S/N)^2, its error the curvature there. Because of the hole it does not
    depend on the noise of the spaxel itself, so a matched filter placed by it keeps mean 0 and unit standard deviation
    on noise, exactly, whatever the thresholds: a free maximum per spaxel would not.
    """
    _check_options(max_velocity, false_alarm, scales)
    setup = _set_up(cube, line, redshift, max_velocity, continuum, sigma, lines)
    trials = _trial_fluxes(cube, setup, max_velocity, scale, exclude, workers)
    shape = cube.shape[1:]
    rho = None if cube.correlation is None else cube.correlation.spatial
    radius = _hole_radius(rho) if hole is None else float(hole)
    sizes = _scales(scales, radius, shape)
    velocity, error = np.full(shape, np.nan), np.full(shape, np.nan)
    smoother = _Smoother(trials, rho, CUT * sizes[-1], workers)
    chance = false_alarm / len(sizes)
    for size in sizes:
        found, its_error = _peaks(trials, *smoother.smooth(size, radius), chance, size)
        new = np.isnan(velocity) & np.isfinite(found)
        velocity[new], error[new] = found[new], its_error[new]
        if not np.isnan(velocity).any():
            break
    measured = np.isfinite(velocity)
    velocity, error = _filled(velocity, error, max_velocity, sizes[-1])
    mask = np.broadcast_to(~np.isfinite(setup.stretch).reshape(-1), (velocity.size,)).reshape(shape)
    flags = np.where(measured, 0, np.uint16(Flag.INTERPOLATED)).astype(np.uint16)
    record = step(
        "first_velocity_map", line=list(setup.windows.keys), max_velocity=max_velocity, sigma=sigma,
        scales=sizes, hole=radius, false_alarm=false_alarm, n_significant=int(np.count_nonzero(measured)),
        n_filled=int(np.count_nonzero(~measured)),
    )  # fmt: skip
    wcs = cube.wcs if cube.wcs is None or cube.wcs.naxis == 2 else cube.wcs.celestial
    return Image(
        velocity, error**2, mask.copy(), "km / s", wcs, flags=flags,
        meta={**cube.meta, "line": "+".join(setup.windows.keys), "map": "velocity"},
        history=(*cube.history, record),
    )  # fmt: skip


def _check_options(max_velocity: float, false_alarm: float, scales: ArrayLike | None) -> None:
    if not 0.0 < max_velocity < 0.1 * LIGHT:
        raise InputError(f"max_velocity is {max_velocity} km/s", field="max_velocity", remedy="e.g. 400")
    if not false_alarm > 0.0:
        raise InputError(f"false_alarm is {false_alarm}; expected a number > 0", field="false_alarm")
    if scales is not None and (np.ndim(scales) != 1 or not np.all(np.asarray(scales) > 0)):
        raise InputError(f"scales are {scales}; expected positive numbers of px", field="scales")


def _set_up(
    cube: Cube,
    line: Lines,
    redshift: Any,
    max_velocity: float,
    continuum: Continuum,
    sigma: float,
    lines: LineList | None,
) -> LineSetup:
    """Windows whose continuum the line does not reach at any trial velocity; nearer ones where the axis is short."""
    options: dict[str, Any] = {
        "half_width": None, "continuum": continuum, "velocity": None, "sigma": sigma, "lines": lines,
    }  # fmt: skip
    try:
        return set_up_line(
            cube, line, redshift, "matched", allowance=max(max_velocity, FREE_ALLOWANCE), **options
        )
    except InputError:
        return set_up_line(cube, line, redshift, "matched", quiet=True, **options)


def _hole_radius(rho: Float | None) -> float:
    """Distance within which noise is correlated with that of the spaxel in the middle, at least 1.5 px."""
    if rho is None:
        return 1.5
    y, x = np.indices(rho.shape)
    away = np.hypot(y - rho.shape[0] // 2, x - rho.shape[1] // 2)
    return max(1.5, float(away[np.abs(rho) > CORRELATED].max()) + 0.01)


def _scales(scales: ArrayLike | None, hole: float, shape: tuple[int, ...]) -> list[float]:
    if scales is not None:
        return sorted(float(value) for value in np.asarray(scales))
    sizes = [max(1.0, 0.8 * hole)]
    while sizes[-1] * 1.6 <= max(shape) / 4.0:
        sizes.append(sizes[-1] * 1.6)
    return sizes


def _trial_fluxes(
    cube: Cube,
    setup: LineSetup,
    max_velocity: float,
    scale: ArrayLike | None,
    exclude: ArrayLike | None,
    workers: int | None,
) -> _Trials:
    """Matched fluxes at trial velocities; the continuum stays where it is."""
    windows = setup.windows
    finite = setup.stretch[np.isfinite(setup.stretch)]
    shift = max_velocity / LIGHT
    run = windows.channels(cube.wave, float(finite.min()) * (1 - shift), float(finite.max()) * (1 + shift))
    channels = cut_channels(cube, run, scale=scale, exclude=exclude)
    middle = windows.middle * float(np.median(finite))
    spread = float(np.median(setup.sigma)) / middle * LIGHT
    count = 2 * int(np.ceil(max_velocity / (GRID_STEP * spread))) + 1
    velocities = np.linspace(-max_velocity, max_velocity, count)
    m = channels.data.shape[1]
    flux, variance, good = np.empty((count, m)), np.empty((count, m)), np.ones(m, bool)
    for k, velocity in enumerate(velocities):
        factor = 1.0 + velocity / LIGHT
        moved = replace(windows, sides=windows.sides / factor)
        result = measure(
            channels, moved, setup.stretch * factor, setup.sigma, matched=True, degree=1, limits=COVERAGE,
            tied=True, workers=workers,
        )  # fmt: skip
        flux[k], variance[k] = result.signal, result.variance
        good &= (result.status == MEASURED) & (result.variance > 0)
    if not good.any():
        raise InputError(
            f"{' + '.join(windows.keys)} cannot be measured at all velocities within {max_velocity} km/s in any spaxel",
            field="max_velocity",
            remedy="check the redshift and the mask, or look at fewer velocities",
        )
    typical = np.where(good, variance.mean(axis=0), 1.0)
    inverse = np.where(good, 1.0 / typical, 0.0)
    shape = np.median(variance[:, good] / typical[good], axis=1)
    weighted = np.where(good, flux * inverse, 0.0).reshape(count, *cube.shape[1:])
    return _Trials(velocities, weighted, inverse.reshape(cube.shape[1:]), shape)


class _Smoother:
    """Sums of trial fluxes over neighbours, through transforms that are made once for all scales."""

    def __init__(self, trials: _Trials, rho: Float | None, reach: float, workers: int | None) -> None:
        ny, nx = trials.inverse.shape
        extent = int(np.ceil(reach)) + (0 if rho is None else max(rho.shape) // 2)
        self.size = tuple(fft.next_fast_len(n + min(extent, n), real=True) for n in (ny, nx))
        self.rho = rho
        self.shape = (ny, nx)
        self.trials = trials
        # Noise has unit variance once flux / variance is multiplied by the error: scaled for a sound transform.
        self.unit = float(np.sqrt(np.median(trials.inverse[trials.inverse > 0])))
        self.workers = thread_count() if workers is None else max(1, workers)
        # Single precision: rounding of 1e-7 is nothing beside noise, and the planes are many.
        planes = (trials.weighted / self.unit).astype(np.float32)
        self.sums = fft.rfft2(planes, self.size, axes=(-2, -1), workers=self.workers)
        self.weights = fft.rfft2(trials.inverse / self.unit**2, self.size)

    def smooth(self, size: float, hole: float) -> tuple[Float, Float]:
        """Return sums over neighbours (n, ny, nx) and the standard deviation of their noise (ny, nx)."""
        kernel = self._kernel(size, hole)
        noise = fft.irfft2(self.weights * fft.rfft2(self._noise_kernel(kernel)), self.size)
        ny, nx = self.shape
        product = self.sums * fft.rfft2(kernel).astype(np.complex64)
        ratio = fft.irfft2(product, self.size, axes=(-2, -1), workers=self.workers)[:, :ny, :nx]
        floor = 1e-9 * float(noise.max())
        noise = noise[:ny, :nx]
        return ratio, np.where(noise > floor, np.sqrt(np.maximum(noise, floor)), np.inf)

    def _kernel(self, size: float, hole: float) -> Float:
        """Gaussian with a hole, wrapped around the corner of the padded field."""
        y, x = (np.minimum(np.arange(n), n - np.arange(n)) for n in self.size)
        distance = np.hypot(y[:, np.newaxis], x[np.newaxis, :])
        kernel = np.exp(-0.5 * (distance / size) ** 2)
        kernel[(distance < hole) | (distance > max(CUT * size, hole + 1.0))] = 0.0
        return kernel

    def _noise_kernel(self, kernel: Float) -> Float:
        """``k (rho * k)``: with it the weights give the variance of a sum of correlated spaxels."""
        if self.rho is None:
            return kernel**2
        wrapped = np.zeros(self.size)
        half_y, half_x = (n // 2 for n in self.rho.shape)
        for (j, i), value in np.ndenumerate(self.rho):
            wrapped[(j - half_y) % self.size[0], (i - half_x) % self.size[1]] += value
        spread = fft.irfft2(fft.rfft2(kernel) * fft.rfft2(wrapped), self.size)
        return np.asarray(kernel * spread)


def _peaks(
    trials: _Trials, sums: Float, noise: Float, false_alarm: float, size: float
) -> tuple[Float, Float]:
    """Velocity and error where the best trial is significant and not at the end of the range; else NaN."""
    ratio = sums / (noise * np.sqrt(trials.shape)[:, np.newaxis, np.newaxis])
    best = ratio.argmax(axis=0)
    inner = np.clip(best, 1, trials.velocities.size - 2)
    before, here, after = (np.take_along_axis(ratio, (inner + k)[np.newaxis], axis=0)[0] for k in (-1, 0, 1))
    places = max(1.0, np.count_nonzero(trials.inverse) / (4.0 * np.pi * size**2))
    count = places * max(1.0, trials.velocities.size * GRID_STEP)
    threshold = float(-ndtri(min(0.5, false_alarm / count)))
    good = (best == inner) & (here > threshold)
    # log-likelihood (S/N)^2 / 2: its vertex and its curvature
    left, top, right = (0.5 * np.maximum(each, 0.0) ** 2 for each in (before, here, after))
    bend = left - 2.0 * top + right
    good &= bend < 0
    bend = np.where(good, bend, -1.0)
    interval = trials.velocities[1] - trials.velocities[0]
    offset = np.clip(0.5 * (left - right) / bend, -1.0, 1.0)
    velocity = np.where(good, trials.velocities[inner] + interval * offset, np.nan)
    return velocity, np.where(good, interval / np.sqrt(-bend), np.nan)


def _filled(velocity: Float, error: Float, max_velocity: float, size: float) -> tuple[Float, Float]:
    """Give spaxels without a velocity the mean of the significant ones, nearest first, and an error that says so."""
    known = np.isfinite(velocity)
    if known.all():
        return velocity, error
    prior = max_velocity / np.sqrt(3.0)
    if not known.any():
        return np.zeros_like(velocity), np.full_like(velocity, prior)
    velocity, error = velocity.copy(), error.copy()
    weight = np.where(known, 1.0 / np.where(known, error, 1.0) ** 2, 0.0)
    weight /= weight.max()
    value = np.where(known, velocity, 0.0)
    left = ~known
    while left.any():
        total, mean, square = (_blurred(plane, size) for plane in (weight, weight * value, weight * value**2))
        # Transforms leave rounding of 1e-16 of the largest weight: only sums well above it count.
        here = left & (total > 1e-6 * total.max())
        velocity[here] = mean[here] / total[here]
        scatter = np.maximum(square[here] / total[here] - velocity[here] ** 2, 0.0)
        error[here] = np.sqrt(scatter + np.median(error[known]) ** 2)
        left &= ~here
        size *= 2.0
    return velocity, error


def _blurred(plane: Float, size: float) -> Float:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(plane, size, mode="constant", truncate=CUT))
