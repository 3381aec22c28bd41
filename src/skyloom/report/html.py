"""One self-contained HTML page per run: figures, tables and the configuration inside it, no network needed."""

from __future__ import annotations

import base64
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from skyloom._version import __version__
from skyloom.io.formats.atomic import atomic_path

if TYPE_CHECKING:
    from skyloom.report.model import Cell, RunReport

__all__ = ["render_report", "write_report"]


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
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("skyloom.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    environment.filters["cell"] = format_cell
    environment.filters["link"] = lambda path: Path(os.path.relpath(path, folder)).as_posix()
    environment.tests["numeric"] = lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool)
    )
    created = created or datetime.now(UTC)
    return environment.get_template("report.html").render(
        report=report,
        checks=sorted(report.checks, key=lambda check: check.passed),
        created=f"{created:%Y-%m-%d %H:%M} UTC",
        version=__version__,
    )


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


def format_cell(value: Cell) -> str:
    """Write a value so that a column of it can be read: four significant digits, a dash for what is unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    return str(value).replace("-", "\N{MINUS SIGN}") if isinstance(value, int) else value
