"""From spectra with known lines through the fit to dust, ratios and density: pulls, as a user would get them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from tests.inputs.line import UNIT

from skyloom.core.linelist import default_lines
from skyloom.core.spectra import Spectra
from skyloom.spectral.axes.extinction import extinction_curve
from skyloom.spectral.gas.bpt import bpt_classes
from skyloom.spectral.gas.density import DENSITY_RATIOS, electron_density
from skyloom.spectral.gas.derived import balmer_extinction, deredden_lines
from skyloom.spectral.lines.linefit import fit_lines

N = 600
TRUTH = {
    "Hbeta": 100.0, "OIII4959": 80 * 0.3356, "OIII5007": 80.0, "NII6548": 130 * 0.3279, "Halpha": 400.0,
    "NII6583": 130.0, "SII6716": 60.0, "SII6730": 50.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def fit():
    """Hbeta at a signal over noise of 25, one channel of 1.25 A, lines of 50 km/s."""
    rng = np.random.default_rng(20)
    edges = 4750 + 1.25 * (np.arange(1650) - 0.5)
    noise, truth = 1.5, np.zeros(edges.size - 1)
    for key, flux in TRUTH.items():
        centre = default_lines()[key].rest_air
        truth += flux * np.diff(ndtr((edges - centre) / np.hypot(1.1, centre * 50 / 299792.458))) / 1.25
    data = (truth + noise * rng.normal(size=(N, truth.size))).astype(np.float32)
    wave = (edges[:-1] + edges[1:]) / 2
    spectra = Spectra(data, np.full(data.shape, noise**2, np.float32), None, UNIT, wave, "air", lsf=1.1)
    return fit_lines(spectra, "strong")


def assert_unit_pulls(pulls, extra=0.0):
    """``extra``: what shared kinematics may do.

    Halpha and Hbeta have one width, so their errors are correlated (measured: 0.08), which `LineFit` does not say;
    ratios are then better than claimed, by 4 %.
    """
    assert abs(pulls.mean()) < 3 / np.sqrt(N) + 0.03  # and the second order of a logarithm
    assert abs(pulls.std() - 1) < 3 / np.sqrt(2 * N) + extra


def test_extinction(fit):
    found = balmer_extinction(fit)
    k_alpha, k_beta = 3.1 * extinction_curve(
        [default_lines()[key].rest_vacuum for key in ("Halpha", "Hbeta")]
    )
    true = 2.5 * np.log10(4.0 / 2.86) / (k_beta - k_alpha)
    assert_unit_pulls((found["ebv"].value - true) / found["ebv_err"].value, extra=0.04)
    clean = deredden_lines(fit, ["OIII5007"])
    factor = 10 ** (0.4 * 3.1 * extinction_curve([default_lines()["OIII5007"].rest_vacuum])[0] * true)
    pulls = (clean["OIII5007_flux"].value - 80 * factor) / clean["OIII5007_flux_err"].value
    assert abs(np.median(pulls)) < 3 * 1.25 / np.sqrt(N) + 0.03  # skewed, as powers of ratios are
    assert abs(pulls.std() - 1) < 3 / np.sqrt(2 * N) + 0.10


def test_ratios_of_the_diagram(fit):
    found = bpt_classes(fit)
    for axis, ratio, extra in (("x", 130 / 400, 0.03), ("y", 0.8, 0.02)):
        pulls = (found[axis].value - np.log10(ratio)) / found[f"{axis}_err"].value
        assert_unit_pulls(pulls, extra)


def test_density(fit):
    found = electron_density(fit)
    relation = DENSITY_RATIOS["SII"]
    true = (relation.c * 1.2 - relation.a * relation.b) / (relation.a - 1.2)
    inside = np.mean((found["density_low"].value <= true) & (true <= found["density_high"].value))
    # Ratios held at their bound are closer to the truth than their errors say: never less than 68 %.
    assert 0.683 - 3 * np.sqrt(0.683 * 0.317 / N) < inside < 0.80
