"""`Image` validates at once, never mutates and keeps what it is given."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from skyloom import Image, Mode
from skyloom.core.provenance import step
from skyloom.errors import InputError, ShapeError, UnitError


def make(**changes):
    fields = {
        "data": np.ones((3, 4), np.float32),
        "variance": np.ones((3, 4), np.float32),
        "mask": np.zeros((3, 4), bool),
        "unit": "electron/s",
        "wcs": None,
    }
    return Image(**(fields | changes))


def test_shapes_that_differ_are_named():
    with pytest.raises(
        ShapeError, match=r"variance has shape \(3, 3\); expected \(3, 4\), the shape of data"
    ):
        make(variance=np.ones((3, 3)))


def test_three_dimensions_are_refused():
    with pytest.raises(ShapeError, match="3 dimensions"):
        make(data=np.ones((1, 3, 4)))


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_bad_variance_must_be_masked(value):
    variance = np.ones((3, 4))
    variance[1, 2] = value
    with pytest.raises(InputError, match=r"variance is .* at \(1, 2\)"):
        make(variance=variance)
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    image = make(variance=variance, mask=mask)
    assert image.weight[1, 2] == 0.0
    assert np.all(np.isfinite(image.weight))


def test_not_a_number_must_be_masked():
    data = np.ones((3, 4))
    data[0, 0] = np.nan
    with pytest.raises(InputError, match="data is nan"):
        make(data=data)


def test_unknown_unit_is_refused():
    with pytest.raises(UnitError, match="not a unit"):
        make(unit="bananas per fortnight")


@pytest.mark.parametrize(
    ("correlation", "message"),
    [
        (np.ones((2, 2)), "odd"),
        (np.full((3, 3), 0.5), "expected 1"),
        (np.array([[0, 0.5, 0], [0, 1, 0], [0, 0, 0]]), "not symmetric"),
    ],
)
def test_impossible_correlations_are_refused(correlation, message):
    with pytest.raises(InputError, match=message):
        make(correlation=correlation)


def test_big_endian_data_keep_their_precision():
    image = make(data=np.ones((3, 4), ">f4"), variance=np.ones((3, 4), ">f8"))
    assert image.data.dtype == np.float32
    assert image.data.dtype.isnative
    assert image.variance.dtype == np.float64


def test_evolve_adds_to_the_history_and_leaves_the_original():
    image = make()
    changed = image.evolve(step("double", factor=np.float32(2.0)), data=2 * image.data)
    assert image.history == ()
    assert np.all(image.data == 1.0)
    assert changed.history[0].parameters == {"factor": 2.0}


def test_modes_must_fit():
    with pytest.raises(ShapeError, match="sky"):
        make(modes=[("sky", np.ones((2, 2)), 1.0)])
    assert make(modes=[("sky", 1.0, 0.1)]).modes == (Mode("sky", 1.0, 0.1),)


def test_pickles_for_workers():
    image = pickle.loads(pickle.dumps(make()))
    assert image.unit == make().unit
    error = pickle.loads(pickle.dumps(InputError("bad", source="a.fits", remedy="mend it")))
    assert str(error) == "a.fits: bad; mend it"


def test_evolve_checked_trusts_pixels_and_nothing_else():
    image = Image(np.ones((3, 4)), np.ones((3, 4)), None, "electron", None)
    planes = {"data": np.zeros((2, 2)), "variance": np.ones((2, 2)), "mask": np.zeros((2, 2), bool)}
    smaller = image.evolve_checked(step("cut"), **planes)
    assert smaller.shape == (2, 2)
    assert smaller.history[-1].name == "cut"
    with pytest.raises(ShapeError, match="variance has shape"):
        image.evolve_checked(data=np.zeros((2, 2)))
    with pytest.raises(InputError, match="in its centre"):
        image.evolve_checked(correlation=np.zeros((3, 3)))
