"""What is in a store, as far as an ingest has to know it: names, sources and digests of the visible observations.

Those that the index knows stay on the disk, found by tables of numbers made of the names; those of parts that the index
does not know yet, and of the parts that are being written, are kept as they come. So neither the memory nor the time of
an ingest grows with every observation that is in the store already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.store.files.master import PartKey, stored_table, visible_rows
from skyloom.store.files.parts import OBSERVATIONS
from skyloom.store.search.catalogue import NAMED, read_rows

__all__ = ["Content", "Row"]

Int = NDArray[np.int64]
_TOLD = ("obs_id", "source", "source_digest")


class Row(NamedTuple):
    """A visible observation."""

    part: str
    row: int
    source: str
    source_digest: str


class _Indexed:
    """The observations that an open index knows, less those that are visible no more."""

    def __init__(self, file: Any, keys: Mapping[str, PartKey]) -> None:
        self.names = tuple(keys)
        self.covered, self.part, self.row, self.visible = visible_rows(file, keys)
        self.columns = {name: file[OBSERVATIONS][name] for name in _TOLD}
        self.tables = {name: stored_table(file, name) for name in NAMED}

    def rows(self, column: str, texts: Iterable[str]) -> Int:
        """Return the visible rows with one of the texts in a column."""
        wanted = np.array([text.encode() for text in texts], dtype=bytes)
        found = self.tables[column].all_of(wanted, lambda rows: read_rows(self.columns[column], rows))
        return found[self.visible[found]]

    def texts(self, column: str, rows: Sequence[int] | Int) -> list[str]:
        return [text.decode() for text in read_rows(self.columns[column], rows).tolist()]

    def drop(self, part: str, rows: Iterable[int]) -> None:
        if part in self.covered:
            own = np.flatnonzero(self.part == self.names.index(part))
            self.visible[own[np.isin(self.row[own], list(rows))]] = False


class Content:
    """The visible observations of a store.

    Parameters
    ----------
    file : h5py.File, optional
        An open index.
    keys : mapping
        State of each part that is visible; see `skyloom.store.files.master.part_keys`.

    Attributes
    ----------
    rows : _Rows
        Name of the observation -> where it is; looked up like a dict.
    sources : _Sources
        SHA-256 of a stored file -> its name; looked up like a dict.
    """

    def __init__(self, file: Any = None, keys: Mapping[str, PartKey] | None = None) -> None:
        self.indexed = None if file is None else _Indexed(file, keys or {})
        self.added: dict[str, Row] = {}
        self.by_digest: dict[str, dict[str, None]] = {}
        self.by_part: dict[str, dict[int, str]] = {}
        self.rows, self.sources = _Rows(self), _Sources(self)

    @property
    def covered(self) -> Mapping[str, Any]:
        """Parts whose observations the index knows."""
        return {} if self.indexed is None else self.indexed.covered

    def add(
        self, part: str, names: Iterable[tuple[str, str, str]], hidden: frozenset[int] = frozenset()
    ) -> None:
        """Take in a part: name, source and digest of the source of each of its rows."""
        for number, (obs_id, source, digest) in enumerate(names):
            if number not in hidden:
                self.added[obs_id] = Row(part, number, source, digest)
                self.by_digest.setdefault(digest, {})[obs_id] = None
                self.by_part.setdefault(part, {})[number] = obs_id

    def rows_of(self, digests: frozenset[str]) -> dict[str, list[int]]:
        """Return the rows that came from files of these digests, by part."""
        found: dict[str, list[int]] = {}
        if self.indexed is not None:
            for row in self.indexed.rows("source_digest", digests).tolist():
                name = self.indexed.names[self.indexed.part[row]]
                found.setdefault(name, []).append(int(self.indexed.row[row]))
        for digest in digests:
            for obs_id in self.by_digest.get(digest, ()):
                row = self.added[obs_id]
                found.setdefault(row.part, []).append(row.row)
        return found

    def drop(self, rows: Mapping[str, Iterable[int]]) -> None:
        """Take rows out."""
        for part, numbers in rows.items():
            gone = list(numbers)
            if self.indexed is not None:
                self.indexed.drop(part, gone)
            own = self.by_part.get(part, {})
            for obs_id in [own.pop(number) for number in gone if number in own]:
                digest = self.added.pop(obs_id).source_digest
                del self.by_digest[digest][obs_id]


class _Rows:
    """Observations by their names."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def get(self, obs_id: str) -> Row | None:
        """Return where an observation is; None where there is none of this name."""
        added, indexed = self._content.added.get(obs_id), self._content.indexed
        if added is not None or indexed is None:
            return added
        found = indexed.rows("obs_id", [obs_id])
        if not found.size:
            return None
        source, digest = (indexed.texts(name, found[:1])[0] for name in _TOLD[1:])
        return Row(indexed.names[indexed.part[found[0]]], int(indexed.row[found[0]]), source, digest)

    def __contains__(self, obs_id: str) -> bool:
        return self.get(obs_id) is not None

    def __getitem__(self, obs_id: str) -> Row:
        row = self.get(obs_id)
        if row is None:
            raise KeyError(obs_id)
        return row


class _Sources:
    """Names of stored files by their digests."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def get(self, digest: str) -> str | None:
        """Return the name of the file that has a digest; None where none is stored."""
        for obs_id in self._content.by_digest.get(digest, ()):
            return self._content.added[obs_id].source
        indexed = self._content.indexed
        found = np.empty(0, np.int64) if indexed is None else indexed.rows("source_digest", [digest])
        return None if indexed is None or not found.size else indexed.texts("source", found[:1])[0]

    def __contains__(self, digest: str) -> bool:
        return self.get(digest) is not None
