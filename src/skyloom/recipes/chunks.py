"""Work over many rows, done in chunks that each leave a file: what was finished before an interruption is kept."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.execution import run_items
from skyloom.errors import AssumptionWarning, InputError
from skyloom.io.formats.atomic import atomic_path

__all__ = ["ChunkPlan", "Chunks", "do_chunks", "from_text", "read_chunk", "to_text", "write_chunk"]

Arrays = dict[str, NDArray[Any]]
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True)
class Chunks:
    """Files of finished chunks, in the order of their rows."""

    paths: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Rows of a chunk; the last one may have fewer."""
        first, last = self.paths[0].stem.split("_")[-2:]
        return int(last) - int(first)

    def __iter__(self) -> Iterator[tuple[slice, Arrays]]:
        """Yield the rows of each chunk and its arrays, one chunk in memory at a time."""
        for path in self.paths:
            content = read_chunk(path)
            first, last = content.pop("rows")
            yield slice(int(first), int(last)), content


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """How rows are spread over files.

    Attributes
    ----------
    folder : Path
        Where the files go; it exists.
    name : str
        Of the stage.
    digest : str
        Of everything that decides the result; files of another one are not taken for this one's.
    n_rows : int
    size : int
        Rows of a chunk.
    """

    folder: Path
    name: str
    digest: str
    n_rows: int
    size: int

    @property
    def items(self) -> list[str]:
        """Names of the chunks: their first and last row."""
        starts = range(0, self.n_rows, self.size)
        return [f"{start}-{min(start + self.size, self.n_rows)}" for start in starts]

    @staticmethod
    def rows(item: str) -> slice:
        """Rows of a chunk."""
        first, last = item.split("-")
        return slice(int(first), int(last))

    def path(self, item: str) -> Path:
        """File of a chunk."""
        rows = self.rows(item)
        return self.folder / f"{self.name}_{self.digest[:12]}_{rows.start:07d}_{rows.stop:07d}.npz"

    def is_done(self, item: str) -> bool:
        """Whether a chunk is there and whole."""
        path = self.path(item)
        if not path.is_file():
            return False
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        except _DAMAGED:
            return False


def write_chunk(path: Path, rows: slice, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of a chunk; the file appears when it is complete."""
    with atomic_path(path, overwrite=True) as temporary, open(temporary, "wb") as stream:
        content: dict[str, Any] = {"rows": np.array([rows.start, rows.stop]), **arrays}
        np.savez(stream, **content)


def read_chunk(path: Path) -> Arrays:
    """Read what `write_chunk` wrote.

    Raises
    ------
    InputError
        When the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except _DAMAGED as error:
        raise InputError(
            f"a step's intermediate file cannot be read ({error})", source=path, remedy="run with --overwrite"
        ) from error


def do_chunks(
    plan: ChunkPlan,
    function: Callable[[Any, str], None],
    context: Any,
    tick: Callable[[int, int], None],
    *,
    scheduler: str | None = None,
    overwrite: bool = False,
) -> Chunks:
    """Do the chunks that are not done yet.

    Parameters
    ----------
    plan : ChunkPlan
    function : callable
        ``function(context, item)`` writes the file of one chunk; importable by name.
    context : object
        What all chunks share.
    tick : callable
        Told how many chunks are done, of how many.
    scheduler : str, optional
        Address of a Dask scheduler whose workers do the chunks; they see the same files.
    overwrite : bool
        Whether chunks of an earlier run are done again.

    Raises
    ------
    InputError
        With the reason of the first chunk that could not be done; what is wrong with single rows is no failure.
    """
    items = plan.items
    left = [item for item in items if overwrite or not plan.is_done(item)]
    done = len(items) - len(left)
    if done:
        tick(done, len(items))
    notes: dict[str, str] = {}
    for outcome in run_items(function, context, left, scheduler=scheduler):
        if outcome.failure:
            raise InputError(outcome.failure)
        done += 1
        tick(done, len(items))
        for note in outcome.notes:
            # Chunks differ in their numbers; the same is said once.
            notes.setdefault(re.sub(r"\d+", "", note), note)
    for note in notes.values():
        warnings.warn(note.partition(": ")[2], AssumptionWarning, stacklevel=2)
    chunks = Chunks(tuple(plan.path(item) for item in items))
    remove_others(plan, chunks.paths)
    return chunks


def remove_others(plan: ChunkPlan, keep: Sequence[Path]) -> None:
    """Remove chunks that an interrupted run with other settings has left."""
    for path in plan.folder.glob(f"{plan.name}_*.npz"):
        if path not in keep:
            path.unlink(missing_ok=True)


def to_text(value: Any) -> NDArray[Any]:
    """Plain values as an array that a chunk can hold."""
    return np.array(json.dumps(value))


def from_text(array: NDArray[Any]) -> Any:
    """Return what `to_text` was given."""
    return json.loads(str(array))
