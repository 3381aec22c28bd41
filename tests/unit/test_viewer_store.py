"""What the viewer shows of a store: filters, list, map, planes of its levels, cut-outs of epochs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from skyloom.errors import InputError
from skyloom.store import Store
from skyloom.viewer.planes.store import StorePlanes
from skyloom.viewer.spectra.store import stored_spectrum
from skyloom.viewer.stores.epochs import cut_stamps, stretched
from skyloom.viewer.stores.filters import Filters, Place, parse_place
from skyloom.viewer.stores.listing import PAGE, Listing, date_text
from skyloom.viewer.stores.projections import (
    Mollweide,
    Projection,
    Tangent,
    field_of,
    projection_for,
    whole_window,
)
from skyloom.viewer.stores.sky_map import box_on_sky, box_outline, drawn, graticule
from tests.inputs.export_stores import make_odd_store
from tests.inputs.viewer_stores import make_epoch_store


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with make_odd_store(tmp_path_factory.mktemp("odd")) as store:
        yield store


@pytest.fixture(scope="module")
def epochs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with make_epoch_store(tmp_path_factory.mktemp("epochs")) as store:
        yield store


# --- filters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("38.33 -0.09", (38.33, -0.09)),
        (" 38.33,-0.09 ", (38.33, -0.09)),
        ("-21.67 -0.09", (338.33, -0.09)),
        ("02:33:19.2 -00:05:24", (38.33, -0.09)),
        ("02h33m19.2s -0d5m24s", (38.33, -0.09)),
        ("02 33 19.2 -00 05 24", (38.33, -0.09)),
    ],
)
def test_positions_are_read_in_degrees_and_in_hours(text: str, place: tuple[float, float]) -> None:
    found = parse_place(text)
    assert found is not None
    assert (found.ra, found.dec) == pytest.approx(place, abs=1e-9)


def test_names_are_no_positions_and_places_off_the_sky_are_refused() -> None:
    assert parse_place("sdss-002820-3-0122-g") is None
    assert parse_place("1 2 3") is None
    with pytest.raises(InputError, match="no position"):
        parse_place("10 95")
    with pytest.raises(InputError, match="no position"):
        parse_place("nan 3")


def test_filters_survive_the_way_through_json() -> None:
    filters = Filters(
        kinds=("image",), bands=("g", "r"), time=(5e4, 5.1e4), wave=(4e3, 5e3), cone=(10.0, -5.0, 0.1)
    )
    assert Filters.from_plain(filters.plain()) == filters
    assert Filters.from_plain({}) == Filters()


@pytest.mark.parametrize(
    "crafted",
    [
        {"time": [2, 1]},
        {"time": [1, None]},
        {"wave": [True, 3]},
        {"cone": [10.0, 95.0, 1.0]},
        {"cone": [10.0, 5.0]},
        {"box": [0.0, 1.0, 5.0, 4.0]},
        {"bands": "g"},
        {"bands": [["g"]]},
        {"kinds": ["table"]},
        {"bands": ["x"] * 300},
        {"path": "/etc/passwd"},
        {"cone": [float("inf"), 0.0, 1.0]},
    ],
)
def test_crafted_filters_are_refused(crafted: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Filters.from_plain(crafted)


# --- the list -----------------------------------------------------------------------------------------------


def test_the_facets_count_what_there_is(odd: Store) -> None:
    listing = Listing(odd)
    facets = listing.facets
    assert facets.kinds == {"image": 4, "cube": 1, "spectrum": 2}
    assert facets.bands == {"r": 4}
    assert listing.instrument_counts() == {"camera": 4, "ifs": 1, "spectrograph": 2}
    assert facets.time is not None
    assert facets.time[0] < facets.time[1]
    assert facets.wave is not None
    assert 3000 < facets.wave[0] < facets.wave[1]


@pytest.mark.parametrize(
    "filters",
    [
        Filters(),
        Filters(kinds=("image", "cube")),
        Filters(instruments=("ifs", "camera")),
        Filters(bands=("r",), time=(55000.0, 55001.0)),
        Filters(wave=(5000.0, 5030.0)),
        Filters(cone=(10.0, -5.0, 0.01), instruments=("spectrograph",)),
        Filters(box=(9.9, 10.1, -5.1, -4.9)),
    ],
)
def test_a_selection_is_what_a_loop_over_all_observations_finds(odd: Store, filters: Filters) -> None:
    listing = Listing(odd)
    table = odd.observations()
    naive = []
    for row in range(len(odd)):
        own = table[row]
        passes = not filters.kinds or own["dataproduct_type"] in filters.kinds
        passes &= not filters.bands or own["band"] in filters.bands
        passes &= not filters.instruments or own["instrument_name"] in filters.instruments
        if filters.time is not None:
            passes &= own["t_stop"].value >= filters.time[0] and own["t_start"].value <= filters.time[1]
        if filters.wave is not None:
            shortest, longest = (own[name].to_value("AA") for name in ("em_min", "em_max"))
            passes &= longest >= filters.wave[0] and shortest <= filters.wave[1]
        for region in (filters.cone, filters.box):
            # All but one of those that have a place lie in these regions.
            passes &= region is None or abs(own["s_ra"].value - 10.0) < 1.0
        if bool(passes):
            naive.append(row)
    assert listing.select(filters).tolist() == naive


def test_a_band_that_is_not_there_is_named(odd: Store) -> None:
    with pytest.raises(InputError, match="no band 'Y'"):
        Listing(odd).select(Filters(bands=("Y",)))


@pytest.mark.parametrize("by", ["t_start", "s_dec", "em_min", "pixel_scale", "band"])
def test_an_order_puts_what_is_unknown_last_both_ways(odd: Store, by: str) -> None:
    listing, rows = Listing(odd), np.arange(len(odd))
    for descending in (False, True):
        ordered = listing.ordered(rows, by, descending)
        assert sorted(ordered.tolist()) == rows.tolist()
        if by != "band":
            values = odd.index.columns[by][ordered]
            known = values[np.isfinite(values)]
            assert np.isfinite(values[: known.size]).all()
            assert np.all(np.diff(known) <= 0 if descending else np.diff(known) >= 0)
    with pytest.raises(InputError, match="cannot be ordered"):
        listing.ordered(rows, "path")


def test_the_table_sends_plain_values_and_nothing_for_what_is_unknown(odd: Store) -> None:
    import json

    table = Listing(odd).table(np.arange(len(odd)))
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    assert set(table["obs_id"]) == {
        name.decode() for name in odd.column("obs_id", np.arange(len(odd))).tolist()
    }
    assert {len(column) for column in table.values()} == {len(odd)}
    lost = table["obs_id"].index("lost")
    assert table["ra"][lost] is None
    assert table["dec"][lost] is None
    assert PAGE <= 2000


def test_dates_are_those_of_the_calendar() -> None:
    assert date_text(51544.0) == "2000-01-01"
    assert date_text(51544.5, clock=True) == "2000-01-01 12:00"
    assert date_text(float("nan")) == ""


# --- the map ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projection", [Tangent(10.0, -5.0), Tangent(0.0, 89.9), Mollweide(15.0)])
def test_a_projection_goes_there_and_back(projection: Projection, rng: np.random.Generator) -> None:
    if isinstance(projection, Mollweide):
        ra, dec = rng.uniform(0, 360, 500), rng.uniform(-80, 80, 500)
    else:
        ra, dec = projection.backward(rng.uniform(-3, 3, 500), rng.uniform(-3, 3, 500))
    x, y = projection.forward(ra, dec)
    back_ra, back_dec = projection.backward(x, y)
    assert np.allclose((back_ra - ra + 180) % 360 - 180, 0.0, atol=1e-4)
    assert np.allclose(back_dec, dec, atol=1e-4)


def test_east_is_on_the_left_and_equal_areas_are_equal() -> None:
    for projection in (Tangent(10.0, 0.0), Mollweide(10.0 % 360)):
        assert float(projection.forward(10.1, 0.0)[0]) < 0 < float(projection.forward(10.0, 0.1)[1])
    # Boxes of one degree at the equator and at 60 deg: areas as the cosine.
    whole = Mollweide(0.0)
    areas = []
    for dec in (0.0, 60.0):
        x, y = whole.forward([1.0, 0.0, 0.0, 1.0], [dec - 0.5, dec - 0.5, dec + 0.5, dec + 0.5])
        areas.append(0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
    assert areas[1] / areas[0] == pytest.approx(np.cos(np.radians(60.0)), rel=1e-3)


def test_the_field_of_observations_on_both_sides_of_zero_is_small() -> None:
    ra, dec, radius = field_of(np.array([359.9, 0.1, 0.0]), np.zeros(3), np.full(3, 0.05))
    assert (ra + 180) % 360 - 180 == pytest.approx(0.0, abs=1e-6)
    assert dec == pytest.approx(0.0, abs=1e-6)
    assert radius == pytest.approx(0.15, abs=1e-3)
    assert isinstance(projection_for(ra, dec, radius), Tangent)
    assert isinstance(
        projection_for(*field_of(np.arange(0.0, 360.0), np.zeros(360), np.zeros(360))), Mollweide
    )
    assert isinstance(
        projection_for(*field_of(np.array([np.nan]), np.array([np.nan]), np.zeros(1))), Mollweide
    )


def test_a_map_shows_each_outline_once_and_counts_where_there_is_too_much(
    odd: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(len(odd))
    place = field_of(*(odd.index.columns[name][rows] for name in ("s_ra", "s_dec", "radius")))
    projection = projection_for(*place)
    window = whole_window(projection, place[2], 2.0)
    few = drawn(odd, rows, projection, window)
    placed = int((odd.index.columns["healpix"] >= 0).sum())
    assert few.total == placed
    assert not few.cells
    assert sum(few.outline_counts) + few.point_rows.size == placed
    monkeypatch.setattr("skyloom.viewer.stores.sky_map.MOST_OUTLINES", 2)
    many = drawn(odd, rows, projection, window)
    assert not many.outlines
    assert sum(many.counts) == placed
    assert drawn(odd, rows[:0], projection, window).total == 0


def test_a_box_drawn_on_the_map_holds_what_is_in_it(rng: np.random.Generator) -> None:
    for projection, window in (
        (Tangent(0.05, -5.0), (-0.2, 0.3, -0.1, 0.1)),
        (Tangent(10.0, 89.9), (-0.5, 0.5, -0.3, 0.4)),
        (Mollweide(180.0), (-40.0, 30.0, -20.0, 50.0)),
    ):
        x, y = rng.uniform(*window[:2], 300), rng.uniform(*window[2:], 300)
        ra, dec = projection.backward(x, y)
        box = box_on_sky(projection, window)
        assert box is not None
        ra_min, ra_max, dec_min, dec_max = box
        width = 360.0 if ra_max - ra_min >= 360 else (ra_max - ra_min) % 360
        assert np.all((ra - ra_min) % 360 <= width + 1e-6)
        assert np.all((dec >= dec_min - 1e-6) & (dec <= dec_max + 1e-6))
        assert np.isfinite(box_outline(projection, box)).all() or isinstance(projection, Tangent)
    assert box_on_sky(Mollweide(0.0), (155.0, 160.0, 70.0, 80.0)) is None


def test_the_numbers_of_a_graticule_stand_at_its_edges() -> None:
    window = (-0.2, 0.2, -0.1, 0.1)
    lines = graticule(Tangent(359.95, -5.0), window)
    assert len(lines.lines) >= 8
    assert len(lines.labels) >= 8
    assert all(x == window[0] or y == window[2] for x, y, _ in lines.labels)
    assert any(text.startswith("0.0") for _, _, text in lines.labels)
    assert len(graticule(Mollweide(180.0), (-170, 170, -90, 90)).lines) == 13 + 5


# --- planes and spectra -------------------------------------------------------------------------------------


def test_a_view_reads_the_level_that_fits_and_means_what_level_0_does(epochs: Store) -> None:
    name = str(epochs.images()["obs_id"][0])
    source = StorePlanes(epochs, name)
    ny, nx = source.shape
    box = (-0.5, nx - 0.5, -0.5, ny - 0.5)
    fine = source.view("value", box=box, pixels=(nx, ny))
    coarse = source.view("value", box=box, pixels=(nx // 4, ny // 4))
    image = epochs.cutout(name)
    assert fine.step == 1
    assert coarse.step == 4
    assert np.array_equal(fine.values[~image.mask], image.data[~image.mask])
    assert np.isnan(fine.values[image.mask]).all()
    blocks = np.where(image.mask, np.nan, image.data.astype(float)).reshape(ny // 4, 4, nx // 4, 4)
    assert np.allclose(coarse.values, np.nanmean(blocks, axis=(1, 3)), rtol=1e-4, atol=1e-6, equal_nan=True)
    assert coarse.read_bytes < fine.read_bytes / 8
    error = source.view("error", box=box, pixels=(nx // 4, ny // 4)).values
    ratio = source.view("snr", box=box, pixels=(nx // 4, ny // 4)).values
    stored = epochs.cutout(name, level=2)
    good = ~stored.mask
    assert np.allclose(error[good], np.sqrt(stored.variance[good]) / 16, rtol=1e-5)
    assert np.allclose(ratio[good], (stored.data / np.sqrt(stored.variance))[good], rtol=1e-5)
    masked = source.view("mask", box=box, pixels=(nx // 4, ny // 4)).values
    assert np.allclose(masked, image.mask.reshape(ny // 4, 4, nx // 4, 4).mean(axis=(1, 3)))


def test_a_window_lies_where_its_edges_say(epochs: Store) -> None:
    source = StorePlanes(epochs, str(epochs.images()["obs_id"][0]))
    image = epochs.cutout(source.obs_id)
    seen = source.view("value", box=(10.2, 30.0, 5.0, 17.7), pixels=(400, 400))
    x, y = round(seen.x0 + 0.5), round(seen.y0 + 0.5)
    h, w = seen.values.shape
    expected = np.where(image.mask, np.nan, image.data)[y : y + h, x : x + w]
    assert x <= 10
    assert x + w >= 30
    assert y <= 5
    assert y + h >= 18
    assert np.array_equal(seen.values, expected.astype(np.float32), equal_nan=True)
    ra, dec = image.wcs.all_pix2world([12.0], [7.0], 0)
    assert source.world(12.0, 7.0) == pytest.approx((ra[0], dec[0]), abs=1e-9)
    assert source.labels_at(1, 1) is None
    tiny = source.view("value", box=(-0.5, 127.5, -0.5, 95.5), pixels=(3, 3))
    # There is no level so coarse: every eighth block of the last one.
    assert tiny.values.size <= 4 * 9 + 24
    assert tiny.step == 32


def test_a_stored_cube_shows_its_channels_and_all_of_them(odd: Store) -> None:
    source = StorePlanes(odd, "cube")
    cube = odd.cutout("cube")
    box = (-0.5, source.shape[1] - 0.5, -0.5, source.shape[0] - 0.5)
    channel = source.view("value", plane=1, channel=3, box=box, pixels=(99, 99))
    expected = np.where(cube.mask[3], np.nan, cube.data[3])
    assert np.allclose(channel.values, expected, equal_nan=True)
    white = source.view("value", plane=0, channel=3, box=box, pixels=(99, 99))
    mean = np.nanmean(np.where(cube.mask, np.nan, cube.data.astype(float)), axis=0)
    assert np.allclose(white.values, mean, rtol=1e-5)
    assert source.n_channels == 7
    assert source.wave is not None
    assert source.wave.size == 7
    with pytest.raises(InputError, match="unknown layer"):
        source.view("path", box=box, pixels=(9, 9))
    with pytest.raises(InputError):
        StorePlanes(odd, "fibre")


def test_a_stored_spectrum_brings_its_lines_and_numbers(epochs: Store) -> None:
    table = epochs.spectra()
    for name in table["obs_id"]:
        view = stored_spectrum(epochs, str(name))
        own = epochs.spectrum(str(name))
        assert np.array_equal(view.flux, own.data[0], equal_nan=True)
        assert np.array_equal(view.mask, own.mask[0])
        assert np.allclose(view.error[~view.mask], np.sqrt(own.variance[0][~view.mask]))
        for key, wave in view.lines:
            assert view.wave[0] <= wave <= view.wave[-1], key
        assert dict(view.numbers)["redshift"].startswith(f"{view.redshift:.6g}"[:4])


# --- epochs -------------------------------------------------------------------------------------------------


def test_cut_outs_of_all_epochs_show_the_same_sky(epochs: Store) -> None:
    listing = Listing(epochs)
    name = str(epochs.spectra()["obs_id"][0])
    place, _ = listing.place_of(name)
    rows = listing.covering(place)
    assert sorted(epochs.column("obs_id", rows).astype(str)) == sorted(
        epochs.links(name)["obs_id"].astype(str)
    )
    bands, times = epochs.bands_of(rows), epochs.index.columns["t_start"][rows]
    assert bands == sorted(bands)
    assert all(
        times[first] <= times[first + 1] for first in range(len(rows) - 1) if bands[first] == bands[first + 1]
    )
    stamps = cut_stamps(epochs, rows, place, 12.0)
    assert len(stamps) == len(rows)
    for stamp in stamps:
        assert stamp.values.shape == (56, 56)
        assert stamp.unit.endswith("/ arcsec2")
    # The object is in the middle of each, whatever the turn of the camera.
    for stamp in stamps:
        values = np.nan_to_num(stamp.values)
        y, x = np.unravel_index(np.argmax(values), values.shape)
        assert abs(x - 27.5) < 8
        assert abs(y - 27.5) < 8
    shown = stretched(stamps)
    assert np.nanmax([np.nanmax(values) for values in shown]) >= 1.0
    own = stretched(stamps, each_band=True)
    assert not np.allclose(own[0], shown[0], equal_nan=True) or not np.allclose(
        own[-1], shown[-1], equal_nan=True
    )


def test_north_is_up_and_east_on_the_left_in_cut_outs(epochs: Store) -> None:
    row = int(epochs.search(kind="image")[0])
    name = epochs.column("obs_id", [row])[0].decode()
    image = epochs.cutout(name)
    centre = image.wcs.all_pix2world([60.0], [40.0], 0)
    place = Place(float(centre[0][0]), float(centre[1][0]))
    step = 0.4  # Hardly more than a pixel, so that level 0 is read.
    stamp = cut_stamps(epochs, np.array([row]), place, 21 * step, side=21)[0]
    for line, column in ((10, 4), (17, 10), (3, 12), (10, 10)):
        east, north = (10 - column) * step, (line - 10) * step
        ra = place.ra + east / 3600 / np.cos(np.radians(place.dec))
        x, y = image.wcs.all_world2pix([ra], [place.dec + north / 3600], 0)
        value = image.data[round(float(y[0])), round(float(x[0]))]
        assert stamp.values[line, column] == pytest.approx(value / image.pixel_area, rel=1e-3)
