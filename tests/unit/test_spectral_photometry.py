"""Synthetic fluxes and magnitudes of spectra, merged transmissions, and spectra weighted by them."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.bandpass import AB_ZERO, SPEED_OF_LIGHT, Bandpass
from skyloom.core.image import Mode
from skyloom.core.linelist import vacuum_to_air
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError, UnitError
from skyloom.io import sdss_bandpasses
from skyloom.spectral.bands.photometry import (
    SDSS_SOFTENING,
    asinh_magnitude,
    pogson_magnitude,
    synthetic_magnitudes,
)
from skyloom.spectral.bands.transmission import merged_transmission, transmission_weighted
from tests.oracles.synthetic import correlation_matrix

WAVE = 10 ** np.arange(3.56, 4.016, 2e-4)  # 3631-10375 A
UNIT = u.Unit("1e-17 erg / (s cm2 AA)")


def spectra_of(data, variance=None, mask=None, **options):
    planes = np.atleast_2d(np.asarray(data, dtype=np.float64))
    spread = np.full(planes.shape, 0.01) if variance is None else np.broadcast_to(variance, planes.shape)
    mask = np.zeros(planes.shape, bool) if mask is None else mask
    options = {"wave": WAVE, "medium": "vacuum", "unit": UNIT, **options}
    return Spectra(planes, np.array(spread), mask, **options)


def row(table, band, spectrum=0):
    (found,) = table[(table["band"] == band) & (table["spectrum"] == spectrum)]
    return found


def test_a_source_of_constant_f_nu_has_the_same_magnitude_in_all_bands():
    """3.631e-6 Jy are a nanomaggie, of magnitude 22.5, whatever the band."""
    f_lambda = AB_ZERO * 1e-9 * SPEED_OF_LIGHT / WAVE**2 / 1e-17
    table = synthetic_magnitudes(spectra_of(5 * f_lambda, 1e-4), sdss_bandpasses("griz"))
    # 1 / wave^2 is bent between channels; of z 1 % lies beyond the axis, where the slope does not know the bend.
    for band, tolerance in {"g": 2e-5, "r": 2e-5, "i": 2e-5, "z": 1e-3}.items():
        found = row(table, band)
        assert found["flux"].to_value(u.nmgy) == pytest.approx(5.0, rel=tolerance)
        assert found["magnitude"].value == pytest.approx(22.5 - 2.5 * np.log10(5), abs=2 * tolerance)
    z = row(table, "z")
    assert abs(z["flux"].value - 5.0) < 3 * z["flux_err"].value
    assert (table["flux"][0]).to_value(u.uJy, u.zero_point_flux(AB_ZERO * u.Unit("erg/(s cm2 Hz)"))) == (
        pytest.approx(5 * 3.6308, rel=1e-4)
    )


def test_asinh_magnitudes_of_the_survey():
    """Zero flux has the magnitudes of the survey's table; far above the softening both kinds agree."""
    limits = {"u": 24.63, "g": 25.11, "r": 24.80, "i": 24.36, "z": 22.83}
    for band, limit in limits.items():
        magnitude, error = asinh_magnitude(0.0, 0.1, SDSS_SOFTENING[band])
        assert magnitude == pytest.approx(limit, abs=0.006)
        assert error == pytest.approx(2.5 / np.log(10) * 0.1e-9 / (2 * SDSS_SOFTENING[band]))
        bright, _ = asinh_magnitude(1e4, 1.0, SDSS_SOFTENING[band])
        assert bright == pytest.approx(pogson_magnitude(1e4, 1.0)[0], abs=1e-6)
    # PSFFLUX and PSFMAG of a published object, r and u.
    assert asinh_magnitude(1.3118432, 0.11, SDSS_SOFTENING["r"])[0] == pytest.approx(22.196321, abs=2e-4)
    assert asinh_magnitude(0.04600755, 0.11, SDSS_SOFTENING["u"])[0] == pytest.approx(24.457073, abs=2e-4)
    assert np.isfinite(asinh_magnitude(-0.5, 0.1, 1e-10)[0])
    assert np.isnan(pogson_magnitude(-0.5, 0.1)).all()
    with pytest.raises(InputError, match="softening"):
        asinh_magnitude(1.0, 0.1, 0.0)


@pytest.mark.parametrize("lags", [None, np.array([0.1, 0.5, 1.0, 0.5, 0.1])])
def test_the_error_is_that_of_the_full_covariance(rng, lags):
    wave = np.arange(5000.0, 7600.0, 2.0)
    variance = 1e-2 * (1 + rng.random(wave.size))
    mode = Mode("calibration", 0.5 + rng.random((2, wave.size)), 0.03)
    flux = 3 + rng.random((2, wave.size))
    spectra = spectra_of(flux, variance, wave=wave, correlation=lags, modes=(mode,))
    band = sdss_bandpasses("r")["r"]
    table = synthetic_magnitudes(spectra, {"r": band})
    weights = band.mean_weights(wave)
    weights[weights < 1e-7] = 0
    factor = 1e-17 * band.pivot**2 / SPEED_OF_LIGHT / (AB_ZERO * 1e-9)
    for number in range(2):
        spread = weights * np.sqrt(variance)
        expected = spread @ correlation_matrix(lags, wave.size) @ spread
        expected += (weights @ mode.map[number] * mode.sigma) ** 2
        found = row(table, "r", number)
        assert found["flux"].value == pytest.approx(factor * weights @ flux[number], rel=1e-4)
        assert found["flux_err"].value == pytest.approx(factor * np.sqrt(expected), rel=1e-3)
        assert found["coverage"] == "whole"


def test_pulls_with_correlated_noise_and_lost_channels(rng):
    """Noise that is correlated along wavelength, and channels lost in the band: errors are those of the scatter."""
    n, wave = 600, np.arange(5300.0, 7200.0, 2.0)
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.0) ** 2)
    kernel /= np.sqrt(np.sum(kernel**2))
    noise = np.apply_along_axis(np.convolve, 1, rng.standard_normal((n, wave.size + 8)), kernel, "valid")
    lags = np.convolve(kernel, kernel[::-1])
    true = 5 - (wave - 6200) / 800
    mask = np.zeros((n, wave.size), bool)
    mask[:, 300:380] = True
    spectra = spectra_of(true + noise, 1.0, mask, wave=wave, correlation=lags)
    band = {"r": sdss_bandpasses("r")["r"]}
    whole = row(synthetic_magnitudes(spectra_of(true, wave=wave), band), "r")["flux"]
    table = synthetic_magnitudes(spectra, band)
    assert set(table["coverage"]) == {"partial"}
    pull = ((table["flux"] - whole) / table["flux_err"]).to_value(u.one)
    assert abs(pull.mean()) < 3 / np.sqrt(n)
    assert abs(pull.std() - 1) < 3 / np.sqrt(2 * n)


def test_what_lies_beyond_the_axis_is_judged_by_the_slope(rng):
    """z without its red end: a straight spectrum is measured within its error, whose pull is not above one."""
    n, wave = 300, np.arange(7000.0, 9200.0, 2.0)
    long = np.arange(7000.0, 11500.0, 2.0)
    line = np.polynomial.Polynomial([4.0, 0.6e-3])
    band = {"z": sdss_bandpasses("z")["z"]}
    true = row(synthetic_magnitudes(spectra_of(line(long - 8000), wave=long), band), "z")["flux"]
    noisy = line(wave - 8000) + 0.1 * rng.standard_normal((n, wave.size))
    table = synthetic_magnitudes(spectra_of(noisy, 0.01, wave=wave), band)
    assert set(table["coverage"]) == {"partial"}
    assert 0.6 < table["covered_fraction"][0] < 0.95
    pull = ((table["flux"] - true) / table["flux_err"]).to_value(u.one)
    assert abs(pull.mean()) < 0.3
    # The error allows for lines and breaks that a straight spectrum does not have, so it is too large for this one.
    assert 0.4 < pull.std() < 1.1
    cut = synthetic_magnitudes(spectra_of(noisy, 0.01, wave=wave), band, beyond="none")
    assert np.mean(cut["flux"] / true) < 0.99
    constant = synthetic_magnitudes(spectra_of(noisy, 0.01, wave=wave), band, beyond="constant")
    assert np.all(constant["flux_err"] > table["flux_err"])
    assert np.all(abs(constant["flux"] - true) < 3 * constant["flux_err"])


def test_too_little_of_a_band_is_no_flux():
    wave = np.arange(6000.0, 9000.0, 5.0)
    mask = np.zeros((2, wave.size), bool)
    mask[1, wave > 6800] = True
    table = synthetic_magnitudes(
        spectra_of(np.ones((2, wave.size)), 0.01, mask, wave=wave), sdss_bandpasses()
    )
    for band in "ug":
        assert row(table, band)["coverage"] == "insufficient"
        assert row(table, band)["covered_fraction"] == pytest.approx(0.0, abs=1e-2)
    assert row(table, "i")["coverage"] == "whole"
    lost = row(table, "i", 1)
    assert lost["coverage"] == "insufficient"
    assert 0 < lost["covered_fraction"] < 0.2
    assert all(
        np.isnan(lost[name].value) for name in ("flux", "flux_err", "magnitude", "asinh_magnitude_err")
    )


def test_garbage_under_the_mask_counts_for_nothing():
    data, variance = np.ones((1, WAVE.size)), np.full((1, WAVE.size), 0.01)
    mask = np.zeros(data.shape, bool)
    mask[0, 1100:1120] = True
    clean = synthetic_magnitudes(spectra_of(data, variance, mask), sdss_bandpasses("ri"))
    data[mask], variance[mask] = np.nan, -np.inf
    dirty = synthetic_magnitudes(spectra_of(data, variance, mask), sdss_bandpasses("ri"))
    for name in ("flux", "flux_err"):
        np.testing.assert_array_equal(clean[name].value, dirty[name].value)


def test_zero_points_of_the_survey():
    bands = sdss_bandpasses("griz")
    flat = spectra_of(np.ones(WAVE.size))
    ab = synthetic_magnitudes(flat, bands)["magnitude"].value
    survey = synthetic_magnitudes(flat, bands, system="SDSS")["magnitude"].value
    np.testing.assert_allclose(survey - ab, [0, 0, 0, -0.02], atol=1e-9)


def test_wavelengths_in_air_are_those_of_the_same_light():
    data = 1 + 0.3 * np.sin(WAVE / 40)
    vacuum = synthetic_magnitudes(spectra_of(data), sdss_bandpasses("gri"))
    air = synthetic_magnitudes(
        spectra_of(data, wave=vacuum_to_air(WAVE), medium="air"), sdss_bandpasses("gri")
    )
    np.testing.assert_allclose(air["flux"].value, vacuum["flux"].value, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "options", "error", "text"),
    [
        ({"unit": u.Unit("1e-17 erg / (s cm2 AA arcsec2)")}, {}, UnitError, "surface brightness"),
        ({"unit": u.electron / u.s}, {}, UnitError, "flux density"),
        ({}, {"system": "Vega"}, InputError, "Vega"),
        ({}, {"beyond": "tail"}, InputError, "tail"),
        ({}, {"bandpasses": {}}, InputError, "no band"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, options, error, text):
    options = {"bandpasses": sdss_bandpasses("r"), **options}
    with pytest.raises(error, match=text):
        synthetic_magnitudes(spectra_of(np.ones(WAVE.size), **changes), **options)


def test_bands_of_sdss():
    """Near the wavelengths of the survey (Fukugita et al. 1996); light through the atmosphere is the default."""
    bands = sdss_bandpasses()
    assert list(bands) == list("ugriz")
    pivots = {"u": 3551, "g": 4686, "r": 6166, "i": 7480, "z": 8932}
    for name, pivot in pivots.items():
        assert bands[name].pivot == pytest.approx(pivot, rel=0.015)
    bare = sdss_bandpasses("ug", atmosphere=False)
    assert bare["u"].pivot < bands["u"].pivot
    assert bare["g"].throughput.max() > bands["g"].throughput.max()
    with pytest.raises(InputError, match="no band"):
        sdss_bandpasses("rx")


def test_the_merged_curve_is_the_highest_of_all():
    bands = sdss_bandpasses()
    merged = merged_transmission(bands)
    wave = np.linspace(2900, 11300, 30001)
    naive = np.max([band.throughput_at(wave) for band in bands.values()], axis=0)
    np.testing.assert_allclose(merged.transmission_at(wave), naive, rtol=0, atol=0)
    np.testing.assert_allclose(merged.bandpass.throughput_at(wave), naive, atol=1e-12)
    assert merged.band_at([3500, 4700, 6200, 7500, 9000, 20000]).tolist() == ["u", "g", "r", "i", "z", ""]


def test_a_curve_that_ends_with_a_step_ends_there():
    box = Bandpass(np.array([5000.0, 6000.0]), np.array([0.5, 0.5]), "box")
    hump = Bandpass.gaussian(6500.0, 400.0, name="hump")
    merged = merged_transmission({"box": box, "hump": hump})
    assert merged.bandpass.throughput_at(6000.0) == 0.5
    assert merged.bandpass.throughput_at(6000.1) == pytest.approx(hump.throughput_at(6000.1), abs=1e-5)
    assert merged.bandpass.throughput_at(4999.9) == 0.0
    with pytest.raises(InputError, match="merge"):
        merged_transmission({})


def test_weighting_by_the_transmission_keeps_signal_to_noise(rng):
    data = 5 + rng.random((2, WAVE.size))
    variance = 0.1 + rng.random(data.shape)
    lags = np.array([0.3, 1.0, 0.3])
    mode = Mode("calibration", data, 0.02)
    before = spectra_of(data, variance, correlation=lags, modes=(mode,))
    bands = sdss_bandpasses("gri")
    after = transmission_weighted(before, bands)
    factor = np.max([band.throughput_at(WAVE) for band in bands.values()], axis=0)
    used = after.valid
    assert np.array_equal(used, np.broadcast_to(factor > 0, used.shape))
    np.testing.assert_allclose(after.data[used], (data * factor)[used], rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(after.variance[used]), (np.sqrt(variance) * factor)[used], rtol=1e-12)
    np.testing.assert_array_equal(after.correlation, lags)
    np.testing.assert_allclose(after.modes[0].map, data * factor, rtol=1e-12)
    assert after.meta["transmission"] == ["g", "r", "i"]
    with pytest.raises(InputError, match="through"):
        transmission_weighted(before, {"far": Bandpass.gaussian(20000.0, 100.0, name="far")})
