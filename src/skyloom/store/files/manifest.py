"""The journal of a store: which files are part of it, what could not be stored, what has been replaced.

One JSON object per line, flushed to the disk before the next is written. A line that a killed process left unfinished
is ignored by readers and cut off by the next writer, so that every state of the file is a consistent store.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from skyloom.errors import FileFormatError
from skyloom.io.formats.atomic import flush

__all__ = [
    "MANIFEST_NAME",
    "FailureEntry",
    "Manifest",
    "PartEntry",
    "append_drop",
    "append_failures",
    "append_part",
    "cut_torn_line",
]

MANIFEST_NAME = "manifest.jsonl"
PARSED = 1000
"""Lines that are parsed at once."""


class PartEntry(NamedTuple):
    """A file of the store that is visible."""

    name: str
    """Relative to the store, e.g. ``partitions/5-1234/ab12cd34ab12cd34.h5``."""
    n: int
    """Observations in it."""
    digest: str
    """Of the logical content of all of them."""
    bytes: int


class FailureEntry(NamedTuple):
    """A file (or an observation in one) that could not be stored."""

    source: str
    reason: str
    digest: str
    """SHA-256 of the file; empty where it could not be read."""

    def told_once(self) -> FailureEntry:
        """Return the same without the source before the reason: messages of readers begin with it."""
        return self._replace(reason=self.reason.removeprefix(f"{self.source}: "))


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a journal says, read at one moment.

    Attributes
    ----------
    parts : tuple of PartEntry
        In the order in which they became visible.
    failures : tuple of FailureEntry
        The latest of each source; none of a source that was stored later.
    dropped : mapping
        Name of a part -> rows of it that are visible no more.
    n_bytes : int
        Length of what was read, the unfinished last line left out.
    sha256 : str
        Of these bytes.
    """

    parts: tuple[PartEntry, ...] = ()
    failures: tuple[FailureEntry, ...] = ()
    dropped: Mapping[str, frozenset[int]] = field(default_factory=dict)
    n_bytes: int = 0
    sha256: str = field(default="", compare=False)

    @classmethod
    def read(cls, store: str | Path) -> Manifest:
        """Read the journal of a store; one that does not exist yet is empty.

        Parameters
        ----------
        store : str or path
            Folder of the store.

        Raises
        ------
        FileFormatError
            When a line other than the last is damaged, with its number.
        """
        path = Path(store) / MANIFEST_NAME
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return cls()
        whole = content[: content.rfind(b"\n") + 1]
        parts: dict[str, PartEntry] = {}
        failures: dict[str, FailureEntry] = {}
        dropped: dict[str, set[int]] = {}
        lines = whole.splitlines()
        for number, (line, values) in enumerate(zip(lines, _parsed(lines), strict=True), start=1):
            try:
                _take(json.loads(line) if values is None else values, parts, failures, dropped)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise FileFormatError(
                    f"line {number} is damaged: {line[:80].decode(errors='replace')!r}",
                    source=path,
                    remedy="delete that line, and ingest its sources again",
                ) from error
        return cls(
            tuple(parts.values()),
            tuple(failures.values()),
            {name: frozenset(rows) for name, rows in dropped.items()},
            len(whole),
            hashlib.sha256(whole).hexdigest(),
        )

    @property
    def visible_parts(self) -> tuple[PartEntry, ...]:
        """Those of which any row is visible."""
        return tuple(part for part in self.parts if len(self.dropped.get(part.name, ())) < part.n)

    @property
    def n_visible(self) -> int:
        """How many observations are visible."""
        known = {part.name for part in self.parts}
        hidden = sum(len(rows) for name, rows in self.dropped.items() if name in known)
        return sum(part.n for part in self.parts) - hidden


def _parsed(lines: Sequence[bytes]) -> Iterator[Any]:
    """Yield what lines say, many parsed at once; None for each of many of which one is damaged."""
    for first in range(0, len(lines), PARSED):
        block = lines[first : first + PARSED]
        try:
            values = json.loads(b"[%b]" % b",".join(block))
        except ValueError:
            values = []
        yield from values if len(values) == len(block) else [None] * len(block)


def _take(
    line: Mapping[str, Any],
    parts: dict[str, PartEntry],
    failures: dict[str, FailureEntry],
    dropped: dict[str, set[int]],
) -> None:
    if "part" in line:
        name = str(line["part"])
        parts[name] = PartEntry(name, int(line["n"]), str(line["digest"]), int(line["bytes"]))
        for source in line.get("cleared", ()):
            failures.pop(str(source), None)
        for replaced, rows in line.get("replaces", {}).items():
            dropped.setdefault(str(replaced), set()).update(int(row) for row in rows)
    elif "failure" in line:
        values = line["failure"]
        source = str(values["source"])
        # Taken out first, so that the latest stands last.
        failures.pop(source, None)
        failures[source] = FailureEntry(source, str(values["reason"]), str(values["digest"]))
    elif "drop" in line:
        values = line["drop"]
        dropped.setdefault(str(values["part"]), set()).update(int(row) for row in values["rows"])
    else:
        raise KeyError("no known kind of line")


def append_part(
    store: str | Path,
    part: PartEntry,
    *,
    cleared: Iterable[str] = (),
    drop: Mapping[str, Iterable[int]] | None = None,
) -> None:
    """Make a part visible.

    Parameters
    ----------
    store : str or path
    part : PartEntry
    cleared : iterable of str
        Sources whose earlier failures are past.
    drop : mapping, optional
        Name of a part -> rows that the new part replaces. They stand in the same line, so that they vanish in the
        moment in which their successors appear.
    """
    line: dict[str, Any] = {
        "part": part.name,
        "n": part.n,
        "digest": part.digest,
        "bytes": part.bytes,
    }
    sources = sorted(cleared)
    if sources:
        line["cleared"] = sources
    if drop:
        line["replaces"] = {name: sorted(int(row) for row in rows) for name, rows in sorted(drop.items())}
    _append(store, [line])


def append_failures(store: str | Path, failures: Iterable[FailureEntry]) -> None:
    """Add what could not be stored to the error table."""
    _append(store, [{"failure": failure._asdict()} for failure in failures])


def append_drop(store: str | Path, name: str, rows: Iterable[int]) -> None:
    """Make rows of a part invisible."""
    _append(store, [{"drop": {"part": name, "rows": sorted(int(row) for row in rows)}}])


def _append(store: str | Path, lines: Iterable[Mapping[str, Any]]) -> None:
    content = "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in lines).encode()
    if not content:
        return
    path = Path(store) / MANIFEST_NAME
    cut_torn_line(store)
    is_new = not path.exists()
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        flush(path.parent)


def cut_torn_line(store: str | Path) -> bool:
    """Cut off a last line that a killed process left unfinished; tell whether there was one."""
    path = Path(store) / MANIFEST_NAME
    try:
        with path.open("r+b") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            if file.read(1) == b"\n":
                return False
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            os.fsync(file.fileno())
    except FileNotFoundError:
        return False
    return True
