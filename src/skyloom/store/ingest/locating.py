"""Where files belong, found out by threads here or by the workers of a scheduler, in an order of its own."""

from __future__ import annotations

import os
import secrets
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from skyloom.core.execution import reason_of, run_items
from skyloom.store.files.folder import PARTITIONS, SETTINGS_NAME
from skyloom.store.files.manifest import FailureEntry
from skyloom.store.ingest.locate import Source, locate

__all__ = ["located"]

BATCH = 16
"""Files that a worker locates at a time."""
SAMPLE = 16
"""Files that every worker has to see before the work begins."""


def located(
    files: Sequence[Path], store: Path, workers: int, scheduler: str | None, failures: list[FailureEntry]
) -> Iterator[Source]:
    """Yield where files belong, in the order of their names, so that it matters not how they were given.

    Parameters
    ----------
    files : sequence of path
    store : path
        Which the workers of a scheduler have to see.
    workers : int
        Threads, without a scheduler.
    scheduler : str or None
        Address of a Dask scheduler whose workers read the files; what they cannot do is told before they begin.
    failures : list of FailureEntry
        What cannot be located is added here.

    Raises
    ------
    InputError
        When the workers of the scheduler do not see the files or the store.
    """
    ordered = [str(path) for path in sorted(files, key=lambda path: (path.name, str(path)))]
    for found in _here(ordered, workers) if scheduler is None else _elsewhere(ordered, store, scheduler):
        if isinstance(found, FailureEntry):
            failures.append(found)
        else:
            yield found


def _here(paths: Sequence[str], workers: int) -> Iterator[Source | FailureEntry]:
    # Hashing and decompression let other threads work. Parsing a WCS changes the filters of warnings for a moment; all
    # threads share them and put them back in any order, so that this has to be done once more at the end.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        yield from pool.map(_locate, paths)


def _locate(path: str) -> Source | FailureEntry:
    """Locate a file, or tell why not; warnings are left alone, for those are no matter of single threads."""
    try:
        return locate(path)
    except Exception as error:  # noqa: BLE001  one file must not take the others down
        return FailureEntry(path, reason_of(error), "")


# --- on other machines ------------------------------------------------------------------------------------------------


class _Needed(NamedTuple):
    """What every worker has to see."""

    store: str
    probe: str
    """Name of a file that lies in the store now, and in no other one."""
    files: tuple[str, ...]


def _elsewhere(paths: Sequence[str], store: Path, scheduler: str) -> Iterator[Source | FailureEntry]:
    batches = {str(first): paths[first : first + BATCH] for first in range(0, len(paths), BATCH)}
    found: dict[str, list[Source | FailureEntry]] = {}
    with _probe(store) as probe:
        sample = tuple(paths[:: max(1, len(paths) // SAMPLE)])
        needed = _Needed(str(store.absolute()), probe, sample)
        for outcome in run_items(
            _locate_batch, needed, tuple(batches), details=batches, scheduler=scheduler, check=_unseen
        ):
            found[outcome.item] = (
                [FailureEntry(path, outcome.failure, "") for path in batches[outcome.item]]
                if outcome.result is None
                else outcome.result
            )
    for batch in batches:
        yield from found.pop(batch)


def _locate_batch(_: _Needed, __: str, paths: Sequence[str]) -> list[Source | FailureEntry]:
    return [_locate(path) for path in paths]


@contextmanager
def _probe(store: Path) -> Iterator[str]:
    """Lay a file into the store by which workers know it from another store of the same name."""
    path = store / f".probe.{os.getpid()}.{secrets.token_hex(4)}"
    path.touch()
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)


def _unseen(needed: _Needed) -> str:
    """Return what a worker does not see, or cannot write; called there."""
    store = Path(needed.store)
    if not (store / SETTINGS_NAME).is_file():
        return f"does not see the store {store}"
    if not (store / needed.probe).exists():
        return f"sees another store as {store}"
    try:
        with tempfile.TemporaryFile(dir=store / PARTITIONS):
            pass
    except OSError as error:
        return f"cannot write to the store {store}: {error.strerror or error}"
    unseen = [path for path in needed.files if not Path(path).is_file()]
    return f"does not see the file {unseen[0]}" if unseen else ""
