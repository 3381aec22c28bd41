"""The spectrum pane without a browser: pins, lists, saved views, what is said where there is nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from skyloom.errors import InputError
from skyloom.viewer.panes.spectrum import SpectrumPane
from skyloom.viewer.protocols import Region, SpectrumView
from skyloom.viewer.spectra.regions import rows_of, rows_region

WAVE = np.linspace(6500.0, 6700.0, 101)


def view(title, *, level=1.0, unit="1e-20 erg / (s cm2 Angstrom)", medium="air", redshift=0.01, wave=WAVE):
    flux = np.full(wave.size, level)
    return SpectrumView(
        title, wave, medium, flux, 0.1 * flux, np.zeros(wave.size, bool), unit, model=flux, residual=0 * flux,
        redshift=redshift, numbers=(("redshift", "0.01"), ("Halpha · flux (W)", "3 ± 1 <b>")),
    )  # fmt: skip


def resolve(region):
    """A file of spectra "list", and an image in which columns are spectra of that level."""
    rows = rows_of(region)
    if rows is not None:
        return view(f"{region.entry} {rows[0]}", level=1.0 + rows[0])
    if region.x[0] < 0:
        raise InputError("the file is gone", source="it.fits")
    return None if region.x[0] > 9 else view(f"at {region.x[0]:.0f}", level=region.x[0])


@pytest.fixture
def pane():
    return SpectrumPane(resolve, lambda key: ("a", "b", "c") if key == "list" else ())


def click(x):
    return Region(np.array([float(x)]), np.array([1.0]), "image")


def test_what_cannot_be_shown_is_said(pane):
    pane.pick(click(12))
    assert "no spectrum at this place" in pane.title.text
    pane.pick(click(-1))
    assert "the file is gone" in pane.title.text
    assert pane.view is None
    assert not pane.body.visible


def test_a_saved_view_is_restored(pane):
    pane.pick(click(3))
    pane.pin()
    pane.pick(rows_region([2], "list"))
    pane.frame.active = 1
    pane.figures.main.x_range.start, pane.figures.main.x_range.end = 6480.0, 6520.0
    saved = json.loads(json.dumps(pane.state()))
    other = SpectrumPane(resolve)
    other.restore(saved)
    assert (other.view.title, other.pinned[0].title) == ("list 2", "at 3")
    assert other.state() == saved


def test_no_more_than_six_are_pinned(pane):
    for number in range(8):
        pane.pick(click(number + 1))
        pane.pin()
    assert [item.title for item in pane.pinned] == [f"at {number}" for number in range(3, 9)]
    assert pane.figures.pins[0].data["flux"][0] == 3.0
    pane.scaled.active = True
    np.testing.assert_allclose(pane.figures.pins[0].data["flux"], 8.0)
    pane.clear()
    assert len(pane.figures.pins[0].data["flux"]) == 0


def test_pins_come_to_the_unit_and_medium_of_what_is_shown(pane):
    pane.show(view("wide", unit="1e-17 erg / (s cm2 Angstrom)", medium="vacuum"))
    pane.pin()
    pane.show(view("counts", unit="electron"))
    pane.pin()
    pane.show(view("narrow"))
    first, second = (source.data for source in pane.figures.pins[:2])
    np.testing.assert_allclose(first["flux"], 1000.0)
    np.testing.assert_allclose(first["wave"] - WAVE, -1.8, atol=0.1)
    assert np.isnan(second["flux"]).all()
    assert "another kind of unit" in pane.figures.pin_items[1].label.value


def test_the_zoom_stays_on_the_same_axis(pane):
    pane.show(view("first"))
    pane.figures.main.x_range.start, pane.figures.main.x_range.end = 6550.0, 6570.0
    pane.show(view("second"))
    assert (pane.figures.main.x_range.start, pane.figures.main.x_range.end) == (6550.0, 6570.0)
    pane.show(view("longer", wave=np.linspace(4000.0, 9000.0, 50)))
    assert (pane.figures.main.x_range.start, pane.figures.main.x_range.end) == (4000.0, 9000.0)


def test_files_and_rows_are_chosen_from_lists(pane):
    pane.offer([("list", "a list"), ("other", "another")])
    assert pane.view is None
    assert pane.choice.visible
    pane.files.value = ["list"]
    assert pane.view.title == "list 0"
    assert [name for _, name in pane.list.options] == ["a", "b", "c"]
    pane.list.value = ["1", "2"]
    assert (pane.view.title, [item.title for item in pane.pinned]) == ("list 1", ["list 2"])
    alone = SpectrumPane(resolve, lambda _key: ())
    alone.offer([("single", "one file")])
    assert alone.view.title == "single 0"
    assert not alone.list.visible


def test_text_of_a_file_is_no_markup(pane):
    pane.show(view("<script>alert(1)</script>"))
    assert "<script>" not in pane.title.text + pane.summary.text
    assert "3 ± 1 &lt;b&gt;" in pane.table.text


def test_only_what_is_shown_is_pinned(pane):
    pane.pick(click(3))
    pane.pin()
    pane.pick(rows_region([1], "list"))
    saved = json.loads(json.dumps(pane.state()))
    saved["pinned"][0]["x"] = [-1.0]
    with pytest.raises(InputError, match="1 of its spectra"):
        pane.restore(saved)
    assert pane.view.title == "list 1"
    assert pane.pinned == ()


def test_a_redshift_does_not_stay_for_another_object(pane):
    pane.show(view("known", redshift=0.02))
    assert pane.redshift.value == "0.02"
    pane.show(view("unknown", redshift=None))
    assert pane.redshift.value == ""
    pane.redshift.value = "0.5"
    pane.show(view("another", redshift=None))
    assert pane.redshift.value == "0.5", "what was typed stays"


def test_a_view_without_a_spectrum_does_not_zoom(pane):
    pane.restore({"shown": None, "pinned": []})
    empty = json.loads(json.dumps(pane.state()))
    assert empty["x"] == [0.0, 1.0]
    pane.pick(click(2))
    pane.restore(empty)
    assert pane.figures.main.x_range.end == pytest.approx(6700.0)
