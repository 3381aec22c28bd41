"""Drizzled HST images: every way in which they say, or fail to say, what they are."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.errors import (
    AssumptionWarning,
    FileFormatError,
    InputError,
    RepairWarning,
    ShapeError,
    UnitError,
)
from skyloom.io.formats.headers import parse_bunit
from skyloom.io.hst import filter_contradiction
from skyloom.io.images import noise_scale

SHAPE = (20, 24)
GRID = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 53.1,
    "CRVAL2": -27.8,
    "CRPIX1": 10.5,
    "CRPIX2": 3.0,
    "CD1_1": -0.06 / 3600,
    "CD1_2": 0.0,
    "CD2_1": 0.0,
    "CD2_2": 0.06 / 3600,
}
CARDS = {"TELESCOP": "HST", "INSTRUME": "ACS", "DETECTOR": "WFC", "FILTER": "F814W", "BUNIT": "ELECTRONS/S"}


def write_pair(folder, data=None, weight=None, cards=CARDS, weight_cards=GRID, grid=GRID):
    rng = np.random.default_rng(3)
    data = rng.normal(size=SHAPE).astype(">f4") if data is None else data
    weight = np.full(SHAPE, 4.0, ">f4") if weight is None else weight
    science, companion = folder / "3_f814w_sci.fits", folder / "3_f814w_wht.fits"
    fits.PrimaryHDU(data, fits.Header({**grid, **cards})).writeto(science, overwrite=True)
    fits.PrimaryHDU(weight, fits.Header(weight_cards)).writeto(companion, overwrite=True)
    return science, companion


def write_extensions(path, primary, science, weight=None, weight_grid=GRID):
    data = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
    weight = np.full(SHAPE, 4.0, np.float32) if weight is None else weight
    hdus = [
        fits.PrimaryHDU(header=fits.Header(primary)),
        fits.ImageHDU(data, fits.Header({**GRID, **science}), "SCI"),
    ]
    hdus += [
        fits.ImageHDU(weight, fits.Header(weight_grid), "WHT"),
        fits.ImageHDU(np.ones(SHAPE, np.int32), name="CTX"),
    ]
    fits.HDUList(hdus).writeto(path)
    return path


def test_separate_files(tmp_path):
    science, weight = write_pair(tmp_path)
    image = sl.read(science, weight=weight)
    assert image.shape == SHAPE
    assert image.unit == u.electron / u.s
    assert image.data.dtype == np.float32
    assert image.data.dtype.isnative
    assert image.variance.dtype == np.float32
    np.testing.assert_array_equal(image.variance, 0.25)
    assert not image.mask.any()
    assert image.pixel_scale == pytest.approx(0.06)
    assert image.history[0].name == "read_hst"


def test_meta_says_where_it_comes_from(tmp_path):
    numbers = {
        "EXPTIME": "1200.5",
        "PHOTFLAM": 7e-20,
        "PHOTPLAM": 8058.0,
        "EXPSTART": 56000.5,
        "CCDGAIN": 2.0,
    }
    science, weight = write_pair(
        tmp_path, cards={**CARDS, **numbers, "DATE-OBS": "2012-01-02", "TIME-OBS": "03:04:05"}
    )
    meta = sl.read(science, weight=weight).meta
    expected = {
        "telescope": "HST",
        "instrument": "ACS",
        "detector": "WFC",
        "band": "f814w",
        "exposure": 1200.5,
        "photflam": 7e-20,
        "photplam": 8058.0,
        "mjd": 56000.5,
        "ccd_gain": 2.0,
        "time": "2012-01-02T03:04:05",
        "path": str(science),
        "weight_path": str(weight),
        "weight_kind": "inverse_variance",
    }
    assert {key: meta[key] for key in expected} == expected
    assert len(meta["sha256"]) == 64
    assert meta["sha256"] != meta["weight_sha256"]


def test_extensions_of_one_file(tmp_path):
    path = write_extensions(tmp_path / "a_drz.fits", CARDS, {})
    with pytest.raises(UnitError, match="no unit"):
        sl.read(path)  # BUNIT belongs to the extension
    path = write_extensions(tmp_path / "b_drz.fits", CARDS, {"BUNIT": "COUNTS/S", "PHOTFLAM": 2.5e-18})
    image = sl.read(path)
    assert image.unit == u.ct / u.s
    assert image.meta["photflam"] == 2.5e-18
    assert image.meta["band"] == "f814w"


@pytest.mark.parametrize("place", ["primary", "science"])
def test_photflam_wherever_it_stands(place, tmp_path):
    extra = {"PHOTFLAM": 2.5e-18, "PHOTPLAM": 7995.9}
    primary, science = (CARDS | extra, {}) if place == "primary" else (CARDS, extra)
    image = sl.read(write_extensions(tmp_path / "a.fits", primary, {**science, "BUNIT": "e/s"}))
    assert (image.meta["photflam"], image.meta["photplam"]) == (2.5e-18, 7995.9)


@pytest.mark.parametrize(
    ("cards", "band"),
    [
        ({"FILTER": "f435w  "}, "f435w"),
        ({"FILTER1": "F658N", "FILTER2": "CLEAR2L"}, "f658n"),
        ({"FILTER1": "CLEAR1L", "FILTER2": "F435W"}, "f435w"),
        ({"FILTNAM1": "F814W", "FILTNAM2": "", "FILTER1": 38, "FILTER2": 0}, "f814w"),
    ],
)
def test_filters_of_each_camera(cards, band, tmp_path):
    science, weight = write_pair(tmp_path, cards={"TELESCOP": "HST", "BUNIT": "e/s", **cards})
    assert sl.read(science, weight=weight).meta["band"] == band
    assert sl.read(science, weight=weight, band="f000w").meta["band"] == "f000w"


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        *(
            (text, "electron/s")
            for text in ("ELECTRONS/S", "e/s", "E-/S", "electron/s", "Electrons / sec", "electron s-1")
        ),
        *((text, "ct/s") for text in ("COUNTS/S", "counts/s", "cps", "ct s-1", "count/s")),
        *(("ELECTRONS", "electron"), ("COUNTS", "ct"), ("DN", "DN"), ("DN/S", "DN/s"), ("nanomaggy", "nmgy")),
        *(("MJy/sr", "MJy/sr"), ("10**(-20)*erg/s/cm**2/Angstrom", "1e-20 erg/(s cm2 AA)")),
        ("1E-17 erg/s/cm^2/Ang/spaxel", "1e-17 erg/(s cm2 AA)"),
    ],
)
def test_spellings_of_units(text, unit):
    assert parse_bunit(text) == u.Unit(unit)


def test_no_unit_is_said_and_can_be_given(tmp_path):
    science, weight = write_pair(tmp_path, cards={"TELESCOP": "HST"})
    with pytest.raises(
        UnitError, match=r"3_f814w_sci.fits: BUNIT: the header says no unit; pass unit=\"electron/s\""
    ):
        sl.read(science, weight=weight)
    assert sl.read(science, weight=weight, unit="electron/s").unit == u.electron / u.s


def test_unreadable_unit_is_quoted(tmp_path):
    science, weight = write_pair(tmp_path, cards=CARDS | {"BUNIT": "bananas"})
    with pytest.raises(UnitError, match=r"3_f814w_sci.fits.*'bananas'"):
        sl.read(science, weight=weight)
    with pytest.warns(AssumptionWarning, match="BUNIT says 'bananas'; taken as ct / s"):
        assert sl.read(science, weight=weight, unit="ct/s").unit == u.ct / u.s


def test_rms_map(tmp_path):
    science, weight = write_pair(tmp_path, weight=np.full(SHAPE, 0.5, np.float32))
    np.testing.assert_array_equal(sl.read(science, weight=weight, weight_kind="rms").variance, 0.25)


def test_tiny_errors_keep_their_digits(tmp_path):
    rms = np.full(SHAPE, 1.2345e-20, np.float32)
    science, weight = write_pair(tmp_path, data=np.full(SHAPE, 1e-19, np.float32), weight=rms)
    image = sl.read(science, weight=weight, weight_kind="rms")
    np.testing.assert_allclose(image.variance, rms.astype(float) ** 2, rtol=1e-14)


def test_exposure_map_is_scaled_by_the_empty_sky(tmp_path, rng):
    shape, sigma = (120, 130), 3.0
    exposure = np.broadcast_to(np.linspace(100.0, 900.0, shape[1]), shape)
    data = rng.normal(size=shape) * sigma / np.sqrt(exposure) + 0.001 * np.arange(shape[1])
    data[40:60, 40:60] += 1000.0
    science, weight = write_pair(tmp_path, data=data.astype(np.float32), weight=exposure.astype(np.float32))
    with pytest.warns(AssumptionWarning, match="exposure map does not say how large the noise is"):
        image = sl.read(science, weight=weight, weight_kind="exposure")
    np.testing.assert_allclose(image.variance * exposure, sigma**2, rtol=0.06)


def test_noise_scale_ignores_sources_and_correlation(rng):
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.normal(size=(300, 300)), 0.8)
    variance = np.full(noise.shape, noise.var())
    noise[100:160, 100:160] += 50 * noise.std()
    mask = np.zeros(noise.shape, bool)
    assert noise_scale(noise, variance, mask) == pytest.approx(1.0, abs=0.08)
    assert np.isnan(noise_scale(noise, variance, ~mask))


def test_header_that_says_exposure_is_believed_over_the_default(tmp_path):
    cards = CARDS | {"D001WTSC": 600.0, "D001DEXP": 600.0}
    path = write_extensions(tmp_path / "a.fits", cards, {"BUNIT": "COUNTS/S"})
    with pytest.warns(AssumptionWarning, match='D001WTSC = D001DEXP = 600 s.*pass weight_kind="exposure"'):
        sl.read(path)


def test_unusable_pixels_are_masked(tmp_path):
    data, weight = np.ones(SHAPE, np.float32), np.ones(SHAPE, np.float32)
    data[0, 0], data[0, 1] = np.nan, np.inf
    weight[1, 0], weight[1, 1], weight[1, 2] = 0.0, np.nan, np.inf
    image = sl.read(*write_pair(tmp_path, data=data, weight=weight)[:1], weight=tmp_path / "3_f814w_wht.fits")
    assert sorted(map(tuple, np.argwhere(image.mask))) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert image.history[0].parameters["masked"] == 5


def test_negative_weights_are_masked_and_counted(tmp_path):
    weight = np.ones(SHAPE, np.float32)
    weight[2, :3] = -1.0
    science, companion = write_pair(tmp_path, weight=weight)
    with pytest.warns(RepairWarning, match="3 pixels have a negative weight"):
        image = sl.read(science, weight=companion)
    assert image.mask.sum() == 3


def test_bad_planes_are_refused(tmp_path):
    science, weight = write_pair(tmp_path, data=np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(InputError, match=r"3_f814w_sci.fits: every pixel is NaN"):
        sl.read(science, weight=weight)
    science, weight = write_pair(tmp_path, weight=np.zeros(SHAPE, np.float32))
    with pytest.raises(InputError, match=r"no pixel of the weight map .*_wht.fits is positive"):
        sl.read(science, weight=weight)


def test_shapes_that_differ_name_both_files(tmp_path):
    science, weight = write_pair(tmp_path, weight=np.ones((3, 4), np.float32))
    with pytest.raises(
        ShapeError, match=r"_sci.fits has shape \(20, 24\), its weight .*_wht.fits has \(3, 4\)"
    ):
        sl.read(science, weight=weight)


def test_weight_of_another_place_is_refused(tmp_path):
    science, weight = write_pair(tmp_path, weight_cards=GRID | {"CRVAL2": -27.79})
    with pytest.raises(InputError, match="another part of the sky"):
        sl.read(science, weight=weight)


def test_missing_weight_names_the_sibling(tmp_path):
    science, _ = write_pair(tmp_path)
    with pytest.raises(
        InputError, match=r"no weight map.*pass weight=<file> \(there is .*3_f814w_wht.fits\)"
    ):
        sl.read(science)


def test_truncated_and_missing_files(tmp_path):
    science, weight = write_pair(
        tmp_path, data=np.ones((80, 80), np.float32), weight=np.ones((80, 80), np.float32)
    )
    content = science.read_bytes()
    for size in (len(content) - 6000, 4000, 100, 0):
        science.write_bytes(content[:size])
        with pytest.raises(FileFormatError, match=r"3_f814w_sci\.fits"):
            sl.read(science, weight=weight, instrument="hst")
    with pytest.raises(FileFormatError, match=r"absent\.fits: there is no such file"):
        sl.read(tmp_path / "absent.fits", weight=weight)
    (tmp_path / "text.fits").write_text("SIMPLE or not, this is a letter")
    with pytest.raises(FileFormatError, match=r"text\.fits"):
        sl.read(tmp_path / "text.fits")


@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_compressed_files_whole_and_truncated(suffix, tmp_path, rng):
    data = rng.normal(size=(60, 60)).astype(np.float32)
    science, weight = write_pair(tmp_path, data=data, weight=np.ones((60, 60), np.float32))
    packed = tmp_path / f"packed.fits{suffix}"
    with fits.open(science) as hdus:
        hdus.writeto(packed)
    np.testing.assert_array_equal(sl.read(packed, weight=weight).data, data)
    packed.write_bytes(packed.read_bytes()[:6000])
    with pytest.raises(FileFormatError, match=r"packed\.fits"):
        sl.read(packed, weight=weight, instrument="hst")


def test_no_wcs_gives_none(tmp_path):
    science, weight = write_pair(tmp_path, grid={})
    assert sl.read(science, weight=weight).wcs is None


@pytest.mark.parametrize("matrix", [(0.0, 0.0, 0.0, 0.0), (1e-5, 2e-5, 2e-5, 4e-5)])
def test_broken_wcs_is_refused(matrix, tmp_path):
    broken = dict(zip(("CD1_1", "CD1_2", "CD2_1", "CD2_2"), matrix, strict=True))
    science, weight = write_pair(tmp_path, grid=GRID | broken)
    with pytest.raises(FileFormatError, match="world coordinates cannot be read"):
        sl.read(science, weight=weight)


def test_sip_without_coefficients_is_read_as_plain_without_noise(tmp_path):
    grid = GRID | {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"}
    image = sl.read(*write_pair(tmp_path, grid=grid)[:1], weight=tmp_path / "3_f814w_wht.fits")
    assert list(image.wcs.wcs.ctype) == ["RA---TAN", "DEC--TAN"]
    assert image.meta["wcs_notes"] == [
        "CTYPE says -SIP but there are no SIP coefficients: read without distortion"
    ]


def test_real_sip_is_kept(tmp_path):
    sip = {
        "CTYPE1": "RA---TAN-SIP",
        "CTYPE2": "DEC--TAN-SIP",
        "A_ORDER": 2,
        "B_ORDER": 2,
        "A_2_0": 1e-5,
        "B_1_1": 2e-5,
    }
    image = sl.read(*write_pair(tmp_path, grid=GRID | sip)[:1], weight=tmp_path / "3_f814w_wht.fits")
    assert image.wcs.sip.a[2, 0] == 1e-5
    assert "wcs_notes" not in image.meta


def test_old_and_odd_keywords_make_no_noise(tmp_path):
    odd = {"RADECSYS": "FK5", "EQUINOX": "J2000.0", "DATE": "2013-03-22T012:00:00", "DATE-OBS": "22/03/13"}
    image = sl.read(*write_pair(tmp_path, cards=CARDS | odd)[:1], weight=tmp_path / "3_f814w_wht.fits")
    assert image.wcs.wcs.radesys == "FK5"
    assert image.wcs.wcs.equinox == 2000.0


def test_five_thousand_cards(tmp_path):
    science, weight = write_pair(tmp_path)
    with fits.open(science) as hdus:
        header, data = hdus[0].header, hdus[0].data
        for number in range(4960):
            header[f"D{number:04d}VER"[:8]] = ("Callable DRIZZLE", "Drizzle, task version")
        fits.PrimaryHDU(data, header).writeto(science, overwrite=True)
    assert len(fits.getheader(science)) > 4900
    assert sl.read(science, weight=weight).meta["band"] == "f814w"


def test_unknown_instrument_and_option_list_the_known_ones(tmp_path):
    science, weight = write_pair(tmp_path)
    with pytest.raises(
        InputError, match=r"'hubble' is no known instrument; known: .*skyloom, .*hst, segmentation, image"
    ):
        sl.read(science, weight=weight, instrument="hubble")
    with pytest.raises(InputError, match="take no units; known: weight, weight_kind, unit, band"):
        sl.read(science, weight=weight, units="e/s")
    with pytest.raises(InputError, match="use one of inverse_variance, rms, exposure"):
        sl.read(science, weight=weight, weight_kind="sigma")


def test_images_of_other_telescopes(tmp_path):
    science, weight = write_pair(tmp_path, cards={"TELESCOP": "Roman", "BUNIT": "MJy/sr"})
    image = sl.read(science, weight=weight, band="f158")
    assert (image.unit, image.meta["band"]) == (u.MJy / u.sr, "f158")


def test_readers_can_be_registered(tmp_path, monkeypatch):
    from skyloom.io import registry

    monkeypatch.setattr(registry, "_REGISTERED", {})
    science, weight = write_pair(tmp_path)
    registry.register_reader(
        "mine", lambda hdus: "FILTER" in hdus[0].header, lambda path, *, scale=1: (path, scale)
    )
    assert sl.read(science, scale=2) == (science, 2)
    with pytest.raises(InputError, match="take no weight"):
        sl.read(science, weight=weight)
    assert sl.read(science, weight=weight, instrument="hst").shape == SHAPE
    with pytest.raises(InputError, match="reader named 'mine' already"):
        registry.register_reader("mine", lambda _: True, lambda path: path)


def test_a_file_that_nobody_knows(tmp_path):
    fits.PrimaryHDU(np.zeros((2, 3, 4, 5))).writeto(tmp_path / "a.fits")
    with pytest.raises(
        FileFormatError, match=r"no reader knows this kind of file \(extensions: PRIMARY 4-d\)"
    ):
        sl.read(tmp_path / "a.fits")


@pytest.mark.parametrize(
    ("instrument", "detector", "band", "wrong"),
    [
        *(("WFC3", "IR", "f160w", False), ("WFC3", "IR", "f814w", True), ("ACS", "WFC", "f435w", False)),
        *(("ACS", "WFC", "f160w", True), ("WFPC2", "1", "F814W", False), ("WFC3", "UVIS", "FQ508N", False)),
        *(("NICMOS", "3", "f160w", False), ("WFC3", "IR", "", False)),
    ],
)
def test_cameras_and_their_filters(instrument, detector, band, wrong):
    assert (filter_contradiction(instrument, detector, band) is not None) == wrong


def test_the_map_of_a_line_is_no_unknown_filter():
    assert filter_contradiction("ACS", "WFC", "Halpha") is None
    assert "no filter F160W" in str(filter_contradiction("ACS", "WFC", "f160w"))
