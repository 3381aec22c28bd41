"""``skyloom store serve``: a store for the programs of the Virtual Observatory."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from skyloom.cli.terminal import Directory

__all__ = ["add_serve"]

commands = typer.Typer()


def add_serve(app: typer.Typer) -> None:
    """Add the command to those of ``skyloom store``."""
    app.registered_commands += commands.registered_commands


@commands.command(
    epilog="""\b
Examples:
  skyloom store serve sky
  skyloom store serve sky --port 0 --max-size 1000       any free port; cut-outs up to 1 GB
  skyloom store serve sky --verbose                      one line per request

Then, from Python (the address is printed):

\b
  import pyvo
  found = pyvo.dal.SIA2Service("http://127.0.0.1:8090/sia2").search(pos=(38.3, -0.13, 0.1))
  part = found[0].processed(circle=(38.3, -0.13, 0.003))

and in a browser: http://127.0.0.1:8090/. What is stored meanwhile is seen. Ctrl-C ends it.

\b
Exit codes:
  0  ended by Ctrl-C or SIGTERM
  2  bad input: one message says what and where
"""
)
def serve(
    store: Directory,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8090,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Others than 127.0.0.1 let other machines read the store.")
    ] = "127.0.0.1",
    max_size: Annotated[float, typer.Option(metavar="MB", help="Largest cut-out.")] = 256.0,
    max_rows: Annotated[int, typer.Option(min=1, metavar="N", help="Longest response.")] = 100_000,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The address that clients see, behind a proxy.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print each request.")] = False,
) -> None:
    """Answer SIA2 queries and SODA cut-outs (IVOA), for pyvo, TOPCAT, Aladin and scripts."""
    from skyloom.store.service.server import StoreServer, is_loopback

    if verbose:
        logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
        logging.getLogger("skyloom.store.service").setLevel(logging.INFO)
    server = StoreServer(
        store, host=host, port=port, most_bytes=int(max_size * 1e6), most_rows=max_rows, base_url=base_url
    )
    if not is_loopback(host):
        typer.secho(
            f"warning: {host} is no address of this machine alone: everybody who reaches it reads the store",
            fg=typer.colors.YELLOW,
            err=True,
        )
    server.run(lambda address: typer.echo(f"serving {store} at {address}/ (Ctrl-C ends it)"))
    typer.echo("ended")
