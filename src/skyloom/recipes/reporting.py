"""What the reports of all recipes have in common: inputs as `inspect` sees them, steps, notes, checks, products."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from astropy.table import QTable

from skyloom.core.execution import Outcome
from skyloom.errors import InputError
from skyloom.io.formats.tables import write_ecsv, write_fits_table
from skyloom.io.inspection.inspect import inspect
from skyloom.io.inspection.text import facts
from skyloom.recipes.resources import Meter
from skyloom.report.model import Check, DataTable, InputSummary, ReportFigure, Section, StepRecord

__all__ = [
    "COMMON_FILES",
    "SHOWN_OBJECTS",
    "Inputs",
    "added_steps",
    "checks_sentence",
    "described_by",
    "failures_of",
    "hidden_sentence",
    "inspected",
    "notes_of",
    "notes_section",
    "object_figures",
    "total_of",
    "write_checks",
]

SHOWN_OBJECTS = 12
"""Objects whose figures a page shows; one with those of thousands would not open."""
COMMON_FILES = {
    "checks.ecsv": "all science checks with bounds and verdicts, as text",
    "checks.fits": "the same as a FITS table",
    "config.yaml": "the resolved configuration; running it again gives the same products",
}
"""What the files are that every recipe writes."""
TITLES = {"hst_ha_as2": "map of Halpha", "velocity": "velocity of the first pass", "bins": "bins"}
"""Of figures whose files are named otherwise."""
MOST_INSPECTED = 24
"""Files that are inspected."""
INSPECTION_SECONDS = 6.0
"""After so long no further file is inspected: a report must not take longer than it is worth."""
READ_WHOLE = 50e6
"""Bytes; of a larger file the headers are inspected, not the values."""


# --- inputs ---------------------------------------------------------------------------------------------------------


class Inputs(TypedDict):
    """The part of a `RunReport` that tells what went in."""

    inputs: tuple[InputSummary, ...]
    inputs_note: str
    input_files: int


def inspected(
    files: Iterable[Path | str | None], known: Mapping[str, Mapping[str, str]] | None = None
) -> Inputs:
    """Look into the input files of a run, the first of very many.

    Parameters
    ----------
    files : iterable of path or None
        In the order to show them; a file that is named twice is shown once, None is left out.
    known : mapping of str to mapping, optional
        By path: what the run itself knows of a file, shown before what the file says.

    Returns
    -------
    Inputs
    """
    paths = list(dict.fromkeys(str(path) for path in files if path is not None))
    end = time.monotonic() + INSPECTION_SECONDS
    summaries: list[InputSummary] = []
    for path in paths[:MOST_INSPECTED]:
        if summaries and time.monotonic() > end:
            break
        summaries.append(_inspected(Path(path), (known or {}).get(path, {})))
    left = len(paths) - len(summaries)
    note = ""
    if left:
        note = f"{left} more {'files are' if left > 1 else 'file is'} not shown: {_counted(paths[len(summaries) :])}."
    return {"inputs": tuple(summaries), "inputs_note": note, "input_files": len(paths)}


def _inspected(path: Path, known: Mapping[str, str]) -> InputSummary:
    try:
        whole = path.stat().st_size <= READ_WHOLE
        found = inspect(path, "values" if whole else "headers")
    except (OSError, InputError) as error:
        if path.suffix.lower() in (".fits", ".fit", ".fz"):
            return InputSummary(str(path), dict(known), (str(error),))
        size = {"what it is": f"{path.suffix.lstrip('.') or 'plain'} file"} if path.exists() else {}
        return InputSummary(str(path), {**size, **known})
    seen = facts(found)
    first = {"what it is": seen.pop("what it is")}
    if not whole:
        seen["values"] = "not looked at: the file is large"
    problems = tuple(f"{item.severity}: {item.where}: {item.message}" for item in found.problems)
    return InputSummary(str(path), {**first, **known, **seen}, problems)


def _counted(paths: Sequence[str]) -> str:
    """Count files by their folders; the folders with most of them come first."""
    folders: dict[str, int] = {}
    for path in paths:
        folder = str(Path(path).parent)
        folders[folder] = folders.get(folder, 0) + 1
    order = sorted(folders.items(), key=lambda item: -item[1])
    shown = [f"{count} in {folder}" for folder, count in order[:4]]
    return ", ".join(shown) + (f", and others in {len(order) - 4} folders" if len(order) > 4 else "")


# --- steps ----------------------------------------------------------------------------------------------------------


def added_steps(objects: Iterable[Sequence[StepRecord]], texts: Mapping[str, str]) -> tuple[StepRecord, ...]:
    """Add up the steps of several objects.

    Parameters
    ----------
    objects : iterable of sequence of StepRecord
        Of each object.
    texts : mapping of str to str
        What is done in a step.

    Returns
    -------
    tuple of StepRecord
        One per name, in the order of their first appearance: times added up, of memory the greatest.
    """
    found: dict[str, list[StepRecord]] = {}
    for steps in objects:
        for step in steps:
            found.setdefault(step.name, []).append(step)
    return tuple(
        StepRecord(
            name,
            sum(step.wall for step in steps),
            sum(step.cpu for step in steps),
            max((step.memory for step in steps if not math.isnan(step.memory)), default=math.nan),
            sum(step.items for step in steps),
            sum(step.kept for step in steps),
            texts.get(name, ""),
        )
        for name, steps in found.items()
    )


def total_of(meter: Meter, items: int, resumed: int = 0, workers: int = 1) -> StepRecord:
    """Return what a whole run has taken so far, without the writing of its report."""
    parts = ["this run alone, from its configuration to its report"]
    if resumed:
        parts.append(f"{resumed} of {items} objects had been finished before")
    if workers > 1:
        parts.append("memory is that of the first of its processes")
    return StepRecord("whole run", meter.wall, meter.cpu, meter.memory, items, 0, "; ".join(parts))


# --- words ----------------------------------------------------------------------------------------------------------


def checks_sentence(checks: Sequence[Check]) -> str:
    """Say how many checks were passed."""
    failed = sum(not check.passed for check in checks)
    return f"{len(checks) - failed} of {len(checks)} science checks passed."


def hidden_sentence(n_done: int, what: str = "Figures") -> str:
    """Say of how many objects nothing is shown; nothing where all are."""
    hidden = n_done - min(n_done, SHOWN_OBJECTS)
    return f"{what} of {hidden} more objects are among the products." if hidden else ""


def failures_of(outcomes: Iterable[Outcome[Any]]) -> dict[str, str]:
    """Return what failed and why: items as a whole, and parts of those that were done."""
    failures: dict[str, str] = {}
    for outcome in outcomes:
        if outcome.failure:
            failures[outcome.item] = outcome.failure
        failures |= dict(getattr(outcome.result, "failures", ()))
    return failures


def notes_of(outcomes: Iterable[Outcome[Any]]) -> list[tuple[str, str]]:
    """Return what was noted of each item, by the run and by its steps."""
    return [
        (outcome.item, note)
        for outcome in outcomes
        for note in (*outcome.notes, *getattr(outcome.result, "notes", ()))
    ]


def notes_section(rows: Iterable[tuple[str, str]]) -> tuple[Section, ...]:
    """Return a section of what had to be repaired or assumed, each once; none where that was nothing."""
    unique = tuple(dict.fromkeys(rows))
    if not unique:
        return ()
    table = DataTable("Notes", ("item", "note"), unique)
    return (Section("Notes", "What had to be repaired or assumed.", tables=(table,)),)


def described_by(endings: Mapping[str, str], path: Path) -> str:
    """Say what a file is, from the longest ending of its name that is known."""
    known = [end for end in endings if path.name.endswith(end)]
    return endings[max(known, key=len)] if known else ("figure" if path.suffix == ".png" else "")


def object_figures(
    name: str, files: Iterable[Path], steps: Mapping[str, str], captions: Mapping[str, str] | None = None
) -> tuple[ReportFigure, ...]:
    """Return the figures among the files of an object.

    Parameters
    ----------
    name : str
        Of the object; names of its files begin with it.
    files : iterable of Path
    steps : mapping of str to str
        By the beginning of what follows in the name of a file, ``map_``: the step of which the figure is. The first
        that fits counts.
    captions : mapping of str to str, optional
        By the same beginnings: what stands beside the title.
    """
    found = []
    for path in files:
        if path.suffix == ".png":
            kind = path.stem.removeprefix(f"{name}_")
            step = next((step for start, step in steps.items() if kind.startswith(start)), "")
            caption = next((text for start, text in (captions or {}).items() if kind.startswith(start)), "")
            title = TITLES.get(kind, kind.replace("_", " "))
            found.append(ReportFigure(f"{name}: {title}", path.read_bytes(), caption, step))
    return tuple(found)


# --- checks ---------------------------------------------------------------------------------------------------------


def write_checks(checks: Sequence[Check], directory: Path) -> tuple[Path, ...]:
    """Write the checks, with bounds and verdicts, as ECSV and as FITS; nothing where there are none."""
    if not checks:
        return ()
    table = QTable(
        {
            "check": [check.name for check in checks],
            "item": [check.item for check in checks],
            "value": np.array([check.value for check in checks], dtype=np.float64),
            "minimum": _bounds(check.minimum for check in checks),
            "maximum": _bounds(check.maximum for check in checks),
            "passed": [check.passed for check in checks],
            "meaning": [check.meaning for check in checks],
        }
    )
    for name in ("minimum", "maximum"):
        table[name].info.description = "that is allowed; NaN: no bound"
    return (
        write_ecsv(table, directory / "checks.ecsv"),
        write_fits_table(table, directory / "checks.fits", "CHECKS"),
    )


def _bounds(values: Iterable[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
