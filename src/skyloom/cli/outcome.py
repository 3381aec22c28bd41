"""What came of a run, on the terminal, and the exit code that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from skyloom.cli.terminal import console, counted
from skyloom.recipes.result import ExitCode

if TYPE_CHECKING:
    from skyloom.recipes.result import RunResult

__all__ = ["finish", "tell_result", "worst_code"]


def tell_result(result: RunResult) -> None:
    """Print where the products of a run are, and everything that did not go well."""
    from rich.markup import escape

    terminal = console()
    done = f" ({counted(result.resumed, 'item')} from an earlier run)" if result.resumed else ""
    made = escape(result.summary) or f"{counted(len(result.products), 'file')}{done}"
    terminal.print(f"[bold]{result.recipe}[/]: {made} in {escape(str(result.directory))}")
    if result.report is not None:
        terminal.print(f"report: {escape(str(result.report))}")
    failed = [check for check in result.checks if not check.passed]
    if result.checks:
        terminal.print(f"science checks: {len(result.checks) - len(failed)} passed, {len(failed)} failed")
    for check in failed:
        verdict = f"{check.item}: {check.name} is {check.value:.4g}, not {check.bounds}"
        terminal.print(f"  [yellow]check failed[/] {escape(verdict)}")
    for failure in result.failures:
        terminal.print(f"  [red]failed[/] {escape(failure.item)}: {escape(failure.reason)}")


def worst_code(codes: Sequence[ExitCode]) -> ExitCode:
    """Return the exit code of several runs: a bug, bad input of all, failed items, failed checks, in this order."""
    if ExitCode.INTERNAL_ERROR in codes:
        return ExitCode.INTERNAL_ERROR
    if codes and all(code is ExitCode.BAD_INPUT for code in codes):
        return ExitCode.BAD_INPUT
    if ExitCode.BAD_INPUT in codes or ExitCode.ITEMS_FAILED in codes:
        return ExitCode.ITEMS_FAILED
    return ExitCode.CHECK_FAILED if ExitCode.CHECK_FAILED in codes else ExitCode.DONE


def finish(*results: RunResult) -> None:
    """Tell what came of runs, and end with the exit code that says how they went."""
    for result in results:
        tell_result(result)
    code = worst_code([result.exit_code for result in results])
    if code is not ExitCode.DONE:
        raise typer.Exit(int(code))
