"""Every exception and warning of Skyloom, and the policy for raising them.

Bad input raises `InputError` (or a subclass that says which kind of input) with the value that was found, the
place where it was found and the remedy; the command line turns it into one message and exit code 2. What can be
repaired without guessing is repaired and announced with a `RepairWarning` that counts the pixels; what had to be
assumed is announced with an `AssumptionWarning`. Anything else that escapes is a bug and ends with exit code 1.
"""

from __future__ import annotations

import functools
import itertools
import os
from pathlib import Path
from typing import Self

__all__ = [
    "AssumptionWarning",
    "ConfigError",
    "FileFormatError",
    "InputError",
    "RepairWarning",
    "ShapeError",
    "SkyloomError",
    "SkyloomWarning",
    "UnitError",
]


class SkyloomError(Exception):
    """Base of every error that Skyloom raises on purpose."""


class InputError(SkyloomError, ValueError):
    """Something the user gave cannot be used.

    Parameters
    ----------
    message : str
        What is wrong, with the offending value.
    source : str or path, optional
        The file (or object) it was found in.
    field : str, optional
        The keyword, extension, config key or attribute it was found in.
    remedy : str, optional
        What the user can do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        source: str | Path | None = None,
        field: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.message = message
        self.source = None if source is None else str(source)
        self.field = field
        self.remedy = remedy
        place = ": ".join(part for part in (self.source, field) if part)
        text = f"{place}: {message}" if place else message
        super().__init__(f"{text}; {remedy}" if remedy else text)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel back from worker processes, so keyword-only arguments must survive pickling.
        rebuild = functools.partial(type(self), source=self.source, field=self.field, remedy=self.remedy)
        return rebuild, (self.message,)

    @classmethod
    def missing(cls, path: str | Path, *, field: str | None = None, or_else: str | None = None) -> Self:
        """Return the error of a file that is not there; it suggests the most similar name in the same folder.

        Parameters
        ----------
        path : str or Path
            The file.
        field : str, optional
            The config key or option that named it.
        or_else : str, optional
            The remedy where no name there is similar.
        """
        path = Path(path)
        if path.is_dir():
            return cls("is a folder, not a file", source=path, field=field, remedy=or_else)
        if path.exists():
            return cls("is no plain file", source=path, field=field, remedy=or_else)
        return cls("there is no such file", source=path, field=field, remedy=_like(path) or or_else)

    def located(self, source: str | Path) -> InputError:
        """Return the same error, naming ``source`` where no file was known yet."""
        if self.source is not None:
            return self
        return type(self)(self.message, source=source, field=self.field, remedy=self.remedy)


def _like(path: Path) -> str | None:
    """Suggest what may be meant by a path where nothing is."""
    import difflib

    there = next((folder for folder in path.parents if folder.exists()), None)
    if there is None or not there.is_dir():
        return None
    if there != path.parent:
        return f"the folder {path.parent} is not there either"
    try:
        # A folder of an archive may hold a million files; the first thousands are enough to guess from.
        names = [entry.name for entry in itertools.islice(os.scandir(there), 20_000)]
    except OSError:
        return None
    match = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return f"did you mean {match[0]!r}?" if match else None


class ShapeError(InputError):
    """Arrays that belong together have different shapes."""


class UnitError(InputError):
    """A unit is missing, cannot be read, or does not fit."""


class FileFormatError(InputError):
    """A file is truncated, of an unknown kind, or lacks what its kind promises."""


class ConfigError(InputError):
    """A configuration names an unknown key or an impossible value."""


class SkyloomWarning(UserWarning):
    """Base of every warning that Skyloom gives."""


class RepairWarning(SkyloomWarning):
    """Input was repaired; the message says what and how many pixels."""


class AssumptionWarning(SkyloomWarning):
    """Something was not known and had to be assumed; the message says what."""
