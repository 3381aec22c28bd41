"""Findings about searches: the images of one spectrum are found without looking at all the others.

An existing pipeline compares a spectrum with every image: 1.6 s for one spectrum among 1e6 observations. What has to be
looked at here is counted, not timed.
"""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.store.search.cells import healpix_of
from skyloom.store.search.index import KINDS, NUMBERS, Coded, SkyIndex, sky_order
from skyloom.store.search.links import find_links, images_of
from skyloom.store.search.polygons import Polygons
from skyloom.store.search.regions import Cone
from skyloom.store.search.sphere import positions, unit_vectors
from tests.oracles import index as oracle

HEIGHT, WIDTH = 0.149, 0.225
RADIUS = 0.5 * float(np.hypot(HEIGHT, WIDTH)) * 1.001
FIBRE = 1.5 / 3600.0
WHOLE_SKY = 1_000_000
SPECTRA_ASKED = 60


def survey(n: int, seed: int = 4) -> SkyIndex:
    """Half frames, half fibres, as dense as 1e6 on the whole sky: fewer of them cover less, from a pole onwards."""
    rng = np.random.default_rng(seed)
    ra = rng.uniform(0, 360, n)
    dec = np.degrees(np.arcsin(1.0 - rng.uniform(0, 2.0 * n / WHOLE_SKY, n)))
    is_image = np.arange(n) % 2 == 0
    columns = {name: np.full(n, np.nan) for name in NUMBERS}
    columns |= {"s_ra": ra, "s_dec": dec, "radius": np.where(is_image, RADIUS, FIBRE)}
    columns |= {"healpix": healpix_of(ra, dec), "n_levels": np.ones(n)}
    order = sky_order(columns["radius"], columns["healpix"])
    columns = {name: values[order] for name, values in columns.items()}
    is_image = is_image[order]
    # Corners about each centre: north is the way to the pole, east across it.
    centre = unit_vectors(columns["s_ra"][is_image], columns["s_dec"][is_image])
    alpha, delta = np.radians(columns["s_ra"][is_image]), np.radians(columns["s_dec"][is_image])
    east = np.stack([-np.sin(alpha), np.cos(alpha), np.zeros(alpha.size)], axis=-1)
    north = np.cross(centre, east)
    assert np.allclose(north[:, 2], np.cos(delta))
    corners = np.stack(
        [
            centre + np.radians(0.5 * WIDTH) * one * east + np.radians(0.5 * HEIGHT) * other * north
            for one, other in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ],
        axis=1,
    ).reshape(-1, 3)
    start = np.concatenate([[0], np.cumsum(np.where(is_image, 4, 0))])
    kind = Coded(np.where(is_image, 0, 2).astype(np.int8), KINDS)
    return SkyIndex.build(
        columns, kind, Coded(np.zeros(n, np.int8), ("r",)), Polygons(start, *positions(corners))
    )


def covering(index: SkyIndex, spectrum: int) -> list[int]:
    """The images that hold a spectrum, by comparison with every row, and of those near with every edge."""
    columns = index.columns
    height = np.sin(np.radians(columns["s_dec"]))
    near = np.flatnonzero(np.abs(height - height[spectrum]) < np.radians(0.2))
    points = unit_vectors(columns["s_ra"][near], columns["s_dec"][near])
    own = unit_vectors(columns["s_ra"][spectrum], columns["s_dec"][spectrum])
    near = near[points @ own > np.cos(np.radians(0.2))]
    place = oracle.vector(columns["s_ra"][spectrum], columns["s_dec"][spectrum])
    found = []
    for row in near:
        members = slice(index.polygons.start[row], index.polygons.start[row + 1])
        corners = [*map(oracle.vector, index.polygons.ra[members], index.polygons.dec[members])]
        if corners and oracle.inside_convex(place, corners):
            found.append(int(row))
    return found


def spectra_of(index: SkyIndex) -> list[int]:
    rows = np.flatnonzero(index.kind.equals(["spectrum"]))
    return rows[:: rows.size // SPECTRA_ASKED].tolist()


def place_of(index: SkyIndex, row: int) -> Cone:
    return Cone(float(index.columns["s_ra"][row]), float(index.columns["s_dec"][row]), 0.0)


@pytest.fixture(scope="module")
def large() -> SkyIndex:
    return survey(WHOLE_SKY)


def test_the_images_of_one_spectrum_among_a_million_are_found_exactly(large) -> None:
    asked = spectra_of(large)
    answers = {spectrum: images_of(large, spectrum).tolist() for spectrum in asked}
    assert sum(map(len, answers.values())) > 10
    assert all(answers[spectrum] == covering(large, spectrum) for spectrum in asked[:: len(asked) // 20])
    # Together, as an ingest links them, they are the same.
    links = find_links(large, np.array(asked))
    assert {spectrum: links.of(spectrum).tolist() for spectrum in asked} == answers


def test_the_images_of_one_spectrum_need_no_look_at_the_others(large) -> None:
    """What is compared with a spectrum is as many as lie about it, however many there are elsewhere."""
    about = np.pi * RADIUS**2 * WHOLE_SKY / 2 / 41253.0
    for index in (survey(WHOLE_SKY // 100), survey(WHOLE_SKY // 10), large):
        compared = [index.candidates(place_of(index, row), KINDS[:2]).size for row in spectra_of(index)]
        assert about < np.mean(compared) < 5 * about
        assert max(compared) < 15 * about


def test_twice_as_many_images_of_one_place_are_twice_as_many_to_compare() -> None:
    """The cells about a place follow from the sizes of images alone: what is found grows as what is compared."""
    index = survey(WHOLE_SKY // 100)
    rows = np.repeat(np.arange(len(index)), 2)
    double = SkyIndex.build(
        {name: values[rows] for name, values in index.columns.items()},
        index.kind.take(rows),
        index.band.take(rows),
        index.polygons.take(rows),
    )
    for row in spectra_of(index):
        place = place_of(index, row)
        assert double.candidates(place).size == 2 * index.candidates(place).size
        assert double.touching(place).size == 2 * index.touching(place).size
