"""FITS files written card by card, laid out as the pipelines of SDSS write theirs.

Ten thousand small files are written in seconds, and headers keep the look of the genuine ones: missing comments,
numbers as text, extensions without names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["hdu_bytes", "image_cards", "number_card", "table_hdu", "text_card"]

BLOCK = 2880
_CODES = {"i1": "B", "u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D"}


def text_card(keyword: str, text: str, comment: str = "") -> str:
    """Return a card with text."""
    return f"{keyword:<8}= {_quoted(text):<20}" + (f" / {comment}" if comment else "")


def number_card(keyword: str, value: float, comment: str = "") -> str:
    """Return a card with a number or True or False."""
    if isinstance(value, bool | np.bool_):
        written = "T" if value else "F"
    else:
        written = str(int(value)) if isinstance(value, int | np.integer) else f"{float(value):.15g}"
        if not isinstance(value, int | np.integer) and not set(written) & set(".en"):
            written += ".0"
    return f"{keyword:<8}= {written.upper():>20}" + (f" / {comment}" if comment else "")


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped:<8}'"


def image_cards(shape: Sequence[int], bitpix: int, *, extension: bool) -> list[str]:
    """Return the cards that say how an image is stored."""
    first = "XTENSION= 'IMAGE   '           /Image Extension created by MWRFITS v1.11"
    cards = [first if extension else number_card("SIMPLE", True), number_card("BITPIX", bitpix)]
    cards.append(number_card("NAXIS", len(shape)))
    cards += [number_card(f"NAXIS{axis}", size) for axis, size in enumerate(reversed(shape), 1)]
    if extension:
        cards += [number_card("PCOUNT", 0), number_card("GCOUNT", 1)]
    return cards


def hdu_bytes(cards: Sequence[str], data: NDArray[Any] | None = None) -> bytes:
    """Return the bytes of one HDU: header, and data in big-endian order, both filled up to whole blocks."""
    header = "".join(f"{card[:80]:<80}" for card in (*cards, "END")).encode("ascii")
    header += b" " * (-len(header) % BLOCK)
    if data is None:
        return header
    body = data.astype(data.dtype.newbyteorder(">")).tobytes()
    return header + body + b"\0" * (-len(body) % BLOCK)


def table_hdu(rows: NDArray[Any], *, name: str = "") -> bytes:
    """Return a binary table from a structured array; two-dimensional fields get a TDIM.

    Parameters
    ----------
    rows : (n,) structured array
        Numbers and byte strings.
    name : str
        EXTNAME.
    """
    fields = rows.dtype.names or ()
    cards = [
        "XTENSION= 'BINTABLE'           /Binary table written by MWRFITS v1.11",
        number_card("BITPIX", 8),
        number_card("NAXIS", 2),
        number_card("NAXIS1", rows.dtype.itemsize),
        number_card("NAXIS2", len(rows)),
        number_card("PCOUNT", 0),
        number_card("GCOUNT", 1),
        number_card("TFIELDS", len(fields)),
    ]
    for number, field in enumerate(fields, 1):
        kind, shape = rows.dtype[field].base, rows.dtype[field].shape
        size = int(np.prod(shape)) if shape else 1
        form = (
            f"{kind.itemsize}A" if kind.kind == "S" else f"{size if size > 1 else ''}{_CODES[kind.str[1:]]}"
        )
        cards += [text_card(f"TTYPE{number}", field), text_card(f"TFORM{number}", form)]
        if len(shape) > 1:
            sizes = ", ".join(str(length) for length in reversed(shape))
            cards.append(text_card(f"TDIM{number}", f"( {sizes})"))
    if name:
        cards.append(text_card("EXTNAME", name))
    return hdu_bytes(cards, rows)
