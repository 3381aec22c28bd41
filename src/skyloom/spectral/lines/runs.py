"""Fits of many spectra over threads, and their numbers line by line whatever the number of components."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from skyloom.core.threads import blocks, run_blocks
from skyloom.kernels.lines.fits import fit_rows
from skyloom.kernels.lines.types import Controls, Plan, Results
from skyloom.spectral.lines.groups import BROAD, Grouping
from skyloom.spectral.lines.inputs import Inputs

__all__ = [
    "ROWS",
    "SEARCH_STEP",
    "START_SIGMA",
    "STEPS",
    "TOLERANCE",
    "Measured",
    "empty_results",
    "make_controls",
    "measured",
    "run_fit",
]

Float = NDArray[np.float64]
ROWS = 64  # Spectra per task of a thread.
TOLERANCE = 1e-4  # Of chi square: a hundredth of a standard deviation of the kinematics.
STEPS = 60
SEARCH_STEP = 50.0  # km/s
START_SIGMA = 45.0  # km/s
# What first order leaves out of the variance of the kinematics, and of what they add to the variance of fluxes, in
# units of that variance over the squared signal over noise of the strongest line of a set: found by simulation, for
# lines of 1.2 to 3 channels in standard deviation at peaks of 3 to 30 times the noise.
BEYOND_KINEMATICS = 5.0
BEYOND_FLUX = 15.0
# The first guess of a velocity looks at the lines that usually are strong.
STRONG = frozenset(
    ("Halpha", "NII6583", "OIII5007", "Hbeta", "OII3726", "OII3729", "SII6716", "SII6730", "SIII9068")
)


def make_controls(grouping: Grouping, velocity_range: float, weak: float) -> Controls:
    """How a fit proceeds; a range of 0 takes the velocities of the start as they are."""
    anchors = np.zeros(grouping.plan.column_set.size, dtype=np.bool_)
    absorbing = np.zeros(anchors.size, dtype=np.bool_)
    for line, columns in zip(grouping.lines, grouping.columns, strict=True):
        here = columns[columns >= 0]
        anchors[here] |= line.key in STRONG
        absorbing[here] = line.kind == "absorption"
    if not anchors.any():
        anchors[:] = True
    reach = int(velocity_range // SEARCH_STEP)
    search = (
        SEARCH_STEP * np.arange(-reach, reach + 1, dtype=np.float64) if velocity_range > 0 else np.zeros(0)
    )
    # With the kinematics of another component of the same lines there would be nothing left to tell them apart.
    alone = np.array(
        [name == BROAD or name in grouping.sets[:place] for place, name in enumerate(grouping.sets)]
    )
    return Controls(search, START_SIGMA**2, anchors, absorbing, alone, weak, TOLERANCE, STEPS)


def empty_results(plan: Plan, n: int, n_wave: int) -> Results:
    """Room for the fits of n spectra."""
    n_columns, n_totals = plan.column_set.size, int(plan.column_total.max()) + 1
    n_sets, n_segments = len(plan.bounds) // 2, len(plan.segment_range)

    def unknown(*shape: int) -> Float:
        return np.full(shape, np.nan)

    return Results(
        unknown(n, 2 * n_sets), unknown(n, 2 * n_sets), unknown(n, n_columns), unknown(n, n_columns),
        unknown(n, n_columns), unknown(n, n_totals), unknown(n, n_totals), unknown(n, n_totals),
        np.zeros((n, n_sets), np.int64), np.zeros((n, n_sets), np.int64),
        unknown(n, len(plan.pairs)), unknown(n), np.zeros(n, np.int64), np.zeros(n, np.int64),
        np.zeros((n, n_segments), np.bool_), unknown(n, 3), np.zeros((n, n_wave), np.float32),
        np.zeros((n, n_wave), np.float32),
    )  # fmt: skip


def run_fit(
    grouping: Grouping, controls: Controls, inputs: Inputs, start: Float, threads: int | None,
    chosen: NDArray[np.bool_] | None = None,
) -> Results:  # fmt: skip
    """Fit all spectra from ``start`` (n, 2 n_sets); ``chosen`` as for `skyloom.kernels.lines.fits.fit_rows`."""
    plan = grouping.plan
    n, n_wave = inputs.values.shape
    results = empty_results(plan, n, n_wave)
    segments = np.zeros((0, len(plan.segment_range)), np.bool_) if chosen is None else chosen

    def fit(rows: slice) -> None:
        fit_rows(
            plan, controls, inputs.edges, inputs.values, inputs.variance, inputs.mask, inputs.lsf, inputs.lags,
            inputs.modes, inputs.scale, start, segments, rows.start, rows.stop, results,
        )  # fmt: skip

    run_blocks(fit, blocks(n, ROWS), threads)
    return results


@dataclass(slots=True)
class Measured:
    """Numbers of n spectra, L lines and K components: arrays (n, L, K) of components, (n, L) of lines, (n,) of spectra.

    ``variance`` is the intrinsic variance of a component in km2/s2; ``strongest`` (n, L) the component that counts as
    the line's kinematics. Components that a spectrum has not are NaN.
    """

    velocity: Float
    velocity_error: Float
    variance: Float
    variance_error: Float
    flux: Float
    flux_error: Float
    total: Float
    total_error: Float
    set_flags: NDArray[np.int64]
    bound: NDArray[np.bool_]
    strongest: NDArray[np.int64]
    n_components: NDArray[np.int64]
    chi2: Float
    n_used: NDArray[np.int64]
    n_unknown: NDArray[np.int64]
    model: NDArray[np.float32]
    baseline: NDArray[np.float32]

    def put(
        self, rows: NDArray[np.int64], other: Measured, take: NDArray[np.int64], lines: NDArray[np.int64]
    ) -> None:
        """Replace the spectra ``rows`` by the spectra ``take`` of another fit with these ``lines``.

        What the other fit has no line for keeps total and error, from which follows an upper limit, and loses the rest.
        """
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)[take]
            if item.name in ("model", "baseline") or mine.ndim == 1:
                mine[rows] = theirs
                continue
            if mine.ndim == 3:
                mine[rows] = np.nan
            mine[np.ix_(rows, lines)] = theirs


def measured(grouping: Grouping, results: Results, room: int) -> Measured:
    """Bring the results of a fit to lines and components, with room for ``room`` components in order of dispersion."""
    n, n_lines = len(results.chi2), len(grouping.lines)
    ratio = grouping.plan.ratio[:n_lines]
    columns = grouping.columns
    shape = (n, n_lines, room)
    numbers = [np.full(shape, np.nan) for _ in range(6)]
    beyond = _beyond_first_order(grouping, results)
    for copy in range(columns.shape[1]):
        there = np.flatnonzero(columns[:, copy] >= 0)
        column = columns[there, copy]
        sets = grouping.plan.column_set[column]
        variance = (
            results.flux_variance[:, column] + BEYOND_FLUX * beyond[:, there] * results.flux_lent[:, column]
        )
        planes = (
            results.kinematics[:, 2 * sets], np.sqrt(results.kinematic_variance[:, 2 * sets]),
            results.kinematics[:, 2 * sets + 1], np.sqrt(results.kinematic_variance[:, 2 * sets + 1]),
            results.flux[:, column] * ratio[there], np.sqrt(variance) * ratio[there],
        )  # fmt: skip
        for number, plane in zip(numbers, planes, strict=True):
            number[:, there, copy] = plane
    if columns.shape[1] > 1:
        order = np.argsort(numbers[2], axis=2)
        numbers = [np.take_along_axis(number, order, axis=2) for number in numbers]
    lent = BEYOND_FLUX * beyond * results.total_lent[:, grouping.total]
    total_error = np.sqrt(results.total_variance[:, grouping.total] + lent) * ratio
    for place in (1, 3):
        numbers[place] *= np.sqrt(1.0 + BEYOND_KINEMATICS * beyond)[:, :, np.newaxis]
    flags = results.set_flags[:, grouping.plan.column_set[columns]]
    flags = np.bitwise_or.reduce(np.where(columns >= 0, flags, 0), axis=2)
    strongest = np.argmax(np.where(np.isfinite(numbers[4]), np.abs(numbers[4]), -1.0), axis=2)
    velocity, velocity_error, variance, variance_error, flux, flux_error = numbers
    return Measured(
        velocity, velocity_error, variance, variance_error, flux, flux_error, results.total[:, grouping.total] * ratio,
        total_error, flags, _at_ratio(grouping, results), strongest,
        np.full(n, columns.shape[1]), results.chi2, results.n_used, results.n_unknown, results.model,
        results.baseline,
    )  # fmt: skip


def _beyond_first_order(grouping: Grouping, results: Results) -> Float:
    """(n, n_lines) 1 / (S/N)^2 of the strongest line of the set, 0 where the kinematics were not free."""
    with np.errstate(invalid="ignore", divide="ignore"):  # unknown totals are left out
        snr = results.total / np.sqrt(results.total_variance)
    snr = np.where(np.isfinite(snr), np.abs(snr), 0.0)[:, grouping.total]
    sets = results.donor[:, grouping.line_set]
    rows = np.arange(len(sets))[:, np.newaxis]
    strongest = np.zeros((len(sets), len(grouping.sets)))
    np.maximum.at(strongest, (rows, sets), snr)
    free = np.isfinite(results.kinematic_variance[rows, 2 * sets])
    return np.where(free, 1.0 / np.maximum(strongest[rows, sets], 2.0) ** 2, 0.0)


def _at_ratio(grouping: Grouping, results: Results) -> NDArray[np.bool_]:
    """(n, n_lines) lines that are held at the bound of a ratio."""
    held = np.zeros((len(results.chi2), len(grouping.lines)), dtype=np.bool_)
    for pair, columns in enumerate(grouping.plan.pairs):
        lines = np.flatnonzero(np.isin(grouping.columns, columns).any(axis=1))
        held[:, lines] |= np.isfinite(results.tied[:, pair])[:, np.newaxis]
    return held
