"""From the arrays of the stellar fit to a `ContinuumFit`: units, fractions of light and mass, flags with reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.continuum import ContinuumFit, ContinuumFlag
from skyloom.core.provenance import Step
from skyloom.core.spectra import Spectra
from skyloom.core.templates import TemplateLibrary
from skyloom.errors import ShapeError
from skyloom.spectral.stellar import rows as stellar_rows
from skyloom.spectral.stellar.rows import Plan, Results
from skyloom.spectral.stellar.template_grid import TemplateGrid

__all__ = ["collect", "fractions", "mass_of", "reasons_of"]

Float = NDArray[np.float64]
STATUS = {
    stellar_rows.NO_DATA: ContinuumFlag.NO_DATA,
    stellar_rows.NOT_COVERED: ContinuumFlag.NOT_COVERED,
    stellar_rows.NEGATIVE: ContinuumFlag.NEGATIVE,
    stellar_rows.LOW_SNR: ContinuumFlag.LOW_SNR,
    stellar_rows.NOT_CONVERGED: ContinuumFlag.NOT_CONVERGED,
    stellar_rows.PARTLY_COVERED: ContinuumFlag.PARTLY_COVERED,
    stellar_rows.MANY_CLIPPED: ContinuumFlag.MANY_CLIPPED,
    stellar_rows.BROADER: ContinuumFlag.TEMPLATES_BROADER,
}
REASONS = {
    ContinuumFlag.NO_DATA: "too few usable channels",
    ContinuumFlag.NOT_COVERED: "the templates do not reach the spectrum at this redshift",
    ContinuumFlag.NEGATIVE: "no template with a positive weight fits",
    ContinuumFlag.LOW_SNR: "too faint for kinematics, which were held",
    ContinuumFlag.NOT_CONVERGED: "the fit ran out of steps",
    ContinuumFlag.VELOCITY_AT_BOUND: "velocity at its limit",
    ContinuumFlag.SIGMA_AT_BOUND: "dispersion at its limit",
    ContinuumFlag.UNRESOLVED: "dispersion not significantly above zero",
    ContinuumFlag.AV_AT_BOUND: "attenuation at a limit",
    ContinuumFlag.TEMPLATES_BROADER: "templates broader than the spectrograph in part of the range",
    ContinuumFlag.PARTLY_COVERED: "part of the range is beyond the templates",
    ContinuumFlag.MANY_CLIPPED: "many channels clipped",
    ContinuumFlag.FAILED: "the back end gave no result",
}
RESOLVED = 2.0  # Standard deviations of the squared dispersion.


def collect(
    spectra: Spectra, library: TemplateLibrary, grid: TemplateGrid, plan: Plan, results: Results, scale: Float,
    known: NDArray[np.bool_], done: Step,
) -> ContinuumFit:  # fmt: skip
    """Return what the arrays of `skyloom.spectral.stellar.rows` mean."""
    parameters, variances = results.parameters, results.variances
    flags = _flags(plan, results)
    flags[~known] = ContinuumFlag.NOT_COVERED
    dark = (flags & int(ContinuumFlag.NEGATIVE)) > 0
    errors = np.sqrt(np.where(variances > 0, variances, np.nan))
    squared = np.maximum(parameters[:, 1], 0.0)
    sigma = np.sqrt(squared)
    # Far from zero this is error / (2 sigma); near zero it stays finite.
    sigma_err = np.sqrt(squared + errors[:, 1]) - sigma
    weights = results.weights / grid.scale
    light = fractions(weights * grid.light)
    mass = mass_of(library, weights, weights * grid.light)
    freedom = np.maximum(results.n_used - results.n_unknown, 1)
    meta: dict[str, Any] = {**spectra.meta, "light_window": grid.light_window, "library": library.name}

    def seen(values: Float) -> Float:
        return np.where(dark, np.nan, values)

    return ContinuumFit(
        results.model, results.model_variance, spectra.unit, spectra.wave, spectra.medium, scale - 1.0, weights,
        seen(parameters[:, 0]), seen(errors[:, 0]), seen(sigma), seen(sigma_err), seen(parameters[:, 2]),
        seen(errors[:, 2]), results.chi2 / freedom, results.snr, flags, reasons_of(flags), library.age,
        library.metallicity, library.name, "builtin", results.modes if plan.n_modes else None, "coefficient", light,
        mass, results.n_used, meta, (*spectra.history, done),
    )  # fmt: skip


def _flags(plan: Plan, results: Results) -> NDArray[np.int64]:
    parameters, variances = results.parameters, results.variances
    flags = np.zeros(len(parameters), dtype=np.int64)
    for bit, flag in STATUS.items():
        flags[(results.status & bit) > 0] |= int(flag)
    bounds = (ContinuumFlag.VELOCITY_AT_BOUND, ContinuumFlag.SIGMA_AT_BOUND, ContinuumFlag.AV_AT_BOUND)
    for number, flag in enumerate(bounds):
        if plan.held[number]:
            continue
        high = parameters[:, number] >= plan.high[number]
        low = parameters[:, number] <= plan.low[number]
        flags[high | low if number != 1 else high] |= int(flag)
    if not plan.held[1]:
        unsure = ~(parameters[:, 1] > RESOLVED * np.sqrt(variances[:, 1]))
        flags[unsure | (parameters[:, 1] <= plan.low[1])] |= int(ContinuumFlag.UNRESOLVED)
    kinematic = ContinuumFlag.VELOCITY_AT_BOUND | ContinuumFlag.SIGMA_AT_BOUND | ContinuumFlag.UNRESOLVED
    held = (results.status & stellar_rows.LOW_SNR) > 0
    flags[held] &= ~int(kinematic)
    empty = results.status & (stellar_rows.NO_DATA | stellar_rows.NOT_COVERED | stellar_rows.NEGATIVE) > 0
    flags[empty] &= ~int(kinematic | ContinuumFlag.AV_AT_BOUND)
    return flags


def reasons_of(flags: NDArray[np.int64]) -> tuple[str, ...]:
    """Return the flags of each spectrum in words."""
    return tuple(
        "; ".join(text for flag, text in REASONS.items() if int(value) & int(flag)) for value in flags
    )


def fractions(amounts: Float) -> Float:
    """Return rows divided by their sum; NaN where nothing adds up."""
    total = amounts.sum(axis=1, keepdims=True)
    return np.divide(amounts, total, out=np.full(amounts.shape, np.nan), where=total > 0)


def mass_of(library: TemplateLibrary, weights: Float, light: Float) -> Float | None:
    """Return fractions of mass where the library knows the masses, else None.

    Raises
    ------
    ShapeError
        When ``meta["mass_to_light"]`` has not one value per template.
    """
    if library.meta.get("flux_per_mass"):
        return fractions(weights)
    ratios = library.meta.get("mass_to_light")
    if ratios is None:
        return None
    values = np.asarray(ratios, dtype=np.float64)
    if values.shape != (len(library),):
        raise ShapeError(
            f"mass_to_light has shape {values.shape}; expected ({len(library)},)", field="mass_to_light"
        )
    return fractions(light * values)
