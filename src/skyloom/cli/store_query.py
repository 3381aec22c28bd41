"""``skyloom store``: finding what is in a store, and taking it out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from skyloom.cli.terminal import EXIT_CODES, ITEMS_FAILED, SHOWN_ROWS, Directory, open_store, plain_rows
from skyloom.errors import InputError

__all__ = [
    "Bands", "Box", "Cone", "Kind", "Level", "MapOf", "Overwrite", "Resolution", "Times", "Wave", "add_queries",
    "conditions",
]  # fmt: skip

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
ObsId = Annotated[str, typer.Argument(metavar="OBS_ID", help="Name of the observation.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="FITS file to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
Level = Annotated[int, typer.Option(min=0, help="Resolution: 2^LEVEL times coarser than observed.")]
Cone = Annotated[
    tuple[float, float, float] | None,
    typer.Option(metavar="RA DEC RADIUS", help="Circle on the sky, deg."),
]
Box = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(metavar="RA0 RA1 DEC0 DEC1", help="Box on the sky, deg; may run over RA 0."),
]
Times = Annotated[
    tuple[str, str] | None,
    typer.Option("--time", metavar="START STOP", help="MJD (TAI) or dates (UTC) such as 2001-12-18T05:00."),
]
Wave = Annotated[
    tuple[float, float] | None, typer.Option(metavar="FROM TO", help="Wavelengths in A, vacuum.")
]
Bands = Annotated[list[str] | None, typer.Option("--band", metavar="BAND", help="Band; repeatable.")]
Kind = Annotated[str | None, typer.Option(metavar="image|cube|spectrum", help="Kind of observation.")]
Resolution = Annotated[float | None, typer.Option(metavar="ARCSEC", help="FWHM of the PSF at most this.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per row.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
AsEcsv = Annotated[bool, typer.Option("--ecsv", help="Print ECSV, with units.")]
TableOut = Annotated[Path | None, typer.Option(metavar="FILE", help="Write .ecsv, .csv or .json.")]
MapOf = Annotated[Path | None, typer.Option("--moc", metavar="FILE", help="Coverage map (MOC, FITS).")]


commands = typer.Typer()


def add_queries(app: typer.Typer) -> None:
    """Add the commands to those of ``skyloom store``."""
    app.registered_commands += commands.registered_commands


# --- finding --------------------------------------------------------------------------------------------------------


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


def conditions(
    cone: Any, box: Any, moc: Any, times: Any, wave: Any, bands: Any, kind: Any, resolution: Any
) -> dict[str, Any]:
    """Return the conditions of a search that options of the command line stand for."""
    where: dict[str, Any] = {"box": box, "band": list(bands) if bands else None, "kind": kind}
    where["resolution"] = resolution
    if cone is not None:
        where["cone"] = ((cone[0], cone[1]), cone[2])
    if moc is not None:
        from mocpy import MOC

        if not moc.is_file():
            raise InputError.missing(moc, field="--moc")
        try:
            where["moc"] = MOC.from_fits(moc)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read as a coverage map: {error}", source=moc) from error
    if times is not None:
        where["time"] = tuple(_moment(text) for text in times)
    if wave is not None:
        import astropy.units as u

        where["wave"] = wave * u.AA
    return {key: value for key, value in where.items() if value is not None}


def _moment(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        pass
    from astropy.time import Time

    try:
        return Time(text, scale="utc")
    except ValueError as error:
        raise InputError(
            f"{text!r} is no time", field="--time", remedy="give an MJD, or a date such as 2001-12-18T05:00"
        ) from error


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


# --- taking out -----------------------------------------------------------------------------------------------------


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store cutout sky sdss-002820-3-0122-r --center 38.3018 -0.1339 --size 64 --out cut.fits
  skyloom store cutout sky sdss-002820-3-0122-r --level 3 --out whole.fits

Pixels beyond the edge of the image are masked. Without --center and --size: the whole image.

{EXIT_CODES}"""
)
def cutout(
    store: Directory,
    obs_id: ObsId,
    center: Annotated[tuple[float, float] | None, typer.Option(metavar="RA DEC", help="Centre, deg.")] = None,
    size: Annotated[float | None, typer.Option(help="Side, in pixels of the level, or in --unit.")] = None,
    unit: Annotated[str, typer.Option(metavar="pix|arcsec|arcmin|deg", help="Of --size.")] = "pix",
    level: Level = 0,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Cut an image or a cube out, at any resolution, with variance, mask and coordinates."""
    target = _target(out, f"{obs_id}_level{level}.fits", overwrite)
    found = open_store(store).cutout(obs_id, center=center, size=_size(size, unit), level=level)
    if center is not None and found.mask.all():
        raise InputError(
            f"{obs_id} has no usable pixel at ({center[0]}, {center[1]})",
            source=store,
            field="--center",
            remedy="'skyloom store query --cone' tells what covers this place",
        )
    _write(found, target, overwrite)


def _size(size: float | None, unit: str) -> Any:
    if size is None or unit in ("pix", "pixel", "px"):
        if size is not None and size != int(size):
            raise InputError(f"{size} pixels is no whole number", field="--size")
        return None if size is None else int(size)
    import astropy.units as u

    try:
        return u.Quantity(size, unit).to(u.arcsec)
    except (ValueError, TypeError, u.UnitsError) as error:
        raise InputError(f"{unit!r} is no unit of angle", field="--unit") from error


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store spectrum sky sdss-3126-54804-0211 --out spectrum.fits
  skyloom store spectrum sky sdss-3126-54804-0211 --level 2 --out coarse.fits
  skyloom store spectrum sky sdss-3126-54804-0211 --transmission --out filtered.fits

Level 0 is the spectrum on its own wavelengths unless --grid common is given; coarser ones are on the common grid.

{EXIT_CODES}"""
)
def spectrum(
    store: Directory,
    obs_id: ObsId,
    level: Level = 0,
    grid: Annotated[str | None, typer.Option(metavar="native|common")] = None,
    transmission: Annotated[
        bool,
        typer.Option(
            "--transmission", help="Times the transmission of ugriz, of the most transparent filter."
        ),
    ] = False,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Take a spectrum out, at any resolution, with variance, mask and the covariance of its pixels."""
    target = _target(out, f"{obs_id}_level{level}.fits", overwrite)
    found = open_store(store).spectrum(obs_id, level=level, grid=grid, transmission=transmission)
    _write(found, target, overwrite)


@commands.command(
    epilog=f"""\b
Examples:
  skyloom store stack sky --cone 38.30 -0.13 0.01 --band r --center 38.3018 -0.1339 --size 64 --out stack.fits
  skyloom store stack sky --kind spectrum --cone 38.30 -0.13 0.001 --out mean.fits

{EXIT_CODES}"""
)
def stack(
    store: Directory,
    obs_ids: Annotated[
        list[str] | None, typer.Argument(metavar="OBS_ID", help="Names; or conditions as for query.")
    ] = None,
    cone: Cone = None,
    box: Box = None,
    times: Times = None,
    bands: Bands = None,
    kind: Kind = None,
    center: Annotated[tuple[float, float] | None, typer.Option(metavar="RA DEC", help="Centre, deg.")] = None,
    size: Annotated[float | None, typer.Option(help="Side, in pixels of the level, or in --unit.")] = None,
    unit: Annotated[str, typer.Option(metavar="pix|arcsec|arcmin|deg", help="Of --size.")] = "pix",
    level: Level = 0,
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Average images of one band, or spectra, weighted by their inverse variance, with the error of the mean."""
    target = _target(out, "stack.fits", overwrite)
    opened = open_store(store)
    where = conditions(cone, box, None, times, None, bands, kind, None)
    if bool(obs_ids) == bool(where):
        raise InputError(
            "observations are named, or found by conditions", field="OBS_ID", remedy="give one of the two"
        )
    names = list(obs_ids or ()) or [str(name) for name in opened.observations(**where)["obs_id"]]
    if not names:
        raise InputError("nothing in the store fits the conditions", remedy="see what 'store query' finds")
    found = opened.stack(names, center=center, size=_size(size, unit), level=level)
    _write(found, target, overwrite)
    used = found.meta["n_stacked"]
    left_out = f"; {len(names) - used} have no usable pixel there" if used < len(names) else ""
    typer.echo(f"mean of {used}{left_out}")


def _target(out: Path | None, default: str, overwrite: bool) -> Path:
    """Return the FITS file to write, after seeing that it can be: before the work is done, in the words of options."""
    target = out or Path(default)
    if target.suffix.lower() not in (".fits", ".fit", ".fts"):
        raise InputError(f"{target.name} would be a FITS file", field="--out", remedy="name it .fits")
    if target.exists() and not overwrite:
        raise InputError(
            "the file exists already", source=target, remedy="choose another name, or give --overwrite"
        )
    return target


def _write(found: Any, target: Path, overwrite: bool) -> None:
    from skyloom.io.fits import write

    write(found, target, overwrite=overwrite)
    shape = " x ".join(str(size) for size in found.shape[::-1])
    typer.echo(f"wrote {target}: {shape}, unit {found.unit}, {int((~found.mask).sum())} usable values")


def _write_text(path: Path, text: str) -> None:
    from skyloom.io.formats.atomic import atomic_path

    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
