"""The back end ppxf: what it is given, what is made of its answer, what happens without it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from skyloom.core.continuum import ContinuumFlag
from skyloom.errors import InputError, ShapeError
from skyloom.spectral.lines.model_errors import model_errors
from skyloom.spectral.stellar.fit import fit_continuum
from skyloom.spectral.stellar.ppxf_backend import fit_ppxf
from skyloom.spectral.stellar.ppxf_grids import log_spectra, log_templates
from tests.inputs import fake_ppxf
from tests.inputs.ppxf import C, library, observed

WEIGHTS = np.array([0.0, 1.0, 0.0, 2.0])
WAVE = np.arange(4700.0, 5900.0, 1.25)
OPTIONS = {"redshift": 0.02, "lines": ["Hbeta"], "sky": None}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list:
    return fake_ppxf.install(monkeypatch)


def test_without_the_package_one_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ppxf", "ppxf.ppxf"):
        monkeypatch.setitem(sys.modules, name, None)
    spectra, _ = observed(library(), WEIGHTS, WAVE)
    with pytest.raises(InputError, match=r"pip install skyloom\[ppxf\]"):
        fit_ppxf(spectra, library())


@pytest.mark.parametrize("medium", ["air", "vacuum"])
def test_truth_comes_back(calls: list, medium: str) -> None:
    templates = library()
    truth = {"velocity": 80.0, "sigma": 130.0, "av": 0.6}
    spectra, model = observed(templates, WEIGHTS, WAVE, medium=medium, snr=300.0, n=2, **truth)
    fit = fit_ppxf(spectra, templates, **OPTIONS)
    assert (fit.backend, fit.medium, fit.unit) == ("ppxf", medium, spectra.unit)
    np.testing.assert_array_equal(fit.flags, 0)
    for name, value in truth.items():
        found, error = getattr(fit, name), getattr(fit, f"{name}_err")
        assert np.all(np.abs(found - value) < 4 * error), (name, found, error)
    assert np.all(fit.velocity_err < 2.0)
    np.testing.assert_allclose(fit.model, np.tile(model, (2, 1)), rtol=0.005)
    pulls = (fit.model - model) / np.sqrt(fit.variance)
    assert 0.5 < np.sqrt(np.mean(pulls**2)) < 1.8  # two spectra: their pulls are two numbers per direction
    np.testing.assert_allclose(fit.chi2_dof, 1.0, atol=0.2)
    np.testing.assert_allclose(fit.weights.sum(axis=1), 3.0 / 1.02, rtol=0.1)
    np.testing.assert_allclose(fit.light_fractions.sum(axis=1), 1.0)
    np.testing.assert_allclose(fit.mass_fractions[:, [1, 3]], [[1 / 3, 2 / 3]] * 2, atol=0.1)
    assert calls[0]["moments"] == 2
    assert calls[0]["clean"] is False
    # What modes leave out of the variance is not negative.
    assert np.all(np.sum(fit.modes**2, axis=1) <= fit.variance * (1 + 1e-6))
    assert len(fit.table) == 2


@pytest.mark.slow
def test_errors_hold_over_many_draws(calls: list) -> None:
    templates, n = library(), 40
    truth = {"velocity": -60.0, "sigma": 150.0, "av": 0.6}
    spectra, model = observed(templates, WEIGHTS, WAVE, snr=40.0, n=n, **truth)
    fit = fit_ppxf(spectra, templates, **OPTIONS)
    for name in ("velocity", "sigma"):
        pull = (getattr(fit, name) - truth[name]) / getattr(fit, f"{name}_err")
        # Weights that may not be negative narrow the scatter, and the dispersion is no linear parameter: 0.2 on top.
        assert abs(np.mean(pull)) < 3 / np.sqrt(n) + 0.2
        assert abs(np.std(pull) - 1.0) < 3 / np.sqrt(2 * n) + 0.1
    # A sum over channels, as a line makes it, has the error that the modes and the variance bracket.
    part = np.zeros(WAVE.size)
    part[400:412] = 1.25
    scatter = np.std((fit.model - model) @ part)
    shared = np.sqrt(np.mean(np.sum((fit.modes @ part) ** 2, axis=1)))
    assert 0.6 < scatter / shared < 1.7


def test_polynomials_are_passed_on(calls: list) -> None:
    templates = library()
    spectra, model = observed(templates, WEIGHTS, WAVE, snr=300.0)
    tilted = spectra.evolve(data=spectra.data * np.linspace(0.9, 1.1, WAVE.size) + 0.1)
    fit = fit_ppxf(
        tilted,
        templates,
        additive_degree=1,
        multiplicative_degree=1,
        attenuation=None,
        velocity=10.0,
        **OPTIONS,
    )
    assert (calls[0]["degree"], calls[0]["mdegree"], calls[0].get("dust")) == (1, 1, None)
    ratio = fit.model[0] / (model * np.linspace(0.9, 1.1, WAVE.size) + 0.1)
    assert np.std(ratio) < 0.005
    assert abs(np.mean(ratio) - 1.0) < 0.001
    assert np.isnan(fit.av[0])
    assert np.isfinite(fit.velocity_err[0])


def test_lines_masks_and_ranges_stay_out(calls: list) -> None:
    templates = library()
    spectra, _ = observed(templates, WEIGHTS, WAVE, snr=100.0)
    centre = 4861.333 * 1.02
    data, mask = spectra.data.copy(), spectra.mask.copy()
    data[0, np.abs(WAVE - centre) < 4.0] += 100.0  # an emission line
    data[0, 300:310], mask[0, 300:310] = np.nan, True
    sky = ((5570.0, 5585.0),)
    fit = fit_ppxf(
        spectra.evolve(data=data, mask=mask), templates, redshift=0.02, lines=["Hbeta"], sky=sky, clip=3.0,
        wave_range=(4700.0, 5600.0),
    )  # fmt: skip
    used = calls[0]["lam"][calls[0]["goodpixels"]]
    air_over_vacuum = 1.00028
    assert not np.any(np.abs(used * 1.02 / air_over_vacuum - centre) < 6.0)
    assert not np.any(np.abs(used * 1.02 / air_over_vacuum - WAVE[305]) < 5.0)
    assert not np.any((used * 1.02 > 5570.0 * air_over_vacuum) & (used * 1.02 < 5585.0 * air_over_vacuum))
    assert 4700.0 < used[0] < 4703.0
    assert 5597.0 < used[-1] < 5603.0
    assert calls[0]["clean"] is True
    assert fit.chi2_dof[0] < 1.5
    assert 0 <= used.size - fit.n_used[0] < 0.02 * used.size  # pPXF clips a few


def test_spectra_that_cannot_be_fitted_are_flagged(calls: list, monkeypatch: pytest.MonkeyPatch) -> None:
    templates = library()
    spectra, _ = observed(templates, WEIGHTS, WAVE, av=0.8, snr=100.0, n=5)
    data, mask = spectra.data.copy(), spectra.mask.copy()
    mask[1] = True
    data[2] = -np.abs(data[2])
    data[3] *= 0.005
    fit = fit_ppxf(
        spectra.evolve(data=data, mask=mask),
        templates,
        redshift=[0.02, 0.02, 0.02, 0.02, 4.0],
        lines=["Hbeta"],
        sky=None,
    )
    flags = [ContinuumFlag(int(flag)) for flag in fit.flags]
    assert flags[0] == ContinuumFlag(0)
    assert flags[1] == ContinuumFlag.NO_DATA
    assert flags[2] == ContinuumFlag.NEGATIVE
    assert flags[3] & ContinuumFlag.LOW_SNR
    assert flags[4] == ContinuumFlag.NOT_COVERED
    assert np.all(fit.model[2] == 0)
    assert np.isnan(fit.velocity[[1, 2, 4]]).all()
    assert np.isnan(fit.velocity_err[3])  # held
    np.testing.assert_array_equal(fit.usable, [True, False, True, True, False])

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("no way")

    monkeypatch.setattr(sys.modules["ppxf.ppxf"], "ppxf", refuse)
    failed = fit_ppxf(spectra, templates, **OPTIONS)
    assert failed.reasons == ("pPXF: no way",) * 5
    assert not failed.usable.any()


def test_bounds_are_flagged(calls: list) -> None:
    templates = library()
    spectra, _ = observed(templates, WEIGHTS, WAVE, velocity=150.0, snr=100.0)
    fit = fit_ppxf(
        spectra, templates, velocity_range=100.0, sigma_range=(0.0, 60.0), sigma_start=50.0, **OPTIONS
    )
    flag = ContinuumFlag(int(fit.flags[0]))
    assert flag & ContinuumFlag.VELOCITY_AT_BOUND
    assert flag & ContinuumFlag.SIGMA_AT_BOUND
    assert "velocity at its limit" in fit.reasons[0]


def test_bad_calls(calls: list) -> None:
    templates = library()
    spectra, _ = observed(templates, WEIGHTS, WAVE)
    with pytest.raises(InputError, match="no line-spread function"):
        fit_ppxf(spectra.evolve(lsf=None), templates)
    with pytest.raises(InputError, match="check the redshift"):
        fit_ppxf(spectra, templates, redshift=5.0)
    with pytest.raises(ShapeError, match="redshift has shape"):
        fit_ppxf(spectra, templates, redshift=[0.0, 0.1])


# ------------------------------------------------------------------------------------------------- grids


def test_a_logarithmic_grid_stays_as_it_is() -> None:
    wave = 10 ** np.arange(3.68, 3.76, 1e-4)
    spectra, _ = observed(library(), WEIGHTS, wave, medium="vacuum")
    even, step = log_spectra(spectra)
    assert even.data is spectra.data
    assert step == pytest.approx(1e-4 * np.log(10))


def test_templates_get_the_width_of_the_spectrograph() -> None:
    """A line much narrower than a pixel shows the kernel itself."""
    wave = np.arange(4900.0, 5100.0, 0.25)
    line = np.exp(-0.5 * ((wave - 5000.0) / 0.5) ** 2)
    templates = library().evolve(
        wave=wave,
        flux=line[np.newaxis],
        age=np.ones(1),
        metallicity=np.zeros(1),
        fwhm=np.full(wave.size, 0.5 * 2.35482),
    )
    step = 6e-5
    rest = np.exp(np.arange(np.log(4960.0), np.log(5040.0), step))
    made = log_templates(templates, rest, step, np.full(rest.size, 2.0 / 5000.0), -900.0)
    profile = made.flux[:, 0] * made.scale[0]
    speed = C * np.log(made.wave / 5000.0)
    width = np.sqrt(np.sum(profile * speed**2) / np.sum(profile))
    assert width == pytest.approx(2.0 / 5000.0 * C, rel=0.01)
    assert np.sum(profile) * step * 5000.0 == pytest.approx(0.5 * np.sqrt(2 * np.pi), rel=0.01)
    assert made.broader == 0
    assert log_templates(templates, rest, step, np.full(rest.size, 0.3 / 5000.0), -900.0).broader == 1.0


# ------------------------------------------------------------------------------------------------ errors


def test_errors_of_a_linear_model_are_exact(rng: np.random.Generator) -> None:
    """Against dense matrices, with correlated noise and channels that are not used."""
    n, p = 60, 4
    derivatives = rng.standard_normal((n, p)).cumsum(axis=0)
    noise = rng.uniform(0.5, 2.0, n)
    used = rng.random(n) > 0.2
    bands = np.tile([0.2, 0.5, 1.0, 0.5, 0.2], (n, 1))
    weight = np.where(used, noise**-2, 0.0)
    inverse = np.linalg.inv((derivatives.T * weight) @ derivatives)
    estimator = inverse @ (derivatives.T * weight)
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    covariance = np.outer(noise, noise) * np.select([lag == 0, lag == 1, lag == 2], [1.0, 0.5, 0.2], 0.0)
    expected = estimator @ covariance @ estimator.T
    found = model_errors(derivatives, noise, used, bands, 4)
    np.testing.assert_allclose(found.parameters, np.sqrt(np.diag(expected)), rtol=1e-6)
    model = derivatives @ expected @ derivatives.T
    np.testing.assert_allclose(found.variance, np.diag(model), rtol=1e-6)
    np.testing.assert_allclose(
        found.modes.T @ found.modes, model, atol=1e-6 * np.max(model)
    )  # p modes: all of it
    fewer = model_errors(derivatives, noise, used, bands, 1)
    largest = np.linalg.eigvalsh(model)[-1]
    assert np.sum(fewer.modes[0] ** 2) == pytest.approx(largest, rel=1e-6)


def test_directions_that_data_do_not_tell_apart_have_no_error(rng: np.random.Generator) -> None:
    derivatives = rng.standard_normal((50, 3))
    twice = np.column_stack([derivatives, derivatives[:, 1]])
    noise, used, bands = np.ones(50), np.ones(50, bool), np.ones((50, 1))
    found = model_errors(twice, noise, used, bands, 2)
    np.testing.assert_array_equal(np.isnan(found.parameters), [False, True, False, True])
    alone = model_errors(derivatives, noise, used, bands, 2)
    np.testing.assert_allclose(found.variance, alone.variance, rtol=1e-6)
    np.testing.assert_allclose(found.parameters[[0, 2]], alone.parameters[[0, 2]], rtol=1e-6)
    nothing = model_errors(np.zeros((50, 0)), noise, used, bands, 2)
    assert np.all(nothing.variance == 0)


def test_the_common_interface_leads_to_ppxf(calls: list) -> None:
    spectra, _ = observed(library(), WEIGHTS, WAVE)
    common = fit_continuum(spectra, library(), backend="ppxf", clip=0.0)
    direct = fit_ppxf(spectra, library())
    assert common.backend == direct.backend == "ppxf"
    np.testing.assert_array_equal(common.velocity, direct.velocity)
    assert len(calls) == 2 * spectra.shape[0]
    with pytest.raises(InputError, match="emission"):
        fit_continuum(spectra, library(), backend="ppxf", emission="fit")
    with pytest.raises(InputError, match="backend"):
        fit_continuum(spectra, library(), backend="ppfx")
