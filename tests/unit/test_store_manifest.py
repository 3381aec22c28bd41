"""The journal of a store: every state that a killed writer can leave is a consistent one."""

from __future__ import annotations

import json

import pytest

from skyloom.errors import FileFormatError
from skyloom.store.files.manifest import (
    MANIFEST_NAME,
    FailureEntry,
    Manifest,
    PartEntry,
    append_drop,
    append_failures,
    append_part,
    cut_torn_line,
)

FIRST = PartEntry("partitions/5-1/0123456789abcdef.h5", 3, "d1", 100)
SECOND = PartEntry("partitions/5-2/fedcba9876543210.h5", 2, "d2", 200)


def test_an_absent_journal_is_an_empty_store(tmp_path):
    assert Manifest.read(tmp_path) == Manifest()
    assert not cut_torn_line(tmp_path)


def test_parts_failures_and_dropped_rows_come_back(tmp_path):
    append_part(tmp_path, FIRST)
    append_failures(
        tmp_path, [FailureEntry("a.fits", "truncated", ""), FailureEntry("b.fits", "no WCS", "ab")]
    )
    append_failures(tmp_path, [FailureEntry("a.fits", "no HDU 2", "cd")])
    append_part(tmp_path, SECOND, cleared=["b.fits"], drop={FIRST.name: [1]})
    append_drop(tmp_path, FIRST.name, [2])
    manifest = Manifest.read(tmp_path)
    assert manifest.parts == (FIRST, SECOND)
    assert manifest.failures == (FailureEntry("a.fits", "no HDU 2", "cd"),)
    assert manifest.dropped == {FIRST.name: frozenset({1, 2})}
    assert manifest.n_visible == 3
    assert manifest.n_bytes == (tmp_path / MANIFEST_NAME).stat().st_size


def test_a_journal_cut_anywhere_shows_a_prefix_of_its_lines(tmp_path):
    append_part(tmp_path, FIRST)
    append_failures(tmp_path, [FailureEntry("a.fits", "truncated", "")])
    append_part(tmp_path, SECOND, drop={FIRST.name: [0]})
    path = tmp_path / MANIFEST_NAME
    content = path.read_bytes()
    ends = [position + 1 for position, byte in enumerate(content) if byte == ord("\n")]
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = sum(end <= length for end in ends)
        manifest = Manifest.read(tmp_path)
        assert len(manifest.parts) == (0, 1, 1, 2)[whole]
        assert len(manifest.failures) == (0, 0, 1, 1)[whole]
        # What replaces and what is replaced change in the same moment.
        assert manifest.n_visible == (0, 3, 3, 4)[whole]


def test_the_next_writer_cuts_an_unfinished_line(tmp_path):
    append_part(tmp_path, FIRST)
    with (tmp_path / MANIFEST_NAME).open("ab") as file:
        file.write(b'{"part": "partitions/5-9/00')
    append_part(tmp_path, SECOND)
    assert Manifest.read(tmp_path).parts == (FIRST, SECOND)
    for line in (tmp_path / MANIFEST_NAME).read_text().splitlines():
        json.loads(line)


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    append_part(tmp_path, FIRST)
    append_part(tmp_path, SECOND)
    path = tmp_path / MANIFEST_NAME
    path.write_bytes(path.read_bytes().replace(b'"n": 3', b'"n": ?', 1))
    with pytest.raises(FileFormatError, match="line 1 is damaged"):
        Manifest.read(tmp_path)
