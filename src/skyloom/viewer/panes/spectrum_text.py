"""What stands beside a spectrum: its title, the numbers of its fit, and those that are pinned."""

from __future__ import annotations

import html
from collections.abc import Sequence

from skyloom.viewer.panes.spectrum_figures import ACCENT, FAINT, INK, PIN_COLOURS
from skyloom.viewer.protocols import SpectrumView
from skyloom.viewer.spectra.names import pretty_name
from skyloom.viewer.spectra.numbers import SEPARATOR

__all__ = ["line_table", "lines_html", "pins_html", "summary_html", "title_html"]


def title_html(text: str, *, wrong: bool = False) -> str:
    """Return a title, or in another colour what went wrong."""
    colour = ACCENT if wrong else INK
    return f'<div style="font-size:14px;font-weight:600;color:{colour}">{html.escape(text)}</div>'


def line_table(view: SpectrumView) -> dict[str, list[str]]:
    """Return the numbers of the lines as columns: ``line`` and ``key`` first, then what is known of them."""
    rows: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for name, text in view.numbers:
        key, separator, quantity = name.partition(SEPARATOR)
        if not separator:
            continue
        rows.setdefault(key, {})[quantity] = text
        if quantity not in columns:
            columns.append(quantity)
    table = {"line": [pretty_name(key) for key in rows], "key": list(rows)}
    return table | {column: [row.get(column, "") for row in rows.values()] for column in columns}


def lines_html(table: dict[str, list[str]]) -> str:
    """Return the numbers of the lines as a table."""
    if not table["line"]:
        return ""
    shown = [name for name in table if name != "key"]
    cell = "padding:1px 10px 1px 0;white-space:nowrap"
    head = "".join(f'<th style="{cell};text-align:left">{html.escape(name)}</th>' for name in shown)
    body = "".join(
        f'<tr style="border-top:1px solid #e8eaf0" data-line="{html.escape(key)}">'
        + "".join(f'<td style="{cell}">{html.escape(table[name][number])}</td>' for name in shown)
        + "</tr>"
        for number, key in enumerate(table["key"])
    )
    style = f"font-size:12px;color:{INK};border-collapse:collapse;margin-top:6px"
    return f'<table style="{style}"><tr style="color:{FAINT}">{head}</tr>{body}</table>'


def summary_html(view: SpectrumView) -> str:
    """Return the numbers that belong to no line, one below the other."""
    cells = "".join(
        f'<tr><td style="color:{FAINT};padding:0 10px 2px 0">{html.escape(name)}</td>'
        f'<td style="padding:0 0 2px 0">{html.escape(text)}</td></tr>'
        for name, text in view.numbers
        if SEPARATOR not in name
    )
    return f'<table style="font-size:12px;color:{INK};border-spacing:0">{cells}</table>'


def pins_html(views: Sequence[SpectrumView]) -> str:
    """Return the pinned spectra with their colours, and what was found for the line that all of them have first."""
    if not views:
        return ""
    tables = [line_table(view) for view in views]
    shared = next(
        (key for key in tables[0]["key"] if key == "Halpha" and all(key in table["key"] for table in tables)),
        next((key for key in tables[0]["key"] if all(key in table["key"] for table in tables)), ""),
    )
    head = f"<th></th><th style='text-align:left'>pinned</th>{_heads(tables[0], shared)}"
    body = "".join(
        f'<tr><td style="color:{colour}">■</td><td>{html.escape(view.title)}</td>{_cells(table, shared)}</tr>'
        for view, table, colour in zip(views, tables, PIN_COLOURS, strict=False)
    )
    style = f"font-size:12px;color:{INK};border-spacing:6px 2px"
    return f'<table style="{style}"><tr style="color:{FAINT}">{head}</tr>{body}</table>'


def _quantities(table: dict[str, list[str]]) -> list[str]:
    return [name for name in table if name.startswith(("flux", "velocity"))]


def _heads(table: dict[str, list[str]], key: str) -> str:
    if not key:
        return ""
    return "".join(
        f"<th style='text-align:left'>{html.escape(f'{pretty_name(key)} {name}')}</th>"
        for name in _quantities(table)
    )


def _cells(table: dict[str, list[str]], key: str) -> str:
    if not key:
        return ""
    row = table["key"].index(key)
    return "".join(f"<td>{html.escape(table[name][row])}</td>" for name in _quantities(table))
