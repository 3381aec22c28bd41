"""What `fit_continuum` does with odd input, masks, scales and flags; the type of its result."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.continuum import ContinuumFit, ContinuumFlag
from skyloom.core.linelist import default_lines
from skyloom.errors import AssumptionWarning, InputError, ShapeError
from skyloom.spectral.stellar.fit import fit_continuum
from skyloom.spectral.stellar.lines import line_channels, lines_in_the_way
from tests.inputs.stellar import make_stars, observe, template_library

WAVE = 4800.0 + 1.25 * np.arange(700)
Z = 0.01


@pytest.fixture(scope="module")
def library():
    return template_library(low=4500.0, high=6000.0)


@pytest.fixture(scope="module")
def spectra():
    rng = np.random.default_rng(1)
    return observe(make_stars(4, WAVE, rng=rng, redshift=Z), WAVE, 40.0, rng=rng)


def flagged(fit, row, *names):
    expected = sum(int(getattr(ContinuumFlag, name)) for name in names)
    assert fit.flags[row] & expected == expected, fit.reasons[row]


def same(first, second, rtol=1e-4):
    for name in ("velocity", "sigma", "av", "chi2_dof", "velocity_err"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=rtol, atol=1e-3)


def test_a_scale_on_the_flux_is_a_scale_on_the_model(spectra, library):
    # A power of two is exact in floating point; any other factor differs by its rounding.
    factor = np.float32(2.0**-20)
    scaled = spectra.evolve(data=spectra.data * factor, variance=spectra.variance * factor**2)
    first, second = (fit_continuum(item, library, redshift=Z) for item in (spectra, scaled))
    same(first, second, rtol=1e-9)
    np.testing.assert_allclose(second.model, first.model * factor, rtol=1e-6)
    np.testing.assert_allclose(second.weights, first.weights * factor, rtol=1e-6)
    np.testing.assert_allclose(np.abs(second.modes), np.abs(first.modes) * factor, rtol=1e-3, atol=1e-12)


def test_garbage_under_the_mask_changes_nothing(spectra, library):
    mask = spectra.mask.copy()
    mask[:, 200:230] = True
    data, variance = spectra.data.copy(), spectra.variance.copy()
    clean = spectra.evolve(mask=mask)
    data[:, 200:215], data[:, 215:230], variance[:, 205:225] = np.nan, 1e30, -np.inf
    dirty = spectra.evolve(data=data, variance=variance, mask=mask)
    first, second = (fit_continuum(item, library, redshift=Z) for item in (clean, dirty))
    same(first, second, rtol=1e-12)
    np.testing.assert_array_equal(first.model, second.model)
    assert np.isfinite(first.model[:, 200:230]).all()


def test_emission_lines_and_sky_are_left_out(spectra, library):
    data = spectra.data.copy()
    centre = default_lines()["OIII5007"].rest_vacuum * (1 + Z)
    data[:, np.abs(WAVE - centre) < 6] += 50.0
    data[:, (WAVE > 5568) & (WAVE < 5589)] -= 30.0
    spoiled = spectra.evolve(data=data)
    first, second = (fit_continuum(item, library, redshift=Z) for item in (spectra, spoiled))
    np.testing.assert_array_equal(first.model, second.model)
    assert np.all(fit_continuum(spoiled, library, redshift=Z, sky=None, clip=0).chi2_dof > 10)


def test_outliers_are_clipped(spectra, library):
    data = spectra.data.copy()
    data[:, [150, 333, 520]] += 3.0
    spoiled = spectra.evolve(data=data)
    first, second = (fit_continuum(item, library, redshift=Z) for item in (spectra, spoiled))
    assert np.all(np.abs(first.velocity - second.velocity) < 0.5 * first.velocity_err)
    assert np.all(second.chi2_dof < 1.3)
    assert np.all(fit_continuum(spoiled, library, redshift=Z, clip=0).chi2_dof > 10)


def test_lines_in_the_way_are_those_of_the_gas():
    keys = lines_in_the_way(default_lines()).keys
    assert {"Hbeta", "OIII5007", "NaD5889", "DIB5780"} <= set(keys)
    assert not {"CaII3933", "Mgb5167"} & set(keys)
    lsf = np.full((1, WAVE.size), 1.2)
    lines = default_lines().select(["Hbeta"])
    mask = line_channels(lines, WAVE, "vacuum", lsf, np.array([1.0, 1.01]), 400.0)
    for row, stretch in enumerate((1.0, 1.01)):
        centre = lines.wavelengths("vacuum")[0] * stretch
        reach = centre * 400 / 299792.458 + 3.6
        np.testing.assert_array_equal(mask[row], np.abs(WAVE - centre) <= reach)


def test_dead_empty_negative_and_absurd_rows_are_flagged_and_the_others_finished(spectra, library):
    good = fit_continuum(spectra, library, redshift=Z)
    data = np.concatenate([spectra.data, spectra.data])
    variance = np.concatenate([spectra.variance, spectra.variance])
    mask = np.zeros(data.shape, bool)
    mask[4], data[4] = True, np.nan
    data[5] *= -1
    redshift = np.full(8, Z)
    redshift[6], redshift[7] = 8.0, np.nan
    many = spectra.evolve(data=data, variance=variance, mask=mask)
    fit = fit_continuum(many, library, redshift=redshift)
    same(good, _rows(fit, 4), rtol=1e-9)
    assert not np.any(fit.flags[:4])
    assert fit.reasons[:4] == ("",) * 4
    flagged(fit, 4, "NO_DATA")
    flagged(fit, 5, "NEGATIVE")
    flagged(fit, 6, "NOT_COVERED")
    flagged(fit, 7, "NOT_COVERED")
    np.testing.assert_array_equal(fit.usable, [True] * 4 + [False, True, False, False])
    assert np.all(np.isnan(fit.velocity[4:]))
    assert np.all(np.isnan(fit.model[[4, 6, 7]]))
    # A spectrum without stars still has its lines fitted: its continuum is zero.
    np.testing.assert_array_equal(fit.model[5], 0.0)
    assert all(fit.reasons[4:])
    assert len(fit.table) == 8


def _rows(fit, n):
    class Part:
        pass

    part = Part()
    for name in ("velocity", "sigma", "av", "chi2_dof", "velocity_err"):
        setattr(part, name, getattr(fit, name)[:n])
    return part


def test_faint_spectra_keep_their_start_values(spectra, library):
    rng = np.random.default_rng(3)
    faint = observe(make_stars(3, WAVE, rng=rng, redshift=Z), WAVE, 0.7, rng=rng)
    fit = fit_continuum(faint, library, redshift=Z, velocity=[10.0, 20.0, 30.0], sigma_start=90.0)
    for row in range(3):
        flagged(fit, row, "LOW_SNR")
    np.testing.assert_allclose(fit.velocity, [10.0, 20.0, 30.0])
    np.testing.assert_allclose(fit.sigma, 90.0)
    assert np.all(np.isnan(fit.velocity_err))


def test_templates_that_cover_a_part_or_nothing(spectra, library):
    cut = library.wave < 5300.0
    short = library.evolve(wave=library.wave[cut], flux=library.flux[:, cut], fwhm=2.3)
    with pytest.warns(AssumptionWarning, match="4 of 4 spectra have no model in part of them"):
        fit = fit_continuum(spectra, short, redshift=Z)
    flagged(fit, 0, "PARTLY_COVERED")
    assert np.all(np.isfinite(fit.velocity))
    there = np.isfinite(fit.model[0])
    assert there[0]
    assert not there[-1]
    assert np.count_nonzero(np.diff(there.astype(int))) == 1
    with pytest.raises(InputError, match=r"cover 4500 to 5999 A .* the spectra cover 1600 to 1891 A at rest"):
        fit_continuum(spectra, library, redshift=2.0)


def test_limits_are_flagged(spectra, library):
    fit = fit_continuum(
        spectra, library, redshift=Z + 0.003, velocity_range=150.0, sigma_range=(0, 40.0), av_range=(3.5, 4.0),
        sigma_start=30.0,
    )  # fmt: skip
    flagged(fit, 0, "VELOCITY_AT_BOUND", "SIGMA_AT_BOUND", "AV_AT_BOUND")
    assert "velocity at its limit" in fit.reasons[0]
    held = fit_continuum(spectra, library, redshift=Z, av_range=(0.3, 0.3), sigma_range=(100.0, 100.0))
    np.testing.assert_allclose(held.av, 0.3)
    assert np.all(np.isnan(held.sigma_err))
    assert not np.any(held.flags & int(ContinuumFlag.AV_AT_BOUND | ContinuumFlag.SIGMA_AT_BOUND))


def test_threads_do_not_change_the_result(spectra, library):
    planes = {name: np.tile(getattr(spectra, name), (9, 1)) for name in ("data", "variance", "mask")}
    many = spectra.evolve(**planes)
    one, two = (fit_continuum(many, library, redshift=Z, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.model, two.model)
    np.testing.assert_array_equal(one.velocity[:4], two.velocity[-4:])


def test_a_rest_frame_of_air_wavelengths_is_that_of_the_observed_ones(library):
    from skyloom.spectral.axes.rest_frame import to_rest_frame

    rng = np.random.default_rng(2)
    air = observe(make_stars(2, WAVE, rng=rng, redshift=Z, medium="air"), WAVE, 60.0, rng=rng, medium="air")
    first = fit_continuum(air, library, redshift=Z, sky=None)
    second = fit_continuum(to_rest_frame(air, Z), library, sky=None)
    np.testing.assert_allclose(second.velocity, first.velocity, atol=0.3)
    np.testing.assert_allclose(second.sigma, first.sigma, atol=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "magic"}, "backend is 'magic'"),
        ({"emission": "ignore"}, "emission is 'ignore'; expected 'mask' or 'fit'"),
        ({"additive_degree": -2}, "additive_degree is -2"),
        ({"sigma_range": (300.0, 100.0)}, "sigma_range"),
        ({"clip": 0.5}, "clip is 0.5; expected 0, or at least 2"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"redshift": np.nan}, "no redshift is a number above -1"),
        ({"attenuation": "smc"}, "curve is 'smc'"),
        ({"n_modes": 9}, "n_modes is 9"),
        ({"lines": ["Halfa"]}, "Halpha"),
    ],
)
def test_wrong_parameters_are_named(spectra, library, options, message):
    with pytest.raises(InputError, match=message):
        fit_continuum(spectra, library, **{"redshift": Z, **options})


def test_what_spectra_must_have(spectra, library):
    with pytest.raises(InputError, match="no line-spread function"):
        fit_continuum(spectra.evolve(lsf=None), library, redshift=Z)
    with pytest.raises(ShapeError, match=r"redshift has shape \(3,\)"):
        fit_continuum(spectra, library, redshift=np.full(3, Z))
    with pytest.raises(ShapeError, match="mass_to_light"):
        fit_continuum(spectra, library.evolve(meta={"mass_to_light": [1.0, 2.0]}), redshift=Z)


def test_modes_add_up_to_the_variance_where_they_are_all_there_is(spectra, library):
    one = library.evolve(flux=library.flux[:1], age=library.age[:1], metallicity=library.metallicity[:1])
    fit = fit_continuum(spectra, one, redshift=Z, attenuation=None, clip=0)
    # One weight, velocity and dispersion: three of the four modes.
    np.testing.assert_allclose(np.sum(fit.modes.astype(float) ** 2, axis=1), fit.variance, rtol=1e-4)
    np.testing.assert_allclose(fit.modes[:, 3], 0.0, atol=1e-12)
    part = fit_continuum(spectra, library, redshift=Z, multiplicative_degree=3)
    assert np.all(np.sum(part.modes.astype(float) ** 2, axis=1) <= part.variance * (1 + 1e-4))
    assert fit_continuum(spectra, library, redshift=Z, n_modes=0).modes is None


def test_the_result_checks_its_shapes(spectra, library):
    fit = fit_continuum(spectra, library, redshift=Z)
    with pytest.raises(ShapeError, match=r"velocity has shape \(2,\); expected \(4,\)"):
        fit.evolve(velocity=fit.velocity[:2])
    with pytest.raises(InputError, match="weight_kind is 'guess'"):
        fit.evolve(weight_kind="guess")
    with pytest.raises(InputError, match="5 modes"):
        fit.evolve(modes=np.zeros((4, 5, WAVE.size)))
    with pytest.raises(ShapeError, match="3 reasons for 4 spectra"):
        fit.evolve(reasons=fit.reasons[:3])
    assert isinstance(fit, ContinuumFit)
    assert fit.mass_fractions is None
    assert np.all(np.isnan(fit.mean_age_mass))
