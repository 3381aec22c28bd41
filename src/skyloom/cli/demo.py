"""The command ``skyloom demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyloom.cli.outcome import tell_result
from skyloom.cli.progress import ProgressBar
from skyloom.cli.terminal import RUN_EXIT_CODES, console
from skyloom.recipes.registry import RECIPES

if TYPE_CHECKING:
    from skyloom.recipes.demo import DemoResult

__all__ = ["add_demo"]

STEPS = ("mock", *RECIPES, "truth")


def add_demo(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=f"""\b
Examples:
  skyloom demo
  skyloom demo --out /tmp/demo --workers 2
  skyloom view skyloom-demo

{RUN_EXIT_CODES}"""
    )(demo)


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the files.")] = Path("skyloom-demo"),
    workers: Annotated[int, typer.Option(min=1, help="2: the cube beside all else.")] = 2,
) -> None:
    """Observe one mock galaxy with Hubble, MUSE and SDSS, run all recipes, and compare with the truth.

    Leaves the files in mock/, the products of each recipe in a folder of its own, and report.html, the page to begin
    with.
    """
    from skyloom.recipes.demo import demo as run_demo

    with ProgressBar(len(STEPS)) as progress:
        result = run_demo(out, workers=workers, progress=progress, begin=progress.begin_run)
    _tell(result)
    if result.exit_code:
        raise typer.Exit(int(result.exit_code))


def _tell(result: DemoResult) -> None:
    """Print what came of the recipes and of the comparison, and what to do next."""
    from rich.markup import escape

    terminal = console()
    for item in result.results.values():
        tell_result(item)
    failed = [row for row in result.rows if not row.passed]
    terminal.print(
        f"\n[bold]truth[/]: {len(result.rows) - len(failed)} of {len(result.rows)} comparisons with the truth passed"
    )
    for row in failed:
        found = f"bias {row.bias:.3g} {row.unit}, pulls {row.mean:+.2f} ± {row.spread:.2f}"
        verdict = f"{row.recipe}, {row.quantity}: {found}; allowed {row.allowed.text(row.unit)}"
        terminal.print(f"  [yellow]failed[/] {escape(verdict)}")
    place = escape(str(result.directory))
    terminal.print(f"first page: {escape(str(result.report))}")
    terminal.print(f"products:   {place}/{{{','.join(result.results)}}}")
    terminal.print(f"look around: [bold]skyloom view {place}[/]")
