"""What a report is made of: plain data, so that a recipe fills it without knowing how it is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from astropy.table import QTable, Table

Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Check:
    """A science check: a measured value and the bounds it must keep.

    Attributes
    ----------
    name : str
        What is checked, such as ``"kernel residual"``.
    item : str
        Which product, such as ``"912 f435w"``.
    value : float
        What was measured; NaN fails.
    minimum, maximum : float or None
        The bounds, inclusive; None for no bound.
    meaning : str
        One sentence for the reader of the report.
    """

    name: str
    item: str
    value: float
    minimum: float | None = None
    maximum: float | None = None
    meaning: str = ""

    @property
    def passed(self) -> bool:
        """Whether the value keeps its bounds."""
        above = self.minimum is None or self.value >= self.minimum
        below = self.maximum is None or self.value <= self.maximum
        return above and below and self.value == self.value

    @property
    def bounds(self) -> str:
        """The bounds as text."""
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:g} to {self.maximum:g}"
        if self.maximum is not None:
            return f"at most {self.maximum:g}"
        return "none" if self.minimum is None else f"at least {self.minimum:g}"


@dataclass(frozen=True, slots=True)
class DataTable:
    """A table to show.

    Attributes
    ----------
    title : str
    columns : tuple of str
    rows : tuple of tuple
    units : mapping of str to str
        Column -> unit; a column that is not in it has none.
    caption : str
    descriptions : mapping of str to str
        Column -> what it holds.
    source : Path or None
        The product that holds the same table; a page says so, and tests hold the page against it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    units: Mapping[str, str] = field(default_factory=dict)
    caption: str = ""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    source: Path | None = None

    @classmethod
    def from_astropy(
        cls, title: str, table: QTable | Table, caption: str = "", source: Path | None = None
    ) -> DataTable:
        """Make a table from an astropy one; its array-valued columns are left out."""
        columns = tuple(name for name in table.colnames if table[name].ndim == 1)
        units = {name: str(table[name].unit) for name in columns if getattr(table[name], "unit", None)}
        values = [_plain(table[name]) for name in columns]
        described = {name: table[name].info.description for name in columns if table[name].info.description}
        rows = tuple(zip(*values, strict=True))
        return cls(title, columns, rows, units, caption, described, source)

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers, as far as anything is known of them."""
        kinds = [{type(cell) for cell in column} - {type(None)} for column in zip(*self.rows, strict=True)]
        return tuple(bool(kind) and kind <= {int, float} for kind in kinds) or (False,) * len(self.columns)


def _plain(column: object) -> list[Cell]:
    values = getattr(column, "value", column)
    masked = getattr(values, "mask", None)
    cells: list[Cell] = values.tolist()  # type: ignore[attr-defined]
    if masked is None or getattr(masked, "ndim", 0) == 0:
        return cells
    return [None if hidden else cell for cell, hidden in zip(cells, masked, strict=True)]


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """A figure: the bytes of a PNG, with what it shows, and the step of the run that it is of."""

    title: str
    png: bytes
    caption: str = ""
    step: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A step of the run: text, figures and tables."""

    title: str
    text: str = ""
    figures: tuple[ReportFigure, ...] = ()
    tables: tuple[DataTable, ...] = ()


@dataclass(frozen=True, slots=True)
class InputSummary:
    """What Skyloom saw in an input file: facts by name, and what is suspicious, gravest first."""

    path: str
    facts: Mapping[str, str]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What a step of the run took, of one object or of several together.

    Attributes
    ----------
    name : str
    wall, cpu : float
        Seconds by the clock, and of all threads and worker processes; added up over objects.
    memory : float
        Bytes: the most that the process held in memory at once while it was at the step, all of it, not only what
        the step added; the greatest over objects. NaN where it is not known.
    items : int
        How many objects went through it.
    kept : int
        How many of these an earlier run had done; what they took is counted as it was then.
    text : str
        What is done in it.
    """

    name: str
    wall: float
    cpu: float
    memory: float = math.nan
    items: int = 1
    kept: int = 0
    text: str = ""

    @property
    def origin(self) -> str:
        """Which run did it."""
        if self.kept == 0:
            return "this run"
        return "an earlier run" if self.kept == self.items else f"{self.kept} of {self.items} an earlier run"


@dataclass(frozen=True, slots=True)
class Citation:
    """A paper, or the software, behind a run.

    Attributes
    ----------
    used_for : str
        What of the run is due to it.
    text : str
        Authors, year and where it was published.
    doi : str
        Empty where there is none.
    bibtex : str
    """

    used_for: str
    text: str
    doi: str
    bibtex: str


@dataclass(frozen=True, slots=True)
class Product:
    """A file that the run wrote; ``main`` ones are named on the first screen."""

    path: Path
    description: str
    main: bool = False


@dataclass(frozen=True, slots=True)
class RunReport:
    """The whole report of a run.

    Attributes
    ----------
    title : str
        Such as ``"homogenize: 6 objects in 9 bands"``.
    summary : str
        Two or three sentences: what was done and how it went.
    config_yaml : str
        The resolved configuration.
    sections : tuple of Section
        The steps in their order.
    checks : tuple of Check
        All science checks.
    inputs : tuple of InputSummary
        The input files.
    products : tuple of Product
        The files written.
    failures : mapping
        Item -> reason.
    timings : mapping
        Step -> CPU seconds, where nothing else is known of it.
    steps : tuple of StepRecord
        The steps of the run in their order, with time and memory.
    total : StepRecord or None
        What the whole run took.
    inputs_note : str
        How many more files went in than are listed.
    input_files : int or None
        How many files went in; by default as many as are listed.
    citations : tuple of Citation
        What to cite when the products are used.
    """

    title: str
    summary: str
    config_yaml: str
    sections: tuple[Section, ...] = ()
    checks: tuple[Check, ...] = ()
    inputs: tuple[InputSummary, ...] = ()
    products: tuple[Product, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[StepRecord, ...] = ()
    total: StepRecord | None = None
    inputs_note: str = ""
    input_files: int | None = None
    citations: tuple[Citation, ...] = ()

    @property
    def failed_checks(self) -> Sequence[Check]:
        """The checks that were not passed."""
        return [check for check in self.checks if not check.passed]
