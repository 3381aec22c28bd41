"""Reading a report back: what it refers to, and the numbers in its tables beside those of the products."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from astropy.table import Table

# Names of XML, which nothing fetches.
HARMLESS = "http://www.w3.org"


@dataclass
class PageTable:
    """A table of a page: where it is from, its columns with their units, and cells as (text, value)."""

    source: str
    columns: list[tuple[str, str]] = field(default_factory=list)
    rows: list[list[tuple[str, str | None]]] = field(default_factory=list)


class Page(HTMLParser):
    """A report as a reader of its text sees it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.references: list[str] = []
        self.anchors: set[str] = set()
        self.tables: list[PageTable] = []
        self._cell: list[str] | None = None
        self._value: str | None = None
        self._small: list[str] | None = None
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.references += [
            value for name, value in attributes if name in ("src", "href", "action", "data", "poster")
        ]
        self.references += re.findall(r"url\(([^)]*)\)", given.get("style") or "")
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "table":
            self.tables.append(PageTable(unquote(given.get("data-source") or "")))
        elif tag == "tr" and self.tables:
            self.tables[-1].rows.append([])
        elif tag in ("td", "th"):
            self._cell, self._value = [], given.get("data-value")
            self._column = given.get("data-column", "")
            self._unit = ""
        elif tag == "small":
            self._small = []

    def handle_data(self, data):
        if self._small is not None:
            self._small.append(data)
        elif self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag):
        if tag == "small" and self._small is not None:
            self._unit, self._small = "".join(self._small), None
        elif tag == "td" and self._cell is not None:
            self.tables[-1].rows[-1].append(("".join(self._cell), self._value))
            self._cell = None
        elif tag == "th" and self._cell is not None:
            self.tables[-1].columns.append((self._column, self._unit))
            self._cell = None
        elif tag == "table":
            self.tables[-1].rows = [row for row in self.tables[-1].rows if row]


def check_page(path: Path) -> Page:
    """Assert that a report needs nothing from elsewhere, links to what is there, and tells the products' numbers."""
    page = Page(path)
    for reference in page.references:
        if reference.startswith("#"):
            assert reference[1:] in page.anchors, reference
        elif not reference.startswith("data:image/png;base64,"):
            assert re.match(r"[a-z]+:|//|/", reference) is None, reference
            assert (path.parent / unquote(reference)).exists(), reference
    plain = page.text.replace(HARMLESS, "")
    assert "@import" not in plain
    assert re.search(r"url\((?!data:)", plain.partition("</style>")[0]) is None
    for table in page.tables:
        if table.source:
            check_table(table, path.parent / table.source)
    return page


def check_table(shown: PageTable, source: Path) -> None:
    """Assert that each cell of a table is that of the product it is said to be from, unit included."""
    product = Table.read(source, format="ascii.ecsv")
    places = [number for number, (name, _) in enumerate(shown.columns) if name]
    names = [shown.columns[place][0] for place in places]
    assert names, source
    for place, name in zip(places, names, strict=True):
        unit = product[name].unit
        assert shown.columns[place][1] == ("" if unit is None else str(unit)), (source, name)
    known = {tuple(_product_cell(row[name]) for name in names) for row in product}
    cells = [tuple(_shown_cell(*row[place]) for place in places) for row in shown.rows]
    assert cells, source
    for row in cells:
        assert row in known, (source, row)
    assert len(cells) <= len(product)


def _shown_cell(text: str, value: str | None) -> object:
    if value is not None:
        return float(value)
    return {"–": None, "yes": True, "no": False}.get(text, text or None)


def _product_cell(value: object) -> object:
    if value is np.ma.masked:
        return None
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.number):
        return None if np.isnan(value) else float(value)
    return str(value) or None
