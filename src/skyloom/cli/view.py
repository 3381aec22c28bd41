"""``skyloom view``: results, files and stores in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["add_view"]

commands = typer.Typer()


def add_view(app: typer.Typer) -> None:
    """Add the command to those of ``skyloom``."""
    app.registered_commands += commands.registered_commands


@commands.command(
    epilog="""\b
Examples:
  skyloom view skyloom-demo                     all that the demo made
  skyloom view results                          the folder of a run: its maps, bins, spectra
  skyloom view NGC1433_anchored.fits            one product
  skyloom view DATACUBE.fits                    a cube, of any size: only what is seen is read
  skyloom view sky                              a store, or a packed one
  skyloom view results --no-browser --port 5007 print the address; open it yourself

\b
In the page:
  drag, wheel     pan and zoom; the level that the screen needs is read
  click           the spectrum of a bin or spaxel; the lasso sums a region
  b               blink between two images, linked on the sky

\b
On another machine: ssh -L 5007:127.0.0.1:5007 that-machine, there 'skyloom view ... --no-browser --port 5007', and here
open the address that it prints.

The page is for this machine alone (127.0.0.1), its address holds a secret, and nothing is asked of the network. What
lies outside PATH cannot be read. Ctrl-C ends it.

\b
Exit codes:
  0  ended by Ctrl-C or SIGTERM
  2  bad input: one message says what and where
"""
)
def view(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A folder of results, a FITS file, or a store.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
) -> None:
    """Look at images, cubes, spectra and stores in the browser."""
    from skyloom.viewer import serve

    serve(
        path,
        port=port,
        open_browser=browser,
        announce=lambda address: typer.echo(f"viewing {path} at {address} (Ctrl-C ends it)"),
    )
    typer.echo("ended")
