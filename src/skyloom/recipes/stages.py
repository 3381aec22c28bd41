"""Stages of an item: each is done once, and found done by a run that was interrupted, or changed further on.

A stage takes values, returns a value and leaves files. Beside the files of an item stands a record of each stage,
``stages/STAGE.json``, written last: a digest of everything that decided its files (settings, input files, the stages
before it, the version), and the checksum of each file. A stage whose record agrees is not done again; its value is
read from its files only if another stage needs it.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from skyloom._version import __version__
from skyloom.core.execution import collected_notes
from skyloom.errors import RepairWarning
from skyloom.io.formats.atomic import atomic_path
from skyloom.recipes.folder import unwritable
from skyloom.recipes.resources import Meter
from skyloom.report.model import StepRecord

__all__ = ["Files", "Made", "Stages"]

Value = TypeVar("Value")
_FIELDS = {"stage", "version", "digest", "files", "notes", "cpu_seconds", "wall_seconds"}


@dataclass(frozen=True, slots=True)
class Files(Generic[Value]):
    """How the value of a stage is kept.

    Attributes
    ----------
    write : callable
        Writes a value and returns the paths of its files, all in the folder of the item.
    read : callable
        Given those paths, returns the value.
    """

    write: Callable[[Value], Sequence[Path]]
    read: Callable[[Sequence[Path]], Value]


@dataclass(slots=True)
class Made(Generic[Value]):
    """What a stage has left behind.

    Attributes
    ----------
    name, digest : str
    files : tuple of Path
    kept : bool
        Whether an earlier run had done it.
    notes : tuple of str
        The warnings it gave, then or now.
    cpu, wall : float
        Seconds that it took, then or now.
    memory : float
        Bytes that the process held at most, then or now; NaN where that is not known.
    """

    name: str
    digest: str
    files: tuple[Path, ...]
    kept: bool
    notes: tuple[str, ...]
    cpu: float
    wall: float
    memory: float
    _read: Callable[[Sequence[Path]], Value]
    _value: list[Value] = field(default_factory=list)

    @property
    def value(self) -> Value:
        """The value, read from the files where this run has not made it."""
        if not self._value:
            self._value.append(self._read(self.files))
        return self._value[0]


@dataclass(slots=True)
class Stages:
    """The stages of one item, in the order in which they are done.

    Attributes
    ----------
    folder : Path
        Of the item; it exists.
    overwrite : bool
        Do everything again.
    announce : callable
        Told the name of a stage before it is done.
    """

    folder: Path
    overwrite: bool = False
    announce: Callable[[str], None] = lambda _: None
    done: list[Made[Any]] = field(default_factory=list)

    def do(
        self,
        name: str,
        function: Callable[..., Value],
        *inputs: Any,
        settings: Any,
        files: Files[Value],
    ) -> Made[Value]:
        """Do a stage, unless its files are there already.

        Parameters
        ----------
        name : str
        function : callable
            Given the inputs, those that are stages as their values; returns the value of this one.
        *inputs
            `Made` stages that this one builds on, and anything else (which must follow from ``settings``).
        settings : object
            All else that decides the result, as plain values.
        files : Files
            How the value is kept.
        """
        digest = self.digest(name, *inputs, settings=settings)
        made = None if self.overwrite else self._found(name, digest, files)
        if made is None:
            self.announce(name)
            made = self._make(name, digest, function, inputs, files)
        self.done.append(made)
        return made

    def records(self) -> tuple[StepRecord, ...]:
        """Return what each stage took, then or now."""
        return tuple(
            StepRecord(made.name, made.wall, made.cpu, made.memory, kept=int(made.kept)) for made in self.done
        )

    def digest(self, name: str, *inputs: Any, settings: Any) -> str:
        """Digest of all that decides the files of a stage: settings, the stages before it, the version."""
        before = [item.digest for item in inputs if isinstance(item, Made)]
        return _digest([name, __version__, settings, before])

    def _make(
        self,
        name: str,
        digest: str,
        function: Callable[..., Value],
        inputs: Sequence[Any],
        files: Files[Value],
    ) -> Made[Value]:
        record = self._record(name)
        old = set(self._recorded(name).get("files", ()))
        with Meter() as meter, collected_notes() as notes:
            value = function(*(item.value if isinstance(item, Made) else item for item in inputs))
            try:
                # From here on the old files are no longer what the old record says.
                record.unlink(missing_ok=True)
                paths = tuple(files.write(value))
            except OSError as error:
                raise unwritable(self.folder, error) from error
        spent = meter.cpu, meter.wall, meter.memory
        made = Made(name, digest, paths, False, tuple(notes), *spent, files.read, [value])
        content: dict[str, Any] = {
            "stage": name,
            "version": __version__,
            "digest": digest,
            "files": {str(path.relative_to(self.folder)): list(_checksum(path)) for path in paths},
            "notes": list(notes),
            "cpu_seconds": round(meter.cpu, 3),
            "wall_seconds": round(meter.wall, 3),
            "peak_memory_bytes": None if math.isnan(meter.memory) else int(meter.memory),
        }
        # What an earlier run made of this stage, and this one does not, would be taken for a product of today.
        for path in old - set(content["files"]):
            (self.folder / path).unlink(missing_ok=True)
        with atomic_path(record, overwrite=True) as temporary:
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return made

    def _found(self, name: str, digest: str, files: Files[Value]) -> Made[Value] | None:
        record = self._recorded(name)
        if record.get("digest") != digest:
            return None
        expected = {self.folder / path: tuple(stamp) for path, stamp in record["files"].items()}
        damaged = [path.name for path, stamp in expected.items() if _checksum(path) != stamp]
        if damaged:
            warnings.warn(
                f"{', '.join(damaged[:4])}: not as it was written; stage {name!r} was done again",
                RepairWarning,
                stacklevel=3,
            )
            return None
        memory = record.get("peak_memory_bytes")
        spent = record["cpu_seconds"], record["wall_seconds"], math.nan if memory is None else float(memory)
        return Made(name, digest, tuple(expected), True, tuple(record["notes"]), *spent, files.read)

    def _record(self, name: str) -> Path:
        return self.folder / "stages" / f"{name}.json"

    def _recorded(self, name: str) -> dict[str, Any]:
        """The record of a stage; empty when there is none, or not a whole one: then the stage is done again."""
        try:
            record = json.loads(self._record(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        whole = isinstance(record, dict) and set(record) >= _FIELDS
        return record if whole else {}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _checksum(path: Path) -> tuple[int, int]:
    """Size and CRC-32 of a file that this run or an earlier one has written; (-1, 0) when it is not there."""
    total = 0
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 22):
                total = zlib.crc32(block, total)
        return path.stat().st_size, total
    except OSError:
        return -1, 0
