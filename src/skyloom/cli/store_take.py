"""``skyloom store``: images, cubes, spectra and their means taken out of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skyloom.cli.store_options import Bands, Box, Cone, Kind, Level, ObsId, Overwrite, Times, conditions
from skyloom.cli.terminal import EXIT_CODES, Directory, open_store
from skyloom.errors import InputError

__all__ = ["add_take"]

Out = Annotated[Path | None, typer.Option(metavar="FILE", help="FITS file to write.")]
Centre = Annotated[
    tuple[float, float] | None, typer.Option("--center", metavar="RA DEC", help="Centre, deg.")
]
Size = Annotated[float | None, typer.Option(help="Side, in pixels of the level, or in --unit.")]
Unit = Annotated[str, typer.Option(metavar="pix|arcsec|arcmin|deg", help="Of --size.")]

commands = typer.Typer()


def add_take(app: typer.Typer) -> None:
    """Add the commands to those of ``skyloom store``."""
    app.registered_commands += commands.registered_commands


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
    center: Centre = None,
    size: Size = None,
    unit: Unit = "pix",
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
    center: Centre = None,
    size: Size = None,
    unit: Unit = "pix",
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
