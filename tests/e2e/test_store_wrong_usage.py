"""What users type wrong at ``skyloom store``: one message that names file, field and remedy, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.inputs.store import small_spectrum, write_files
from typer.testing import CliRunner

import skyloom as sl
from skyloom.cli import app

FIELD, SPECTRUM = "field000", "field004"
WRONG: dict[str, tuple[str, tuple[str, ...]]] = {
    "create on a store": ("create {store}", ("sky", "there is a store already")),
    "create in a folder with files": ("create {files}", ("not empty", "choose an empty or a new folder")),
    "too many levels": ("create {new} --levels 99", ("levels is 99", "expected 1 to 8")),
    "grid upside down": ("create {new} --grid 5000 4000 1e-4", ("common_grid", "start < stop")),
    "unknown compression": ("create {new} --compression zip", ("'zip'", "'lossless' or 'quantised'")),
    "ingest into nothing": ("ingest {new} {files}", ("there is no store", "skyloom store create")),
    "ingest into a packed file": ("ingest {packed} {files}", ("sky.h5", "only the folder of a store")),
    "ingest of nothing": ("ingest {store}", ("no files are given",)),
    "no such file": ("ingest {store} {new}", ("no such file",)),
    "no file fits": ("ingest {store} {files}/x*.fits", ("x*.fits", "there is no FITS file")),
    "no such list": ("ingest {store} --list {new}", ("cannot be read", "No such file")),
    "option without value": ("ingest {store} {files} --option unit", ("--option", "KEY=VALUE")),
    "no store": ("info {new}", ("there is no store", "skyloom store create")),
    "unknown name": ("links {store} field04", ("no observation 'field04'", "did you mean field004")),
    "links of an image": ("links {store} field000", ("field000 is no spectrum",)),
    "cone beyond the pole": ("query {store} --cone 38 95 0.1", ("cone", "expected a position in deg")),
    "cone of no size": ("query {store} --cone 38 0 -1", ("radius of -1.0",)),
    "cone nowhere": ("query {store} --cone nan 0 1", ("cone", "nan")),
    "no such day": ("query {store} --time 2001-13-18 2001-12-19", ("--time", "2001-13-18")),
    "time upside down": ("query {store} --time 2001-12-19 2001-12-18", ("time", "start <= stop")),
    "unknown band": ("query {store} --band q", ("there is no band 'q'", "use one of g, r")),
    "no such map": ("query {store} --moc {new}", ("--moc", "no such file")),
    "no map": ("query {store} --moc {files}/field000.fits", ("cannot be read as a coverage map",)),
    "two forms": ("query {store} --json --csv", ("--json, --csv", "give one of them")),
    "form and file": ("query {store} --json --out {new}.csv", ("--json, --out", "give one of them")),
    "unknown form": ("query {store} --out {new}.xlsx", ("'.xlsx'", ".ecsv, .csv or .json")),
    "cut-out of a spectrum": ("cutout {store} field004", ("field004", "no pixels on the sky")),
    "centre without size": ("cutout {store} field000 --center 10 -5", ("size", "give pixels or an angle")),
    "half a pixel": ("cutout {store} field000 --size 8.5", ("--size", "no whole number")),
    "no pixel": ("cutout {store} field000 --size 0", ("size is 0", "1 to 16384")),
    "no unit of angle": ("cutout {store} field000 --size 8 --unit kpc", ("--unit", "'kpc'")),
    "no such level": ("cutout {store} field000 --level 7", ("no level 7", "use one of 0, 1, 2")),
    "beside the image": (
        "cutout {store} field000 --center 10.5 -5 --size 8",
        ("--center", "no usable pixel at (10.5, -5.0)", "skyloom store query --cone"),
    ),
    "other side of the sky": ("cutout {store} field000 --center 190 5 --size 8", ("too far from the image",)),
    "picture": ("cutout {store} field000 --out {new}.png", ("--out", "FITS file", "name it .fits")),
    "existing file": (
        "cutout {store} field000 --out {files}/field000.fits",
        ("field000.fits", "exists already", "--overwrite"),
    ),
    "no folder": ("cutout {store} field000 --out {new}/cut.fits", ("the folder", "create it first")),
    "spectrum of an image": ("spectrum {store} field000", ("field000 is no spectrum", "use cutout")),
    "native level": (
        "spectrum {store} field004 --level 1 --grid native",
        ("grid", "'native' (level 0 only)"),
    ),
    "mean of nothing": ("stack {store}", ("named, or found by conditions",)),
    "names and conditions": ("stack {store} field000 --band g", ("named, or found by conditions",)),
    "mean of two bands": ("stack {store} field000 field001", ("bands ['g', 'r']", "choose one band")),
    "mean of images and spectra": (
        "stack {store} field000 field004",
        ("kinds", "average images, or spectra"),
    ),
    "photometry of nothing": ("photometry {store}", ("named, or found by conditions",)),
    "photometry of an image": ("photometry {store} field000", ("field000 is no spectrum",)),
    "seeing without fibre": ("photometry {store} field004 --seeing 2", ("--seeing belongs to --fibre",)),
    "no seeing": ("photometry {store} field004 --fibre --seeing bad", ("'bad' is no seeing",)),
    "verify nothing": ("verify {new}", ("there is no store",)),
    "pack over a file": ("pack {store} {packed}", ("sky.h5", "exists already", "choose another name")),
    "a file that is none": (
        "info {files}/field000.fits",
        ("field000.fits", "no store", "skyloom store pack"),
    ),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("usage")
    write_files(folder / "files", 5)
    with sl.store.create(folder / "sky", levels=3) as store:
        store.ingest([folder / "files"])
        store.pack(folder / "sky.h5")
    return {
        "store": folder / "sky",
        "files": folder / "files",
        "packed": folder / "sky.h5",
        "new": folder / "new",
    }


@pytest.mark.parametrize("case", WRONG)
def test_one_message_says_what_and_where(
    case: str, places: dict[str, Path], monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    command, words = WRONG[case]
    before = sorted(places["store"].parent.rglob("*"))
    result = CliRunner().invoke(app, ["store", *command.format(**places).split()])
    assert result.exit_code == 2, (result.output, result.exception)
    message = " ".join(result.output.split())
    for word in words:
        assert word in message, message
    assert "Traceback" not in message
    assert message.count("error:") <= 1
    # Nothing was made, here or there.
    assert sorted(places["store"].parent.rglob("*")) == before
    assert not list(tmp_path.iterdir())


def test_fibres_that_no_image_measured_are_failed_items(places: dict[str, Path], tmp_path: Path) -> None:
    sl.write(sl.read(places["files"] / "field000.fits"), tmp_path / "image.fits")
    spectrum = small_spectrum(1, 10.0, -5.0)
    spectrum.meta["fibre_diameter"] = 2.0
    sl.write(spectrum, tmp_path / "spectrum.fits")
    with sl.store.create(tmp_path / "sky", levels=1) as store:
        store.ingest([tmp_path])
    command = ["store", "photometry", str(tmp_path / "sky"), "spectrum", "--bands", "g", "--fibre"]
    assert CliRunner().invoke(app, command).exit_code == 0
    result = CliRunner().invoke(app, [*command, "--seeing", "2"])
    assert result.exit_code == 4, result.output
    assert "at least 3 tell the seeing" in result.output
