"""The kernels of the line fit against dense least squares with every parameter free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from skyloom.core.linelist import Line, LineList, default_lines
from skyloom.core.spectra import Spectra
from skyloom.kernels.lines.profiles import add_curvature, add_profile, factorise, solve
from skyloom.spectral.lines.linefit import fit_lines
from skyloom.spectral.lines.runs import BEYOND_FLUX, BEYOND_KINEMATICS
from tests.oracles.lines import DenseFit, dense_fit, edges_of, gaussian, mock_spectra

WAVE = 6480 + 1.25 * np.arange(180)
WINDOW = 1500.0
SPEED_OF_LIGHT = 299792.458
RATIO = 0.3279
ONE_GROUP = LineList(
    tuple(
        Line(line.key, line.rest_vacuum, line.species, line.kind, "gas", line.tied, line.bounds)
        for line in (default_lines()[key] for key in ("NII6548", "Halpha", "NII6583"))
    )
)
FLUXES = {"Halpha": 60.0, "NII6583": 30.0, "NII6548": 30.0 * RATIO}


@dataclass
class Continuum:
    """As much of a continuum fit as the line fit looks at."""

    model: np.ndarray
    variance: np.ndarray
    modes: np.ndarray


def halpha_window(medium: str = "air") -> tuple[float, float]:
    rest = ONE_GROUP.wavelengths(medium)
    return rest[0] * (1 - WINDOW / SPEED_OF_LIGHT), rest[-1] * (1 + WINDOW / SPEED_OF_LIGHT)


def free_lines(medium: str = "air") -> list[tuple[float, list[tuple[float, float]]]]:
    rest = {line.key: line.rest(medium) for line in ONE_GROUP}
    return [(60.0, [(rest["Halpha"], 1.0)]), (30.0, [(rest["NII6583"], 1.0), (rest["NII6548"], RATIO)])]


def widened(dense: DenseFit, n_fluxes: int) -> np.ndarray:
    """Errors of the covariance, and what the table puts on top of them."""
    variance = np.diag(dense.covariance).copy()
    corrected = dense.values - dense.bias
    fluxes = slice(2, 2 + n_fluxes)
    beyond = 1 / np.max(corrected[fluxes] / np.sqrt(variance[fluxes])) ** 2
    variance[:2] *= 1 + BEYOND_KINEMATICS * beyond
    return np.asarray(np.sqrt(variance + BEYOND_FLUX * beyond * dense.lent))


def compare(
    spectra: Spectra, row: int, fit: object, *, redshift: float = 0.0, modes: np.ndarray | None = None,
    within: float = 0.01,
) -> None:  # fmt: skip
    """Each number of a row against the dense fit: within 1 % of its error, errors within 1 %."""
    table = fit.table[row]
    dense = dense_fit(
        spectra, row, free_lines(spectra.medium), halpha_window(spectra.medium), (30.0, 3600.0), redshift=redshift,
        modes=modes,
    )  # fmt: skip
    error = widened(dense, 2)
    corrected = dense.values - dense.bias
    assert table["Halpha_velocity"].value == pytest.approx(corrected[0], abs=within * error[0])
    assert table["Halpha_velocity_err"].value == pytest.approx(error[0], rel=0.01)
    observed = table["Halpha_sigma_observed"].value
    # The observed dispersion is corrected for the bend of the root, by 1.5 % where the line is as faint as here.
    assert 2 * observed * table["Halpha_sigma_observed_err"].value == pytest.approx(error[1], rel=0.02)
    for place, key in ((2, "Halpha"), (3, "NII6583")):
        assert table[f"{key}_flux"].value == pytest.approx(corrected[place], abs=within * error[place])
        assert table[f"{key}_flux_err"].value == pytest.approx(error[place], rel=0.01)
    assert table["NII6548_flux"].value == pytest.approx(RATIO * table["NII6583_flux"].value, rel=1e-6)
    assert table["chi2"] == pytest.approx(dense.chi2, rel=1e-4)


@pytest.mark.parametrize("medium", ["air", "vacuum"])
def test_values_errors_and_bias_are_those_of_a_dense_fit(medium: str) -> None:
    spectra = mock_spectra(
        WAVE, ONE_GROUP, FLUXES, n=3, rng=np.random.default_rng(1), medium=medium, noise=2.0
    )
    fit = fit_lines(spectra, ONE_GROUP)
    for row in range(3):
        compare(spectra, row, fit)


def test_correlated_channels_widen_errors_as_the_sandwich_says() -> None:
    spectra = mock_spectra(
        WAVE, ONE_GROUP, FLUXES, n=2, rng=np.random.default_rng(2), lags=np.array([0.5, 1.0, 0.5])
    )
    fit = fit_lines(spectra, ONE_GROUP)
    white = fit_lines(spectra.evolve(correlation=None), ONE_GROUP)
    for row in range(2):
        compare(spectra, row, fit)
        assert fit.table["Halpha_flux_err"][row] > 1.3 * white.table["Halpha_flux_err"][row]


def test_unequal_variances_and_masked_channels() -> None:
    rng = np.random.default_rng(3)
    spectra = mock_spectra(WAVE, ONE_GROUP, FLUXES, n=2, rng=rng)
    variance = rng.uniform(0.5, 2.0, spectra.shape).astype(np.float32)
    mask = rng.random(spectra.shape) < 0.1
    mask[:, 66:70] = False
    spectra = spectra.evolve(variance=variance, mask=mask)
    fit = fit_lines(spectra, ONE_GROUP)
    for row in range(2):
        compare(spectra, row, fit)


def test_rows_have_their_own_widths_and_redshifts() -> None:
    rng = np.random.default_rng(4)
    redshift = np.array([0.0, 0.0009, -0.0007])
    spectra = mock_spectra(WAVE, ONE_GROUP, FLUXES, n=3, rng=rng, redshift=redshift)
    lsf = np.array([1.0, 1.1, 1.2])[:, np.newaxis] * np.linspace(0.95, 1.05, WAVE.size)
    spectra = spectra.evolve(lsf=lsf)
    fit = fit_lines(spectra, ONE_GROUP, redshift)
    for row in range(3):
        compare(spectra, row, fit, redshift=redshift[row])


def test_shared_errors_of_the_continuum_reach_all_errors() -> None:
    rng = np.random.default_rng(5)
    spectra = mock_spectra(WAVE, ONE_GROUP, FLUXES, n=1, rng=rng)
    modes = np.array([np.exp(-0.5 * ((WAVE - 6563) / 6) ** 2), np.sin(WAVE / 5) * 0.5], dtype=np.float32)[
        np.newaxis
    ]
    model = np.full(spectra.shape, 1.0, dtype=np.float32)
    fit = fit_lines(spectra, ONE_GROUP, continuum=Continuum(model, (modes**2).sum(axis=1), modes))
    # The correction of the bias takes the covariance of flux and kinematics from independent noise alone.
    compare(spectra.evolve(data=spectra.data - model), 0, fit, modes=modes[0].astype(float), within=0.04)


def test_a_ratio_beyond_its_bounds_is_held_there() -> None:
    lines = default_lines().select(["SII6716", "SII6730"])
    wave = 6650 + 1.25 * np.arange(140)
    rng = np.random.default_rng(6)
    spectra = mock_spectra(wave, lines, {"SII6716": 100.0, "SII6730": 40.0}, n=1, rng=rng)
    table = fit_lines(spectra, lines).table[0]
    assert table["SII6716_flux"].value == pytest.approx(1.4484 * table["SII6730_flux"].value, rel=1e-6)
    rest = dict(zip(lines.keys, lines.wavelengths("air"), strict=True))
    window = rest["SII6716"] * (1 - WINDOW / SPEED_OF_LIGHT), rest["SII6730"] * (1 + WINDOW / SPEED_OF_LIGHT)
    dense = dense_fit(
        spectra, 0, [(40.0, [(rest["SII6730"], 1.0), (rest["SII6716"], 1.4484)])], window, (30.0, 3600.0)
    )
    error = widened(dense, 1)
    corrected = dense.values - dense.bias
    assert table["SII6730_flux"].value == pytest.approx(corrected[2], abs=0.01 * error[2])
    assert table["SII6730_flux_err"].value == pytest.approx(error[2], rel=0.01)
    assert table["SII6716_flag"] & 32
    assert table["SII6730_flag"] & 32


def test_two_segments_that_share_kinematics_are_two_measurements_of_them() -> None:
    rest = (5000.0, 6000.0)
    lines = LineList(tuple(Line(f"line{i}", value, group="gas") for i, value in enumerate(rest)))
    wave = 4900 + 1.25 * np.arange(960)
    rng = np.random.default_rng(7)
    spectra = mock_spectra(wave, lines, {"line0": 40.0, "line1": 70.0}, n=1, rng=rng, medium="vacuum")
    both = fit_lines(spectra, lines).table[0]
    weights, mean = 0.0, 0.0
    for place, value in enumerate(rest):
        window = value * (1 - WINDOW / SPEED_OF_LIGHT), value * (1 + WINDOW / SPEED_OF_LIGHT)
        # Kinematics far from those of the joint fit change the errors, so each fit starts and stays near.
        dense = dense_fit(spectra, 0, [((40.0, 70.0)[place], [(value, 1.0)])], window, (30.0, 3600.0))
        precision = np.linalg.inv(dense.covariance[:2, :2])
        weights = weights + precision
        mean = mean + precision @ dense.values[:2]
    combined = np.linalg.inv(weights)
    wide = np.sqrt(1 + BEYOND_KINEMATICS / both["line1_snr"].value ** 2)
    assert both["line0_velocity_err"].value == pytest.approx(np.sqrt(combined[0, 0]) * wide, rel=0.05)
    assert both["line0_velocity"].value == pytest.approx(
        (combined @ mean)[0], abs=0.1 * np.sqrt(combined[0, 0])
    )
    assert both["line0_velocity"] == both["line1_velocity"]


def test_profiles_and_their_derivatives() -> None:
    edges = edges_of(WAVE)
    ones, n = np.ones(WAVE.size), WAVE.size
    centre, variance, moving = 6563.3, 2.3, 0.0219

    def profile(velocity: float, q: float) -> np.ndarray:
        return gaussian(edges, centre + moving * velocity, np.sqrt(variance + q * moving**2))

    by_flux, by_velocity, by_variance, mixed, twice = np.zeros((5, n))
    sigma = np.sqrt(variance)
    add_profile(
        edges, ones, 0, n, 0, centre, sigma, 1.0, moving, moving**2, by_flux, by_velocity, by_variance
    )
    add_curvature(edges, ones, 0, n, 0, centre, sigma, 1.0, moving, moving**2, mixed, twice)
    h, k = 1.0, 50.0
    np.testing.assert_allclose(by_flux, profile(0, 0), atol=1e-14)
    np.testing.assert_allclose(by_velocity, (profile(h, 0) - profile(-h, 0)) / (2 * h), atol=2e-7)
    np.testing.assert_allclose(by_variance, (profile(0, k) - profile(0, -k)) / (2 * k), atol=2e-9)
    bend = (profile(h, 0) - 2 * profile(0, 0) + profile(-h, 0)) / h**2
    np.testing.assert_allclose(bend, 2 * by_variance, atol=1e-7)
    cross = (profile(h, k) - profile(h, -k) - profile(-h, k) + profile(-h, -k)) / (4 * h * k)
    np.testing.assert_allclose(mixed, cross, atol=1e-9)
    np.testing.assert_allclose(twice, (profile(0, k) - 2 * profile(0, 0) + profile(0, -k)) / k**2, atol=1e-11)


def test_cholesky_drops_rows_that_depend_on_others() -> None:
    rng = np.random.default_rng(8)
    design = rng.normal(size=(4, 10))
    design[2] = design[0] + design[1]
    matrix = design @ design.T
    factor, right = matrix.copy(), design @ np.arange(10.0)
    factorise(factor, 4)
    assert factor[2, 2] == 0.0
    solve(factor, 4, right)
    kept = [0, 1, 3]
    np.testing.assert_allclose(
        right[kept], np.linalg.solve(matrix[np.ix_(kept, kept)], design[kept] @ np.arange(10.0)), rtol=1e-9
    )
    assert right[2] == 0.0
