"""Which files are to be stored: from names, folders, wildcards, and tables that list frames or spectra."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from skyloom.errors import InputError

__all__ = ["FileList", "Missing", "find_files", "listed_files", "weight_of"]

FITS_SUFFIXES = (".fits", ".fit", ".fts")
PACKED_SUFFIXES = (".gz", ".bz2")
_WILDCARD = re.compile(r"[*?\[]")
# Image and weight as two files, in the names that drizzling gives them.
_SCIENCE, _WEIGHT = re.compile(r"_(sci|drz|drc)(?=[_.])"), re.compile(r"_wht(?=[_.])")
_FIELD = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
# The names that the survey gives its files.
_KNOWN_PATTERNS = {
    frozenset({"run", "camcol", "field"}): "frame-{band}-{run:06d}-{camcol:d}-{field:04d}.fits*",
    frozenset({"plate"}): "spec-{plate:04d}-{mjd:d}-{fiberid:04d}.fits*",
}
_SAME_COLUMNS = {"plateid": "plate", "fiber": "fiberid", "filter": "band"}


@dataclass(frozen=True, slots=True)
class FileList:
    """A table whose rows name the files to store by their numbers.

    Parameters
    ----------
    table : str or path
        Text with a line of names (run, camcol, field and perhaps rerun and band; or plate and perhaps mjd, fiberid),
        separated by commas, tabs or blanks; lines that begin with ``#`` are skipped.
    folder : str or path
        Where the files are; folders in it are searched, too.
    pattern : str, optional
        Of a file's name, or of its path below ``folder`` where it holds a slash, e.g.
        ``{rerun}/{run}/{camcol}/frame-{band}-{run:06d}-{camcol}-{field:04d}.fits*``. Fields that are no column of the
        table may be anything. Default: as SDSS names frames and spectra.
    """

    table: str | Path
    folder: str | Path
    pattern: str | None = None


class Missing(NamedTuple):
    """A row of a list for which there is no file."""

    source: str
    reason: str


def find_files(places: Iterable[str | Path]) -> tuple[Path, ...]:
    """Return the FITS files that names, folders and wildcards stand for, each once, in the order of their paths.

    Parameters
    ----------
    places : iterable of str or path
        A file (of any name), a folder (with the folders in it), or a pattern with ``*``, ``?``, ``**``. In the last two
        weight maps beside their images (``_wht`` beside ``_sci``, ``_drz``, ``_drc``) are left out: see `weight_of`.

    Raises
    ------
    InputError
        When a place does not exist, or a pattern or folder has no FITS file.
    """
    found: dict[Path, None] = {}
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            files = sorted(item for item in path.rglob("*") if _is_fits(item) and not _is_weight(item))
        elif _WILDCARD.search(str(place)) and not path.exists():
            files = sorted(item for item in _glob(path) if item.is_file() and not _is_weight(item))
        elif path.exists():
            files = [path]
        else:
            raise InputError("there is no such file or folder", source=place)
        if not files:
            raise InputError(
                "there is no FITS file", source=place, remedy="check the folder and the wildcards"
            )
        found |= dict.fromkeys(file.absolute() for file in files)
    return tuple(found)


def _is_fits(path: Path) -> bool:
    name = path.name.lower()
    for packed in PACKED_SUFFIXES:
        name = name.removesuffix(packed)
    return name.endswith(FITS_SUFFIXES) and not path.name.startswith(".") and path.is_file()


def weight_of(path: Path) -> Path | None:
    """Return the weight map that lies beside a drizzled image, ``a_wht.fits`` of ``a_sci.fits``; None without one."""
    name = _SCIENCE.sub("_wht", path.name)
    beside = path.with_name(name)
    return beside if name != path.name and beside.is_file() else None


def _is_weight(path: Path) -> bool:
    if not _WEIGHT.search(path.name):
        return False
    return any(path.with_name(_WEIGHT.sub(kind, path.name)).is_file() for kind in ("_sci", "_drz", "_drc"))


def _glob(pattern: Path) -> Iterable[Path]:
    parts = pattern.parts
    fixed = next(index for index, part in enumerate(parts) if _WILDCARD.search(part))
    return Path(*parts[:fixed]).glob(str(Path(*parts[fixed:])))


def listed_files(listing: FileList) -> tuple[tuple[Path, ...], tuple[Missing, ...]]:
    """Return the files that a table lists, and the rows without any.

    The folder is searched once, however long the table is.

    Raises
    ------
    InputError
        When the table or the folder cannot be read, or none of the columns is in the pattern.
    """
    names, rows = _read_rows(Path(listing.table))
    pattern = listing.pattern or _known_pattern(names, listing.table)
    expression, kinds = _compiled(pattern, listing.table)
    columns = [name for name in names if name in kinds]
    if not columns:
        raise InputError(
            f"none of the columns {', '.join(names)} is in the pattern {pattern!r}",
            source=listing.table,
            remedy=f"the fields of the pattern are {', '.join(kinds) or 'none'}",
        )
    folder = Path(listing.folder).expanduser()
    if not folder.is_dir():
        raise InputError("there is no such folder", source=folder)
    by_key: dict[tuple[int | str, ...], list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        shown = path.relative_to(folder).as_posix() if "/" in pattern else path.name
        match = expression.fullmatch(shown)
        if match:
            key = tuple(_value(match[name], kinds[name]) for name in columns)
            by_key.setdefault(key, []).append(path.absolute())
    files: dict[Path, None] = {}
    missing = []
    for number, row in rows:
        wanted = {name: row[names.index(name)] for name in columns}
        key = tuple(_row_value(wanted[name], kinds[name], listing.table, number, name) for name in columns)
        here = by_key.get(key)
        if here is None:
            said = ", ".join(f"{name} {value}" for name, value in wanted.items())
            missing.append(Missing(f"{listing.table}: {said}", f"no file below {folder} fits {pattern}"))
        files |= dict.fromkeys(here or ())
    return tuple(files), tuple(missing)


def _read_rows(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        text = table.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"cannot be read: {reason}", source=table) from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    # The names may stand in a comment, as many tables have them.
    data = [(number, line) for number, line in lines if not line.lstrip().startswith("#")]
    if not data:
        raise InputError(
            "the table is empty", source=table, remedy="begin it with 'run,camcol,field' or 'plate'"
        )
    cells = [(number, _cells(line)) for number, line in data]
    names = [_SAME_COLUMNS.get(name.lower(), name.lower()) for name in cells[0][1]]
    if all(name.isdigit() for name in names):
        raise InputError(
            "the table has no line of names",
            source=table,
            remedy="begin it with 'run,camcol,field' or 'plate'",
        )
    for number, row in cells[1:]:
        if len(row) != len(names):
            raise InputError(f"line {number} has {len(row)} values; expected {len(names)}", source=table)
    return names, cells[1:]


def _cells(line: str) -> list[str]:
    separator = next((sign for sign in (",", "\t", ";") if sign in line), None)
    if separator is None:
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]


def _known_pattern(names: Sequence[str], table: str | Path) -> str:
    for columns, pattern in _KNOWN_PATTERNS.items():
        if columns <= set(names):
            return pattern
    raise InputError(
        f"the columns {', '.join(names)} name neither frames (run, camcol, field) nor spectra (plate)",
        source=table,
        remedy="name the columns so, or give a pattern of the files' names",
    )


def _compiled(pattern: str, table: str | Path) -> tuple[re.Pattern[str], dict[str, str]]:
    """Return an expression with a group for each field of a pattern, and whether a field is a number."""
    kinds: dict[str, str] = {}
    text, place = "", 0
    for match in _FIELD.finditer(pattern):
        name, form = match[1].lower(), match[2] or ""
        text += _literal(pattern[place : match.start()])
        if name in kinds:
            text += f"(?P={name})" if kinds[name] == "text" else r"\d+"
        else:
            kinds[name] = "number" if form.endswith("d") else "text"
            text += f"(?P<{name}>" + (r"\d+)" if kinds[name] == "number" else "[^/]+?)")
        place = match.end()
    text += _literal(pattern[place:])
    try:
        return re.compile(text), kinds
    except re.error as error:
        raise InputError(f"the pattern {pattern!r} cannot be understood: {error}", source=table) from error


def _literal(text: str) -> str:
    signs = {"*": "[^/]*", "?": "[^/]"}
    return "".join(signs.get(sign, re.escape(sign)) for sign in text)


def _value(text: str, kind: str) -> int | str:
    return int(text) if kind == "number" or text.isdigit() else text


def _row_value(text: str, kind: str, table: str | Path, number: int, name: str) -> int | str:
    try:
        return _value(text, kind)
    except ValueError as error:
        raise InputError(f"{text!r} in line {number} is no number", source=table, field=name) from error
