"""Lists of stars as tables and as regions of DS9."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable, Table

from skyloom.errors import FileFormatError, InputError
from skyloom.io.stars import read_stars

REGIONS = """# Region file format: DS9 version 4.1
global color=green
fk5
circle(10:00:00.0,+02:12:00.0,3") # a star
circle(150.5,2.5,0.1') # another
icrs;circle(151,3,0.001)
polygon(1,2,3,4,5,6)
"""


@pytest.mark.parametrize("suffix", ["ecsv", "fits"])
def test_tables_keep_their_units(tmp_path, suffix):
    table = QTable(
        {"RA": [150.1, 150.2] * u.deg, "DEC": [2.0, 2.1] * u.deg, "radius": [0.01, 0.02] * u.arcmin}
    )
    path = tmp_path / f"stars.{suffix}"
    table.write(path)
    stars = read_stars(path)
    assert stars.colnames == ["ra", "dec", "radius"]
    np.testing.assert_allclose(stars["radius"].to_value(u.arcsec), [0.6, 1.2])
    assert stars["radius"].unit == u.arcsec


def test_plain_numbers_and_other_names(tmp_path):
    path = tmp_path / "gaia.csv"
    Table({"RA_ICRS": [1.0], "DE_ICRS": [2.0], "Gmag": [15.0]}).write(path)
    stars = read_stars(path)
    assert stars["ra"].unit == u.deg
    assert stars["magnitude"][0] == 15.0 * u.mag


def test_circles_of_ds9(tmp_path):
    path = tmp_path / "stars.reg"
    path.write_text(REGIONS)
    stars = read_stars(path)
    np.testing.assert_allclose(stars["ra"].value, [150.0, 150.5, 151.0])
    np.testing.assert_allclose(stars["dec"].value, [2.2, 2.5, 3.0])
    np.testing.assert_allclose(stars["radius"].value, [3.0, 6.0, 3.6])


def test_circles_of_ds9_on_one_line(tmp_path):
    path = tmp_path / "stars.reg"
    path.write_text('fk5;circle(10,20,1");circle(11,20,2") # text={;circle(12,20,1")}\n-circle(13,20,1")\n')
    stars = read_stars(path)
    np.testing.assert_allclose(stars["ra"].value, [10.0, 11.0])
    np.testing.assert_allclose(stars["radius"].value, [1.0, 2.0])


def test_magnitudes_of_any_system_and_gaps(tmp_path):
    path = tmp_path / "stars.csv"
    path.write_text("ra,dec,mag\n1.0,2.0,15\n4.0,5.0,\n")
    np.testing.assert_array_equal(read_stars(path)["magnitude"].value, [15.0, np.nan])
    path = tmp_path / "stars.ecsv"
    QTable({"ra": [1.0] * u.deg, "dec": [2.0] * u.deg, "mag": [20.0] * u.ABmag}).write(path)
    assert read_stars(path)["magnitude"][0] == 20.0 * u.mag


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.reg", "image\ncircle(10,20,3)\n", "frame of pixels"),
        ("b.reg", "circle(10,20,3)\n", "before any frame"),
        ("c.reg", "fk5\nbox(1,2,3,4,5)\n", "no circle"),
        ("d.csv", "ra,radius\n1,2\n", "no column dec"),
        ("e.fits", "nonsense", "is no table of stars"),
        ("f.reg", 'icrs\ncircle(abc,20,1")\n', r"line 2: .*abc"),
        ("g.reg", "icrs\ncircle(10,20, )\n", "line 2: cannot be read"),
        ("h.reg", "icrs\ncircle(10,20,3p)\n", "frame of pixels"),
        ("i.reg", "icrs\ncircle(10,20,3,4)\n", "circle has 4 numbers"),
        ("j.csv", "ra,dec\n12:00:00,20:00:00\n", "column ra holds no numbers .first: 12:00:00"),
    ],
)
def test_problems_are_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_stars(path)


def test_units_that_do_not_fit_and_absent_files(tmp_path):
    path = tmp_path / "stars.ecsv"
    QTable({"ra": [1.0] * u.s, "dec": [2.0] * u.deg}).write(path)
    with pytest.raises(FileFormatError, match="column ra is in s"):
        read_stars(path)
    regions = tmp_path / "stars.reg"
    regions.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="is no text"):
        read_stars(regions)
    with pytest.raises(InputError, match="no such file"):
        read_stars(tmp_path / "absent.ecsv")
