"""Chunks: what was finished is kept, what is damaged or of other settings is not."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from skyloom.errors import AssumptionWarning, InputError
from skyloom.recipes.chunks import ChunkPlan, do_chunks, from_text, read_chunk, to_text, write_chunk

DONE: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done():
    DONE.clear()


def square(plan: ChunkPlan, item: str) -> None:
    """Stand for a fit: the squares of the rows' numbers."""
    rows = plan.rows(item)
    DONE.append(item)
    warnings.warn(f"{rows.stop - rows.start} rows were squared", AssumptionWarning, stacklevel=2)
    write_chunk(
        plan.path(item), rows, {"square": np.arange(rows.start, rows.stop) ** 2, "note": to_text([1, "a"])}
    )


def refuse(plan: ChunkPlan, item: str) -> None:
    raise InputError(f"rows {item} are wrong")


def do(plan: ChunkPlan, function=square, **options):
    ticks: list[tuple[int, int]] = []
    with pytest.warns(AssumptionWarning) if function is square else warnings.catch_warnings():
        return do_chunks(plan, function, plan, lambda *tick: ticks.append(tick), **options), ticks


def plan_of(folder: Path, digest: str = "a" * 64, size: int = 4) -> ChunkPlan:
    return ChunkPlan(folder, "stage", digest, 10, size)


def test_rows_come_back_in_order(tmp_path):
    chunks, ticks = do(plan_of(tmp_path))
    assert DONE == ["0-4", "4-8", "8-10"]
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    assert chunks.size == 4
    rows, squares = [], []
    for part, content in chunks:
        rows.append(part)
        squares.append(content["square"])
        assert from_text(content["note"]) == [1, "a"]
    assert rows == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert np.array_equal(np.concatenate(squares), np.arange(10) ** 2)


def test_chunks_that_differ_in_numbers_say_the_same_once(tmp_path):
    with pytest.warns(AssumptionWarning) as told:
        do_chunks(plan_of(tmp_path), square, plan_of(tmp_path), lambda *_: None)
    assert [str(item.message) for item in told] == ["4 rows were squared"]


def test_finished_chunks_are_kept_and_damaged_ones_are_not(tmp_path):
    plan = plan_of(tmp_path)
    do(plan)
    DONE.clear()
    plan.path("4-8").unlink()
    content = bytearray(plan.path("8-10").read_bytes())
    content[60:90] = bytes(30)
    plan.path("8-10").write_bytes(content)
    _, ticks = do(plan)
    assert DONE == ["4-8", "8-10"]
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    DONE.clear()
    do(plan, overwrite=True)
    assert DONE == ["0-4", "4-8", "8-10"]


@pytest.mark.parametrize("other", [{"digest": "b" * 64}, {"size": 5}])
def test_chunks_of_other_settings_are_replaced(tmp_path, other):
    do(plan_of(tmp_path))
    DONE.clear()
    plan = plan_of(tmp_path, **other)
    do(plan)
    assert plan.items == DONE
    assert sorted(tmp_path.iterdir()) == sorted(plan.path(item) for item in plan.items)


def test_what_is_wrong_with_all_is_told_once(tmp_path):
    with pytest.raises(InputError, match="rows 0-4 are wrong"):
        do(plan_of(tmp_path), refuse)


def test_a_file_that_is_no_chunk_is_named(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        read_chunk(tmp_path / "x.npz")
