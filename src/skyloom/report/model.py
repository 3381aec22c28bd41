"""What a report is made of: plain data, so that a recipe fills it without knowing how it is shown."""

from __future__ import annotations

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
    """A table to show."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    units: Mapping[str, str] = field(default_factory=dict)
    caption: str = ""

    @classmethod
    def from_astropy(cls, title: str, table: QTable | Table, caption: str = "") -> DataTable:
        """Make a table from an astropy one; its array-valued columns are left out."""
        columns = tuple(name for name in table.colnames if table[name].ndim == 1)
        units = {name: str(table[name].unit) for name in columns if getattr(table[name], "unit", None)}
        values = [_plain(table[name]) for name in columns]
        return cls(title, columns, tuple(zip(*values, strict=True)), units, caption)


def _plain(column: object) -> list[Cell]:
    values = getattr(column, "value", column)
    masked = getattr(values, "mask", None)
    cells: list[Cell] = values.tolist()  # type: ignore[attr-defined]
    if masked is None or getattr(masked, "ndim", 0) == 0:
        return cells
    return [None if hidden else cell for cell, hidden in zip(cells, masked, strict=True)]


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """A figure: the bytes of a PNG, with what it shows."""

    title: str
    png: bytes
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A step of the run: text, figures and tables."""

    title: str
    text: str = ""
    figures: tuple[ReportFigure, ...] = ()
    tables: tuple[DataTable, ...] = ()


@dataclass(frozen=True, slots=True)
class InputSummary:
    """What Skyloom saw in an input file."""

    path: str
    facts: Mapping[str, str]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Product:
    """A file that the run wrote."""

    path: Path
    description: str


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
        Step -> CPU seconds.
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

    @property
    def failed_checks(self) -> Sequence[Check]:
        """The checks that were not passed."""
        return [check for check in self.checks if not check.passed]
