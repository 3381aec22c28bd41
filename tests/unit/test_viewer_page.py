"""The page of the viewer without a browser: two images, what was typed, files that change, the way to the page."""

from __future__ import annotations

import os
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from astropy.io import fits
from bokeh.document import Document

from skyloom.viewer.page import BOTH, fill_page
from skyloom.viewer.panes.image_controls import ImageControls
from skyloom.viewer.protocols import LAYERS, Region
from skyloom.viewer.server import ViewServer
from skyloom.viewer.shelf import Shelf

HERE = Region(np.array([3.0]), np.array([4.0]), "a.fits")


def write(path, level=1.0, shape=(20, 30)):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.full(shape, level, np.float32), name="SCI")]
    fits.HDUList(hdus).writeto(path, overwrite=True)


@pytest.fixture
def page(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.fits")
    return fill_page(Document(), Shelf(tmp_path))


def test_the_second_image_is_made_when_it_is_wanted(page):
    first, second = page.images
    assert not second.layout.children
    page.modes.active = BOTH
    assert second.key == first.key == "a.fits"
    assert second.layout.children
    assert all(link.data["matrix"] for link in page._links)


def test_without_a_first_image_the_second_still_offers_a_choice(tmp_path):
    write(tmp_path / "a.fits")
    write(tmp_path / "b.fits")
    shelf = Shelf(tmp_path)
    (tmp_path / "a.fits").write_bytes(b"")
    page = fill_page(Document(), shelf)
    assert page.images[0].source is None
    assert page.images[0].controls.message.visible
    page.modes.active = BOTH
    second = page.images[1]
    assert second.layout.children
    assert page._widget_style in second.controls.entry.stylesheets
    second.try_to_show("b.fits")
    assert second.source is not None


def test_what_was_shown_before_is_neither_read_out_nor_exported(page):
    first = page.images[0]
    first.shown, first.picture.probe.data = object(), {"values": [np.ones((2, 2))], "unit": ["Jy"]}
    first.try_to_show("b.fits")
    assert first.shown is None
    assert first.picture.probe.data == {"values": []}


def test_a_spectrum_of_a_file_that_was_written_anew_is_refused(page, tmp_path):
    assert page._spectrum_of(HERE) is None
    write(tmp_path / "a.fits", level=2.0, shape=(20, 40))
    assert not page.spectrum.pick(HERE)
    assert "changed since it was opened" in page.spectrum.title.text
    assert "reload the page" in page.spectrum.title.text
    # Opened again, it is what it is.
    page.images[0].show("a.fits")
    assert page._spectrum_of(HERE) is None
    os.remove(tmp_path / "a.fits")
    assert not page.spectrum.pick(HERE)
    assert "No such file" in page.spectrum.title.text


def source(*planes):
    return SimpleNamespace(planes=planes, layers=LAYERS, n_channels=None, title="it", wave=None)


def test_typed_limits_belong_to_their_plane_and_image():
    controls = ImageControls({"images": [("a", "a"), ("b", "b")]}, 1)
    maps = source("HALPHA FLUX", "HALPHA VELOCITY")
    controls.offer("a", maps)
    controls.limits.value, controls.low.value, controls.high.value = "typed", "1", "25"
    controls.plane.value = "1"
    controls.suit(maps)
    assert controls.limits.value == "symmetric"
    controls.limits_for(np.linspace(-300, 200, 50, dtype=np.float32))
    assert controls.low.value != "1"
    controls.plane.value = "0"
    controls.suit(maps)
    assert controls.limits_for(np.zeros(3, np.float32)) == (1.0, 25.0)
    controls.plane.value = "1"
    controls.suit(maps)
    controls.offer("b", source("FLUX"))
    controls.suit(source("FLUX"))
    assert controls.limits.value == "99.5 %"


def test_an_invitation_leads_to_the_page_once(tmp_path):
    write(tmp_path / "a.fits")
    with ViewServer(tmp_path) as server:
        address = server.invitation()
        assert server.token not in address
        with urlopen(address) as answer:
            assert answer.status == 200
            assert answer.url == server.address
        for gone in (address, server.address.replace(server.token, "x")):
            with pytest.raises(HTTPError, match="404"):
                urlopen(gone)
