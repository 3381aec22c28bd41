"""What a recipe hands back: its products, what failed and why, and which science checks it passed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from skyloom.core.execution import Outcome
    from skyloom.report.model import Check

Result = TypeVar("Result")


class ExitCode(IntEnum):
    """What the command line ends with."""

    DONE = 0
    INTERNAL_ERROR = 1
    BAD_INPUT = 2
    CHECK_FAILED = 3
    ITEMS_FAILED = 4


class StageProgress(NamedTuple):
    """How far a stage of an item is: ``done`` of ``total`` parts."""

    name: str
    done: int
    total: int


class Progress(Protocol):
    """Called by a recipe each time an item is finished, and where a recipe can tell, within an item."""

    def __call__(self, item: str, done: int, total: int, *, stage: StageProgress | None = None) -> None:
        """Tell that ``done`` of ``total`` items are finished, ``item`` the last; with a stage: ``item`` is at it."""


def tell_stage(progress: Progress | None, names: tuple[str, ...], item: str, stage: StageProgress) -> None:
    """Tell, where somebody listens, how far ``item``, one of ``names``, is with a stage."""
    if progress is not None:
        progress(item, names.index(item), len(names), stage=stage)


def treated(
    function: Callable[..., Result],
    context: Any,
    names: tuple[str, ...],
    *,
    workers: int,
    scheduler: str | None,
    progress: Progress | None,
    finished: Iterable[Outcome[Result]] = (),
) -> list[Outcome[Result]]:
    """Call ``function(context, name)`` for each name that is not finished, and tell of each as it is done.

    Parameters
    ----------
    function, context, workers, scheduler
        See `skyloom.core.execution.run_items`.
    names : tuple of str
        In the order in which the outcomes are returned.
    progress : callable or None
    finished : iterable of Outcome
        What an earlier run has done.

    Returns
    -------
    list of Outcome
    """
    from skyloom.core.execution import run_items

    outcomes = list(finished)
    remaining = [name for name in names if name not in {outcome.item for outcome in outcomes}]
    for outcome in run_items(function, context, remaining, workers=workers, scheduler=scheduler):
        outcomes.append(outcome)
        if progress is not None:
            progress(outcome.item, len(outcomes), len(names))
    return sorted(outcomes, key=lambda outcome: names.index(outcome.item))


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """An item that could not be done; the others were."""

    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """The outcome of a run.

    Attributes
    ----------
    recipe : str
        Name of the recipe.
    directory : Path
        Where the products are.
    products : tuple of Path
        Every file written, or found finished by an earlier run.
    resumed : int
        How many items had been finished by an earlier run.
    failures : tuple of ItemFailure
        Items that could not be done.
    checks : tuple of Check
        The science checks, passed or not.
    report : Path or None
        The HTML report.
    summary : str
        What was made, where a count of files would not say it.
    """

    recipe: str
    directory: Path
    products: tuple[Path, ...]
    resumed: int = 0
    failures: tuple[ItemFailure, ...] = ()
    checks: tuple[Check, ...] = field(default=())
    report: Path | None = None
    summary: str = ""

    @property
    def exit_code(self) -> ExitCode:
        """Failed items weigh more than failed checks, since what failed could not be checked at all."""
        if self.failures:
            return ExitCode.ITEMS_FAILED
        if not all(check.passed for check in self.checks):
            return ExitCode.CHECK_FAILED
        return ExitCode.DONE
