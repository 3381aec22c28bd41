"""Line fits: flags, groups, components, intervals, equivalent widths, and input that cannot be fitted."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.line_fit import LineFit, LineFlag
from skyloom.core.linelist import Line, LineList, default_lines
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError, ShapeError
from skyloom.spectral.lines.groups import PRESETS, lines_named, regroup
from skyloom.spectral.lines.linefit import fit_lines
from tests.oracles.lines import mock_spectra

WAVE = 6440 + 1.25 * np.arange(260)
KEYS = ("NII6548", "Halpha", "NII6583")
LINES = default_lines().select(KEYS)
RATIO = 0.3279
FLUXES = {"Halpha": 300.0, "NII6583": 100.0, "NII6548": 100.0 * RATIO}


def halpha(n: int = 20, *, seed: int = 1, noise: float = 1.0, **options: object) -> Spectra:
    return mock_spectra(WAVE, LINES, FLUXES, n=n, rng=np.random.default_rng(seed), noise=noise, **options)


def added(first: Spectra, scale: float, velocity: float, sigma: float) -> Spectra:
    """Put another component into every spectrum."""
    more = mock_spectra(
        WAVE, LINES, {key: scale * flux for key, flux in FLUXES.items()}, n=1, rng=np.random.default_rng(0),
        velocity=velocity, sigma=sigma, noise=1e-3, level=0.0,
    )  # fmt: skip
    return first.evolve(data=first.data + more.data)


def masked(spectra: Spectra, row: int, low: float, high: float) -> Spectra:
    mask = spectra.mask.copy()
    mask[row, (spectra.wave > low) & (spectra.wave < high)] = True
    return spectra.evolve(mask=mask)


def flags(fit: LineFit, key: str, row: int = 0) -> LineFlag:
    return LineFlag(int(fit.flags(key)[row]))


def test_a_clean_line_has_no_flag_and_its_partner_is_tied() -> None:
    fit = fit_lines(halpha(), LINES)
    assert flags(fit, "Halpha") == LineFlag(0)
    assert flags(fit, "NII6583") == LineFlag(0)
    assert flags(fit, "NII6548") == LineFlag.TIED
    assert fit.table["flag"][0] == 0


def test_a_dead_spectrum_is_flagged_and_the_others_are_as_they_were() -> None:
    spectra = halpha(4)
    mask = spectra.mask.copy()
    mask[1] = True
    data = spectra.data.copy()
    data[1] = np.nan
    fit = fit_lines(spectra.evolve(data=data, mask=mask), LINES)
    alone = fit_lines(spectra, LINES)
    assert flags(fit, "Halpha", 1) == LineFlag.NOT_COVERED
    assert fit.table["flag"][1] == LineFlag.NOT_COVERED
    assert fit.table["n_components"][1] == 0
    for name in fit.table.colnames:
        if "Halpha" in name and not name.endswith("flag"):
            assert np.isnan(fit.table[name][1]), name
    for row in (0, 2, 3):
        assert fit.table["Halpha_flux"][row] == alone.table["Halpha_flux"][row]


def test_a_masked_core_and_a_line_beyond_the_edge_are_not_covered() -> None:
    spectra = masked(halpha(2), 0, 6557, 6570)
    fit = fit_lines(spectra, LINES)
    assert flags(fit, "Halpha", 0) == LineFlag.NOT_COVERED
    assert np.isnan(fit.table["Halpha_flux"][0])
    assert flags(fit, "Halpha", 1) == LineFlag(0)
    # The lines beside it are measured without it.
    assert np.isfinite(fit.table["NII6583_flux"][0])
    near = halpha(1, lsf=3.0)
    cut = Spectra(
        near.data[:, :100], near.variance[:, :100], near.mask[:, :100], near.unit, WAVE[:100], "air", lsf=3.0
    )
    edge = fit_lines(cut, LINES, 0.00013)
    assert flags(edge, "Halpha", 0) == LineFlag.NOT_COVERED


def test_some_rows_off_the_axis_are_flagged_and_none_on_it_is_an_error() -> None:
    fit = fit_lines(halpha(3), LINES, np.array([0.0, 0.5, 0.0]))
    assert flags(fit, "Halpha", 1) == LineFlag.NOT_COVERED
    assert flags(fit, "Halpha", 2) == LineFlag(0)
    with pytest.raises(InputError, match="none of the 3 lines falls on the axis"):
        fit_lines(halpha(2), LINES, 7.0)


def test_negative_continuum_and_faint_lines_have_signed_values() -> None:
    rng = np.random.default_rng(3)
    spectra = mock_spectra(WAVE, LINES, {"Halpha": 2.0}, n=100, rng=rng, level=-4.0)
    fit = fit_lines(spectra, LINES)
    flux = fit.table["Halpha_flux"].value
    assert np.any(flux < 0)
    assert flags(fit, "Halpha") & (LineFlag.FAINT | LineFlag.NO_CONTINUUM)
    assert np.all(fit.table["Halpha_upper_limit"].value > np.maximum(flux, 0))


def test_faint_sets_borrow_kinematics_and_say_so() -> None:
    rng = np.random.default_rng(4)
    spectra = mock_spectra(WAVE, LINES, {"Halpha": 300.0}, n=10, rng=rng, velocity=120.0)
    fit = fit_lines(spectra, LINES)
    table = fit.table
    borrowed = [row for row in range(10) if flags(fit, "NII6583", row) & LineFlag.BORROWED]
    assert len(borrowed) >= 8
    row = borrowed[0]
    assert table["NII6583_velocity"][row] == table["Halpha_velocity"][row]
    assert table["NII6583_velocity"][row].value == pytest.approx(120, abs=5)


def test_kinematics_at_the_limits_are_flagged() -> None:
    fit = fit_lines(halpha(2, velocity=300.0), LINES, velocity_range=200.0)
    assert flags(fit, "Halpha") & LineFlag.AT_BOUND
    assert fit.table["flag"][0] & LineFlag.AT_BOUND


def test_unresolved_lines_are_flagged_and_the_intrinsic_dispersion_is_never_negative() -> None:
    fit = fit_lines(halpha(20, sigma=1.0), LINES)
    assert all(flags(fit, "Halpha", row) & LineFlag.UNRESOLVED for row in range(20))
    sigma, error = fit.table["Halpha_sigma"].value, fit.table["Halpha_sigma_err"].value
    assert np.all(sigma >= 0)
    assert np.all((error > 0) & np.isfinite(error))


def test_steps_that_run_out_are_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyloom.spectral.lines.runs.STEPS", 1)
    fit = fit_lines(halpha(2), LINES)
    assert flags(fit, "Halpha") & LineFlag.NOT_CONVERGED


def test_equivalent_widths_are_in_the_rest_frame_and_positive_in_emission() -> None:
    spectra = halpha(200, level=20.0, noise=0.5)
    table = fit_lines(spectra, LINES).table
    width, error = table["Halpha_ew"].value, table["Halpha_ew_err"].value
    assert width.mean() == pytest.approx(300 / 20, rel=0.003)
    assert np.std((width - 15) / error) == pytest.approx(1.0, abs=3 / np.sqrt(400))
    redder = mock_spectra(
        6440 * 1.1 + 1.25 * np.arange(320), LINES, FLUXES, n=1, rng=np.random.default_rng(0), level=20.0, noise=0.01,
        redshift=0.1, lsf=1.2,
    )  # fmt: skip
    assert fit_lines(redder, LINES, 0.1).table["Halpha_ew"][0].value == pytest.approx(15 / 1.1, rel=1e-3)


def test_direct_fluxes_agree_with_fitted_ones_and_have_their_own_errors() -> None:
    table = fit_lines(halpha(300, noise=2.0), LINES).table
    direct, error = table["Halpha_flux_direct"].value, table["Halpha_flux_direct_err"].value
    # Three standard deviations on either side hold 99.73 % of a line.
    assert direct.mean() == pytest.approx(300 * 0.9973, rel=0.01)
    assert np.std(direct) == pytest.approx(np.median(error), rel=0.2)


def test_models_add_up_to_the_data() -> None:
    spectra = masked(halpha(1, noise=0.01), 0, 6561, 6563)
    fit = fit_lines(spectra, LINES)
    segment = fit.baseline[0] != 0
    assert segment.sum() > 60
    both = (fit.model + fit.baseline)[0, segment]
    np.testing.assert_allclose(both, spectra.data[0, segment], atol=0.15)


def test_presets_names_and_unknown_keys() -> None:
    assert lines_named("balmer").keys == ("Hbeta", "NII6548", "Halpha", "NII6583")
    for name in PRESETS:
        assert len(lines_named(name)) >= 2
    assert lines_named(["Halpha"]).keys == ("Halpha",)
    with pytest.raises(InputError, match="Halpha"):
        fit_lines(halpha(1), ["Halfa"])


def test_groups_can_be_shared_or_given() -> None:
    spectra = halpha(3)
    apart = fit_lines(spectra, LINES).table
    assert apart["NII6583_velocity"][0] != apart["Halpha_velocity"][0]
    shared = fit_lines(spectra, LINES, groups="shared").table
    assert shared["NII6583_velocity"][0] == shared["Halpha_velocity"][0]
    given = fit_lines(spectra, LINES, groups={"hydrogen": "one", "low": "one"}).table
    assert given["Halpha_velocity"][0].value == pytest.approx(shared["Halpha_velocity"][0].value, abs=1e-9)
    with pytest.raises(InputError, match="'shared'"):
        fit_lines(spectra, LINES, groups="all")
    with pytest.raises(InputError, match="neither a line nor a group"):
        regroup(LINES, {"Hzeta": "one"})


def test_impossible_options_are_named() -> None:
    spectra = halpha(1)
    for options, message in (
        ({"components": 4}, "components is 4"), ({"intervals": "bayes"}, "intervals is 'bayes'"),
        ({"broad": True, "components": 2}, "a broad component with"), ({"window": -1.0}, "window=-1.0"),
        ({"sigma_range": (100.0, 50.0)}, "sigma_range"), ({"velocity_range": 0.0}, "velocity_range"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            fit_lines(spectra, LINES, **options)
    with pytest.raises(InputError, match="line-spread function"):
        fit_lines(spectra.evolve(lsf=None), LINES)
    with pytest.raises(InputError, match="redshifts run from"):
        fit_lines(spectra, LINES, np.nan)
    for options in ({"velocity": np.zeros(3)}, {"continuum": np.zeros((1, 3))}, {"redshift": np.zeros(3)}):
        with pytest.raises(ShapeError):
            fit_lines(spectra, LINES, **options)
    with pytest.raises(InputError, match="tied to a line of another group"):
        fit_lines(spectra, LineList((LINES["Halpha"], Line("b", 6500.0, tied=("Halpha", 0.1)))))


def test_threads_make_no_difference() -> None:
    spectra = halpha(150)
    one, two = fit_lines(spectra, LINES, threads=1), fit_lines(spectra, LINES, threads=2)
    for name in one.table.colnames:
        np.testing.assert_array_equal(np.asarray(one.table[name]), np.asarray(two.table[name]))


def test_criterion_chooses_the_number_of_components() -> None:
    for spectra, count in (
        (halpha(40, noise=2.0), 1),
        (added(halpha(40, noise=2.0), 0.7, 230.0, 60.0), 2),
        (added(added(halpha(40, noise=1.0), 0.7, 230.0, 60.0), 1.0, -250.0, 60.0), 3),
    ):
        fit = fit_lines(spectra, LINES, components="bic")
        assert np.mean(fit.table["n_components"] == count) >= 0.9, count
        total = 300 * (1 + 0.7 * (count > 1) + 1.0 * (count > 2))
        right = fit.table["n_components"] == count
        pull = ((fit.table["Halpha_flux"].value - total) / fit.table["Halpha_flux_err"].value)[right]
        assert abs(pull.mean()) < 3 / np.sqrt(pull.size) + 0.25
        assert 0.7 < pull.std() < 1.35
        assert np.median(fit.table["chi2_dof"]) == pytest.approx(1.0, abs=0.12)


def test_components_come_in_order_of_dispersion_with_numbers_of_their_own() -> None:
    spectra = added(halpha(40, noise=1.0), 0.8, 30.0, 300.0)
    table = fit_lines(spectra, LINES, components=2).table
    two = table["n_components"] == 2
    assert two.mean() > 0.9
    narrow, wide = table["Halpha_sigma_1"].value[two], table["Halpha_sigma_2"].value[two]
    assert np.median(narrow) == pytest.approx(60, abs=5)
    assert np.median(wide) == pytest.approx(300, abs=30)
    assert np.median(table["Halpha_flux_1"].value[two]) == pytest.approx(300, rel=0.05)
    sums = (table["Halpha_flux_1"] + table["Halpha_flux_2"])[two]
    np.testing.assert_allclose(sums.value, table["Halpha_flux"].value[two], rtol=0.02)
    # The parts are known less well than their sum, because each can give to the other.
    assert np.all(table["Halpha_flux_err_1"][two] > 0.8 * table["Halpha_flux_err"][two])
    assert np.all(np.isfinite(table["bic_1"]) & np.isfinite(table["bic_2"]))


def test_broad_lines_are_separate_and_an_upper_limit_where_there_is_none() -> None:
    plain = fit_lines(halpha(40), LINES, broad=["Halpha"])
    assert np.mean((plain.flags("Bl_Halpha") & LineFlag.REJECTED) > 0) >= 0.95
    none = (plain.flags("Bl_Halpha") & LineFlag.REJECTED) > 0
    assert np.all(np.isnan(plain.table["Bl_Halpha_flux"][none]))
    assert np.all(plain.table["Bl_Halpha_upper_limit"][none] > 0)
    wide = mock_spectra(
        WAVE, LINES, {"Halpha": 600.0}, n=1, rng=np.random.default_rng(0), sigma=700.0, noise=1e-3, level=0.0
    )
    spectra = halpha(40)
    found = fit_lines(spectra.evolve(data=spectra.data + wide.data), LINES, broad=True, window=3500.0)
    taken = (found.flags("Bl_Halpha") & LineFlag.REJECTED) == 0
    assert taken.mean() > 0.9
    pull = ((found.table["Bl_Halpha_flux"].value - 600) / found.table["Bl_Halpha_flux_err"].value)[taken]
    assert abs(pull.mean()) < 3 / np.sqrt(pull.size) + 0.1
    assert np.median(found.table["Bl_Halpha_sigma"].value[taken]) == pytest.approx(700, rel=0.1)
    assert np.median(found.table["Halpha_flux"].value[taken]) == pytest.approx(300, rel=0.03)
    assert "Bl_Halpha" in found.lines


def test_profile_and_montecarlo_intervals_agree_with_errors_for_strong_lines() -> None:
    spectra = halpha(6, noise=1.0)
    table = {kind: fit_lines(spectra, LINES, intervals=kind).table for kind in ("profile", "montecarlo")}
    for kind, tolerance in (("profile", 0.05), ("montecarlo", 0.25)):
        for name in ("Halpha_flux", "Halpha_velocity", "Halpha_sigma_observed", "NII6583_flux"):
            width = (table[kind][f"{name}_upper"] - table[kind][f"{name}_lower"]).value / 2
            np.testing.assert_allclose(width, table[kind][f"{name}_err"].value, rtol=tolerance)
    again = fit_lines(spectra, LINES, intervals="montecarlo").table
    assert np.all(again["Halpha_flux_lower"] == table["montecarlo"]["Halpha_flux_lower"])
    other = fit_lines(spectra, LINES, intervals="montecarlo", seed=1).table
    assert np.all(other["Halpha_flux_lower"] != table["montecarlo"]["Halpha_flux_lower"])


def test_montecarlo_draws_have_the_correlation_between_channels() -> None:
    lags = np.array([0.5, 1.0, 0.5])
    spectra = halpha(4, noise=1.0, lags=lags)
    table = fit_lines(spectra, LINES, intervals="montecarlo", n_draws=300).table
    width = (table["Halpha_flux_upper"] - table["Halpha_flux_lower"]).value / 2
    np.testing.assert_allclose(width, table["Halpha_flux_err"].value, rtol=0.2)


def test_a_given_first_guess_replaces_the_search() -> None:
    spectra = halpha(2, velocity=500.0)
    near = fit_lines(spectra, LINES, velocity=np.array([480.0, 480.0])).table
    assert near["Halpha_velocity"].value == pytest.approx([500, 500], abs=5)
