"""Dust, density and classes: the published equations at known points, signs and limits, flags."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.line_fit import LineFlag
from skyloom.errors import InputError
from skyloom.spectral.gas.bpt import DIAGRAMS, bpt_classes, kauffmann_2003, kewley_2001, kewley_2006
from skyloom.spectral.gas.density import DENSITY_RATIOS, electron_density
from skyloom.spectral.gas.derived import (
    DerivedFlag,
    balmer_extinction,
    deredden_lines,
    ew_classes,
    line_ratio,
)
from tests.inputs.line import table_of_lines


def lines(snr=50.0, **fluxes):
    values = {key: np.atleast_1d(np.asarray(flux, dtype=float)) for key, flux in fluxes.items()}
    return table_of_lines(values, {key: np.abs(flux) / snr for key, flux in values.items()})


# --- dust ------------------------------------------------------------------------------------------------


def test_no_dust_where_the_ratio_is_the_intrinsic_one():
    table = balmer_extinction(lines(Halpha=[286.0], Hbeta=[100.0]))
    assert abs(table["ebv"][0].to_value(u.mag)) < 1e-12
    assert table["flag"][0] in (0, int(DerivedFlag.NEGATIVE))  # a rounding below zero is below zero


@pytest.mark.parametrize("curve", ["fitzpatrick99", "ccm89", "odonnell94"])
def test_dust_of_a_known_screen_is_found_again(curve):
    from skyloom.core.linelist import default_lines
    from skyloom.spectral.axes.extinction import extinction_curve

    waves = [default_lines()[key].rest_vacuum for key in ("Halpha", "Hbeta")]
    k_alpha, k_beta = 3.1 * extinction_curve(waves, curve, 3.1)
    ebv = np.array([-0.05, 0.0, 0.3, 1.0])
    table = lines(Halpha=286.0 * 10 ** (-0.4 * k_alpha * ebv), Hbeta=100.0 * 10 ** (-0.4 * k_beta * ebv))
    found = balmer_extinction(table, curve=curve)
    np.testing.assert_allclose(found["ebv"].value, ebv, atol=1e-12)
    np.testing.assert_allclose(found["av_halpha"].value, k_alpha * ebv, atol=1e-12)
    clean = deredden_lines(table, ["Halpha", "Hbeta"], curve=curve)
    np.testing.assert_allclose(clean["Halpha_flux"].value, 286.0)
    np.testing.assert_allclose(clean["Hbeta_flux"].value, 100.0)


def test_ccm_gives_the_textbook_coefficient():
    # A(Halpha) = 0.818 A_V and A(Hbeta) = 1.164 A_V for the curve of Cardelli et al. (1989) with R_V = 3.1.
    found = balmer_extinction(lines(Halpha=[2860.0], Hbeta=[100.0]), curve="ccm89")
    assert found["ebv"][0].value == pytest.approx(2.5 / (3.1 * (1.164 - 0.818)), rel=0.005)


def test_negative_extinction_keeps_its_sign_and_says_so():
    table = lines(Halpha=[250.0], Hbeta=[100.0])
    found = balmer_extinction(table)
    assert found["ebv"][0].value < 0
    assert found["flag"][0] & DerivedFlag.NEGATIVE
    assert deredden_lines(table)["Halpha_flux"][0] < table["Halpha_flux"][0]
    kept = deredden_lines(table, negative="zero")
    assert kept["Halpha_flux"][0] == table["Halpha_flux"][0]
    assert kept["Halpha_flux_err"][0] == table["Halpha_flux_err"][0]


def test_fluxes_that_are_not_positive_leave_dust_unknown():
    found = balmer_extinction(lines(Halpha=[-10.0, np.nan, 286.0], Hbeta=[100.0, 100.0, -1.0]))
    assert np.isnan(found["ebv"].value).all()
    assert np.all(found["flag"] & int(DerivedFlag.UNKNOWN))


def test_faint_lines_and_doubtful_fits_are_flagged():
    table = lines(snr=2.0, Halpha=[286.0], Hbeta=[100.0])
    assert balmer_extinction(table)["flag"][0] & DerivedFlag.FAINT
    table["Hbeta_flag"][0] = int(LineFlag.AT_BOUND)
    assert balmer_extinction(table)["flag"][0] & DerivedFlag.DOUBTFUL_FIT


def test_a_missing_line_is_unknown_not_an_error():
    found = balmer_extinction(lines(Halpha=[286.0, 10.0]))
    assert np.all(found["flag"] == int(DerivedFlag.UNKNOWN))
    assert np.isnan(found["ebv"].value).all()


def test_a_covariance_of_fluxes_enters_the_error():
    table = lines(Halpha=[286.0], Hbeta=[100.0])
    covariance = 0.6 * 5.72 * 2.0
    free = line_ratio(table, ["Halpha"], ["Hbeta"])
    tied = line_ratio(table, ["Halpha"], ["Hbeta"], covariance={("Hbeta", "Halpha"): covariance})
    np.testing.assert_allclose(free.variance, 2 * 0.02**2)
    np.testing.assert_allclose(tied.variance, 2 * 0.02**2 * (1 - 0.6))


def test_odd_requests_are_refused():
    table = lines(Halpha=[286.0], Hbeta=[100.0])
    for call in (
        lambda: balmer_extinction(table, intrinsic=0.0),
        lambda: balmer_extinction(table, curve="calzetti"),
        lambda: deredden_lines(table, negative="nan"),
        lambda: deredden_lines(table, ["OII3726"]),
        lambda: electron_density(table, "NI"),
        lambda: electron_density(table, "OII", method="proxauf14"),
        lambda: bpt_classes(table, "ClIII"),
        lambda: ew_classes(lines(Hbeta=[1.0])),
        lambda: ew_classes(table, confidence=3.0),
    ):
        with pytest.raises(InputError):
            call()


# --- density ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("density", "ratio"), [(10.0, 1.433818), (100.0, 1.309752), (1000.0, 0.823957)])
def test_density_of_the_published_relation(density, ratio):
    # R = 0.4315 (2107 + n) / (627.1 + n), Sanders et al. (2016).
    assert ratio == pytest.approx(0.4315 * (2107.0 + density) / (627.1 + density), rel=1e-5)
    found = electron_density(lines(snr=1e4, SII6716=[ratio], SII6730=[1.0]))
    assert found["density"][0].to_value(u.cm**-3) == pytest.approx(density, rel=1e-3)
    assert found["flag"][0] == 0


def test_density_of_oxygen_doublet():
    relation = DENSITY_RATIOS["OII"]
    ratio = relation.a * (relation.b + 300.0) / (relation.c + 300.0)
    found = electron_density(lines(snr=1e4, OII3729=[ratio], OII3726=[1.0]), "OII")
    assert found["density"][0].value == pytest.approx(300.0, rel=1e-6)


def test_the_two_relations_agree_where_both_are_valid():
    table = lines(snr=1e4, SII6716=[1.35, 1.1, 0.8, 0.6], SII6730=np.ones(4))
    first = electron_density(table)["density"].value
    second = electron_density(table, method="proxauf14")["density"].value
    # They rest on different atomic data; the literature finds them within 30 %.
    np.testing.assert_allclose(np.log10(second / first), 0.0, atol=0.15)


def test_proxauf_at_a_point_of_its_equation():
    ratio = 1.0
    log = 0.0543 * np.tan(-3.0553 * ratio + 2.8506) + 6.98 - 10.6905 + 9.9186 - 3.5442
    found = electron_density(lines(snr=1e4, SII6716=[1.0], SII6730=[1.0]), method="proxauf14")
    assert found["density"][0].value == pytest.approx(10**log)


@pytest.mark.parametrize("method", ["sanders16", "proxauf14"])
def test_limits_of_the_ratio_leave_limits_of_the_density(method):
    found = electron_density(
        lines(snr=30.0, SII6716=[1.6, 0.3, 1.44, 1.0], SII6730=np.ones(4)), method=method
    )
    low, high = int(DerivedFlag.LOW_DENSITY), int(DerivedFlag.HIGH_DENSITY)
    np.testing.assert_array_equal(found["flag"] & low > 0, [True, False, True, False])
    np.testing.assert_array_equal(found["flag"] & high > 0, [False, True, False, False])
    assert np.isnan(found["density"][0])
    assert np.isnan(found["density"][1])
    assert found["density_low"][2].value == 0
    assert 0 < found["density_high"][2].value < 1000
    assert np.isinf(found["density_high"][1])
    assert np.isfinite(found["density_low"][3])


def test_a_ratio_held_at_its_bound_is_a_limit():
    table = lines(snr=30.0, SII6716=[1.4484, 0.4375], SII6730=np.ones(2))
    table["SII6716_flag"][:] = int(LineFlag.RATIO_AT_BOUND)
    found = electron_density(table)
    assert np.isnan(found["density"].value).all()
    assert found["flag"][0] & DerivedFlag.LOW_DENSITY
    assert found["flag"][1] & DerivedFlag.HIGH_DENSITY
    assert found["density_high"][0].value > 0


# --- diagrams --------------------------------------------------------------------------------------------


def test_curves_at_points_of_the_published_equations():
    assert kauffmann_2003(-0.5) == pytest.approx(0.61 / (-0.55) + 1.3)  # 0.1909
    assert kewley_2001(-0.5) == pytest.approx(0.61 / (-0.97) + 1.19)  # 0.5611
    assert kewley_2001(-0.3, "SII") == pytest.approx(0.72 / (-0.62) + 1.30)  # 0.1387
    assert kewley_2001(-1.5, "OI") == pytest.approx(0.73 / (-0.91) + 1.33)  # 0.5278
    assert kewley_2006(-0.2, "SII") == pytest.approx(0.382)
    assert kewley_2006(-0.8, "OI") == pytest.approx(0.356)
    assert kauffmann_2003(0.05) == -np.inf
    assert kewley_2001(0.6) == -np.inf


@pytest.mark.parametrize(
    ("diagram", "x", "y", "name"),
    [
        ("NII", -0.8, -0.2, "star-forming"),
        ("NII", -0.2, 0.0, "composite"),
        ("NII", 0.0, 0.9, "AGN"),
        ("NII", 0.7, -0.9, "AGN"),  # right of the pole
        ("NII", -1.6, 0.95, "AGN"),  # where the empirical curve lies above the theoretical one
        ("NII", -1.6, 0.7, "star-forming"),
        ("SII", -0.6, 0.0, "star-forming"),
        ("SII", -0.1, 0.9, "Seyfert"),
        ("SII", 0.1, 0.4, "LINER"),
        ("OI", -1.6, 0.0, "star-forming"),
        ("OI", -1.0, 0.8, "Seyfert"),
        ("OI", -0.5, 0.3, "LINER"),
    ],
)
def test_clear_cases_are_told_apart(diagram, x, y, name):
    halpha, hbeta = 300.0, 100.0
    keys = DIAGRAMS[diagram].lines
    shares = {key: [halpha * 10**x / len(keys)] for key in keys}
    table = lines(snr=80.0, Halpha=[halpha], Hbeta=[hbeta], OIII5007=[hbeta * 10**y], **shares)
    found = bpt_classes(table, diagram)
    assert found["name"][0] == name
    assert found["flag"][0] == 0
    assert found["probability"][0] > 0.95
    assert found["x"][0].value == pytest.approx(x)
    total = sum(found[f"p_{each}"][0].value for each in list(DIAGRAMS[diagram].names.values())[1:])
    assert total == pytest.approx(1.0, abs=1e-6)


def test_a_point_on_a_line_is_uncertain():
    x = -0.4
    y = float(kewley_2001(x))
    found = bpt_classes(
        lines(snr=20.0, Halpha=[300.0], NII6583=[300 * 10**x], Hbeta=[100.0], OIII5007=[100 * 10**y])
    )
    assert found["flag"][0] & DerivedFlag.UNCERTAIN
    assert found["p_AGN"][0].value == pytest.approx(0.5, abs=0.02)


def test_below_the_floor_nothing_is_said():
    table = lines(Halpha=[300.0, 300.0], NII6583=[100.0, 100.0], Hbeta=[100.0, 100.0], OIII5007=[50.0, 50.0])
    table["Hbeta_flux_err"][0] = table["Hbeta_flux"][0] / 2
    found = bpt_classes(table)
    assert list(found["class"]) == [0, 1]
    assert found["name"][0] == "unknown"
    assert np.isnan(found["probability"][0])
    assert found["flag"][0] & DerivedFlag.FAINT


def test_classes_of_diffuse_gas():
    table = lines(snr=100.0, Halpha=[10.0, 80.0, 300.0, 30.0])  # EW = flux / 10
    found = ew_classes(table)
    assert list(found["name"][:3]) == ["hDIG", "mDIG", "SFc"]
    assert found["flag"][3] & DerivedFlag.UNCERTAIN  # 3 A: on the edge
    assert found["p_hDIG"][3].value == pytest.approx(0.5)
    table["Halpha_flag"][0] = int(LineFlag.NO_CONTINUUM)
    assert ew_classes(table)["name"][0] == "unknown"
