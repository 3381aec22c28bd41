"""FITS bytes written directly: astropy must read them, agree with the checksums and find nothing to correct."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from skyloom.errors import InputError
from skyloom.io.formats.blocks import BLOCK, Extension, card, encode, text_cards, write_hdus

KINDS = ["bool", "uint8", "uint16", "int16", "int32", "int64", "float32", "float64"]


def opened(extensions):
    content = b"".join(encode(extensions))
    assert len(content) % BLOCK == 0
    hdus = fits.open(io.BytesIO(content), checksum=True)
    hdus.verify("exception")
    return hdus


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 4), (40, 31)])
def test_arrays_of_every_type_come_back(kind, shape, rng):
    data = (rng.normal(size=shape) * 100).astype(kind)
    hdus = opened([Extension("", None), Extension("PLANE", data)])
    back = hdus["PLANE"].data
    np.testing.assert_array_equal(back, data)
    if kind != "bool":
        assert back.dtype.newbyteorder("=") == data.dtype


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_in_pieces_is_what_is_encoded(kind, rng, monkeypatch):
    monkeypatch.setattr("skyloom.io.formats.blocks.PIECE", 64)
    records = np.zeros(37, dtype=[("NAME", "S5"), ("VALUE", "f8"), ("COUNT", "i2")])
    records["NAME"], records["VALUE"], records["COUNT"] = b"abc", rng.normal(size=37), 5
    planes = [(rng.normal(size=shape) * 100).astype(kind) for shape in ((1,), (7, 5), (33, 31), (0, 4))]
    strided = (rng.normal(size=(20, 30)) * 100).astype(kind)[::2, ::3]
    extensions = [Extension("", None, card("A", 1)), Extension("T", records)]
    extensions += [Extension(f"P{i}", plane) for i, plane in enumerate([*planes, strided])]
    stream = io.BytesIO()
    write_hdus(stream, extensions)
    assert stream.getvalue() == b"".join(encode(extensions))
    stream.seek(0)
    hdus = fits.open(stream, checksum=True)
    np.testing.assert_array_equal(hdus["P2"].data, planes[2])
    np.testing.assert_array_equal(hdus["P4"].data, strided)
    np.testing.assert_array_equal(hdus["T"].data["VALUE"], records["VALUE"])


def test_checksums_hold_for_many_contents(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(100):
            size = int(rng.integers(1, 60))
            opened(
                [
                    Extension("", None, card("RANDOM", float(rng.normal()))),
                    Extension("A", rng.normal(size=size)),
                ]
            )


def test_a_wrong_byte_is_noticed():
    content = bytearray(b"".join(encode([Extension("", None), Extension("A", np.arange(10.0))])))
    content[2 * BLOCK + 5] ^= 1
    with pytest.warns(AstropyUserWarning) as caught:
        fits.open(io.BytesIO(bytes(content)), checksum=True)
    assert {str(warning.message).split(" verification")[0] for warning in caught} == {"Checksum", "Datasum"}


def test_tables_come_back():
    records = np.zeros(3, dtype=[("NAME", "S12"), ("VALUE", "f8"), ("COUNT", "i4")])
    records["NAME"], records["VALUE"], records["COUNT"] = [b"a", b"bc", b"'q'"], [0.1, -1e300, 3], [1, -2, 3]
    table = opened([Extension("", None), Extension("T", records)])["T"].data
    assert list(table["NAME"]) == ["a", "bc", "'q'"]
    np.testing.assert_array_equal(table["VALUE"], records["VALUE"])
    np.testing.assert_array_equal(table["COUNT"], records["COUNT"])


def test_an_empty_table_is_a_table():
    records = np.zeros(0, dtype=[("NAME", "S4")])
    assert len(opened([Extension("", None), Extension("T", records)])["T"].data) == 0


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        -1.6666666666667e-05,
        1e-20,
        5e-324,
        1.7976931348623157e308,
        1 / 3,
        12345678901234567.0,
        True,
        False,
        0,
        *(-5, 2**53, "text", "it's", "a" * 200, "'" * 90, "é", "", "tab\there"),
    ],
)
def test_card_values_keep_every_digit(value):
    header = fits.Header.fromstring(card("KEY", value))
    expected = value
    if isinstance(value, str):
        expected = value.encode("ascii", "backslashreplace").decode().replace("\t", " ")
    assert header["KEY"] == expected
    assert type(header["KEY"]) is type(expected)


def test_undefined_value_and_comment():
    header = fits.Header.fromstring(card("NOTHING", None) + card("SPEED", 1.5, "km/s"))
    assert header["NOTHING"] is None
    assert header.comments["SPEED"] == "km/s"


def test_history_cards_are_cut_to_the_width_of_a_card():
    header = fits.Header.fromstring(text_cards("HISTORY", ["short", "x" * 100]))
    assert list(header["HISTORY"]) == ["short", "x" * 72]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_headers_cannot_hold_are_refused(value):
    with pytest.raises(InputError, match="KEY"):
        card("KEY", value)


def test_an_array_that_fits_cannot_hold_is_refused():
    with pytest.raises(InputError, match="complex"):
        encode([Extension("", np.zeros(3, complex))])
