"""Blocks of work over threads: kernels release the interpreter's lock, and each writes where no other writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["blocks", "run_blocks", "stream_blocks", "thread_count"]

Result = TypeVar("Result")


def thread_count() -> int:
    """Return how many threads this process may keep busy."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def blocks(size: int, step: int) -> list[slice]:
    """Cut ``range(size)`` into slices of at most ``step``."""
    return [slice(start, min(start + step, size)) for start in range(0, size, max(1, step))]


def run_blocks(
    function: Callable[[slice], Result], parts: Iterable[slice], threads: int | None = None
) -> list[Result]:
    """Call ``function`` on every block; results in order, the first exception raised."""
    return list(stream_blocks(function, parts, threads))


def stream_blocks(
    function: Callable[[slice], Result], parts: Iterable[slice], threads: int | None = None
) -> Iterator[Result]:
    """Yield what ``function`` makes of every block, in order and as soon as it is there; raise the first exception."""
    todo = list(parts)
    workers = min(thread_count() if threads is None else max(1, threads), len(todo))
    if workers <= 1:
        yield from map(function, todo)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, todo)
