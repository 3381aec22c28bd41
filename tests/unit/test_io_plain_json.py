"""Values through JSON and back."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time

from skyloom.errors import InputError
from skyloom.io.formats.plain_json import from_json, to_json


def back(value):
    return from_json(to_json(value, "meta"))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        0.1,
        -1e-300,
        float("inf"),
        "text",
        "é\n'",
        [1, [2.5, "a"]],
        {"a": {"b": [1, None]}},
        (1, (2,)),
        [],
    ],
)
def test_plain_values(value):
    result = back(value)
    assert result == value
    assert type(result) is type(value)


def test_nan_comes_back_as_nan():
    assert np.isnan(back(float("nan")))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8", "bool", "complex128", "U5", ">f8"])
def test_arrays_keep_type_and_shape(dtype):
    value = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    result = back(value)
    np.testing.assert_array_equal(result, value)
    assert result.dtype == value.dtype
    assert result.flags.writeable


def test_numpy_scalars():
    assert back(np.float32(0.1)) == np.float32(0.1)
    assert back(np.int64(7)) == 7


def test_quantities_and_times():
    assert back(3.0 * u.kpc) == 3.0 * u.kpc
    np.testing.assert_array_equal(back([1.0, 2.0] * u.Jy), [1.0, 2.0] * u.Jy)
    moment = Time("2014-12-08T02:48:56.798", scale="utc")
    assert back(moment) == moment
    assert back(moment).isot == moment.isot
    assert back(u.Unit("1e-20 erg/(s cm2 AA)")) == u.Unit("1e-20 erg/(s cm2 AA)")


@pytest.mark.parametrize("value", [object(), {"x": {2, 3}}, np.array([object()])])
def test_what_has_no_form_is_refused_with_its_place(value):
    with pytest.raises(InputError, match="meta"):
        to_json(value, "meta")
