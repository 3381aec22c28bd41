"""``skyloom qa``: the products of a run judged again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from skyloom.recipes.result import RunResult

__all__ = ["add_qa"]


def add_qa(app: typer.Typer, finish: Callable[[RunResult], None], exit_codes: str) -> None:
    """Add the command to an app; ``finish`` tells what came of it and ends with its exit code."""

    @app.command(
        epilog=f"""\b
Examples:
  skyloom qa halpha
  skyloom qa halpha --set checks.nebula_ratio='[0.95, 1.05]'
  skyloom qa halpha --set output.figures=false

Tables, figures and verdicts are made anew from the images in the folder; no image is. The page is DIR/qa.html.

{exit_codes}"""
    )
    def qa(
        directory: Annotated[
            Path, typer.Argument(metavar="DIR", help="Folder of the products of a run of 'halpha'.")
        ],
        settings: Annotated[
            list[str] | None,
            typer.Option(
                "--set", metavar="KEY=VALUE", help="Change a bound, such as checks.empty_scatter. Repeatable."
            ),
        ] = None,
    ) -> None:
        """Judge the products of a Halpha run again: HST against MUSE, nebulae, noise."""
        from skyloom.recipes.halpha.qa_report import judge_run

        finish(judge_run(directory, settings or ()))
