"""Photometry of spectra: fluxes and magnitudes through filters, and spectra weighted by their transmission.

A synthetic flux is the photon-weighted mean of a spectrum over the band, with the errors of its channels, correlated
along wavelength, carried into it. What of the band a spectrum lacks is judged by its own slope, as for the pixels of
synthetic images (`skyloom.spectral.bands.synthetic`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import ArrayLike, NDArray

from skyloom.core.bandpass import AB_ZERO, SPEED_OF_LIGHT, Bandpass
from skyloom.core.linelist import Medium
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands, weighted_sum_variance
from skyloom.core.units import area_unit
from skyloom.errors import InputError, UnitError
from skyloom.spectral.bands.synthetic_colour import STEEPEST, long_sum_inflation, measure_colours, move_means
from skyloom.spectral.bands.synthetic_plan import WHOLE, BandPlan, Beyond, plan_band

__all__ = [
    "SDSS_MINUS_AB",
    "SDSS_SOFTENING",
    "Coverage",
    "PhotometricSystem",
    "asinh_magnitude",
    "pogson_magnitude",
    "synthetic_magnitudes",
]

Float = NDArray[np.float64]
PhotometricSystem = Literal["AB", "SDSS"]
Coverage = Literal["whole", "partial", "insufficient"]
F_LAMBDA = u.erg / u.s / u.cm**2 / u.AA
NANOMAGGY = AB_ZERO * 1e-9  # erg s-1 cm-2 Hz-1
MAGNITUDE = 2.5 / np.log(10.0)
ROUNDING = 1e-6
#: Softening b of the asinh magnitudes of SDSS, in maggies (Lupton, Gunn & Szalay 1999, 10.1086/301004; Stoughton et
#: al. 2002, 10.1086/324741, table 21).
SDSS_SOFTENING: Mapping[str, float] = {"u": 1.4e-10, "g": 0.9e-10, "r": 1.2e-10, "i": 1.8e-10, "z": 7.4e-10}
#: Magnitudes as SDSS publishes them less AB: the zero points of the survey are off by this in two bands.
SDSS_MINUS_AB: Mapping[str, float] = {"u": 0.04, "g": 0.0, "r": 0.0, "i": 0.0, "z": -0.02}


def pogson_magnitude(flux: ArrayLike, error: ArrayLike) -> tuple[Float, Float]:
    """Return magnitudes 22.5 - 2.5 lg f of fluxes in nanomaggies, and their errors; NaN where the flux is not > 0."""
    values, errors = np.asarray(flux, np.float64), np.asarray(error, np.float64)
    known = values > 0
    safe = np.where(known, values, 1.0)
    magnitude = np.where(known, 22.5 - 2.5 * np.log10(safe), np.nan)
    return magnitude, np.where(known, MAGNITUDE * errors / safe, np.nan)


def asinh_magnitude(flux: ArrayLike, error: ArrayLike, softening: float) -> tuple[Float, Float]:
    """Return asinh magnitudes (luptitudes) of fluxes in nanomaggies, and their errors.

    Parameters
    ----------
    flux, error : arrays
        nanomaggies; fluxes may be negative.
    softening : float
        b, in maggies.

    Notes
    -----
    m = -2.5 / ln 10 (asinh(f / 2b) + ln b), dm = 2.5 / ln 10 df / sqrt(f^2 + 4 b^2)
    (Lupton, Gunn & Szalay 1999, 10.1086/301004).

    Raises
    ------
    InputError
        When the softening is not > 0.
    """
    if not softening > 0:
        raise InputError(f"the softening is {softening}; expected more than 0 maggies", field="softening")
    values, errors = np.asarray(flux, np.float64) * 1e-9, np.asarray(error, np.float64) * 1e-9
    magnitude = -MAGNITUDE * (np.arcsinh(values / (2.0 * softening)) + np.log(softening))
    return magnitude, MAGNITUDE * errors / np.hypot(values, 2.0 * softening)


def synthetic_magnitudes(
    spectra: Spectra,
    bandpasses: Mapping[str, Bandpass],
    *,
    system: PhotometricSystem = "AB",
    minimum_coverage: float = 0.5,
    beyond: Beyond = "slope",
    softening: Mapping[str, float] = SDSS_SOFTENING,
) -> QTable:
    """Measure the fluxes of spectra through filters.

    Parameters
    ----------
    spectra : Spectra
        Of flux densities per A.
    bandpasses : mapping of name to Bandpass
        Such as `skyloom.io.sdss_bandpasses` returns; total throughputs, the atmosphere's included where the camera
        stood below it.
    system : {"AB", "SDSS"}
        "SDSS": zero points as SDSS published them, which are off AB by 0.04 mag in u and -0.02 mag in z
        (`SDSS_MINUS_AB`); for other names of bands there is no difference.
    minimum_coverage : float
        Least share of the band (of the photons of a flat spectrum) on usable channels; with less there is no flux.
    beyond : {"slope", "constant", "none"}
        How a spectrum goes on where the band leaves its axis: with its slope, without one, or not at all: then the flux
        is the mean over the covered part.
    softening : mapping
        Of the asinh magnitudes of each band, in maggies; bands that are not in it have none (NaN).

    Returns
    -------
    QTable
        One row per spectrum and band, spectrum by spectrum: ``spectrum`` (row), ``band``; ``flux`` and ``flux_err`` in
        nanomaggies; ``magnitude`` and ``magnitude_err`` (NaN where the flux is not > 0); ``asinh_magnitude`` and
        ``asinh_magnitude_err``; ``covered_fraction``; ``coverage``: "whole" (more than 99.9 %), "partial" (corrected),
        or "insufficient" (NaN everywhere).

    Raises
    ------
    UnitError
        When the spectra are no flux densities per A.
    InputError
        When there is no band, or an option is unknown.

    Notes
    -----
    With w of `Bandpass.mean_weights` over the usable channels, <f> = sum w d / sum w, and
    Var <f> = sum_ij w_i w_j s_i s_j rho_ij / (sum w)^2 + modes. The flux in nanomaggies is <f> pivot^2 / (c F0), with
    F0 = 10^-9 10^(-48.6/2.5) erg s-1 cm-2 Hz-1, which is exact for photon counts. A missing part moves the mean by the
    spectrum's own slope, where the noise lets one see it (its prior is zero with d ln f / d ln wave = +- 3); the error
    has the noise of the slope, what of it was not seen, and the difference that a parabola through the spectrum and its
    structure (lines, breaks) would make times the missing share; see `skyloom.spectral.bands.synthetic`.
    """
    if system not in get_args(PhotometricSystem):
        raise InputError(f"system is {system!r}; expected 'AB' or 'SDSS'", field="system")
    if not bandpasses:
        raise InputError("there is no band to measure in", field="bandpasses")
    scale = _flux_density(spectra)
    medium: Medium = "air" if spectra.medium == "air" else "vacuum"
    n, names = spectra.shape[0], list(bandpasses)
    columns = np.full((7, n, len(names)), np.nan)
    for place, name in enumerate(names):
        band = bandpasses[name]
        flux, error, covered = _measure(spectra, band, medium, minimum_coverage, beyond)
        offset = SDSS_MINUS_AB.get(name, 0.0) if system == "SDSS" else 0.0
        factor = (
            scale * band.to_medium("vacuum").pivot ** 2 / SPEED_OF_LIGHT / NANOMAGGY * 10 ** (-0.4 * offset)
        )
        flux, error = factor * flux, factor * error
        columns[:2, :, place] = flux, error
        columns[2:4, :, place] = pogson_magnitude(flux, error)
        if name in softening:
            columns[4:6, :, place] = asinh_magnitude(flux, error, softening[name])
        columns[6, :, place] = covered
    return _table(columns, names)


def _table(columns: Float, names: list[str]) -> QTable:
    flux, flux_err, magnitude, magnitude_err, soft, soft_err, covered = columns.reshape(7, -1)
    n = columns.shape[1]
    table = QTable()
    table["spectrum"] = np.repeat(np.arange(n), len(names))
    table["band"] = np.tile(np.array(names, dtype=str), n)
    for name, values, unit in (
        ("flux", flux, u.nmgy),
        ("flux_err", flux_err, u.nmgy),
        ("magnitude", magnitude, u.mag),
        ("magnitude_err", magnitude_err, u.mag),
        ("asinh_magnitude", soft, u.mag),
        ("asinh_magnitude_err", soft_err, u.mag),
    ):
        table[name] = values * unit
    table["covered_fraction"] = covered
    table["coverage"] = np.where(
        np.isfinite(flux), np.where(covered > WHOLE, "whole", "partial"), "insufficient"
    )
    return table


def _flux_density(spectra: Spectra) -> float:
    """Return one unit of the spectra in erg s-1 cm-2 A-1."""
    if area_unit(spectra.unit) is not None:
        raise UnitError(
            f"the spectra are surface brightnesses, in {spectra.unit}; a magnitude needs a flux",
            source=spectra.meta.get("path"),
            field="unit",
            remedy="multiply them with the area they come from",
        )
    if not spectra.unit.is_equivalent(F_LAMBDA):
        raise UnitError(
            f"the unit {str(spectra.unit) or 'dimensionless'!r} is no flux density per A",
            source=spectra.meta.get("path"),
            field="unit",
            remedy="calibrate the spectra, or say their unit, e.g. '1e-17 erg / (s cm2 AA)'",
        )
    return float(spectra.unit.to(F_LAMBDA))


class _Mean(NamedTuple):
    """Sums over the usable channels of a band: mean, its variance, weight, mean distance; (n,) each."""

    flux: Float
    variance: Float
    weight: Float
    lever: Float


def _measure(
    spectra: Spectra, band: Bandpass, medium: Medium, minimum_coverage: float, beyond: Beyond
) -> tuple[Float, Float, Float]:
    """Flux density in the unit of the spectra, its error, and the covered fraction; NaN where too little is."""
    n = spectra.shape[0]
    lowest, highest = float(spectra.wave[0]), float(spectra.wave[-1])
    axis = band.to_medium(medium).covered_fraction(lowest, highest)
    if axis < minimum_coverage - 1e-9 or axis == 0:
        share = axis * np.ones(n)
        return np.full(n, np.nan), np.full(n, np.nan), share
    plan = plan_band(spectra.wave, medium, band, minimum_coverage=minimum_coverage, beyond=beyond)
    mean = _means(spectra, plan)
    covered = plan.covered * mean.weight
    good = (covered >= minimum_coverage - 1e-9) & (mean.variance > 0)
    flux, variance = mean.flux.copy(), mean.variance.copy()
    shift = np.where(good, plan.target - mean.lever, 0.0)
    if plan.n_windows:
        # With every channel of a covered band there is nothing to correct, not even by rounding.
        for row in np.flatnonzero(np.abs(shift) > ROUNDING * plan.centre):
            flux[row], variance[row] = _moved(spectra, plan, mean, int(row), float(shift[row]), beyond)
    flux[~good] = np.nan
    return flux, np.sqrt(np.where(good, variance, np.nan)), covered


def _means(spectra: Spectra, plan: BandPlan) -> _Mean:
    part = plan.channels
    weights = np.where(spectra.mask[:, part], 0.0, plan.weights[part])
    total = weights.sum(axis=1)
    weights /= np.where(total > 0, total, 1.0)[:, np.newaxis]
    data = np.where(weights > 0, spectra.data[:, part], 0.0)
    bands = None if spectra.correlation is None else lag_bands(spectra.correlation, spectra.wave.size)[part]
    variance = weighted_sum_variance(spectra.variance[:, part], weights, bands)
    for mode in spectra.modes:
        pattern = np.broadcast_to(np.asarray(mode.map, dtype=np.float64), spectra.shape)[:, part]
        variance = (
            variance + (np.sum(np.where(weights > 0, pattern, 0.0) * weights, axis=1) * mode.sigma) ** 2
        )
    return _Mean(np.sum(weights * data, axis=1), variance, total, weights @ plan.distances[part])


def _moved(
    spectra: Spectra, plan: BandPlan, mean: _Mean, row: int, shift: float, beyond: Beyond
) -> tuple[float, float]:
    """Move the mean of one spectrum to where that of the whole band would be; its variance with what is not known."""
    steepest = STEEPEST / plan.centre
    flux, variance = mean.flux[row : row + 1], mean.variance[row : row + 1]
    windows = _windows(spectra, plan, row) / np.array([1.0, 1.0, 1.0, 1.0, mean.weight[row]])[:, np.newaxis]
    colours = measure_colours(
        flux,
        np.array([True]),
        windows,
        inflation=long_sum_inflation(spectra.correlation),
        steepest=steepest,
    )
    # A single spectrum has no field to tell the scatter of slopes: it is that among all spectra.
    spread = np.square(steepest * np.maximum(flux, 0.0))
    own = np.zeros(1)
    np.divide(spread, spread + colours.variance, out=own, where=colours.variance > 0)
    colours = colours._replace(own=own, scatter=steepest)
    moved, total = move_means(flux, variance, np.array([shift]), colours)
    if plan.partial and beyond != "none":
        parts = [plan.spread * colours.curve * flux[0], (1.0 - plan.covered) * colours.structure * flux[0]]
        if beyond == "constant":
            parts.append((plan.other - plan.target) * float(own[0] * colours.slope[0]))
        total = total + np.sum(np.square(parts))
    return float(moved[0]), float(total[0])


def _windows(spectra: Spectra, plan: BandPlan, row: int) -> Float:
    """Sums of one spectrum in the windows of the colour, (k, 5, 1); see `measure_colours`."""
    used = np.flatnonzero((plan.parts >= 0) & ~spectra.mask[row])
    parts, variance = plan.parts[used], spectra.variance[row, used].astype(np.float64)
    sums = [
        np.bincount(parts, weights=values, minlength=plan.n_windows)
        for values in (
            spectra.data[row, used].astype(np.float64),
            np.ones(used.size),
            variance,
            plan.distances[used],
            variance * plan.weights[used],
        )
    ]
    return np.asarray(np.stack(sums, axis=1)[:, :, np.newaxis])
