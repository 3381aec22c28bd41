"""What a step takes: time by the clock, processor time, memory."""

from __future__ import annotations

import math
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from skyloom.report.model import StepRecord

__all__ = ["Meter", "StepClock"]

INTERVAL = 0.02
"""Seconds between two looks at the memory in use."""
_STATM, _STATUS = Path("/proc/self/statm"), Path("/proc/self/status")


class Meter:
    """Measures what is done within a ``with`` statement.

    Attributes
    ----------
    wall, cpu : float
        Seconds: by the clock, and of all threads of this process and of the worker processes that ended meanwhile.
        Until the end of the statement, what has passed so far.
    memory : float
        Bytes, known at the end: the most memory that this process held at once, all of it, not only what was added.
        NaN where the system does not tell.

    Notes
    -----
    The system knows the most that a process has ever held, which says nothing of a step after a larger one. So the
    memory in use is looked at fifty times a second; where a step has raised the mark of the process, that mark is
    its peak, however short it was.
    """

    __slots__ = ("_clocks", "_end", "_highest", "_mark", "_thread", "memory")

    def __enter__(self) -> Meter:
        self.memory = math.nan
        self._mark = _largest_ever()
        self._highest = _in_use()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()
        self._clocks = time.perf_counter(), _processor_seconds(), math.nan, math.nan
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall, cpu = self.wall, self.cpu
        self._end.set()
        self._thread.join()
        largest = _largest_ever()
        self.memory = largest if largest > self._mark else max(self._highest, _in_use())
        self._clocks = *self._clocks[:2], wall, cpu

    @property
    def wall(self) -> float:
        """Seconds by the clock."""
        return time.perf_counter() - self._clocks[0] if math.isnan(self._clocks[2]) else self._clocks[2]

    @property
    def cpu(self) -> float:
        """Seconds of processors."""
        return _processor_seconds() - self._clocks[1] if math.isnan(self._clocks[3]) else self._clocks[3]

    def _watch(self) -> None:
        while not self._end.wait(INTERVAL):
            self._highest = max(self._highest, _in_use())


class StepClock:
    """Adds up what the steps of an object take, where these are not stages with files of their own."""

    def __init__(self) -> None:
        self._steps: dict[str, StepRecord] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what is done within the statement as a step, with what was counted as the same before."""
        with Meter() as meter:
            yield
        known = self._steps.get(name, StepRecord(name, 0.0, 0.0))
        # Nothing is greater than NaN.
        memory = known.memory if known.memory > meter.memory else meter.memory
        self._steps[name] = StepRecord(name, known.wall + meter.wall, known.cpu + meter.cpu, memory)

    def records(self) -> tuple[StepRecord, ...]:
        """Return the steps in the order of their first appearance."""
        return tuple(self._steps.values())


def _processor_seconds() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _in_use() -> float:
    """Bytes of memory that this process holds; NaN where there is no /proc."""
    try:
        return int(_STATM.read_bytes().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        return math.nan


def _largest_ever() -> float:
    """The most that this process has held."""
    try:
        text = _STATUS.read_bytes()
    except OSError:
        return math.nan
    place = text.find(b"VmHWM:")
    return 1024.0 * int(text[place + 6 :].split(None, 1)[0]) if place >= 0 else math.nan
