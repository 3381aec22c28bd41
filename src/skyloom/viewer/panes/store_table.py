"""The list of observations: a page of it at a time, in an order that the whole list has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from bokeh.models import (
    Button,
    Column,
    ColumnDataSource,
    DataTable,
    Div,
    NumberFormatter,
    Row,
    Select,
    StringFormatter,
    TableColumn,
    Toggle,
)
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.viewer.panes.listening import when_changed
from skyloom.viewer.stores.listing import ORDERS, PAGE, TABLE_COLUMNS, Listing

__all__ = ["ObservationTable"]

Int = NDArray[np.int64]
HEIGHT = 260
_TITLES = {
    "obs_id": "observation",
    "exposure": "exposure, s",
    "ra": "RA, °",
    "dec": "Dec, °",
    "seeing": "seeing, ″",
    "redshift": "z",
}
_WIDTHS = {"obs_id": 190, "instrument": 130, "date": 85, "target": 110, "ra": 85, "dec": 85}
_FORMATS = {
    "exposure": "0.[0]",
    "ra": "0.00000",
    "dec": "+0.00000",
    "seeing": "0.00",
    "redshift": "0.[00000]",
}


class ObservationTable:
    """The list.

    Parameters
    ----------
    listing : Listing
    on_row : callable
        Called with the row of the index that was clicked on.
    """

    def __init__(self, listing: Listing, on_row: Callable[[int], None]) -> None:
        self._listing, self._on_row = listing, on_row
        self._rows: Int = np.empty(0, np.int64)
        self._ordered = self._rows
        self._shown = self._rows
        self._first = 0
        self._quiet = False
        self.source = ColumnDataSource({name: [] for name in TABLE_COLUMNS}, name="store-source")
        when_changed(self.source.selected, "indices", self._clicked)
        self.table = DataTable(
            source=self.source,
            columns=[_column(name) for name in TABLE_COLUMNS],
            name="store-table",
            height=HEIGHT,
            sizing_mode="stretch_width",
            index_position=None,
            row_height=24,
            selectable=True,
            reorderable=False,
        )
        self._order = Select(
            title="",
            options=list(ORDERS.items()),
            value="sky",
            name="store-order",
            width=150,
            margin=(0, 5, 0, 5),
        )
        self._falling = Toggle(
            label="↑", name="store-descending", width=34, button_type="light", margin=(0, 5, 0, 0)
        )
        self._back = Button(label="◀", name="store-back", width=34, button_type="light", margin=(0, 2, 0, 5))
        self._on = Button(label="▶", name="store-forward", width=34, button_type="light", margin=(0, 5, 0, 2))
        self._told = Div(text="", name="store-count", width=300, margin=(6, 5, 0, 5))
        when_changed(self._order, "value", lambda _: self._sort())
        when_changed(self._falling, "active", lambda _: self._sort())
        self._back.on_click(lambda: self._turn(-1))
        self._on.on_click(lambda: self._turn(1))
        self.tools = Row(
            self._told,
            Div(text="ordered by", margin=(6, 0, 0, 5)),
            self._order,
            self._falling,
            self._back,
            self._on,
        )
        self.layout = Column(self.tools, self.table, sizing_mode="stretch_width")

    @property
    def ordered(self) -> Int:
        """All rows of the list in the order they are shown in."""
        return self._ordered

    def show(self, rows: Int) -> None:
        """Show the first page of some rows."""
        self._rows = rows
        self._sort()

    def state(self) -> dict[str, Any]:
        """Return the order as values of JSON."""
        return {"by": self._order.value, "descending": bool(self._falling.active)}

    def restore(self, state: dict[str, Any]) -> None:
        """Bring the list into an order.

        Raises
        ------
        InputError
            When there is no such order.
        """
        by = state.get("by", "sky")
        if by not in ORDERS:
            raise InputError("the list has no such order", field="order")
        self._quiet = True
        self._order.value, self._falling.active = by, state.get("descending") is True
        self._quiet = False
        self._sort()

    def _sort(self) -> None:
        if self._quiet:
            return
        falling = bool(self._falling.active)
        self._falling.label = "↓" if falling else "↑"
        self._ordered = self._listing.ordered(self._rows, self._order.value, falling)
        self._first = 0
        self._fill()

    def _turn(self, pages: int) -> None:
        first = self._first + pages * PAGE
        if 0 <= first < self._ordered.size:
            self._first = first
            self._fill()

    def _fill(self) -> None:
        self._shown = self._ordered[self._first : self._first + PAGE]
        total, last = self._ordered.size, self._first + self._shown.size
        self._quiet = True
        self.source.selected.indices = []
        self.source.data = self._listing.table(self._shown)
        self._quiet = False
        # What is one page the browser orders by any column; more of it is ordered here.
        self.table.sortable = total <= PAGE
        self._back.disabled, self._on.disabled = self._first == 0, last >= total
        count = len(self._listing.store)
        whole = (
            f"{total:,} of {count:,} observations"
            if total < count or total <= PAGE
            else f"{total:,} observations"
        )
        self._told.text = whole if total <= PAGE else f"{self._first + 1:,}–{last:,} of {whole}"

    def _clicked(self, indices: list[int]) -> None:
        if not self._quiet and indices and 0 <= indices[0] < self._shown.size:
            self._on_row(int(self._shown[indices[0]]))


def _column(name: str) -> TableColumn:
    formatter = (
        NumberFormatter(format=_FORMATS[name], nan_format="", null_format="", text_align="right")
        if name in _FORMATS
        else StringFormatter()
    )
    return TableColumn(
        field=name, title=_TITLES.get(name, name), width=_WIDTHS.get(name, 70), formatter=formatter
    )
