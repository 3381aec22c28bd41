"""``skyloom store`` and the recipe ``store`` on small files: what users type, and what they get."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.inputs.store import digests, small_image, write_files
from tests.report_pages import check_page
from typer.testing import CliRunner

import skyloom as sl
from skyloom.cli import app
from skyloom.io.registry import read
from skyloom.recipes.registry import RECIPES
from skyloom.store.files.folder import read_settings


@pytest.fixture(scope="module")
def invoke():
    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    return run


@pytest.fixture(scope="module")
def store(invoke, tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    write_files(folder / "files", 5)
    invoke("store", "create", folder / "sky", "--levels", "3", "--quantum", "0.2")
    output = invoke("store", "ingest", folder / "sky", folder / "files")
    assert "5 new observations" in output
    return folder / "sky"


def test_settings_are_those_of_create(store, invoke):
    settings = read_settings(store)
    assert (settings.levels, settings.quantum, settings.compression) == (3, 0.2, "lossless")
    assert "there is a store already" in invoke("store", "create", store, code=2)


def test_query_by_place_and_band(store, invoke):
    rows = [
        json.loads(line)
        for line in invoke("store", "query", store, "--cone", 10.0, -5.0, 0.1, "--json").splitlines()
    ]
    assert {row["obs_id"] for row in rows} == {"field000", "field003"}
    assert all(row["t_start"] is None for row in rows)
    shown = invoke("store", "query", store, "--kind", "image", "--band", "g")
    assert "field000" in shown
    assert "field001" not in shown
    assert "2 observations" in shown
    assert "no time" in invoke("store", "query", store, "--time", "yesterday", "today", code=2)


def test_query_into_files(store, invoke, tmp_path):
    from astropy.table import QTable

    invoke("store", "query", store, "--out", tmp_path / "all.ecsv")
    table = QTable.read(tmp_path / "all.ecsv")
    assert len(table) == 5
    assert str(table["s_ra"].unit) == "deg"
    assert "no known form" in invoke("store", "query", store, "--out", tmp_path / "all.xlsx", code=2)


def test_cutout_and_spectrum_are_files_that_read_back(store, invoke, tmp_path):
    invoke(
        "store",
        "cutout",
        store,
        "field000",
        "--center",
        10.0,
        -5.0,
        "--size",
        8,
        "--out",
        tmp_path / "c.fits",
    )
    cut = read(tmp_path / "c.fits")
    original = small_image(0)
    assert cut.shape == (8, 8)
    assert cut.unit == original.unit
    # The centre of the image is the corner between four pixels.
    np.testing.assert_array_equal(cut.mask, original.mask[8:16, 6:14])
    np.testing.assert_array_equal(cut.data[cut.valid], original.data[8:16, 6:14][cut.valid])
    invoke("store", "spectrum", store, "field004", "--level", 1, "--out", tmp_path / "s.fits")
    assert read(tmp_path / "s.fits").shape[0] == 1
    assert "did you mean" in invoke("store", "cutout", store, "field00", code=2)


def test_verify_finds_what_was_changed(store, invoke, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    assert "as it was stored" in invoke("store", "verify", copy)
    part = next((copy / "partitions").rglob("*.h5"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 0xFF
    part.write_bytes(content)
    assert part.name in invoke("store", "verify", copy, code=4)


def test_pack_and_info(store, invoke, tmp_path):
    invoke("store", "pack", store, tmp_path / "sky.h5")
    assert "field003" in invoke("store", "query", tmp_path / "sky.h5")
    assert "observations:" in invoke("store", "info", store)


def test_the_recipe_makes_a_store_and_appends_to_it(invoke, tmp_path):
    write_files(tmp_path / "frames", 3)
    config = tmp_path / "store.yaml"
    text = RECIPES["store"].template()
    config.write_text(text.replace("frames/frame-*.fits*", "frames/").replace("  - spectra/\n", ""))
    invoke("run", config)
    store = tmp_path / "store"
    assert len(digests(store)) == 3
    page = check_page(store / "report.html")
    assert "Coverage" in page.text
    (stored,) = [table for table in page.tables if "observations" in {name for name, _ in table.columns}]
    with sl.store.open(store) as content:
        assert sum(float(row[-1][1]) for row in stored.rows) == len(content.images()) == 3
    write_files(tmp_path / "frames", 2, first=3)
    (tmp_path / "frames" / "bad.fits").write_text("no FITS file")
    output = invoke("run", config, code=4)
    assert "2 new observations in" in output
    assert "3 files were stored already, 1 failed" in output
    assert "bad.fits" in output
    assert len(digests(store)) == 5
    output = invoke("run", config, "--set", "layout.levels=3", code=2)
    assert "layout.levels" in output
    assert "the store was made with levels 5" in output
