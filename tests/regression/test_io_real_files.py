"""Real HST files: the same numbers and places as astropy reads, and errors that fit the sky."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from tests.inputs.io_objects import assert_same

import skyloom as sl
from skyloom.errors import AssumptionWarning, InputError
from skyloom.io.fits import read_product, write_product
from skyloom.io.images import noise_scale

pytestmark = pytest.mark.data

BANDS = ("f435w", "f606w", "f775w", "f814w", "f850lp", "f105w", "f125w", "f140w", "f160w")
GALAXIES = (3, 15, 37, 912, 919)


def stamp(data_dir, galaxy, band, scale=60):
    folder = data_dir / "hst_udf" / "stamps"
    return folder / f"{galaxy}_{scale}mas_{band}_sci.fits", folder / f"{galaxy}_{scale}mas_{band}_wht.fits"


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("galaxy", GALAXIES)
def test_stamps(galaxy, band, data_dir):
    science, weight = stamp(data_dir, galaxy, band)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = sl.read(science, weight=weight)
    np.testing.assert_array_equal(image.data, fits.getdata(science))
    inverse = fits.getdata(weight).astype(float)
    np.testing.assert_allclose(image.variance[image.valid], 1 / inverse[image.valid], rtol=1e-6)
    np.testing.assert_array_equal(image.mask, ~(inverse > 0))
    assert image.unit == u.electron / u.s
    assert image.meta["band"] == band
    x, y = np.meshgrid([0.0, 50.0, 99.0], [0.0, 50.0, 99.0])
    np.testing.assert_array_equal(
        image.wcs.all_pix2world(x, y, 0), WCS(fits.getheader(science)).all_pix2world(x, y, 0)
    )


@pytest.mark.parametrize("band", BANDS)
def test_noise_scale_of_the_stamps(band, data_dir):
    """Far-apart differences show what the weights are worth: right for ACS; the infra-red ones claim too much noise."""
    scales = []
    for galaxy in GALAXIES:
        image = sl.read(stamp(data_dir, galaxy, band)[0], weight=stamp(data_dir, galaxy, band)[1])
        scales.append(np.sqrt(noise_scale(image.data, image.variance, image.mask)))
    low, high = (0.95, 1.35) if band in BANDS[:5] else (0.4, 0.8)
    assert low < np.median(scales) < high


def test_wfpc2_drizzle_with_sip_left_in_the_weight(data_dir):
    path = data_dir / "hst" / "A478_WFPC2_F814W_cutout.fits"
    with pytest.warns(AssumptionWarning, match="D001WTSC = D001DEXP = 600 s"):
        sl.read(path)
    with pytest.warns(AssumptionWarning, match="exposure map does not say how large"):
        image = sl.read(path, weight_kind="exposure")
    assert image.unit == u.ct / u.s
    assert image.wcs.sip is None
    expected = {
        "photflam": 2.507987e-18,
        "photplam": 7995.937,
        "band": "f814w",
        "exposure": 600.0,
        "ccd_gain": 7.0,
    }
    assert {key: image.meta[key] for key in expected} == expected
    assert image.meta["time"] == "1999-08-18T21:16:13"
    assert image.pixel_scale == pytest.approx(0.1, rel=1e-3)
    assert np.sqrt(noise_scale(image.data, image.variance, image.mask)) == pytest.approx(1.0, abs=1e-3)
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(image.mask, ~(hdus["WHT"].data > 0))


def test_frontier_field_with_rms_map_and_1628_cards(data_dir):
    folder = data_dir / "hst" / "abell2744_f105w"
    science, rms = (folder / f"abell_2744_dwarf_galaxy_f105w{end}.fits.gz" for end in ("", "_rms"))
    image = sl.read(science, weight=rms, weight_kind="rms")
    np.testing.assert_allclose(image.variance, fits.getdata(rms).astype(float) ** 2, rtol=1e-6)
    assert image.meta["photflam"] == pytest.approx(3.03865739999999e-20)
    with pytest.raises(InputError, match="no weight map"):
        sl.read(science)


def test_stars_of_both_scales(data_dir):
    folder = data_dir / "hst_udf" / "psf_stars"
    for scale, size in ((30, 134), (60, 66)):
        star = sl.read(
            folder / f"2_{scale}mas_f814w_sci.fits", weight=folder / f"2_{scale}mas_f814w_wht.fits"
        )
        assert star.shape == (size, size)
        assert star.wcs is None or star.pixel_scale == pytest.approx(scale / 1000, rel=0.01)


def test_nine_bands_of_a_real_galaxy_as_one_product(data_dir, tmp_path):
    images = {
        band: sl.read(stamp(data_dir, 37, band)[0], weight=stamp(data_dir, 37, band)[1]) for band in BANDS
    }
    path = tmp_path / "37.fits"
    write_product(path, images, inside=images["f160w"].data > 0.01, config="objects: [37]")
    for band, image in read_product(path).items():
        assert_same(image, images[band])
    with fits.open(path, checksum=True) as hdus:
        hdus.verify("exception")
        assert len(hdus) == 9 * 5 + 5
