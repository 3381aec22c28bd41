"""One self-contained HTML page per run: figures, tables and the configuration inside it, no network needed."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from skyloom._version import __version__
from skyloom.io.formats.atomic import atomic_path

if TYPE_CHECKING:
    import jinja2

    from skyloom.report.model import Cell, Product, RunReport

__all__ = ["render_report", "write_report"]

FIRST_ROWS = 200
"""Rows of a table that are laid out; the others wait until they are asked for."""
MOST_ROWS = 2000
"""Rows of a table that a page holds; more would make it slow to open."""
MAIN_PRODUCTS = 4
CHECKS_NAME = "checks.ecsv"
"""The product that holds the checks."""
GRAVITY: tuple[str, ...] = ("error", "warning", "note")


def render_report(report: RunReport, folder: Path, created: datetime | None = None) -> str:
    """Render a report as HTML.

    Parameters
    ----------
    report : RunReport
        What to show.
    folder : Path
        Where the page will be; links to products are relative to it.
    created : datetime, optional
        Written under the title; now, by default.

    Returns
    -------
    str
        The page.
    """
    created = created or datetime.now(UTC)
    figures = [figure for section in report.sections for figure in section.figures]
    return (
        environment(folder)
        .get_template("report.html")
        .render(
            report=report,
            checks=sorted(report.checks, key=lambda check: check.passed),
            created=f"{created:%Y-%m-%d %H:%M} UTC",
            version=__version__,
            n_inputs=len(report.inputs) if report.input_files is None else report.input_files,
            product_bytes=sum(_size(product.path) for product in report.products),
            remarks=_remarks(report),
            checks_source=next(
                (item.path for item in report.products if item.path.name == CHECKS_NAME), None
            ),
            anchors={figure.title: f"figure-{number}" for number, figure in enumerate(figures, 1)},
            figures_of={
                step.name: [figure for figure in figures if figure.step == step.name] for step in report.steps
            },
            first_rows=FIRST_ROWS,
            most_rows=MOST_ROWS,
        )
    )


def environment(folder: Path) -> jinja2.Environment:
    """Open the templates of pages that will be in ``folder``."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("skyloom.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def link(path: Path) -> str:
        return Path(os.path.relpath(path, folder)).as_posix()

    templates.filters |= {
        "base64": lambda data: base64.b64encode(data).decode("ascii"),
        "width": lambda png: int.from_bytes(png[16:20]),
        "height": lambda png: int.from_bytes(png[20:24]),
        "cell": format_cell,
        "signed": lambda value: ("+" if value > 0 else "") + format_cell(value),
        "bytes": format_bytes,
        "seconds": format_seconds,
        "name": lambda path: Path(path).name,
        "link": lambda path: quote(link(path)),
        "by_folder": lambda products: _by_folder(products, link),
        "main_products": _main_products,
        "values": lambda mapping: list(mapping.values()),
    }
    templates.tests["numeric"] = lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and value == value
    )
    templates.tests["known"] = lambda value: value == value
    return templates


def _by_folder(products: Iterable[Product], link: Callable[[Path], str]) -> list[tuple[str, list[Product]]]:
    """Products by the folder that they are in, those of the page's own folder first."""
    folders: dict[str, list[Product]] = {}
    for product in products:
        folders.setdefault(Path(link(product.path)).parent.as_posix(), []).append(product)
    own = folders.pop(".", None)
    return ([("this folder", own)] if own else []) + list(folders.items())


def _main_products(products: Iterable[Product]) -> list[Product]:
    """A few products to begin with: those that their recipe says to be the main ones, or the first."""
    every = list(products)
    return ([product for product in every if product.main] or every)[:MAIN_PRODUCTS]


def _remarks(report: RunReport) -> str:
    """Count what is suspicious in the inputs by its gravity."""
    words = [problem.partition(":")[0] for item in report.inputs for problem in item.problems]
    counts: dict[str, int] = {word: words.count(word) for word in GRAVITY if word in words}
    rest = len(words) - sum(counts.values())
    counts |= {"remark": rest} if rest else {}
    told = [f"{count} {word}{'' if count == 1 else 's'}" for word, count in counts.items()]
    return ", ".join(told) or "nothing suspicious"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def write_report(report: RunReport, path: Path, created: datetime | None = None) -> Path:
    """Write a report, complete or not at all.

    Parameters
    ----------
    report : RunReport
        What to show.
    path : Path
        The HTML file.
    created : datetime, optional
        Written under the title; now, by default.

    Returns
    -------
    Path
        ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    page = render_report(report, path.parent, created)
    with atomic_path(path, overwrite=True) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path


def format_bytes(size: float) -> str:
    """Write a size in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000.0:
            return f"{size:.3g} {unit}"
        size /= 1000.0
    return f"{size:.3g} TB"


def format_seconds(seconds: float) -> str:
    """Write a duration: seconds below two minutes, then minutes, then hours."""
    if seconds < 120.0:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60.0)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def format_cell(value: Cell) -> str:
    """Write a value so that a column of it can be read: four significant digits, a dash for what is unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    return str(value).replace("-", "\N{MINUS SIGN}") if isinstance(value, int) else value
