"""``skyloom store dense`` and ``join``: images and spectra of many targets as arrays for machine learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skyloom.cli.progress import ProgressBar
from skyloom.cli.terminal import Directory, open_store
from skyloom.errors import InputError

__all__ = ["add_dense"]

CODES = """\b
Exit codes:
  0  done
  2  bad input: one message says what and where
"""
commands = typer.Typer()

Joins = Annotated[
    list[Path] | None,
    typer.Option("--join", metavar="TABLE", help="FITS, VOTable, ECSV, CSV or Parquet; repeatable."),
]
Key = Annotated[
    str | None,
    typer.Option(metavar="NAME,...", help="Of --join: columns that name a spectrum, as plate,mjd,fiberid."),
]
JoinRadius = Annotated[
    float | None,
    typer.Option("--join-radius", metavar="ARCSEC", help="Of --join: by place instead of a key."),
]
Columns = Annotated[
    str | None, typer.Option("--columns", metavar="NAME,...", help="Of --join: which become labels.")
]
Prefix = Annotated[str, typer.Option(help="Of --join: put before the names of labels.")]
Invalid = Annotated[
    list[float] | None,
    typer.Option("--invalid", metavar="NUMBER", help="Of --join: means 'not known', as -9999; repeatable."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


def add_dense(app: typer.Typer) -> None:
    """Add the commands to those of ``skyloom store``."""
    app.registered_commands += commands.registered_commands


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store dense sky galaxies.h5 --size 64 --bands ugriz
  skyloom store dense sky galaxies.h5 --levels 0,1,2 --join sfr.fits --key plate,mjd,fiberid --columns AVG
  skyloom store dense sky galaxies.h5 --targets positions.csv --radius 2 --join-radius 1 --join catalogue.vot
  skyloom store dense sky galaxies.h5 --invalid -9999 --join galSpecExtra.fits --key plateid,mjd,fiberid

Each target is an image of all bands, the mean of all exposures on one grid, and a spectrum, with their inverse
variances, at every resolution. Without --targets: the places of all spectra, merged within --radius.

{CODES}"""
)
def dense(
    store: Directory,
    out: Annotated[Path, typer.Argument(metavar="OUT.h5", help="File to write.")],
    targets: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Places: columns ra, dec (deg) and, optionally, name."),
    ] = None,
    size: Annotated[int, typer.Option(help="Pixels along a side at level 0.")] = 64,
    bands: Annotated[str | None, typer.Option(help="One letter each, or names with commas.")] = None,
    levels: Annotated[
        str | None, typer.Option(metavar="0,1,...", help="Resolutions; all of the store.")
    ] = None,
    radius: Annotated[
        float, typer.Option(metavar="ARCSEC", help="How far spectra may be from targets.")
    ] = 1.5,
    scale: Annotated[
        float | None, typer.Option(metavar="ARCSEC", help="Pixels at level 0; the median of the images.")
    ] = None,
    spectra: Annotated[str, typer.Option(metavar="mean|nearest", help="Of several of a target.")] = "mean",
    joins: Joins = None,
    key: Key = None,
    join_radius: JoinRadius = None,
    columns: Columns = None,
    prefix: Prefix = "",
    invalid: Invalid = None,
    compression: Annotated[str, typer.Option(metavar="lz4|gzip")] = "lz4",
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Write a dense cube for machine learning: images and spectra of many targets, with labels."""
    from skyloom.store.dense.cube import KEYS

    names = _names(key)
    wanted = _joins(joins, names, join_radius, columns, prefix, invalid)
    known = {name.lower() for name in KEYS}
    more = tuple(name for name in names if name.lower() not in known | set(_aliases()))
    with ProgressBar() as progress:
        found = open_store(store).dense_cube(
            out,
            targets,
            size=size,
            bands=_bands(bands),
            levels=_levels(levels),
            radius=radius,
            pixel_scale=scale,
            spectra=spectra,
            keys=(*KEYS, *more),
            joins=wanted,
            compression=compression,
            workers=workers,
            overwrite=overwrite,
            progress=progress,
        )
    for join, counts in zip(wanted, found.joins, strict=True):
        typer.echo(_told(join, counts))
    typer.echo(
        f"wrote {out}: {found.n_targets} target{'s' * (found.n_targets != 1)} of {found.n_observations} "
        f"observations, {found.bytes / 1e6:.4g} MB"
    )


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store join galaxies.h5 --join sfr.fits --key plate,mjd,fiberid --columns AVG,MEDIAN --prefix sfr_
  skyloom store join galaxies.h5 --join catalogue.csv --join-radius 1.0 --out labelled.h5

The file is copied, and replaced when the copy is complete.

{CODES}"""
)
def join(
    cube: Annotated[Path, typer.Argument(metavar="CUBE.h5", help="Dense cube.")],
    joins: Joins = None,
    key: Key = None,
    join_radius: JoinRadius = None,
    columns: Columns = None,
    prefix: Prefix = "",
    invalid: Invalid = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write here instead.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Add labels to a dense cube: the columns of a table, by a key or by place."""
    from skyloom.store.dense.labels import join_labels

    wanted = _joins(joins, _names(key), join_radius, columns, prefix, invalid)
    if not wanted:
        raise InputError("there is nothing to join", field="--join", remedy="name a table")
    for one, counts in zip(wanted, join_labels(cube, wanted, out, overwrite=overwrite), strict=True):
        typer.echo(_told(one, counts))
    typer.echo(f"wrote {out or cube}")


def _joins(
    tables: list[Path] | None,
    key: tuple[str, ...],
    radius: float | None,
    columns: str | None,
    prefix: str,
    invalid: list[float] | None,
) -> list[Any]:
    from skyloom.store.dense.labels import Join

    if not tables:
        given = {"--key": key, "--join-radius": radius, "--columns": columns, "--invalid": invalid}
        without = [name for name, value in given.items() if value]
        if without:
            raise InputError(f"{without[0]} belongs to --join", field=without[0], remedy="name a table")
        return []
    if bool(key) == (radius is not None):
        raise InputError(
            "a table is joined by a key, or by place", field="--join", remedy="give --key or --join-radius"
        )
    chosen = _names(columns) or None
    return [
        Join(table, key, **({} if radius is None else {"radius": radius}), columns=chosen, prefix=prefix,
             invalid=tuple(invalid or ()))
        for table in tables
    ]  # fmt: skip


def _told(join: Any, counts: Any) -> str:
    text = f"{join.table}: {counts['matched']} of {counts['targets']} targets found a row"
    notes = {
        "ambiguous": "found several",
        "duplicates": "rows repeat others",
        "reused": "targets share a row with another",
    }
    return "; ".join([text, *(f"{counts[name]} {note}" for name, note in notes.items() if counts[name])])


def _aliases() -> dict[str, str]:
    from skyloom.store.dense.join import ALIASES

    return ALIASES


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _bands(text: str | None) -> Any:
    return _names(text) if text and "," in text else text


def _levels(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(level) for level in _names(text)]
    except ValueError as error:
        raise InputError(f"{text!r} is no list of levels", field="--levels", remedy="give 0,1,2") from error
