"""Intervals of 68.27 %, on request, where errors from the covariance are not enough."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky_banded

from skyloom.core.threads import blocks, run_blocks
from skyloom.kernels.lines.intervals import profile_rows
from skyloom.kernels.lines.types import Results
from skyloom.spectral.lines.groups import Grouping
from skyloom.spectral.lines.inputs import Inputs
from skyloom.spectral.lines.runs import ROWS, make_controls, run_fit

__all__ = ["Intervals", "montecarlo_intervals", "profile_intervals"]

Float = NDArray[np.float64]
LOW, HIGH = 15.865, 84.135  # per cent


class Intervals(NamedTuple):
    """Lower and upper ends: ``velocity``, ``variance`` (n, n_lines, 2) in km/s and km2/s2, ``flux`` (n, n_lines, 2)."""

    velocity: Float
    variance: Float
    flux: Float


def profile_intervals(
    grouping: Grouping, results: Results, inputs: Inputs, weak: float, threads: int | None
) -> Intervals:
    """Ends of the profile of chi square; see `skyloom.kernels.lines.intervals`."""
    n = len(results.chi2)
    kinematic_ends = np.full((n, results.kinematics.shape[1], 2), np.nan)
    total_ends = np.full((n, results.total.shape[1], 2), np.nan)
    controls = make_controls(grouping, 0.0, weak)

    def profile(rows: slice) -> None:
        profile_rows(
            grouping.plan, controls, inputs.edges, inputs.values, inputs.variance, inputs.mask, inputs.lsf,
            inputs.lags, inputs.modes, inputs.scale, results, rows.start, rows.stop, kinematic_ends, total_ends,
        )  # fmt: skip

    run_blocks(profile, blocks(n, ROWS), threads)
    sides = np.array([-1.0, 1.0])
    return _by_line(
        grouping, results, results.kinematics[:, :, np.newaxis] + sides * kinematic_ends,
        results.total[:, :, np.newaxis] + sides * total_ends,
    )  # fmt: skip


def montecarlo_intervals(
    grouping: Grouping, results: Results, inputs: Inputs, weak: float, threads: int | None, n_draws: int, seed: int
) -> Intervals:  # fmt: skip
    """Ends from fits to draws of the best model with noise of the same variance, correlation and shared errors.

    What the draws scatter by around the model they were drawn from is what the measurement does around the truth, so
    the quantiles are mirrored (the basic bootstrap: Davison & Hinkley 1997, 10.1017/CBO9780511802843).
    """
    generator = np.random.default_rng(seed)
    controls = make_controls(grouping, 0.0, weak)
    kinematics = np.empty((n_draws, *results.kinematics.shape))
    total = np.empty((n_draws, *results.total.shape))
    clean = results.model + results.baseline
    start = np.nan_to_num(results.kinematics)
    factor = _correlation_factor(inputs.lags)
    for draw in range(n_draws):
        noise = _correlated(generator.normal(size=clean.shape), factor) * np.sqrt(inputs.variance)
        amplitudes = generator.normal(size=inputs.modes.shape[:2])
        noise += np.einsum("nm,nmw->nw", amplitudes, inputs.modes)
        values = (clean + noise).astype(np.float32)
        found = run_fit(grouping, controls, inputs._replace(values=values), start, threads, results.active)
        kinematics[draw], total[draw] = found.kinematics, found.total
    return _by_line(
        grouping, results, _mirrored(kinematics, results.kinematics), _mirrored(total, results.total)
    )


def _mirrored(draws: Float, best: Float) -> Float:
    low, high = np.percentile(draws, [LOW, HIGH], axis=0)
    return np.stack([2 * best - high, 2 * best - low], axis=-1)


def _by_line(grouping: Grouping, results: Results, kinematics: Float, total: Float) -> Intervals:
    """Ends of sets and totals as those of lines; borrowed kinematics have the ends of the set they come from."""
    sets = results.donor[:, grouping.line_set]
    rows = np.arange(len(sets))[:, np.newaxis]
    ratio = grouping.plan.ratio[: len(grouping.lines), np.newaxis]
    return Intervals(
        kinematics[rows, 2 * sets], kinematics[rows, 2 * sets + 1], total[:, grouping.total] * ratio
    )


def _correlation_factor(lags: Float) -> Float:
    """Lower Cholesky factor, in bands (k // 2 + 1, n_wave), of the correlation between channels."""
    reach = lags.shape[1] // 2
    bands = np.array([lags[:, reach + distance] for distance in range(reach + 1)])
    for _ in range(60):
        try:
            return np.asarray(cholesky_banded(bands, lower=True))
        except LinAlgError:  # a band cut short need not be a covariance: tapered until it is
            bands[1:] *= 0.98
    return np.vstack([np.ones((1, bands.shape[1])), np.zeros((reach, bands.shape[1]))])


def _correlated(draws: Float, factor: Float) -> Float:
    result = draws * factor[0]
    for distance in range(1, len(factor)):
        result[:, distance:] += factor[distance, :-distance] * draws[:, :-distance]
    return np.asarray(result)
