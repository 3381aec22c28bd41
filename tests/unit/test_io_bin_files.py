"""The map file of bins: pixels in, the same labels out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skyloom.core.labels import LabelMap
from skyloom.errors import AssumptionWarning, FileFormatError, InputError, ShapeError
from skyloom.io.products.bin_files import read_map_file, write_map_file

LABELS = np.array([[0, 0, 2, -1], [-1, 2, 2, -1], [-2, -1, -1, -1]], np.int32)


def test_every_pixel_is_listed_with_its_bin(tmp_path):
    path = write_map_file(tmp_path / "NGC863.map", LabelMap(LABELS), name="NGC 863")
    lines = path.read_text().splitlines()
    assert lines[0] == "# Pixels of the bins of NGC 863"
    assert [line for line in lines if not line.startswith("#")] == [
        "0 0 0",
        "0 1 0",
        "2 2 0",
        "2 1 1",
        "2 2 1",
    ]
    assert any("count from 0" in line for line in lines[:5])


def test_round_trip(tmp_path):
    found = read_map_file(write_map_file(tmp_path / "a.map", LABELS))
    np.testing.assert_array_equal(found.labels, np.where(LABELS < 0, -1, LABELS))
    assert found.history[-1].name == "read_map_file"


@given(labels=arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(-1, 9)))
def test_any_labels_come_back(labels, tmp_path_factory):
    if not (labels >= 0).any():
        return
    path = write_map_file(tmp_path_factory.mktemp("maps") / "a.map", labels)
    np.testing.assert_array_equal(read_map_file(path).labels, labels)


def test_files_of_others(tmp_path):
    (tmp_path / "a.map").write_text("# bins of somebody\n0 1 1\n1 3 2  # the corner\n\n")
    with pytest.warns(AssumptionWarning, match=r"taken as \(3, 4\)"):
        found = read_map_file(tmp_path / "a.map")
    assert found.labels[1, 1] == 0
    assert found.labels[2, 3] == 1
    shifted = read_map_file(tmp_path / "a.map", shape=(4, 5), origin=1)
    assert shifted.shape == (4, 5)
    assert shifted.labels[0, 0] == 0


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("0 1\n", FileFormatError, "line 1 is '0 1'; expected: bin x y"),
        ("0 1 1\n1 a 2\n", FileFormatError, "line 2"),
        ("# nothing\n", FileFormatError, "no pixel is listed"),
        ("# shape: 2 2\n0 2 0\n", ShapeError, "x=2 y=0 .* lies beyond a map of shape"),
        ("# shape: 2 2\n0 1 0\n1 1 0\n", InputError, "x=1 y=0 is listed 2 times"),
        ("# shape: 2 2\n-3 1 0\n", FileFormatError, "bins run from -3"),
    ],
)
def test_refusals(text, error, message, tmp_path):
    (tmp_path / "a.map").write_text(text)
    with pytest.raises(error, match=message):
        read_map_file(tmp_path / "a.map")


def test_nothing_is_overwritten_unasked(tmp_path):
    path = write_map_file(tmp_path / "a.map", LABELS)
    with pytest.raises(InputError, match="exists already"):
        write_map_file(path, LABELS)
    with pytest.raises(FileFormatError, match="no such file"):
        read_map_file(tmp_path / "b.map")
