"""What was measured on existing pipelines' line fits, as tests that this one does not share it."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.linelist import default_lines
from skyloom.spectral.lines.linefit import fit_lines
from tests.oracles.lines import SPEED_OF_LIGHT, mock_spectra

WAVE = 4750 + 1.25 * np.arange(3681)
LSF = (5.866e-8 * WAVE**2 - 9.187e-4 * WAVE + 6.040) / 2.3548
RED = 6440 + 1.25 * np.arange(260)
KEYS = ("NII6548", "Halpha", "NII6583")
RATIO = 0.3279


def test_flux_at_amplitude_three_is_not_16_per_cent_low() -> None:
    observed = np.hypot(60, 1.1 / 6562.8 * SPEED_OF_LIGHT) / SPEED_OF_LIGHT * 6562.8
    flux = 3 * np.sqrt(2 * np.pi) * observed
    lines = default_lines().select(KEYS)
    spectra = mock_spectra(
        RED, lines, {"Halpha": flux, "NII6583": 0.5 * flux, "NII6548": 0.5 * RATIO * flux}, n=1500,
        rng=np.random.default_rng(21),
    )  # fmt: skip
    table = fit_lines(spectra, lines, groups="shared").table
    assert table["Halpha_flux"].value.mean() == pytest.approx(flux, rel=0.03)
    pull = (table["Halpha_flux"].value - flux) / table["Halpha_flux_err"].value
    assert pull.std() < 1.14


def test_no_value_is_exactly_zero_when_all_lines_are_fitted_to_one_spectrum() -> None:
    lines = default_lines()
    spectra = mock_spectra(
        WAVE, lines, {"Halpha": 90.0, "OIII5007": 40.0, "Hbeta": 30.0}, n=5, rng=np.random.default_rng(22),
        redshift=0.01, lsf=LSF,
    )  # fmt: skip
    fit = fit_lines(spectra, "default", 0.01)
    assert len(fit.lines) >= 36
    covered = 0
    for line in fit.lines:
        for name in ("flux", "velocity", "ew", "flux_direct", "flux_err", "snr"):
            assert not np.any(fit.table[f"{line.key}_{name}"].value == 0), (line.key, name)
        covered += np.isfinite(fit.table[f"{line.key}_flux"].value).all()
    assert covered >= 0.95 * len(fit.lines)


def test_a_wide_component_does_not_steal_the_flux_of_halpha() -> None:
    lines = default_lines().select(KEYS)
    spectra = mock_spectra(
        RED,
        lines,
        {"Halpha": 100.0, "NII6583": 40.0, "NII6548": 40 * RATIO},
        n=200,
        rng=np.random.default_rng(23),
    )
    plain = fit_lines(spectra, lines, groups="shared").table
    for options in ({"components": "bic"}, {"broad": ["Halpha"], "groups": "shared"}):
        table = fit_lines(spectra, lines, **options).table
        flux, error = table["Halpha_flux"].value, table["Halpha_flux_err"].value
        # Nothing wide is there, so (nearly) nobody takes it, and who does not has the very same flux.
        same = flux == plain["Halpha_flux"].value
        assert same.mean() >= 0.98
        pull = (flux - 100) / error
        assert abs(pull.mean()) < 3 / np.sqrt(200)


def test_ions_of_a_group_share_kinematics_and_doublets_their_ratio() -> None:
    lines = default_lines()
    rng = np.random.default_rng(24)
    fluxes = {
        "OIII5007": 90.0, "OIII4959": 90 * 0.3356, "NII6583": 60.0, "NII6548": 60 * RATIO, "SII6716": 40.0,
        "SII6730": 35.0, "Halpha": 120.0, "Hbeta": 40.0, "OI6300": 20.0, "OI6363": 20 * 0.3226,
    }  # fmt: skip
    spectra = mock_spectra(WAVE, lines, fluxes, n=3, rng=rng, redshift=0.01, lsf=LSF)
    table = fit_lines(spectra, list(fluxes), 0.01).table
    for one, two in (("NII6583", "SII6716"), ("NII6583", "OI6300"), ("Halpha", "Hbeta")):
        for name in ("velocity", "sigma"):
            np.testing.assert_array_equal(table[f"{one}_{name}"].value, table[f"{two}_{name}"].value)
    for faint, strong, ratio in (
        ("OIII4959", "OIII5007", 0.3356), ("NII6548", "NII6583", RATIO), ("OI6363", "OI6300", 0.3226),
    ):  # fmt: skip
        np.testing.assert_allclose(
            table[f"{faint}_flux"].value, ratio * table[f"{strong}_flux"].value, rtol=1e-6
        )


def test_widths_are_those_of_the_lines_and_not_of_channels_or_instrument() -> None:
    lines = default_lines().select(KEYS)
    for step in (1.25, 2.5):
        wave = np.arange(6440, 6760, step)
        spectra = mock_spectra(
            wave, lines, {"Halpha": 900.0, "NII6583": 300.0, "NII6548": 300 * RATIO}, n=100,
            rng=np.random.default_rng(25), sigma=50.0, noise=0.5,
        )  # fmt: skip
        table = fit_lines(spectra, lines).table
        assert np.median(table["Halpha_sigma"].value) == pytest.approx(50, abs=0.5)
