"""Lines of known truth in noise: means, pulls and coverage of fluxes, velocities and dispersions."""

from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.lines import SPEED_OF_LIGHT, mock_spectra

from skyloom.core.linelist import Line, LineList, default_lines
from skyloom.spectral.lines.linefit import fit_lines

WAVE = 6480 + 1.25 * np.arange(180)
LSF = 1.1
N = 2500
VELOCITY, SIGMA = 40.0, 60.0
GROUP = LineList(
    tuple(
        Line(line.key, line.rest_vacuum, line.species, line.kind, "gas", line.tied, line.bounds)
        for line in (default_lines()[key] for key in ("NII6548", "Halpha", "NII6583"))
    )
)
OBSERVED = float(np.hypot(SIGMA, LSF / 6562.8 * SPEED_OF_LIGHT))


def flux_of(amplitude: float) -> float:
    """Flux of an Halpha line whose peak is ``amplitude`` times the noise of a channel."""
    return amplitude * np.sqrt(2 * np.pi) * OBSERVED / SPEED_OF_LIGHT * 6562.8


def fitted(amplitude: float, seed: int, **options: object) -> tuple[dict[str, tuple[np.ndarray, ...]], float]:
    flux = flux_of(amplitude)
    lines = {"Halpha": flux, "NII6583": 0.5 * flux, "NII6548": 0.5 * 0.3279 * flux}
    lags = options.pop("lags", None)
    spectra = mock_spectra(
        WAVE, GROUP, lines, n=N, rng=np.random.default_rng(seed), velocity=VELOCITY, sigma=SIGMA, lsf=LSF, lags=lags
    )  # fmt: skip
    table = fit_lines(spectra, GROUP, **options).table
    truth = {
        "Halpha_flux": flux, "NII6583_flux": 0.5 * flux, "Halpha_velocity": VELOCITY,
        "Halpha_sigma_observed": OBSERVED,
    }  # fmt: skip
    assert not any(np.any(table[f"{line.key}_flux"].value == 0) for line in GROUP)
    numbers = {}
    for name, true in truth.items():
        ends = [table[f"{name}_{end}"].value - true for end in ("lower", "upper") if options]
        numbers[name] = (table[name].value - true, table[f"{name}_err"].value, *ends)
    return numbers, flux


def coverage(off: np.ndarray, error: np.ndarray, *_: np.ndarray) -> float:
    return float(np.mean(np.abs(off / error)[np.isfinite(error)] < 1))


@pytest.mark.parametrize(("amplitude", "bias"), [(3.0, 0.03), (5.0, 0.01), (10.0, 0.01), (30.0, 0.01)])
def test_fluxes_are_unbiased(amplitude: float, bias: float) -> None:
    numbers, flux = fitted(amplitude, seed=11)
    off = numbers["Halpha_flux"][0]
    assert abs(off.mean()) < bias * flux
    # The doublet has half the amplitude, and the kinematics of the group.
    if amplitude > 3:
        off = numbers["NII6583_flux"][0]
        assert abs(off.mean()) < 2 * bias * flux * 0.5


@pytest.mark.parametrize("amplitude", [5.0, 10.0, 30.0])
def test_pulls_of_fluxes(amplitude: float) -> None:
    numbers, _ = fitted(amplitude, seed=12)
    for name in ("Halpha_flux", "NII6583_flux"):
        off, error = numbers[name]
        assert np.std(off / error) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("amplitude", [10.0, 30.0])
def test_pulls_of_velocities_and_dispersions(amplitude: float) -> None:
    numbers, _ = fitted(amplitude, seed=13)
    for name in ("Halpha_velocity", "Halpha_sigma_observed"):
        off, error = numbers[name]
        assert np.std(off / error) == pytest.approx(1.0, abs=0.05)
    assert abs(numbers["Halpha_sigma_observed"][0].mean()) < 0.5
    assert abs(numbers["Halpha_velocity"][0].mean()) < 3 * numbers["Halpha_velocity"][0].std() / np.sqrt(N)


def test_faint_lines_have_intervals_of_the_coverage_they_claim() -> None:
    numbers, _ = fitted(5.0, seed=14)
    for name in ("Halpha_velocity", "Halpha_sigma_observed", "Halpha_flux"):
        assert 0.65 < coverage(*numbers[name]) < 0.72
    numbers, _ = fitted(3.0, seed=15)
    # A line of 4 standard deviations: 10 % of the spectra show none, and fluxes there come with velocity 0. Those
    # that do show it have it at a peak of the noise more often than at a trough. Both cost up to 0.05 of coverage.
    for name in ("Halpha_velocity", "Halpha_sigma_observed", "Halpha_flux"):
        assert 0.61 < coverage(*numbers[name]) < 0.72


def test_profile_intervals_cover_at_low_amplitude() -> None:
    numbers, _ = fitted(5.0, seed=16, intervals="profile")
    for name in numbers:
        _, _, lower, upper = numbers[name]
        assert 0.64 < np.mean((lower < 0) & (upper > 0)) < 0.72
        assert np.all((lower < upper)[np.isfinite(lower)])


def test_pulls_with_correlated_channels() -> None:
    numbers, _ = fitted(20.0, seed=17, lags=np.array([0.4, 1.0, 0.4]))
    for name in numbers:
        off, error = numbers[name]
        assert np.std(off / error) == pytest.approx(1.0, abs=0.05)


def test_fluxes_of_lines_that_are_not_there_are_zero_on_average_and_never_exactly() -> None:
    spectra = mock_spectra(WAVE, GROUP, {}, n=4000, rng=np.random.default_rng(18), lsf=LSF)
    table = fit_lines(spectra, GROUP).table
    for key in ("Halpha", "NII6583"):
        pull = (table[f"{key}_flux"] / table[f"{key}_flux_err"]).value
        assert abs(pull.mean()) < 3 / np.sqrt(pull.size)
        # 1 in 100 spectra has a peak that passes for a line, chosen from many velocities.
        assert pull.std() == pytest.approx(1.0, abs=0.05)
        assert np.all(pull != 0)
        assert np.mean(table[f"{key}_upper_limit"].value > 0) == 1.0
