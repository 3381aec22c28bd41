"""Files that are there completely, or not at all."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skyloom.errors import InputError

__all__ = ["atomic_path", "flush", "remove_leftovers"]


@contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary name in the folder of ``path``, and move what was written there to ``path`` at the end.

    The file is flushed to the disk before it is renamed, so that a killed run or a crash of the machine leaves the old
    file, or the new one, but never a part of it. After an exception nothing remains.

    Parameters
    ----------
    path : str or path
        Where the finished file is to be.
    overwrite : bool
        Whether an existing file may be replaced.

    Yields
    ------
    path of the temporary file, which keeps the suffix of ``path``

    Raises
    ------
    InputError
        When the folder does not exist, or the file exists and ``overwrite`` is False.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(
            f"the folder {target.parent} does not exist", source=target, remedy="create it first"
        )
    if target.exists() and not overwrite:
        raise InputError(
            "the file exists already",
            source=target,
            remedy="choose another name, or overwrite it (overwrite=True, --overwrite)",
        )
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, target)
        flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Make the system write a file (or the entries of a folder) to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: str | Path) -> int:
    """Remove what killed processes of this machine have left unfinished in a folder; return how many files."""
    removed = 0
    for path in Path(folder).glob(".*.*.*"):
        found = _TEMPORARY.search(path.name)
        if found and not _is_alive(int(found["process"])):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


_TEMPORARY = re.compile(r"\.(?P<process>\d+)\.[0-9a-f]{8}(\.[A-Za-z0-9]+)?$")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
