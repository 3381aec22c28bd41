"""``skyloom store export``: a part of a store as files for TOPCAT, Aladin, LSDB and everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skyloom.cli.progress import ProgressBar
from skyloom.cli.store_options import (
    Bands,
    Box,
    Cone,
    Kind,
    Level,
    MapOf,
    Overwrite,
    Resolution,
    Times,
    Wave,
    conditions,
)
from skyloom.cli.terminal import EXIT_CODES, Directory, open_store

__all__ = ["add_export"]

WHAT = "observations|voxels|images|cubes|spectra"
commands = typer.Typer()


def add_export(app: typer.Typer) -> None:
    """Add the command to those of ``skyloom store``."""
    app.registered_commands += commands.registered_commands


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store export sky observations.vot
  skyloom store export sky table.fits --cone 38.30 -0.13 0.1 --samp
  skyloom store export sky voxels.vot --what voxels --level 2 --band r
  skyloom store export sky voxels.parquet --what voxels --units f_lambda
  skyloom store export sky catalogue.hats --what observations        a folder for LSDB
  skyloom store export sky frames/ --what images --time 2001-12-18 2001-12-19
  skyloom store export sky spectra/ --what spectra --obs sdss-3126-54804-0211 --samp

\b
The suffix tells the format of a table: .vot or .xml (VOTable), .fits, .parquet, .hats.
Voxels: each usable pixel with its place, time, wavelength, value and error, in the unit of its observation, or all in
1e-17 erg/(s cm2 AA) with --units f_lambda (per pixel or fibre) or surface (per arcsec2).

{EXIT_CODES}"""
)
def export(
    store: Directory,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File; folder for images, spectra, HATS.")],
    what: Annotated[str, typer.Option(metavar=WHAT, help="What is written.")] = "observations",
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="votable|fits|parquet|hats", help="If the name does not tell."),
    ] = None,
    obs_ids: Annotated[
        list[str] | None,
        typer.Option("--obs", metavar="OBS_ID", help="By name, instead of conditions; repeatable."),
    ] = None,
    cone: Cone = None,
    box: Box = None,
    moc: MapOf = None,
    times: Times = None,
    wave: Wave = None,
    bands: Bands = None,
    kind: Kind = None,
    resolution: Resolution = None,
    level: Level = 0,
    units: Annotated[str, typer.Option(metavar="own|f_lambda|surface", help="Of voxels.")] = "own",
    samp: Annotated[bool, typer.Option("--samp", help="Open it in TOPCAT, Aladin ..., if they run.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write tables, voxels, images or spectra as VOTable, FITS, Parquet or HATS, and show them by SAMP."""
    where = conditions(cone, box, moc, times, wave, bands, kind, resolution)
    opened = open_store(store)
    with ProgressBar() as progress:
        result = opened.export(
            out,
            what,
            format=form,
            obs=list(obs_ids) if obs_ids else None,
            level=level,
            units=units,
            overwrite=overwrite,
            samp=samp,
            progress=progress,
            **where,
        )
    _tell(result, out, what)


def _tell(result: Any, out: Path, what: str) -> None:
    if len(result.paths) > 1 or out.is_dir():
        size = sum(path.stat().st_size for path in _files(result.paths))
    else:
        size = result.paths[0].stat().st_size
    rows = (
        f"{result.rows} rows of {result.observations} observations"
        if what == "voxels"
        else f"{result.rows} {what}"
    )
    typer.echo(f"wrote {out}: {rows}, {size / 1e6:.4g} MB")
    if result.told:
        typer.echo(f"told {', '.join(result.told)}")


def _files(paths: tuple[Path, ...]) -> list[Path]:
    found = [path.rglob("*") if path.is_dir() else [path] for path in paths]
    return [path for some in found for path in some if path.is_file()]
