"""Stellar continua by pPXF, an optional package, in the terms of `ContinuumFit`.

pPXF (Cappellari 2023, 10.1093/mnras/stad2597) has its own licence and is installed with ``pip install skyloom[ppxf]``;
nothing of it is part of Skyloom.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from skyloom.core.continuum import ContinuumFit, ContinuumFlag
from skyloom.core.linelist import LineList, convert_medium
from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands
from skyloom.core.templates import TemplateLibrary
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import InputError, ShapeError
from skyloom.kernels.lines.profiles import SPEED_OF_LIGHT
from skyloom.spectral.axes.attenuation import attenuation_curve
from skyloom.spectral.axes.rest_frame import applied_redshift
from skyloom.spectral.lines.groups import lines_named
from skyloom.spectral.lines.model_errors import model_errors
from skyloom.spectral.noise.sky_residuals import SKY_RESIDUALS, Range, sky_residual_mask
from skyloom.spectral.stellar.lines import line_channels, lines_in_the_way
from skyloom.spectral.stellar.ppxf_grids import LogTemplates, covered_channels, log_spectra, log_templates
from skyloom.spectral.stellar.results import fractions, mass_of, reasons_of
from skyloom.spectral.stellar.template_grid import LIGHT_WINDOW

__all__ = ["fit_ppxf", "ppxf_function"]

Float = NDArray[np.float64]
FEWEST_CHANNELS = 60
BROADER_SHARE = 0.05
AT_BOUND = 1e-3  # of the range of a parameter
AV_START = 0.2
RESOLVED = 2.0  # standard deviations


def ppxf_function() -> Callable[..., Any]:
    """Return the function of pPXF.

    Raises
    ------
    InputError
        When the package is not installed.
    """
    try:
        return importlib.import_module("ppxf.ppxf").ppxf  # type: ignore[no-any-return]
    except ImportError as error:
        raise InputError(
            f"the back end 'ppxf' needs the package ppxf, which cannot be imported ({error})",
            field="backend",
            remedy="pip install skyloom[ppxf], or take the back end 'builtin'",
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What all spectra of one redshift share."""

    function: Callable[..., Any]
    templates: LogTemplates
    wave: Float  # (n,) rest wavelengths in vacuum, A, of the channels that templates cover
    channels: slice
    bands: Float
    step: float
    dust: Float | None  # A(wave) / A_V
    degree: int
    mdegree: int
    clean: bool
    least_snr: float
    sigma_start: float
    bounds: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]  # velocity, sigma, A_V
    n_modes: int


def fit_ppxf(
    spectra: Spectra,
    templates: TemplateLibrary,
    *,
    redshift: float | ArrayLike = 0.0,
    attenuation: str | None = "calzetti00",
    additive_degree: int = -1,
    multiplicative_degree: int = 0,
    lines: str | Sequence[str] | LineList = "default",
    half_width: float = 400.0,
    sky: Sequence[Range] | None = SKY_RESIDUALS,
    wave_range: tuple[float, float] | None = None,
    velocity: ArrayLike | None = None,
    velocity_range: float = 500.0,
    sigma_start: float = 120.0,
    sigma_range: tuple[float, float] = (0.0, 600.0),
    av_range: tuple[float, float] = (0.0, 4.0),
    clip: float = 0.0,
    least_snr: float = 1.5,
    n_modes: int = 4,
    threads: int | None = 1,
) -> ContinuumFit:
    """Fit the light of stars in spectra with pPXF; parameters as for `skyloom.spectral.stellar.fit.fit_continuum`.

    Parameters
    ----------
    spectra, templates, redshift, attenuation, additive_degree, multiplicative_degree, lines, half_width, sky, \
wave_range, velocity, velocity_range, sigma_start, sigma_range, av_range, least_snr, n_modes
        See there. Channels with lines are left out; velocities start at 0 where none are given.
    clip : float
        0: none; otherwise pPXF's own ``clean`` is on, which clips at 3 standard deviations.
    threads : int, optional
        pPXF holds the interpreter's lock most of the time; more than one thread gains little.

    Returns
    -------
    ContinuumFit
        Model, variance and modes on the pixels of ``spectra``. A spectrum that pPXF refuses is flagged ``FAILED``.

    Raises
    ------
    InputError
        When pPXF is not installed, the spectra have no line-spread function, or no spectrum is covered.
    ShapeError
        When ``redshift`` or ``velocity`` has not one value per spectrum.

    Notes
    -----
    pPXF works on pixels that are even in ln(wavelength): the spectra are resampled, with the correlation of the new
    channels, templates are broadened to the line-spread function (the median of all spectra). Errors come from the
    derivatives of pPXF's best model by weights, polynomials, kinematics and A_V with the correlation of the noise;
    pPXF's own assume independent channels. pPXF's velocity c ln(1 + v/c) is returned as v.
    """
    function = ppxf_function()
    n = spectra.shape[0]
    shifts, starts = (
        _per_row(redshift, n, "redshift"),
        _per_row(0.0 if velocity is None else velocity, n, "velocity"),
    )
    if spectra.lsf is None:
        raise InputError(
            "the spectra have no line-spread function",
            field="lsf",
            remedy="give its sigma in A: spectra.evolve(lsf=...)",
        )
    even, log_step = log_spectra(spectra)
    results = _Results(spectra, even, len(templates), n_modes)
    avoid = lines_in_the_way(lines_named(lines))
    away = np.zeros(even.wave.size, bool) if not sky else sky_residual_mask(even, sky)
    lsf = np.asarray(even.lsf, dtype=np.float64)
    shared_lsf = np.broadcast_to(np.nanmedian(lsf, axis=0) if lsf.ndim == 2 else lsf, even.wave.shape)
    for shift in np.unique(shifts[np.isfinite(shifts) & (shifts > -1)]):
        rows = np.flatnonzero(shifts == shift)
        rest = even.wave / (1.0 + shift)
        channels = covered_channels(rest, templates, velocity_range)
        if channels.stop - channels.start < FEWEST_CHANNELS:
            continue
        inside = rest[channels]
        relative = shared_lsf[channels] / even.wave[channels]
        dust = (
            None
            if attenuation is None or av_range[0] == av_range[1] == 0
            else attenuation_curve(inside, attenuation)
        )
        task = _Task(
            function, log_templates(templates, inside, log_step, relative, velocity_range), inside, channels,
            lag_bands(even.correlation, even.wave.size)[channels], log_step, dust, additive_degree,
            multiplicative_degree, clip > 0, least_snr, sigma_start,
            ((-velocity_range, velocity_range), sigma_range, av_range), n_modes,
        )  # fmt: skip
        masked = away | line_channels(
            avoid, even.wave, "vacuum", shared_lsf[np.newaxis], np.array([1.0 + shift]), half_width
        )[0]  # fmt: skip
        if wave_range is not None:
            limits = _vacuum_limits(spectra, wave_range, float(shift))
            masked |= (rest < limits[0]) | (rest > limits[1])
        good = even.valid & ~masked & np.isfinite(even.data) & (even.variance > 0)

        def fit(part: slice, rows: NDArray[np.int64] = rows, task: _Task = task, good: Any = good) -> None:
            for row in rows[part]:
                _fit_row(task, even, good[row], int(row), float(starts[row]), results)

        run_blocks(fit, blocks(rows.size, 8), threads)
    if np.all(results.flags == int(ContinuumFlag.NOT_COVERED)):
        raise InputError(
            f"the templates {templates.name!r} cover {templates.wave[0]:.0f} to {templates.wave[-1]:.0f} A; no spectrum"
            f" ({spectra.wave[0]:.0f} to {spectra.wave[-1]:.0f} A) has enough of that at its redshift",
            field="redshift",
            remedy="check the redshift, and whether the spectra are in the rest frame already; or take other templates",
        )
    done = step(
        "fit_continuum", templates=templates.name, backend="ppxf", attenuation=attenuation, clean=clip > 0,
        additive_degree=additive_degree, multiplicative_degree=multiplicative_degree, half_width=half_width,
        ppxf_version=str(getattr(importlib.import_module("ppxf"), "__version__", "")),
    )  # fmt: skip
    return results.collect(templates, shifts, done)


def _per_row(values: float | ArrayLike, n: int, name: str) -> Float:
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((), (n,)):
        raise ShapeError(f"{name} has shape {array.shape}; expected a number or ({n},)", field=name)
    return np.broadcast_to(array, n).copy()


def _vacuum_limits(spectra: Spectra, limits: tuple[float, float], shift: float) -> Float:
    """Return rest limits, given in the medium of the spectra, in vacuum."""
    stretch = (1.0 + shift) * (1.0 + applied_redshift(spectra))
    return convert_medium(np.asarray(limits) * stretch, spectra.medium, "vacuum") / stretch  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- one spectrum


def _fit_row(
    task: _Task, even: Spectra, good: NDArray[np.bool_], row: int, start: float, results: _Results
) -> None:
    """Fit one spectrum, or flag why not."""
    used = good[task.channels]
    if np.count_nonzero(used) < FEWEST_CHANNELS:
        results.flags[row] = int(ContinuumFlag.NO_DATA)
        return
    data = even.data[row, task.channels].astype(np.float64)
    noise = np.sqrt(even.variance[row, task.channels].astype(np.float64))
    level = float(np.median(np.abs(data[used])))
    results.snr[row] = float(np.median(data[used] / noise[used]))
    level = level if level > 0 else 1.0
    # pPXF wants numbers in every channel, and looks at none that is not among its good pixels.
    galaxy = np.where(used, data / level, 0.0)
    spread = np.where(used, noise / level, 1e10)
    if task.degree < 0 and not _has_light(task, data, noise, used):
        results.darken(row, task, int(np.count_nonzero(used)))
        return
    held = bool(results.snr[row] < task.least_snr)
    velocity_bounds, sigma_bounds, av_bounds = task.bounds
    kinematic = [
        [start + velocity_bounds[0], start + velocity_bounds[1]],
        [max(sigma_bounds[0], 0.01 * task.step * SPEED_OF_LIGHT), sigma_bounds[1]],
    ]
    options: dict[str, Any] = {
        "moments": -2 if held else 2, "degree": task.degree, "mdegree": task.mdegree, "bounds": kinematic,
        "goodpixels": np.flatnonzero(used), "lam": task.wave, "lam_temp": task.templates.wave,
        "clean": task.clean, "quiet": True, "plot": False,
    }  # fmt: skip
    if task.dust is not None:
        curve = task.dust
        options["dust"] = [
            {
                "start": [float(np.clip(AV_START, *av_bounds))], "bounds": [list(av_bounds)],
                "component": np.ones(task.templates.flux.shape[1], bool),
                "func": lambda _, av: 10.0 ** (-0.4 * av * curve),
            }
        ]  # fmt: skip
    try:
        fit = task.function(
            task.templates.flux,
            galaxy,
            spread,
            task.step * SPEED_OF_LIGHT,
            [start, task.sigma_start],
            **options,
        )
    except (AssertionError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        results.fail(row, str(error))
        return
    results.take(row, task, fit, level, spread, held, kinematic)


def _has_light(task: _Task, data: Float, noise: Float, used: NDArray[np.bool_]) -> bool:
    """Tell whether a positive amount of any template lowers chi square; pPXF divides zero by zero where none does."""
    weight = np.where(used, data / noise**2, 0.0)
    near = np.searchsorted(task.templates.wave, task.wave).clip(0, task.templates.wave.size - 1)
    return bool(np.any(weight @ task.templates.flux[near] > 0))


def _derivatives(task: _Task, fit: Any, held: bool) -> tuple[Float, dict[str, int]]:
    """Return the derivatives of the best model by all parameters, and which columns are the non-linear ones."""
    matrix = np.asarray(fit.matrix, dtype=np.float64)
    n_poly = task.degree + 1
    weights = np.asarray(fit.weights, dtype=np.float64)
    stars = matrix[:, n_poly:] @ weights
    columns = [*matrix[:, :n_poly].T, *matrix[:, n_poly:][:, weights > 0].T]
    places: dict[str, int] = {}
    if not held:
        curve = CubicSpline(task.step * SPEED_OF_LIGHT * np.arange(len(stars)), stars)
        places["velocity"] = len(columns)
        columns.append(-curve(curve.x, 1))
        places["sigma"] = len(columns)
        # A Gaussian spreads like heat: d/d(sigma) = sigma d2/dv2.
        columns.append(float(fit.sol[1]) * curve(curve.x, 2))
    if task.dust is not None:
        places["av"] = len(columns)
        columns.append(-0.4 * np.log(10.0) * task.dust * stars)
    if task.mdegree > 0:
        shapes = legendre.legvander(np.linspace(-1.0, 1.0, len(stars)), task.mdegree)[:, 1:]
        shape = np.asarray(fit.mpoly, dtype=np.float64)
        columns += list((shapes * (stars / shape)[:, np.newaxis]).T)
    return np.array(columns).T, places


class _Results:
    """Arrays of a `ContinuumFit` on the pixels of the spectra; what is never filled stays NaN."""

    def __init__(self, spectra: Spectra, even: Spectra, n_templates: int, n_modes: int) -> None:
        n, n_wave = spectra.shape
        self.spectra, self.even = spectra, even
        before = 1.0 + applied_redshift(spectra)
        vacuum = convert_medium(spectra.wave * before, spectra.medium, "vacuum") / before  # type: ignore[arg-type]
        self.logs = np.log(vacuum)
        kind = spectra.data.dtype
        self.model, self.variance = (np.full((n, n_wave), np.nan, dtype=kind) for _ in range(2))
        self.modes = np.zeros((n, n_modes, n_wave), dtype=kind)
        self.weights = np.full((n, n_templates), np.nan)
        self.values = {
            name: np.full(n, np.nan)
            for name in ("velocity", "velocity_err", "sigma", "sigma_err", "av", "av_err", "chi2")
        }
        self.snr = np.full(n, np.nan)
        self.n_used = np.zeros(n, dtype=np.int64)
        self.flags = np.full(n, int(ContinuumFlag.NOT_COVERED), dtype=np.int64)
        self.failures: dict[int, str] = {}

    def fail(self, row: int, why: str) -> None:
        self.flags[row] = int(ContinuumFlag.FAILED)
        self.failures[row] = " ".join(why.split())[:200]

    def darken(self, row: int, task: _Task, n_used: int) -> None:
        """Take note of a spectrum that holds no starlight: its continuum is 0."""
        _, inside = self._place(task)
        self.model[row, inside] = self.variance[row, inside] = 0.0
        self.weights[row] = 0.0
        self.n_used[row] = n_used
        self.flags[row] = int(ContinuumFlag.NEGATIVE)

    def _place(self, task: _Task) -> tuple[Float, NDArray[np.bool_]]:
        """Return ln(wavelength) of pPXF's channels, and which channels of the spectra have a model."""
        logs = np.log(self.even.wave[task.channels])
        # Resampling loses the channels at both ends, of which it knows a part only; the model reaches over them.
        reach = 1.5 * float(np.max(np.diff(self.logs)))
        return logs, (self.logs >= logs[0] - reach) & (self.logs <= logs[-1] + reach)

    def take(
        self,
        row: int,
        task: _Task,
        fit: Any,
        level: float,
        noise: Float,
        held: bool,
        bounds: list[list[float]],
    ) -> None:
        """Take over what pPXF found."""
        weights = np.asarray(fit.weights, dtype=np.float64)
        best = np.asarray(fit.bestfit, dtype=np.float64)
        if not np.all(np.isfinite(best)):
            self.fail(row, "the model is not finite")
            return
        self.weights[row] = weights * level / task.templates.scale
        used = np.zeros(best.size, bool)
        used[np.asarray(fit.goodpixels)] = True
        self.n_used[row] = np.count_nonzero(used)
        derivatives, places = _derivatives(task, fit, held)
        errors = model_errors(derivatives, noise, used, task.bands, self.modes.shape[1])
        logs, inside = self._place(task)
        self.model[row, inside] = level * CubicSpline(logs, best)(self.logs[inside])
        self.variance[row, inside] = level**2 * np.interp(self.logs[inside], logs, errors.variance)
        for number, mode in enumerate(errors.modes):
            self.modes[row, number, inside] = level * np.interp(self.logs[inside], logs, mode)
        drift = float(np.exp(fit.sol[0] / SPEED_OF_LIGHT))
        found = {
            "velocity": SPEED_OF_LIGHT * (drift - 1.0), "sigma": float(fit.sol[1]), "chi2": float(fit.chi2),
        }  # fmt: skip
        if task.dust is not None:
            found["av"] = float(fit.dust[0]["sol"][0])
        for name, place in places.items():
            found[f"{name}_err"] = float(errors.parameters[place]) * (drift if name == "velocity" else 1.0)
        for name, value in found.items():
            self.values[name][row] = value
        self.flags[row] = self._flags(row, task, weights, held, bounds, bool(inside.all()))

    def _flags(
        self, row: int, task: _Task, weights: Float, held: bool, bounds: list[list[float]], complete: bool
    ) -> int:
        values = {name: float(column[row]) for name, column in self.values.items()}
        if task.degree < 0 and not np.any(weights > 0):
            for name in ("velocity", "sigma", "av"):
                self.values[name][row] = self.values[f"{name}_err"][row] = np.nan
            return int(ContinuumFlag.NEGATIVE)

        def near(name: str, low: float, high: float) -> bool:
            margin = AT_BOUND * (high - low)
            return bool(values[name] <= low + margin or values[name] >= high - margin)

        # pPXF's velocity is c ln(1 + v/c); the bounds are its own.
        logarithmic = SPEED_OF_LIGHT * np.log1p(values["velocity"] / SPEED_OF_LIGHT)
        span = AT_BOUND * (bounds[0][1] - bounds[0][0])
        checks = {
            ContinuumFlag.LOW_SNR: held,
            ContinuumFlag.VELOCITY_AT_BOUND: not held
            and not bounds[0][0] + span < logarithmic < bounds[0][1] - span,
            ContinuumFlag.SIGMA_AT_BOUND: not held and values["sigma"] >= (1 - AT_BOUND) * bounds[1][1],
            ContinuumFlag.UNRESOLVED: not held and not values["sigma"] > RESOLVED * values["sigma_err"],
            ContinuumFlag.AV_AT_BOUND: task.dust is not None and near("av", *task.bounds[2]),
            ContinuumFlag.TEMPLATES_BROADER: task.templates.broader > BROADER_SHARE,
            ContinuumFlag.PARTLY_COVERED: not complete,
        }
        return sum(int(flag) for flag, raised in checks.items() if raised)

    def collect(self, library: TemplateLibrary, shifts: Float, done: Any) -> ContinuumFit:
        """Return everything as a `ContinuumFit`."""
        vacuum = convert_medium(library.wave, library.medium, "vacuum")
        inside = (vacuum >= LIGHT_WINDOW[0]) & (vacuum <= LIGHT_WINDOW[1])
        window = inside if inside.any() else np.ones(vacuum.size, bool)
        light = self.weights * library.flux[:, window].mean(axis=1)
        reasons = list(reasons_of(self.flags))
        for row, why in self.failures.items():
            reasons[row] = f"pPXF: {why}"
        values = self.values
        spectra = self.spectra
        return ContinuumFit(
            self.model, self.variance, spectra.unit, spectra.wave, spectra.medium, shifts, self.weights,
            values["velocity"], values["velocity_err"], values["sigma"], values["sigma_err"], values["av"],
            values["av_err"], values["chi2"], self.snr, self.flags, tuple(reasons), library.age, library.metallicity,
            library.name, "ppxf", self.modes if self.modes.shape[1] else None, "coefficient", fractions(light),
            mass_of(library, self.weights, light), self.n_used, {**spectra.meta, "library": library.name},
            (*spectra.history, done),
        )  # fmt: skip
