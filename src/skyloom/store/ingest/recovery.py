"""What is in a store, and what a killed ingest has left in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from skyloom.errors import FileFormatError, SkyloomError
from skyloom.io.atomic import remove_leftovers
from skyloom.store.files.folder import PARTITIONS
from skyloom.store.files.manifest import Manifest, PartEntry, append_drop, append_part, cut_torn_line
from skyloom.store.files.part_reader import PartReader

__all__ = ["Content", "Row", "recover"]

_NAMES = ("obs_id", "source", "source_digest")


class Row(NamedTuple):
    """A visible observation, as far as an ingest has to know it."""

    part: str
    row: int
    source: str
    source_digest: str


@dataclass(slots=True)
class Content:
    """The visible observations of a store.

    Attributes
    ----------
    rows : dict
        Name of the observation -> where it is.
    sources : dict
        SHA-256 of a stored file -> its name.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def add(
        self, part: str, names: Iterable[tuple[str, str, str]], hidden: frozenset[int] = frozenset()
    ) -> None:
        """Take in a part: name, source and digest of the source of each of its rows."""
        for number, (obs_id, source, digest) in enumerate(names):
            if number not in hidden:
                self.rows[obs_id] = Row(part, number, source, digest)
                self.sources[digest] = source

    def rows_of(self, digests: frozenset[str]) -> dict[str, list[int]]:
        """Return the rows that came from files of these digests, by part."""
        found: dict[str, list[int]] = {}
        for row in self.rows.values():
            if row.source_digest in digests:
                found.setdefault(row.part, []).append(row.row)
        return found

    def drop(self, rows: Mapping[str, Iterable[int]]) -> None:
        """Take rows out."""
        if not rows:
            return
        gone = {(part, row) for part, numbers in rows.items() for row in numbers}
        self.rows = {name: row for name, row in self.rows.items() if (row.part, row.row) not in gone}
        self.sources = {row.source_digest: row.source for row in self.rows.values()}


def recover(store: Path, *, give_up: bool = False) -> tuple[Manifest, Content]:
    """Clear a store of what a killed ingest has left unfinished, and take in what it had finished.

    A file that was completed but not entered into the journal is entered now, unless something in it is stored
    already (it was to replace that: its sources are ingested again). Files that were not completed are removed.

    The caller holds the lock.

    Parameters
    ----------
    store : path
    give_up : bool
        Whether a visible part that is missing or damaged is dropped, with all that was in it.

    Raises
    ------
    FileFormatError
        When a visible part is missing or damaged and not given up, or the journal is damaged.
    """
    cut_torn_line(store)
    manifest = Manifest.read(store)
    content = Content()
    for part in manifest.visible_parts:
        try:
            names = _names(store / part.name)[1]
        except FileFormatError as error:
            if not give_up:
                remedy = "restore it from a copy, or ingest with replace: that gives up what was in it"
                raise FileFormatError(error.message, source=error.source, remedy=remedy) from error
            append_drop(store, part.name, range(part.n))
            continue
        content.add(part.name, names, manifest.dropped.get(part.name, frozenset()))
    known = {part.name for part in manifest.parts}
    for folder in sorted(path for path in (store / PARTITIONS).iterdir() if path.is_dir()):
        remove_leftovers(folder)
        for path in sorted(folder.glob("[!.]*.h5")):
            name = path.relative_to(store).as_posix()
            if name not in known:
                _adopt(store, name, manifest, content)
    return Manifest.read(store), content


def _adopt(store: Path, name: str, manifest: Manifest, content: Content) -> None:
    path = store / name
    try:
        digest, names = _names(path)
    except SkyloomError:
        # Renamed files are complete; this one was damaged afterwards, and nothing refers to it.
        path.unlink()
        return
    if any(obs_id in content.rows or source in content.sources for obs_id, _, source in names):
        path.unlink()
        return
    stored = {(source, source_digest) for _, source, source_digest in names}
    # A worker that was lost after it had written the part left them as failed.
    cleared = [
        failure.source
        for failure in manifest.failures
        if (Path(failure.source).name, failure.digest) in stored
    ]
    append_part(store, PartEntry(name, len(names), digest, path.stat().st_size), cleared=cleared)
    content.add(name, names)


def _names(path: Path) -> tuple[str, list[tuple[str, str, str]]]:
    """Return the digest of a part, and name, source and digest of the source of each row."""
    with PartReader(path) as reader:
        columns = reader.columns(_NAMES)
        names = list(zip(*(columns[key].tolist() for key in _NAMES), strict=True))
        return reader.digest, names
