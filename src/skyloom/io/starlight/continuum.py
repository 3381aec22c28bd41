"""From results of STARLIGHT to a `ContinuumFit` on the grid of the spectra they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.continuum import ContinuumFit, ContinuumFlag
from skyloom.core.linelist import Medium, check_medium, convert_medium
from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra
from skyloom.core.templates import FWHM_PER_SIGMA, TemplateLibrary
from skyloom.errors import InputError, ShapeError
from skyloom.io.starlight.outputs import CLIPPED, StarlightOutput, read_output

__all__ = ["read_starlight_continuum", "starlight_continuum"]

Float = NDArray[np.float64]
SPEED_OF_LIGHT = 299792.458  # km/s
SOLAR_Z = 0.02
FRACTION_CLIPPED = 0.05
# Of the median flux: how far the spectrum in a result may be from that of its row; the file has 5 digits.
SAME_SPECTRUM, SAME_LEVEL = 0.01, 0.1


def read_starlight_continuum(paths: Sequence[str | Path], spectra: Spectra, **options: Any) -> ContinuumFit:
    """Read one result per spectrum; the options are those of `starlight_continuum`."""
    return starlight_continuum([read_output(path) for path in paths], spectra, **options)


def starlight_continuum(
    outputs: Sequence[StarlightOutput],
    spectra: Spectra,
    *,
    redshift: float | ArrayLike = 0.0,
    templates: TemplateLibrary | None = None,
    medium: Medium = "air",
    solar_metallicity: float = SOLAR_Z,
) -> ContinuumFit:
    """Turn results of STARLIGHT into continua on the grid of spectra.

    Parameters
    ----------
    outputs : sequence of StarlightOutput
        One per spectrum, in their order.
    spectra : Spectra
        Those that STARLIGHT fitted, or the same ones on their native pixels, at rest or as observed.
    redshift : float or (n,) array
        Of the objects, 0 for spectra in the rest frame.
    templates : TemplateLibrary, optional
        The base, of `skyloom.io.templates.ssp_readers.read_starlight_base`; its width is needed for the dispersion.
    medium : {"air", "vacuum"}
        What the wavelengths of the results are measured in, that of the base.
    solar_metallicity : float
        Z of the Sun, for [M/H].

    Returns
    -------
    ContinuumFit
        ``weights`` and ``light_fractions`` are the light at STARLIGHT's normalisation wavelength, ``mass_fractions``
        those of the mass formed. A result that is aborted, missing, of another base or of another spectrum is flagged
        ``FAILED``, with its reason. ``meta["starlight"]`` has STARLIGHT's own numbers for each spectrum.

    Raises
    ------
    ShapeError
        When there is not one output per spectrum.
    InputError
        When the templates are not the base of the results.

    Notes
    -----
    STARLIGHT gives no errors. ``variance`` is the noise times the mean leverage of a channel, free parameters over
    channels fitted (and times chi square where it is above 1): right on average, too small where few channels decide.
    Errors of velocity, dispersion and A_V are NaN. STARLIGHT's dispersion is the broadening of the base; the stars'
    is ``sigma^2 = vd^2 + s_base^2 - s_lsf^2``, medians over the spectrum in km/s, NaN where either is not known.
    """
    if len(outputs) != spectra.shape[0]:
        raise ShapeError(f"{len(outputs)} results for {spectra.shape[0]} spectra", field="outputs")
    check_medium(medium, "results of STARLIGHT")
    reference = next((output for output in outputs if output.ok), None)
    age, metallicity = _base(reference, templates, solar_metallicity)
    shift = np.broadcast_to(np.asarray(redshift, dtype=np.float64), len(outputs))
    results = _Rows(spectra, age.size)
    for row, output in enumerate(outputs):
        wave = _rest_wave(spectra, float(shift[row]), medium)
        problem = "" if output.ok else f"{output.status}: {output.reason}"
        problem = (
            problem or _other_base(output, age) or _other_spectrum(output, spectra, row, wave, 1 + shift[row])
        )
        if problem:
            results.fail(row, problem)
        else:
            results.fill(row, output, wave, 1 + shift[row], _width(spectra, row, wave, templates))
    own = {
        name: [output.values.get(name, np.nan) for output in outputs]
        for name in ("velocity", "dispersion", "adev", "chi2", "flux_norm", "mass_initial", "mass_current")
    }
    made = step("starlight_continuum", medium=medium, n_failed=int(np.count_nonzero(~results.done)))
    name = (
        templates.name if templates is not None else reference.tags.get("arq_base", "") if reference else ""
    )
    return ContinuumFit(
        results.model, results.variance, spectra.unit, spectra.wave, spectra.medium, shift.copy(),
        results.light * 100.0, results.velocity, _nan(results.velocity), results.sigma, _nan(results.sigma),
        results.av, _nan(results.av), results.chi2, results.snr, results.flags, tuple(results.reasons), age,
        metallicity, name, "starlight", None, "light", results.light if age.size else None,
        results.mass if age.size else None, results.n_used, {**spectra.meta, "starlight": own},
        (*spectra.history, made),
    )  # fmt: skip


def _nan(values: Float) -> Float:
    return np.full_like(values, np.nan)


def _base(
    reference: StarlightOutput | None, templates: TemplateLibrary | None, solar_metallicity: float
) -> tuple[Float, Float]:
    """Return ages (Gyr) and [M/H] of the components."""
    if reference is None or reference.population is None:
        if templates is None:
            return np.zeros(0), np.zeros(0)
        return templates.age, templates.metallicity
    age = reference.population["age"].to_value("Gyr")
    metallicity = np.log10(
        np.asarray(reference.population["metallicity"], dtype=np.float64) / solar_metallicity
    )
    if templates is not None and (
        len(templates) != age.size or not np.allclose(templates.age, age, rtol=0.02)
    ):
        raise InputError(
            f"the templates {templates.name!r} ({len(templates)}) are not the base of the results ({age.size}, "
            f"{reference.tags.get('arq_base', 'unknown')})",
            source=reference.path,
            field="templates",
            remedy="give the base list that STARLIGHT was run with",
        )
    return np.asarray(age, dtype=np.float64), metallicity


def _other_base(output: StarlightOutput, age: Float) -> str:
    population = output.population
    if population is None:
        return "no population vector"
    found = population["age"].to_value("Gyr")
    if found.shape != age.shape or not np.allclose(found, age, rtol=1e-3):
        return f"its base has {found.size} populations that are not those of the first result"
    return ""


def _other_spectrum(output: StarlightOutput, spectra: Spectra, row: int, wave: Float, stretch: float) -> str:
    """Return why a result cannot belong to a spectrum: mixed-up files look like good fits."""
    good = spectra.valid[row] & (wave >= output.wave[0]) & (wave <= output.wave[-1])
    known = np.isfinite(output.observed)
    if not good.any() or not known.any():
        return "the result and the spectrum have no wavelengths in common"
    data = spectra.data[row, good].astype(np.float64) * stretch
    found = np.interp(wave[good], output.wave[known], output.observed[known])
    level = float(np.median(np.abs(data)))
    nearest = np.searchsorted(output.wave, wave[good]).clip(0, output.wave.size - 1)
    if np.all(np.abs(output.wave[nearest] - wave[good]) < 1e-3):
        different = float(np.median(np.abs(found - data))) > SAME_SPECTRUM * level
    else:
        different = abs(float(np.median(found) - np.median(data))) > SAME_LEVEL * level
    return "the result is of another spectrum: its observed flux differs" if different else ""


def _rest_wave(spectra: Spectra, redshift: float, medium: Medium) -> Float:
    """Return the wavelengths of the spectra as STARLIGHT has them: at rest, in its medium."""
    before = 1.0 + float(spectra.meta.get("redshift_applied", 0.0))
    # Air has its index at the wavelength that was observed.
    observed = convert_medium(spectra.wave * before, spectra.medium, medium)  # type: ignore[arg-type]
    return observed / (before * (1.0 + redshift))


def _width(spectra: Spectra, row: int, wave: Float, templates: TemplateLibrary | None) -> float:
    """Return the squared width (km/s) of the spectrograph less that of the templates; NaN where not known."""
    if templates is None or spectra.lsf is None:
        return np.nan
    lsf = np.asarray(spectra.lsf, dtype=np.float64)
    lsf = np.broadcast_to(lsf[row] if lsf.ndim == 2 else lsf, spectra.wave.shape)
    base = np.interp(wave, templates.wave, np.asarray(templates.fwhm)) / FWHM_PER_SIGMA
    squares = (lsf / spectra.wave) ** 2 - (base / wave) ** 2
    inside = np.isfinite(squares) & (wave >= templates.wave[0]) & (wave <= templates.wave[-1])
    return SPEED_OF_LIGHT**2 * float(np.median(squares[inside])) if inside.any() else np.nan


class _Rows:
    """Arrays of a `ContinuumFit`, filled row by row; what is never filled stays NaN."""

    def __init__(self, spectra: Spectra, n_templates: int) -> None:
        n, n_wave = spectra.shape
        self.spectra = spectra
        self.done = np.zeros(n, dtype=bool)
        self.model, self.variance = (np.full((n, n_wave), np.nan, dtype=spectra.data.dtype) for _ in range(2))
        self.light, self.mass = (np.full((n, n_templates), np.nan) for _ in range(2))
        self.velocity, self.sigma, self.av, self.chi2, self.snr = (np.full(n, np.nan) for _ in range(5))
        self.flags, self.n_used = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.reasons = [""] * n

    def fail(self, row: int, reason: str) -> None:
        self.flags[row] = int(ContinuumFlag.FAILED)
        self.reasons[row] = reason

    def fill(self, row: int, output: StarlightOutput, wave: Float, stretch: float, width: float) -> None:
        from scipy.interpolate import CubicSpline  # It takes long to load.

        known = ~output.mask
        if np.count_nonzero(known) < 4:
            self.fail(row, "the synthetic spectrum has no numbers")
            return
        spline = CubicSpline(output.wave[known], output.synthetic[known], extrapolate=False)
        model = spline(wave) / stretch
        # A spline crosses gaps of unknown numbers; nothing is known there.
        gaps = np.interp(wave, output.wave, output.mask.astype(np.float64)) > 0
        model[gaps] = np.nan
        self.model[row] = model
        values, population = output.values, output.population
        fitted = output.weight > 0
        assert population is not None  # a result without one has been refused
        light, mass = (population[name].to_value("percent") for name in ("light", "mass_initial"))
        self.light[row], self.mass[row] = light / light.sum(), mass / mass.sum()
        self.velocity[row], self.av[row], self.chi2[row] = values["velocity"], values["av"], values["chi2"]
        self.n_used[row] = np.count_nonzero(fitted)
        leverage = (np.count_nonzero(light > 0) + 3) / max(int(self.n_used[row]), 1)
        scale = leverage * max(1.0, values["chi2"])
        self.variance[row] = np.where(np.isfinite(model), scale * self.spectra.variance[row], np.nan)
        self._quality(row, output, model)
        square = values["dispersion"] ** 2 - width
        self.sigma[row] = np.sqrt(max(square, 0.0)) if np.isfinite(square) else np.nan
        if square <= 0:
            self._flag(row, ContinuumFlag.UNRESOLVED, "dispersion not above zero")
        self.done[row] = True

    def _quality(self, row: int, output: StarlightOutput, model: Float) -> None:
        spectra = self.spectra
        good = spectra.valid[row] & np.isfinite(model)
        if good.any():
            ratio = spectra.data[row, good] / np.sqrt(spectra.variance[row, good])
            self.snr[row] = float(np.median(ratio))
        if not np.isfinite(model).all():
            self._flag(row, ContinuumFlag.PARTLY_COVERED, "part of the range is beyond the model")
        clipped = np.count_nonzero(output.weight == CLIPPED)
        if clipped > FRACTION_CLIPPED * (clipped + int(self.n_used[row])):
            self._flag(row, ContinuumFlag.MANY_CLIPPED, "many channels clipped")

    def _flag(self, row: int, flag: ContinuumFlag, reason: str) -> None:
        self.flags[row] |= int(flag)
        self.reasons[row] = "; ".join(part for part in (self.reasons[row], reason) if part)
