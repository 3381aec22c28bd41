"""Maps and catalogues of nebulae, as surveys publish them.

A map numbers the nebula of each pixel, -1 (or NaN, or 0 where no number is negative) where there is none. A catalogue
has a row per nebula, often of many galaxies: ``gal_name``, ``region_ID``, ``cen_ra``, ``cen_dec``, ``HA6562_FLUX``,
``HA6562_FLUX_ERR`` in PHANGS-MUSE (Groves et al. 2023, 10.1093/mnras/stad114); other names are recognised too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table
from numpy.typing import NDArray

from skyloom.core.labels import NO_REGION, LabelMap
from skyloom.core.provenance import step
from skyloom.errors import FileFormatError
from skyloom.io.formats.files import open_fits
from skyloom.io.formats.headers import wcs_from_header

__all__ = ["read_nebula_catalogue", "read_nebula_map"]

FLUX = u.Unit("1e-20 erg / (s cm2)")
NAMES = {
    "label": ("region_id", "label", "id", "number", "segment", "index"),
    "ra": ("cen_ra", "ra", "raj2000", "ra_deg", "alpha_j2000"),
    "dec": ("cen_dec", "dec", "dej2000", "dec_deg", "delta_j2000"),
    "flux": ("ha6562_flux", "halpha_flux", "flux_halpha", "halpha", "flux"),
    "flux_err": ("ha6562_flux_err", "halpha_flux_err", "flux_halpha_err", "halpha_err", "flux_err"),
    "galaxy": ("gal_name", "galaxy", "object"),
}


def read_nebula_map(path: str | Path) -> LabelMap:
    """Read the numbers of nebulae.

    Parameters
    ----------
    path : str or path
        FITS file; the first two-dimensional image is taken.

    Returns
    -------
    LabelMap
        -1 where there is none. 0 is a nebula where other values are negative or NaN, and none where they are not.

    Raises
    ------
    FileFormatError
        When there is no such image, its values are not whole numbers, or it has no WCS.
    """
    with open_fits(path) as file:
        hdu = next((hdu for hdu in file if hdu.is_image and len(hdu.shape) == 2), None)
        if hdu is None:
            raise FileFormatError("there is no two-dimensional map in this file", source=path)
        values = np.asarray(hdu.array())
        wcs, _ = wcs_from_header(hdu.header, values.shape)
        sha256 = file.sha256
    if wcs is None or not wcs.has_celestial:
        raise FileFormatError("the map of nebulae has no WCS: nobody knows where they lie", source=path)
    labels = _whole(values, path)
    done = step("read_nebula_map", path=str(path), sha256=sha256)
    return LabelMap(labels, wcs=wcs, meta={"path": str(path)}, history=(done,))


def _whole(values: NDArray[Any], path: str | Path) -> NDArray[np.int32]:
    missing = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    numbers = np.where(missing, NO_REGION, values)
    if values.dtype.kind == "f" and np.any(numbers != np.round(numbers)):
        raise FileFormatError(
            f"{int(np.count_nonzero(numbers != np.round(numbers)))} pixels are no whole numbers; a map of nebulae "
            "must not be interpolated",
            source=path,
        )
    if numbers.size and numbers.max() > np.iinfo(np.int32).max:
        raise FileFormatError(f"its labels reach {numbers.max()}, beyond 32 bits", source=path)
    none = numbers < 0 if np.any(numbers < 0) else numbers <= 0
    return np.where(none, NO_REGION, numbers).astype(np.int32)


def read_nebula_catalogue(path: str | Path, galaxy: str | None = None) -> QTable:
    """Read a catalogue of nebulae.

    Parameters
    ----------
    path : str or path
        FITS, ECSV, CSV or VOTable.
    galaxy : str, optional
        Rows of other galaxies are left out, where a column says which is which.

    Returns
    -------
    QTable
        ``label``, and of ``ra``, ``dec`` (deg), ``flux``, ``flux_err`` (of Halpha, 1e-20 erg/s/cm2 unless the column
        says otherwise) those that were found.

    Raises
    ------
    FileFormatError
        When the file is no table, or no column holds the numbers of the nebulae.
    """
    table = _table(Path(path))
    known = {name.lower(): name for name in table.colnames}
    columns = {
        key: known[found]
        for key, names in NAMES.items()
        if (found := next((name for name in names if name in known), None)) is not None
    }
    if "label" not in columns:
        raise FileFormatError(
            f"no column holds the numbers of nebulae; its columns are {', '.join(table.colnames[:12])}",
            source=path,
            remedy="name it region_ID",
        )
    if galaxy is not None and "galaxy" in columns:
        own = np.char.lower(np.char.strip(np.asarray(table[columns["galaxy"]], dtype=str)))
        rows = own == galaxy.lower()
        if not rows.any():
            raise FileFormatError(
                f"the catalogue has no nebulae of {galaxy}", source=path, field=columns["galaxy"]
            )
        table = table[rows]
    result = QTable()
    result["label"] = np.asarray(table[columns["label"]], dtype=np.int32)
    for key, unit in (("ra", u.deg), ("dec", u.deg), ("flux", FLUX), ("flux_err", FLUX)):
        if key in columns:
            result[key] = _quantity(table, columns[key], unit, path)
    return result


def _quantity(table: Table, name: str, default: u.UnitBase, path: str | Path) -> u.Quantity:
    column = table[name]
    unit = getattr(column, "unit", None) or default
    values = np.ma.filled(np.ma.asarray(getattr(column, "value", column), dtype=np.float64), np.nan)
    try:
        return u.Quantity(values, unit).to(default)
    except u.UnitConversionError as error:
        raise FileFormatError(
            f"{name} has the unit {unit}; expected one like {default}", source=path, field=name
        ) from error


def _table(path: Path) -> Table:
    """Read a table of any kind that astropy knows by its name."""
    if not path.is_file():
        raise FileFormatError("there is no such catalogue", source=path, remedy="see nebulae.catalogue")
    kinds = {
        ".ecsv": "ascii.ecsv",
        ".csv": "ascii.csv",
        ".vot": "votable",
        ".xml": "votable",
        ".txt": "ascii",
    }
    kind = kinds.get(path.suffix.lower(), "fits")
    try:
        return QTable.read(path, format=kind) if kind == "ascii.ecsv" else Table.read(path, format=kind)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"this is no table ({error})", source=path) from error
