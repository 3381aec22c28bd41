"""The folder of a store: its settings, which never change, and the lock that lets one ingest write at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from skyloom._version import __version__
from skyloom.errors import FileFormatError, InputError
from skyloom.io.formats.atomic import atomic_path
from skyloom.store.schema import SCHEMA_VERSION, CommonGrid, StoreSettings

__all__ = [
    "LOCK_NAME",
    "PARTITIONS",
    "SETTINGS_NAME",
    "is_store",
    "make_folder",
    "read_settings",
    "write_lock",
]

SETTINGS_NAME = "store.json"
LOCK_NAME = "lock"
PARTITIONS = "partitions"


def is_store(path: str | Path) -> bool:
    """Tell whether a folder holds a store."""
    return (Path(path) / SETTINGS_NAME).is_file()


def make_folder(path: str | Path, settings: StoreSettings | None = None) -> StoreSettings:
    """Make the folder of a new store and write its settings.

    Parameters
    ----------
    path : str or path
        A folder that does not exist yet, or is empty.
    settings : StoreSettings, optional

    Raises
    ------
    InputError
        When there is a store already, something else is in the folder, or it cannot be made.
    """
    chosen = settings or StoreSettings()
    folder = Path(path)
    if is_store(folder):
        raise InputError(
            "there is a store already", source=folder, remedy="ingest into it, or choose another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A killed 'create' may have left the empty folder; anything else is somebody's data.
        others = [
            item.name
            for item in folder.iterdir()
            if item.name != PARTITIONS and not item.name.startswith(".")
        ]
        if others:
            raise InputError(
                f"the folder is not empty: it holds {others[0]}",
                source=folder,
                remedy="choose an empty or a new folder",
            )
        (folder / PARTITIONS).mkdir(exist_ok=True)
        with atomic_path(folder / SETTINGS_NAME) as temporary:
            text = json.dumps({"creator": f"skyloom {__version__}", **chosen.describe()}, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", source=folder) from error
    return chosen


def read_settings(path: str | Path) -> StoreSettings:
    """Read the settings of a store.

    Raises
    ------
    FileFormatError
        When the folder holds no store, or one of another version, or its settings are damaged.
    """
    file = Path(path) / SETTINGS_NAME
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        remedy = f"make one with 'skyloom store create {path}'"
        raise FileFormatError("there is no store in this folder", source=path, remedy=remedy) from error
    except NotADirectoryError as error:
        raise FileFormatError(
            "this is a file; only the folder of a store can be written to",
            source=path,
            remedy="a packed file holds a copy: use the store that it was made of",
        ) from error
    except (OSError, ValueError) as error:
        raise FileFormatError(f"cannot be read: {error}", source=file) from error
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA_VERSION:
        raise FileFormatError(
            f"the store has version {schema!r}; this program knows version {SCHEMA_VERSION}",
            source=file,
            field="schema",
            remedy="use the version of Skyloom that made it",
        )
    try:
        return _settings(values)
    except (TypeError, KeyError) as error:
        raise FileFormatError(f"the settings are damaged: {error}", source=file) from error


def _settings(values: dict[str, Any]) -> StoreSettings:
    names = {item.name for item in fields(StoreSettings)} - {"common_grid"}
    grid = CommonGrid(**values["common_grid"])
    chosen = {name: values[name] for name in names - {"adaptive_bytes"}}
    return StoreSettings(common_grid=grid, adaptive_bytes=values.get("adaptive_bytes"), **chosen)


@contextmanager
def write_lock(path: str | Path) -> Iterator[None]:
    """Hold the store for writing; the system lets go of it when the process ends, however it ends.

    Raises
    ------
    InputError
        When another process holds it, with its number.
    """
    file = Path(path) / LOCK_NAME
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", source=file) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            raise InputError(
                f"process {holder or 'of another machine'} is writing to the store",
                source=path,
                remedy="wait until it is finished; reading is possible meanwhile",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
