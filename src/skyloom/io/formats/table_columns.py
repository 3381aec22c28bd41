"""Columns of a binary table, picked without parsing the rest of it.

The table that describes one spectrum of SDSS has 236 columns, of which a reader wants ten; astropy takes longer to
make sense of the others than everything else takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from skyloom.io.formats.files import Hdu

__all__ = ["read_columns"]

_FORMATS = {"L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "A": "S"}
# Bytes per element of what is not read here but must be stepped over.
_OTHER_WIDTHS = {"C": 8, "M": 16, "P": 8, "Q": 16}
_CARD = re.compile(rb"(TTYPE|TFORM|TDIM|TSCAL|TZERO|TNULL)(\d+) *= ([^\n]*)")
_FORM = re.compile(r"(\d*)([A-Z])")


class _Column(NamedTuple):
    """Where a column stands in a row, and its type; no type where astropy must read it."""

    offset: int
    format: str
    shape: tuple[int, ...]


def read_columns(hdu: Hdu, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return columns of a binary table; see `skyloom.io.formats.files.Hdu.columns`."""
    layout = _layout(hdu.cards)
    rows, row_bytes = hdu.integer("NAXIS2"), hdu.integer("NAXIS1")
    found: dict[str, NDArray[Any]] = {}
    for name in names:
        column = layout.get(name.upper())
        if column is None:
            continue
        if not column.format:
            found[name] = np.asarray(hdu.table()[name])
            continue
        kind = np.dtype(
            {
                "names": ["column"],
                "formats": [(column.format, column.shape)],
                "offsets": [column.offset],
                "itemsize": row_bytes,
            }
        )
        packed = np.frombuffer(hdu.file.content, kind, count=rows, offset=hdu.start)["column"]
        found[name] = packed.astype(packed.dtype.newbyteorder("="))
    return found


@lru_cache(maxsize=32)
def _layout(cards: bytes) -> dict[str, _Column]:
    """Return the columns of a table by name in upper case; tables of one survey share their headers."""
    texts: dict[tuple[str, int], str] = {}
    for start in range(0, len(cards), 80):
        if cards[start : start + 1] != b"T":
            continue
        match = _CARD.match(cards[start : start + 80])
        if match:
            text = match[3].decode("latin-1")
            value = text[1:].partition("'")[0] if text.startswith("'") else text.partition("/")[0]
            texts[match[1].decode(), int(match[2])] = value.strip()
    layout: dict[str, _Column] = {}
    offset = 0
    for number in range(1, sum(key == "TFORM" for key, _ in texts) + 1):
        form = _FORM.match(texts["TFORM", number])
        if form is None:
            raise ValueError(f"TFORM{number} is {texts['TFORM', number]!r}")
        count, letter = int(form[1] or 1), form[2]
        width, kind, shape = _type(letter, count, texts.get(("TDIM", number), ""))
        if any((key, number) in texts for key in ("TSCAL", "TZERO", "TNULL")):
            kind = ""
        layout.setdefault(texts.get(("TTYPE", number), "").upper(), _Column(offset, kind, shape))
        offset += width
    return layout


def _type(letter: str, count: int, dimensions: str) -> tuple[int, str, tuple[int, ...]]:
    """Return bytes, numpy type and shape of one element of a column."""
    if letter == "X":
        return (count + 7) // 8, "", ()
    if letter in _OTHER_WIDTHS:
        return _OTHER_WIDTHS[letter] * count, "", ()
    if letter not in _FORMATS:
        raise ValueError(f"columns of type {letter!r} are unknown")
    if letter == "A":
        return count, "" if dimensions else f"S{count}", ()
    width = np.dtype(_FORMATS[letter]).itemsize * count
    shape: tuple[int, ...] = () if count == 1 else (count,)
    if dimensions:
        # The first number of TDIM varies fastest.
        named = tuple(int(size) for size in re.findall(r"\d+", dimensions))[::-1]
        if math.prod(named) != count:
            return width, "", ()
        shape = named
    return width, "" if letter == "L" or not count else _FORMATS[letter], shape
