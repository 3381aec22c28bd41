"""Running many items: here, in worker processes, or on a Dask cluster, with one way of failing."""

from __future__ import annotations

import multiprocessing
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

from skyloom.errors import InputError, SkyloomError, SkyloomWarning

__all__ = ["Outcome", "attempt", "collected_notes", "reason_of", "run_items"]

LOG_ERRORS = 40  # The level of errors; this layer knows no logging.
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
    function: Callable[[Any, str], Result],
    context: Any,
    items: Sequence[str],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    local: str = "processes",
) -> Generator[Outcome[Result], None, None]:
    """Call ``function(context, item)`` for every item and yield outcomes as they come.

    Parameters
    ----------
    function : callable
        Importable by name, so that it can be sent to other processes.
    context : object
        What all items share; sent to each worker once.
    items : sequence of str
    workers : int
        Worker processes; 1 runs here.
    scheduler : str, optional
        Address of a Dask scheduler; its workers are used instead.
    local : {"processes", "dask"}
        What several workers on this machine are: plain processes, or a Dask cluster, which starts another worker when
        one dies and tries its items again.

    Notes
    -----
    An item that raises is one failed outcome; the others go on. A worker that dies takes the items it held with it,
    and they are reported as failed.
    """
    if not items:
        return _nothing()
    if scheduler is not None:
        return _on_dask(function, context, items, scheduler)
    if workers > 1 and local == "dask":
        return _on_local_dask(function, context, items, min(workers, len(items)))
    if workers > 1:
        return _in_processes(function, context, items, workers)
    return (attempt(function, context, item) for item in items)


def _nothing() -> Generator[Outcome[Any], None, None]:
    yield from ()


def attempt(function: Callable[[Any, str], Result], context: Any, item: str) -> Outcome[Result]:
    """Call the function for one item, turning an exception into a failed outcome and keeping the warnings."""
    with collected_notes() as notes:
        try:
            result, failure = function(context, item), ""
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


def _attempt_shared(function: Callable[[Any, str], Result], item: str) -> Outcome[Result]:
    return attempt(function, _SHARED["context"], item)


def _in_processes(
    function: Callable[[Any, str], Result], context: Any, items: Sequence[str], workers: int
) -> Generator[Outcome[Result], None, None]:
    # Fresh processes: forking one that runs threads (numba, Dask, the viewer) can hang.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), spawn, _share, (context,)) as pool:
        futures = {pool.submit(_attempt_shared, function, item): item for item in items}
        for future in as_completed(futures):
            yield _finished(future, futures[future])


def _finished(future: Future[Outcome[Result]], item: str) -> Outcome[Result]:
    try:
        return future.result()
    except BrokenProcessPool:
        return Outcome(item, None, "the worker process died, perhaps for lack of memory; run again to resume")


def _on_local_dask(
    function: Callable[[Any, str], Result], context: Any, items: Sequence[str], workers: int
) -> Generator[Outcome[Result], None, None]:
    # One thread each: kernels have threads of their own, and memory is counted per process.
    with _distributed().LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=LOG_ERRORS,
    ) as cluster:
        yield from _on_dask(function, context, items, cluster.scheduler_address)


def _on_dask(
    function: Callable[[Any, str], Result], context: Any, items: Sequence[str], scheduler: str
) -> Generator[Outcome[Result], None, None]:
    distributed = _distributed()
    try:
        client = distributed.Client(scheduler, timeout="20s")
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers: {error}",
            source=scheduler,
            field="--scheduler",
            remedy="start one with 'dask scheduler', and workers with 'dask worker ADDRESS'",
        ) from error
    with client:
        shared = client.scatter(context, broadcast=True, hash=False)
        futures = {client.submit(attempt, function, shared, item, pure=False): item for item in items}
        for future in distributed.as_completed(futures):
            failure = future.exception()
            # Taken out, so that neither the scheduler nor this process keeps the results of all items.
            item = futures.pop(future)
            yield (
                future.result()
                if failure is None
                else Outcome(item, None, f"the Dask worker failed: {failure}")
            )


def _distributed() -> Any:
    """Import Dask's scheduler when it is asked for; parts of it carry no types."""
    return import_module("dask.distributed")
