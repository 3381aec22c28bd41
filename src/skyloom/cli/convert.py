"""``skyloom convert``: tables of results in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skyloom.cli.terminal import EXIT_CODES, ITEMS_FAILED, complain
from skyloom.errors import InputError

__all__ = ["add_convert"]

commands = typer.Typer()


def add_convert(app: typer.Typer) -> None:
    """Add the command to those of ``skyloom``."""
    app.registered_commands += commands.registered_commands


@commands.command(
    epilog=f"""\b
Examples:
  skyloom convert results/summary.ecsv --to votable
  skyloom convert results/*/*_lines.ecsv --to parquet --out tables
  skyloom convert catalogue.vot --to csv --out catalogue.csv
  skyloom convert NGC1433_fits.fits --extension BIN_TABLE --to ecsv

Formats: ecsv, csv, fits, votable, parquet. Units and descriptions of columns are kept, except in csv.

{EXIT_CODES}"""
)
def convert(
    tables: Annotated[
        list[Path], typer.Argument(metavar="TABLE", help="ECSV, CSV, FITS, VOTable or Parquet.")
    ],
    to: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Format; by default what the suffix of --out says."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A file, or a folder; by default beside the table.")
    ] = None,
    extension: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which table of a FITS file with several.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Write tables as VOTable, Parquet, FITS, ECSV or CSV."""
    from skyloom.io.table_files import SUFFIXES, read_table, table_format, write_table

    named = out is not None and out.suffix != "" and not out.is_dir()
    if to is None and not named:
        raise InputError("no format is given", field="--to", remedy=f"use one of {', '.join(SUFFIXES)}")
    form = to.lower() if to is not None else table_format(out or "")
    if form not in SUFFIXES:
        raise InputError(
            f"{form!r} is no format of tables", field="--to", remedy=f"use one of {', '.join(SUFFIXES)}"
        )
    if named and len(tables) > 1:
        raise InputError("one file cannot take several tables", field="--out", remedy="name a folder")
    failures: list[InputError] = []
    for path in tables:
        try:
            target = (
                out if named and out is not None else (out or path.parent) / f"{path.stem}{SUFFIXES[form]}"
            )
            table = read_table(path, extension)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_table(table, target, form, overwrite=overwrite)
        except InputError as error:
            failures.append(error)
            continue
        typer.echo(f"wrote {target}: {len(table)} rows, {len(table.colnames)} columns")
    if len(failures) == len(tables) == 1:
        raise failures[0]
    for failure in failures:
        complain(failure)
    if failures:
        raise typer.Exit(ITEMS_FAILED if len(failures) < len(tables) else 2)
