"""``skyloom store dense`` and ``join`` on mock nights: what users type, and what they get."""

from __future__ import annotations

import pytest
from astropy.table import Table
from tests.inputs.dense import flat_image, flat_spectrum, store_of
from typer.testing import CliRunner

from skyloom.cli import app
from skyloom.store.dense import DenseCube


@pytest.fixture(scope="module")
def invoke():
    def run(*arguments, code=0):
        result = CliRunner().invoke(app, ["store", *(str(argument) for argument in arguments)])
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    items = {
        "r1": flat_image(4.0, 10.0, -5.0),
        "g1": flat_image(1.0, 10.0, -5.0, band="g"),
        "a": flat_spectrum(1.0, 10.0, -5.0, plate=266, mjd=51602, fiberid=1),
        "b": flat_spectrum(1.0, 11.0, -5.0, plate=266, mjd=51602, fiberid=2),
    }
    place = tmp_path_factory.mktemp("commands")
    store_of(place, items)
    table = Table({"PLATEID": [266, 266], "MJD": [51602, 51602], "FIBERID": [1, 1], "AVG": [-0.3, 1.0]})
    table.write(place / "sfr.fits")
    Table({"ra": [10.0], "dec": [-5.0], "name": ["one"]}).write(place / "places.csv", format="ascii.csv")
    return place


def test_dense_and_join(folder, invoke, tmp_path):
    out = tmp_path / "cube.h5"
    told = invoke(
        "dense", folder / "sky", out, "--size", 8, "--bands", "gr", "--levels", "0,1",
        "--join", folder / "sfr.fits", "--key", "plate,mjd,fiberid", "--columns", "AVG",
    )  # fmt: skip
    assert "1 of 2 targets found a row; 1 found several; 1 rows repeat others" in told
    assert f"wrote {out}: 2 targets of 4 observations" in told
    cube = DenseCube(out)
    assert (cube.bands, cube.image_levels) == (("g", "r"), (0, 1))
    assert cube.columns["AVG"][list(cube.targets["name"]).index("a")] == -0.3
    assert "exists already" in invoke("dense", folder / "sky", out, code=2)
    told = invoke("join", out, "--join", folder / "places.csv", "--join-radius", 1, "--prefix", "p_")
    assert "1 of 2 targets found a row" in told
    assert sorted(DenseCube(out).columns["p_joined"]) == [0, 1]


def test_targets_of_a_table(folder, invoke, tmp_path):
    invoke("dense", folder / "sky", tmp_path / "c.h5", "--targets", folder / "places.csv", "--size", 4)
    cube = DenseCube(tmp_path / "c.h5")
    assert cube.targets["name"].tolist() == ["one"]
    assert cube[0]["image_0"].shape == (2, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--join", "sfr.fits"], "give --key or --join-radius"),
        (["--key", "plate"], "--key belongs to --join"),
        (["--join", "missing.fits", "--key", "plate"], "there is no such table"),
        (["--join", "sfr.fits", "--key", "swfr"], "the table has no column 'swfr'"),
        (["--join", "sfr.fits", "--key", "AVG"], "no spectrum tells its 'AVG'"),
        (["--join", "sfr.fits", "--key", "plate", "--columns", "MASS"], "no column 'MASS'"),
        (["--levels", "a"], "no list of levels"),
        (["--bands", "xyz"], "the store has no image in the bands x, y, z"),
        (["--targets", "places.csvv"], "there is no such table"),
    ],
)
def test_mistakes_are_told(folder, invoke, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(folder)
    assert reason in " ".join(invoke("dense", "sky", tmp_path / "cube.h5", *arguments, code=2).split())
    assert not list(tmp_path.iterdir())


def test_help_shows_examples(invoke):
    assert "--join sfr.fits --key plate,mjd,fiberid" in invoke("dense", "--help")
    assert "skyloom store join galaxies.h5" in invoke("join", "--help")
