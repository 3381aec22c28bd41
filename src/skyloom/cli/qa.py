"""``skyloom qa``: the products of a run judged again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skyloom.cli.outcome import finish
from skyloom.cli.terminal import RUN_EXIT_CODES

__all__ = ["add_qa"]

commands = typer.Typer()


def add_qa(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.registered_commands += commands.registered_commands


@commands.command(
    epilog=f"""\b
Examples:
  skyloom qa halpha
  skyloom qa halpha --set checks.nebula_ratio='[0.95, 1.05]'
  skyloom qa halpha --set output.figures=false

Tables, figures and verdicts are made anew from the images in the folder; no image is. The page is DIR/qa.html.

{RUN_EXIT_CODES}"""
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
