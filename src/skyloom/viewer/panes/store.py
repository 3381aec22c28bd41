"""The store pane: a map of the sky, filters, the list of observations, and what every epoch saw of a place."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np
from bokeh.models import Column, Div, Row
from numpy.typing import NDArray

from skyloom.errors import InputError, SkyloomError
from skyloom.store.contents import Contents, plural
from skyloom.viewer.panes.store_epochs import EpochStrip
from skyloom.viewer.panes.store_filters import FilterWidgets
from skyloom.viewer.panes.store_map import COLOURS, SkyMap
from skyloom.viewer.panes.store_table import ObservationTable
from skyloom.viewer.planes.store import StorePlanes
from skyloom.viewer.stores.filters import Filters, Place
from skyloom.viewer.stores.listing import Listing

__all__ = ["StorePane"]

Int = NDArray[np.int64]


class StorePane:
    """What a store holds.

    Parameters
    ----------
    store : Contents
    on_image : callable
        Called with the planes of an image or a cube that was chosen, and the position it was chosen for.
    on_spectrum : callable
        Called with the name of a spectrum that was chosen.

    Attributes
    ----------
    layout : Bokeh model
    epochs : Bokeh model
        The cut-outs of all epochs, to be put below the spectrum.
    """

    def __init__(
        self,
        store: Contents,
        on_image: Callable[[StorePlanes, Place | None], object],
        on_spectrum: Callable[[str], object],
    ) -> None:
        self.store = store
        self._on_image, self._on_spectrum = on_image, on_spectrum
        self.listing = Listing(store)
        self._chosen: int | None = None
        self._place: Place | None = None
        self._message = Div(text="", name="store-message", sizing_mode="stretch_width", visible=False)
        self._filters = FilterWidgets(self.listing, self._filtered, self._typed, self._failed)
        self._map = SkyMap(store, self._filters.choose_box, self._tapped)
        self._table = ObservationTable(self.listing, self._open_row)
        self._epochs = EpochStrip(self.listing, self._open_stamp)
        self.epochs = self._epochs.layout
        legend = Div(text=_legend(self.listing), margin=(0, 5, 5, 5))
        self.layout = Column(
            self._message,
            Row(
                self._filters.layout,
                Column(self._map.figure, legend, sizing_mode="stretch_width"),
                sizing_mode="stretch_width",
            ),
            self._table.layout,
            name="store-pane",
            sizing_mode="stretch_width",
        )
        self._filtered()

    @property
    def filters(self) -> Filters:
        """What the list is narrowed by."""
        return self._filters.filters

    @property
    def rows(self) -> Int:
        """All rows of the list, in its order."""
        return self._table.ordered

    def state(self) -> dict[str, Any]:
        """Return what is seen, as values of JSON."""
        state: dict[str, Any] = {
            "filters": self.filters.plain(),
            "order": self._table.state(),
            "map": self._map.state(),
        }
        if self._chosen is not None:
            state["chosen"] = self.store.column("obs_id", [self._chosen])[0].decode()
        elif self._place is not None:
            state["place"] = [self._place.ra, self._place.dec]
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Bring back what was seen.

        Raises
        ------
        InputError
            When the state is not one of a store pane, or names what this store does not hold.
        """
        filters = Filters.from_plain(_mapping(state, "filters"))
        chosen = state.get("chosen")
        if chosen is not None and not isinstance(chosen, str):
            raise InputError("the chosen observation is no name", field="chosen")
        row = None if chosen is None else self.store.row(chosen[:200])
        place = None if state.get("place") is None else _place(state["place"])
        seen = _mapping(state, "map")
        centre = None if seen.get("whole") is True or not seen else _place([seen.get("ra"), seen.get("dec")])
        width = seen.get("width", 1.0)
        if not _is_number(width) or not 0 < width < 360:
            raise InputError("the width of the map is no number of degrees", field="map")
        order = _mapping(state, "order")
        self._filters.show(filters)
        self._table.restore(order)
        self._filtered()
        if centre is None:
            self._map.home()
        else:
            self._map.go_to(centre, 0.5 * width / 2.2)
        if row is not None:
            self._choose(row)
        elif place is not None:
            self._tapped(place)

    # ------------------------------------------------------------------------------------------- what was done

    def _filtered(self) -> None:
        self._message.visible = False
        try:
            filters = self.filters
            rows = self.listing.select(filters)
        except InputError as error:
            self._failed(error)
            return
        self._table.show(rows)
        self._map.show(rows, filters)

    def _failed(self, error: SkyloomError) -> None:
        self._message.text = f'<span style="color:#b3261e">{escape(str(error))}</span>'
        self._message.visible = True

    def _typed(self, place: Place, name: str) -> None:
        self._message.visible = False
        self._place = place
        if name:
            self._choose(self.store.row(name))
        else:
            self._chosen = None
            self._mark(place)
            self._epochs.show(place, bands=self.filters.bands)

    def _tapped(self, place: Place) -> None:
        """Show what all epochs saw of a position on the map."""
        self._chosen, self._place = None, place
        self._mark(place)
        self._epochs.show(place, bands=self.filters.bands)

    def _mark(self, place: Place | None) -> None:
        self._map.choose(self._chosen, place)

    def _open_row(self, row: int) -> None:
        """Open an observation of the list, and show its surroundings."""
        self._message.visible = False
        self._choose(row)
        try:
            self._open(row)
        except SkyloomError as error:
            self._failed(error)

    def _choose(self, row: int) -> None:
        """Mark an observation on the map, and show what all epochs saw of its middle."""
        columns = self.store.index.columns
        place = Place(float(columns["s_ra"][row]), float(columns["s_dec"][row]))
        self._chosen = row
        if not np.isfinite(place.ra + place.dec):
            self._place = None
            self._epochs.show(None)
            return
        self._place = place
        self._mark(place)
        radius = float(np.nan_to_num(columns["radius"][row]))
        is_spectrum = self._kind(row) == "spectrum"
        name = self.store.column("obs_id", [row])[0].decode() if is_spectrum else ""
        self._epochs.show(place, 2.0 * radius if is_spectrum else 0.0, self.filters.bands, name)

    def _kind(self, row: int) -> str:
        kind = self.store.index.kind
        return kind.values[int(kind.codes[row])]

    def _open(self, row: int) -> None:
        name = self.store.column("obs_id", [row])[0].decode()
        if self._kind(row) == "spectrum":
            self._on_spectrum(name)
        else:
            self._on_image(StorePlanes(self.store, name), None)

    def _open_stamp(self, name: str) -> None:
        try:
            self._on_image(StorePlanes(self.store, name), self._place)
        except SkyloomError as error:
            self._failed(error)


def _legend(listing: Listing) -> str:
    dots = " ".join(
        f'<span style="color:{COLOURS[kind]}">●</span> {plural(kind)} &nbsp;' for kind in listing.facets.kinds
    )
    return (
        f"{dots} wheel: zoom &nbsp; drag: move &nbsp; click: all epochs of a place &nbsp; "
        "box tool: what lies in a box"
    )


def _mapping(state: dict[str, Any], name: str) -> dict[str, Any]:
    value = state.get(name, {})
    if not isinstance(value, dict):
        raise InputError(f"{name} is no mapping", field=name)
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _place(value: object) -> Place:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_number(number) for number in value):
        raise InputError("a position is not two numbers", field="place")
    if not -90 <= value[1] <= 90:
        raise InputError(f"({value[0]:g}, {value[1]:g}) is no position in deg", field="place")
    return Place(float(value[0]) % 360.0, float(value[1]))
