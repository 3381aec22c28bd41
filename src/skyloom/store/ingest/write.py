"""One part of a store from its sources; what a worker does, on whatever machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from skyloom.core.execution import attempt
from skyloom.errors import InputError, SkyloomError
from skyloom.io.formats.atomic import flush
from skyloom.store.files.manifest import FailureEntry, PartEntry
from skyloom.store.ingest.locate import Source
from skyloom.store.observation import Observation
from skyloom.store.schema import StoreSettings

__all__ = ["Work", "Written", "write", "write_observations"]


@dataclass(frozen=True)
class Work:
    """What all tasks share."""

    store: str
    settings: StoreSettings
    options: Mapping[str, Any]
    tell: Any = None
    kinds: frozenset[str] | None = None
    """Of the observations that are stored; None: all."""


class Written(NamedTuple):
    """What a task has done."""

    part: PartEntry | None
    names: tuple[tuple[str, str, str], ...]
    failures: tuple[FailureEntry, ...]
    notes: tuple[tuple[str, str], ...]


def write(work: Work, name: str, sources: tuple[Source, ...]) -> Written:
    """Write one part; a source that cannot be used fails alone."""
    spoiled: list[FailureEntry] = []
    while True:
        stream = _Stream(work, sources)
        try:
            part = _write_stream(work, name, stream)
        except SkyloomError as error:
            if stream.current is None or len(sources) == 1:
                raise
            # What was to be written last cannot be; a part is written as a whole, so all begins again without it.
            culprit = stream.current
            spoiled.append(FailureEntry(culprit.path, str(error), culprit.digest))
            sources = tuple(source for source in sources if source is not culprit)
            continue
        return Written(part, tuple(stream.names), (*spoiled, *stream.failures), tuple(stream.notes))


def _write_stream(work: Work, name: str, stream: _Stream) -> PartEntry | None:
    """Write what comes; None when nothing does."""
    try:
        return write_observations(work.store, name, stream, work.settings)
    except OSError as error:
        stream.current = None
        path = Path(work.store) / name
        raise InputError(f"cannot be written: {error.strerror or error}", source=path) from error


def write_observations(
    store: str | Path, name: str, observations: Iterable[Observation], settings: StoreSettings
) -> PartEntry | None:
    """Write observations as they come into a part of a store, which is visible to nobody yet; None when none comes."""
    from skyloom.store.files.parts import write_part

    stream = iter(observations)
    head = list(islice(stream, 1))
    if not head:
        return None
    path = Path(store) / name
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name of the folder must be on the disk before the journal speaks of a file in it.
        flush(path.parent.parent)
    # A worker that died, or was given up, when it had finished has left the same under this name.
    summary = write_part(path, _joined(head, stream), settings, overwrite=True)
    return PartEntry(name, summary.n, summary.digest, summary.bytes)


def _joined(head: list[Observation], others: Iterator[Observation]) -> Iterator[Observation]:
    """Put the first one back before the others, keeping none of them in memory."""
    while head:
        yield head.pop()
    yield from others


class _Stream:
    """The observations of a task one after the other, and what became of its sources."""

    def __init__(self, work: Work, sources: Sequence[Source]) -> None:
        self.work = work
        self.sources = sources
        self.current: Source | None = None
        self.names: list[tuple[str, str, str]] = []
        self.failures: list[FailureEntry] = []
        self.notes: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[Observation]:
        known: set[str] = set()
        for source in self.sources:
            self.current = source
            outcome = attempt(self._prepare, source, source.path)
            self.notes += [(source.path, note) for note in outcome.notes]
            made, failure = self._wanted(outcome.result or []), outcome.failure
            double = next((item.obs_id for item in made if item.obs_id in known), None)
            if double is not None:
                failure = f"gives the observation {double}, and so does another file"
            if failure:
                self.failures.append(FailureEntry(source.path, failure, source.digest))
                made = []
            del outcome
            while made:
                item = made.pop(0)
                known.add(item.obs_id)
                self.names.append((item.obs_id, source.name, source.digest))
                yield item
                del item
            if self.work.tell is not None:
                self.work.tell(source.path)

    def _wanted(self, made: list[Observation]) -> list[Observation]:
        kinds = self.work.kinds
        return made if kinds is None else [item for item in made if item.kind in kinds]

    def _prepare(self, source: Source, _: str) -> list[Observation]:
        from skyloom.store.ingest.prepare import prepare

        return prepare(source, self.work.settings, options=self.work.options)
