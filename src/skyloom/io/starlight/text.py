"""How STARLIGHT writes text: values before a tag in brackets, Fortran numbers, fields full of asterisks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import FileFormatError
from skyloom.io.formats.atomic import atomic_path

__all__ = [
    "cut_fields",
    "field_ends",
    "fortran_number",
    "is_number",
    "number_rows",
    "read_text",
    "tagged",
    "write_text",
]

Float = NDArray[np.float64]

_TAGGED = re.compile(r"^([^\[\]]*?)\s*\[([^\]]+)\]")
# Fortran drops the E where the exponent has three digits: 1.234-101.
_NO_EXPONENT_LETTER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))([-+]\d{2,3})")


def read_text(path: str | Path) -> str:
    """Return the text of a file.

    Raises
    ------
    FileFormatError
        When there is none, or it is not text.
    """
    place = Path(path)
    if not place.is_file():
        raise FileFormatError.missing(path)
    content = place.read_bytes()
    if b"\0" in content:
        raise FileFormatError("this is not a text file", source=path)
    # Names in comments may be written in any code page; every byte is a character of latin-1.
    return content.decode("latin-1")


def write_text(path: str | Path, text: str, *, overwrite: bool = False) -> Path:
    """Write a text file, whole or not at all; return its path."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def tagged(line: str) -> tuple[str, str] | None:
    """Return tag and value of a line such as `` 0.3590    [AV_min  (mag)]``, None where there is no tag."""
    found = None if line.lstrip().startswith("#") else _TAGGED.match(line)
    if found is None:
        return None
    return " ".join(found[2].split()), found[1].strip()


def fortran_number(text: str) -> float:
    """Return a number as Fortran writes it; NaN for ``***`` (a field too narrow for its value) and other text."""
    try:
        return float(text)
    except ValueError:
        bare = _NO_EXPONENT_LETTER.fullmatch(text)
        if bare:
            return float(f"{bare[1]}E{bare[2]}")
        try:
            return float(text.replace("D", "E").replace("d", "e"))
        except ValueError:
            return float("nan")


def is_number(text: str) -> bool:
    """Tell whether a word is a finite number."""
    return bool(np.isfinite(fortran_number(text)))


def number_rows(lines: list[str], n_columns: int) -> Float:
    """Return rows of right-aligned numbers; what is no number becomes NaN.

    Fields of asterisks may touch their neighbours; such rows are cut where the fields of the complete rows end.

    Parameters
    ----------
    lines : list of str
    n_columns : int
        Columns beyond these are left out.

    Returns
    -------
    (n_lines, n_columns) float64 array
    """
    words = [line.split() for line in lines]
    if words and all(len(row) == n_columns for row in words):
        try:
            # Faster than handing the text to numpy.
            return np.array([list(map(float, row)) for row in words])
        except ValueError:
            return np.array([[fortran_number(word) for word in row] for row in words])
    complete = (
        line
        for line, row in zip(lines, words, strict=True)
        if len(row) >= n_columns and all(is_number(word) for word in row[:n_columns])
    )
    ends = field_ends(next(complete, ""))
    values = np.full((len(lines), n_columns), np.nan)
    for number, (line, row) in enumerate(zip(lines, words, strict=True)):
        fields = row if len(row) >= n_columns else cut_fields(line, ends)
        for column, text in enumerate(fields[:n_columns]):
            values[number, column] = fortran_number(text)
    return values


def field_ends(line: str) -> tuple[int, ...]:
    """Return where the words of a line end."""
    return tuple(match.end() for match in re.finditer(r"\S+", line))


def cut_fields(line: str, ends: tuple[int, ...]) -> list[str]:
    """Cut a line whose fields touch where those of a complete one end; at blanks where no such line is known."""
    if not ends:
        return line.split()
    return [line[start:end].strip() for start, end in zip((0, *ends[:-1]), ends, strict=True)]
