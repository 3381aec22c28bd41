"""The first page of several runs: what went in, what came out, how far from the truth, what to try next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from skyloom._version import __version__
from skyloom.io.formats.atomic import atomic_path
from skyloom.report.html import environment
from skyloom.report.model import DataTable, ReportFigure

__all__ = ["Command", "FirstPage", "RunCard", "TruthRow", "write_page"]


@dataclass(frozen=True, slots=True)
class RunCard:
    """One run: what it did, its picture, where its report and its main products are.

    Attributes
    ----------
    recipe, sentence : str
    figure : ReportFigure
    report : Path or None
    products : tuple of (Path, str)
        Main products and what they are.
    facts : tuple of str
        Short ones, such as what it took.
    verdict : str
        Empty where nothing is wrong.
    """

    recipe: str
    sentence: str
    figure: ReportFigure
    report: Path | None
    products: tuple[tuple[Path, str], ...]
    facts: tuple[str, ...]
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class TruthRow:
    """A quantity beside its truth, as the page shows it; numbers are NaN where there are none."""

    recipe: str
    quantity: str
    n: int
    bias: float
    unit: str
    mean: float
    spread: float
    allowed: str
    passed: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Command:
    """Something to type, and what it does."""

    text: str
    meaning: str


@dataclass(frozen=True, slots=True)
class FirstPage:
    """All that the page holds.

    Attributes
    ----------
    title, lead : str
    chips : tuple of (str, bool or None)
        Short facts on top: good, bad or neither.
    portrait : ReportFigure
    story : str
        What was observed, in words.
    inputs : tuple of DataTable
        What went in.
    cards : tuple of RunCard
        What came out.
    rows : tuple of TruthRow
    pulls : ReportFigure
    table : Path
        File that holds the rows.
    commands : tuple of (str, tuple of Command)
        What to try next, under headings.
    """

    title: str
    lead: str
    chips: tuple[tuple[str, bool | None], ...]
    portrait: ReportFigure
    story: str
    inputs: tuple[DataTable, ...]
    cards: tuple[RunCard, ...]
    rows: tuple[TruthRow, ...]
    pulls: ReportFigure
    table: Path
    commands: tuple[tuple[str, Sequence[Command]], ...]


def write_page(page: FirstPage, path: Path, created: datetime | None = None) -> Path:
    """Write a first page: one file that needs no network.

    Parameters
    ----------
    page : FirstPage
    path : Path
        The HTML file; links are relative to it.
    created : datetime, optional
        Written on top; now, by default.
    """
    created = created or datetime.now(UTC)
    text = (
        environment(path.parent)
        .get_template("first_page.html")
        .render(page=page, created=f"{created:%Y-%m-%d %H:%M} UTC", version=__version__)
    )
    with atomic_path(path, overwrite=True) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path
