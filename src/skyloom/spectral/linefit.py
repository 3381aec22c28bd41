"""Emission and absorption lines fitted to spectra: fluxes, velocities and widths with errors that hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import ArrayLike, NDArray

from skyloom.core.line_fit import LineFit, LineFlag
from skyloom.core.linelist import LineList
from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands
from skyloom.errors import InputError, ShapeError
from skyloom.kernels.line_fits import AT_BOUND, BORROWED, NOT_CONVERGED, fit_rows
from skyloom.kernels.line_moments import direct_fluxes
from skyloom.kernels.line_types import SPEED_OF_LIGHT, Controls, Results
from skyloom.spectral.grids import pixel_edges
from skyloom.spectral.line_groups import Grouping, group_lines, lines_named
from skyloom.spectral.threads import blocks, run_blocks

__all__ = ["fit_lines"]

Float = NDArray[np.float64]
ROWS = 64  # Spectra per task of a thread.
FAINT = 3.0  # Standard deviations below which a line counts as not seen.
TOLERANCE = 1e-4  # Of chi square: a hundredth of a standard deviation of the kinematics.
STEPS = 60
SEARCH_STEP = 50.0  # km/s
START_SIGMA = 60.0  # km/s


def fit_lines(
    spectra: Spectra,
    lines: str | Sequence[str] | LineList = "default",
    redshift: float | ArrayLike = 0.0,
    continuum: Any = None,
    *,
    window: float = 1500.0,
    degree: int = 1,
    velocity: ArrayLike | None = None,
    velocity_range: float = 600.0,
    sigma_range: tuple[float, float] = (-40.0, 500.0),
    kinematics_snr: float = 4.0,
    threads: int | None = None,
) -> LineFit:
    """Fit lines to spectra.

    Parameters
    ----------
    spectra : Spectra
        n spectra with their variance, correlation between channels and line-spread function.
    lines : str, sequence of str, or LineList
        ``"default"`` (``core/default_lines.txt``), a preset (`skyloom.spectral.line_groups.PRESETS`), keys, or a list.
    redshift : float or (n,) array
        Of the systems; 0 for spectra in the rest frame.
    continuum : ContinuumFit or (n, n_wave) array, optional
        Taken off before the fit; the error of a `skyloom.core.continuum.ContinuumFit` enters fluxes and equivalent
        widths. None: the polynomial of each segment is all there is below the lines.
    window : float
        km/s on either side of a line that are fitted.
    degree : int
        Of the polynomial in each segment, on top of the continuum.
    velocity : (n,) array, optional
        First guess, km/s; by default searched within ``velocity_range``.
    velocity_range, sigma_range : float, (float, float)
        Limits in km/s; see `skyloom.spectral.line_groups.group_lines`.
    kinematics_snr : float
        A group whose most significant line stays below borrows the kinematics of the strongest group.
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
    polynomials, with the correlation between channels: ``docs/numbers.md``. Fluxes are signed.
    """
    plan = _Inputs.check(spectra, redshift, continuum)
    listed = lines_named(lines)
    grouping = group_lines(
        _on_axis(listed, spectra, plan.scale), spectra.medium, window=window, degree=degree,
        velocity_range=velocity_range, sigma_range=sigma_range,
    )  # fmt: skip
    controls = _controls(grouping, velocity_range if velocity is None else 0.0, kinematics_snr)
    start = np.tile([0.0, START_SIGMA**2], (len(spectra.data), len(grouping.sets)))
    if velocity is not None:
        start[:, ::2] = np.broadcast_to(np.asarray(velocity, dtype=np.float64), len(start))[:, np.newaxis]
    results = _run(grouping, controls, plan, start, threads)
    table = _Table(spectra, plan, grouping, results, threads).build()
    done = step(
        "fit_lines", lines=list(listed.keys), window=window, degree=degree, kinematics_snr=kinematics_snr
    )
    return LineFit(
        table, results.model, results.baseline, spectra.unit, spectra.wave, spectra.medium, listed, plan.scale - 1.0,
        dict(spectra.meta), (*spectra.history, done),
    )  # fmt: skip


class _Inputs(NamedTuple):
    """Arrays in the form that kernels want."""

    edges: Float
    values: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.bool_]
    lsf: Float
    lags: Float
    modes: NDArray[np.float32]
    scale: Float
    continuum: NDArray[np.float32]
    continuum_variance: NDArray[np.float32]

    @classmethod
    def check(cls, spectra: Spectra, redshift: float | ArrayLike, continuum: Any) -> _Inputs:
        n, n_wave = spectra.shape
        z = np.asarray(redshift, dtype=np.float64)
        if z.shape not in ((), (n,)):
            raise ShapeError(f"redshift has shape {z.shape}; expected a number or ({n},)", field="redshift")
        if not np.all(np.isfinite(z)) or not np.all(z > -1):
            raise InputError(
                f"redshifts run from {z.min()} to {z.max()}; expected more than -1", field="redshift"
            )
        if spectra.lsf is None:
            raise InputError(
                "the spectra have no line-spread function", field="lsf",
                remedy="give its sigma in A: spectra.evolve(lsf=...)",
            )  # fmt: skip
        lsf = np.asarray(spectra.lsf, dtype=np.float64)
        lsf = np.ascontiguousarray(np.broadcast_to(lsf, (len(lsf) if lsf.ndim == 2 else 1, n_wave)))
        model, variance, modes = _continuum_planes(continuum, spectra)
        values = np.asarray(spectra.data, dtype=np.float32) - model
        mask = spectra.mask | ~np.isfinite(values)
        return cls(
            pixel_edges(spectra.wave),
            values,
            np.where(mask, 0.0, spectra.variance).astype(np.float32),
            mask,
            lsf,
            lag_bands(spectra.correlation, n_wave),
            modes,
            1.0 + np.broadcast_to(z, n),
            model,
            variance,
        )


def _continuum_planes(
    continuum: Any, spectra: Spectra
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Model, its variance and the leading modes of its covariance."""
    shape = spectra.shape
    zeros = np.zeros(shape, dtype=np.float32)
    nothing = np.zeros((shape[0], 0, shape[1]), dtype=np.float32)
    if continuum is None:
        return zeros, zeros, nothing
    model = np.asarray(getattr(continuum, "model", continuum), dtype=np.float32)
    if model.shape != shape:
        raise ShapeError(f"continuum has shape {model.shape}; expected {shape}", field="continuum")
    variance = getattr(continuum, "variance", None)
    modes = getattr(continuum, "modes", None)
    return (
        model,
        zeros if variance is None else np.asarray(variance, dtype=np.float32),
        nothing if modes is None else np.asarray(modes, dtype=np.float32),
    )


def _on_axis(lines: LineList, spectra: Spectra, scale: Float) -> LineList:
    """The lines that fall on the axis for any of the redshifts."""
    rest = lines.wavelengths(spectra.medium)  # type: ignore[arg-type]
    inside = (rest * scale.max() > spectra.wave[0]) & (rest * scale.min() < spectra.wave[-1])
    if not inside.any():
        raise InputError(
            f"at redshift {np.median(scale) - 1:.5g} none of the {len(lines)} lines falls on the axis from"
            f" {spectra.wave[0]:.0f} to {spectra.wave[-1]:.0f} A",
            field="redshift",
            remedy="check the redshift, and whether the spectra are in the rest frame already",
        )
    return lines.select(key for key, there in zip(lines.keys, inside, strict=True) if there)


def _controls(grouping: Grouping, velocity_range: float, weak: float) -> Controls:
    """How the fit proceeds; the first guess looks at the lines that usually are strong."""
    leaders = [line for line, own in zip(grouping.lines, grouping.leading, strict=True) if own]
    strong = {
        "Halpha",
        "NII6583",
        "OIII5007",
        "Hbeta",
        "OII3726",
        "OII3729",
        "SII6716",
        "SII6730",
        "SIII9068",
    }
    anchors = np.array([line.key in strong for line in leaders])
    if not anchors.any():
        anchors[:] = True
    absorbing = np.array([line.kind == "absorption" for line in leaders])
    copies = len(grouping.plan.column_set) // len(leaders)
    reach = int(velocity_range // SEARCH_STEP)
    search = np.asarray(SEARCH_STEP * np.arange(-reach, reach + 1), dtype=np.float64)
    return Controls(
        search, START_SIGMA**2, np.tile(anchors, copies), np.tile(absorbing, copies), weak, TOLERANCE, STEPS
    )


def _run(
    grouping: Grouping, controls: Controls, inputs: _Inputs, start: Float, threads: int | None
) -> Results:
    n, n_wave = inputs.values.shape
    plan = grouping.plan
    n_columns, n_totals = plan.column_set.size, int(plan.column_total.max()) + 1

    def unknown(*shape: int) -> Float:
        return np.full(shape, np.nan)

    results = Results(
        unknown(n, len(plan.bounds)), unknown(n, len(plan.bounds)), unknown(n, n_columns), unknown(n, n_columns),
        unknown(n, n_totals), unknown(n, n_totals), np.zeros((n, len(plan.bounds) // 2), np.int64),
        unknown(n, len(plan.pairs)), unknown(n), np.zeros(n, np.int64), np.zeros(n, np.int64),
        np.zeros((n, n_wave), np.float32), np.zeros((n, n_wave), np.float32),
    )  # fmt: skip

    def fit(rows: slice) -> None:
        fit_rows(
            plan, controls, inputs.edges, inputs.values, inputs.variance, inputs.mask, inputs.lsf, inputs.lags,
            inputs.modes, inputs.scale, start, rows.start, rows.stop, results,
        )  # fmt: skip

    run_blocks(fit, blocks(n, ROWS), threads)
    return results


class _Table:
    """Columns for every line, from the arrays of the fit."""

    def __init__(
        self, spectra: Spectra, inputs: _Inputs, grouping: Grouping, results: Results, threads: int | None
    ) -> None:
        self.spectra, self.inputs, self.grouping, self.results = spectra, inputs, grouping, results
        lines = grouping.lines
        rest = lines.wavelengths(spectra.medium)  # type: ignore[arg-type]
        sets = grouping.line_set
        self.velocity = results.kinematics[:, 2 * sets]
        self.variance = results.kinematics[:, 2 * sets + 1]
        self.velocity_error = np.sqrt(results.kinematic_variance[:, 2 * sets])
        self.variance_error = np.sqrt(results.kinematic_variance[:, 2 * sets + 1])
        ratio = grouping.plan.ratio[: len(lines)]
        self.flux = results.total[:, grouping.total] * ratio
        self.error = np.sqrt(results.total_variance[:, grouping.total]) * ratio
        unshifted = rest * inputs.scale[:, np.newaxis]
        channel = np.clip(np.searchsorted(inputs.edges, unshifted) - 1, 0, spectra.shape[1] - 1)
        rows = (
            np.arange(len(unshifted))[:, np.newaxis] if len(inputs.lsf) > 1 else np.zeros((1, 1), dtype=int)
        )
        self.instrument = inputs.lsf[rows, channel] / unshifted * SPEED_OF_LIGHT
        self.observed = np.sqrt(np.maximum(self.instrument**2 + self.variance, 1.0))
        self.centre = unshifted * (1 + self.velocity / SPEED_OF_LIGHT)
        self.sigma_wave = self.observed / SPEED_OF_LIGHT * unshifted
        self.covered = np.isfinite(self.flux)
        self.direct, self.direct_error = self._direct(threads)
        self.level, self.level_error = self._levels()

    def _direct(self, threads: int | None) -> tuple[Float, Float]:
        inputs, results = self.inputs, self.results
        residual = inputs.values - results.model - results.baseline
        total, variance = np.empty_like(self.flux), np.empty_like(self.flux)
        width = np.where(self.covered, self.sigma_wave, np.nan)

        def add(rows: slice) -> None:
            direct_fluxes(
                inputs.edges, residual, inputs.variance, inputs.mask, inputs.lags, self.centre, width, self.flux,
                rows.start, rows.stop, total, variance,
            )  # fmt: skip

        run_blocks(add, blocks(len(residual), ROWS), threads)
        return total, np.sqrt(variance)

    def _levels(self) -> tuple[Float, Float]:
        """Continuum at each line, and its error: of the model, and of the mean over the channels of the segment."""
        inputs, grouping = self.inputs, self.grouping
        n_wave = self.spectra.shape[1]
        rows = np.arange(len(self.flux))[:, np.newaxis]
        channel = np.clip(np.searchsorted(inputs.edges, self.centre) - 1, 0, n_wave - 1)
        level = inputs.continuum[rows, channel] + self.results.baseline[rows, channel]
        error = np.zeros(self.flux.shape)
        spread = np.maximum(inputs.lags.sum(axis=1), 0.0)
        for number, segment in enumerate(grouping.segment_of):
            low, high = grouping.plan.segment_range[segment] * np.median(inputs.scale)
            window = slice(*np.searchsorted(self.spectra.wave, [low, high]))
            used = ~inputs.mask[:, window]
            weight = np.divide(1.0, inputs.variance[:, window], out=np.zeros(used.shape), where=used).sum(
                axis=1
            )
            error[:, number] = np.sqrt(
                np.divide(spread[window].mean(), weight, out=np.full(len(weight), np.nan), where=weight > 0)
            )
        squared = error**2 + inputs.continuum_variance[rows, channel]
        return np.asarray(level, dtype=np.float64), np.asarray(np.sqrt(squared), dtype=np.float64)

    def build(self) -> QTable:
        """Return the table."""
        spectra, results = self.spectra, self.results
        flux_unit = spectra.unit * u.AA
        table = QTable({"id": np.asarray(spectra.meta.get("labels", np.arange(len(self.flux))))})
        stretch = self.inputs.scale[:, np.newaxis]
        with np.errstate(divide="ignore", invalid="ignore"):  # NaN and infinite where a line was not measured
            snr = self.flux / self.error
            ew = self.flux / self.level / stretch
            ew_error = np.abs(ew) * np.hypot(self.error / self.flux, self.level_error / self.level)
            sigma, sigma_error = _intrinsic(self.variance, self.variance_error)
            observed_error = self.variance_error / (2 * self.observed)
        flags = self._flags(snr)
        for number, line in enumerate(self.grouping.lines):
            there = self.covered[:, number]
            columns = {
                "flux": (self.flux, flux_unit), "flux_err": (self.error, flux_unit),
                "velocity": (self.velocity, u.km / u.s), "velocity_err": (self.velocity_error, u.km / u.s),
                "sigma": (sigma, u.km / u.s), "sigma_err": (sigma_error, u.km / u.s),
                "sigma_observed": (self.observed, u.km / u.s), "sigma_observed_err": (observed_error, u.km / u.s),
                "ew": (ew, u.AA), "ew_err": (ew_error, u.AA), "snr": (snr, u.one),
                "upper_limit": (np.maximum(self.flux, 0.0) + FAINT * self.error, flux_unit),
                "flux_direct": (self.direct, flux_unit), "flux_direct_err": (self.direct_error, flux_unit),
            }  # fmt: skip
            for name, (values, unit) in columns.items():
                table[f"{line.key}_{name}"] = np.where(there, values[:, number], np.nan) * unit
            table[f"{line.key}_flag"] = flags[:, number]
        table["chi2"] = results.chi2
        table["n_channels"] = results.n_used
        table["n_unknown"] = results.n_unknown
        return table

    def _flags(self, snr: Float) -> NDArray[np.int64]:
        grouping, results = self.grouping, self.results
        of_set = results.set_flags[:, grouping.line_set]
        flags = np.zeros(snr.shape, dtype=np.int64)
        flags[(of_set & BORROWED) > 0] |= LineFlag.BORROWED
        flags[(of_set & AT_BOUND) > 0] |= LineFlag.AT_BOUND
        flags[(of_set & NOT_CONVERGED) > 0] |= LineFlag.NOT_CONVERGED
        with np.errstate(invalid="ignore"):  # unknown errors compare as False
            flags[~(self.variance > 2 * self.variance_error)] |= LineFlag.UNRESOLVED
            flags[snr < FAINT] |= LineFlag.FAINT
            flags[~(self.level > FAINT * self.level_error)] |= LineFlag.NO_CONTINUUM
        for pair, columns in enumerate(grouping.plan.pairs):
            held = np.isfinite(results.tied[:, pair])
            flags[np.ix_(held, np.isin(grouping.total, columns))] |= LineFlag.RATIO_AT_BOUND
        flags[:, ~grouping.leading] |= LineFlag.TIED
        flags[~self.covered] = LineFlag.NOT_COVERED
        return flags


def _intrinsic(variance: Float, error: Float) -> tuple[Float, Float]:
    """Dispersion and its error from the intrinsic variance; where that is not positive, 0 and a limit of one sigma."""
    sigma = np.sqrt(np.maximum(variance, 0.0))
    # Far from zero this is error / (2 sigma); near zero it stays finite.
    return sigma, np.sqrt(np.maximum(variance, 0.0) + error) - sigma
