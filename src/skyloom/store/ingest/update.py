"""One part of a store done again: its columns, its images, its spectra, or what links are found in.

As an ingest that replaces does it: what is new is written into files of its own, and becomes visible by the line in the
journal that hides what it replaces. So an update may be killed at any moment, and what it does not redo is not written.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from skyloom.core.execution import Outcome, run_items
from skyloom.errors import InputError
from skyloom.store.files.folder import read_settings, write_lock
from skyloom.store.files.manifest import FailureEntry, Manifest, PartEntry, append_part
from skyloom.store.ingest.locate import Source, base_name
from skyloom.store.ingest.locating import located
from skyloom.store.ingest.partitions import groups_of
from skyloom.store.ingest.recovery import Content, recover
from skyloom.store.ingest.run import Progress, part_name
from skyloom.store.ingest.sources import find_files
from skyloom.store.ingest.write import Work, Written, write
from skyloom.store.schema import StoreSettings

__all__ = ["KINDS", "PARTS", "StoredRow", "UpdateResult", "update"]

KINDS = {"images": frozenset({"image", "cube"}), "spectra": frozenset({"spectrum"})}
"""Observations that are read again from their sources."""
PARTS = ("metadata", *KINDS, "links", "dense")
"""What can be done again; ``dense``, which is a file of its own, by `skyloom.store.query.Store.update`."""


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What came of an update.

    Attributes
    ----------
    part : str
        One of `PARTS`.
    updated : tuple of str
        Names of the observations that were done again.
    removed : tuple of str
        Names of observations that their changed sources hold no more.
    n_unchanged : int
        Observations that were looked at and are as they were.
    failures : tuple of FailureEntry
        What could not be done again, with reasons; it stays in the store as it was.
    parts : tuple of PartEntry
        Files of the store that were made.
    notes : tuple of (str, str)
        Source, and what had to be repaired or assumed in it.
    n_links : int
        Of ``links``: pairs of a spectrum and an image that covers it.
    """

    part: str
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    n_unchanged: int = 0
    failures: tuple[FailureEntry, ...] = ()
    parts: tuple[PartEntry, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    n_links: int = 0


def update(
    store: str | Path,
    part: str,
    paths: Iterable[str | Path] = (),
    *,
    obs: Iterable[str] = (),
    replace: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> UpdateResult:
    """Do one part of a store again, and leave the others as they are.

    Parameters
    ----------
    store : str or path
        Folder of the store.
    part : {"metadata", "images", "spectra", "links"}
        ``metadata``: the columns, from the headers and planes that are stored; pixels are copied as they are, and what
        the stored headers do not tell stays as it was. ``images`` (cubes, too) and ``spectra``: read again from their
        sources, with all their levels. ``links``: the index in which they are found, from the parts.
    paths : iterable of str or path
        Of images and spectra: files, folders, patterns, among which their sources are. A source is known by its
        SHA-256; whatever else is there is left alone.
    obs : iterable of str
        Names of observations; none: all. Of a file with several, all are done again.
    replace : bool
        Take also a file that has been changed since it was stored: one of the same name, or that gives the same
        observation.
    workers, scheduler, options
        Of images and spectra; as for `skyloom.store.ingest.run.ingest`.
    progress : callable, optional
        See `skyloom.store.ingest.run.Progress`.

    Returns
    -------
    UpdateResult

    Raises
    ------
    InputError
        When there is no such part, it is a packed file, another process writes to the store, no source is given, or
        an observation is unknown.
    FileFormatError
        When there is no store, or it is damaged.
    """
    folder = Path(store)
    _check(folder, part, paths := tuple(paths))
    settings = read_settings(folder)
    files = find_files(paths)
    from skyloom.store.files.master_writer import write_master

    with write_lock(folder):
        manifest, content = recover(folder)
        job = Job(part, folder, settings, manifest, content, progress)
        try:
            if part == "links":
                return _links(job)
            rows = stored_rows(folder, manifest, KINDS.get(part), tuple(obs))
            if part == "metadata":
                from skyloom.store.ingest.columns import renew_columns

                renew_columns(job, rows)
            else:
                wanted = _wanted(rows)
                found = list(located(files, folder, workers, scheduler, job.failures))
                again = _Again(job, wanted)
                again.write(again.choose(found, replace), workers, scheduler, dict(options or {}))
        finally:
            # After an interruption, too: without it a reader is slower, not wrong.
            write_master(folder)
    return job.result()


def _check(folder: Path, part: str, paths: Sequence[str | Path]) -> None:
    if part not in PARTS or part == "dense":
        near = difflib.get_close_matches(part, PARTS, 1, 0.5)
        remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(PARTS)}"
        if part == "dense":
            remedy = "use Store.update, with the file of the dense cube"
        raise InputError(f"{part!r} cannot be updated here", field="part", remedy=remedy)
    if folder.is_file():
        raise InputError(
            "a packed file cannot be changed", source=folder, remedy="update the store, and pack it again"
        )
    if part in KINDS and not paths:
        raise InputError(
            f"{part} are read again from their sources, and no files are given",
            field="paths",
            remedy="name the files, or the folders they are in",
        )
    if part not in KINDS and paths:
        raise InputError(f"{part} need no source files", field="paths", remedy="leave the files out")


# --- what is stored -------------------------------------------------------------------------------------------------


class StoredRow(NamedTuple):
    """A visible observation."""

    obs_id: str
    kind: str
    part: str
    row: int
    source: str
    digest: str
    """SHA-256 of its source."""


def stored_rows(
    folder: Path, manifest: Manifest, kinds: frozenset[str] | None, obs: Sequence[str]
) -> list[StoredRow]:
    """Return the visible observations of some kinds (None: all), or those of the files that some of them came from."""
    from skyloom.store.files.master import read_catalogue

    catalogue = read_catalogue(folder, manifest)
    try:
        names = ("obs_id", "dataproduct_type", "source", "source_digest")
        texts = (catalogue.column(name).tolist() for name in names)
        places = zip(catalogue.part.tolist(), catalogue.row.tolist(), strict=True)
        rows = [
            StoredRow(obs_id, kind, catalogue.names[part], row, source, digest)
            for obs_id, kind, source, digest, (part, row) in zip(*texts, places, strict=True)
            if kinds is None or kind in kinds
        ]
    finally:
        catalogue.close()
    if not obs:
        return rows
    unknown = sorted(set(obs) - {row.obs_id for row in rows})
    if unknown:
        near = difflib.get_close_matches(unknown[0], [row.obs_id for row in rows[: 1 << 16]], 3, 0.5)
        raise InputError(
            f"there is no observation {unknown[0]!r} of this part",
            source=folder,
            field="obs",
            remedy=f"did you mean {', '.join(near)}?" if near else "look for it with 'skyloom store query'",
        )
    digests = {row.digest for row in rows if row.obs_id in set(obs)}
    return [row for row in rows if row.digest in digests]


def _wanted(rows: Iterable[StoredRow]) -> dict[str, list[StoredRow]]:
    """Sort observations by their sources."""
    wanted: dict[str, list[StoredRow]] = {}
    for row in rows:
        wanted.setdefault(row.digest, []).append(row)
    return wanted


# --- one update -----------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """One update, under the lock."""

    part: str
    folder: Path
    settings: StoreSettings
    manifest: Manifest
    content: Content
    progress: Progress | None
    total: int = 0
    done: int = 0
    updated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    n_unchanged: int = 0
    failures: list[FailureEntry] = field(default_factory=list)
    parts: list[PartEntry] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    n_links: int = 0

    def show(
        self, part: PartEntry, names: Sequence[tuple[str, str, str]], replaced: Iterable[StoredRow]
    ) -> list[int]:
        """Make a part visible, and what it replaces invisible, by one line; return the rows with names of others."""
        old = list(replaced)
        gone = {(row.part, row.row) for row in old}
        drop: dict[str, list[int]] = {}
        for name, number in gone:
            drop.setdefault(name, []).append(number)
        hidden = []
        for number, (obs_id, _, _) in enumerate(names):
            other = self.content.rows.get(obs_id)
            if other is not None and (other.part, other.row) not in gone:
                hidden.append(number)
        append_part(self.folder, part, drop=drop | ({part.name: hidden} if hidden else {}))
        self.content.drop(drop)
        self.content.add(part.name, names, frozenset(hidden))
        self.parts.append(part)
        shown = {obs_id for number, (obs_id, _, _) in enumerate(names) if number not in hidden}
        self.updated += shown
        self.removed += {row.obs_id for row in old} - shown
        return hidden

    def tell(self, item: str) -> None:
        """Tell that one more source, or observation, has been treated."""
        self.done += 1
        if self.progress is not None:
            self.progress(item, self.done, max(self.total, self.done))

    def result(self) -> UpdateResult:
        """Return what came of it, in an order that does not depend on who was faster."""
        return UpdateResult(
            self.part,
            tuple(sorted(self.updated)),
            tuple(sorted(self.removed)),
            self.n_unchanged,
            tuple(sorted(failure.told_once() for failure in self.failures)),
            tuple(sorted(self.parts)),
            tuple(sorted(set(self.notes))),
            self.n_links,
        )


def _links(job: Job) -> UpdateResult:
    """Make the index anew from the parts, whatever it held, and count what is found in it."""
    from skyloom.store.files.master import MASTER_NAME, read_catalogue
    from skyloom.store.files.master_writer import write_master
    from skyloom.store.search.links import find_links

    job.total = 2
    (job.folder / MASTER_NAME).unlink(missing_ok=True)
    write_master(job.folder)
    job.tell("index")
    catalogue = read_catalogue(job.folder, job.manifest)
    try:
        job.n_links = int(find_links(catalogue.index).image.size)
    finally:
        catalogue.close()
    job.tell("links")
    return job.result()


class _Again:
    """Observations that are read again from their sources.

    Parameters
    ----------
    job : Job
    wanted : mapping
        SHA-256 of a source -> the observations that came from it.
    """

    def __init__(self, job: Job, wanted: Mapping[str, list[StoredRow]]) -> None:
        self.job = job
        self.wanted = wanted
        # Of each file that is read: the observations that it replaces.
        self.replaced: dict[str, list[StoredRow]] = {}

    def choose(self, sources: Sequence[Source], replace: bool) -> list[Source]:
        """Return the files to read; what has no source among them is a failure."""
        exact: dict[str, Source] = {}
        named: dict[str, list[Source]] = {}
        for source in sources:
            stored = self.wanted.get(source.digest)
            if stored is None:
                named.setdefault(source.name, []).append(source)
                named.setdefault(source.base, []).append(source)
            elif source.digest not in exact or source.name == stored[0].source:
                exact[source.digest] = source
        chosen = []
        taken: dict[str, str] = {}
        for digest, rows in self.wanted.items():
            if digest in exact:
                chosen.append(exact[digest]._replace(base=_old_base(exact[digest], rows[0])))
                self.replaced[digest] = rows
                continue
            changed = _changed(rows, named)
            reason = _refusal(rows, changed, replace, taken)
            if reason:
                self.job.failures.append(FailureEntry(rows[0].source, reason, digest))
            else:
                taken[changed[0].digest] = rows[0].source
                chosen.append(changed[0])
                self.replaced[changed[0].digest] = rows
        return chosen

    def write(
        self, sources: Sequence[Source], workers: int, scheduler: str | None, options: dict[str, Any]
    ) -> None:
        """Write the parts, and make each visible when it is finished."""
        job = self.job
        known = {part.name for part in job.manifest.parts}
        tasks = {
            part_name(group, job.settings, known): group.sources for group in groups_of(sources, job.settings)
        }
        job.total = len(sources)
        alone = workers == 1 and scheduler is None
        store = str(job.folder.absolute())
        work = Work(store, job.settings, options, job.tell if alone else None, KINDS[job.part])
        outcomes = run_items(
            write, work, tuple(tasks), details=tasks, workers=workers, scheduler=scheduler, local="dask"
        )
        with closing(outcomes):
            for outcome in outcomes:
                self._take(outcome, tasks[outcome.item])
                if not alone:
                    for source in tasks[outcome.item]:
                        job.tell(source.path)

    def _take(self, outcome: Outcome[Written], sources: Sequence[Source]) -> None:
        written, job = outcome.result, self.job
        if written is None:
            job.failures += [FailureEntry(source.path, outcome.failure, source.digest) for source in sources]
            return
        job.notes += written.notes
        job.failures += written.failures
        given = {digest for _, _, digest in written.names}
        failed = {failure.digest for failure in written.failures}
        for source in sources:
            if source.digest not in given | failed:
                reason = f"holds no {job.part} now; what was stored from it stays"
                job.failures.append(FailureEntry(source.path, reason, source.digest))
        if written.part is None:
            return
        paths = {source.digest: source.path for source in sources}
        rows = [row for digest in given for row in self.replaced[digest]]
        for number in job.show(written.part, written.names, rows):
            obs_id, _, digest = written.names[number]
            reason = f"gives the observation {obs_id}, which is stored already from another file"
            job.failures.append(FailureEntry(paths[digest], reason, digest))


def _old_base(source: Source, row: StoredRow) -> str:
    """Return what the names of its observations began with: a file may have another name now."""
    if source.name == row.source or source.base != base_name(source.name, {}):
        return source.base
    return base_name(row.source, {})


def _changed(rows: Sequence[StoredRow], named: Mapping[str, list[Source]]) -> list[Source]:
    """Return files that may be what a source has become: of its name, else those that give its observation."""
    same_name = named.get(rows[0].source, [])
    if same_name:
        return same_name
    return list(dict.fromkeys(_of_observations(rows, named)))


def _of_observations(rows: Sequence[StoredRow], named: Mapping[str, list[Source]]) -> Iterator[Source]:
    for row in rows:
        # A file of several observations adds numbers, or bands, to its own name.
        pieces = row.obs_id.split("-")
        for end in range(len(pieces), 0, -1):
            base = "-".join(pieces[:end])
            yield from (source for source in named.get(base, ()) if source.base == base)


def _refusal(
    rows: Sequence[StoredRow], changed: Sequence[Source], replace: bool, taken: Mapping[str, str]
) -> str:
    """Return why a source that is not there as it was cannot be replaced by one of the files; empty where it can."""
    what = f"the source of {rows[0].obs_id}"
    if not changed:
        return f"{what} is not among the files; name the folder that it is in"
    if not replace:
        return f"{what} has been changed since it was stored: {changed[0].path}; replace takes it as it is"
    if len(changed) > 1:
        return f"{what} may be {changed[0].path} or {changed[1].path}; name one of them"
    if changed[0].digest in taken:
        return f"{what} may be {changed[0].path}, which replaces {taken[changed[0].digest]}"
    return ""
