"""Broken files of SDSS are refused with the file, the field, and what to do; whole ones are read."""

from __future__ import annotations

from pathlib import Path

import pytest

import skyloom as sl
from skyloom.errors import SkyloomError
from tests.inputs.store_files import BROKEN, duplicate, good_frame, good_spectrum, same_name, small_frame


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    broken = BROKEN[name](tmp_path)
    with pytest.raises(SkyloomError) as refused:
        sl.read(broken.path)
    message = str(refused.value)
    assert broken.path.name in message
    for word in broken.words:
        assert word in message


def test_the_files_they_were_made_of_are_read(tmp_path: Path) -> None:
    frame = sl.read(good_frame(tmp_path))
    assert frame.shape == small_frame().image.shape
    assert sl.read(good_spectrum(tmp_path)).shape == (1, 500)


def test_a_duplicate_has_the_same_bytes_and_a_namesake_has_not(tmp_path: Path) -> None:
    first, second = duplicate(tmp_path)
    assert first.read_bytes() == second.read_bytes()
    assert first.name != second.name
    first, second = same_name(tmp_path)
    assert first.name == second.name
    assert first.read_bytes() != second.read_bytes()
