"""Corrected frames of SDSS: errors, times, and what is refused."""

from __future__ import annotations

import bz2

import astropy.units as u
import numpy as np
import pytest

import skyloom as sl
from skyloom.core.image import Flag
from skyloom.errors import FileFormatError, InputError, ShapeError, UnitError
from skyloom.io.registry import sniff_instrument
from skyloom.io.sdss.frame import PIVOT, WAVE_RANGE, frame_errors, frame_flux_density, read_frame
from tests.inputs.sdss_files import TAI, frame_hdus, sky_by_hand, write


@pytest.fixture
def hdus():
    return frame_hdus()


def test_variance_is_that_of_the_data_model_pixel_by_pixel(tmp_path, hdus):
    image = read_frame(write(tmp_path / "frame.fits", hdus))
    calibration = hdus[1].data.astype(float)
    table = hdus[2].data
    sky = sky_by_hand(table["ALLSKY"][0], table["XINTERP"][0], table["YINTERP"][0])
    counts = hdus[0].data / calibration + sky
    np.testing.assert_allclose(image.variance, calibration**2 * (counts / 4.72 + 1.3225), rtol=2e-6)
    assert image.unit == u.nmgy
    assert not image.mask.any()
    assert image.flags is None


def test_every_step_agrees_with_the_image(tmp_path, hdus):
    path = write(tmp_path / "frame.fits", hdus)
    image, steps = read_frame(path), frame_errors(path)
    np.testing.assert_allclose(steps.sigma**2, image.variance, rtol=2e-6)
    np.testing.assert_allclose(steps.electrons, steps.counts * 4.72)
    np.testing.assert_allclose((steps.counts - steps.sky) * steps.calibration, image.data, atol=1e-9)
    assert np.isnan(steps.error_to_signal[image.data <= 0]).all()
    assert np.isfinite(steps.error_to_signal[image.data > 0]).all()


def test_pull_of_an_empty_mock_frame_is_one(tmp_path):
    image = read_frame(write(tmp_path / "frame.fits", frame_hdus(256, 256, seed=5)))
    pull = image.data / np.sqrt(image.variance)
    n = pull.size
    # The variance follows the pixel's own counts, so high values are divided by larger errors: a shift of the mean by
    # about half the relative error of the counts, and a scatter that is 1 to second order.
    assert abs(pull.mean()) < 0.5 * np.sqrt(1 / (137 * 4.72)) + 3 / np.sqrt(n)
    assert abs(pull.std() - 1) < 3 / np.sqrt(2 * n) + 0.005


def test_the_reader_is_found_and_compression_changes_nothing(tmp_path, hdus):
    path = write(tmp_path / "anything.fits", hdus)
    packed = tmp_path / "anything.fits.bz2"
    packed.write_bytes(bz2.compress(path.read_bytes()))
    assert sniff_instrument(path) == "sdss-frame"
    first, second = sl.read(path), sl.read(packed)
    np.testing.assert_array_equal(first.variance, second.variance)
    assert first.meta["band"] == "r"
    assert first.meta["field"] == 122


def test_rows_have_the_times_of_the_drift_scan(tmp_path, hdus):
    meta = read_frame(write(tmp_path / "frame.fits", hdus)).meta
    row, exposure = 0.026322 / 86400, 53.907456 / 86400
    assert meta["time_start"] == pytest.approx(TAI / 86400 - exposure, abs=1e-9)
    assert meta["time_stop"] == pytest.approx(TAI / 86400 + 31 * row, abs=1e-9)
    assert meta["row_time"] == pytest.approx([TAI / 86400 - exposure / 2, row], abs=1e-9)


def test_the_field_is_counted_from_the_frame_without_the_table_of_the_astrometry(tmp_path):
    hdus = frame_hdus(band="g", gain=3.845)[:3]
    hdus[0].header["FRAME"] = 130
    assert read_frame(write(tmp_path / "frame.fits", hdus)).meta["field"] == 122


def test_less_than_no_counts_is_flagged_and_has_the_error_of_none(tmp_path, hdus):
    hdus[0].data[4, 7] = -5.0
    hdus[0].data[5, 8] = np.nan
    image = read_frame(write(tmp_path / "frame.fits", hdus))
    assert image.flags[4, 7] == Flag.NEGATIVE
    assert np.count_nonzero(image.flags) == 1
    assert image.variance[4, 7] == pytest.approx(hdus[1].data[7] ** 2 * 1.3225, rel=1e-6)
    assert image.mask[5, 8]
    assert np.count_nonzero(image.mask) == 1


def test_flux_density_of_one_nanomaggy(tmp_path, hdus):
    image = read_frame(write(tmp_path / "frame.fits", hdus))
    flux = frame_flux_density(image)
    expected = (1 * u.nmgy).to(u.Jy, u.zero_point_flux(3631 * u.Jy))
    expected = expected.to(flux.unit, u.spectral_density(PIVOT["r"] * u.AA)).value
    np.testing.assert_allclose(flux.data, image.data * expected, rtol=1e-5)
    np.testing.assert_allclose(flux.variance, image.variance * expected**2, rtol=1e-5)
    with pytest.raises(UnitError):
        frame_flux_density(flux)


@pytest.mark.parametrize(("band", "factor"), [("u", 10**0.016), ("z", 10**-0.008)])
def test_zero_points_of_u_and_z_are_brought_to_ab_on_request(tmp_path, band, factor):
    image = read_frame(write(tmp_path / "frame.fits", frame_hdus(band=band)))
    ratio = frame_flux_density(image).data / frame_flux_density(image, ab_offsets=False).data
    np.testing.assert_allclose(ratio, factor, rtol=1e-6)


def test_bands_are_those_of_the_published_response():
    filters = pytest.importorskip("speclite.filters")
    for band in "ugriz":
        curve = filters.load_filter(f"sdss2010-{band}")
        wave, response = curve.wavelength, curve.response
        pivot = np.sqrt(np.trapezoid(response * wave, wave) / np.trapezoid(response / wave, wave))
        inside = wave[response > 0.01 * response.max()]
        assert PIVOT[band] == pytest.approx(pivot, abs=0.1)
        assert WAVE_RANGE[band] == (inside[0], inside[-1])


# ------------------------------------------------------------------------------------------------- what is refused


def refused(path, kind=FileFormatError):
    with pytest.raises(kind) as caught:
        sl.read(path)
    assert caught.value.source == str(path)
    return caught.value


def test_truncated_bz2_is_refused(tmp_path, hdus):
    path = write(tmp_path / "frame.fits", hdus)
    packed = tmp_path / "frame.fits.bz2"
    packed.write_bytes(bz2.compress(path.read_bytes())[:-200])
    assert "truncated or damaged" in str(refused(packed))


@pytest.mark.parametrize(
    ("kept", "field"), [([0], "extension 1"), ([0, 1], "extension 2"), ([0, 2, 3], "extension 1")]
)
def test_missing_extension_is_named(tmp_path, hdus, kept, field):
    path = write(tmp_path / "frame.fits", [hdus[place] for place in kept])
    assert refused(path).field == field


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0, np.inf])
def test_calibration_that_is_not_positive_is_refused(tmp_path, hdus, value):
    hdus[1].data[3] = value
    error = refused(write(tmp_path / "frame.fits", hdus))
    assert "calibration of 1 columns" in str(error)
    assert "column 3" in str(error)


def test_calibration_of_another_length_is_refused(tmp_path, hdus):
    hdus[1].data = hdus[1].data[:-1]
    refused(write(tmp_path / "frame.fits", hdus), ShapeError)


@pytest.mark.parametrize("name", ["XINTERP", "YINTERP"])
def test_sky_vectors_of_another_length_are_refused(tmp_path, hdus, name):
    other = frame_hdus(31 if name == "YINTERP" else 32, 47 if name == "XINTERP" else 48)
    assert refused(write(tmp_path / "frame.fits", [*hdus[:2], other[2]]), ShapeError).field == name


def test_sky_that_is_not_finite_is_refused(tmp_path, hdus):
    hdus[2].data["ALLSKY"][0, 1, 1] = np.nan
    assert refused(write(tmp_path / "frame.fits", hdus)).field == "ALLSKY"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"DATE-OBS": "2001-12-19"}, "contradicts TAI"),
        ({"DATE-OBS": "2001-13-18"}, "no time"),
        ({"TAIHMS": "05:73:24.22"}, "no time"),
        ({"TAIHMS": "06:43:24.22"}, "contradicts TAI"),
        ({"TAI": TAI + 1e9, "DATE-OBS": None}, "not in use"),
        ({"TAI": None, "DATE-OBS": "1958-12-18"}, "not in use"),
    ],
)
def test_wrong_times_are_refused(tmp_path, hdus, changes, words):
    for key, value in changes.items():
        if value is None:
            del hdus[0].header[key]
        else:
            hdus[0].header[key] = value
    error = refused(write(tmp_path / "frame.fits", hdus))
    assert error.field == "DATE-OBS"
    assert words in str(error)


def test_dates_of_early_runs_are_read(tmp_path, hdus):
    hdus[0].header["DATE-OBS"] = "18/12/01"
    assert read_frame(write(tmp_path / "frame.fits", hdus)).meta["time_stop"] > 52261


def test_no_time_at_all_is_no_error(tmp_path, hdus):
    for key in ("TAI", "DATE-OBS"):
        del hdus[0].header[key]
    assert "time_start" not in read_frame(write(tmp_path / "frame.fits", hdus)).meta


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("FILTER", "y", InputError),
        ("CAMCOL", 9, InputError),
        ("RUN", "abc", FileFormatError),
        ("BUNIT", "Jy", UnitError),
    ],
)
def test_unknown_band_column_run_and_unit_are_refused(tmp_path, hdus, key, value, kind):
    hdus[0].header[key] = value
    assert refused(write(tmp_path / "frame.fits", hdus[:3]), kind).field == key


def test_parts_of_two_frames_are_refused(tmp_path, hdus):
    hdus[0].header["RUN"] = 2821
    assert refused(write(tmp_path / "frame.fits", hdus)).field == "RUN"


def test_frame_of_nothing_but_nan_is_refused(tmp_path, hdus):
    hdus[0].data[:] = np.nan
    refused(write(tmp_path / "frame.fits", hdus), InputError)


def test_an_image_of_another_kind_is_no_frame(tmp_path, hdus):
    del hdus[0].header["CAMCOL"]
    with pytest.raises(FileFormatError, match="CAMCOL"):
        read_frame(write(tmp_path / "frame.fits", hdus))
