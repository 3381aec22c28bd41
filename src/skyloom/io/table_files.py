"""Tables read and written as ECSV, CSV, FITS, VOTable and Parquet, with units and descriptions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import astropy.units as u
from astropy.io.registry import IORegistryError
from astropy.table import QTable, Table

from skyloom.errors import FileFormatError, InputError
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.headers import parse_bunit
from skyloom.io.formats.tables import write_ecsv, write_fits_table

__all__ = ["SUFFIXES", "read_table", "table_format", "write_table"]

SUFFIXES = {"ecsv": ".ecsv", "csv": ".csv", "fits": ".fits", "votable": ".vot", "parquet": ".parquet"}
"""Formats, and the suffix of each."""
_BY_SUFFIX = {suffix: form for form, suffix in SUFFIXES.items()} | {
    ".xml": "votable",
    ".votable": "votable",
    ".fit": "fits",
    ".pq": "parquet",
}
_OWN_NOTES = frozenset({"META", "HISTORY", "CONFIG"})
"""Tables of our FITS products that are notes, not results."""


def table_format(path: str | Path) -> str:
    """Return the format that the suffix of a file names.

    Raises
    ------
    InputError
        When it names none.
    """
    form = _BY_SUFFIX.get(Path(path).suffix.lower())
    if form is None:
        raise InputError(
            "the name does not tell the format of the table",
            source=path,
            remedy=f"name it {', '.join(_BY_SUFFIX)}",
        )
    return form


def read_table(path: str | Path, extension: str | None = None) -> QTable:
    """Read a table of any of the formats in `SUFFIXES`.

    Parameters
    ----------
    path : str or path
        With a suffix that names the format.
    extension : str, optional
        Of a FITS file with several tables; by default the first that holds results.

    Raises
    ------
    InputError
        When the file is missing, or the name does not tell the format.
    FileFormatError
        When it cannot be read as that.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError.missing(file)
    form = table_format(file)
    options: dict[str, Any] = {"format": {"ecsv": "ascii.ecsv", "csv": "ascii.csv"}.get(form, form)}
    if form == "fits":
        options["hdu"] = _extension(file, extension)
    try:
        with warnings.catch_warnings():
            # Units outside the standards of FITS and VOTable (nmgy, electron) are read by name all the same.
            warnings.simplefilter("ignore", u.UnitsWarning)
            _ignore_votable_warnings()
            return _with_known_units(QTable.read(file, **options))
    except ImportError as error:
        raise _no_pyarrow(file) from error
    except (OSError, ValueError, TypeError, KeyError, IndexError, IORegistryError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FileFormatError(f"cannot be read as {form}: {reason}", source=file) from error


def _with_known_units(table: QTable) -> QTable:
    """Recognise units that the standards do not know but telescopes use, such as ``electron / s`` in a VOTable."""
    table.convert_bytestring_to_unicode()
    for name in table.colnames:
        unit = getattr(table[name], "unit", None)
        if unit is None or not isinstance(table[name], u.Quantity):
            continue
        try:
            known = parse_bunit(str(unit))
        except InputError:
            continue
        # A unit of the same name that a reader has made up for its own use is not equal to any.
        if known != unit:
            description = table[name].info.description
            table[name] = table[name].value << known
            table[name].info.description = description
    return table


def _extension(file: Path, extension: str | None) -> str | int:
    from skyloom.io.formats.files import open_fits

    with open_fits(file) as opened:
        tables = [(number, hdu.name) for number, hdu in enumerate(opened) if number and not hdu.is_image]
    names = [name for _, name in tables]
    if extension is not None:
        if extension.upper() not in names:
            raise InputError(
                f"there is no table {extension}",
                source=file,
                field="extension",
                remedy=f"it has {', '.join(names) or 'none'}",
            )
        return extension.upper()
    for number, name in tables:
        if name not in _OWN_NOTES:
            return number
    raise InputError("has no table of results", source=file, remedy=f"it has {', '.join(names) or 'images'}")


def write_table(
    table: Table, path: str | Path, form: str | None = None, *, overwrite: bool = False, name: str = "TABLE"
) -> Path:
    """Write a table in one of the formats in `SUFFIXES`; return its path.

    Parameters
    ----------
    table : Table
    path : str or path
        It appears when it is complete.
    form : {"ecsv", "csv", "fits", "votable", "parquet"}, optional
        By default what the suffix says.
    overwrite : bool
    name : str
        EXTNAME in FITS.

    Notes
    -----
    Units and descriptions of columns are kept by all formats but CSV (FITS cuts descriptions to a comment); a unit
    outside VOUnits (nmgy, electron) is written by its name. Parquet holds them in the form that astropy reads back, and
    as plain metadata of each column.

    Raises
    ------
    InputError
        When the file exists, the format is unknown, or a package is missing.
    """
    chosen = form or table_format(path)
    if chosen not in SUFFIXES:
        raise InputError(
            f"{chosen!r} is no format of tables", field="format", remedy=f"use one of {', '.join(SUFFIXES)}"
        )
    target = Path(path)
    if target.exists() and not overwrite:
        raise InputError("exists already", source=target, remedy="give --overwrite to replace it")
    if chosen == "ecsv":
        return write_ecsv(table, target)
    if chosen == "fits":
        return write_fits_table(table, target, name)
    with atomic_path(target, overwrite=overwrite) as temporary:
        if chosen == "csv":
            table.write(temporary, format="ascii.csv")
        elif chosen == "parquet":
            _write_parquet(table, temporary)
        else:
            with warnings.catch_warnings():
                # That erg and Angstrom should no longer be used, which everybody does, and units known by name only.
                warnings.simplefilter("ignore", u.UnitsWarning)
                _ignore_votable_warnings()
                table.write(temporary, format="votable", tabledata_format="binary2")
    return target


def _ignore_votable_warnings() -> None:
    """Within `warnings.catch_warnings`: let unknown units pass, which VOTable allows."""
    from astropy.io.votable.exceptions import W50

    warnings.simplefilter("ignore", W50)


def _write_parquet(table: Table, path: Path) -> None:
    """Write Parquet with units twice: as astropy reads them, and as metadata of columns, where others look."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise _no_pyarrow(path) from error
    table.write(path, format="parquet", overwrite=True)
    arrow = parquet.read_table(path)
    fields = []
    for field in arrow.schema:
        column = table[field.name] if field.name in table.colnames else None
        notes = {
            key: str(value)
            for key, value in (
                ("unit", getattr(column, "unit", None)),
                ("description", getattr(getattr(column, "info", None), "description", None)),
            )
            if value not in (None, "")
        }
        fields.append(field.with_metadata({**(field.metadata or {}), **notes}) if notes else field)
    parquet.write_table(arrow.cast(pa.schema(fields, metadata=arrow.schema.metadata)), path)


def _no_pyarrow(path: Path) -> InputError:
    return InputError(
        "Parquet needs the package pyarrow", source=path, remedy='install it: pip install "skyloom[parquet]"'
    )
