"""Errors of derived quantities against many draws of the fluxes, with known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from tests.inputs.line import table_of_lines

from skyloom.core.linelist import default_lines
from skyloom.spectral.axes.extinction import extinction_curve
from skyloom.spectral.gas.bpt import bpt_classes
from skyloom.spectral.gas.density import DENSITY_RATIOS, electron_density
from skyloom.spectral.gas.derived import (
    balmer_extinction,
    deredden_lines,
    ew_classes,
)

N = 20_000


FEW = 5_000  # for what takes longer


def draw(truth, errors, rng, n=N):
    """Tables of fluxes that scatter about the truth with the errors that they claim."""
    noisy = {key: flux + errors[key] * rng.normal(size=n) for key, flux in truth.items()}
    return table_of_lines(noisy, errors)


def assert_pulls(pulls, mean, spread):
    """What the propagation to first order allows: its bias and its curvature are of second order in 1/SNR."""
    assert abs(pulls.mean()) < mean + 3 / np.sqrt(pulls.size)
    assert abs(pulls.std() - 1) < spread + 3 / np.sqrt(2 * pulls.size)


def fluxes_behind_dust(ebv):
    keys = ("Halpha", "Hbeta", "NII6583")
    k = 3.1 * extinction_curve([default_lines()[key].rest_vacuum for key in keys])
    clean = dict(zip(keys, (286.0, 100.0, 90.0), strict=True))
    return clean, {key: clean[key] * 10 ** (-0.4 * each * ebv) for key, each in zip(keys, k, strict=True)}


# Second order: the mean of ln F is 1/(2 SNR^2) too low, in units of its error 1/(2 SNR); its scatter goes with 1/SNR^2.
@pytest.mark.parametrize(("snr", "mean", "spread"), [(10.0, 0.06, 0.02), (30.0, 0.02, 0.005)])
@pytest.mark.parametrize("ebv", [0.0, 0.5])
def test_extinction(rng, snr, mean, spread, ebv):
    _, observed = fluxes_behind_dust(ebv)
    errors = {"Halpha": observed["Halpha"] / (3 * snr), "Hbeta": observed["Hbeta"] / snr, "NII6583": 1.0}
    found = balmer_extinction(draw(observed, errors, rng))
    assert_pulls((found["ebv"].value - ebv) / found["ebv_err"].value, mean, spread)


def test_extinction_with_correlated_fluxes(rng):
    _, observed = fluxes_behind_dust(0.3)
    errors = {key: flux / 30 for key, flux in observed.items()}
    common = rng.normal(size=N)
    noisy = {
        key: flux + errors[key] * (np.sqrt(0.7) * common + np.sqrt(0.3) * rng.normal(size=N))
        for key, flux in observed.items()
    }
    table = table_of_lines(noisy, errors)
    shared = {("Halpha", "Hbeta"): 0.7 * errors["Halpha"] * errors["Hbeta"]}
    known = balmer_extinction(table, covariance=shared)
    ignored = balmer_extinction(table)
    assert_pulls((known["ebv"].value - 0.3) / known["ebv_err"].value, 0.03, 0.01)
    pulls = (ignored["ebv"].value - 0.3) / ignored["ebv_err"].value
    assert pulls.std() < 0.6  # sqrt(0.3): what ignoring it would claim


@pytest.mark.parametrize("key", ["Halpha", "Hbeta", "NII6583"])
def test_dereddened_fluxes_know_that_their_own_noise_moves_the_dust(rng, key):
    clean, observed = fluxes_behind_dust(0.5)
    errors = {name: flux / 100 for name, flux in observed.items()}
    found = deredden_lines(draw(observed, errors, rng), [key])
    pulls = (found[f"{key}_flux"].value - clean[key]) / found[f"{key}_flux_err"].value
    # A power of a noisy ratio is skewed: to second order p (p + 1) / 2 SNR^2, 0.06 errors for p = 2.6 at SNR 100.
    assert_pulls(pulls, 0.08, 0.02)


@pytest.mark.parametrize("density", [60.0, 300.0, 2000.0])
def test_intervals_of_density_cover_the_truth(rng, density):
    relation = DENSITY_RATIOS["SII"]
    ratio = relation.a * (relation.b + density) / (relation.c + density)
    truth = {"SII6716": 100.0 * ratio, "SII6730": 100.0}
    found = electron_density(draw(truth, {key: flux / 25 for key, flux in truth.items()}, rng))
    inside = (found["density_low"].value <= density) & (density <= found["density_high"].value)
    # Clipping at the limits of the ratio can only widen an interval.
    assert inside.mean() > 0.683 - 3 * np.sqrt(0.683 * 0.317 / N) - 0.005
    if density == 300.0:
        assert inside.mean() < 0.70


@pytest.mark.parametrize(("x", "y", "snr"), [(-0.30, 0.20, 12.0), (-0.05, 0.05, 8.0), (0.45, 0.3, 10.0)])
def test_probabilities_of_classes_are_those_of_many_draws(rng, x, y, snr):
    truth = {"Halpha": 300.0, "NII6583": 300 * 10**x, "Hbeta": 100.0, "OIII5007": 100 * 10**y}
    errors = {key: flux / snr for key, flux in truth.items()}
    claimed = bpt_classes(table_of_lines({key: np.array([flux]) for key, flux in truth.items()}, errors))
    scattered = bpt_classes(draw(truth, errors, rng, FEW))
    known = scattered["name"] != "unknown"
    for name in ("star-forming", "composite", "AGN"):
        share = np.mean(np.asarray(scattered["name"])[known] == name)
        # Draws of fluxes are Gaussian, logarithms only nearly: 0.02 of probability at these S/N.
        assert abs(share - claimed[f"p_{name}"][0].value) < 0.025


def test_covariance_between_the_axes_of_a_diagram(rng):
    truth = {"Halpha": 300.0, "NII6583": 150.0, "Hbeta": 100.0, "OIII5007": 224.0}
    errors = {key: flux / 15 for key, flux in truth.items()}
    common = rng.normal(size=FEW)
    noisy = {key: flux + errors[key] * rng.normal(size=FEW) for key, flux in truth.items()}
    for key in ("NII6583", "OIII5007"):
        own = np.sqrt(0.1) * rng.normal(size=FEW)
        noisy[key] = truth[key] + errors[key] * (np.sqrt(0.9) * common + own)
    shared = {("OIII5007", "NII6583"): 0.9 * errors["NII6583"] * errors["OIII5007"]}
    table = table_of_lines({key: np.array([flux]) for key, flux in truth.items()}, errors)
    known, ignored = bpt_classes(table, covariance=shared), bpt_classes(table)
    share = np.mean(np.asarray(bpt_classes(table_of_lines(noisy, errors))["name"]) == "composite")
    assert abs(share - known["p_composite"][0].value) < 0.02
    assert abs(known["p_composite"][0].value - ignored["p_composite"][0].value) > 0.01


def test_classes_of_equivalent_width_are_as_probable_as_they_say(rng):
    width = 12.0 + rng.normal(size=N)
    table = table_of_lines({"Halpha": 10 * width}, {"Halpha": np.full(N, 10.0)})
    found = ew_classes(table)
    assert abs(np.mean(np.asarray(found["name"]) == "SFc") - (1 - ndtr(2.0))) < 3 * np.sqrt(0.023 / N)
    # One standard deviation of confidence: as many are flagged as lie within one of the edge.
    within = np.mean(np.abs(width - 14) < 0.9945)
    assert abs(np.mean((found["flag"] & 32) > 0) - within) < 1e-9
