"""The shelf of the viewer: what a folder offers, and that nothing outside it is ever opened."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.errors import InputError
from skyloom.viewer.panes.image_state import checked
from skyloom.viewer.shelf import Shelf
from tests.conftest import ROOT


def image(path, shape=(20, 30), name="SCI"):
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones(shape, np.float32), name=name)]).writeto(path)
    return path


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "results"
    image(root / "objects" / "a.fits")
    image(root / "cube.fits", (12, 10, 11), "DATA")
    rows = fits.BinTableHDU.from_columns([fits.Column("X", "E", array=np.arange(3.0))], name="ROWS")
    fits.HDUList([fits.PrimaryHDU(), rows]).writeto(root / "table.fits")
    (root / "notes.txt").write_text("no image")
    (root / "broken.fits").write_text("no FITS file")
    image(root / ".hidden.fits")
    image(tmp_path / "secret" / "outside.fits")
    return root


def test_what_a_folder_offers(folder):
    shelf = Shelf(folder)
    assert {entry.key: entry.kind for entry in shelf.entries} == {
        "objects/a.fits": "image",
        "cube.fits": "cube",
        "table.fits": "table",
    }
    assert shelf.entry("objects/a.fits").detail == "30 × 20"
    assert any("broken.fits" in text for text in shelf.left_out)
    assert shelf.open("objects/a.fits").shape == (20, 30)
    assert shelf.open("cube.fits").n_channels == 12


def test_a_second_store_is_named(tmp_path):
    for name in ("north", "south"):
        sl.store.create(tmp_path / name, levels=1)
    shelf = Shelf(tmp_path)
    assert shelf.first("store").title == "north"
    (told,) = shelf.left_out
    assert told.startswith("south: ")
    assert "skyloom view" in told


def test_links_that_lead_outside_are_not_shown(folder):
    (folder / "away.fits").symlink_to(folder.parent / "secret" / "outside.fits")
    (folder / "far").symlink_to(folder.parent / "secret", target_is_directory=True)
    (folder / "near.fits").symlink_to(folder / "objects" / "a.fits")
    shelf = Shelf(folder)
    keys = {entry.key for entry in shelf.entries}
    assert "near.fits" in keys
    assert not any("outside" in key or "away" in key or "far" in key for key in keys)
    assert any("away.fits" in text for text in shelf.left_out)
    assert all(entry.path.is_relative_to(folder) for entry in shelf.entries)


@pytest.mark.parametrize(
    "key",
    [
        "../secret/outside.fits",
        "objects/../../secret/outside.fits",
        "/etc/passwd",
        "objects/./a.fits",
        "",
        "OBJECTS/A.FITS",
        "objects/a.fits\0",
        None,
        7,
        ["objects/a.fits"],
        "x" * 100_000,
    ],
)
def test_keys_are_no_paths(folder, key):
    shelf = Shelf(folder)
    with pytest.raises(InputError, match="no entry"):
        shelf.open(key)
    with pytest.raises(InputError, match="no entry"):
        shelf.entry(key)


def test_a_file_that_has_become_a_link_is_refused(folder):
    shelf = Shelf(folder)
    target = folder / "objects" / "a.fits"
    target.unlink()
    target.symlink_to(folder.parent / "secret" / "outside.fits")
    with pytest.raises(InputError, match="link"):
        shelf.open("objects/a.fits")


def test_a_folder_that_has_become_a_link_is_refused(folder):
    shelf = Shelf(folder)
    image(folder.parent / "secret" / "a.fits")
    (folder / "objects").rename(folder.parent / "gone")
    (folder / "objects").symlink_to(folder.parent / "secret")
    with pytest.raises(InputError, match="link"):
        shelf.open("objects/a.fits")


def test_weights_beside_a_file_are_taken_from_the_folder_only(folder):
    image(folder / "b_sci.fits")
    image(folder.parent / "secret" / "b_wht.fits", name="WHT")
    (folder / "b_wht.fits").symlink_to(folder.parent / "secret" / "b_wht.fits")
    assert "error" not in Shelf(folder).open("b_sci.fits").layers
    (folder / "b_wht.fits").unlink()
    image(folder / "b_wht.fits", name="WHT")
    assert "error" in Shelf(folder).open("b_sci.fits").layers
    # Of a single file, not even what lies beside it.
    assert "error" not in Shelf(folder / "b_sci.fits").open("b_sci.fits").layers


def test_a_named_pipe_is_left_alone(folder):
    os.mkfifo(folder / "pipe.fits")
    assert any("pipe.fits" in text for text in Shelf(folder).left_out)


def test_a_packed_image(folder):
    path = folder / "objects" / "a.fits"
    (folder / "packed.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    shelf = Shelf(folder)
    assert shelf.entry("packed.fits.gz").kind == "image"
    assert shelf.open("packed.fits.gz").shape == (20, 30)


@pytest.mark.parametrize("name", ["nothing", "notes.txt", "empty"])
def test_what_cannot_be_viewed(folder, name):
    (folder / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        Shelf(folder / name)
    assert str(folder / name) in str(caught.value)
    assert caught.value.remedy


def test_planes_of_several_sizes_are_entries_of_their_own(tmp_path):
    hdus = [
        fits.ImageHDU(np.ones(shape, np.float32), name=name)
        for name, shape in (("A_SCI", (20, 20)), ("B_SCI", (40, 30)))
    ]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "two.fits")
    shelf = Shelf(tmp_path)
    assert [entry.detail for entry in shelf.entries] == ["20 × 20", "30 × 40"]
    assert shelf.open("two.fits#1").shape == (40, 30)


def test_own_products(tmp_path, rng):
    data = rng.normal(size=(25, 26)).astype(np.float32)
    made = sl.Image(data, np.ones_like(data), np.zeros(data.shape, bool), "Jy", None)
    sl.write(made, tmp_path / "image.fits")
    planes = Shelf(tmp_path).open("image.fits")
    assert planes.layers == ("value", "error", "snr", "mask")
    assert planes.unit == "Jy"
    shown = planes.view("value", box=(-0.5, 25.5, -0.5, 24.5), pixels=(26, 25))
    np.testing.assert_array_equal(shown.values, data)


@pytest.mark.parametrize(
    "state",
    [
        {"entry": ["a"]},
        {"entry": "x" * 1000},
        {"plane": -1},
        {"plane": True},
        {"layer": "value"},
        {"stretch": "__import__('os')"},
        {"limits": 3},
        {"colours": "<script>"},
        {"range": [1]},
        {"range": [1, None]},
        {"box": [0, 1, 2]},
        {"box": [0, 1, 0, float("nan")]},
        {"box": [1, 0, 0, 1]},
        {"low": 3},
        [],
    ],
)
def test_saved_views_are_checked(state):
    with pytest.raises(InputError):
        checked(state)


def test_a_saved_view_may_leave_out_what_is_usual():
    state = checked({"entry": "a.fits"})
    assert (state.entry, state.plane, state.box) == ("a.fits", 0, None)


def test_nothing_of_the_page_is_imported_before_it_is_asked_for():
    code = "import sys, skyloom, skyloom.cli, skyloom.viewer; print([n for n in ('bokeh', 'h5py') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src"
    )
    assert done.stdout.strip() == "[]"
