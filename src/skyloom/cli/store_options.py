"""Options that several commands of ``skyloom store`` take, and the conditions of a search that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skyloom.errors import InputError

__all__ = [
    "Bands", "Box", "Cone", "Kind", "Level", "MapOf", "ObsId", "Overwrite", "Resolution", "Times", "Wave", "conditions",
]  # fmt: skip

ObsId = Annotated[str, typer.Argument(metavar="OBS_ID", help="Name of the observation.")]
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
MapOf = Annotated[Path | None, typer.Option("--moc", metavar="FILE", help="Coverage map (MOC, FITS).")]


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
