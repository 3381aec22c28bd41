"""Tables as files: ECSV, which keeps everything and is text, and FITS, which TOPCAT opens at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.table import QTable, Table
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.blocks import card, write_table
from skyloom.io.formats.headers import unit_text

__all__ = ["write_columns", "write_ecsv", "write_fits_table"]

ROWS = 4096  # of a table that are written at a time


def write_ecsv(table: Table, path: str | Path) -> Path:
    """Write a table as ECSV, replacing an older one; return the path."""
    with atomic_path(path, overwrite=True) as temporary:
        table.write(temporary, format="ascii.ecsv")
    return Path(path)


def write_fits_table(table: Table, path: str | Path, name: str) -> Path:
    """Write a table as the first extension of a FITS file, replacing an older one; return the path.

    Parameters
    ----------
    table : Table
    path : str or path
    name : str
        EXTNAME.

    Notes
    -----
    Units that the FITS standard does not know (electron, nmgy) are written into TUNITn all the same, where TOPCAT
    shows them and astropy reads them with a warning; left out, as astropy would, nobody could tell the scale.
    """
    plain = Table(table, copy=True) if not isinstance(table, QTable) else Table(QTable(table, copy=True))
    units = {column: plain[column].unit for column in plain.colnames}
    descriptions = {column: plain[column].info.description for column in plain.colnames}
    for column in plain.colnames:
        plain[column].unit = None
        plain[column].info.description = None
    plain.meta = {}
    hdu = fits.table_to_hdu(plain)
    hdu.name = name
    for number, column in enumerate(plain.colnames, start=1):
        if descriptions[column]:
            hdu.header.comments[f"TTYPE{number}"] = descriptions[column][:47]
        if units[column] is not None and units[column] != "":
            hdu.header.insert(f"TFORM{number}", (f"TUNIT{number}", unit_text(units[column])), after=True)
    with atomic_path(path, overwrite=True) as temporary:
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(temporary, checksum=True)
    return Path(path)


def write_columns(stream: BinaryIO, table: Table, name: str, chosen: Sequence[str] | None = None) -> None:
    """Write a table of numbers and text as a FITS extension, with the units that `write_fits_table` explains.

    Parameters
    ----------
    stream : binary file, open for writing and able to seek
        After a primary HDU.
    table : Table
        One value per row in each column. Truth values become 0 and 1, text is escaped to ASCII.
    name : str
        EXTNAME.
    chosen : sequence of str, optional
        Which columns; by default all.

    Notes
    -----
    Building headers as astropy does takes a time that grows with the square of the number of columns: 8 s for the 850
    columns of a long list of lines, 0.2 s here. Rows are written in blocks: the table is never in memory twice.

    Raises
    ------
    InputError
        When a column holds something else.
    """
    columns, units = {}, b""
    for number, column in enumerate(table.colnames if chosen is None else chosen, start=1):
        unit = getattr(table[column], "unit", None)
        values = np.asarray(table[column].value if hasattr(table[column], "value") else table[column])
        if values.ndim != 1 or values.dtype.kind not in "biufSU":
            raise InputError(f"the column {column} is no column of numbers or text", field=column)
        columns[column] = _storable(values)
        if unit is not None and unit != "":
            # dex(1) is a unit of logarithms, which FITS calls by its name.
            units += card(f"TUNIT{number}", unit_text(getattr(unit, "function_unit", unit)))
    dtype = np.dtype([(column, values.dtype) for column, values in columns.items()])

    def parts() -> Iterator[NDArray[Any]]:
        for first in range(0, len(table), ROWS):
            records = np.empty(min(ROWS, len(table) - first), dtype=dtype)
            for column, values in columns.items():
                records[column] = values[first : first + ROWS]
            yield records

    write_table(stream, name, dtype, len(table), parts(), units)


def _storable(values: NDArray[Any]) -> NDArray[Any]:
    """Bring values to a type that tables of FITS have."""
    if values.dtype.kind == "U":
        return np.char.encode(values, "ascii", "backslashreplace")
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iu" and values.dtype.name not in ("uint8", "int16", "int32", "int64"):
        return values.astype(np.int64)
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values
