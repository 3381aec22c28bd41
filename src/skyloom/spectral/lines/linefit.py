"""Emission and absorption lines fitted to spectra: fluxes, velocities and widths with errors that hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from astropy.table import QTable
from numpy.typing import ArrayLike, NDArray

from skyloom.core.line_fit import LineFit
from skyloom.core.linelist import LineList
from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError, ShapeError
from skyloom.kernels.lines.types import SPEED_OF_LIGHT
from skyloom.spectral.lines.components import Contest, Entry, broad_starts, compete, information
from skyloom.spectral.lines.groups import (
    BROAD,
    Grouping,
    Groups,
    add_broad,
    group_lines,
    lines_named,
    regroup,
)
from skyloom.spectral.lines.inputs import Inputs, check_inputs, lines_on_axis
from skyloom.spectral.lines.intervals import Intervals, montecarlo_intervals, profile_intervals
from skyloom.spectral.lines.runs import START_SIGMA, make_controls, measured, run_fit
from skyloom.spectral.lines.table import LineTable

__all__ = ["BROAD_LINES", "fit_lines"]

Float = NDArray[np.float64]
IntervalKind = Literal["covariance", "profile", "montecarlo"]
BROAD_LINES = ("Hbeta", "OIII5007", "Halpha")
MOST_COMPONENTS = 3
NARROWEST = 0.8  # Of the instrument's variance that noise may take off a line.


class _Options(NamedTuple):
    """The parameters of `fit_lines` that shape the model."""

    window: float
    degree: int
    limits: dict[str, tuple[float, tuple[float, float]]]
    weak: float
    threads: int | None


def fit_lines(
    spectra: Spectra,
    lines: str | Sequence[str] | LineList = "default",
    redshift: float | ArrayLike = 0.0,
    continuum: Any = None,
    *,
    components: int | Literal["bic"] = 1,
    groups: Groups | None = None,
    broad: bool | Sequence[str] = False,
    intervals: IntervalKind = "covariance",
    window: float = 1500.0,
    degree: int = 1,
    velocity: ArrayLike | None = None,
    velocity_range: float = 600.0,
    sigma_range: tuple[float, float] = (-40.0, 500.0),
    broad_sigma_range: tuple[float, float] = (200.0, 2000.0),
    kinematics_snr: float = 3.5,
    n_draws: int = 200,
    seed: int = 0,
    threads: int | None = None,
) -> LineFit:
    """Fit lines to spectra.

    Parameters
    ----------
    spectra : Spectra
        n spectra with their variance, correlation between channels and line-spread function.
    lines : str, sequence of str, or LineList
        ``"default"`` (``core/default_lines.txt``), a preset (`skyloom.spectral.lines.groups.PRESETS`), keys, or a list.
    redshift : float or (n,) array
        Of the systems; 0 for spectra in the rest frame.
    continuum : ContinuumFit or (n, n_wave) array, optional
        Taken off before the fit; the error of a `skyloom.core.continuum.ContinuumFit` enters fluxes and equivalent
        widths. None: the polynomial of each segment is all there is below the lines.
    components : 1, 2, 3 or "bic"
        Kinematic components of the emission lines: at most this many, or at most three, as many as the Bayesian
        information criterion asks for in each spectrum (`skyloom.spectral.lines.components`).
    groups : {"default", "shared"} or mapping, optional
        Which lines share their kinematics: the groups of the list, all emission lines, or groups by key or by the
        name of a group of the list. By default "default" for one component and "shared" for several.
    broad : bool or sequence of str
        Whether some lines (True: `BROAD_LINES`) may have a broad component of their own, named ``Bl_{key}``, where
        the criterion asks for it; elsewhere its flux is unknown and an upper limit given.
    intervals : {"covariance", "profile", "montecarlo"}
        Beside the errors of the covariance, ends of intervals of 68.27 % (``_lower``, ``_upper``) of flux, velocity
        and both dispersions from the profile of chi square, or from ``n_draws`` fits to draws of the model.
    window : float
        km/s on either side of a line that are fitted.
    degree : int
        Of the polynomial in each segment, on top of the continuum.
    velocity : (n,) array, optional
        First guess, km/s; by default searched within ``velocity_range``.
    velocity_range, sigma_range, broad_sigma_range : float, (float, float)
        Limits in km/s; see `skyloom.spectral.lines.groups.group_lines`.
    kinematics_snr : float
        A group whose most significant line stays below borrows the kinematics of the strongest group.
    n_draws, seed : int
        Of ``intervals="montecarlo"``.
    threads : int, optional
        By default as many as this process may use.

    Returns
    -------
    LineFit

    Raises
    ------
    InputError
        When no line falls on the axis at these redshifts, the spectra have no line-spread function, or a parameter
        makes no sense. A single spectrum that cannot be fitted is flagged, not raised.

    Notes
    -----
    Lines are Gaussians averaged over each channel, of standard deviation ``hypot(sigma, LSF)``. Kinematics are shared
    within groups and found by Levenberg-Marquardt; fluxes and polynomials are solved exactly for each trial (variable
    projection, Golub & Pereyra 1973, 10.1137/0710036). Errors come from the full covariance of kinematics, fluxes and
    polynomials, with the correlation between channels; the bias of nonlinear least squares is taken off to second
    order (Box 1971, 10.1111/j.2517-6161.1971.tb00871.x): ``docs/design/line_fitting.md``. Fluxes are signed.
    """
    most = _check_options(components, intervals, broad, window, degree, n_draws)
    inputs = check_inputs(spectra, redshift, continuum)
    listed = regroup(lines_named(lines), groups or ("default" if most == 1 else "shared"))
    present = lines_on_axis(listed, spectra, inputs.scale)
    wide = [
        key for key in (BROAD_LINES if broad is True else broad or ()) if broad is not True or key in present
    ]
    options = _Options(
        window,
        degree,
        _limits(inputs, velocity_range, sigma_range, broad_sigma_range),
        kinematics_snr,
        threads,
    )
    grouping = _group(present, spectra.medium, options)
    first = _first_fit(grouping, inputs, options, velocity, velocity_range)
    rivals = [_group(present, spectra.medium, options, number) for number in range(2, most + 1)]
    if wide:
        rivals = [_group(add_broad(present, wide), spectra.medium, options)]
    progress = broad_starts if wide else None
    contest = compete(first, rivals, inputs, kinematics_snr, threads, progress)
    table, model, baseline = _tabulate(spectra, inputs, contest, intervals, options, n_draws, seed)
    done = step(
        "fit_lines", lines=list(listed.keys), components=components, broad=wide, intervals=intervals, window=window,
        degree=degree, kinematics_snr=kinematics_snr,
    )  # fmt: skip
    fitted = contest.entries[-1].grouping.lines
    return LineFit(
        table, model, baseline, spectra.unit, spectra.wave, spectra.medium,
        fitted, inputs.scale - 1.0, dict(spectra.meta), (*spectra.history, done),
    )  # fmt: skip


def _check_options(
    components: int | str,
    intervals: str,
    broad: bool | Sequence[str],
    window: float,
    degree: int,
    n_draws: int,
) -> int:
    """Largest number of components, when all options make sense."""
    if components != "bic" and components not in range(1, MOST_COMPONENTS + 1):
        raise InputError(f"components is {components!r}; expected 1, 2, 3 or 'bic'", field="components")
    most = MOST_COMPONENTS if components == "bic" else int(components)
    if intervals not in get_args(IntervalKind):
        raise InputError(
            f"intervals is {intervals!r}; expected one of {get_args(IntervalKind)}", field="intervals"
        )
    if broad and most > 1:
        raise InputError(
            f"a broad component with components={components!r}", field="broad",
            remedy="ask for one of them: the widest of several components is a broad one",
        )  # fmt: skip
    if not window > 0 or degree < 0 or n_draws < 2:
        raise InputError(
            f"window={window}, degree={degree}, n_draws={n_draws}; expected > 0, >= 0 and >= 2",
            field="window",
        )
    return most


def _limits(
    inputs: Inputs, velocity_range: float, sigma_range: tuple[float, float], broad: tuple[float, float]
) -> dict[str, tuple[float, tuple[float, float]]]:
    """Limits of the kinematics; noise may not make a line narrower than a channel can show."""
    for name, (low, high) in (("sigma_range", sigma_range), ("broad_sigma_range", broad)):
        if not low < high or not high > 0:
            raise InputError(f"{name} is ({low}, {high}); expected low < high, high > 0", field=name)
    if not velocity_range > 0:
        raise InputError(f"velocity_range is {velocity_range}; expected > 0", field="velocity_range")
    middle = 0.5 * (inputs.edges[1:] + inputs.edges[:-1])
    narrowest = NARROWEST**0.5 * float(np.min(inputs.lsf / middle)) * SPEED_OF_LIGHT
    low = max(sigma_range[0], -narrowest)
    return {"": (velocity_range, (low, sigma_range[1])), BROAD: (velocity_range, broad)}


def _group(lines: LineList, medium: str, options: _Options, components: int = 1) -> Grouping:
    return group_lines(
        lines,
        medium,
        window=options.window,
        degree=options.degree,
        limits=options.limits,
        components=components,
    )


def _first_fit(
    grouping: Grouping, inputs: Inputs, options: _Options, velocity: ArrayLike | None, velocity_range: float
) -> Entry:
    """The fit with one component, from a search for the velocity unless it is given."""
    n = len(inputs.values)
    start = np.tile([0.0, START_SIGMA**2], (n, len(grouping.sets)))
    if velocity is not None:
        given = np.asarray(velocity, dtype=np.float64)
        if given.shape not in ((), (n,)):
            raise ShapeError(
                f"velocity has shape {given.shape}; expected a number or ({n},)", field="velocity"
            )
        start[:, ::2] = np.nan_to_num(np.broadcast_to(given, n))[:, np.newaxis]
    controls = make_controls(grouping, velocity_range if velocity is None else 0.0, options.weak)
    results = run_fit(grouping, controls, inputs, start, options.threads)
    return Entry(grouping, results, information(results, inputs), np.ones(n, dtype=np.bool_))


def _tabulate(
    spectra: Spectra, inputs: Inputs, contest: Contest, kind: IntervalKind, options: _Options, n_draws: int, seed: int
) -> tuple[QTable, NDArray[np.float32], NDArray[np.float32]]:  # fmt: skip
    """Put the fit that each spectrum takes into one table."""
    last = contest.entries[-1]
    broad = len(last.grouping.lines) > len(contest.entries[0].grouping.lines)
    room = last.grouping.columns.shape[1]
    found = measured(last.grouping, last.results, room)
    ends = _intervals(last, inputs, kind, options, n_draws, seed)
    for number, entry in enumerate(contest.entries[:-1]):
        rows = np.flatnonzero(contest.winner == number)
        if not rows.size:
            continue
        keys = last.grouping.lines.keys
        lines = np.array([keys.index(key) for key in entry.grouping.lines.keys])
        smaller = measured(entry.grouping, entry.results, room)
        found.put(rows, smaller, rows, lines)
        lesser = _intervals(entry, inputs, kind, options, n_draws, seed)
        if ends is not None and lesser is not None:
            for mine, theirs in zip(ends, lesser, strict=True):
                mine[np.ix_(rows, lines)] = theirs[rows]
    wide = np.array([key.startswith("Bl_") for key in last.grouping.lines.keys])
    rejected = (contest.winner == 0)[:, np.newaxis] & wide if broad else np.zeros(found.total.shape, np.bool_)
    builder = LineTable(spectra, inputs, last.grouping, found, rejected, options.threads)
    table = builder.build()
    if room > 1:
        builder.add_components(table, room)
    if ends is not None:
        builder.add_intervals(table, ends)
    if len(contest.entries) > 1:
        for number, entry in enumerate(contest.entries):
            table["bic_broad" if broad and number else f"bic_{number + 1}"] = entry.criterion
    return table, found.model, found.baseline


def _intervals(
    entry: Entry, inputs: Inputs, kind: IntervalKind, options: _Options, n_draws: int, seed: int
) -> Intervals | None:
    if kind == "profile":
        return profile_intervals(entry.grouping, entry.results, inputs, options.weak, options.threads)
    if kind == "montecarlo":
        return montecarlo_intervals(
            entry.grouping, entry.results, inputs, options.weak, options.threads, n_draws, seed
        )
    return None
