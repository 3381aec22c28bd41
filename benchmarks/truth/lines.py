"""Fits: lines and stars of known flux, velocity and width in noise, and what the fit says of them."""

from __future__ import annotations

import numpy as np

from benchmarks.truth import Check, Row, recovered
from skyloom.core.linelist import default_lines

WAVE = 6480 + 1.25 * np.arange(180)
LSF, VELOCITY, SIGMA = 1.1, 40.0, 60.0
LIGHT = 299792.458
OBSERVED = float(np.hypot(SIGMA, LSF / 6562.8 * LIGHT))
N = 2500
GOAL = 0.05  # Of the project, for the scatter of pulls.
BIAS = {3: 0.03, 5: 0.01, 10: 0.01, 30: 0.01}  # Of the project, for the flux.


def lines() -> list[Row]:
    """Halpha and [N II] with shared kinematics, from faint to bright."""
    from tests.oracles.lines import mock_spectra

    from skyloom.spectral.lines.linefit import fit_lines

    rows = []
    group = default_lines().select(("NII6548", "Halpha", "NII6583"))
    for amplitude, lags in ((3, None), (5, None), (10, None), (30, None), (20, np.array([0.4, 1.0, 0.4]))):
        flux = amplitude * np.sqrt(2 * np.pi) * OBSERVED / LIGHT * 6562.8
        fluxes = {"Halpha": flux, "NII6583": 0.5 * flux, "NII6548": 0.5 * 0.3279 * flux}
        spectra = mock_spectra(
            WAVE, group, fluxes, n=N, rng=np.random.default_rng(11), velocity=VELOCITY, sigma=SIGMA, lsf=LSF,
            lags=lags,
        )  # fmt: skip
        table = fit_lines(spectra, group, groups="shared").table
        truth = {"flux": flux, "velocity": VELOCITY, "sigma_observed": OBSERVED}
        for name, true in truth.items():
            off = table[f"Halpha_{name}"].value - true
            error = table[f"Halpha_{name}_err"].value
            shift = BIAS.get(amplitude, 0.01) * flux / float(np.nanmedian(error)) if name == "flux" else GOAL
            bias = f"{100 * off.mean() / true:+.2f} %" if name == "flux" else f"{np.nanmean(off):+.2f} km/s"
            told = ", channels correlated" if lags is not None else ""
            what = f"peak over noise {amplitude}{told}: {name.replace('_', ' as ').replace('as observed', 'observed')}"
            with np.errstate(invalid="ignore", divide="ignore"):
                pulls = np.where(error > 0, off / error, np.nan)
            # A faint line has no Gaussian errors; the goal is then what share of the errors reach the truth.
            within = float(np.mean(np.abs(pulls[np.isfinite(pulls)]) < 1))
            note = f"mean offset {bias}; truth within the error {within:.2f} (0.68 is right)"
            rows.append(
                recovered("Spectra: Halpha fitted", what, pulls, tolerance=GOAL, shift=shift, note=note).row()
            )
    return rows


def stars() -> list[Row]:
    """Stellar velocity, dispersion and dust."""
    from tests.inputs.stellar import make_stars, observe, template_library

    from skyloom.spectral.stellar.fit import fit_continuum

    wave = 4750.0 + 1.25 * np.arange(1600)
    true = make_stars(150, wave, rng=np.random.default_rng(1), redshift=0.02)
    spectra = observe(true, wave, 30.0, rng=np.random.default_rng(3), kernel=[1.0, 2.0, 1.0])
    fit = fit_continuum(spectra, template_library(), redshift=0.02)
    rows = []
    for what, found, error, known, unit in (
        ("velocity", fit.velocity, fit.velocity_err, true.velocity, "km/s"),
        ("dispersion", fit.sigma, fit.sigma_err, true.sigma, "km/s"),
        ("A_V", fit.av, fit.av_err, true.av, "mag"),
    ):
        note = f"median offset {np.nanmedian(found - known):+.2f} {unit}"
        pulls = (found - known) / error
        told = f"S/N 30, channels correlated: {what}"
        rows.append(
            recovered("Spectra: stars fitted", told, pulls, tolerance=0.1, shift=0.1, note=note).row()
        )
    return rows


CHECKS: dict[str, Check] = {"line fits": lines, "stellar fits": stars}
