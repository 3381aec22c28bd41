"""What is seen, as files: read back with equal numbers and the same place on the sky."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

import skyloom as sl
from skyloom.core.image import Image
from skyloom.errors import InputError
from skyloom.store import Store
from skyloom.viewer.exports import images as image_exports
from skyloom.viewer.exports.images import Seen, pixels_csv, seen_fits, shown_fits
from skyloom.viewer.exports.lists import list_csv, list_votable
from skyloom.viewer.exports.marks import edge_marks
from skyloom.viewer.exports.spectra import curves_csv, curves_fits
from skyloom.viewer.panes.downloads import file_name
from skyloom.viewer.panes.outline import pixel_edges_of
from skyloom.viewer.planes.blocks import Pixels
from skyloom.viewer.planes.images import ArrayReader, Plane, Planes
from skyloom.viewer.planes.sky import Sky
from skyloom.viewer.planes.store import StorePlanes
from skyloom.viewer.protocols import SpectrumView
from tests.inputs.viewer_stores import OBJECTS, SHAPE, epoch_image, epoch_wcs, make_epoch_store

BOX = (20.4, 60.0, 10.0, 42.0)
SCREEN = (500, 400)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with make_epoch_store(tmp_path_factory.mktemp("epochs")) as opened:
        yield opened


def seen_in_store(store: Store, layer: str = "value", box: tuple[float, ...] = BOX) -> Seen:
    return Seen(StorePlanes(store, "second-r"), layer, 0, None, box, SCREEN)  # type: ignore[arg-type]


def seen_of_file(*, has_errors: bool = True) -> tuple[Seen, Image]:
    image = epoch_image("second", "r")
    reader = ArrayReader(Pixels(image.data, image.variance if has_errors else None, image.mask))
    planes = [Plane("F606W", reader, "nmgy")]
    source = Planes("field", planes, SHAPE, Sky(image.wcs), has_errors=has_errors)
    return Seen(source, "value", 0, None, BOX, SCREEN), image


def on_the_sky(wcs: WCS, x: float, y: float) -> np.ndarray:
    return np.array(wcs.all_pix2world(x, y, 0), dtype=float)


def rows_of(content: bytes) -> list[dict[str, str]]:
    lines = [line for line in content.decode().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def test_a_cut_out_of_a_store_comes_back_whole(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "seen.fits"
    path.write_bytes(seen_fits(seen_in_store(store)))
    read, whole = sl.read(path), store.cutout("second-r")
    assert isinstance(read, Image)
    part = slice(10, 43), slice(20, 61)
    assert np.array_equal(read.data, whole.data[part], equal_nan=True)
    assert np.array_equal(read.variance, whole.variance[part], equal_nan=True)
    assert np.array_equal(read.mask, whole.mask[part])
    assert read.unit == whole.unit
    assert read.meta["band"] == "r"
    assert np.allclose(on_the_sky(read.wcs, 3.0, 4.0), on_the_sky(whole.wcs, 23.0, 14.0), atol=1e-10)


def test_a_cut_out_of_a_file_comes_back_with_its_errors(tmp_path: Path) -> None:
    seen, image = seen_of_file()
    path = tmp_path / "seen.fits"
    path.write_bytes(seen_fits(seen))
    read = sl.read(path)
    assert isinstance(read, Image)
    part = slice(10, 43), slice(20, 61)
    good = ~read.mask
    assert np.array_equal(read.mask, image.mask[part])
    assert np.array_equal(read.data[good], image.data[part][good])
    assert np.allclose(read.variance[good], image.variance[part][good], rtol=1e-6)
    assert read.history[-1].name == "viewer.cutout"
    assert np.allclose(on_the_sky(read.wcs, 0.0, 0.0), on_the_sky(image.wcs, 20.0, 10.0), atol=1e-10)


def test_values_without_errors_are_a_plain_image() -> None:
    seen, image = seen_of_file(has_errors=False)
    with fits.open(io.BytesIO(seen_fits(seen))) as file:
        assert file[0].header["SKYSTEP"] == 1
        values = np.where(image.mask, np.nan, image.data)[10:43, 20:61]
        assert np.array_equal(file[0].data, values, equal_nan=True)
        place = on_the_sky(WCS(file[0].header), 0, 0)
        assert np.allclose(place, on_the_sky(image.wcs, 20, 10), atol=1e-10)


@pytest.mark.parametrize("layer", ["value", "error", "snr", "mask"])
def test_what_is_shown_says_its_level_and_layer(store: Store, layer: str) -> None:
    whole = (-0.5, SHAPE[1] - 0.5, -0.5, SHAPE[0] - 0.5)
    seen = Seen(StorePlanes(store, "second-r"), layer, 0, None, whole, (32, 24))
    view = seen.source.view(layer, box=whole, pixels=(32, 24))
    with fits.open(io.BytesIO(shown_fits(seen))) as file:
        header = file[0].header
        assert (header["SKYLAYER"], header["SKYSTEP"]) == (layer, 4)
        assert np.array_equal(file[0].data, view.values, equal_nan=True)
        # The middle of the first block of four pixels.
        place = on_the_sky(WCS(header), 0.0, 0.0)
        assert np.allclose(place, on_the_sky(store.cutout("second-r").wcs, 1.5, 1.5), atol=1e-9)


def test_what_is_too_large_is_refused_with_a_remedy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_exports, "MOST_PIXELS", 1000)
    for export in (seen_fits, pixels_csv):
        with pytest.raises(InputError, match="too many") as caught:
            export(seen_in_store(store))
        assert "zoom in" in str(caught.value.remedy)


def test_the_pixels_in_view_are_listed_with_all_their_digits(store: Store) -> None:
    rows = rows_of(pixels_csv(seen_in_store(store)))
    image = store.cutout("second-r")
    assert len(rows) == 33 * 41
    for row in rows[::100]:
        x, y = int(row["x"]), int(row["y"])
        assert row["masked"] == str(int(image.mask[y, x]))
        if image.mask[y, x]:
            assert row["value"] == ""
            continue
        assert np.float32(row["value"]) == image.data[y, x]
        assert float(row["error"]) == pytest.approx(np.sqrt(image.variance[y, x]), rel=1e-6)
        place = float(row["ra_deg"]), float(row["dec_deg"])
        assert np.allclose(place, on_the_sky(image.wcs, x, y), atol=1e-9)


def test_only_pixels_inside_what_is_picked_are_listed(store: Store) -> None:
    triangle = (np.array([30.0, 50.0, 30.0]), np.array([12.0, 12.0, 32.0]))
    rows = rows_of(pixels_csv(seen_in_store(store), [triangle]))
    found = {(int(row["x"]), int(row["y"])) for row in rows}
    y, x = np.indices(SHAPE)
    # Those on an edge belong to one side or the other.
    surely = (x > 30) & (y > 12) & ((x - 30) + (y - 12) < 20)
    maybe = (x >= 30) & (y >= 12) & ((x - 30) + (y - 12) <= 20)
    assert {(int(a), int(b)) for b, a in np.argwhere(surely)} <= found
    assert found <= {(int(a), int(b)) for b, a in np.argwhere(maybe)}


def test_the_pixels_of_a_bin_are_listed_with_its_hole_left_out(store: Store) -> None:
    inside = np.zeros(SHAPE, bool)
    inside[12:20, 25:40] = True
    inside[14:16, 30:33] = False
    inside[22, 27] = True
    rows = rows_of(pixels_csv(seen_in_store(store), list(zip(*pixel_edges_of(inside), strict=True))))
    assert {(int(row["y"]), int(row["x"])) for row in rows} == {
        (int(y), int(x)) for y, x in np.argwhere(inside)
    }


def curve(name: str, n: int, **more: object) -> SpectrumView:
    wave = np.linspace(5000.0, 6000.0, n)
    flux = np.sin(wave) + 2.0
    return SpectrumView(
        name, wave, "air", flux, np.full(n, 0.1), wave > 5900, "1e-20 erg/(s cm2 AA)",
        numbers=(("velocity", "12 ± 3 km/s"),), **more,
    )  # fmt: skip


def test_curves_come_back_from_fits_and_csv() -> None:
    first = curve(
        "bin 7", 50, continuum=np.full(50, 2.0), components={"Halpha": np.ones(50)}, residual=np.zeros(50)
    )
    second = curve("bin 9", 20)
    with fits.open(io.BytesIO(curves_fits([first, second]))) as file:
        table = Table.read(file[1])
        assert file[1].header["OBJECT"] == "bin 7"
        assert file[1].header["MEDIUM"] == "air"
        assert np.array_equal(table["flux"], first.flux)
        assert np.array_equal(table["component_Halpha"], np.ones(50))
        assert str(table["wave"].unit) == "Angstrom"
        assert table["flux"].unit.is_equivalent("erg / (s cm2 AA)")
        assert len(file[2].data) == 20
        assert "velocity" in str(file[1].header["COMMENT"])
    rows = rows_of(curves_csv([first, second]))
    assert [row["spectrum"] for row in rows] == ["bin 7"] * 50 + ["bin 9"] * 20
    assert [float(row["flux"]) for row in rows[:50]] == first.flux.tolist()
    assert rows[60]["continuum"] == ""
    assert rows[49]["masked"] in ("1", "1.0")
    for export in (curves_fits, curves_csv):
        with pytest.raises(InputError, match="no spectrum"):
            export([])


def test_the_list_comes_back_from_votable_and_csv(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = store.search(kind="spectrum")[::-1]
    expected = [name.decode() for name in store.column("obs_id", rows).tolist()]
    table = Table.read(io.BytesIO(list_votable(store, rows)), format="votable")
    assert table["obs_id"].astype(str).tolist() == expected
    assert table["s_ra"].tolist() == pytest.approx([OBJECTS[name][0] for name in expected])
    listed = rows_of(list_csv(store, rows))
    assert [row["obs_id"] for row in listed] == expected
    assert [float(row["s_dec"]) for row in listed] == store.index.columns["s_dec"][rows].tolist()
    assert listed[0]["s_resolution"] == ""
    with pytest.raises(InputError, match="empty"):
        list_csv(store, rows[:0])
    monkeypatch.setattr("skyloom.viewer.exports.lists.MOST_ROWS", 1)
    with pytest.raises(InputError, match="too many"):
        list_votable(store, rows)


def test_marks_of_a_picture_stand_where_the_sky_says(store: Store) -> None:
    source = StorePlanes(store, "first-r")
    box = (-0.5, SHAPE[1] - 0.5, -0.5, SHAPE[0] - 0.5)
    top, left = edge_marks(source, box)
    assert len(top) >= 3
    assert len(left) >= 3
    wcs = store.cutout("first-r").wcs
    for place, text in top:
        ra, _ = on_the_sky(wcs, box[0] + place * (box[1] - box[0]), box[3])
        assert ra == pytest.approx(float(text.rstrip("°")), abs=2e-6)
    for place, text in left:
        _, dec = on_the_sky(wcs, box[0], box[2] + place * (box[3] - box[2]))
        assert dec == pytest.approx(float(text.rstrip("°")), abs=2e-6)


@pytest.mark.parametrize(("turn", "is_sky"), [(0.0, True), (90.0, True), (-88.0, True), (45.0, False)])
def test_a_turned_picture_has_marks_of_what_its_edges_follow(turn: float, is_sky: bool) -> None:
    reader = ArrayReader(Pixels(np.zeros(SHAPE), None, None))
    source = Planes("turned", [Plane("r", reader, "")], SHAPE, Sky(epoch_wcs(turn)), has_errors=False)
    box = (-0.5, SHAPE[1] - 0.5, -0.5, SHAPE[0] - 0.5)
    marks = edge_marks(source, box)
    assert all(text.endswith("°") == is_sky for edge in marks for _, text in edge)
    if is_sky:
        top_is_ra = abs(turn) < 45
        for edge, is_top in zip(marks, (True, False), strict=True):
            for place, text in edge:
                x = box[0] + place * (box[1] - box[0]) if is_top else box[0]
                y = box[3] if is_top else box[2] + place * (box[3] - box[2])
                ra, dec = on_the_sky(epoch_wcs(turn), x, y)
                expected = ra if is_top == top_is_ra else dec
                assert expected == pytest.approx(float(text.rstrip("°")), abs=2e-6)


def test_names_of_files_hold_no_path() -> None:
    assert file_name("../../etc/passwd r", ".fits") == "etc-passwd-r.fits"
    assert file_name("a b/c·d", ".csv") == "a-b-c-d.csv"
    assert file_name("···", ".png") == "skyloom.png"
