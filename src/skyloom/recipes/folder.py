"""The folder that a recipe writes into, and the marks by which it knows its input files again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skyloom.errors import InputError
from skyloom.io.formats.atomic import atomic_path, remove_leftovers
from skyloom.recipes.config import Settings, resolved_yaml

__all__ = ["file_stamp", "open_folder", "unwritable", "write_config"]


def open_folder(folder: Path, *, inner: Sequence[str] = ()) -> Path:
    """Make a folder (and folders inside it), and clear it of what killed runs have left unfinished.

    Raises
    ------
    InputError
        When that is not possible.
    """
    try:
        for place in (folder, *(folder / name for name in inner)):
            place.mkdir(parents=True, exist_ok=True)
            remove_leftovers(place)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def unwritable(folder: Path, error: OSError) -> InputError:
    """Return the error that says that products cannot be written."""
    return InputError(f"cannot be written: {error.strerror}", source=folder, field="output.directory")


def file_stamp(path: Path) -> list[Any]:
    """Identify an input file by its name, size and time of change.

    Not by its content: hashing terabytes would make a resumed run as long as the first.
    """
    status = path.stat() if path.exists() else None
    return [str(path), status and status.st_size, status and status.st_mtime_ns]


def write_config(config: Settings, directory: Path) -> Path:
    """Write the resolved configuration beside the products; return its path.

    Raises
    ------
    InputError
        When the folder cannot be written to.
    """
    path = directory / "config.yaml"
    try:
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text(resolved_yaml(config), encoding="utf-8")
    except OSError as error:
        raise unwritable(directory, error) from error
    return path
