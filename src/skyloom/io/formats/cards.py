"""Header cards of FITS: keywords and their values, by the rules of the standard and a little beyond."""

from __future__ import annotations

import numpy as np

__all__ = ["Header", "Value", "header_number", "parse_header"]

Value = str | bool | int | float | None
Header = dict[str, Value]

_COMMENTARY = ("HISTORY ", "COMMENT ", " " * 8)


def parse_header(content: bytes) -> Header:
    """Return the keywords of a FITS header.

    Parameters
    ----------
    content : bytes
        Cards of 80 bytes.

    Returns
    -------
    dict
        In the order of the header; of a keyword that occurs twice, the first. Commentary cards are left out; a value
        that follows no rule of the standard is kept as text.
    """
    text = content.decode("latin-1")
    header: Header = {}
    continued = ""
    for start in range(0, len(text), 80):
        line = text[start : start + 80]
        if line[8:10] == "= " and line[:8] not in _COMMENTARY:
            keyword, field = line[:8].rstrip(), line[10:].lstrip()
        elif line.startswith("HIERARCH ") and "=" in line:
            keyword, _, field = (part.strip() for part in line[9:].partition("="))
        elif continued and line.startswith("CONTINUE"):
            piece = _quoted(line[10:].lstrip())
            header[continued] = str(header[continued]).removesuffix("&") + piece.removesuffix("&")
            continued = continued if piece.endswith("&") else ""
            continue
        else:
            continue
        continued = ""
        if keyword and keyword not in header:
            header[keyword] = value = _parse_value(field)
            continued = keyword if isinstance(value, str) and value.endswith("&") else ""
    return header


def header_number(header: Header, keyword: str) -> float | None:
    """Return a keyword as a finite float, also when the header holds it as text; None when absent or no number."""
    try:
        value = float(header[keyword])  # type: ignore[arg-type]  # None raises TypeError
    except (KeyError, ValueError, TypeError):
        return None
    return value if np.isfinite(value) else None


def _quoted(field: str) -> str:
    """Return the text between the quotes that a field begins with; blanks at its end mean nothing in FITS."""
    end = field.find("'", 1)
    while end >= 0 and field[end + 1 : end + 2] == "'":
        end = field.find("'", end + 2)
    return field[1 : end if end >= 0 else None].replace("''", "'").rstrip()


def _parse_value(field: str) -> Value:
    if field.startswith("'"):
        return _quoted(field)
    shown = field.partition("/")[0].strip()
    if shown in ("T", "F"):
        return shown == "T"
    if not shown:
        return None
    if shown.lstrip("+-").isdigit():
        return int(shown)
    try:
        # Fortran writes double precision with a D.
        return float(shown.replace("D", "E").replace("d", "e"))
    except ValueError:
        return shown
