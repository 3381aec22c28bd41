"""``skyloom store``: make a store, fill it, find and take out what is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyloom.cli.progress import ProgressBar
from skyloom.cli.store_dense import add_dense
from skyloom.cli.store_export import add_export
from skyloom.cli.store_query import add_queries
from skyloom.cli.store_serve import add_serve
from skyloom.cli.store_take import add_take
from skyloom.cli.store_update import add_update
from skyloom.cli.terminal import (
    EXIT_CODES,
    ITEMS_FAILED,
    SHOWN_ROWS,
    Directory,
    console,
    open_store,
    plain_rows,
    reader_options,
)
from skyloom.core.mpi import cluster_address
from skyloom.errors import InputError

if TYPE_CHECKING:
    from skyloom.store.ingest.run import IngestResult

__all__ = ["add_store"]

# Of an adaptive store: below, a file is hardly more than its header, and a number without its unit is likely.
SMALLEST_PART = 10_000

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Images, spectra and cubes in one store: every resolution with its errors, found by place and time.",
    epilog=f"""\b
Examples:
  skyloom store create sky
  skyloom store ingest sky frames/ spectra/ --workers 2
  skyloom store query sky --cone 38.30 -0.13 0.1 --band r
  skyloom store cutout sky sdss-002820-3-0122-r --center 38.3018 -0.1339 --size 64 --out cut.fits
  skyloom store spectrum sky sdss-3126-54804-0211 --level 2 --out spectrum.fits
  skyloom store links sky sdss-3126-54804-0211
  skyloom store photometry sky sdss-3126-54804-0211 --fibre --seeing 2.0

{EXIT_CODES}""",
)


def add_store(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.add_typer(commands, name="store")


# --- filling --------------------------------------------------------------------------------------------------------


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store create sky
  skyloom store create sky --levels 4 --compression quantised --quantum 0.1
  skyloom store create sky --adaptive 500MB

What is given here holds for the life of the store.

{EXIT_CODES}"""
)
def create(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A new or an empty folder.")],
    levels: Annotated[int, typer.Option(help="Resolutions, the observed one included.")] = 5,
    partition_order: Annotated[int, typer.Option(help="HEALPix order of the partitions.")] = 5,
    adaptive: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES", help="Cells of all orders instead, of files of about this size: 500MB."
        ),
    ] = None,
    compression: Annotated[str, typer.Option(metavar="lossless|quantised")] = "lossless",
    quantum: Annotated[float, typer.Option(help="quantised: step of values over their noise.")] = 0.1,
    grid: Annotated[
        tuple[float, float, float],
        typer.Option(metavar="START STOP STEP", help="Wavelengths of all spectra: A in vacuum, dex."),
    ] = (3500.0, 10500.0, 1e-4),
) -> None:
    """Make an empty store."""
    from skyloom.store.files.folder import make_folder
    from skyloom.store.schema import CommonGrid, StoreSettings

    settings = StoreSettings(
        partition_order,
        levels,
        CommonGrid(*grid),
        compression,
        quantum,
        adaptive_bytes=None if adaptive is None else _bytes(adaptive),
    )
    make_folder(store, settings)
    typer.echo(f"made the store {store}")


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store ingest sky frames/ spectra/
  skyloom store ingest sky 'dr17/**/frame-r-*.fits.bz2' --workers 2
  skyloom store ingest sky --list fields.csv --folder frames
  skyloom store ingest sky --list plates.csv --folder spectra --pattern 'spec-{{plate}}-{{mjd}}-{{fiberid}}.fits'
  skyloom store ingest sky mosaic_sci.fits --option unit=electron/s
  skyloom store ingest sky frames/ --scheduler tcp://head:8786
  mpiexec -n 4 skyloom store ingest sky frames/            two of the four are workers

Lists have a line of names: run, camcol, field (and rerun, band), or plate (and mjd, fiberid). What is stored already is
skipped; an ingest that was killed goes on where it stopped. Reading is possible meanwhile.

{EXIT_CODES}"""
)
def ingest(
    store: Directory,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE", help="Files, folders, patterns with *, ? and **.")
    ] = None,
    lists: Annotated[
        list[Path] | None,
        typer.Option("--list", metavar="TABLE", help="Table of frames or plates; repeatable."),
    ] = None,
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the files of the lists are.")] = Path(),
    pattern: Annotated[str | None, typer.Option(help="Of the names of these files.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A running Dask scheduler.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Where a name is taken, store the new file instead.")
    ] = False,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="For the reader; repeatable.")
    ] = None,
) -> None:
    """Store files; what cannot be stored is listed with its reason, the rest is stored."""
    from skyloom.store.ingest.run import ingest as ingest_files
    from skyloom.store.ingest.sources import FileList

    with ProgressBar() as progress:
        result = ingest_files(
            store,
            files or (),
            lists=[FileList(table, folder, pattern) for table in lists or ()],
            workers=workers,
            scheduler=scheduler or cluster_address(),
            replace=replace,
            options=reader_options(options or ()),
            progress=progress,
        )
    _tell(result, store)


def _bytes(text: str) -> int:
    """Return a number of bytes, which may have a unit: 500MB, 2GiB."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    try:
        number = float(match[1]) if match else 0.0
    except ValueError:
        number = 0.0
    remedy = "write it as 500MB or 2GiB"
    if match is None or number <= 0:
        raise InputError(f"{text!r} is no size", field="--adaptive", remedy=remedy)
    size = round(number * (1024 if match[3] else 1000) ** " kmgt".index(match[2] or " "))
    if size < SMALLEST_PART:
        raise InputError(f"{text!r} is too small for a file", field="--adaptive", remedy=remedy)
    return size


def _tell(result: IngestResult, store: Path) -> None:
    terminal = console()
    terminal.print(
        f"[bold]store[/]: {len(result.stored)} new observations in {len(result.parts)} files,"
        f" {len(result.skipped)} files were stored already, {len(result.failures)} failed"
    )
    from rich.markup import escape

    for failure in result.failures[:SHOWN_ROWS]:
        terminal.print(f"  [red]failed[/] {escape(failure.source)}: {escape(failure.reason)}")
    if len(result.failures) > SHOWN_ROWS:
        rest = len(result.failures) - SHOWN_ROWS
        terminal.print(f"  and {rest} more: skyloom store info {escape(str(store))} --failures")
    if result.failures:
        raise typer.Exit(ITEMS_FAILED)


# --- the store itself -----------------------------------------------------------------------------------------------


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store info sky
  skyloom store info sky --failures

{EXIT_CODES}"""
)
def info(
    store: Directory,
    failures: Annotated[
        bool, typer.Option("--failures", help="List what could not be stored, with reasons.")
    ] = False,
) -> None:
    """Show what a store holds, how it is laid out, and what could not be stored."""
    opened = open_store(store)
    if failures:
        for row in plain_rows(opened.failures()):
            typer.echo(f"{row['source']}: {row['reason']}")
        return
    for name, value in dict(opened.info()).items():
        typer.echo(f"{name + ':':<18}{value}")


@commands.command(
    epilog="""\b
Examples:
  skyloom store verify sky

Every observation is read, and its digest computed again.

\b
Exit codes:
  0  everything is as it was stored
  2  bad input: one message says what and where
  4  something is damaged or missing; each is listed
"""
)
def verify(store: Directory) -> None:
    """Check that everything in a store is as it was stored."""
    from skyloom.store.files.verify import verify as verify_store

    table = verify_store(store)
    for row in plain_rows(table):
        typer.echo(": ".join(str(value) for value in row.values() if value not in (None, "")))
    if len(table):
        raise typer.Exit(ITEMS_FAILED)
    typer.echo("everything is as it was stored")


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store pack sky sky.h5
  skyloom store pack sky sky.h5 --compression gzip       for programs without other filters

{EXIT_CODES}"""
)
def pack(
    store: Directory,
    out: Annotated[Path, typer.Argument(metavar="FILE.h5", help="One HDF5 file with everything.")],
    compression: Annotated[str, typer.Option(metavar="lz4|gzip")] = "lz4",
) -> None:
    """Write a store into one HDF5 file, which h5web and Skyloom open."""
    from skyloom.store.files.pack import pack as pack_store

    if compression not in ("lz4", "gzip"):
        raise InputError(
            f"{compression!r} is no compression", field="--compression", remedy="use lz4 or gzip"
        )
    if out.exists():
        raise InputError("the file exists already", source=out, remedy="choose another name")
    pack_store(store, out, compression=compression)
    typer.echo(f"wrote {out}, {out.stat().st_size / 1e6:.4g} MB")


add_queries(commands)
add_take(commands)
add_export(commands)
add_dense(commands)
add_serve(commands)
add_update(commands)
