"""``skyloom store update``: one part of a store done again, the others left as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyloom.cli.progress import ProgressBar
from skyloom.cli.terminal import (
    EXIT_CODES,
    ITEMS_FAILED,
    SHOWN_ROWS,
    Directory,
    console,
    open_store,
    reader_options,
)
from skyloom.errors import InputError

if TYPE_CHECKING:
    from skyloom.store.dense.cube import DenseSummary
    from skyloom.store.ingest.update import UpdateResult

__all__ = ["add_update"]

commands = typer.Typer()


def add_update(app: typer.Typer) -> None:
    """Add the command to those of ``skyloom store``."""
    app.registered_commands += commands.registered_commands


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store update sky metadata                      columns, from the stored headers; pixels stay
  skyloom store update sky images frames/ --workers 2    read again from their files, with all levels
  skyloom store update sky spectra spectra/ --obs sdss-3126-54804-0211
  skyloom store update sky images frames/ --replace      also files that have been changed since
  skyloom store update sky links                         the index that links are found in
  skyloom store update sky dense galaxies.h5             a dense cube, as it was made

Files are known by their SHA-256, whatever they are called now; others in the same folders are left alone. What an
update does not redo is not written, and its digests stay. It may be killed at any moment, and be started again.

{EXIT_CODES}"""
)
def update(
    store: Directory,
    part: Annotated[str, typer.Argument(metavar="metadata|images|spectra|links|dense", show_default=False)],
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE", help="Sources of images or spectra (files, folders, patterns), or cubes."
        ),
    ] = None,
    obs: Annotated[
        list[str] | None, typer.Option("--obs", metavar="OBS_ID", help="These alone; repeatable.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take files also that were changed since they were stored.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A running Dask scheduler.")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="For the reader; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="dense: write here, not in the place of the old one.")
    ] = None,
) -> None:
    """Do one part of a store again: metadata, images, spectra, links, or a dense cube made of it."""
    if out is not None and part != "dense":
        raise InputError("--out belongs to dense", field="--out", remedy="leave it out")
    given: dict[str, Any]
    if part == "dense":
        if obs or replace or scheduler or options:
            raise InputError(
                "a dense cube takes --workers and --out alone", field="part", remedy="leave the others out"
            )
        if out is not None and len(files or ()) > 1:
            raise InputError("several cubes cannot go into one file", field="--out", remedy="name one cube")
        given = {"out": out, "workers": workers}
    else:
        given = {
            "obs": obs or (),
            "replace": replace,
            "workers": workers,
            "scheduler": scheduler,
            "options": reader_options(options or ()),
        }
    with ProgressBar() as progress:
        result = open_store(store).update(part, files or (), progress=progress, **given)
    if isinstance(result, tuple):
        _tell_dense(result)
    else:
        _tell(result)


def _tell_dense(summaries: tuple[DenseSummary, ...]) -> None:
    for summary in summaries:
        typer.echo(
            f"wrote {summary.path}: {summary.n_targets} target{'s' * (summary.n_targets != 1)} of"
            f" {summary.n_observations} observations, {summary.bytes / 1e6:.4g} MB"
        )


def _tell(result: UpdateResult) -> None:
    from rich.markup import escape

    terminal = console()
    if result.part == "links":
        terminal.print(f"[bold]links[/]: the index is made anew; {result.n_links} images cover spectra")
        return
    said = [f"{len(result.updated)} observations done again in {len(result.parts)} files"]
    if result.n_unchanged:
        said.append(f"{result.n_unchanged} are as they were")
    if result.removed:
        said.append(f"{len(result.removed)} are no more in their files")
    said.append(f"{len(result.failures)} failed")
    terminal.print(f"[bold]{result.part}[/]: {', '.join(said)}")
    for failure in result.failures[:SHOWN_ROWS]:
        terminal.print(f"  [red]failed[/] {escape(failure.source)}: {escape(failure.reason)}")
    if len(result.failures) > SHOWN_ROWS:
        terminal.print(f"  and {len(result.failures) - SHOWN_ROWS} more")
    if result.failures:
        raise typer.Exit(ITEMS_FAILED)
