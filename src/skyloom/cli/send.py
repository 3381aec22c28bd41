"""``skyloom send``: files shown in DS9, Aladin, TOPCAT and whatever else listens to SAMP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skyloom.cli.terminal import EXIT_CODES, ITEMS_FAILED, complain
from skyloom.errors import InputError

__all__ = ["add_send"]

commands = typer.Typer()


def add_send(app: typer.Typer) -> None:
    """Add the command to those of ``skyloom``."""
    app.registered_commands += commands.registered_commands


@commands.command(
    epilog=f"""\b
Examples:
  skyloom send NGC1433_anchored.fits            to everybody who opens images
  skyloom send summary.fits --to topcat         a table, to TOPCAT alone
  skyloom send results/*_maps.fits --to ds9
  skyloom send cube.fits --hub ~/other/.samp    another hub than that of the user

\b
What is sent:
  images, cubes and maps   image.load.fits             DS9, Aladin
  tables                   table.load.fits, .votable   TOPCAT
  spectra                  spectrum.load.ssa-generic   SPLAT, Aladin

A hub must run: TOPCAT and Aladin bring one. Only the names of the files are sent, and to this machine only.

{EXIT_CODES}"""
)
def send(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="FITS files or VOTables.")],
    to: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only to programs whose name contains this.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="KIND", help="image, spectrum, fits-table or votable, if not as it looks."
        ),
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option(metavar="LOCKFILE", help="Lock file of the hub; by default SAMP_HUB or ~/.samp."),
    ] = None,
) -> None:
    """Show files in DS9, Aladin or TOPCAT, over SAMP."""
    from skyloom.io.samp import broadcast, kind_of

    failures: list[InputError] = []
    for path in files:
        try:
            chosen = kind or kind_of(path)
            told = broadcast(path, chosen, to=to, hub=hub)
        except InputError as error:
            failures.append(error)
            continue
        typer.echo(f"{path} ({chosen}): {', '.join(told)}")
    if len(failures) == len(files) == 1:
        raise failures[0]
    for failure in failures:
        complain(failure)
    if failures:
        raise typer.Exit(ITEMS_FAILED if len(failures) < len(files) else 2)
