"""`PartTable`: an open file of a store, and its table of observations."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import FileFormatError, InputError
from skyloom.io.formats.plain_json import from_json
from skyloom.store.files.parts import OBSERVATIONS
from skyloom.store.files.stored_form import split_notes
from skyloom.store.schema import SCHEMA_VERSION

__all__ = ["PartTable", "reason_of"]

Array = NDArray[Any]
CHUNK_CACHE = 1 << 19
"""Bytes of decompressed chunks kept per open plane."""
OPEN_NOTES = 256
"""Observations whose notes are kept parsed."""


class PartTable:
    """An open file of a store, of one partition or packed.

    Observations are named by their ``obs_id``, or by their number in the table of observations.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    FileFormatError
        When the file is missing, damaged, incomplete, or of another schema.
    """

    def __init__(self, path: str | Path) -> None:
        import h5py
        import hdf5plugin  # noqa: F401  registers the filters

        self.path = Path(path)
        try:
            # Parts never change, and HDF5 opens a file twice in one process only with equal settings of its locks.
            self.file = h5py.File(self.path, "r", rdcc_nbytes=CHUNK_CACHE, locking=False)
        except OSError as error:
            raise self._damaged(reason_of(error)) from error
        try:
            self._open()
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            self.file.close()
            raise self._damaged(reason_of(error)) from error
        except BaseException:
            self.file.close()
            raise
        # Several threads may read from one part; what is remembered changes under them.
        self._lock = Lock()
        self._extras: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._columns: dict[str, Array] = {}

    def _open(self) -> None:
        attributes = self.file.attrs
        if not attributes.get("complete", False):
            raise self._damaged("it was never finished")
        if attributes["schema"] != SCHEMA_VERSION:
            raise FileFormatError(
                f"the file has schema {attributes['schema']}; this version of Skyloom reads {SCHEMA_VERSION}",
                source=self.path,
                remedy="install the version of Skyloom that wrote it",
            )
        self.settings: dict[str, Any] = json.loads(attributes["settings"])
        self.digest = str(attributes["digest"])
        self.table = self.file[OBSERVATIONS]
        self.obs_ids: list[str] = [value.decode() for value in self.table["obs_id"][:].tolist()]
        self.numbers = {name: number for number, name in enumerate(self.obs_ids)}

    def _damaged(self, reason: str) -> FileFormatError:
        return FileFormatError(
            f"the part cannot be read: {reason}",
            source=self.path,
            remedy="restore the file from a copy, or ingest its sources again",
        )

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.obs_ids)

    def number(self, obs: str | int) -> int:
        """Return the number of an observation in the table.

        Raises
        ------
        InputError
            When there is none of this name or number.
        """
        if isinstance(obs, str):
            number = self.numbers.get(obs, -1)
        else:
            number = int(obs)
        if not 0 <= number < len(self.obs_ids):
            raise InputError(f"there is no observation {obs!r}", source=self.path, field="obs_id")
        return number

    def column(self, name: str) -> Array:
        """Return one column of the table, text as numpy text."""
        if name not in self._columns:
            try:
                values = self.table[name][:]
            except (OSError, RuntimeError, KeyError) as error:
                raise self._damaged(f"column {name}: {reason_of(error)}") from error
            self._columns[name] = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
        return self._columns[name]

    def columns(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Return columns of the table; all of them unless ``names`` are given."""
        from skyloom.store.schema import COLUMNS

        return {name: self.column(name) for name in (names if names is not None else (*COLUMNS, "row"))}

    def header(self, obs: str | int) -> str:
        """Return the original header of an observation."""
        return self._text("header", self.number(obs)).decode()

    def _text(self, name: str, number: int) -> bytes:
        try:
            start, stop = self.table[f"{name}_start"][number : number + 2]
            return bytes(self.table[name][start:stop].tobytes())
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise self._damaged(f"{name} of {self.obs_ids[number]}: {reason_of(error)}") from error

    def _extra(self, number: int) -> dict[str, Any]:
        found = self._extras.get(number)
        if found is not None:
            return found
        try:
            extra: dict[str, Any] = from_json(self._text("extra", number).decode())
            extra["notes"] = dict(zip(extra["names"], split_notes(extra["notes"]), strict=True))
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"notes of {self.obs_ids[number]}: {reason_of(error)}") from error
        with self._lock:
            self._extras[number] = extra
            if len(self._extras) > OPEN_NOTES:
                self._extras.popitem(last=False)
        return extra

    def kind(self, obs: str | int) -> str:
        """Return ``image``, ``cube`` or ``spectrum``."""
        return str(self._extra(self.number(obs))["kind"])

    def level_names(self, obs: str | int) -> list[str]:
        """Return the levels of an observation: ``"0"``, ``"1"`` ..., of a spectrum also ``"native"``."""
        return list(self._extra(self.number(obs))["names"])

    def _note(self, number: int, name: str) -> dict[str, Any]:
        notes = self._extra(number)["notes"]
        if name not in notes:
            raise InputError(
                f"{self.obs_ids[number]} has no level {name}",
                source=self.path,
                field="level",
                remedy=f"use one of {', '.join(notes)}",
            )
        note: dict[str, Any] = notes[name]
        return note


def reason_of(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
