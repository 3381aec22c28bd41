"""Mock rows of a store have all its columns, and places, outlines and times that fit each other."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from astropy.time import Time

from skyloom.errors import InputError
from skyloom.mock.sdss.observations import mock_observations
from skyloom.store.schema import COLUMNS
from skyloom.store.search.cells import healpix_of

N = 4000


@lru_cache(maxsize=1)
def rows():
    return mock_observations(N, seed=2)


def test_all_columns_of_a_store_and_their_types():
    assert rows().keys() == COLUMNS.keys()
    for name, column in COLUMNS.items():
        values = rows()[name]
        assert values.shape == (N,), name
        assert values.dtype.kind == ("S" if column.kind == "str" else column.kind[0]), name


def test_names_are_different_from_row_to_row_and_from_piece_to_piece():
    more = mock_observations(50, seed=2, first=N)
    names = np.concatenate([rows()["obs_id"], more["obs_id"]])
    assert np.unique(names).size == N + 50
    assert not np.char.count(names, b" ").any()


def test_one_seed_gives_the_same_rows():
    again = mock_observations(N, seed=2)
    for name, values in rows().items():
        np.testing.assert_array_equal(values, again[name])


def test_outlines_lie_on_the_circles_around_the_centres():
    image = rows()["dataproduct_type"] == b"image"
    assert 0.6 < image.mean() < 0.8
    for row in np.flatnonzero(image)[:200]:
        words = rows()["s_region"][row].decode().split()
        assert words[:2] == ["POLYGON", "ICRS"]
        ra, dec = np.radians(np.array(words[2:], dtype=float)).reshape(4, 2).T
        a0, d0 = np.radians([rows()["s_ra"][row], rows()["s_dec"][row]])
        cosine = np.sin(dec) * np.sin(d0) + np.cos(dec) * np.cos(d0) * np.cos(ra - a0)
        np.testing.assert_allclose(np.degrees(np.arccos(cosine)), rows()["radius"][row], rtol=1e-4)
    circle = rows()["s_region"][~image]
    assert all(text.startswith(b"CIRCLE ICRS ") for text in circle)


def test_cells_times_and_bands():
    np.testing.assert_array_equal(rows()["healpix"], healpix_of(rows()["s_ra"], rows()["s_dec"]))
    utc = Time(rows()["t_start"], format="mjd", scale="tai").utc.mjd
    np.testing.assert_allclose(rows()["t_min"], utc, atol=1e-9)
    assert np.all(rows()["t_stop"] > rows()["t_start"])
    assert np.all(rows()["em_max"] > rows()["em_min"])
    image = rows()["dataproduct_type"] == b"image"
    assert set(rows()["band"][image]) == {b"u", b"g", b"r", b"i", b"z"}
    assert set(rows()["band"][~image]) == {b""}


def test_the_stripe_is_crowded_and_the_poles_are_not_empty():
    stripe = np.abs(rows()["s_dec"]) < 1.3
    assert 0.6 < stripe.mean() < 0.8
    assert rows()["s_dec"].max() > 80
    assert rows()["s_dec"].min() < -80
    places = np.round(rows()["s_ra"][stripe] * 1000).astype(int)
    assert np.bincount(np.unique(places, return_inverse=True)[1]).max() >= 100


def test_nothing_is_refused():
    with pytest.raises(InputError, match="n is 0"):
        mock_observations(0, seed=1)
