"""The jobs that are measured: what Skyloom does, what its peers do with the same input, and how right both are."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

MODULES = ("imaging", "resampling", "spectral", "fitting", "cubes", "store", "recipes")


class Task(NamedTuple):
    """Work that is ready to be timed.

    ``call`` is what is timed, ``judge`` turns its result into figures of accuracy (not timed), ``items`` is how many
    times the job's item is done in one call.
    """

    call: Callable[[], Any]
    judge: Callable[[Any], dict[str, float]]
    items: float = 1.0


class Contender(NamedTuple):
    """Skyloom or a peer: ``prepare`` makes the input of a size; ``module`` must be installed; ``note`` tells limits."""

    name: str
    prepare: Callable[[Mapping[str, Any]], Task]
    module: str = ""
    note: str = ""

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return not self.module or importlib.util.find_spec(self.module) is not None


class Goal(NamedTuple):
    """A target of the project: ``figure`` is cpu or wall (s per item), ratio (of CPU) or a figure of accuracy."""

    figure: str
    low: float
    high: float
    told: str


@dataclass(frozen=True)
class Job:
    """One job and all who do it.

    Attributes
    ----------
    name, title : str
        Its name, and what is done to what.
    quick, tiny : Mapping
        Sizes: of ``make bench``, and for a first call that loads what is compiled (and for the tests).
    ours : Contender
    peers : tuple of Contender
    item : str
        What the times are given for, e.g. one spectrum; empty: the whole call.
    accuracy : str
        What the figures of accuracy mean.
    goals : tuple of Goal
    rounds : int
        Fresh processes for each contender, in turn.
    """

    name: str
    title: str
    quick: Mapping[str, Any]
    tiny: Mapping[str, Any]
    ours: Contender
    peers: tuple[Contender, ...] = ()
    item: str = ""
    accuracy: str = ""
    goals: tuple[Goal, ...] = ()
    rounds: int = 2

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """Skyloom first, then the peers that are installed."""
        return (self.ours, *(peer for peer in self.peers if peer.installed))

    @property
    def module(self) -> str:
        """Name of the module that has it."""
        prepare = self.ours.prepare
        return str((prepare.func if isinstance(prepare, partial) else prepare).__module__)

    def contender(self, name: str) -> Contender:
        """Find one by its name."""
        return next(one for one in (self.ours, *self.peers) if one.name == name)


def all_jobs() -> Iterator[Job]:
    """Yield the jobs in the order of the table."""
    for module in MODULES:
        yield from importlib.import_module(f"benchmarks.jobs.{module}").JOBS


def job_named(name: str) -> Job:
    """Find a job by its name."""
    return next(job for job in all_jobs() if job.name == name)
