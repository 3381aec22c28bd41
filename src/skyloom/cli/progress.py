"""How far long work is: bars on a terminal, one line per step elsewhere; both on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from types import TracebackType

    from skyloom.recipes.result import StageProgress

__all__ = ["ProgressBar"]


class ProgressBar:
    """Two bars, of the items and of the stages of one, and a third above them where there are several runs.

    Used as ``with ProgressBar() as progress: function(..., progress=progress)``.

    Parameters
    ----------
    runs : int
        How many runs it will be used for; `begin_run` tells that the next begins.
    """

    def __init__(self, runs: int = 1) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        # Not console.is_terminal: notebooks and CI make rich believe in terminals that cannot redraw a line.
        self._live = sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False, soft_wrap=True),
            transient=True,
            disable=not self._live,
        )
        self._runs = runs
        self._begun = 0
        self._prefix = ""
        self._last = ""

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        self._outer = self._bar.add_task("runs", total=self._runs, visible=self._runs > 1)
        self._items = self._bar.add_task("starting", total=None)
        self._stages = self._bar.add_task("", total=None, visible=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin_run(self, title: str) -> None:
        """Tell that the next of several runs begins, such as that of ``NGC863.yaml``."""
        self._bar.update(self._outer, description=title, completed=self._begun)
        self._bar.reset(self._items, total=None, description="starting")
        self._bar.update(self._stages, visible=False)
        self._begun += 1
        self._last = ""
        if self._runs > 1:
            self._prefix = f"[{self._begun}/{self._runs} {title}] "

    def __call__(self, item: str, done: int, total: int, *, stage: StageProgress | None = None) -> None:
        """Take what a recipe tells; see `skyloom.recipes.result.Progress`."""
        if self._live:
            self._bar.update(self._items, description=item, completed=done, total=total)
            self._bar.update(self._stages, visible=stage is not None)
            if stage is not None:
                self._bar.update(
                    self._stages, description=f"  {stage.name}", completed=stage.done, total=stage.total
                )
        elif stage is None:
            self._say(f"{done}/{total} {item}")
        elif stage.done == 0:
            self._say(f"{done}/{total} {item}: {stage.name}")

    def _say(self, text: str) -> None:
        """Write a line, once: a stage is announced before it starts, and may count its parts from 0."""
        if text != self._last:
            typer.echo(f"{self._prefix}{text}", err=True)
        self._last = text
