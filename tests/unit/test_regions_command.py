"""``skyloom regions``, and region files where recipes take masks and labels."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from typer.testing import CliRunner

import skyloom as sl
from skyloom.cli import app
from skyloom.core.labels import LabelMap
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.measure.drawn import label_regions, region_mask
from skyloom.io.ds9_regions import parse_regions, read_regions
from skyloom.recipes.halpha.cleaning import read_mask
from skyloom.recipes.ifs.inputs import read_labels
from skyloom.recipes.label_files import grid_of, read_label_file
from tests.inputs.io_objects import make_cube, make_image
from tests.inputs.line import six_bins

TEXT = "image\ncircle(10,12,6.2)\n-circle(10,12,2)\nbox(22,20,8,6,20)\n"


def run(*arguments):
    return CliRunner().invoke(app, ["regions", *map(str, arguments)])


@pytest.fixture
def field(tmp_path, rng):
    (tmp_path / "stars.reg").write_text(TEXT)
    image = make_image(rng, (30, 40))
    sl.write(image, tmp_path / "image.fits")
    return image


def test_a_mask_has_the_pixels_inside(tmp_path, field):
    result = run("mask", tmp_path / "stars.reg", tmp_path / "image.fits", "--out", tmp_path / "mask.fits")
    assert result.exit_code == 0, result.output
    expected = region_mask(parse_regions(TEXT), field)
    np.testing.assert_array_equal(fits.getdata(tmp_path / "mask.fits", "MASK"), expected)
    assert f"{expected.sum()} pixels inside" in result.output
    again = run("mask", tmp_path / "stars.reg", tmp_path / "image.fits", "--out", tmp_path / "mask.fits")
    assert again.exit_code == 2
    labels = sl.read(tmp_path / "mask.fits", instrument="segmentation")
    np.testing.assert_array_equal(labels.labels > 0, expected)


def test_labels_are_read_back(tmp_path, field):
    result = run("labels", tmp_path / "stars.reg", tmp_path / "image.fits", "--out", tmp_path / "l.fits")
    assert result.exit_code == 0, result.output
    assert "2 labels" in result.output
    labels = sl.read(tmp_path / "l.fits")
    assert isinstance(labels, LabelMap)
    np.testing.assert_array_equal(labels.labels, label_regions(parse_regions(TEXT), field).labels)


def test_overlaps_and_empty_regions_are_told(tmp_path, field):
    (tmp_path / "o.reg").write_text("image\ncircle(10,12,6)\ncircle(12,12,6)\ncircle(900,12,6)\n")
    result = run("labels", tmp_path / "o.reg", tmp_path / "image.fits", "--out", tmp_path / "o.fits")
    assert "pixels lie in several regions" in result.output
    assert "no pixel inside: 3" in result.output


def test_bins_are_written_as_outlines(tmp_path):
    bins = six_bins()
    sl.write(bins, tmp_path / "bins.fits")
    result = run("write", tmp_path / "bins.fits", "--out", tmp_path / "bins.reg")
    assert result.exit_code == 0, result.output
    back = label_regions(read_regions(tmp_path / "bins.reg"), (bins.wcs, bins.shape))
    np.testing.assert_array_equal(back.labels, np.maximum(bins.labels, -1))


def test_catalogues_are_written_as_circles(tmp_path):
    QTable({"ra": [1.0, 2.0], "dec": [3.0, 4.0]}).write(tmp_path / "c.ecsv")
    assert "give one for all" in run("write", tmp_path / "c.ecsv", "--out", tmp_path / "c.reg").output
    result = run("write", tmp_path / "c.ecsv", "--out", tmp_path / "c.reg", "--radius", 1.5)
    assert result.exit_code == 0, result.output
    assert [region.sizes for region in read_regions(tmp_path / "c.reg")] == [(1.5,), (1.5,)]


def test_wrong_usage_is_told(tmp_path, field):
    (tmp_path / "bad.reg").write_text("image\npanda(1,2,3)\n")
    result = run("mask", tmp_path / "bad.reg", tmp_path / "image.fits", "--out", tmp_path / "m.fits")
    assert result.exit_code == 2
    assert "bad.reg: line 2" in result.output
    assert not (tmp_path / "m.fits").exists()
    assert "frame is 'b1950'" in run("write", "x", "--out", "y", "--frame", "b1950").output
    assert "no such file" in run("write", tmp_path / "x.fits", "--out", "y").output
    assert "no segmentation map" in run("write", tmp_path / "image.fits", "--out", tmp_path / "y.reg").output


def test_the_grid_of_a_cube_is_that_of_its_spaxels(tmp_path, rng):
    cube = make_cube(rng, (4, 6, 5))
    sl.write(cube, tmp_path / "cube.fits")
    wcs, shape = grid_of(tmp_path / "cube.fits")
    assert shape == (6, 5)
    np.testing.assert_allclose(wcs.all_pix2world(2, 3, 0), cube.wcs.all_pix2world(2, 3, 0), rtol=1e-12)
    QTable({"a": [1]}).write(tmp_path / "t.fits")
    with pytest.raises(InputError, match="no image"):
        grid_of(tmp_path / "t.fits")


def test_recipes_take_regions_as_masks_and_labels(tmp_path, field):
    path = tmp_path / "stars.reg"
    expected = label_regions(parse_regions(TEXT), field).labels
    usable = field.evolve(
        mask=np.zeros(field.shape, bool), data=np.ones(field.shape), variance=np.ones(field.shape)
    )
    np.testing.assert_array_equal(read_mask(path, field).labels > 0, expected > 0)
    np.testing.assert_array_equal(read_labels(path, usable).labels, expected)
    run("labels", path, tmp_path / "image.fits", "--out", tmp_path / "l.fits")
    np.testing.assert_array_equal(read_labels(tmp_path / "l.fits", usable).labels, expected)
    with pytest.raises(ShapeError, match="shape"):
        read_labels(tmp_path / "l.fits", sl.Image(np.ones((3, 3)), np.ones((3, 3)), None, "ct", None))
    (tmp_path / "none.reg").write_text("image\n")
    with pytest.raises(InputError, match=r"none\.reg"):
        read_label_file(tmp_path / "none.reg", field)
