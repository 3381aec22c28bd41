"""Files into a store: one task per part, each visible when it is whole, and a run that can be killed at any moment."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from skyloom.core.execution import Outcome, attempt, reason_of, run_items
from skyloom.errors import InputError, SkyloomError
from skyloom.io.atomic import flush
from skyloom.store.files.folder import PARTITIONS, read_settings, write_lock
from skyloom.store.files.manifest import FailureEntry, Manifest, PartEntry, append_failures, append_part
from skyloom.store.ingest.locate import Source, locate
from skyloom.store.ingest.recovery import Content, recover
from skyloom.store.ingest.sources import FileList, find_files, listed_files
from skyloom.store.observation import Observation
from skyloom.store.schema import SCHEMA_VERSION, StoreSettings

__all__ = ["IngestResult", "Progress", "ingest"]

STORED_BYTES = 12
"""Of a number in a source: value, variance, mask and counts, and a third more for the levels."""


class Progress(Protocol):
    """Called when sources have been treated."""

    def __call__(self, item: str, done: int, total: int) -> None:
        """Tell that ``done`` of ``total`` sources are treated, ``item`` the last."""


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What came of an ingest.

    Attributes
    ----------
    stored : tuple of str
        Names of the observations that are new in the store.
    skipped : tuple of str
        Sources that were stored already.
    failures : tuple of FailureEntry
        Sources of this run that could not be stored, with their reasons.
    parts : tuple of PartEntry
        Files of the store that this run has made.
    notes : tuple of (str, str)
        Source, and what had to be repaired or assumed in it.
    """

    stored: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    failures: tuple[FailureEntry, ...] = ()
    parts: tuple[PartEntry, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


def ingest(
    store: str | Path,
    paths: Iterable[str | Path] = (),
    *,
    lists: Iterable[FileList] = (),
    workers: int = 1,
    scheduler: str | None = None,
    replace: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> IngestResult:
    """Store files; what is stored already is skipped, what cannot be stored is listed with its reason.

    Parameters
    ----------
    store : str or path
        Folder of the store.
    paths : iterable of str or path
        Files, folders, patterns with wildcards; see `skyloom.store.ingest.sources.find_files`.
    lists : iterable of FileList
        Tables that name frames or spectra by their numbers.
    workers : int
        Processes (Dask workers on this machine); 1 works in this one.
    scheduler : str, optional
        Address of a Dask scheduler whose workers are used instead; they must see the files and the store.
    replace : bool
        Store a file whose observations have names that are taken, instead of what is there. Without it, such a file
        is a failure. Parts that are missing or damaged are given up then, so that their sources are stored again.
    options : mapping, optional
        For the readers, e.g. ``{"unit": "electron/s"}``.
    progress : callable, optional
        See `Progress`.

    Raises
    ------
    InputError
        When there is no store, another process writes to it, or no file is found. A file that cannot be stored
        raises nothing.

    Notes
    -----
    A part becomes visible by one line in the journal, after it has been written and flushed under another name. A run
    that is killed leaves a consistent store; the next one takes in what had been finished. What is stored depends
    neither on the order of the files nor on the number of workers.
    """
    folder = Path(store)
    settings = read_settings(folder)
    files: dict[Path, None] = dict.fromkeys(find_files(paths))
    failures: list[FailureEntry] = []
    for listing in lists:
        found, missing = listed_files(listing)
        files |= dict.fromkeys(found)
        failures += [FailureEntry(item.source, item.reason, "") for item in missing]
    if not files and not failures:
        raise InputError("no files are given", field="paths", remedy="name files, folders or a list")
    with write_lock(folder):
        manifest, content = recover(folder, give_up=replace)
        run = _Run(folder, settings, manifest, content, replace, dict(options or {}), progress, len(files))
        try:
            sources = run.choose(_located(tuple(files), workers, failures), failures)
            run.store(sources, workers, scheduler)
        finally:
            # After an interruption, too: without it a reader is slower, not wrong.
            from skyloom.store.files.master_writer import write_master

            write_master(folder)
    return run.result()


def _located(files: Sequence[Path], workers: int, failures: list[FailureEntry]) -> Iterator[Source]:
    """Yield where files belong, in the order of their names, so that it matters not how they were given."""
    ordered = sorted(files, key=lambda path: (path.name, str(path)))
    # Hashing and decompression let other threads work. Parsing a WCS changes the filters of warnings for a moment; all
    # threads share them and put them back in any order, so that this has to be done once more at the end.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        for found in pool.map(_locate, map(str, ordered)):
            if isinstance(found, FailureEntry):
                failures.append(found)
            else:
                yield found


def _locate(path: str) -> Source | FailureEntry:
    """Locate a file, or tell why not; warnings are left alone, for those are no matter of single threads."""
    try:
        return locate(path)
    except Exception as error:  # noqa: BLE001  one file must not take the others down
        return FailureEntry(path, reason_of(error), "")


# --- what is to be done ---------------------------------------------------------------------------------------------


class _Task(NamedTuple):
    """A part that is to be written."""

    name: str
    sources: tuple[Source, ...]


@dataclass
class _Run:
    """One ingest, under the lock."""

    folder: Path
    settings: StoreSettings
    manifest: Manifest
    content: Content
    replace: bool
    options: dict[str, Any]
    progress: Progress | None
    total: int
    done: int = 0
    stored: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[FailureEntry] = field(default_factory=list)
    parts: list[PartEntry] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Made once: what is done for a part must not grow with what the store holds.
        self.known_failures = frozenset(self.manifest.failures)
        self.known_parts = frozenset(part.name for part in self.manifest.parts)
        self.failed = {failure.source for failure in self.manifest.failures}

    def choose(self, sources: Iterable[Source], failures: list[FailureEntry]) -> list[Source]:
        """Return the sources that are to be stored; tell of the others."""
        chosen: dict[str, Source] = {}
        bases: dict[str, Source] = {}
        for source in sources:
            before = self.content.sources.get(source.digest)
            twin = chosen.get(source.digest)
            if before == source.name or (twin is not None and twin.name == source.name):
                self.skipped.append(source.path)
                self.tell(source.path)
                continue
            reason = ""
            if before is not None or twin is not None:
                other = before if twin is None else twin.name
                reason = f"has the same content as {other}, which is stored"
            elif source.base in bases:
                reason = f"gives the observation {source.base}, and so does {bases[source.base].path}"
            elif not self.replace and source.base in self.content.rows:
                reason = _taken(source.base, self.content)
            if reason:
                failures.append(FailureEntry(source.path, reason, source.digest))
                self.tell(source.path)
            else:
                chosen[source.digest] = bases[source.base] = source
        self.fail(failures)
        self.total = self.done + len(chosen)
        return list(chosen.values())

    def store(self, sources: Sequence[Source], workers: int, scheduler: str | None) -> None:
        """Write the parts, and make each visible when it is finished."""
        tasks = {task.name: task for task in self._tasks(sources)}
        alone = workers == 1 and scheduler is None
        work = _Work(
            str(self.folder.absolute()), self.settings, tasks, self.options, self.tell if alone else None
        )
        names = tuple(tasks)
        outcomes = run_items(_write, work, names, workers=workers, scheduler=scheduler, local="dask")
        # Closed when this is interrupted: workers must not go on writing behind an index that is being made.
        with closing(outcomes):
            for outcome in outcomes:
                self._take(outcome, tasks[outcome.item])
                if not alone:
                    for source in tasks[outcome.item].sources:
                        self.tell(source.path)

    def _tasks(self, sources: Sequence[Source]) -> Iterator[_Task]:
        """Sort sources into parts: by their cell, and not more into one than its size allows."""
        from skyloom.store.search.cells import POSITION_ORDER, healpix_of

        if not sources:
            return
        order = self.settings.partition_order
        finest = healpix_of([source.ra for source in sources], [source.dec for source in sources])
        sources = [source._replace(cell=int(own)) for source, own in zip(sources, finest, strict=True)]
        cells = np.where(finest < 0, -1, finest >> 2 * (POSITION_ORDER - order))
        by_cell = np.argsort(cells, kind="stable")
        for numbers in np.split(by_cell, np.flatnonzero(np.diff(cells[by_cell])) + 1):
            cell = cells[numbers[0]]
            group: list[Source] = []
            size = 0
            for source in (sources[number] for number in numbers.tolist()):
                if group and size + source.n_pixels * STORED_BYTES > self.settings.part_bytes:
                    yield self._task(int(cell), group)
                    group, size = [], 0
                group.append(source)
                size += source.n_pixels * STORED_BYTES
            yield self._task(int(cell), group)

    def _task(self, cell: int, sources: Sequence[Source]) -> _Task:
        place = "nowhere" if cell < 0 else f"{self.settings.partition_order}-{cell}"
        content = {
            "settings": self.settings.describe(),
            "schema": SCHEMA_VERSION,
            "sources": sorted([source.digest, source.base] for source in sources),
        }
        number = 0
        while True:
            # A part whose rows were replaced keeps its name; the same sources stored again need another one.
            text = json.dumps({**content, "number": number}, sort_keys=True)
            name = f"{PARTITIONS}/{place}/{hashlib.sha256(text.encode()).hexdigest()[:16]}.h5"
            if name not in self.known_parts:
                return _Task(name, tuple(sources))
            number += 1

    def _take(self, outcome: Outcome[_Written], task: _Task) -> None:
        written = outcome.result
        if written is None:
            self.fail([FailureEntry(source.path, outcome.failure, source.digest) for source in task.sources])
            return
        self.notes += written.notes
        failures = list(written.failures)
        if written.part is not None:
            failures += self._show(written.part, written.names, task)
        self.fail(failures)

    def _show(
        self, part: PartEntry, names: Sequence[tuple[str, str, str]], task: _Task
    ) -> list[FailureEntry]:
        """Make a part visible, less what must not be; return what is to be said about that."""
        taken = [number for number, (obs_id, _, _) in enumerate(names) if obs_id in self.content.rows]
        drop: dict[str, list[int]] = {}
        failures = []
        paths = {source.digest: source.path for source in task.sources}
        if taken and self.replace:
            # A file that is replaced is replaced whole, also where the new one holds fewer observations.
            drop = self.content.rows_of(
                frozenset(self.content.rows[names[number][0]].source_digest for number in taken)
            )
        elif taken:
            drop = {part.name: taken}
            failures = [
                FailureEntry(
                    paths[names[number][2]], _taken(names[number][0], self.content), names[number][2]
                )
                for number in taken
            ]
        hidden = frozenset(drop.get(part.name, ()))
        kept = {digest for number, (_, _, digest) in enumerate(names) if number not in hidden}
        # Of those that have failed before alone: the journal would name every file of the store.
        cleared = [paths[digest] for digest in kept if paths[digest] in self.failed]
        append_part(self.folder, part, cleared=cleared, drop=drop)
        self.content.drop(drop)
        self.content.add(part.name, names, hidden)
        self.parts.append(part)
        self.stored += [obs_id for number, (obs_id, _, _) in enumerate(names) if number not in hidden]
        return failures

    def fail(self, failures: Iterable[FailureEntry]) -> None:
        """Enter failures into the error table, those that stand there already not again."""
        failures = list(failures)
        append_failures(self.folder, [failure for failure in failures if failure not in self.known_failures])
        self.failures += failures
        self.failed |= {failure.source for failure in failures}

    def tell(self, item: str) -> None:
        """Tell that one more source has been treated."""
        self.done += 1
        if self.progress is not None:
            self.progress(item, self.done, self.total)

    def result(self) -> IngestResult:
        """Return what came of it, in an order that does not depend on who was faster."""
        return IngestResult(
            tuple(sorted(self.stored)),
            tuple(self.skipped),
            tuple(sorted(self.failures)),
            tuple(sorted(self.parts)),
            tuple(sorted(set(self.notes))),
        )


def _taken(obs_id: str, content: Content) -> str:
    return (
        f"gives the observation {obs_id}, which is stored already from {content.rows[obs_id].source} with other"
        " content; ingest with replace to store this one instead"
    )


# --- in a worker ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """What all tasks share."""

    store: str
    settings: StoreSettings
    tasks: Mapping[str, _Task]
    options: Mapping[str, Any]
    tell: Any = None


class _Written(NamedTuple):
    """What a task has done."""

    part: PartEntry | None
    names: tuple[tuple[str, str, str], ...]
    failures: tuple[FailureEntry, ...]
    notes: tuple[tuple[str, str], ...]


def _write(work: _Work, name: str) -> _Written:
    """Write one part; a source that cannot be used fails alone."""
    sources = work.tasks[name].sources
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
        return _Written(part, tuple(stream.names), (*spoiled, *stream.failures), tuple(stream.notes))


def _write_stream(work: _Work, name: str, stream: _Stream) -> PartEntry | None:
    """Write what comes; None when nothing does."""
    from skyloom.store.files.parts import write_part

    observations = iter(stream)
    head = list(islice(observations, 1))
    if not head:
        return None
    path = Path(work.store) / name
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            # The name of the folder must be on the disk before the journal speaks of a file in it.
            flush(path.parent.parent)
        summary = write_part(path, _joined(head, observations), work.settings)
    except OSError as error:
        stream.current = None
        raise InputError(f"cannot be written: {error.strerror or error}", source=path) from error
    return PartEntry(name, summary.n, summary.digest, summary.bytes)


def _joined(head: list[Observation], others: Iterator[Observation]) -> Iterator[Observation]:
    """Put the first one back before the others, keeping none of them in memory."""
    while head:
        yield head.pop()
    yield from others


class _Stream:
    """The observations of a task one after the other, and what became of its sources."""

    def __init__(self, work: _Work, sources: Sequence[Source]) -> None:
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
            made, failure = outcome.result or [], outcome.failure
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

    def _prepare(self, source: Source, _: str) -> list[Observation]:
        from skyloom.store.ingest.prepare import prepare

        return prepare(source, self.work.settings, options=self.work.options)
