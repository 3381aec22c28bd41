"""Items on the workers of a Dask scheduler: one at a time in each, whatever becomes of single workers."""

from __future__ import annotations

import pickle
import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

from skyloom._version import __version__
from skyloom.core.execution import Outcome, attempt
from skyloom.errors import AssumptionWarning, InputError

__all__ = ["ALLOWED_DEATHS", "on_local_workers", "on_scheduler"]

ALLOWED_DEATHS = 3
"""Workers that may die over one item before it is given up, where this program starts the scheduler."""
PATIENCE = 60.0
"""Seconds without any worker before a run is given up."""
_LOG_ERRORS = 40  # The level of errors; this layer knows no logging.
_POLL = 1.0  # Seconds between looks at which workers there are.
Result = TypeVar("Result")


def on_local_workers(
    function: Callable[..., Result],
    context: Any,
    items: Sequence[str],
    details: Mapping[str, Any] | None,
    workers: int,
) -> Generator[Outcome[Result], None, None]:
    """Work in processes of this machine; one that dies is replaced, and its item tried again."""
    # One thread each: kernels have threads of their own, and memory is counted per process.
    with _distributed().LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=_LOG_ERRORS,
        scheduler_kwargs={"allowed_failures": ALLOWED_DEATHS - 1},
        # An interruption from the terminal reaches them, too; this process ends them, without their complaints.
        preload=["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
    ) as cluster:
        yield from on_scheduler(function, context, items, details, cluster.scheduler_address)


def on_scheduler(
    function: Callable[..., Result],
    context: Any,
    items: Sequence[str],
    details: Mapping[str, Any] | None,
    scheduler: str,
    check: Callable[[Any], str] | None = None,
) -> Generator[Outcome[Result], None, None]:
    """Work on what a scheduler has, as `skyloom.core.execution.run_items` tells.

    Raises
    ------
    InputError
        When no scheduler answers, it has no workers or loses all of them, or a worker cannot do the work.
    """
    distributed = _distributed()
    try:
        client = distributed.Client(scheduler, timeout="20s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers: {error}",
            source=scheduler,
            field="--scheduler",
            remedy="start one with 'dask scheduler', and workers with 'dask worker ADDRESS --nthreads 1'",
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise _without_workers(scheduler) from error
        content = pickle.dumps(context)
        _see_workers(client, scheduler, check, content)
        # Made by a task, so that it is made again when the workers that held it have died.
        shared = client.submit(pickle.loads, content, pure=False)
        yield from _Turns(client, scheduler, function, shared, items, details).outcomes()


def _without_workers(scheduler: str) -> InputError:
    return InputError(
        f"the scheduler has had no worker for {PATIENCE:.0f} s",
        source=scheduler,
        field="--scheduler",
        remedy="start workers with 'dask worker ADDRESS --nthreads 1' and run again: what is finished is kept",
    )


# --- before the work -------------------------------------------------------------------------------------------------


def _see_workers(client: Any, scheduler: str, check: Callable[[Any], str] | None, content: bytes) -> None:
    """See that every worker has this version of Skyloom and can do the work."""
    for address, answer in client.run(_answer, check, content, on_error="return").items():
        if isinstance(answer, BaseException):
            problem = f"cannot run this version of Skyloom ({type(answer).__name__}: {answer})"
            remedy = "install the same version of Skyloom where the workers are"
        elif answer[0] != __version__:
            problem = f"has Skyloom {answer[0]}; this is {__version__}"
            remedy = "install the same version where the workers are"
        else:
            problem = answer[1]
            remedy = "start workers where the same files are seen under the same names"
        if problem:
            raise InputError(
                f"the Dask worker {address} {problem}", source=scheduler, field="--scheduler", remedy=remedy
            )
    idle = {address: threads for address, threads in client.nthreads().items() if threads > 1}
    if idle:
        address, threads = next(iter(idle.items()))
        warnings.warn(
            f"the Dask worker {address} has {threads} threads and treats one item at a time; start workers with"
            f" 'dask worker ADDRESS --nworkers {threads} --nthreads 1' to keep all processors busy",
            AssumptionWarning,
            stacklevel=2,
        )


def _answer(check: Callable[[Any], str] | None, content: bytes) -> tuple[str, str]:
    """Return the version of a worker, and why it cannot work; called there."""
    return __version__, "" if check is None else check(pickle.loads(content))


# --- the work --------------------------------------------------------------------------------------------------------

_ALONE = threading.Lock()


def _attempt_alone(
    function: Callable[..., Result], context: Any, item: str, details: tuple[Any, ...]
) -> Outcome[Result]:
    """Treat an item in a worker that may have several threads; warnings can be collected in one at a time."""
    with _ALONE:
        return attempt(function, context, item, *details)


class _Turns:
    """Gives each worker one item, and the next when that is finished.

    A worker holds no items that wait, so that nothing but the item it was treating is held against it when it dies, and
    a scheduler has not more to know than there are workers.
    """

    def __init__(
        self,
        client: Any,
        scheduler: str,
        function: Callable[..., Any],
        shared: Any,
        items: Sequence[str],
        details: Mapping[str, Any] | None,
    ) -> None:
        self.client = client
        self.scheduler = scheduler
        self.function = function
        self.shared = shared
        self.details = details
        self.waiting = deque(items)
        self.running: dict[Any, tuple[str, str]] = {}
        """Future -> item, and the worker that it was given to."""
        self.finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.workers: tuple[str, ...] = ()
        self.looked = -_POLL
        self.seen = time.monotonic()

    def outcomes(self) -> Generator[Outcome[Any], None, None]:
        """Yield what became of each item."""
        while self.waiting or self.running:
            self._look()
            self._give()
            try:
                future = self.finished.get(timeout=_POLL)
            except queue.Empty:
                continue
            # Taken out, so that neither the scheduler nor this process keeps the results of all items.
            item, _ = self.running.pop(future)
            yield self._outcome(future, item)

    def _look(self) -> None:
        """Find out which workers there are, not more often than needed."""
        now = time.monotonic()
        if now - self.looked < _POLL:
            return
        try:
            self.workers = tuple(self.client.nthreads())
        except (OSError, ValueError, RuntimeError) as error:
            raise self._lost() from error
        self.looked = now
        if self.workers:
            self.seen = now
        elif now - self.seen > PATIENCE:
            raise _without_workers(self.scheduler)

    def _give(self) -> None:
        busy = {worker for _, worker in self.running.values()}
        for worker in self.workers:
            if not self.waiting:
                return
            # An item whose worker has died is treated by another one: there are not more items than workers.
            if worker in busy or len(self.running) >= len(self.workers):
                continue
            item = self.waiting.popleft()
            details = () if self.details is None else (self.details[item],)
            future = self.client.submit(
                _attempt_alone,
                self.function,
                self.shared,
                item,
                details,
                pure=False,
                workers=[worker],
                allow_other_workers=True,
            )
            self.running[future] = item, worker
            future.add_done_callback(self.finished.put)

    def _outcome(self, future: Any, item: str) -> Outcome[Any]:
        if future.status in ("cancelled", "lost"):
            raise self._lost()
        error = future.exception()
        if error is None:
            result: Outcome[Any] = future.result()
            return result
        if isinstance(error, _distributed().KilledWorker):
            deaths, last = error.allowed_failures + 1, error.last_worker.address
            return Outcome(
                item, None, f"{deaths} workers died over it, perhaps for lack of memory; the last was {last}"
            )
        return Outcome(item, None, f"the Dask worker failed: {type(error).__name__}: {error}")

    def _lost(self) -> InputError:
        return InputError(
            "the Dask scheduler was lost",
            source=self.scheduler,
            field="--scheduler",
            remedy="look at its messages and run again: what is finished is kept",
        )


def _distributed() -> Any:
    """Import Dask's scheduler when it is asked for; parts of it carry no types."""
    return import_module("dask.distributed")
