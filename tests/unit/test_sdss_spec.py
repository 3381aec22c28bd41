"""Spectra of SDSS: pixels, wavelengths, fibres, times, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.errors import AssumptionWarning, FileFormatError, InputError
from skyloom.io.formats.files import open_fits
from skyloom.io.registry import sniff_instrument
from skyloom.io.sdss.spec import read_sdss_spectrum
from tests.inputs.sdss_files import spectrum_hdus, write


@pytest.fixture
def hdus():
    return spectrum_hdus()


def test_pixels_are_those_of_the_table(tmp_path, hdus):
    path = write(tmp_path / "spec.fits", hdus)
    assert sniff_instrument(path) == "sdss-spec"
    spectrum = sl.read(path)
    table = hdus[1].data
    assert spectrum.shape == (1, 400)
    assert spectrum.medium == "vacuum"
    np.testing.assert_array_equal(spectrum.data[0], table["flux"])
    np.testing.assert_allclose(spectrum.variance[0], 1 / table["ivar"], rtol=1e-6)
    assert spectrum.meta["redshift"] == 0.25
    assert spectrum.meta["class"] == "GALAXY"
    assert (spectrum.meta["ra"], spectrum.meta["dec"]) == (38.301802, -0.13391571)
    assert spectrum.meta["object"] == "3126-54804-0211"


def test_wavelengths_are_double_precision_on_the_grid_of_the_header(tmp_path, hdus):
    spectrum = read_sdss_spectrum(write(tmp_path / "spec.fits", hdus))
    np.testing.assert_allclose(spectrum.wave, 10 ** ((35800 + np.arange(400)) * 1e-4), rtol=1e-14)
    assert np.abs(10.0 ** hdus[1].data["loglam"].astype(float) / spectrum.wave - 1).max() > 1e-8


def test_listed_wavelengths_are_taken_where_the_header_gives_others(tmp_path, hdus):
    hdus[0].header["COEFF0"] = 3.58003
    spectrum = read_sdss_spectrum(write(tmp_path / "spec.fits", hdus))
    np.testing.assert_allclose(spectrum.wave, 10.0 ** hdus[1].data["loglam"].astype(float), rtol=1e-14)


def test_a_gap_in_the_pixels_stays_a_gap(tmp_path, hdus):
    hdus[1] = fits.BinTableHDU(hdus[1].data[np.r_[0:100, 130:400]], name="COADD")
    spectrum = read_sdss_spectrum(write(tmp_path / "spec.fits", hdus))
    places = np.rint(np.log10(spectrum.wave) * 1e4).astype(int)
    assert spectrum.shape == (1, 370)
    assert places[100] - places[99] == 31


def test_line_spread_is_that_of_wdisp_in_angstroms(tmp_path, hdus):
    hdus[1].data["wdisp"][50] = 0.0
    spectrum = read_sdss_spectrum(write(tmp_path / "spec.fits", hdus))
    np.testing.assert_allclose(spectrum.lsf, 0.95 * 1e-4 * np.log(10) * spectrum.wave, rtol=1e-6)


def test_pixels_without_weight_value_or_trust_are_masked(tmp_path, hdus):
    hdus[1].data["ivar"][3] = 0
    hdus[1].data["flux"][5] = np.nan
    hdus[1].data["ivar"][6] = np.nan
    hdus[1].data["and_mask"][7] = 1 << 24
    hdus[1].data["and_mask"][9] = 1 << 23
    hdus[1].data["or_mask"][11] = 1 << 24
    path = write(tmp_path / "spec.fits", hdus)
    spectrum = read_sdss_spectrum(path)
    assert np.flatnonzero(spectrum.mask[0]).tolist() == [3, 5, 6, 7]
    assert spectrum.meta["and_mask"] == {"BRIGHTSKY": 1, "NODATA": 1}
    assert spectrum.meta["or_mask"] == {"NODATA": 1}
    wary = read_sdss_spectrum(path, bad_bits=("BRIGHTSKY",))
    assert np.flatnonzero(wary.mask[0]).tolist() == [3, 5, 6, 9]
    with pytest.raises(InputError, match="BRIGHTSKY"):
        read_sdss_spectrum(path, bad_bits=("DARKSKY",))


@pytest.mark.parametrize(
    ("options", "lags", "source"),
    [
        ({}, [0.25, 1, 0.25], "typical"),
        ({"correlation": "independent"}, None, "independent"),
        ({"correlation": None}, None, "independent"),
        ({"correlation": (0.1, 1, 0.1)}, [0.1, 1, 0.1], "given"),
    ],
)
def test_neighbours_are_correlated_as_in_real_spectra_if_not_said_otherwise(
    tmp_path, hdus, options, lags, source
):
    spectrum = read_sdss_spectrum(write(tmp_path / "spec.fits", hdus), **options)
    assert (None if spectrum.correlation is None else spectrum.correlation.tolist()) == lags
    assert spectrum.meta["correlation_from"] == source


def test_an_unknown_correlation_is_refused(tmp_path, hdus):
    path = write(tmp_path / "spec.fits", hdus)
    with pytest.raises(InputError, match="'typcial' is no correlation"):
        read_sdss_spectrum(path, correlation="typcial")


@pytest.mark.parametrize(
    ("plate", "run2d", "instrument", "diameter", "source"),
    [
        (3126, "104", "SDSS", 3.0, "INSTRUMENT"),
        (4238, "v5_10_0", "BOSS", 2.0, "INSTRUMENT"),
        (4238, "v5_10_0", "", 2.0, "RUN2D"),
        (266, "26", "", 3.0, "RUN2D"),
    ],
)
def test_diameter_of_the_fibre(tmp_path, plate, run2d, instrument, diameter, source):
    hdus = spectrum_hdus(plate=plate, run2d=run2d, instrument=instrument)
    meta = read_sdss_spectrum(write(tmp_path / "spec.fits", hdus)).meta
    assert (meta["fibre_diameter"], meta["fibre_from"]) == (diameter, source)


@pytest.mark.parametrize(("plate", "diameter"), [(3509, 3.0), (3510, 2.0)])
def test_diameter_by_the_plate_is_announced(tmp_path, plate, diameter):
    path = write(tmp_path / "spec.fits", spectrum_hdus(plate=plate, run2d="", instrument=""))
    with pytest.warns(AssumptionWarning, match=f"plate {plate}"):
        assert read_sdss_spectrum(path).meta["fibre_diameter"] == diameter


def test_times_are_those_of_the_nights_or_of_the_exposures(tmp_path, hdus):
    meta = read_sdss_spectrum(write(tmp_path / "nights.fits", hdus)).meta
    assert meta["time_from"] == "nights"
    assert (meta["time_start"], meta["time_stop"]) == pytest.approx((54802.7, 54804.7))
    begin = 54803.4 * 86400
    full = spectrum_hdus(exposures=[(begin, begin + 900), (begin + 1000, begin + 1900)])
    meta = read_sdss_spectrum(write(tmp_path / "full.fits", full)).meta
    assert meta["time_from"] == "exposures"
    assert meta["time_stop"] - meta["time_start"] == pytest.approx(1900 / 86400, abs=1e-9)


# ------------------------------------------------------------------------------------------------- what is refused


def refused(path, kind=FileFormatError):
    with pytest.raises(kind) as caught:
        read_sdss_spectrum(path)
    assert caught.value.source == str(path)
    return caught.value


def test_negative_inverse_variances_are_refused(tmp_path, hdus):
    hdus[1].data["ivar"][[3, 8]] = -0.5
    error = refused(write(tmp_path / "spec.fits", hdus))
    assert error.field == "ivar"
    assert "2 inverse variances are negative" in str(error)


def test_a_spectrum_without_usable_pixels_is_refused(tmp_path, hdus):
    hdus[1].data["ivar"][:] = 0
    refused(write(tmp_path / "spec.fits", hdus), InputError)


def test_a_table_without_inverse_variance_is_refused(tmp_path, hdus):
    columns = fits.ColDefs([column for column in hdus[1].columns if column.name != "ivar"])
    hdus[1] = fits.BinTableHDU.from_columns(columns, name="COADD")
    path = write(tmp_path / "spec.fits", hdus)
    assert sniff_instrument(path) == "sdss-spec"
    assert refused(path).field == "ivar"


def test_a_truncated_file_is_refused(tmp_path, hdus):
    path = write(tmp_path / "spec.fits", hdus)
    path.write_bytes(path.read_bytes()[: 2880 * 4])
    assert "truncated" in str(refused(path))


@pytest.mark.parametrize(("place", "value"), [(5, 3.7), (5, np.nan), (0, 0.0)])
def test_wavelengths_that_do_not_ascend_are_refused(tmp_path, hdus, place, value):
    hdus[1].data["loglam"][place] = value
    assert refused(write(tmp_path / "spec.fits", hdus)).field == "loglam"


def test_a_mean_time_outside_the_nights_is_refused(tmp_path, hdus):
    hdus[0].header["MJDLIST"] = "55803"
    assert refused(write(tmp_path / "spec.fits", hdus)).field == "TAI"


def test_a_file_without_a_spectrum_is_refused(tmp_path, hdus):
    refused(write(tmp_path / "spec.fits", [hdus[0], hdus[2]]))


# ------------------------------------------------------------------------------------------------- columns of tables


def test_columns_agree_with_astropy_whatever_their_type(tmp_path):
    random = np.random.default_rng(3)
    columns = [
        fits.Column("name", "7A", array=["a", "bcd", "efghijk"]),
        fits.Column("bits", "11X", array=random.integers(0, 2, (3, 11)).astype(bool)),
        fits.Column("small", "B", array=[1, 2, 250]),
        fits.Column("unsigned", "J", bzero=2**31, array=np.array([1, 2, 2**32 - 1], np.uint32)),
        fits.Column("long", "K", array=[1, -2, 2**40]),
        fits.Column("cube", "12E", dim="(3,4)", array=random.normal(size=(3, 4, 3))),
        fits.Column("ragged", "PE()", array=np.array([[1.0], [1.0, 2.0], []], dtype=object)),
        fits.Column("yes", "L", array=[True, False, True]),
        fits.Column("last", "D", array=[0.1, 0.2, 0.3]),
    ]
    path = write(
        tmp_path / "table.fits", [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="T")]
    )
    with open_fits(path) as file, fits.open(path) as expected:
        found = file["T"].columns(
            "NAME", "bits", "small", "unsigned", "long", "cube", "yes", "last", "absent"
        )
        assert [text.decode() for text in found.pop("NAME")] == ["a", "bcd", "efghijk"]
        for name, values in found.items():
            np.testing.assert_array_equal(values, expected["T"].data[name])
            assert values.dtype.isnative
        assert "absent" not in found
        assert found["cube"].shape == (3, 4, 3)
        assert file["T"].header["TTYPE9"] == "last"
        assert len(file) == 2


def test_columns_of_what_is_no_table_are_refused(tmp_path):
    path = write(tmp_path / "image.fits", [fits.PrimaryHDU(np.ones((3, 3)))])
    with open_fits(path) as file, pytest.raises(FileFormatError, match="no binary table"):
        file[0].columns("a")
