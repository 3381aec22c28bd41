"""Columns of an exported table and its rows as a stream: what all writers of tables share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_ROWS", "Field", "Progress", "RowBuffer", "TableStream", "expanded"]

BLOCK_ROWS = 1 << 16
"""Rows of a block."""
Rows = NDArray[Any]
Progress = Callable[[str, int, int], None]
"""``progress(item, done, total)``, called when an observation is done."""


class Field(NamedTuple):
    """A column of a table.

    Parameters
    ----------
    name : str
    kind : str
        Of one value as numpy writes it: ``f8``, ``i8``, ``S20`` (ASCII), ``U20`` (other text).
    unit, ucd, description : str
        The unit as astropy writes it, empty without one.
    system : {"", "ICRS", "TAI", "UTC"}
        What coordinates or times are measured in.
    null : int, optional
        Of integers: the value that stands for nothing.
    values : array of bytes, optional
        Of text with few different values: those. Rows then hold their numbers, int32.
    """

    name: str
    kind: str
    unit: str = ""
    ucd: str = ""
    description: str = ""
    system: str = ""
    null: int | None = None
    values: NDArray[np.bytes_] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """What a row of the stream holds."""
        return np.dtype("i4" if self.values is not None else self.kind)


@dataclass(frozen=True, slots=True)
class TableStream:
    """A table whose rows come in blocks, so that it is never in memory as a whole.

    Parameters
    ----------
    name : str
    description : str
    fields : tuple of Field
    blocks : iterator of structured arrays
        Of `dtype`; the rows of all but the last one are a multiple of four. A block is lost when the next is asked for.
    notes : mapping
        What else is told of the table, by short names.
    """

    name: str
    description: str
    fields: tuple[Field, ...]
    blocks: Iterator[Rows]
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a row of the blocks."""
        return np.dtype([(column.name, column.dtype) for column in self.fields])

    def renamed(self, names: Mapping[str, str]) -> TableStream:
        """Return the table with other names of columns."""
        fields = tuple(column._replace(name=names.get(column.name, column.name)) for column in self.fields)
        new = np.dtype([(column.name, column.dtype) for column in fields])
        return replace(self, fields=fields, blocks=(block.view(new) for block in self.blocks))


def expanded(column: Field, values: NDArray[Any]) -> NDArray[Any]:
    """Return the values of a column, text instead of its numbers."""
    return values if column.values is None else column.values[values]


class RowBuffer:
    """Rows that are gathered until a block is full.

    Parameters
    ----------
    dtype : structured dtype
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._rows = np.empty(BLOCK_ROWS, dtype)
        self._filled = 0

    def add(self, columns: Mapping[str, Any], n: int) -> Iterator[Rows]:
        """Take ``n`` rows, single values for all of them or arrays; yield the blocks that get full."""
        done = 0
        while done < n:
            take = min(n - done, BLOCK_ROWS - self._filled)
            part = self._rows[self._filled : self._filled + take]
            for name, values in columns.items():
                part[name] = values[done : done + take] if np.ndim(values) else values
            done += take
            self._filled += take
            if self._filled == BLOCK_ROWS:
                self._filled = 0
                yield self._rows

    def rest(self) -> Iterator[Rows]:
        """Yield what is left."""
        if self._filled:
            yield self._rows[: self._filled]
            self._filled = 0
