"""``skyloom store``: finding what is in a store, and what belongs together."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from skyloom.cli.store_options import (
    Bands,
    Box,
    Cone,
    Kind,
    MapOf,
    ObsId,
    Resolution,
    Times,
    Wave,
    conditions,
)
from skyloom.cli.terminal import EXIT_CODES, ITEMS_FAILED, SHOWN_ROWS, Directory, open_store, plain_rows
from skyloom.errors import InputError

__all__ = ["add_queries"]

SHOWN_COLUMNS = (
    "obs_id",
    "dataproduct_type",
    "band",
    "s_ra",
    "s_dec",
    "t_start",
    "t_exptime",
    "s_resolution",
)
FORMS = ("json", "csv", "ecsv")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per row.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
AsEcsv = Annotated[bool, typer.Option("--ecsv", help="Print ECSV, with units.")]
TableOut = Annotated[Path | None, typer.Option(metavar="FILE", help="Write .ecsv, .csv or .json.")]

commands = typer.Typer()


def add_queries(app: typer.Typer) -> None:
    """Add the commands to those of ``skyloom store``."""
    app.registered_commands += commands.registered_commands


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store query sky --cone 38.30 -0.13 0.1
  skyloom store query sky --box 359 1 -1 1 --kind image --band g --band r
  skyloom store query sky --time 2001-12-18 2001-12-19 --json > found.json
  skyloom store query sky --wave 6500 6600 --out found.ecsv

Conditions are joined by 'and'. The terminal shows the columns that matter most, files hold all of them.

{EXIT_CODES}"""
)
def query(
    store: Directory,
    cone: Cone = None,
    box: Box = None,
    moc: MapOf = None,
    times: Times = None,
    wave: Wave = None,
    bands: Bands = None,
    kind: Kind = None,
    resolution: Resolution = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_ecsv: AsEcsv = False,
    out: TableOut = None,
) -> None:
    """List observations by place, time, wavelength, band and resolution."""
    form = _form(json=as_json, csv=as_csv, ecsv=as_ecsv, out=out)
    where = conditions(cone, box, moc, times, wave, bands, kind, resolution)
    table = open_store(store).observations(**where)
    if _told(table, form, out, "observations"):
        return
    _print_table(table, SHOWN_COLUMNS)
    typer.echo(f"{len(table)} observation{'' if len(table) == 1 else 's'}")


def _form(*, out: Path | None, **asked: bool) -> str:
    """Return the form in which a table is to be printed, empty where none is; raise where that cannot be told."""
    forms = [name for name, is_asked in asked.items() if is_asked]
    if len(forms) + (out is not None) > 1:
        told = ", ".join([*(f"--{name}" for name in forms), *(["--out"] if out else [])])
        raise InputError(f"{told} are given together", field="--out", remedy="give one of them")
    if out is not None and out.suffix.lstrip(".") not in FORMS:
        raise InputError(
            f"{out.suffix!r} is no known form", field="--out", remedy="name the file .ecsv, .csv or .json"
        )
    return "".join(forms)


def _told(table: Any, form: str, out: Path | None, what: str) -> bool:
    """Write a table into a file, or print it for programs, if that is asked for."""
    if out is not None:
        _write_text(out, _table_text(table, out.suffix.lstrip(".")))
        typer.echo(f"{len(table)} {what} in {out}")
    elif form:
        sys.stdout.write(_table_text(table, form))
    return out is not None or bool(form)


def _table_text(table: Any, form: str) -> str:
    import io

    if form == "json":
        return "".join(json.dumps(row) + "\n" for row in plain_rows(table))
    buffer = io.StringIO()
    table.write(buffer, format=f"ascii.{form}")
    return buffer.getvalue()


def _print_table(table: Any, names: tuple[str, ...], digits: int = 10) -> None:
    """Print the first rows, aligned; lines are as long as they have to be, so that names can be copied."""
    shown = [name for name in names if name in table.colnames]
    units = [getattr(table[name], "unit", None) for name in shown]
    lines = [[f"{name} [{unit}]" if unit else name for name, unit in zip(shown, units, strict=True)]]
    rows = plain_rows(table[shown][:SHOWN_ROWS])
    lines += [[_cell(value, digits if name != "time" else 10) for name, value in row.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
    if len(table) > SHOWN_ROWS:
        typer.echo(f"and {len(table) - SHOWN_ROWS} more; --csv, --json or --out gives all")


def _cell(value: Any, digits: int) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        # Ten digits: a tenth of a second of an MJD, a milliarcsecond of a position.
        return f"{value:.{digits}g}"
    return str(value)


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store links sky sdss-3126-54804-0211
  skyloom store links sky sdss-3126-54804-0211 --json

{EXIT_CODES}"""
)
def links(
    store: Directory,
    obs_id: ObsId,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per image.")] = False,
) -> None:
    """List the images that cover a spectrum, and where in them it lies."""
    table = open_store(store).links(obs_id)
    if as_json:
        sys.stdout.write(_table_text(table, "json"))
        return
    _print_table(table, tuple(table.colnames))
    typer.echo(f"{len(table)} image{'' if len(table) == 1 else 's'}")


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store photometry sky sdss-3126-54804-0211
  skyloom store photometry sky --cone 38.30 -0.13 0.2 --bands gri --csv
  skyloom store photometry sky sdss-4238-55455-0037 --fibre --seeing 2.0
  skyloom store photometry sky sdss-4238-55455-0037 --fibre --seeing common --out fibre.ecsv

Fluxes are in nanomaggies. --fibre sets the light of each linked image in the true circle of the fibre beside the
spectrum through its filter. Spectra of SDSS are calibrated to the whole light of stars: they lie above the light in the
fibre by about one over star_share, which --seeing tells.

{EXIT_CODES}"""
)
def photometry(
    store: Directory,
    obs_ids: Annotated[
        list[str] | None, typer.Argument(metavar="OBS_ID", help="Spectra; or conditions as for query.")
    ] = None,
    cone: Cone = None,
    box: Box = None,
    times: Times = None,
    bands: Annotated[str, typer.Option(help="Bands of SDSS, one letter each.")] = "ugriz",
    system: Annotated[str, typer.Option(metavar="AB|SDSS", help="Zero points of the magnitudes.")] = "AB",
    fibre: Annotated[
        bool, typer.Option("--fibre", help="Compare one spectrum with the images that cover it.")
    ] = False,
    seeing: Annotated[
        str | None,
        typer.Option(metavar="ARCSEC|common", help="Of --fibre: smooth the images to this FWHM first."),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_ecsv: AsEcsv = False,
    out: TableOut = None,
) -> None:
    """Measure spectra through filters, or beside the light of the images in their fibre."""
    where = conditions(cone, box, None, times, None, None, None, None)
    if bool(obs_ids) == bool(where):
        raise InputError(
            "spectra are named, or found by conditions", field="OBS_ID", remedy="give one of the two"
        )
    form = _form(json=as_json, csv=as_csv, ecsv=as_ecsv, out=out)
    opened = open_store(store)
    if fibre:
        if not obs_ids or len(obs_ids) != 1:
            raise InputError("--fibre compares one spectrum", field="OBS_ID", remedy="name one")
        table = opened.fibre_photometry(obs_ids[0], seeing=_seeing(seeing), band=list(bands))
    elif seeing is not None:
        raise InputError("--seeing belongs to --fibre", field="--seeing")
    else:
        table = opened.photometry(obs_ids or None, bands, system, **where)
    if not _told(table, form, out, "rows"):
        names = tuple(table.colnames)
        _print_table(table, tuple(n for n in names if n != "problem" or any(table["problem"])), digits=5)
    # Some images of a mixed store have no photometric unit; that none could be measured is a failure.
    if fibre and len(table) and all(row["flux"] != row["flux"] for row in table):
        raise typer.Exit(ITEMS_FAILED)


def _seeing(text: str | None) -> float | str | None:
    try:
        return text if text in (None, "common") else float(text)
    except ValueError as error:
        raise InputError(
            f"{text!r} is no seeing", field="--seeing", remedy="give arcsec, or common"
        ) from error


def _write_text(path: Path, text: str) -> None:
    from skyloom.io.formats.atomic import atomic_path

    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
