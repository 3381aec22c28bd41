"""Blocks of work over threads come back in order, and what fails is raised."""

from __future__ import annotations

import pytest

from skyloom.core.threads import blocks, run_blocks, thread_count


def test_blocks_cover_all_once():
    parts = blocks(10, 4)
    assert parts == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert blocks(0, 4) == []
    assert len(blocks(3, 0)) == 3


@pytest.mark.parametrize("threads", [None, 0, 1, 3])
def test_results_come_in_order(threads):
    assert run_blocks(lambda part: part.start, blocks(100, 7), threads) == list(range(0, 100, 7))
    assert run_blocks(lambda part: part.start, [], threads) == []
    assert thread_count() >= 1


@pytest.mark.parametrize("threads", [1, 3])
def test_what_fails_is_raised(threads):
    def fail(part):
        raise ZeroDivisionError(part.start)

    with pytest.raises(ZeroDivisionError, match=r"^0$"):
        run_blocks(fail, blocks(10, 2), threads)
