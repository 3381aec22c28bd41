"""The stellar continuum against known truth and against a slow twin."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf
from tests.inputs.stellar import (
    SPEED_OF_LIGHT,
    Stars,
    forest_populations,
    make_stars,
    observe,
    template_library,
)
from tests.oracles.stellar import fit_slowly

from skyloom.core.continuum import ContinuumFlag
from skyloom.core.linelist import default_lines
from skyloom.mock.scenes.templates import populations
from skyloom.spectral.axes.grids import pixel_edges
from skyloom.spectral.lines.linefit import fit_lines
from skyloom.spectral.stellar.fit import fit_continuum

N = 110
WAVE = 4700.0 + 1.25 * np.arange(1620)
Z = 0.01


@pytest.fixture(scope="module")
def library():
    return template_library(high=7100.0, low=4300.0)


@pytest.fixture(scope="module")
def stars():
    return make_stars(N, WAVE, rng=np.random.default_rng(5), redshift=Z)


def fair(pulls, slack=0.0):
    """Mean and standard deviation of a standard normal, within three of their errors."""
    n = pulls.size
    assert abs(pulls.mean()) < 3 / np.sqrt(n) + slack
    assert abs(pulls.std() - 1) < 3 / np.sqrt(2 * n)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [None, [1.0, 2.0, 1.0]], ids=["white", "correlated"])
def test_kinematics_and_their_errors(stars, library, kernel):
    rng = np.random.default_rng(17)
    spectra = observe(stars, WAVE, 30.0, rng=rng, kernel=kernel)
    fit = fit_continuum(spectra, library, redshift=Z)
    assert not np.any(fit.flags & int(ContinuumFlag.NOT_CONVERGED))
    velocity, sigma = fit.velocity - stars.velocity, fit.sigma - stars.sigma
    fair(velocity / fit.velocity_err)
    resolved = (fit.flags & int(ContinuumFlag.UNRESOLVED)) == 0
    # Errors of a dispersion are no Gaussian near zero; sigma^2 is what is fitted.
    fair((velocity / fit.velocity_err)[resolved])
    fair((sigma / fit.sigma_err)[resolved], slack=0.1)
    if kernel is None:
        assert abs(np.median(velocity)) < 3.0
        assert abs(np.median(sigma)) < 5.0
        assert np.median(np.abs(velocity)) < 8.0  # what the features of these templates allow
        assert np.mean(fit.chi2_dof) == pytest.approx(1.0, abs=3 * np.sqrt(2 / 1000 / N) + 0.01)


def test_without_the_correlation_the_errors_would_be_too_small(stars, library):
    """The test above can fail: the same correlated noise, called independent, has pulls far from one."""
    spectra = observe(stars, WAVE, 30.0, rng=np.random.default_rng(17), kernel=[1.0, 2.0, 1.0])
    rows = slice(0, 60)
    part = spectra.evolve(
        data=spectra.data[rows], variance=spectra.variance[rows], mask=spectra.mask[rows], correlation=None
    )
    fit = fit_continuum(part, library, redshift=Z)
    assert np.std((fit.velocity - stars.velocity[rows]) / fit.velocity_err) > 1.3


def gas_lines(stars, rng):
    """Lines of gas (n, n_wave) on stars, and their fluxes."""
    lines, edges = default_lines(), pixel_edges(WAVE)
    level = np.median(stars.flux, axis=1)
    velocity = stars.velocity + rng.uniform(-30, 30, N)
    sigma = rng.uniform(40, 80, N)
    flux = {
        key: strength * level * rng.uniform(0.5, 1.5, N)
        for key, strength in (("Hbeta", 3.0), ("OIII5007", 4.0), ("Halpha", 9.0), ("NII6583", 3.0))
    }
    for key in ("OIII4959", "NII6548"):
        other, ratio = lines[key].tied
        flux[key] = ratio * flux[other]
    total = np.zeros_like(stars.flux)
    for key, amount in flux.items():
        rest = lines[key].rest_vacuum * (1 + Z)
        centre = rest * (1 + velocity / SPEED_OF_LIGHT)
        width = np.hypot(1.2, rest * sigma / SPEED_OF_LIGHT)
        share = 0.5 * erf((edges - centre[:, np.newaxis]) / width[:, np.newaxis] / np.sqrt(2))
        total += amount[:, np.newaxis] * np.diff(share, axis=1) / np.diff(edges)
    return total, flux


@pytest.mark.slow
@pytest.mark.parametrize("emission", ["mask", "fit"])
def test_lines_on_a_fitted_continuum(stars, library, emission):
    gas, flux = gas_lines(stars, np.random.default_rng(2))
    spectra = observe(stars, WAVE, 30.0, rng=np.random.default_rng(18), extra=gas)
    fit = fit_continuum(spectra, library, redshift=Z, emission=emission)
    fair((fit.velocity - stars.velocity) / fit.velocity_err, slack=0.1)
    found = fit_lines(spectra, list(flux), redshift=Z, continuum=fit)
    for key in ("Hbeta", "Halpha"):
        values = found.table[f"{key}_flux"].value
        pulls = (values - flux[key]) / found.table[f"{key}_flux_err"].value
        fair(pulls, slack=0.1)


@pytest.mark.slow
def test_the_continuum_leaves_no_bias_in_lines(stars, library):
    gas, flux = gas_lines(stars, np.random.default_rng(2))
    # At this S/N the error of a mean of so many is a fifth of what is asked for.
    spectra = observe(stars, WAVE, 100.0, rng=np.random.default_rng(18), extra=gas)
    found = fit_lines(spectra, list(flux), redshift=Z, continuum=fit_continuum(spectra, library, redshift=Z))
    perfect = fit_lines(spectra, list(flux), redshift=Z, continuum=stars.flux)
    for key in ("Hbeta", "Halpha"):
        # The noise is the same in both, so what differs is the continuum alone.
        bias = np.mean(found.table[f"{key}_flux"] - perfect.table[f"{key}_flux"]).value
        assert abs(bias) < 0.01 * np.mean(absorbed(stars, key)), key


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 3])
def test_modes_tell_what_a_line_gains_from_the_continuum(library, seed):
    """The scatter of a line's flux over draws of the noise, with the continuum alone, against what modes say."""
    n = 60
    one = make_stars(1, WAVE, rng=np.random.default_rng(seed), redshift=Z)
    names = ("velocity", "sigma", "av", "weights", "flux")
    many = Stars(*(np.repeat(getattr(one, name), n, axis=0) for name in names), Z)
    fit = fit_continuum(observe(many, WAVE, 30.0, rng=np.random.default_rng(3)), library, redshift=Z)
    for key in ("Hbeta", "Halpha"):
        centre = default_lines()[key].rest_vacuum * (1 + Z)
        near = np.abs(WAVE - centre) < centre * 1500 / SPEED_OF_LIGHT
        x = WAVE[near] - centre
        profile = np.exp(-0.5 * (x / 2.5) ** 2)
        estimator = profile - np.polyval(np.polyfit(x, profile, 1), x)
        scatter = np.std(fit.model[:, near] @ estimator)
        said = np.median(np.sqrt(np.sum((fit.modes[:, :, near] @ estimator) ** 2, axis=1)))
        # Weights that are held at zero, and which these are, differ from draw to draw: the covariance of those in
        # use is an approximation, good to a quarter (standard error of the scatter itself: a tenth).
        assert 0.65 < scatter / said < 1.45


def absorbed(stars, key):
    """Flux that the stellar line takes out of the continuum between two windows beside it."""
    centre = default_lines()[key].rest_vacuum * (1 + Z)
    distance = np.abs(WAVE - centre)
    level = np.median(stars.flux[:, (distance > 30) & (distance < 45)], axis=1)
    return np.sum(level[:, np.newaxis] - stars.flux[:, distance < 25], axis=1) * 1.25


@pytest.mark.slow
def test_the_fit_is_that_of_a_slow_twin():
    wave = 5000.0 + 1.3 * np.arange(420)
    few = populations()
    library = few.library(np.arange(4700.0, 5700.0, 0.9), fwhm=2.3)
    rng = np.random.default_rng(4)
    stars = make_stars(1, wave, rng=rng, redshift=Z, stars=few, velocities=(80, 90), sigmas=(140, 150))
    spectra = observe(stars, wave, 150.0, rng=rng)
    fit = fit_continuum(spectra, library, redshift=Z, clip=0, lines=["Hbeta"], sky=None, tolerance=1e-6)
    used = np.ones(wave.size, bool)
    assert fit.n_used[0] == wave.size
    velocity, sigma, av, weights, chi2, model = fit_slowly(spectra, 0, library, Z, used, (60.0, 120.0, 0.5))
    assert fit.velocity[0] == pytest.approx(velocity, abs=0.02 * fit.velocity_err[0])
    assert fit.sigma[0] == pytest.approx(sigma, abs=0.02 * fit.sigma_err[0])
    unknown = np.count_nonzero(fit.weights[0]) + 3
    assert fit.chi2_dof[0] * (wave.size - unknown) == pytest.approx(chi2, abs=0.02)
    np.testing.assert_allclose(fit.model[0], model, rtol=2e-4)
    assert fit.av[0] == pytest.approx(av, abs=0.02 * fit.av_err[0])
    np.testing.assert_allclose(fit.weights[0], weights, atol=0.02)


def test_polynomials_take_up_what_calibration_left(library):
    rng = np.random.default_rng(6)
    stars = make_stars(12, WAVE, rng=rng, redshift=Z, dust=(0.0, 0.0))
    x = np.linspace(-1, 1, WAVE.size)
    shaped = stars.flux * (1 + 0.1 * x - 0.08 * (1.5 * x**2 - 0.5))
    spectra = observe(stars, WAVE, 60.0, rng=rng)
    spectra = spectra.evolve(data=spectra.data + (shaped - stars.flux).astype(np.float32))
    plain = fit_continuum(spectra, library, redshift=Z, attenuation=None)
    fit = fit_continuum(spectra, library, redshift=Z, attenuation=None, multiplicative_degree=3)
    assert np.median(fit.chi2_dof) == pytest.approx(1.0, abs=0.06)
    assert np.median(plain.chi2_dof) > 1.2
    assert np.std((fit.velocity - stars.velocity) / fit.velocity_err) < 1 + 3 / np.sqrt(24)
    added = spectra.evolve(data=(stars.flux + 0.3 + 0.1 * x).astype(np.float32) + spectra.data - shaped)
    both = fit_continuum(added, library, redshift=Z, attenuation=None, additive_degree=2)
    assert np.median(both.chi2_dof) == pytest.approx(1.0, abs=0.06)


def test_templates_broader_than_the_data_are_flagged_and_the_dispersion_is_right():
    rng = np.random.default_rng(7)
    stars = make_stars(16, WAVE, rng=rng, redshift=Z, sigmas=(150.0, 200.0), lsf=lambda wave: 0.9 + 0 * wave)
    broad = template_library(low=4300.0, high=7100.0, fwhm=3.2)
    spectra = observe(stars, WAVE, 60.0, rng=rng, lsf=0.9)
    fit = fit_continuum(spectra, broad, redshift=Z)
    assert np.all(fit.flags & int(ContinuumFlag.TEMPLATES_BROADER))
    assert "broader than the spectrograph" in fit.reasons[0]
    pulls = (fit.sigma - stars.sigma) / fit.sigma_err
    assert abs(pulls.mean()) < 3 / np.sqrt(16)


def test_air_and_vacuum_meet(library):
    rng = np.random.default_rng(9)
    stars = make_stars(14, WAVE, rng=rng, redshift=Z, medium="air")
    spectra = observe(stars, WAVE, 60.0, rng=rng, medium="air")
    in_air = template_library("air", low=4300.0, high=7100.0)
    first = fit_continuum(spectra, library, redshift=Z)
    second = fit_continuum(spectra, in_air, redshift=Z)
    fair((first.velocity - stars.velocity) / first.velocity_err)
    np.testing.assert_allclose(second.velocity, first.velocity, atol=1.0)
    # Templates taken for the wrong medium would be 83 km/s off.
    wrong = fit_continuum(spectra, in_air.evolve(medium="vacuum"), redshift=Z)
    assert np.median(wrong.velocity - first.velocity) == pytest.approx(83.0, abs=5.0)
    assert first.history[-1].parameters["medium_of_templates"] == "vacuum"
    assert first.history[-1].parameters["medium_of_spectra"] == "air"


def test_mean_age_and_fractions(library):
    rng = np.random.default_rng(10)
    stars = make_stars(20, WAVE, rng=rng, redshift=Z)
    spectra = observe(stars, WAVE, 100.0, rng=rng)
    known = library.evolve(
        meta={**library.meta, "mass_to_light": np.linspace(0.1, 5.0, len(library)).tolist()}
    )
    fit = fit_continuum(spectra, known, redshift=Z)
    np.testing.assert_allclose(fit.light_fractions.sum(axis=1), 1.0)
    np.testing.assert_allclose(fit.mass_fractions.sum(axis=1), 1.0)
    truth = stars.weights @ (np.log10(forest_populations().age) + 9)
    assert np.std(fit.mean_age - truth) < 0.1
    assert abs(np.mean(fit.mean_age - truth)) < 0.05
    assert fit.table["velocity"].unit == "km / s"
    assert fit.table["log_age_mass"].shape == (20,)
