"""Whatever lies where, the index finds what a comparison with every row finds: at the poles and across 0 too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.inputs.store_rows import fibre, frame, make_index
from tests.oracles import index as oracle

from skyloom.store.search.cells import CELL_REACH, CELL_SIDE, order_around
from skyloom.store.search.links import find_links, images_of
from skyloom.store.search.sphere import unit_vectors

FEW = settings(max_examples=15, deadline=None)
places = st.tuples(
    st.one_of(st.floats(0, 360), st.sampled_from([0.0, 359.9999, 180.0, 45.0, 90.0])),
    st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 0.0, 89.95, -89.9, 41.8103])),
)


def scattered(seed: int, ra: float, dec: float, spread: float, n: int = 60) -> list[dict]:
    """Frames of many sizes and fibres around a place, uniform on the tangent plane."""
    rng = np.random.default_rng(seed)
    pole = unit_vectors(ra, dec)
    rows = []
    for number in range(n):
        vector = pole + np.radians(spread) * rng.uniform(-1, 1, 3)
        vector /= np.linalg.norm(vector)
        a = float(np.degrees(np.arctan2(vector[1], vector[0])) % 360.0)
        d = float(np.degrees(np.arctan2(vector[2], np.hypot(*vector[:2]))))
        if number % 2:
            rows.append(fibre(a, d))
        else:
            height, width = spread * 10 ** rng.uniform(-2, 0, 2)
            rows.append(frame(a, d, float(height), float(width), float(rng.uniform(0, 180))))
    return rows


def corners_of(row: dict) -> list[oracle.Vector]:
    return [oracle.vector(*corner) for corner in row["corners"]]


@FEW
@given(places, st.integers(0, 2**31), st.floats(-3, 1), st.floats(-2, 0.5))
@example((0.0, 90.0), 1, 0.0, -0.5)
@example((0.0, 0.0), 2, -1.0, -0.3)
def test_a_cone_finds_what_every_outline_says(place, seed, log_spread, log_radius) -> None:
    spread = 10**log_spread
    radius = spread * 10**log_radius
    rows = scattered(seed, *place, spread)
    index, order = make_index(rows)
    found = set(order[index.search(cone=(place, radius))].tolist())
    for number, row in enumerate(rows):
        if row["kind"] == "spectrum":
            distance = oracle.separation(oracle.vector(*place), oracle.vector(row["s_ra"], row["s_dec"]))
            margin = radius + row["radius"] - distance
        else:
            margin = oracle.cone_margin(*place, radius, corners_of(row))
        if abs(margin) > 1e-9:
            assert (number in found) == (margin > 0), (number, row, margin)


@FEW
@given(places, st.integers(0, 2**31), st.floats(-2, 1), st.floats(0.05, 1.5), st.floats(0.05, 1.5))
@example((0.0, 90.0), 1, 0.5, 1.0, 1.0)
@example((359.9999, 10.0), 2, 0.5, 1.0, 1.0)
def test_a_box_finds_what_lies_in_it(place, seed, log_spread, height, width) -> None:
    spread = 10**log_spread
    rows = scattered(seed, *place, spread, 30)
    index, order = make_index(rows)
    across = min(spread * width / max(np.cos(np.radians(place[1])), 0.01), 180.0)
    box = (
        (place[0] - across) % 360.0,
        (place[0] + across) % 360.0 if across < 180 else (place[0] - across) % 360.0 + 360.0,
        max(place[1] - spread * height, -90.0),
        min(place[1] + spread * height, 90.0),
    )
    found = set(order[index.search(box=box)].tolist())
    inside = oracle.box_points(box, 24)
    for number, row in enumerate(rows):
        if row["kind"] == "spectrum":
            point = oracle.vector(row["s_ra"], row["s_dec"])
            # A fibre is as good as a point here; those at the border are decided by the fibre's radius.
            surely, perhaps = oracle.in_box(point, box), oracle.in_box(point, box, 1.01 * row["radius"])
        else:
            corners = corners_of(row)
            surely = any(oracle.in_box(point, box) for point in oracle.polygon_points(corners, 12))
            surely |= any(oracle.inside_convex(point, corners) for point in inside)
            # What touches comes within the spacing of the points that were tried.
            slack = 0.1 * spread * (height + width + 2)
            perhaps = any(oracle.in_box(point, box, slack) for point in oracle.polygon_points(corners, 12))
            perhaps |= surely
        if surely:
            assert number in found, (number, row, box)
        if not perhaps:
            assert number not in found, (number, row, box)


@FEW
@given(places, st.integers(0, 2**31), st.floats(-2, 1))
@example((0.0, 90.0), 1, 0.0)
def test_a_coverage_finds_what_overlaps_with_it(place, seed, log_spread) -> None:
    import astropy.units as u
    from astropy.coordinates import Latitude, Longitude
    from mocpy import MOC

    spread = 10**log_spread
    rows = scattered(seed, *place, spread, 30)
    index, order = make_index(rows)
    moc = MOC.from_cone(
        Longitude(place[0], u.deg),
        Latitude(place[1], u.deg),
        radius=0.4 * spread * u.deg,
        max_depth=order_around(0.05 * spread),
    )
    cell = 2.0 * CELL_SIDE / 2**moc.max_order
    before = moc.to_string()
    found = set(order[index.search(moc=moc)].tolist())
    assert moc.to_string() == before
    for number, row in enumerate(rows):
        if row["kind"] == "spectrum":
            inside = moc.contains_lonlat(row["s_ra"] * u.deg, row["s_dec"] * u.deg)[0]
            distance = oracle.separation(oracle.vector(*place), oracle.vector(row["s_ra"], row["s_dec"]))
            assert not inside or number in found
            assert number not in found or distance < 0.4 * spread + cell
        else:
            margin = oracle.cone_margin(*place, 0.4 * spread, corners_of(row))
            assert margin < 1e-9 or number in found
            assert number not in found or margin > -cell - 0.2 * row["radius"]


@FEW
@given(places, st.integers(0, 2**31), st.floats(-3, 1))
@example((0.0, 90.0), 1, 0.0)
@example((0.0, -90.0), 3, 1.0)
@example((0.0, 0.0), 2, -1.0)
def test_links_are_those_of_every_pair(place, seed, log_spread) -> None:
    rows = scattered(seed, *place, 10**log_spread, 80)
    index, order = make_index(rows)
    links = find_links(index)
    found = set(zip(order[links.spectrum].tolist(), order[links.image].tolist(), strict=True))
    expected = {
        (number, other)
        for number, row in enumerate(rows)
        for other, covering in enumerate(rows)
        if row["kind"] == "spectrum"
        and covering["kind"] == "image"
        and oracle.inside_convex(oracle.vector(row["s_ra"], row["s_dec"]), corners_of(covering))
    }
    assert found == expected
    for spectrum in np.flatnonzero(index.kind.equals(["spectrum"]))[:5]:
        assert images_of(index, int(spectrum)).tolist() == links.of(int(spectrum)).tolist()


@pytest.mark.parametrize("order", [0, 1, 3, 6, 8])
def test_cells_are_as_wide_as_the_coverings_assume(order) -> None:
    """No corner of a cell is farther from its centre than `CELL_REACH` says."""
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from cdshealpix.nested import healpix_to_lonlat, vertices

    cells = np.arange(min(12 * 4**order, 1 << 16))
    ra, dec = healpix_to_lonlat(cells, order)
    corner_ra, corner_dec = vertices(cells, order)
    centres = SkyCoord(ra, dec)[:, None]
    distances = centres.separation(SkyCoord(corner_ra, corner_dec)).to_value(u.deg)
    assert 0.8 < distances.max() / (CELL_SIDE / 2**order) < CELL_REACH


@settings(max_examples=40, deadline=None)
@given(places, st.integers(0, 2**31), st.floats(-4, 1.2))
def test_neighbours_hold_all_within_the_radius_they_are_chosen_for(place, seed, log_radius) -> None:
    from cdshealpix.nested import neighbours

    from skyloom.store.search.cells import healpix_of

    radius = 10**log_radius
    order = order_around(radius)
    rng = np.random.default_rng(seed)
    centre = unit_vectors(*place)
    ahead = rng.normal(size=(200, 3))
    ahead -= (ahead @ centre)[:, None] * centre
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    points = centre * np.cos(np.radians(radius)) + ahead * np.sin(np.radians(radius))
    ra = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
    dec = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    around = neighbours(healpix_of(*place, order), order)[0]
    assert np.isin(healpix_of(ra, dec, order), around).all()
