"""What the commands of ``skyloom store`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["EXIT_CODES", "SHOWN_ROWS", "Directory", "console", "open_store", "plain_rows"]

EXIT_CODES = """\b
Exit codes:
  0  done
  2  bad input: one message says what and where
  4  finished, but some files failed; each is listed with its reason
"""
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


def console() -> Any:
    """Return where tables and colours are printed."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)
