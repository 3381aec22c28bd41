"""Lists of stars: ECSV, FITS and text tables, and regions of DS9."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io.registry import IORegistryError
from astropy.table import QTable

from skyloom.errors import FileFormatError, InputError
from skyloom.io.ds9_regions import read_regions

__all__ = ["read_stars"]

NAMES = {
    "ra": ("ra", "raj2000", "ra_icrs", "alpha", "alpha_j2000"),
    "dec": ("dec", "dej2000", "decj2000", "de_icrs", "delta", "delta_j2000"),
    "radius": ("radius", "radius_arcsec", "r"),
    "flux": ("flux",),
    "magnitude": ("magnitude", "mag", "gmag", "phot_g_mean_mag"),
}
UNITS = {"ra": u.deg, "dec": u.deg, "radius": u.arcsec, "magnitude": u.mag}


def read_stars(path: str | Path) -> QTable:
    """Read positions and sizes or magnitudes of stars.

    Parameters
    ----------
    path : str or Path
        A table that astropy reads (ECSV, FITS, VOTable, CSV) with columns ra and dec, and perhaps radius, flux or
        magnitude, by these or by Gaia's names; or a DS9 region file (``.reg``) with circles in fk5,
        icrs or galactic coordinates.

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
    """Read the circles of a region file of DS9; what it excludes is no star."""
    circles = [region for region in read_regions(source, only={"circle"}) if region.include]
    if not circles:
        raise FileFormatError("has no circle", source=source, remedy="draw stars as circles")
    if any(circle.frame == "image" or circle.size_unit == "pixel" for circle in circles):
        raise FileFormatError(
            "has circles in the frame of pixels",
            source=source,
            remedy="save the regions of DS9 in fk5, icrs or galactic, with radii in arcsec",
        )
    # fk5 (J2000) and icrs agree to 0.02 arcsec, and nobody can say which of them an image was aligned with.
    places = [
        SkyCoord(
            *circle.points[0], unit=u.deg, frame="galactic" if circle.frame == "galactic" else "icrs"
        ).icrs
        for circle in circles
    ]
    return QTable(
        {
            "ra": [place.ra.deg for place in places] * u.deg,
            "dec": [place.dec.deg for place in places] * u.deg,
            "radius": [circle.sizes[0] for circle in circles] * u.arcsec,
        }
    )
