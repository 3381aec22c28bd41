"""VOTable 1.4 with BINARY2 data, written as it comes: memory does not grow with the table.

Rows are fixed in width: a few bytes of flags for missing values, then the columns, most significant byte first, all of
it in base64 (VOTable 1.4, 10.5479/ADS/bib/2019ivoa.spec.1021O, section 5.4.2).
"""

from __future__ import annotations

import binascii
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from astropy.units import UnitsWarning
from numpy.typing import NDArray

from skyloom._version import __version__
from skyloom.core.units import parse_unit
from skyloom.io.formats.atomic import atomic_path
from skyloom.kernels.tables.base64 import encode_triples, pair_table
from skyloom.store.export.fields import Field, Rows, TableStream, expanded

__all__ = ["stream_votable", "unit_for_votable", "votable_document", "write_votable"]

_DATATYPES = {"u1": "unsignedByte", "i2": "short", "i4": "int", "i8": "long", "f4": "float", "f8": "double"}
_COUNT_WIDTH = 12
_NAMESPACES = (
    'xmlns="http://www.ivoa.net/xml/VOTable/v1.3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xsi:schemaLocation="http://www.ivoa.net/xml/VOTable/v1.3 http://www.ivoa.net/xml/VOTable/VOTable-1.4.xsd"'
)
_SYSTEMS = {
    "ICRS": '<COOSYS ID="ICRS" system="ICRS"/>',
    "TAI": '<TIMESYS ID="TAI" timescale="TAI" timeorigin="MJD-origin" refposition="TOPOCENTER"/>',
    "UTC": '<TIMESYS ID="UTC" timescale="UTC" timeorigin="MJD-origin" refposition="TOPOCENTER"/>',
}


def write_votable(stream: TableStream, path: str | Path, *, overwrite: bool = False) -> int:
    """Write a table as VOTable, completely or not at all.

    Parameters
    ----------
    stream : TableStream
        Read once, block by block.
    path : str or path
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    int
        How many rows there are.

    Notes
    -----
    Missing values: integers that are the ``null`` of their column are flagged; floats are NaN. Text is ASCII, padded
    with zeros, or ``unicodeChar`` where it has to be.

    Raises
    ------
    InputError
        When the file exists, or its folder does not.
    """
    with atomic_path(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        return stream_votable(stream, file)


def stream_votable(stream: TableStream, file: BinaryIO) -> int:
    """Write a table as VOTable into an open file that can be sought in, and return how many rows there are."""
    head, tail = _head(stream).encode(), _TAIL.encode()
    count = head.index(b'nrows="') + 7
    file.write(head)
    file.write(b'<DATA><BINARY2><STREAM encoding="base64">\n')
    n_rows = _write_rows(file, stream)
    file.write(b"\n</STREAM></BINARY2></DATA>\n")
    file.write(tail)
    file.seek(count)
    file.write(f"{n_rows:0{_COUNT_WIDTH}d}".encode())
    return n_rows


def _head(stream: TableStream, n_rows: int = 0) -> str:
    """Return the document up to where the data begin."""
    used = {column.system for column in stream.fields}
    systems = "".join(f"  {text}\n" for name, text in _SYSTEMS.items() if name in used)
    notes = "".join(
        f"  <INFO name={quoteattr(name)} value={quoteattr(value)}/>\n" for name, value in stream.notes.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<VOTABLE version="1.4" {_NAMESPACES}>\n'
        # The schema wants what is told of a resource before its systems.
        '<RESOURCE type="results">\n'
        f'  <INFO name="QUERY_STATUS" value="OK"/>\n  <INFO name="creator" value="Skyloom {__version__}"/>\n'
        f"{notes}{systems}"
        f'<TABLE name={quoteattr(stream.name)} nrows="{n_rows:0{_COUNT_WIDTH}d}">\n'
        f"<DESCRIPTION>{escape(stream.description)}</DESCRIPTION>\n"
        + "".join(_field(column) for column in stream.fields)
    )


def votable_document(stream: TableStream) -> str:
    """Return a whole document without data: what is told of a table and its columns."""
    head = _head(stream)
    # How many rows there are is not known here.
    return head.replace(f' nrows="{0:0{_COUNT_WIDTH}d}"', "") + _TAIL


_TAIL = "</TABLE>\n</RESOURCE>\n</VOTABLE>\n"


def _field(column: Field) -> str:
    kind = np.dtype(column.kind)
    if kind.kind in "SU":
        size = kind.itemsize if kind.kind == "S" else kind.itemsize // 4
        form = f'datatype="{"char" if kind.kind == "S" else "unicodeChar"}" arraysize="{size}"'
    else:
        form = f'datatype="{_DATATYPES[_stored(column).str[1:]]}"'
    text = f'<FIELD name="{column.name}" ID="{column.name.lstrip("_")}" {form}'
    if column.unit:
        text += f" unit={quoteattr(unit_for_votable(column.unit))}"
    if column.ucd:
        text += f' ucd="{column.ucd}"'
    if column.system:
        text += f' ref="{column.system}"'
    text += f">\n  <DESCRIPTION>{escape(column.description)}</DESCRIPTION>\n"
    if column.null is not None:
        text += f'  <VALUES null="{column.null}"/>\n'
    return text + "</FIELD>\n"


def unit_for_votable(unit: str) -> str:
    """Return a unit in the form of VOUnits (10.5479/ADS/bib/2014ivoa.spec.0523D), without spaces.

    Units that the standard does not know (nmgy, electron) keep their names: it allows that.
    """
    parsed = parse_unit(unit)
    try:
        with warnings.catch_warnings():
            # That erg and Angstrom should no longer be used, which everybody does, and what unknown units may mean.
            warnings.simplefilter("ignore", UnitsWarning)
            return str(parsed.to_string("vounit"))
    except ValueError:
        text = str(parsed.to_string("generic", fraction=False))
        return text.replace(" ", ".").replace("(", "").replace(")", "").replace("^", "**")


def _stored(column: Field) -> np.dtype[Any]:
    """Return the type of a column in a file, most significant byte first."""
    kind = np.dtype(column.kind)
    if kind.kind == "U":
        return np.dtype((">u2", (kind.itemsize // 4,)))
    # VOTable has no signed bytes.
    return np.dtype(">i2") if kind == np.int8 else kind.newbyteorder(">")


def _write_rows(file: BinaryIO, stream: TableStream) -> int:
    flags = -(-len(stream.fields) // 8)
    dtype = np.dtype(
        [("flags", "u1", (flags,)), *((f"c{i}", _stored(f)) for i, f in enumerate(stream.fields))]
    )
    encoder = _Base64(file)
    n_rows = 0
    for block in stream.blocks:
        encoder.write(_packed(block, stream.fields, dtype))
        n_rows += len(block)
    encoder.finish()
    return n_rows


def _packed(block: Rows, fields: Iterable[Field], dtype: np.dtype[Any]) -> NDArray[np.uint8]:
    """Return rows as they are in the file."""
    rows = np.zeros(len(block), dtype)
    for number, column in enumerate(fields):
        values = expanded(column, block[column.name])
        if values.dtype.kind == "U":
            letters = np.ascontiguousarray(values).view(np.uint32).reshape(len(values), -1)
            # What UCS-2 does not have.
            rows[f"c{number}"] = np.where(letters > 0xFFFF, 0xFFFD, letters)
            continue
        rows[f"c{number}"] = values
        if column.null is not None:
            rows["flags"][:, number // 8] |= ((values == column.null) << (7 - number % 8)).astype(np.uint8)
    return rows.view(np.uint8)


class _Base64:
    """Bytes into a file as base64; what does not make three bytes waits for the next ones."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._table = pair_table()
        self._rest = np.empty(0, np.uint8)
        self._letters = np.empty(0, np.uint16)

    def write(self, data: NDArray[np.uint8]) -> None:
        """Write what makes whole groups of three."""
        if self._rest.size:
            data = np.concatenate([self._rest, data])
        whole = data.size // 3
        if self._letters.size < 2 * whole:
            self._letters = np.empty(2 * whole, np.uint16)
        letters = self._letters[: 2 * whole]
        encode_triples(data[: 3 * whole], self._table, letters)
        self._file.write(letters.data)
        # Parsers read line by line, or remember where lines begin.
        self._file.write(b"\n")
        self._rest = data[3 * whole :].copy()

    def finish(self) -> None:
        """Write what is left, padded."""
        self._file.write(binascii.b2a_base64(self._rest.tobytes(), newline=False))
