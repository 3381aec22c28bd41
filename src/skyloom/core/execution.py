"""Running many items: here, in worker processes, or on a Dask cluster, with one way of failing."""

from __future__ import annotations

import multiprocessing
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from skyloom.errors import SkyloomError, SkyloomWarning

__all__ = ["Outcome", "attempt", "collected_notes", "reason_of", "run_items"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """What became of one item.

    Attributes
    ----------
    item : str
    result : object or None
        What the function returned; None after a failure.
    failure : str
        Why it failed; empty after success.
    notes : tuple of str
        Warnings that were given on the way.
    """

    item: str
    result: Result | None
    failure: str = ""
    notes: tuple[str, ...] = ()


def run_items(
    function: Callable[..., Result],
    context: Any,
    items: Sequence[str],
    *,
    details: Mapping[str, Any] | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    local: str = "processes",
    check: Callable[[Any], str] | None = None,
) -> Generator[Outcome[Result], None, None]:
    """Call ``function(context, item)`` for every item and yield outcomes as they come.

    Parameters
    ----------
    function : callable
        Importable by name, so that it can be sent to other processes.
    context : object
        What all items share; sent to each worker once.
    items : sequence of str
    details : mapping, optional
        What each item needs of its own, sent with it alone: ``function(context, item, details[item])``.
    workers : int
        Worker processes; 1 runs here.
    scheduler : str, optional
        Address of a Dask scheduler; its workers are used instead, each for one item at a time.
    local : {"processes", "dask"}
        What several workers on this machine are: plain processes, or a Dask cluster, which starts another worker when
        one dies and tries its item again.
    check : callable, optional
        Called with the context by every worker of a scheduler before the work begins; returns why it cannot do it, as
        the end of a sentence that begins with the worker, or an empty text.

    Raises
    ------
    InputError
        When no scheduler answers, it has no workers or loses all of them, or a worker cannot do the work.

    Notes
    -----
    An item that raises is one failed outcome; the others go on. With plain processes, a worker that dies takes the
    items it held with it, and they are reported as failed. With Dask its item is tried again elsewhere, and is a failed
    outcome when several workers have died over it.
    """
    if not items:
        return _nothing()
    if scheduler is not None or (workers > 1 and local == "dask"):
        from skyloom.core.cluster import on_local_workers, on_scheduler

        if scheduler is not None:
            return on_scheduler(function, context, items, details, scheduler, check)
        return on_local_workers(function, context, items, details, min(workers, len(items)))
    if workers > 1:
        return _in_processes(function, context, items, details, workers)
    return (attempt(function, context, item, *_detail(details, item)) for item in items)


def _detail(details: Mapping[str, Any] | None, item: str) -> tuple[Any, ...]:
    return () if details is None else (details[item],)


def _nothing() -> Generator[Outcome[Any], None, None]:
    yield from ()


def attempt(function: Callable[..., Result], context: Any, item: str, *detail: Any) -> Outcome[Result]:
    """Call the function for one item, turning an exception into a failed outcome and keeping the warnings."""
    with collected_notes() as notes:
        try:
            result, failure = function(context, item, *detail), ""
        except Exception as error:  # noqa: BLE001  one item must not take the others down; the place is reported
            result, failure = None, reason_of(error)
    return Outcome(item, result, failure, tuple(notes))


def reason_of(error: Exception) -> str:
    """Return why an item failed, for the list of failures: the message, or the place of an error of the program."""
    if isinstance(error, SkyloomError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return f"internal error: {type(error).__name__}: {error} ({where})"


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """Collect Skyloom's warnings as text, each once, for the report; other warnings pass.

    In one thread at a time: what it changes is shared by all threads, and they would put it back in the wrong order.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SkyloomWarning)
        try:
            yield notes
        finally:
            mine = [note for note in caught if issubclass(note.category, SkyloomWarning)]
            notes += dict.fromkeys(f"{note.category.__name__}: {note.message}" for note in mine)
    for note in caught:
        if note not in mine:
            warnings.warn_explicit(note.message, note.category, note.filename, note.lineno)


_SHARED: dict[str, Any] = {}


def _share(context: Any) -> None:
    _SHARED["context"] = context


def _attempt_shared(function: Callable[..., Result], item: str, *detail: Any) -> Outcome[Result]:
    return attempt(function, _SHARED["context"], item, *detail)


def _in_processes(
    function: Callable[..., Result],
    context: Any,
    items: Sequence[str],
    details: Mapping[str, Any] | None,
    workers: int,
) -> Generator[Outcome[Result], None, None]:
    # Fresh processes: forking one that runs threads (numba, Dask, the viewer) can hang.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), spawn, _share, (context,)) as pool:
        futures = {
            pool.submit(_attempt_shared, function, item, *_detail(details, item)): item for item in items
        }
        for future in as_completed(futures):
            yield _finished(future, futures[future])


def _finished(future: Future[Outcome[Result]], item: str) -> Outcome[Result]:
    try:
        return future.result()
    except BrokenProcessPool:
        return Outcome(item, None, "the worker process died, perhaps for lack of memory; run again to resume")
