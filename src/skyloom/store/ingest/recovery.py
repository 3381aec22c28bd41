"""What a killed ingest has left in a store."""

from __future__ import annotations

import os
from pathlib import Path

from skyloom.errors import FileFormatError, SkyloomError
from skyloom.io.formats.atomic import remove_leftovers
from skyloom.store.files.folder import PARTITIONS
from skyloom.store.files.manifest import Manifest, PartEntry, append_drop, append_part, cut_torn_line
from skyloom.store.files.master import open_master, part_keys
from skyloom.store.files.part_reader import PartReader
from skyloom.store.ingest.content import Content, Row

__all__ = ["Content", "Row", "recover"]

_NAMES = ("obs_id", "source", "source_digest")


def recover(store: Path, *, give_up: bool = False) -> tuple[Manifest, Content]:
    """Clear a store of what a killed ingest has left unfinished, and take in what it had finished.

    A file that was completed but not entered into the journal is entered now, unless something in it is stored
    already (it was to replace that: its sources are ingested again). Files that were not completed are removed, and
    those of which everything has been replaced by an earlier run: until now readers may have had them in use.

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
    sizes = _files(store)
    content = Content(open_master(store), part_keys(manifest))
    for part in manifest.visible_parts:
        is_known = part.name in content.covered
        if is_known and sizes.get(part.name) == part.bytes and not give_up:
            # The index tells what is in it: a store of many parts is not read whole to add one.
            continue
        try:
            names = _names(store / part.name)[1]
        except FileFormatError as error:
            if not give_up:
                remedy = "restore it from a copy, or ingest with replace: that gives up what was in it"
                raise FileFormatError(error.message, source=error.source, remedy=remedy) from error
            append_drop(store, part.name, range(part.n))
            content.drop({part.name: range(part.n)})
            continue
        if not is_known:
            content.add(part.name, names, manifest.dropped.get(part.name, frozenset()))
    known = {part.name for part in manifest.parts}
    for name in sorted(sizes.keys() - known):
        _adopt(store, name, manifest, content)
    _remove_replaced(store, sizes, manifest, content)
    return Manifest.read(store), content


def _files(store: Path) -> dict[str, int]:
    """Return the sizes of all complete files of partitions, after those that were not completed are removed."""
    sizes = {}
    for folder in [entry for entry in os.scandir(store / PARTITIONS) if entry.is_dir()]:
        remove_leftovers(Path(folder.path))
        for entry in os.scandir(folder.path):
            if entry.name.endswith(".h5") and not entry.name.startswith("."):
                sizes[f"{PARTITIONS}/{folder.name}/{entry.name}"] = entry.stat().st_size
    return sizes


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


def _remove_replaced(store: Path, sizes: dict[str, int], manifest: Manifest, content: Content) -> None:
    """Remove the files of which each observation stands in another file by now.

    What was given up, because it is damaged or its source has it no more, stays: nothing else holds it.
    """
    visible = {part.name for part in manifest.visible_parts}
    for part in manifest.parts:
        if part.name in visible or sizes.get(part.name) != part.bytes:
            continue
        try:
            names = _names(store / part.name)[1]
        except SkyloomError:
            continue
        if all(obs_id in content.rows for obs_id, _, _ in names):
            (store / part.name).unlink()


def _names(path: Path) -> tuple[str, list[tuple[str, str, str]]]:
    """Return the digest of a part, and name, source and digest of the source of each row."""
    with PartReader(path) as reader:
        columns = reader.columns(_NAMES)
        names = list(zip(*(columns[key].tolist() for key in _NAMES), strict=True))
        return reader.digest, names
