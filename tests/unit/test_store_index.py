"""Searches by place, time, wavelength, band, kind and resolution; what cannot be searched for is refused."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time

from skyloom.errors import InputError, ShapeError
from skyloom.store.search.index import Coded, SkyIndex, size_classes, sky_order
from skyloom.store.search.links import find_links, images_of
from skyloom.store.search.polygons import Polygons, parse_regions
from skyloom.store.search.regions import Cone
from skyloom.store.search.sphere import unit_vectors
from tests.inputs.store_rows import fibre, frame, make_index, outline


@pytest.fixture
def small():
    rows = [
        frame(
            0.1,
            0.0,
            0.15,
            0.2,
            band="g",
            t_start=52100.0,
            t_stop=52100.1,
            em_min=4e-7,
            em_max=5e-7,
            pixel_scale=0.4,
        ),
        frame(
            359.95,
            0.0,
            0.15,
            0.2,
            band="r",
            t_start=52200.0,
            t_stop=52200.1,
            s_resolution=1.3,
            pixel_scale=0.4,
        ),
        fibre(0.05, 0.02, em_min=3.8e-7, em_max=9.2e-7, t_start=52150.0, t_stop=52150.2, n_levels=5),
        {"kind": "cube", "s_ra": 120.0, "s_dec": 60.0, "radius": 0.01, "em_min": 4.7e-7, "em_max": 9.3e-7},
        {"kind": "spectrum", "s_ra": np.nan, "s_dec": np.nan},
    ]
    return make_index(rows)


def find(small, **where) -> list[int]:
    index, order = small
    return sorted(order[index.search(**where)].tolist())


def test_without_conditions_everything_is_found(small) -> None:
    assert find(small) == [0, 1, 2, 3, 4]


def test_what_has_no_position_is_found_by_time_but_never_by_place(small) -> None:
    assert find(small, cone=((0.0, 0.0), 180.0)) == [0, 1, 2, 3]
    assert find(small, kind="spectrum") == [2, 4]
    assert find(small, box=(0, 360, -90, 90)) == [0, 1, 2, 3]


def test_cones_are_given_as_coordinates_or_numbers(small) -> None:
    for cone in (
        (SkyCoord(0.0, 0.0, unit="deg"), 1 * u.arcmin),
        ((0.0, 0.0), 1 / 60),
        ((360.0 * u.deg, 0.0 * u.deg), 1 * u.arcmin),
        (SkyCoord(0.0, 0.0, unit="deg").galactic, 1 * u.arcmin),
    ):
        assert find(small, cone=cone) == [0, 1]


def test_a_large_image_is_found_by_a_small_cone_at_its_edge_alone(small) -> None:
    assert find(small, cone=((0.195, 0.07), 1e-4), kind="image") == [0]
    # In the circle about the image, but outside its outline.
    assert find(small, cone=((0.205, 0.07), 1e-4), kind="image") == []


def test_boxes_go_across_zero(small) -> None:
    assert find(small, box=(359.99, 0.01, -0.01, 0.01)) == [0, 1]
    assert find(small, box=(-0.01, 0.01, -0.01, 0.01)) == [0, 1]
    assert find(small, box=(0.3, 359.7, -0.01, 0.01)) == []


def test_time_is_an_overlap_in_tai(small) -> None:
    assert find(small, time=(52100.05, 52150.1)) == [0, 2]
    assert find(small, time=(None, 52120.0)) == [0]
    start = Time(52100.0, format="mjd", scale="tai").utc
    assert find(small, time=(start, start + 1 * u.s)) == [0]


def test_wavelengths_are_an_overlap_whatever_their_unit(small) -> None:
    assert find(small, wave=(4500 * u.AA, 4600 * u.AA)) == [0, 2]
    assert find(small, wave=(4500.0, 4600.0)) == [0, 2]
    assert find(small, wave=(650 * u.THz, 670 * u.THz)) == [0, 2]
    assert find(small, wave=(8 * u.um / 10, None)) == [2, 3]


def test_bands_kinds_levels_and_resolution(small) -> None:
    assert find(small, band="g") == [0]
    assert find(small, band=["g", "r"]) == [0, 1]
    assert find(small, kind=["image", "cube"]) == [0, 1, 3]
    assert find(small, level=4) == [2]
    # A known PSF decides; where there is none, the pixels.
    assert find(small, resolution=1 * u.arcsec) == [0]
    assert find(small, resolution=1.5) == [0, 1]


def test_conditions_hold_together(small) -> None:
    assert find(small, cone=((0, 0), 1.0), band="r", time=(52199, 52201), kind="image") == [1]
    assert find(small, cone=((0, 0), 1.0), box=(0, 1, -1, 1)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"band": "q"}, "there is no band 'q'; use one of g, r"),
        ({"kind": "images"}, "there is no kind 'images'"),
        ({"cone": (10.0, 0.1)}, "the cone is"),
        ({"cone": ((10.0, 95.0), 0.1)}, "the cone is about"),
        ({"cone": ((10.0, 5.0), -0.1)}, "radius of -0.1"),
        ({"box": (1, 2, 3)}, "the box is"),
        ({"box": (1, 2, 3, 2)}, "the box is"),
        ({"time": 5}, "expected \\(start, stop\\)"),
        ({"time": (6, 5)}, "expected start <= stop"),
        ({"wave": (1 * u.kg, 2 * u.kg)}, "expected a wavelength"),
        ({"resolution": 1 * u.kg}, "expected arcsec"),
        ({"level": -1}, "expected 0 or more"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(small, where, message) -> None:
    with pytest.raises(InputError, match=message):
        small[0].search(**where)


def test_an_empty_index_finds_nothing() -> None:
    index, _ = make_index([])
    assert index.search(cone=((0, 0), 1)).size == 0
    assert index.search(band="r").size == 0
    assert find_links(index).image.size == 0


def test_classes_of_size_are_powers_of_two() -> None:
    radii = np.array([0.0, 1.0, 1.0001, 2.0, 2.0001, 4.0, 1000.0, np.nan]) / 3600
    assert size_classes(radii, np.zeros(8)).tolist() == [0, 0, 1, 1, 2, 2, 10, 0]
    assert size_classes(radii[:1], [-1]).tolist() == [127]


def test_rows_out_of_order_are_refused(small) -> None:
    index, _ = small
    columns = {name: column[::-1] for name, column in index.columns.items()}
    with pytest.raises(InputError, match="order of the sky"):
        SkyIndex.build(columns, index.kind, index.band, index.polygons)
    with pytest.raises(ShapeError, match="band has 0 rows; expected 5"):
        SkyIndex.build(index.columns, index.kind, Coded.of([]), index.polygons)
    assert sky_order(index.columns["radius"], index.columns["healpix"]).tolist() == [0, 1, 2, 3, 4]


def test_outlines_are_read_and_circles_have_none() -> None:
    texts = [
        "Polygon ICRS 1 2 3 4 5 6",
        b"POLYGON 1 2 3 4 5 6 -7e-1 8",
        "Circle ICRS 1 2 0.1",
        "",
        outline([(1.5, -2.5)] * 3),
    ]
    polygons = parse_regions(texts)
    assert polygons.sizes.tolist() == [3, 4, 0, 0, 3]
    assert polygons.take([1]).ra.tolist() == [1, 3, 5, -0.7]
    for bad in ("Polygon ICRS 1 2 3 4", "Polygon ICRS 1 2 3 4 5 6 7", "Box ICRS 1 2 3 4", "Polygon"):
        with pytest.raises(InputError, match="is no outline"):
            parse_regions([bad])


def test_an_outline_that_is_not_convex_holds_what_it_encloses() -> None:
    # An L of three unit squares, with the square to the north-east missing.
    corners = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
    polygons = parse_regions([outline(corners)])
    for place, inside in (((0.5, 0.5), True), ((1.5, 0.5), True), ((0.5, 1.5), True), ((1.5, 1.5), False)):
        assert polygons.hold(unit_vectors(*place)).tolist() == [inside]
        assert polygons.hold(-unit_vectors(*place)).tolist() == [False]


def test_links_need_the_outline_not_the_circle() -> None:
    index, order = make_index(
        [frame(10, 0, 0.2, 0.2), fibre(10.05, 0.05), fibre(10.12, 0.01), frame(10, 0, 0.2, 0.2, 45.0)]
    )
    links = find_links(index)
    pairs = set(zip(order[links.spectrum].tolist(), order[links.image].tolist(), strict=True))
    assert pairs == {(1, 0), (1, 3), (2, 3)}
    spectrum = int(np.flatnonzero(order == 1)[0])
    assert sorted(order[images_of(index, spectrum)].tolist()) == [0, 3]


def test_links_of_some_rows_are_those_of_all_rows_restricted() -> None:
    rng = np.random.default_rng(3)
    rows = [frame(float(a), float(d), 0.2, 0.3) for a, d in rng.uniform(0, 1, (20, 2))]
    rows += [fibre(float(a), float(d)) for a, d in rng.uniform(0, 1, (60, 2))]
    rows += [{"kind": "cube", "s_ra": 0.5, "s_dec": 0.5, "radius": 0.1}]
    index, _ = make_index(rows)
    everything = find_links(index)
    spectra, images = np.arange(0, len(index), 3), np.arange(0, len(index), 2)
    some = find_links(index, spectra, images)
    kept = np.isin(everything.spectrum, spectra) & np.isin(everything.image, images)
    assert some.spectrum.tolist() == everything.spectrum[kept].tolist()
    assert some.image.tolist() == everything.image[kept].tolist()
    assert everything.image.size > some.image.size > 0


def test_no_polygon_takes_none() -> None:
    assert Polygons(np.zeros(1, np.int64), np.empty(0), np.empty(0)).take([]).sizes.size == 0


def test_one_pass_over_the_rows_finds_what_arrays_of_candidates_do() -> None:
    """Footprints of any shape and size, with and without outline, about the poles and right ascension 0."""
    rng = np.random.default_rng(11)
    rows = []
    for ra, dec in ((0.0, 90.0), (0.0, 0.0), (200.0, -89.0), (45.0, 41.8)):
        for size in 10.0 ** rng.uniform(-3, 0.5, 25):
            a, d = ra + rng.uniform(-2, 2), float(np.clip(dec + rng.uniform(-2, 2), -90, 90))
            rows.append(frame(a, d, size, size * rng.uniform(0.2, 1), rng.uniform(0, 180)))
            rows.append({"kind": "cube", "s_ra": a % 360, "s_dec": d, "radius": rng.choice([size, np.nan])})
        wide = max(float(np.cos(np.radians(dec))), 0.05)
        corners = [
            (ra, dec),
            (ra + 2 / wide, dec),
            (ra + 1 / wide, dec - 1),
            (ra + 1 / wide, dec - 2),
            (ra, dec - 2),
        ]
        centre = {"s_ra": ra, "s_dec": dec, "radius": 3.0}
        rows.append({"kind": "image", "s_region": outline(corners), **centre})
    index, _ = make_index(rows)
    everything = np.arange(len(index))
    found = 0
    for ra, dec in ((0.0, 90.0), (0.5, 89.5), (0.0, 0.0), (359.5, -0.5), (200.0, -89.9), (45.5, 41.3)):
        for radius in (0.0, 1e-3, 0.1, 1.0, 30.0, 91.0, 180.0):
            cone = Cone(ra, dec, radius)
            rows_found = index.touching(cone)
            assert rows_found.tolist() == everything[index._touches(everything, cone)].tolist()
            found += rows_found.size
    assert index.touching(Cone(0.0, 0.0, 180.0)).size == len(index)
    assert found > 1000


def test_a_cone_without_extent_finds_points_without_extent() -> None:
    index, _ = make_index([{"kind": "spectrum", "s_ra": 10.0, "s_dec": 5.0}])
    assert index.search(cone=((10.0, 5.0), 0.0)).tolist() == [0]
    assert index.search(cone=((10.0, 5.0 + 1e-9), 0.0)).size == 0
