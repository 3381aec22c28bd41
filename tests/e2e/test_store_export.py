"""``skyloom store export``: what users type, and the files that they get."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits, votable
from astropy.units import UnitsWarning
from astropy.wcs import WCS
from tests.inputs.export_stores import make_odd_store
from typer.testing import CliRunner

from skyloom.cli import app
from skyloom.io.registry import read


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return make_odd_store(tmp_path_factory.mktemp("export"))


@pytest.fixture
def export(odd):
    def run(*arguments, code=0):
        result = CliRunner().invoke(app, ["store", "export", str(odd.path), *map(str, arguments)])
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    return run


def rows_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitsWarning)  # of Angstrom, see test_export_tables
        return votable.parse(path, verify="exception").get_first_table().array


def test_observations_by_conditions(export, tmp_path):
    assert "7 observations" in export(tmp_path / "all.vot")
    assert "2 observations" in export(tmp_path / "some.vot", "--cone", 10.0, -5.0, 0.01, "--kind", "image")
    assert set(rows_of(tmp_path / "some.vot")["obs_id"]) == {"plain", "drift"}
    assert "7 observations" in export(tmp_path / "all.fits")
    assert "7 observations" in export(tmp_path / "all.parquet")
    assert pq.read_table(tmp_path / "all.parquet").num_rows == 7
    assert "5 observations" in export(tmp_path / "sky.hats")


def test_voxels_at_a_level(export, odd, tmp_path):
    output = export(
        tmp_path / "voxels.vot", "--what", "voxels", "--level", 1, "--obs", "plain", "--obs", "fibre"
    )
    n = int((~odd.cutout("plain", level=1).mask).sum() + (~odd.spectrum("fibre", 1).mask).sum())
    assert f"{n} rows of 2 observations" in output
    rows = rows_of(tmp_path / "voxels.vot")
    image = odd.cutout("plain", level=1)
    own = rows["mean"][rows["obs_id"] == "plain"]
    assert np.isclose(own.sum(dtype=float), image.data[~image.mask].sum(dtype=float), rtol=1e-7)


def test_images_with_wcs_and_variance(export, odd, tmp_path):
    output = export(tmp_path / "images", "--what", "images", "--band", "r")
    assert "4 images" in output
    for path in (tmp_path / "images").iterdir():
        image, stored = read(path), odd.cutout(path.stem)
        np.testing.assert_array_equal(image.data[~image.mask], stored.data[~stored.mask])
        np.testing.assert_array_equal(image.variance[~image.mask], stored.variance[~stored.mask])
        np.testing.assert_array_equal(image.mask, stored.mask)
    with fits.open(tmp_path / "images" / "plain.fits") as file:
        assert {"SCI", "VAR", "MASK"} <= {hdu.name for hdu in file}
        place = WCS(file["SCI"].header).all_pix2world(3, 4, 0)
    np.testing.assert_allclose(place, odd.cutout("plain").wcs.all_pix2world(3, 4, 0), rtol=1e-12)
    assert "exist already" in export(tmp_path / "images", "--what", "images", code=2)
    assert "4 images" in export(tmp_path / "images", "--what", "images", "--overwrite")


def test_spectra_and_cubes(export, odd, tmp_path):
    assert "2 spectra" in export(tmp_path / "spectra", "--what", "spectra", "--level", 1)
    np.testing.assert_array_equal(
        read(tmp_path / "spectra" / "fibre.fits").wave, odd.spectrum("fibre", 1).wave
    )
    assert "1 cubes" in export(tmp_path / "cube.fits", "--what", "cubes")
    assert read(tmp_path / "cube.fits").shape == odd.cutout("cube").shape
    message = export(tmp_path / "two.fits", "--what", "spectra", code=2)
    assert "2 observations do not fit into one file" in message


def test_a_packed_store_gives_the_same_voxels(export, odd, tmp_path):
    export(tmp_path / "one.vot", "--what", "voxels")
    packed = odd.pack(tmp_path / "odd.h5")
    arguments = ["store", "export", str(packed), str(tmp_path / "other.vot"), "--what", "voxels"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "other.vot").read_bytes() == (tmp_path / "one.vot").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("t.vot", "--cone", 200.0, 40.0, 0.1), "nothing fulfils the conditions"),
        (("t.vot", "--obs", "plane"), "did you mean"),
        (("t.vot", "--obs", "plain", "--band", "r"), "both observations and conditions"),
        (("t.csv",), "the name does not tell the format"),
        (("t.vot", "--format", "csv"), "no format"),
        (("t.vot", "--what", "pictures"), "cannot be exported"),
        (("t.vot", "--what", "voxels", "--units", "jansky"), "own, f_lambda, surface"),
        (("t.vot", "--what", "voxels", "--units", "f_lambda"), "cannot be turned into"),
        (("t.vot", "--what", "voxels", "--level", 7), "no observation has level 7"),
        (("t.vot", "--level", 1), "has no levels"),
        (("t.vot", "--units", "f_lambda"), "units of observations are their own"),
        (("t.vot", "--what", "images"), "images are written as FITS, not votable"),
        (("images", "--what", "images", "--kind", "spectrum"), "leave it out"),
        (("images", "--what", "images", "--format", "parquet"), "written as FITS"),
        (("none/t.vot",), "does not exist"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(export, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    message = export(*arguments, code=2)
    assert words in " ".join(message.split())
    assert not list(tmp_path.iterdir())


def test_help_has_examples(export):
    assert "--what voxels" in export("--help")
