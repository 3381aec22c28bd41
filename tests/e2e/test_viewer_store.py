"""The store in the browser: filters, list, map, spectra with their cut-outs, files of what is seen, saved views."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from tests.browser import ViewerPage, open_browser, open_page, serve_in_process
from tests.inputs.viewer_stores import OBJECTS, make_epoch_store

import skyloom as sl
from skyloom.core.image import Image

pytestmark = pytest.mark.slow
PATIENCE = 60_000


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewerPage]:
    store = make_epoch_store(tmp_path_factory.mktemp("epochs"))
    store.close()
    with (
        open_browser() as browser,
        serve_in_process(store.path) as served,
        open_page(browser, served, width=1500, height=1400) as page,
    ):
        page.wait_for("store-source", "model.data.obs_id.length == 6", PATIENCE)
        yield page


@pytest.fixture(scope="module")
def stored(viewer: ViewerPage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The same observations, to compare with."""
    with make_epoch_store(tmp_path_factory.mktemp("again")) as store:
        yield store


def names(viewer: ViewerPage) -> set[str]:
    return set(viewer.model("store-source", "Array.from(model.data.obs_id)"))


def choose(viewer: ViewerPage, name: str) -> None:
    """Click on a row of the list."""
    if viewer.model("tabs", "model.active") != 1:
        viewer.page.evaluate("Bokeh.documents[0].get_model_by_name('tabs').active = 1")
    viewer.page.locator(".slick-row").filter(has_text=name).locator(".slick-cell").first.click(
        timeout=PATIENCE
    )


def saved(viewer: ViewerPage, act: Callable[[], None], folder: Path) -> Path:
    """Return what the browser saves when something is done."""
    with viewer.page.expect_download(timeout=PATIENCE) as waiting:
        act()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def exported(viewer: ViewerPage, what: str, folder: Path) -> Path:
    viewer.set_value("export-what", what)
    return saved(viewer, lambda: viewer.press("export"), folder)


def load(viewer: ViewerPage, content: bytes) -> None:
    chooser = viewer.page.locator("input[type=file]")
    chooser.set_input_files({"name": "view.json", "mimeType": "application/json", "buffer": content})


def test_filters_narrow_the_list(viewer: ViewerPage) -> None:
    viewer.page.evaluate("Bokeh.documents[0].get_model_by_name('store-kinds').active = [0]")
    viewer.wait_for("store-source", "model.data.obs_id.length == 4", PATIENCE)
    viewer.set_value("store-bands", ["g"])
    viewer.wait_for("store-source", "model.data.obs_id.length == 2", PATIENCE)
    assert names(viewer) == {"first-g", "second-g"}
    assert "2 of 6 observations" in viewer.model("store-count", "model.text")
    viewer.press("store-clear")
    viewer.wait_for("store-source", "model.data.obs_id.length == 6", PATIENCE)
    ra, dec, _ = OBJECTS["star"]
    viewer.set_value("store-radius", 2.0)
    viewer.set_value("store-position", f"{ra} {dec}")
    viewer.wait_for("store-source", "model.data.obs_id.length == 5", PATIENCE)
    assert names(viewer) == {"star", "first-g", "first-r", "second-g", "second-r"}
    viewer.set_value("store-position", "10 95")
    viewer.wait_for("store-message", "model.visible && model.text.includes('no position')", PATIENCE)
    viewer.press("store-clear")
    viewer.wait_for("store-source", "model.data.obs_id.length == 6", PATIENCE)


def test_a_spectrum_comes_with_its_cut_outs(viewer: ViewerPage, stored: Any, tmp_path: Path) -> None:
    choose(viewer, "galaxy")
    viewer.wait_for("store-epochs-source", "model.data.image.length == 4", PATIENCE)
    viewer.wait_for("spectrum-data", "model.data.flux.length > 100", PATIENCE)
    assert "galaxy" in viewer.model("spectrum-title", "model.text")
    captions = viewer.model("store-epochs-source", "Array.from(model.data.caption)")
    assert captions == ["g  2001-12-18", "g  2005-10-28", "r  2001-12-18", "r  2005-10-28"]
    lines = dict(
        viewer.model(
            "spectrum-lines", "Array.from(model.data.key).map((key, i) => [key, model.data.wave[i]])"
        )
    )
    assert lines["Halpha"] == pytest.approx(6564.6 * 1.05, abs=0.5)
    with fits.open(exported(viewer, "spectrum:fits", tmp_path)) as file:
        own = stored.spectrum("galaxy")
        assert np.array_equal(file[1].data["flux"], own.data[0], equal_nan=True)
        assert np.array_equal(file[1].data["wave"], own.wave)


def test_an_image_opens_at_its_level_and_is_exported(viewer: ViewerPage, stored: Any, tmp_path: Path) -> None:
    choose(viewer, "second-r")
    viewer.wait_for("image-data-1", "model.data.image.length == 1", PATIENCE)
    viewer.wait_for("probe-1", "model.data.values.length == 1", PATIENCE)
    assert viewer.model("tabs", "model.active") == 0
    read = sl.read(exported(viewer, "image-1:fits", tmp_path))
    whole = stored.cutout("second-r")
    assert isinstance(read, Image)
    assert np.array_equal(read.data, whole.data, equal_nan=True)
    assert np.array_equal(read.variance, whole.variance, equal_nan=True)
    assert np.array_equal(read.mask, whole.mask)
    assert np.allclose(read.wcs.all_pix2world(5, 9, 0), whole.wcs.all_pix2world(5, 9, 0), atol=1e-10)
    from PIL import Image as Picture

    with Picture.open(exported(viewer, "image-1:png", tmp_path)) as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    # Bright and dark pixels of the colour map, and the white about it.
    assert len(np.unique(colours, axis=0)) > 100
    assert (colours == 255).all(axis=1).mean() > 0.02


def test_a_click_on_the_map_shows_all_epochs_of_the_place(viewer: ViewerPage, tmp_path: Path) -> None:
    viewer.page.evaluate("Bokeh.documents[0].get_model_by_name('tabs').active = 1")
    viewer.wait_for("store-outlines", "Bokeh.index.find_one(model) != null", PATIENCE)
    before = viewer.model("store-epochs-title", "model.text")
    viewer.click_at("store-map", 0.001, 0.001)
    viewer.wait_for("store-epochs-title", f"model.text != {json.dumps(before)}", PATIENCE)
    assert "4 images" in viewer.model("store-epochs-title", "model.text")
    viewer.set_value("store-order", "s_dec")
    viewer.wait_for("store-source", "model.data.dec[0] < model.data.dec[5]", PATIENCE)
    table = Table.read(exported(viewer, "store:vot", tmp_path), format="votable")
    assert np.all(np.diff(table["s_dec"]) >= 0)
    assert len(table) == 6
    with exported(viewer, "store:csv", tmp_path).open(newline="") as file:
        assert [row["obs_id"] for row in csv.DictReader(file)] == table["obs_id"].astype(str).tolist()


def test_a_view_is_saved_and_brought_back(viewer: ViewerPage, tmp_path: Path) -> None:
    viewer.set_value("store-bands", ["r"])
    viewer.wait_for("store-source", "model.data.obs_id.length == 2", PATIENCE)
    choose(viewer, "first-r")
    viewer.wait_for("entry-select-1", "model.value.endsWith('first-r')", PATIENCE)
    view = saved(viewer, lambda: viewer.press("save-view"), tmp_path).read_bytes()
    choose(viewer, "second-r")
    viewer.wait_for("entry-select-1", "model.value.endsWith('second-r')", PATIENCE)
    viewer.press("store-clear")
    viewer.wait_for("store-source", "model.data.obs_id.length == 6", PATIENCE)
    load(viewer, view)
    viewer.wait_for("store-source", "model.data.obs_id.length == 2", PATIENCE)
    viewer.wait_for("entry-select-1", "model.value.endsWith('first-r')", PATIENCE)
    assert names(viewer) == {"first-r", "second-r"}


def test_a_crafted_view_is_refused_and_names_no_path(viewer: ViewerPage) -> None:
    shown = viewer.model("entry-select-1", "model.value")
    crafted = {
        "image-1": {"entry": "../../../etc/passwd"},
        "store": {"chosen": "/etc/passwd"},
        "nothing": {},
    }
    load(viewer, json.dumps({"skyloom_view": 1, "panes": crafted}).encode())
    viewer.wait_for("export-message", "model.visible && model.text.includes('no pane')", PATIENCE)
    told = viewer.model("export-message", "model.text")
    assert "there is no entry" in told
    assert "there is no observation" in told
    assert "/tmp" not in told
    assert viewer.model("entry-select-1", "model.value") == shown
    load(viewer, b"no json")
    viewer.wait_for("export-message", "model.text.includes('cannot be read as JSON')", PATIENCE)


def test_nothing_leaves_the_machine_and_nothing_is_complained_of(viewer: ViewerPage) -> None:
    assert viewer.strange_requests == []
    assert viewer.complaints == []
