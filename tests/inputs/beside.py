"""Recipes that do nothing, for what runs a recipe in another process."""

from __future__ import annotations

import os
from pathlib import Path

from skyloom.errors import InputError
from skyloom.recipes.result import Progress, RunResult, StageProgress


def tell_twice(folder: Path, *, progress: Progress) -> RunResult:
    """Tell of two items, and leave the number of the process as the summary."""
    progress("a", 1, 2, stage=StageProgress("lines", 0, 3))
    progress("b", 2, 2)
    return RunResult("ifs", folder, (), summary=str(os.getpid()))


def refuse(folder: Path, *, progress: Progress) -> RunResult:  # as it is called
    """Refuse the folder."""
    raise InputError("is refused", source=folder)
