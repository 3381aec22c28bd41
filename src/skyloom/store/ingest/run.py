"""Files into a store: one task per part, each visible when it is whole, and a run that can be killed at any moment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from skyloom.core.execution import Outcome, run_items
from skyloom.errors import InputError
from skyloom.store.files.folder import PARTITIONS, read_settings, write_lock
from skyloom.store.files.manifest import FailureEntry, Manifest, PartEntry, append_failures, append_part
from skyloom.store.ingest.locate import Source
from skyloom.store.ingest.locating import located
from skyloom.store.ingest.partitions import Group, groups_of
from skyloom.store.ingest.recovery import Content, recover
from skyloom.store.ingest.sources import FileList, find_files, listed_files
from skyloom.store.ingest.write import Work, Written, write
from skyloom.store.schema import SCHEMA_VERSION, StoreSettings

__all__ = ["IngestResult", "Progress", "ingest", "part_name"]


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
            sources: Iterable[Source] = located(tuple(files), folder, workers, scheduler, failures)
            while sources:
                chosen, waiting = run.choose(sources, failures)
                run.store(chosen, workers, scheduler)
                sources, failures = run.settle(waiting), []
        finally:
            # After an interruption, too: without it a reader is slower, not wrong.
            from skyloom.store.files.master_writer import write_master

            write_master(folder)
    return run.result()


# --- what is to be done ---------------------------------------------------------------------------------------------


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
        self.shown: set[str] = set()

    def choose(
        self, sources: Iterable[Source], failures: list[FailureEntry]
    ) -> tuple[list[Source], list[tuple[Source, Source]]]:
        """Return the sources that are to be stored, and others, each with the one before it; tell of the rest.

        Of files for one name the first is stored. Those after it wait: if it cannot be used, the next one is.
        """
        chosen: dict[str, Source] = {}
        bases: dict[str, Source] = {}
        waiting: list[tuple[Source, Source]] = []
        for source in sources:
            first = chosen.get(source.digest) or bases.get(source.base)
            if first is not None:
                waiting.append((source, first))
                continue
            before = self.content.sources.get(source.digest)
            if before == source.name:
                self.skipped.append(source.path)
                self.tell(source.path)
                continue
            reason = ""
            if before is not None:
                reason = _same_content(before)
            elif not self.replace and source.base in self.content.rows:
                reason = _taken(source.base, self.content)
            if reason:
                failures.append(FailureEntry(source.path, reason, source.digest))
                self.tell(source.path)
            else:
                chosen[source.digest] = bases[source.base] = source
        self.fail(failures)
        self.total = self.done + len(chosen) + len(waiting)
        return list(chosen.values()), waiting

    def settle(self, waiting: Sequence[tuple[Source, Source]]) -> list[Source]:
        """Return which of those that waited for another source to be stored are wanted, for that one was not."""
        wanted = []
        failures = []
        for source, first in waiting:
            if first.digest not in self.shown:
                wanted.append(source)
                continue
            if source.digest != first.digest:
                reason = f"gives the observation {source.base}, and so does {first.path}, which is stored"
                failures.append(FailureEntry(source.path, reason, source.digest))
            elif source.name != first.name:
                failures.append(FailureEntry(source.path, _same_content(first.name), source.digest))
            else:
                self.skipped.append(source.path)
            self.tell(source.path)
        self.fail(failures)
        return wanted

    def store(self, sources: Sequence[Source], workers: int, scheduler: str | None) -> None:
        """Write the parts, and make each visible when it is finished."""
        tasks = {
            part_name(group, self.settings, self.known_parts): group.sources
            for group in groups_of(sources, self.settings)
        }
        alone = workers == 1 and scheduler is None
        store = str(self.folder.absolute())
        outcomes = run_items(
            write,
            Work(store, self.settings, self.options, self.tell if alone else None),
            tuple(tasks),
            details=tasks,
            workers=workers,
            scheduler=scheduler,
            local="dask",
        )
        # Closed when this is interrupted: workers must not go on writing behind an index that is being made.
        with closing(outcomes):
            for outcome in outcomes:
                self._take(outcome, tasks[outcome.item])
                if not alone:
                    for source in tasks[outcome.item]:
                        self.tell(source.path)

    def _take(self, outcome: Outcome[Written], sources: Sequence[Source]) -> None:
        written = outcome.result
        if written is None:
            self.fail([FailureEntry(source.path, outcome.failure, source.digest) for source in sources])
            return
        self.notes += written.notes
        failures = list(written.failures)
        if written.part is not None:
            failures += self._show(written.part, written.names, sources)
        self.fail(failures)

    def _show(
        self, part: PartEntry, names: Sequence[tuple[str, str, str]], sources: Sequence[Source]
    ) -> list[FailureEntry]:
        """Make a part visible, less what must not be; return what is to be said about that."""
        taken = [number for number, (obs_id, _, _) in enumerate(names) if obs_id in self.content.rows]
        drop: dict[str, list[int]] = {}
        failures = []
        paths = {source.digest: source.path for source in sources}
        if taken and self.replace:
            # A file that is replaced is replaced whole, also where the new one holds fewer observations.
            drop = self.content.rows_of(
                frozenset(self.content.rows[names[number][0]].source_digest for number in taken)
            )
        elif taken:
            drop = {part.name: taken}
            by_file: dict[str, list[str]] = {}
            for number in taken:
                by_file.setdefault(names[number][2], []).append(names[number][0])
            failures = [
                FailureEntry(paths[digest], _taken(own[0], self.content, len(own) - 1), digest)
                for digest, own in by_file.items()
            ]
            if len(taken) == len(names):
                # Nothing in it would be seen, and each further run would leave such a file.
                (self.folder / part.name).unlink(missing_ok=True)
                return failures
        hidden = frozenset(drop.get(part.name, ()))
        kept = {digest for number, (_, _, digest) in enumerate(names) if number not in hidden}
        # Of those that have failed before alone: the journal would name every file of the store.
        cleared = [paths[digest] for digest in kept if paths[digest] in self.failed]
        append_part(self.folder, part, cleared=cleared, drop=drop)
        self.content.drop(drop)
        self.content.add(part.name, names, hidden)
        self.shown |= kept
        self.parts.append(part)
        self.stored += [obs_id for number, (obs_id, _, _) in enumerate(names) if number not in hidden]
        return failures

    def fail(self, failures: Iterable[FailureEntry]) -> None:
        """Enter failures into the error table, those that stand there already not again."""
        failures = [failure.told_once() for failure in failures]
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


def part_name(group: Group, settings: StoreSettings, known: Container[str]) -> str:
    """Return the name of the file for some sources: always the same, unless it is among the known ones."""
    content = {
        "settings": settings.describe(),
        "schema": SCHEMA_VERSION,
        "sources": sorted([source.digest, source.base] for source in group.sources),
    }
    number = 0
    while True:
        # A part whose rows were replaced keeps its name; the same sources stored again need another one.
        text = json.dumps({**content, "number": number}, sort_keys=True)
        name = f"{PARTITIONS}/{group.place}/{hashlib.sha256(text.encode()).hexdigest()[:16]}.h5"
        if name not in known:
            return name
        number += 1


def _same_content(name: str) -> str:
    return f"has the same content as {name}, which is stored"


def _taken(obs_id: str, content: Content, others: int = 0) -> str:
    more = f" and {others} more, and {obs_id}" if others else ", which"
    return (
        f"gives the observation {obs_id}{more} is stored already from {content.rows[obs_id].source} with other"
        " content; ingest with replace to store this one instead"
    )
