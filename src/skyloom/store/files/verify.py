"""Is everything in a store what was put there? Digests are computed again from what the files hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.table import QTable

from skyloom.errors import FileFormatError, InputError
from skyloom.store.files.digests import digest_of_part, observation_digest
from skyloom.store.files.manifest import Manifest, PartEntry
from skyloom.store.files.part_reader import PartReader
from skyloom.store.schema import COLUMNS

__all__ = ["Problem", "check_observation", "check_part", "verify"]


class Problem(NamedTuple):
    """What is wrong with a part, or with one observation in it."""

    part: str
    obs_id: str
    """Empty where the whole part is concerned."""
    problem: str


def verify(path: str | Path, *, progress: Callable[[str], None] | None = None) -> QTable:
    """Compare all that a store holds with the digests that were computed when it was written.

    Parameters
    ----------
    path : str or path
        Folder of a store, or a packed file.
    progress : callable, optional
        Called with the name of each part before it is looked at.

    Returns
    -------
    QTable
        One row per problem: ``part``, ``obs_id`` (empty: the part itself), ``problem``. Empty when all is well.

    Raises
    ------
    InputError
        When there is no store.
    FileFormatError
        When the journal is damaged.
    """
    path = Path(path)
    problems: list[Problem] = []
    if path.is_file():
        if progress is not None:
            progress(path.name)
        problems += check_part(path, path.name)
    elif path.is_dir():
        for entry in Manifest.read(path).visible_parts:
            if progress is not None:
                progress(entry.name)
            problems += check_part(path / entry.name, entry.name, entry)
    else:
        raise InputError("there is no store", source=path, remedy="check the path")
    columns = zip(*problems, strict=True) if problems else ((), (), ())
    return QTable(
        {name: np.array(column, dtype=str) for name, column in zip(Problem._fields, columns, strict=True)}
    )


def check_part(path: Path, name: str, entry: PartEntry | None = None) -> Iterator[Problem]:
    """Yield the problems of one part.

    Parameters
    ----------
    path : path
        Of its file.
    name : str
        How to call it.
    entry : PartEntry, optional
        What the journal says of it.
    """
    if not path.is_file():
        yield Problem(name, "", "the file is missing")
        return
    size = path.stat().st_size
    if entry is not None and size != entry.bytes:
        yield Problem(name, "", f"the file has {size} bytes; it was written with {entry.bytes}")
    try:
        with PartReader(path) as reader:
            yield from _check_digests(reader, name, entry)
    except FileFormatError as error:
        yield Problem(name, "", error.message)


def _check_digests(reader: PartReader, name: str, entry: PartEntry | None) -> Iterator[Problem]:
    if entry is not None and len(reader) != entry.n:
        yield Problem(name, "", f"it holds {len(reader)} observations; the journal says {entry.n}")
    written = digest_of_part(zip(reader.obs_ids, reader.column("digest").tolist(), strict=True))
    if written != (reader.digest if entry is None else entry.digest):
        yield Problem(name, "", "the digests of its observations are not those that were written")
    for number, obs_id in enumerate(reader.obs_ids):
        problem = check_observation(reader, number)
        if problem:
            yield Problem(name, obs_id, problem)


def check_observation(reader: PartReader, obs: str | int) -> str:
    """Return what is wrong with one observation of an open part; empty when nothing is."""
    number = reader.number(obs)
    try:
        columns = {name: reader.column(name)[number].item() for name in COLUMNS}
        computed = observation_digest(columns, reader.header(number), dict(reader.stored_levels(number)))
    except FileFormatError as error:
        return error.message
    if computed != columns["digest"]:
        return f"its content has the digest {computed[:16]}; it was written with {columns['digest'][:16]}"
    return ""
