"""What commands share: exit codes, messages, tables, and how a store is opened."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyloom.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "EXIT_CODES",
    "ITEMS_FAILED",
    "RUN_EXIT_CODES",
    "SHOWN_ROWS",
    "Directory",
    "complain",
    "console",
    "counted",
    "open_store",
    "plain_rows",
    "reader_options",
]

EXIT_CODES = """\b
Exit codes:
  0  done
  2  bad input: one message says what and where
  4  finished, but some files failed; each is listed with its reason
"""
RUN_EXIT_CODES = """\b
Exit codes:
  0  done
  1  internal error
  2  bad input: one message says what and where
  3  finished, but a science check failed
  4  finished, but some items failed; each is listed with its reason
"""
ITEMS_FAILED = 4
SHOWN_ROWS = 40

Directory = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store, or a packed file.")]


def open_store(store: Path) -> Any:
    """Open a store for reading."""
    import skyloom.store

    return skyloom.store.open(store)


def plain_rows(table: Any) -> list[dict[str, Any]]:
    """Return the rows of a table without units; numbers that are not known are null, which JSON has instead of NaN."""
    columns = {name: getattr(table[name], "value", table[name]).tolist() for name in table.colnames}
    return [
        {
            name: None if isinstance(value, float) and value != value else value
            for name, value in zip(columns, row, strict=True)
        }
        for row in zip(*columns.values(), strict=True)
    ]


def reader_options(settings: Iterable[str]) -> dict[str, Any]:
    """Return what ``--option KEY=VALUE`` says, for the reader of a file.

    Raises
    ------
    InputError
        When one is written otherwise.
    """
    options = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign or not key:
            raise InputError(f"{setting!r} is no option", field="--option", remedy="write it as KEY=VALUE")
        options[key] = value
    return options


def console(*, stderr: bool = False) -> Console:
    """Return where tables and colours are printed."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def complain(error: InputError) -> None:
    """Print the one message that bad input gets."""
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(str(error), err=True)


def counted(number: int, noun: str) -> str:
    """Return such as ``1 file`` or ``3 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
