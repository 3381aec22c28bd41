"""The columns of what is stored, computed anew from the headers and the planes that are stored with it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from skyloom._version import __version__
from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.errors import FileFormatError, InputError, SkyloomError
from skyloom.io.formats.cards import Header, parse_header
from skyloom.store.files.digests import column_value
from skyloom.store.files.manifest import FailureEntry
from skyloom.store.files.part_reader import PartReader
from skyloom.store.files.verify import check_observation
from skyloom.store.ingest.locate import Source
from skyloom.store.ingest.prepare import columns_of
from skyloom.store.ingest.write import write_observations
from skyloom.store.observation import Observation
from skyloom.store.schema import COLUMNS

if TYPE_CHECKING:
    from skyloom.store.ingest.update import Job, StoredRow

__all__ = ["headers_of", "renew_columns", "stored_columns"]

_OF_FILE = frozenset(
    {
        "obs_id",
        "source",
        "source_digest",
        "access_estsize",
        "n_levels",
        "n_good",
        "o_unit",
        "digest",
        "version",
    }
)
"""What follows from the source file, or from planes that stay as they are."""
_OF_STORE = frozenset({"rescale", "quantise"})
"""Steps of the history that were made on the way into the store."""


def renew_columns(job: Job, rows: Sequence[StoredRow]) -> None:
    """Compute the columns of observations anew; those that differ are copied, with their planes, into new parts.

    An observation whose planes are not what was written is a failure: its new digest would hide that.
    """
    job.total = len(rows)
    of_part: dict[str, list[StoredRow]] = {}
    for row in rows:
        of_part.setdefault(row.part, []).append(row)
    for part, own in of_part.items():
        done: list[StoredRow] = []
        name = _part_name(job, part, own)
        with PartReader(job.folder / part) as reader:
            try:
                entry = write_observations(job.folder, name, _renewed(job, reader, own, done), job.settings)
            except OSError as error:
                reason = f"cannot be written: {error.strerror or error}"
                raise InputError(reason, source=job.folder / name) from error
        if entry is not None:
            job.show(entry, [(row.obs_id, row.source, row.digest) for row in done], done)


def _part_name(job: Job, part: str, rows: Sequence[StoredRow]) -> str:
    """Return the name of the part for what is copied from another one, in the same partition."""
    known = {entry.name for entry in job.manifest.parts}
    number = 0
    while True:
        text = json.dumps([__version__, part, sorted(row.row for row in rows), number])
        name = str(PurePosixPath(part).with_name(f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.h5"))
        if name not in known:
            return name
        number += 1


def _renewed(
    job: Job, reader: PartReader, rows: Sequence[StoredRow], done: list[StoredRow]
) -> Iterator[Observation]:
    """Yield the observations whose columns have other values now, and note them in ``done``."""
    for row in sorted(rows, key=lambda row: row.row):
        try:
            made = _renewed_one(reader, row.row)
        except SkyloomError as error:
            job.failures.append(FailureEntry(row.obs_id, str(error), row.digest))
        else:
            job.n_unchanged += made is None
            if made is not None:
                done.append(row)
                yield made
        job.tell(row.obs_id)


def _renewed_one(reader: PartReader, number: int) -> Observation | None:
    old = {name: reader.column(name)[number].item() for name in COLUMNS}
    new = stored_columns(reader, number)
    if all(_is_same(new[name], old[name]) for name in COLUMNS if name not in _OF_FILE):
        return None
    problem = check_observation(reader, number)
    if problem:
        raise FileFormatError(
            problem, source=reader.path, remedy="update the images, or spectra, from their sources"
        )
    return replace(reader.observation(number), columns=new | {"version": __version__})


def stored_columns(reader: PartReader, number: int) -> dict[str, Any]:
    """Return the columns of a stored observation as they would be computed now; pixels of images are not read.

    What the stored header does not tell, because it stood in an extension of the file that is not kept, stays as it is.
    """
    old = {name: reader.column(name)[number].item() for name in COLUMNS}
    kind = reader.kind(number)
    place = Source("", old["source"], old["source_digest"], 0, old["obs_id"], math.nan, math.nan, 0, 0)
    headers = headers_of(reader.header(number))
    made = columns_of(old["obs_id"], kind, _subject(reader, number), place, headers)
    values = {name: column_value(name, made[name]) for name in COLUMNS}
    return {
        name: old[name] if name in _OF_FILE or _is_unknown(values[name]) else values[name] for name in COLUMNS
    }


def _subject(reader: PartReader, number: int) -> Image | Cube | Spectra:
    """Return an observation as its reader gave it; of an image all but the pixels."""
    kind = reader.kind(number)
    subject: Any
    if kind == "spectrum":
        subject = reader.spectrum(number)
    elif kind == "cube":
        subject = reader.cube(number)
    else:
        shape = reader.shape(number)
        corner = reader.image(number, 0, (slice(0, 1), slice(0, 1)))
        planes = {"data": np.float32(0), "variance": np.float32(1), "mask": np.bool_(False)}
        empty: dict[str, Any] = {name: np.broadcast_to(value, shape) for name, value in planes.items()}
        subject = corner.evolve_checked(**empty, flags=None, modes=(), wcs=reader.wcs(number))
    history = tuple(step for step in subject.history if step.name not in _OF_STORE)
    return subject.evolve_checked(history=history)  # type: ignore[no-any-return]


def headers_of(text: str) -> tuple[Header, ...]:
    """Return the headers of a text of one card per line, each of which ends with END."""
    headers = []
    cards = b""
    for line in text.splitlines():
        if line == "END":
            headers.append(parse_header(cards))
            cards = b""
        else:
            cards += line.encode("latin-1", "replace")[:80].ljust(80)
    return tuple(headers)


def _is_unknown(value: Any) -> bool:
    return math.isnan(value) if isinstance(value, float) else value in ("", -1)


def _is_same(one: Any, other: Any) -> bool:
    return one == other or (_is_unknown(one) and _is_unknown(other))
