"""The mock of SDSS keeps its word: light, noise, places, times and spectra are those that it says."""

from __future__ import annotations

from functools import lru_cache

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time

import skyloom as sl
from skyloom.core.noise import autocorrelate
from skyloom.core.psf import GaussianPSF
from skyloom.io.sdss.ccd import BANDS, ccd
from skyloom.mock.sdss.field import NANOMAGGY, sdss_bandpass, sdss_field
from skyloom.mock.sdss.files import write_frame, write_quick_frames, write_spectrum
from skyloom.mock.sdss.frames import EPOCHS, interpolate_sky, noise_kernel, observe_frame
from skyloom.mock.sdss.records import frame_name
from skyloom.mock.sdss.spectra import BOSS, SDSS, fibre_fractions, observe_spectrum

SHAPE = (120, 160)
STAR, GALAXY = 100, 500


@lru_cache(maxsize=1)
def field():
    return sdss_field(3, shape=SHAPE, n_stars=3, n_galaxies=2, spiral=False)


@lru_cache(maxsize=8)
def frame(epoch=0, band="r", correlation=0.0, seed=1):
    return observe_frame(field(), EPOCHS[epoch], band, SHAPE, correlation=correlation, seed=seed)


def pulls(observation):
    return (observation.image.data - observation.truth) / np.sqrt(observation.image.variance)


@pytest.mark.parametrize("band", BANDS)
def test_noise_has_its_variance(band):
    # Counts are Poisson numbers that have been rounded: at 20 of them the fourth moment is 3.1 instead of 3.
    pull = pulls(frame(band=band))
    assert abs(pull.mean()) < 3 / np.sqrt(pull.size)
    assert abs(pull.std() - 1) < 3 * np.sqrt(1.05 / (2 * pull.size))


def test_noise_grows_with_the_light():
    truth = np.full(SHAPE, 3.0)
    bright = observe_frame(field(), EPOCHS[0], "r", SHAPE, truth=truth, seed=2)
    assert np.median(bright.image.variance) > 4 * np.median(frame().image.variance)
    assert abs(pulls(bright).std() - 1) < 3 / np.sqrt(2 * truth.size)


def test_correlated_noise_has_its_variance_and_correlation():
    # The squares of 2 pi 0.8^2 neighbouring pixels count as one: the sum of the squared correlation.
    observation = frame(correlation=0.8)
    pull = pulls(observation)
    assert abs(pull.std() - 1) < 3 / np.sqrt(2 * pull.size / (2 * np.pi * 0.8**2))
    middle = observation.image.correlation.shape[0] // 2
    for dy, dx in ((0, 1), (1, 0), (1, 1), (2, 0), (0, 5)):
        ny, nx = SHAPE
        # Over the measured variance, whose scatter it would share.
        measured = np.mean(pull[: ny - dy, : nx - dx] * pull[dy:, dx:]) / pull.var()
        assert measured == pytest.approx(observation.image.correlation[middle + dy, middle + dx], abs=0.04)
    kernel = noise_kernel(0.8)
    expected = autocorrelate(kernel / np.sqrt(np.sum(kernel**2)))
    np.testing.assert_allclose(observation.image.correlation, expected, atol=1e-12)


def test_counts_are_whole_and_give_the_frame_back():
    observation = frame()
    assert np.array_equal(observation.counts, np.rint(observation.counts))
    sky = interpolate_sky(observation.sky_grid, observation.sky_x, observation.sky_y)
    again = observation.image.data / observation.calibration + sky
    np.testing.assert_allclose(again, observation.counts, atol=1e-3)


def test_light_of_a_star_is_its_flux():
    lonely = sdss_field(3, shape=SHAPE, n_stars=1, n_galaxies=0, spiral=False)
    table = lonely.table()
    for band in ("u", "r", "z"):
        truth = observe_frame(lonely, EPOCHS[1], band, SHAPE, seed=1).truth
        assert truth.sum() == pytest.approx(table[f"flux_{band}"][0].to_value("nmgy"), rel=1e-6)


@pytest.mark.parametrize("sip", [False, True])
def test_stars_lie_where_the_wcs_says(sip):
    lonely = sdss_field(3, shape=SHAPE, n_stars=1, n_galaxies=0, spiral=False)
    observation = observe_frame(lonely, EPOCHS[1], "g", SHAPE, sip=sip, seed=1)
    y, x = np.indices(SHAPE)
    centre = [np.sum(axis * observation.truth) / observation.truth.sum() for axis in (x, y)]
    source = lonely.sources[0]
    sky = observation.image.wcs.pixel_to_world(*centre)
    assert abs(sky.ra.deg - source.ra) * 3600 < 2e-3
    assert abs(sky.dec.deg - source.dec) * 3600 < 2e-3
    straight = observe_frame(lonely, EPOCHS[1], "g", SHAPE, truth=observation.truth, seed=1)
    moved = observation.image.wcs.all_pix2world(0, 0, 0)
    same = np.allclose(moved, straight.image.wcs.all_pix2world(0, 0, 0), rtol=0, atol=0.1 / 3600)
    assert same is not sip


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_written_frame_is_read_back(epoch, tmp_path):
    observation = frame(epoch, "i")
    path = write_frame(tmp_path / (frame_name(EPOCHS[epoch], "i") + ".bz2"), observation)
    image = sl.read(path)
    np.testing.assert_array_equal(image.data, observation.image.data)
    gain, dark = ccd(EPOCHS[epoch].run, 3, "i")
    expected = observation.calibration.astype(float) ** 2 * (observation.counts / gain + dark)
    np.testing.assert_allclose(image.variance, expected, rtol=1e-5)
    assert image.unit == u.nmgy
    for key in ("run", "camcol", "field", "rerun", "band", "exposure", "gain", "dark_variance"):
        assert image.meta[key] == observation.image.meta[key], key
    for key in ("time_start", "time_stop", "row_time"):
        assert image.meta[key] == pytest.approx(observation.image.meta[key], abs=1e-2 / 86400), key
    corners = np.array([[0, 0], [159, 0], [0, 119], [159, 119]])
    distance = image.wcs.all_pix2world(corners, 0) - observation.image.wcs.all_pix2world(corners, 0)
    assert np.abs(distance).max() * 3600 < 1e-6


def test_header_and_table_tell_one_time(tmp_path):
    path = write_frame(tmp_path / frame_name(EPOCHS[0], "r"), frame())
    with fits.open(path) as hdus:
        hdus.verify("exception")
        header, table = hdus[0].header, hdus[3].data
        seconds = Time(f"{header['DATE-OBS']}T{header['TAIHMS']}", scale="tai").mjd * 86400
        assert float(header["TAI"]) == pytest.approx(seconds, abs=0.01)
        assert isinstance(header["EXPTIME"], str)
        assert table["MJD"][0] == pytest.approx(header["TAI"] / 86400, abs=1e-6)
        assert (table["FIELD"][0], table["FILTER"][0]) == (122, "r")


@pytest.mark.parametrize("correlation", [0.0, 0.9, (0.25, 1, 0.25)])
def test_noise_of_spectra(correlation):
    draws = np.array(
        [
            (made.spectra.data[0] - made.truth) / np.sqrt(made.spectra.variance[0])
            for made in (
                observe_spectrum(field(), STAR, SDSS, correlation=correlation, seed=seed)
                for seed in range(10)
            )
        ]
    )
    lags = observe_spectrum(field(), STAR, SDSS, correlation=correlation, seed=1).spectra.correlation
    independent = draws.size / (1.0 if lags is None else lags.sum())
    assert abs(draws.mean()) < 3 / np.sqrt(independent)
    assert abs(draws.std() - 1) < 3 / np.sqrt(2 * independent)
    expected = 0.0 if lags is None else lags[lags.size // 2 + 1]
    assert np.mean(draws[:, 1:] * draws[:, :-1]) == pytest.approx(expected, abs=3 / np.sqrt(independent))


def test_spectrum_of_a_star_has_the_flux_of_the_frames():
    table = field().table()
    for spectrograph in (SDSS, BOSS):
        observation = observe_spectrum(field(), STAR, spectrograph, shift=0.37, seed=1)
        for band in ("r", "i"):
            curve = sdss_bandpass(band)
            synthetic = 1e-17 * curve.mean_flux_density(observation.spectra.wave, observation.truth)
            expected = table[f"flux_{band}"][table["label"] == STAR][0].to_value("nmgy")
            assert synthetic / curve.photflam(NANOMAGGY) == pytest.approx(expected, rel=1e-4)


def test_fibre_takes_the_light_in_its_circle():
    scene = field().scene.select([STAR])
    source = field().source(STAR)
    sigma = 0.6
    share = fibre_fractions(scene, (source.ra, source.dec), 3.0, GaussianPSF.from_sigma(sigma))
    assert share[0] == pytest.approx(1 - np.exp(-0.5 * (1.5 / sigma) ** 2), abs=1e-3)
    beside = fibre_fractions(scene, (source.ra, source.dec + 3.0 / 3600), 3.0, GaussianPSF.from_sigma(sigma))
    assert 0 < beside[0] < 0.02


@pytest.mark.parametrize("spectrograph", [SDSS, BOSS], ids=lambda item: item.name)
def test_a_written_spectrum_is_read_back(spectrograph, tmp_path):
    made = observe_spectrum(field(), GALAXY, spectrograph, plate=4238, mjd=55455, fiber=7, seed=4)
    read = sl.read(write_spectrum(tmp_path / "spec-4238-55455-0007.fits", made))
    good = ~made.spectra.mask
    np.testing.assert_array_equal(read.mask, made.spectra.mask)
    np.testing.assert_allclose(read.data[good], made.spectra.data[good], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(read.variance[good], made.spectra.variance[good], rtol=1e-6)
    np.testing.assert_allclose(read.wave, made.spectra.wave, rtol=1e-12)
    np.testing.assert_allclose(read.lsf, made.spectra.lsf, rtol=1e-5)
    np.testing.assert_array_equal(read.correlation, made.spectra.correlation)
    assert read.meta["fibre_diameter"] == spectrograph.diameter
    assert read.meta["redshift"] == pytest.approx(made.source.redshift, rel=1e-6)
    assert (read.meta["ra"], read.meta["dec"]) == pytest.approx((made.ra, made.dec), abs=1e-9)


def test_many_small_frames(tmp_path):
    paths = write_quick_frames(tmp_path, 3, seed=1, shape=(24, 32))
    centres = [sl.read(path).wcs.wcs.crval[0] for path in paths]
    assert len(set(centres)) == 3
    later = write_quick_frames(tmp_path, 1, seed=1, shape=(24, 32), first=4, stripe=False)
    assert later[0] not in paths
    assert sl.read(later[0]).meta["field"] == 4
