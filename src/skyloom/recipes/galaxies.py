"""A table of galaxies as the objects of a configuration: one run for a whole sample."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyloom.errors import ConfigError, InputError

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["Galaxy", "lay_galaxies", "read_galaxies"]

# Names of columns in tables of samples, the preferred one first; upper and lower case are the same.
NAMES = ("name", "galaxy", "object", "target")
REDSHIFTS = ("z", "redshift")
EXTINCTIONS = ("a_v", "av")
FORMATS = {
    ".csv": "ascii.csv",
    ".tsv": "ascii.tab",
    ".tab": "ascii.tab",
    ".txt": "ascii",
    ".dat": "ascii",
    ".ecsv": "ascii.ecsv",
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
}
_FIELD = re.compile(r"[A-Za-z_]\w*")
_WHOLE = re.compile(r"[+-]?\d+")


@dataclass(frozen=True, slots=True)
class Galaxy:
    """A row of a table of galaxies.

    Attributes
    ----------
    name : str
    redshift, a_v : float or None
        None where the table does not tell; ``a_v`` is the extinction of the Milky Way in V, in magnitudes.
    fields : mapping
        Column -> text, of all other columns of words and whole numbers.
    """

    name: str
    redshift: float | None = None
    a_v: float | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


def read_galaxies(path: str | Path) -> tuple[Galaxy, ...]:
    """Read a table of galaxies.

    Parameters
    ----------
    path : str or Path
        CSV, TSV, ECSV, FITS or VOTable, by its suffix. A column ``name`` (or ``galaxy``, ``object``, ``target``) is
        needed; ``z`` (or ``redshift``) and ``a_v`` (mag) are used where they are there and not empty.

    Returns
    -------
    tuple of Galaxy
        In the order of the rows.

    Raises
    ------
    InputError
        When the file cannot be read, has no row or no column of names, a name is empty or stands twice, or a number
        is none; the row is named, counted from 1.
    """
    path = Path(path)
    table = _read_table(path)
    columns = {str(name).lower(): str(name) for name in reversed(table.colnames)}
    names = _column(columns, NAMES)
    if names is None:
        match = difflib.get_close_matches("name", columns, n=1, cutoff=0.5)
        hint = f"is {columns[match[0]]!r} meant?" if match else f"it has {', '.join(table.colnames)}"
        raise InputError(
            "has no column of names", source=path, field="name", remedy=f"call one 'name' or 'galaxy'; {hint}"
        )
    redshift, extinction = _column(columns, REDSHIFTS), _column(columns, EXTINCTIONS)
    others = [
        name
        for name in table.colnames
        if name not in (names, redshift, extinction) and _FIELD.fullmatch(name) and _holds_words(table[name])
    ]
    galaxies = tuple(
        Galaxy(
            _name(row[names], path, names, number),
            _number(row, redshift, path, number),
            _number(row, extinction, path, number),
            {name: text for name in others if (text := _text(row[name]))},
        )
        for number, row in enumerate(table, 1)
    )
    _check_names(galaxies, path, names)
    return galaxies


def _read_table(path: Path) -> Table:
    from astropy.table import Table

    if not path.is_file():
        raise InputError.missing(path, field="--galaxies")
    known = FORMATS.get(path.suffix.lower())
    if known is None:
        raise InputError(
            f"{path.suffix or 'no suffix'} is no kind of table that is read",
            source=path,
            field="--galaxies",
            remedy=f"known are {' '.join(FORMATS)}",
        )
    # Texts are numbers only where numbers are wanted: '0266' is a plate, and its zero part of a file's name.
    as_text = {"converters": {"*": str}} if known.startswith("ascii") and known != "ascii.ecsv" else {}
    try:
        table = Table.read(path, format=known, **as_text)
    # The readers of astropy raise errors of all kinds for files that are not what their suffix says.
    except Exception as error:
        raise InputError(f"cannot be read as {known}: {error}", source=path, field="--galaxies") from error
    if not len(table):
        raise InputError("the table has no row", source=path, field="--galaxies")
    return table


def _holds_words(column: Any) -> bool:
    """Tell words and whole numbers from quantities, which are no part of a file's name."""
    if column.ndim != 1 or column.dtype.kind not in "OSUiu":
        return False
    if column.dtype.kind in "iu":
        return True
    texts = [text for value in column if (text := _text(value))]
    return all(_WHOLE.fullmatch(text) for text in texts) or not all(_is_number(text) for text in texts)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _column(columns: Mapping[str, str], wanted: Sequence[str]) -> str | None:
    return next((columns[name] for name in wanted if name in columns), None)


def _text(value: Any) -> str:
    if getattr(value, "mask", False):
        return ""
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()


def _name(value: Any, path: Path, column: str, number: int) -> str:
    name = _text(value)
    if not name:
        raise InputError(f"the name in row {number} is empty", source=path, field=column)
    return name


def _number(row: Any, column: str | None, path: Path, number: int) -> float | None:
    text = "" if column is None else _text(row[column])
    if text in ("", "--", "-", "nan"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{text!r} in row {number} is no number",
            source=path,
            field=column,
            remedy="leave it empty if unknown",
        )
    return value


def _check_names(galaxies: Sequence[Galaxy], path: Path, column: str) -> None:
    rows: dict[str, int] = {}
    for number, galaxy in enumerate(galaxies, 1):
        first = rows.setdefault(galaxy.name, number)
        if first != number:
            raise InputError(
                f"{galaxy.name!r} stands in rows {first} and {number}",
                source=path,
                field=column,
                remedy="give each object a name of its own; a column 'name' goes before 'galaxy'",
            )


def lay_galaxies(
    values: Mapping[str, Any], galaxies: Sequence[Galaxy], keys: Mapping[str, str]
) -> dict[str, Any]:
    """Make galaxies the objects of a configuration that has been read and not yet checked.

    Parameters
    ----------
    values : mapping
        The configuration; what it says of a galaxy goes before what the table says. Not changed.
    galaxies : sequence of Galaxy
    keys : mapping
        What the configuration's objects call ``redshift`` and ``a_v``, where they have them.

    Returns
    -------
    dict
        The configuration with the galaxies, and no others, as its ``objects``.

    Raises
    ------
    ConfigError
        When the configuration names an object twice.
    """
    from skyloom.recipes.config import merge
    from skyloom.recipes.patterns import to_mapping

    given = values.get("objects")
    try:
        known = {} if given in (None, "all") else to_mapping(given)
    except ValueError as error:
        raise ConfigError(str(error), field="objects") from error
    objects = {}
    for galaxy in galaxies:
        numbers = {"redshift": galaxy.redshift, "a_v": galaxy.a_v}
        own: dict[str, Any] = {
            keys[name]: value for name, value in numbers.items() if name in keys and value is not None
        }
        if galaxy.fields:
            own["fields"] = dict(galaxy.fields)
        said = known.get(galaxy.name) if isinstance(known, Mapping) else None
        if isinstance(said, Mapping):
            if "ebv" in said:
                # The same extinction in another measure: what the configuration says goes before the table.
                own.pop(keys.get("a_v", ""), None)
            own = merge(own, said)
        objects[galaxy.name] = own
    return {**values, "objects": objects}
