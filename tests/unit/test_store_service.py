"""What requests to a store mean: numbers, regions, pixels, channels, times, and the documents that answer them."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from astropy.io.votable import parse
from astropy.time import Time
from astropy.wcs import WCS
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from skyloom.core.linelist import air_to_vacuum
from skyloom.store.cutouts import cutout_window
from skyloom.store.schema import COLUMNS
from skyloom.store.search.polygons import parse_regions
from skyloom.store.search.sphere import unit_vectors
from skyloom.store.service.documents import error_document, results, votable
from skyloom.store.service.obscore import OBSCORE, Places, utype_of
from skyloom.store.service.parameters import (
    Interval,
    Parameters,
    ServiceError,
    circle,
    interval,
    polygon,
    region,
    whole_number,
)
from skyloom.store.service.pixels import channels_in, pixels_of
from skyloom.store.service.server import is_loopback
from skyloom.store.service.shapes import SkyPolygon
from skyloom.store.service.shapes import outline as border_of
from skyloom.store.service.sia2 import _check_work
from skyloom.store.service.times import as_tai
from tests.inputs.store import small_wcs
from tests.inputs.store_rows import outline, rectangle

# Time is no matter of these tests, and the machine may be busy.
relaxed = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
finite = st.floats(-1e6, 1e6)
ra = st.floats(0, 360)
dec = st.floats(-90, 90)


# --- texts ----------------------------------------------------------------------------------------------------------


@relaxed
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    for reader in (interval, region, circle, polygon, whole_number):
        try:
            reader(text, "NAME")
        except ServiceError as error:
            told = error
        else:
            continue
        assert told.status == 400
        assert told.text.startswith("UsageError: ")
        assert len(told.text) < 300


@relaxed
@given(st.sampled_from(["CIRCLE", "RANGE", "POLYGON", "circle", "Box"]), st.lists(st.floats(), max_size=9))
def test_any_numbers_are_a_region_or_refused(word, numbers):
    text = " ".join([word, *map(repr, numbers)])
    try:
        shape = region(text)
    except ServiceError:
        return
    assert np.isfinite(border_of(shape)).all()
    assert np.asarray(shape.ranges(0.1)).shape[1] == 2


@relaxed
@given(finite, finite)
def test_intervals_come_back(one, other):
    low, high = sorted((one, other))
    assert interval(f"{low!r} {high!r}", "BAND") == (low, high)
    assert interval(repr(low), "BAND") == (low, low)
    assert interval(f"-Inf {high!r}", "BAND") == (-math.inf, high)
    assert interval(f"{low!r}   +inf", "BAND") == (low, math.inf)
    if low < high:
        with pytest.raises(ServiceError, match="ends before it begins"):
            interval(f"{high!r} {low!r}", "BAND")


@pytest.mark.parametrize(
    "text", ["nan", "1 nan", "", "1 2 3", "inf", "inf inf", "-inf -inf", "1,2", "0x10", "1_0", "1e999", "١"]
)
def test_what_is_no_interval(text):
    with pytest.raises(ServiceError):
        interval(text, "BAND")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("CIRCLE 1 2 -3", "radius"),
        ("CIRCLE 1 2 181", "radius"),
        ("CIRCLE nan 2 1", "no number"),
        ("CIRCLE 1 inf 1", "no number"),
        ("CIRCLE 361 2 1", "not on the sky"),
        ("CIRCLE 1 95 1", "not on the sky"),
        ("CIRCLE 1 2", "3 numbers"),
        ("RANGE 1 2 3", "4 numbers"),
        ("RANGE 1 2 4 3", "ends before"),
        ("RANGE 1 400 3 4", "not within"),
        ("RANGE +Inf 1 3 4", "not within"),
        ("POLYGON 1 2 3 4", "3 or more"),
        ("POLYGON 1 2 3 4 5 6 7", "pairs"),
        ("POLYGON 1 2 1 2 1 2", "different vertices"),
        ("POLYGON 0 0 120 0 240 0", "half the sky"),
        ("POLYGON 0 0 90 0 180 0 270 0", "half the sky"),
        ("POLYGON " + "1 2 " * 1000, "vertices"),
        ("BOX 1 2 3 4", "no shape"),
        ("", "no shape"),
    ],
)
def test_what_is_no_region(text, words):
    with pytest.raises(ServiceError, match=words):
        region(text)


def test_open_ranges_are_the_sky():
    everywhere = region("RANGE -Inf +Inf -Inf +Inf")
    assert (everywhere.width, everywhere.dec_min, everywhere.dec_max) == (360.0, -90.0, 90.0)
    pole = region("RANGE 0 360 89 +Inf")
    assert pole.holds(unit_vectors(123.0, 89.5))
    assert not pole.holds(unit_vectors(123.0, 88.5))


def test_names_are_in_any_case_and_values_repeat():
    parameters = Parameters({"pos": [b"CIRCLE 1 2 3"], "Pos": [b" RANGE 1 2 3 4 "], "BAND": [b""]})
    assert parameters.all("POS") == ["CIRCLE 1 2 3", "RANGE 1 2 3 4"]
    assert parameters.one("BAND") is None
    with pytest.raises(ServiceError, match="2 times") as caught:
        parameters.one("POS", several="MultiValuedParamNotSupported")
    assert caught.value.text.startswith("MultiValuedParamNotSupported: ")
    assert caught.value.fault.startswith("UsageFault: ")


@pytest.mark.parametrize(
    "values",
    [
        {f"P{n}": [b"1"] for n in range(5000)},
        {"POS": [b"1"] * 5000},
        {"POS": [b"1" * 100_000]},
        {"ID": [b"\xff\xfe"]},
    ],
)
def test_requests_of_unlikely_size_are_refused(values):
    with pytest.raises(ServiceError):
        Parameters(values)


# --- regions --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(ra, st.floats(-89, 89), st.floats(0.01, 20), st.floats(0.01, 20), st.floats(0, 90), st.booleans())
def test_polygons_hold_what_their_plane_says(ra0, dec0, height, width, angle, backwards):
    corners = rectangle(ra0, dec0, height, width, angle)
    shape = SkyPolygon.of(corners[::-1] if backwards else corners)
    generator = np.random.default_rng(1)
    places = [rectangle(ra0, dec0, 2 * h, 2 * w, angle)[2] for h, w in generator.uniform(-1, 1, (30, 2)) * 15]
    expected = []
    scale = np.degrees(1.0)
    vectors = unit_vectors(*np.array(places).T)
    # Back to the plane that touches the sky in the centre, along the sides of the rectangle.
    a, d, turn = np.radians(ra0), np.radians(dec0), np.radians(angle)
    centre = unit_vectors(ra0, dec0)
    east = np.array([-np.sin(a), np.cos(a), 0.0])
    north = np.array([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    flat = vectors / (vectors @ centre)[:, None]
    x, y = flat @ east * scale, flat @ north * scale
    along, across = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    expected = (np.abs(along) < width / 2) & (np.abs(across) < height / 2)
    clear = (np.abs(np.abs(along) - width / 2) > 1e-6) & (np.abs(np.abs(across) - height / 2) > 1e-6)
    np.testing.assert_array_equal(shape.holds(vectors)[clear], expected[clear])


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0, 90), st.sampled_from([0.0, 60.0, 89.0]))
def test_polygons_touch_each_other_as_dense_points_say(shift_ra, shift_dec, angle, dec0):
    first = rectangle(10.0, dec0 * 0.95, 2.0, 2.0, 0.0)
    second = rectangle(10.0 + shift_ra, np.clip(dec0 * 0.95 + shift_dec, -89, 89), 1.0, 3.0, angle)
    shape, other = SkyPolygon.of(first), SkyPolygon.of(second)
    touches = bool(shape.touches_polygons(parse_regions([outline(second)]))[0])
    share = np.linspace(0, 1, 200)[:, None]

    def dense(own):
        points = (own.first[:, None] * (1 - share) + own.second[:, None] * share).reshape(-1, 3)
        return points / np.linalg.norm(points, axis=-1, keepdims=True)

    met = bool(shape.holds(dense(other)).any() or other.holds(dense(shape)).any())
    if met != touches:
        # Only where they barely do: less than the distance of the points.
        near = np.min(np.linalg.norm(dense(shape)[:, None] - dense(other)[None], axis=-1))
        assert touches
        assert near < np.radians(0.03)


def test_circles_touch_polygons():
    shape = SkyPolygon.of([(0, 0), (1, 0), (1, 1), (0, 1)])
    centres = unit_vectors([0.5, 1.5, 1.5, 359.9, 180.5], [0.5, 0.5, 0.5, 0.5, -0.5])
    touched = shape.touches_circles(centres, [0.0, 0.49, 0.51, 0.2, 1.0])
    assert touched.tolist() == [True, False, True, True, False]
    assert shape.touches_circles(unit_vectors([0.5], [0.5]), 0.0).tolist() == [True]


def middle(wcs, size):
    place = wcs.pixel_to_world((size[1] - 1) / 2, (size[0] - 1) / 2).icrs
    return unit_vectors(place.ra.deg, place.dec.deg)


# --- pixels and channels --------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.floats(-15, 15), st.floats(-15, 15), st.floats(0.2, 4.0))
@example(15.0, 0.25, 0.25)
def test_pixels_of_a_circle_are_those_of_a_cutout(x, y, radius):
    wcs = small_wcs(10.0, -5.0, (40, 30))
    place = wcs.all_pix2world(14.5 + x, 19.5 + y, 0)
    cone = circle(f"{float(place[0])!r} {float(place[1])!r} {radius / 3600!r}")
    from astropy import units as u

    expected = cutout_window(wcs, (40, 30), place, 2 * radius * u.arcsec)
    # On the very border the cut-out may be the pixel beyond it, of which there is none.
    is_there = all(part.stop > 0 and part.start < n for part, n in zip(expected, (40, 30), strict=True))
    assert pixels_of(cone, wcs, (40, 30), middle(wcs, (40, 30))) == (expected if is_there else None)


def test_what_holds_the_image_is_the_image():
    wcs = small_wcs(10.0, -5.0, (40, 30))
    whole = slice(0, 40), slice(0, 30)
    for text in (
        "CIRCLE 10 -5 1",
        "CIRCLE 10 -5 100",
        "CIRCLE 100 -5 120",
        "RANGE 0 360 -90 90",
        "POLYGON 9 -6 11 -6 11 -4 9 -4",
        "POLYGON 340 -60 40 -60 40 60 340 60",
    ):
        assert pixels_of(region(text), wcs, (40, 30), middle(wcs, (40, 30))) == whole, text


def test_what_lies_elsewhere_has_no_pixels():
    wcs = small_wcs(10.0, -5.0, (40, 30))
    for text in ("CIRCLE 10 -4.99 0.001", "CIRCLE 190 5 3", "RANGE 200 210 -90 90", "POLYGON 90 0 91 0 91 1"):
        assert pixels_of(region(text), wcs, (40, 30), middle(wcs, (40, 30))) is None, text


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-48, 48), st.integers(-48, 48)), min_size=3, max_size=6, unique=True))
def test_pixels_of_a_polygon_hold_its_vertices_and_no_row_more(offsets):
    wcs = small_wcs(200.0, 70.0, (60, 60))
    x, y = 29.5 + np.array(offsets).T / 4
    sky = wcs.all_pix2world(x, y, 0)
    shape = polygon(" ".join(f"{a!r} {b!r}" for a, b in zip(sky[0].tolist(), sky[1].tolist(), strict=True)))
    rows, columns = pixels_of(shape, wcs, (60, 60), middle(wcs, (60, 60)))
    for part, values in ((rows, y), (columns, x)):
        # Vertices that fall between two pixels belong to either.
        assert abs(part.start - (values.min() + 0.5)) <= 1.001
        assert abs(part.stop - (values.max() + 0.5)) <= 1.001


def test_pixels_in_other_frames_than_icrs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["GLON-CAR", "GLAT-CAR"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [120.0, 0.0], [25.5, 25.5], [-0.01, 0.01]
    place = wcs.pixel_to_world(30.0, 20.0).icrs
    corners = [wcs.pixel_to_world(x, y).icrs for x, y in ((25, 15), (35, 15), (35, 25), (25, 25))]
    shape = SkyPolygon.of([(float(corner.ra.deg), float(corner.dec.deg)) for corner in corners])
    rows, columns = pixels_of(shape, wcs, (50, 50), middle(wcs, (50, 50)))
    assert (rows.start, rows.stop, columns.start, columns.stop) == pytest.approx((15, 26, 25, 36), abs=1)
    cone = circle(f"{float(place.ra.deg)!r} {float(place.dec.deg)!r} 0.05")
    assert pixels_of(cone, wcs, (50, 50), middle(wcs, (50, 50))) == cutout_window(
        wcs, (50, 50), place, (10, 10)
    )


@relaxed
@given(st.floats(4000, 7000), st.floats(0, 500), st.sampled_from(["air", "vacuum"]))
def test_channels_are_those_that_reach_into_the_band(low, width, medium):
    wave = np.linspace(4500.0, 6500.0, 41)
    shown = np.asarray(air_to_vacuum(wave) if medium == "air" else wave)
    found = channels_in(wave, medium, Interval(low * 1e-10, (low + width) * 1e-10))
    # Twice the distance of neighbours is 100 A: channel i holds what is nearer to it than to the others.
    samples = np.linspace(low, low + width, 400)
    half = 25.0 * 1.0003
    samples = samples[(samples >= shown[0] - half) & (samples <= shown[-1] + half)]
    nearest = np.unique(np.abs(shown[:, None] - samples).argmin(axis=0)) if samples.size else samples
    if found is None:
        assert not samples.size or low > shown[-1] + 24.9 or low + width < shown[0] - 24.9
    elif samples.size:
        assert abs(found.start - nearest[0]) <= (1 if width else 0) or width < 1e-3
        assert abs(found.stop - 1 - nearest[-1]) <= 1


def test_a_single_wavelength_is_one_channel():
    wave = np.linspace(4500.0, 6500.0, 41)
    found = channels_in(wave, "vacuum", Interval(5010e-10, 5010e-10))
    assert wave[found].tolist() == [5000.0]


# --- times ----------------------------------------------------------------------------------------------------------


@relaxed
@given(st.floats(45000, 59000))
def test_times_are_those_of_astropy(mjd):
    low, high = as_tai(Interval(mjd, mjd))
    expected = Time(mjd, format="mjd", scale="utc").tai.mjd
    assert low <= expected <= high
    assert high - low < 1e-10


def test_times_far_from_the_calendar_are_open():
    assert as_tai(Interval(-1e300, math.inf)) == (-math.inf, math.inf)
    low, high = as_tai(Interval(-900000.0, 900000.0))
    assert low < -899999
    assert high > 899999


# --- documents ------------------------------------------------------------------------------------------------------


def test_columns_have_names_types_and_utypes_of_their_own():
    names = [column.name for column in OBSCORE]
    utypes = [column.utype for column in OBSCORE if column.utype]
    assert len(set(names)) == len(names)
    assert len(set(utypes)) == len(utypes)
    assert all(utype.startswith("obscore:") for utype in utypes)
    # Table 1 of ObsCore 1.1: what every response must have.
    mandatory = """dataproduct_type calib_level obs_collection obs_id obs_publisher_did access_url access_format
        access_estsize target_name s_ra s_dec s_fov s_region s_resolution s_xel1 s_xel2 t_min t_max t_exptime
        t_resolution t_xel em_min em_max em_res_power em_xel o_ucd pol_states pol_xel facility_name
        instrument_name"""
    assert set(mandatory.split()) <= set(names)
    assert {column.source for column in OBSCORE if column.source} <= set(COLUMNS)
    assert utype_of("pixel_scale").endswith("SamplingPeriod")
    assert utype_of("digest") == ""


@relaxed
@given(st.text(max_size=40), st.floats())
def test_any_text_makes_a_valid_document(text, number):
    columns = [column for column in OBSCORE if column.name in ("target_name", "s_ra", "t_xel")]
    values = {"target_name": [text, None], "s_ra": [None, number if np.isfinite(number) else None]}
    values["t_xel"] = [1, None]
    table = parse(
        io.BytesIO(votable(results(columns, values, infos=[("QUERY", text)]))), verify="exception"
    ).get_first_table()
    assert len(table.array) == 2
    if np.isfinite(number):
        assert table.array["s_ra"][1] == number
    if text.isascii() and text.isprintable() and text == text.strip():
        assert str(table.array["target_name"][0]) == text


def test_errors_are_documents():
    found = parse(io.BytesIO(error_document("UsageFault: <&\x00>")), verify="exception")
    (info,) = found.resources[0].infos
    assert (info.name, info.value) == ("QUERY_STATUS", "ERROR")
    assert info.content == "UsageFault: <&?>"


@relaxed
@given(st.from_regex(r"[A-Za-z0-9+._-]{1,40}", fullmatch=True))
def test_identifiers_come_back(name):
    places = Places("http://localhost:1", "ivo://skyloom.store/Sky?")
    assert places.obs_id(places.identifier(name)) == name
    # The part that stands for the publisher is the same in any case.
    assert places.obs_id(places.identifier(name).replace("ivo://skyloom", "IVO://Skyloom")) == name
    assert places.obs_id(name) == name


def test_which_addresses_are_of_this_machine():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "::1", "[::1]")))
    assert not any(
        map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "example.org", "", "127.0.0.1.example.org"))
    )


def test_regions_that_would_keep_a_service_busy_are_refused():
    class Large:
        """A store of a million observations, all of them near every region."""

        def __len__(self):
            return 1_000_000

        def near(self, _):
            return 1_000_000

    _check_work(Large(), [circle("10 20 180")])
    _check_work(Large(), [polygon("10 20 30 20 30 40 10 40")])
    turn = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    ring = " ".join(
        f"{180 + 30 * x:.6f} {30 * y:.6f}" for x, y in zip(np.cos(turn), np.sin(turn), strict=True)
    )
    for shapes in ([circle("10 20 180")] * 300, [polygon(ring)]):
        with pytest.raises(ServiceError, match="too many observations are near"):
            _check_work(Large(), shapes)
