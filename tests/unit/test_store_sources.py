"""Which files are stored, how they are called, when and where they were observed."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.time import Time
from astropy.wcs import WCS

from skyloom.errors import FileFormatError, InputError
from skyloom.store.ingest.footprint import circle_of, footprint_of
from skyloom.store.ingest.locate import base_name
from skyloom.store.ingest.sources import find_files, weight_of
from skyloom.store.ingest.times import times_of
from tests.inputs.store import small_wcs


def test_files_folders_and_wildcards(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    for name in ("b.fits", "a.fits.bz2", ".hidden.fits", "notes.txt"):
        (inner / name).touch()
    (tmp_path / "odd.name").touch()
    names = [path.name for path in find_files([inner, tmp_path / "odd.name", tmp_path / "**" / "b.*"])]
    assert names == ["a.fits.bz2", "b.fits", "odd.name"]
    with pytest.raises(InputError, match="no such file or folder"):
        find_files([tmp_path / "absent"])
    with pytest.raises(InputError, match="no FITS file"):
        find_files([tmp_path / "*.gz"])


def test_weights_beside_images_are_no_images(tmp_path):
    for name in ("a_sci.fits", "a_wht.fits", "b_wht.fits"):
        (tmp_path / name).touch()
    assert [path.name for path in find_files([tmp_path])] == ["a_sci.fits", "b_wht.fits"]
    assert weight_of(tmp_path / "a_sci.fits") == tmp_path / "a_wht.fits"
    assert weight_of(tmp_path / "b_wht.fits") is None


def test_names_of_observations():
    frame = {"ORIGIN": "SDSS", "RUN": 2820, "CAMCOL": 3, "FRAME": 130, "FILTER": "g"}
    assert base_name("anything.fits", frame) == "sdss-002820-3-0122-g"
    spectrum = {"TELESCOP": "SDSS 2.5-M", "PLATEID": 411, "MJD": 51817, "FIBERID": 119}
    assert base_name("renamed.fits", spectrum) == "sdss-0411-51817-0119"
    assert base_name("NGC 628 (r).fits.gz", {}) == "NGC_628_r"


def test_times_in_both_scales():
    header = {"DATE-OBS": "2014-12-08T02:48:56", "EXPTIME": 900.0}
    span = times_of({}, (header,))
    utc = Time("2014-12-08T02:48:56", scale="utc")
    assert span.start == pytest.approx(utc.tai.mjd, abs=1e-9)
    assert span.utc() == pytest.approx((utc.mjd, utc.mjd + 900 / 86400), abs=1e-9)
    in_tai = times_of({}, ({**header, "TIMESYS": "TAI"},))
    assert (span.start - in_tai.start) * 86400 == pytest.approx(35.0, abs=1e-4)
    assert times_of({"time_start": 52000.0, "exposure": 54.0}, (header,)).start == 52000.0
    assert np.isnan(times_of({}, ({},)).start)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"DATE-OBS": "2001-13-45"}, "is no date"),
        ({"DATE-OBS": "2001-12-18", "MJD-OBS": 52000.0}, "DATE-OBS is MJD 52261"),
        ({"DATE-OBS": "2001-12-18", "TIMESYS": "LOCAL"}, "no known time scale"),
    ],
)
def test_times_that_cannot_be(header, reason):
    with pytest.raises(FileFormatError, match=reason):
        times_of({}, (header,))


def test_footprints():
    place = footprint_of(small_wcs(359.9999, 40.0), (24, 20))
    assert place.ra == pytest.approx(359.9999)
    assert place.radius * 3600 == pytest.approx(0.4 * np.hypot(10, 12), rel=1e-6)
    assert place.pixel_scale == pytest.approx(0.4)
    assert len(place.region.split()) == 2 + 8
    galactic = WCS(naxis=2)
    galactic.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
    galactic.wcs.crval = [0.0, 0.0]
    galactic.wcs.crpix = [10.5, 12.5]
    galactic.wcs.cdelt = [-1e-4, 1e-4]
    centre = footprint_of(galactic, (24, 20))
    assert (centre.ra, centre.dec) == pytest.approx((266.40499, -28.93617), abs=1e-4)
    assert circle_of(-1.0, 2.0, 0.0).ra == 359.0
    assert np.isnan(circle_of(np.nan, 2.0, 1.0).ra)
