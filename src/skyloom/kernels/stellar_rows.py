"""Rows of spectra through the stellar fit: which channels are used, start values, clipping, results."""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.broadening import Channels
from skyloom.kernels.stellar import State, fit_row, search_velocity
from skyloom.kernels.stellar_errors import model_errors, weighted_model
from skyloom.kernels.stellar_model import GasLines, Row, select_channels

__all__ = ["Plan", "Results", "Spectrograph", "fit_rows"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]
# What became of a spectrum.
NO_DATA, NOT_COVERED, NEGATIVE, LOW_SNR, NOT_CONVERGED, PARTLY_COVERED, MANY_CLIPPED = 1, 2, 4, 8, 16, 32, 64
BROADER = 128
MANY = 0.05  # Share of the channels.
BROADER_BY = 0.05  # Of the variance of the spectrograph's line-spread function.
CLIP_ROUNDS = 3
SEARCH_DUST = 0.3  # mag
MANY_CHANNELS = 1000  # With more, the search for a velocity looks at every SPARE-th only.
SPARE = 2


class Plan(NamedTuple):
    """What holds for all spectra.

    Templates (n_grid, n_templates), those of the search for velocities, on a grid from ``start`` by ``step``, with
    ``spread``; on the grid: A / A_V and variance of the templates' line-spread function in ln(wavelength); polynomials
    of shape, to be added, and of the search (m, n_wave); parameters at the start with limits and which are held;
    velocities to search; places on the grid between which there are templates; lines for the modes (A, at rest) and
    lines that are fitted (A at rest, ratio, column); limits.
    """

    templates: Float
    search_templates: Float
    start: float
    step: float
    spread: float
    dust: Float
    template_variance: Float
    shapes: Float
    added: Float
    search_added: Float
    parameters: Float
    low: Float
    high: Float
    held: Bool
    velocities: Float
    first_place: float
    last_place: float
    mode_lines: Float
    gas_wave: Float
    gas_ratio: Float
    gas_column: Int
    n_gas: int
    n_modes: int
    clip: float
    least_snr: float
    tolerance: float


class Spectrograph(NamedTuple):
    """Axis: centres and widths in ln(wavelength in vacuum), edges in A, LSF (1 or n, n_wave) in A, lags (n_wave, k)."""

    centre: Float
    width: Float
    edges: Float
    lsf: Float
    lags: Float


class Results(NamedTuple):
    """Of every spectrum: parameters, their variances, weights, chi square, channels used, unknowns, S/N, what became
    of it, model, its variance and modes.
    """

    parameters: Float
    variances: Float
    weights: Float
    chi2: Float
    n_used: Int
    n_unknown: Int
    snr: Float
    status: Int
    model: NDArray[np.float32]
    model_variance: NDArray[np.float32]
    modes: NDArray[np.float32]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _at(values: Float, place: float) -> float:
    """Linear interpolation on the grid."""
    i = min(max(int(math.floor(place)), 0), values.size - 2)
    share = min(max(place - i, 0.0), 1.0)
    return values[i] * (1.0 - share) + values[i + 1] * share


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _channels(plan: Plan, axis: Spectrograph, lsf: Float, stretch: float) -> tuple[Channels, Float, Bool]:
    """All channels at a redshift, A / A_V there, and where the templates are broader than the spectrograph."""
    n = axis.centre.size
    broader = np.empty(n, np.bool_)
    place, width, extra, dust = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    square = plan.step * plan.step
    for i in range(n):
        place[i] = (axis.centre[i] - math.log(stretch) - plan.start) / plan.step
        width[i] = axis.width[i] / plan.step
        own = lsf[i] * axis.width[i] / (axis.edges[i + 1] - axis.edges[i])
        extra[i] = (own * own - _at(plan.template_variance, place[i])) / square
        dust[i] = _at(plan.dust, place[i])
        broader[i] = extra[i] * square < -BROADER_BY * own * own
    return Channels(place, width, extra, plan.spread, plan.step), dust, broader


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _median_snr(row: Row) -> float:
    return float(np.median(row.values)) if row.values.size else np.nan


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _clipped(row: Row, model: Float, chi2: float, freedom: int, clip: float) -> Bool:
    """Which channels stay: within ``clip`` standard deviations, these taken from the residuals if larger than 1."""
    scale = max(1.0, math.sqrt(chi2 / max(freedom, 1)))
    return np.abs(row.values - model) <= clip * scale


@numba.njit(cache=True, nogil=True, error_model="numpy")
def fit_rows(
    plan: Plan, axis: Spectrograph, values: NDArray[np.float32], variance: NDArray[np.float32], used: Bool,
    lines: Bool, stretch: Float, velocity: Float, first: int, last: int, results: Results,
) -> None:  # fmt: skip
    """Fit spectra ``first`` ... ``last - 1``.

    ``used`` (n, n_wave): channels to fit; ``lines``: those that hold emission lines, left out of the search even when
    they are fitted; ``stretch``: 1 + redshift; ``velocity``: start values.
    """
    for number in range(first, last):
        _fit(plan, axis, values[number], variance[number], used[number], lines[number], stretch[number],
             velocity[number], number, results)  # fmt: skip


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fit(
    plan: Plan, axis: Spectrograph, values: NDArray[np.float32], variance: NDArray[np.float32], used: Bool, lines: Bool,
    stretch: float, velocity: float, number: int, results: Results,
) -> None:  # fmt: skip
    n_wave = axis.centre.size
    n_templates, n_added = plan.templates.shape[1], plan.added.shape[0]
    n_free = n_added + plan.n_gas
    lsf = axis.lsf[min(number, axis.lsf.shape[0] - 1)]
    channels, dust, broader = _channels(plan, axis, lsf, stretch)
    covered = (channels.place >= plan.first_place) & (channels.place <= plan.last_place)
    good = used & covered
    fewest = 3 * (n_free + plan.parameters.size) + 20
    if np.count_nonzero(used) < fewest:
        results.status[number] = NO_DATA
        return
    if np.count_nonzero(good) < fewest:
        results.status[number] = NOT_COVERED
        return
    status = 0 if covered.all() else PARTLY_COVERED
    if np.count_nonzero(broader & good) > MANY * np.count_nonzero(good):
        status |= BROADER
    root, data = np.zeros(n_wave), np.zeros(n_wave)
    for i in range(n_wave):
        if used[i]:
            root[i], data[i] = 1.0 / math.sqrt(variance[i]), values[i]
    index = np.flatnonzero(good)
    row = select_channels(channels, dust, plan.shapes, plan.added, root, data, index)
    candidates = row
    gas = GasLines(plan.gas_wave * stretch, plan.gas_ratio, plan.gas_column, axis.edges, lsf)
    state = State(
        plan.parameters.copy(), plan.low, plan.high, plan.held.copy(), np.zeros(n_templates + n_free),
        np.zeros(n_templates + n_free, np.bool_),
    )  # fmt: skip
    state.parameters[0] = velocity
    snr = _median_snr(row)
    if not snr >= plan.least_snr:
        status |= LOW_SNR
        state.held[:2] = True
        if plan.n_gas:
            state.held[state.held.size - 2 :] = True
    elif plan.velocities.size:
        quiet = np.flatnonzero(good & ~lines)[:: SPARE if n_wave > MANY_CHANNELS else 1]
        scan = select_channels(channels, dust, plan.shapes[:0], plan.search_added, root, data, quiet)
        trial = plan.parameters.copy()
        trial[2] = max(plan.low[2], min(SEARCH_DUST, plan.high[2]))
        none = GasLines(gas.wave[:0], gas.ratio[:0], gas.column[:0], gas.edges, gas.lsf)
        state.parameters[0] = search_velocity(scan, none, plan.search_templates, trial, plan.velocities)
    chi2, settled = fit_row(row, gas, plan.templates, state, n_free, plan.tolerance)
    for _ in range(CLIP_ROUNDS if plan.clip > 0.0 else 0):
        model = weighted_model(candidates, gas, plan.templates, state, n_free, n_free)
        stay = _clipped(candidates, model, chi2, row.root.size - n_free, plan.clip)
        kept = candidates.index[stay]
        if kept.size < fewest or (kept.size == row.index.size and np.all(kept == row.index)):
            break
        row = select_channels(channels, dust, plan.shapes, plan.added, root, data, kept)
        chi2, settled = fit_row(row, gas, plan.templates, state, n_free, plan.tolerance)
    if row.index.size < (1.0 - MANY) * candidates.index.size:
        status |= MANY_CLIPPED
    if not settled:
        status |= NOT_CONVERGED
    if not state.passive[:n_templates].any():
        status |= NEGATIVE
    there = np.flatnonzero(covered)
    every = select_channels(channels, dust, plan.shapes, plan.added, np.ones(n_wave), data, there)
    noise = _noise(variance, used, there)
    errors = model_errors(
        row,
        every,
        gas,
        plan.templates,
        state,
        n_free,
        axis.lags,
        plan.mode_lines * stretch,
        noise,
        plan.n_modes,
    )
    results.parameters[number] = state.parameters
    results.variances[number] = errors.parameters
    results.weights[number] = state.solution[:n_templates]
    results.chi2[number] = chi2
    results.n_used[number] = row.index.size
    unheld = np.count_nonzero(errors.parameters > 0.0)
    results.n_unknown[number] = np.count_nonzero(state.passive) + unheld
    results.snr[number] = snr
    results.status[number] = status
    model = weighted_model(every, gas, plan.templates, state, n_free, n_added)
    for p in range(there.size):
        results.model[number, there[p]] = model[p]
        results.model_variance[number, there[p]] = errors.variance[p]
        for mode in range(plan.n_modes):
            results.modes[number, mode, there[p]] = errors.modes[mode, p]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _noise(variance: NDArray[np.float32], used: Bool, index: Int) -> Float:
    """Variance of the data; the median where a channel was not used."""
    typical = float(np.median(variance[used]))
    out = np.empty(index.size)
    for p in range(index.size):
        out[p] = variance[index[p]] if used[index[p]] else typical
    return out
