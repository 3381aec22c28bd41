"""A recipe in a process of its own, beside what this one does meanwhile."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from skyloom.recipes.result import Progress, RunResult, StageProgress

__all__ = ["Aside"]

_LISTENED = 0.2  # Seconds between two looks at whether it has ended.
_news: Any = None  # In the other process: where progress is told.


class Aside:
    """A function that runs a recipe, in a process of its own; as a context manager it leaves no process behind.

    Parameters
    ----------
    function : callable
        Named in a module. Given ``arguments`` and ``progress``, returns a `RunResult`.
    *arguments
        Of the function; they are pickled.
    """

    def __init__(self, function: Callable[..., RunResult], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._news: Any = context.Queue()
        self._others = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(1, context, initializer=_tell_to, initargs=(self._news,))
        self._future: Future[tuple[RunResult, float]] = self._pool.submit(_timed, function, arguments)

    def __enter__(self) -> Aside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            # What it makes would be of no use any more.
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def result(self, progress: Progress | None = None) -> tuple[RunResult, float]:
        """Wait for the result; pass on what it tells meanwhile, and return it with the seconds that it took."""
        while True:
            ended = self._future.done()
            try:
                item, done, total, stage = self._news.get(timeout=_LISTENED)
            except queue.Empty:
                if ended:
                    return self._future.result()
                continue
            if progress is not None:
                progress(item, done, total, stage=stage)


def _tell_to(news: Any) -> None:
    global _news  # the one thing that a worker process is started with
    _news = news


def _tell(item: str, done: int, total: int, *, stage: StageProgress | None = None) -> None:
    _news.put((item, done, total, stage))


def _timed(function: Callable[..., RunResult], arguments: tuple[Any, ...]) -> tuple[RunResult, float]:
    clock = time.perf_counter()
    try:
        result = function(*arguments, progress=_tell)
    finally:
        # All that was told is on its way before the result is.
        _news.close()
        _news.join_thread()
    return result, time.perf_counter() - clock
