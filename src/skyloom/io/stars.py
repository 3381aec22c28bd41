"""Lists of stars: ECSV, FITS and text tables, and regions of DS9."""

from __future__ import annotations

import re
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import Angle
from astropy.io.registry import IORegistryError
from astropy.table import QTable

from skyloom.errors import FileFormatError, InputError

__all__ = ["read_stars"]

NAMES = {
    "ra": ("ra", "raj2000", "ra_icrs", "alpha", "alpha_j2000"),
    "dec": ("dec", "dej2000", "decj2000", "de_icrs", "delta", "delta_j2000"),
    "radius": ("radius", "radius_arcsec", "r"),
    "flux": ("flux",),
    "magnitude": ("magnitude", "mag", "gmag", "phot_g_mean_mag"),
}
UNITS = {"ra": u.deg, "dec": u.deg, "radius": u.arcsec, "magnitude": u.mag}
CIRCLE = re.compile(r"\+?circle\s*\(([^,)]+),([^,)]+),([^,)]+)\)", re.IGNORECASE)
FRAMES = {"fk5", "icrs", "j2000"}
OTHER_FRAMES = {
    "image",
    "physical",
    "fk4",
    "b1950",
    "galactic",
    "ecliptic",
    "detector",
    "amplifier",
    "linear",
}


def read_stars(path: str | Path) -> QTable:
    """Read positions and sizes or magnitudes of stars.

    Parameters
    ----------
    path : str or Path
        A table that astropy reads (ECSV, FITS, VOTable, CSV) with columns ra and dec, and perhaps radius, flux or
        magnitude, by these or by Gaia's names; or a DS9 region file (``.reg``) with circles in fk5 or icrs.

    Returns
    -------
    QTable
        ra, dec (deg), and what there is of radius (arcsec), flux, magnitude (mag): what
        `skyloom.imaging.stars.masks.mask_stars` takes. Plain numbers are degrees, arcsec and magnitudes.

    Raises
    ------
    InputError
        When the file does not exist.
    FileFormatError
        When it cannot be read, or lacks positions.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError.missing(source, field="stars")
    if source.suffix.lower() == ".reg":
        return _regions(source)
    try:
        # Text without a telling suffix is read by guessing.
        table = QTable.read(
            source, **({"format": "ascii"} if source.suffix.lower() in (".txt", ".dat") else {})
        )
    except (OSError, ValueError, TypeError, KeyError, IORegistryError) as error:
        raise FileFormatError(
            f"is no table of stars: {(str(error).splitlines() or [type(error).__name__])[0]}",
            source=source,
            remedy="give ECSV, FITS, CSV, or circles of DS9 (.reg)",
        ) from error
    known = {name.lower(): name for name in table.colnames}
    stars = QTable()
    for name, aliases in NAMES.items():
        found = next((known[alias] for alias in aliases if alias in known), None)
        if found is None:
            if name in ("ra", "dec"):
                raise FileFormatError(
                    f"has no column {name} (but {', '.join(table.colnames)})",
                    source=source,
                    remedy="name the positions ra and dec",
                )
            continue
        stars[name] = _values(table, found, UNITS.get(name), source)
    return stars


def _values(table: QTable, name: str, unit: u.UnitBase | None, source: Path) -> u.Quantity:
    """Return a column in a unit; masked values are NaN."""
    column = table[name]
    known = getattr(column, "unit", None) or unit or u.dimensionless_unscaled
    # A magnitude is one in any system: the zero point is that of the image.
    known = getattr(known, "function_unit", known)
    plain = column.value if isinstance(column, u.FunctionQuantity) else column
    if getattr(plain, "dtype", None) is not None and plain.dtype.kind in "iu":
        plain = plain.astype(np.float64)
    plain = plain.filled(np.nan) if hasattr(plain, "filled") else plain
    try:
        values = u.Quantity(plain, known)
        return values if unit is None else values.to(unit)
    except u.UnitConversionError as error:
        raise FileFormatError(f"column {name} is in {known}; expected {unit}", source=source) from error
    except (TypeError, ValueError) as error:
        raise FileFormatError(
            f"column {name} holds no numbers (first: {column[0]})",
            source=source,
            remedy="give positions in degrees",
        ) from error


def _regions(source: Path) -> QTable:
    """Read the circles of a region file of DS9."""
    rows: list[tuple[float, float, float]] = []
    frame: str | None = None
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FileFormatError("is no text", source=source, remedy="give regions of DS9") from error
    for number, line in enumerate(lines, start=1):
        for word in (part.strip() for part in line.split("#")[0].split(";")):
            if word.lower() in FRAMES | OTHER_FRAMES:
                frame = word.lower()
            if not re.match(r"\+?circle\b", word, re.IGNORECASE):
                continue
            if frame not in FRAMES:
                raise FileFormatError(
                    f"has circles in the frame {frame or 'of pixels'}",
                    source=source,
                    remedy="save the regions of DS9 in fk5 or icrs",
                )
            rows.append(_circle(word, source, number))
    if not rows:
        raise FileFormatError("has no circle", source=source, remedy="draw stars as circles")
    ra_values, dec_values, radii = np.array(rows).T
    return QTable({"ra": ra_values * u.deg, "dec": dec_values * u.deg, "radius": radii * u.arcsec})


def _circle(text: str, source: Path, number: int) -> tuple[float, float, float]:
    """Return right ascension and declination in degrees, and the radius in arcsec."""
    match = CIRCLE.match(text)
    try:
        if match is None:
            raise ValueError(text)
        ra, dec, radius = (part.strip() for part in match.groups())
        hours = u.hourangle if ":" in ra else u.deg
        return float(Angle(ra, hours).deg), float(Angle(dec, u.deg).deg), _radius(radius)
    except (ValueError, IndexError, u.UnitsError) as error:
        raise FileFormatError(
            f"{text!r} is not a circle on the sky",
            source=source,
            field=f"line {number}",
            remedy="expected circle(ra,dec,radius), the radius in degrees or as 3\" or 0.05'",
        ) from error


def _radius(text: str) -> float:
    """Return a radius of DS9 in arcsec: ``3"``, ``0.05'``, ``0.001d`` or plain degrees."""
    scale = {'"': 1.0, "'": 60.0, "d": 3600.0}.get(text[-1])
    return 3600.0 * float(text) if scale is None else scale * float(text[:-1])
