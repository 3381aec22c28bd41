"""Single spectra through the stellar fit: channels that are used, start values, clipping, results."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.stellar.broadening import Channels
from skyloom.kernels.stellar.errors import model_errors, weighted_model
from skyloom.kernels.stellar.fit import State, fit_row, search_velocity
from skyloom.kernels.stellar.model import GasLines, Row

__all__ = ["Axis", "Plan", "Results", "fit_spectrum"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]
# What became of a spectrum.
NO_DATA, NOT_COVERED, NEGATIVE, LOW_SNR, NOT_CONVERGED, PARTLY_COVERED, MANY_CLIPPED, BROADER = (
    1 << bit for bit in range(8)
)
MANY = 0.05  # Share of the channels.
BROADER_BY = 0.05  # Of the variance of the spectrograph's line-spread function.
CLIP_ROUNDS = 3
FEW_CHANNELS = 500  # Enough to come near the solution.
SEARCH_CHANNELS = 300  # Enough to tell velocities 150 km/s apart.
ROUGH = 100.0  # Tolerances of chi square on the way there.


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

    @property
    def n_free(self) -> int:
        """Number of columns that may be negative."""
        return len(self.added) + self.n_gas

    @property
    def fewest(self) -> int:
        """Channels that a fit needs at least."""
        return 3 * (self.n_free + self.parameters.size) + 20


class Axis(NamedTuple):
    """Centres and widths in ln(wavelength in vacuum), edges in A, LSF (1 or n, n_wave) in A, lags (n_wave, k)."""

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


class _Spectrum:
    """One spectrum on the grid of templates."""

    def __init__(
        self, plan: Plan, axis: Axis, values: Float, variance: Float, used: Bool, stretch: float, lsf: Float
    ) -> None:
        self.plan = plan
        place = (axis.centre - np.log(stretch) - plan.start) / plan.step
        grid = np.arange(plan.dust.size)
        own = (lsf * axis.width / np.diff(axis.edges)) ** 2
        extra = own - np.interp(place, grid, plan.template_variance)
        self.channels = Channels(place, axis.width / plan.step, extra / plan.step**2, plan.spread, plan.step)
        self.dust = np.interp(place, grid, plan.dust)
        self.broader = extra < -BROADER_BY * own
        self.covered = (place >= plan.first_place) & (place <= plan.last_place)
        self.good = used & self.covered
        self.root = np.zeros(used.size)
        self.root[used] = 1.0 / np.sqrt(variance[used])
        self.data = np.where(used, values, 0.0)
        self.gas = GasLines(plan.gas_wave * stretch, plan.gas_ratio, plan.gas_column, axis.edges, lsf)

    def row(self, index: Int, *, root: Float | None = None, search: bool = False) -> Row:
        """The channels ``index``, weighted; for the search with the polynomials that it adds."""
        weight = (self.root if root is None else root)[index]
        channels, plan = self.channels, self.plan
        added = plan.search_added if search else plan.added
        shapes = plan.shapes[:0] if search else plan.shapes
        taken = channels._replace(
            place=channels.place[index], width=channels.width[index], extra=channels.extra[index]
        )
        return Row(
            taken, weight, weight * self.data[index], self.dust[index], _columns(shapes, index),
            _columns(added, index), index,
        )  # fmt: skip


def _columns(values: Float, index: Int) -> Float:
    return np.ascontiguousarray(values[:, index])


def fit_spectrum(
    plan: Plan, axis: Axis, values: Float, variance: Float, used: Bool, lines: Bool, stretch: float, velocity: float,
    number: int, results: Results,
) -> None:  # fmt: skip
    """Fit one spectrum and write what was found at place ``number`` of the results.

    ``used`` (n_wave,): channels to fit; ``lines``: those that hold emission lines, left out of the search even when
    they are fitted; ``stretch``: 1 + redshift; ``velocity``: start value.
    """
    if np.count_nonzero(used) < plan.fewest:
        results.status[number] = NO_DATA
        return
    lsf = axis.lsf[min(number, len(axis.lsf) - 1)]
    spectrum = _Spectrum(plan, axis, values, variance, used, stretch, lsf)
    good = spectrum.good
    if np.count_nonzero(good) < plan.fewest:
        results.status[number] = NOT_COVERED
        return
    status = 0 if spectrum.covered.all() else PARTLY_COVERED
    if np.count_nonzero(spectrum.broader & good) > MANY * np.count_nonzero(good):
        status |= BROADER
    size = plan.templates.shape[1] + plan.n_free
    state = State(
        plan.parameters.copy(), plan.low, plan.high, plan.held.copy(), np.zeros(size), np.zeros(size, bool)
    )
    state.parameters[0] = velocity
    snr = float(np.median(values[good] * spectrum.root[good]))
    if not snr >= plan.least_snr:
        status |= LOW_SNR
        state.held[:2] = True
        if plan.n_gas:
            state.held[-2:] = True
    elif plan.velocities.size:
        state.parameters[0] = _searched(spectrum, state, lines)
    row, chi2, settled = _fitted(spectrum, state)
    if row.places.size < (1.0 - MANY) * np.count_nonzero(good):
        status |= MANY_CLIPPED
    if not settled:
        status |= NOT_CONVERGED
    if not state.passive[: plan.templates.shape[1]].any():
        status |= NEGATIVE
    results.chi2[number], results.snr[number], results.status[number] = chi2, snr, status
    _write(spectrum, axis, state, row, variance, stretch, number, results)


def _searched(spectrum: _Spectrum, state: State, lines: Bool) -> float:
    """Velocity at which a few templates and a polynomial fit best."""
    quiet = np.flatnonzero(spectrum.good & ~lines)
    if quiet.size < spectrum.plan.fewest:
        return float(state.parameters[0])
    row = spectrum.row(quiet[:: max(quiet.size // SEARCH_CHANNELS, 1)].copy(), search=True)
    gas = spectrum.gas
    none = gas._replace(wave=gas.wave[:0], ratio=gas.ratio[:0], column=gas.column[:0])
    plan = spectrum.plan
    return float(search_velocity(row, none, plan.search_templates, state.parameters, plan.velocities))


def _fitted(spectrum: _Spectrum, state: State) -> tuple[Row, float, bool]:
    """Fit, leave outliers out, fit again; return the row that was fitted last, chi square, whether it converged."""
    plan, gas = spectrum.plan, spectrum.gas
    index = np.flatnonzero(spectrum.good)
    thin = index.size // FEW_CHANNELS
    if thin > 1:
        # A fit to part of the channels ends near the fit to all, at a part of its cost.
        sparse = spectrum.row(index[::thin].copy())
        fit_row(sparse, gas, plan.templates, state, plan.n_free, ROUGH * plan.tolerance)
    row = candidates = spectrum.row(index)
    left, settled = fit_row(row, gas, plan.templates, state, plan.n_free, plan.tolerance)
    chi2 = float(left @ left)
    for _ in range(CLIP_ROUNDS if plan.clip > 0.0 else 0):
        if row is not candidates:
            left = candidates.values - weighted_model(
                candidates, gas, plan.templates, state, plan.n_free, plan.n_free
            )
        scale = max(1.0, np.sqrt(chi2 / max(row.places.size - plan.n_free, 1)))
        kept = index[np.abs(left) <= plan.clip * scale]
        if kept.size < plan.fewest or np.array_equal(kept, row.places):
            break
        row = spectrum.row(kept)
        left, settled = fit_row(row, gas, plan.templates, state, plan.n_free, plan.tolerance)
        chi2 = float(left @ left)
    return row, chi2, settled


def _write(
    spectrum: _Spectrum, axis: Axis, state: State, row: Row, variance: Float, stretch: float, number: int,
    results: Results,
) -> None:  # fmt: skip
    """Errors, model and parameters into the results."""
    plan = spectrum.plan
    there = np.flatnonzero(spectrum.covered)
    every = spectrum.row(there, root=np.ones(spectrum.root.size))
    fitted = spectrum.root[there] > 0
    # The median stands in where a channel was not used.
    noise = np.where(fitted, variance[there], np.median(variance[there][fitted])).astype(np.float64)
    errors = model_errors(
        row, every, spectrum.gas, plan.templates, state, plan.n_free, axis.lags, plan.mode_lines * stretch, noise,
        plan.n_modes,
    )  # fmt: skip
    results.parameters[number] = state.parameters
    results.variances[number] = errors.parameters
    results.weights[number] = state.solution[: plan.templates.shape[1]]
    results.n_used[number] = row.places.size
    results.n_unknown[number] = np.count_nonzero(state.passive) + np.count_nonzero(errors.parameters > 0.0)
    results.model[number, there] = errors.model
    results.model_variance[number, there] = errors.variance
    results.modes[number][:, there] = errors.modes
