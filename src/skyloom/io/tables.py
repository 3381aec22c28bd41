"""Tables as files: ECSV, which keeps everything and is text, and FITS, which TOPCAT opens at once."""

from __future__ import annotations

from pathlib import Path

from astropy.io import fits
from astropy.table import QTable, Table

from skyloom.io.atomic import atomic_path
from skyloom.io.headers import unit_text

__all__ = ["write_ecsv", "write_fits_table"]


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
