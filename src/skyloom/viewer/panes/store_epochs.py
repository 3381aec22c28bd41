"""A strip of cut-outs: what every epoch saw of a position, a row for each band, time to the right."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np
from bokeh.events import Tap
from bokeh.models import (
    Column,
    ColumnDataSource,
    Div,
    HoverTool,
    NumericInput,
    RadioButtonGroup,
    Range1d,
    Row,
)
from bokeh.palettes import grey
from bokeh.plotting import figure

from skyloom.viewer.panes.listening import when_changed
from skyloom.viewer.stores.epochs import MOST_STAMPS, Stamp, cut_stamps, stretched
from skyloom.viewer.stores.filters import ARCSEC, Place
from skyloom.viewer.stores.listing import Listing

__all__ = ["EpochStrip"]

SIZE = 30.0
"""Side of a cut-out, arcsec."""
_CELL = 128  # Pixels of the screen from one cut-out to the next.
_GAP = 0.06
_CAPTION = 0.17
_FIBRE = "#ffb000"
_INK = "#30363d"
_EMPTY: dict[str, list[Any]] = {
    "image": [],
    "x": [],
    "y": [],
    "dw": [],
    "obs_id": [],
    "caption": [],
    "unit": [],
}


class EpochStrip:
    """The strip.

    Parameters
    ----------
    listing : Listing
    on_image : callable
        Called with the name of the image of a cut-out that was clicked on.
    """

    def __init__(self, listing: Listing, on_image: Callable[[str], None]) -> None:
        self._listing, self._on_image = listing, on_image
        self._place: Place | None = None
        self._fibre = 0.0
        self._bands: tuple[str, ...] = ()
        self._name = ""
        self._cells: dict[tuple[int, int], str] = {}
        self._images = ColumnDataSource(dict(_EMPTY), name="store-epochs-source")
        self._fibres = ColumnDataSource({"x": [], "y": [], "w": []})
        self._told = Div(
            text="Click on the map or on an observation: all images of the place appear here.",
            name="store-epochs-title",
            margin=(6, 5, 0, 5),
        )
        self._size = NumericInput(
            value=SIZE, low=2, high=600, mode="float", width=70, name="store-epochs-size", margin=(0, 5, 0, 0)
        )
        self._stretch = RadioButtonGroup(
            labels=["one stretch", "one per band"],
            active=0,
            name="store-epochs-stretch",
            margin=(0, 5, 0, 15),
        )
        self._figure = self._make_figure()
        when_changed(self._size, "value", lambda _: self._draw())
        when_changed(self._stretch, "active", lambda _: self._draw())
        tools = Row(
            self._told,
            self._stretch,
            Div(text="side, ″", margin=(6, 3, 0, 10)),
            self._size,
            sizing_mode="stretch_width",
        )
        self._scrolled = Column(
            self._figure, sizing_mode="stretch_width", styles={"overflow-x": "auto", "overflow-y": "hidden"}
        )
        self.layout = Column(tools, self._scrolled, name="store-epochs", sizing_mode="stretch_width")

    def _make_figure(self) -> Any:
        drawing = figure(
            name="store-epochs-figure",
            width=_CELL,
            height=_CELL,
            x_range=Range1d(0, 1),
            y_range=Range1d(-1, 0),
            tools="",
            toolbar_location=None,
            min_border=0,
            outline_line_color=None,
            visible=False,
        )
        drawing.axis.visible = False
        drawing.grid.visible = False
        pictures = drawing.image(
            image="image",
            x="x",
            y="y",
            dw="dw",
            dh="dw",
            source=self._images,
            palette=grey(256),
            level="image",
        )
        pictures.glyph.color_mapper.update(low=0.0, high=1.0, nan_color="#8fa3b8")
        drawing.text(
            "x",
            "y",
            "caption",
            source=self._images,
            text_baseline="top",
            y_offset=3,
            text_font_size="11px",
            text_color=_INK,
        )
        drawing.ellipse(
            "x", "y", "w", "w", source=self._fibres, fill_color=None, line_color=_FIBRE, line_width=1.5
        )
        drawing.add_tools(
            HoverTool(renderers=[pictures], tooltips="@obs_id<br>@unit", point_policy="follow_mouse")
        )
        drawing.on_event(Tap, self._tapped)
        return drawing

    def show(
        self, place: Place | None, fibre: float = 0.0, bands: tuple[str, ...] = (), name: str = ""
    ) -> None:
        """Show what images saw of a position.

        Parameters
        ----------
        place : Place or None
        fibre : float
            Diameter of the aperture of a spectrum there, deg; 0: none.
        bands : tuple of str
            Those to be shown; none: all.
        name : str
            What is there.
        """
        self._place, self._fibre, self._bands, self._name = place, fibre, bands, name
        self._draw()

    def _draw(self) -> None:
        if self._place is None:
            self._images.data, self._fibres.data = dict(_EMPTY), {"x": [], "y": [], "w": []}
            self._figure.visible = False
            return
        rows = self._listing.covering(self._place, self._bands)
        size = float(self._size.value or SIZE)
        stamps = cut_stamps(self._listing.store, rows[:MOST_STAMPS], self._place, size)
        self._tell(len(rows), len(stamps))
        self._lay_out(stamps, size)

    def _tell(self, found: int, shown: int) -> None:
        name = f"<b>{escape(self._name)}</b> at " if self._name else ""
        place = f"{self._place.ra:.5f}° {self._place.dec:+.5f}°" if self._place else ""
        number = f"{found} image{'' if found == 1 else 's'}"
        rest = f", the first {shown} of them here" if shown < found else ""
        self._told.text = f"{name}{place}: {number}{rest}; north up, east left"

    def _lay_out(self, stamps: list[Stamp], size: float) -> None:
        rows: dict[str, list[int]] = {}
        for number, stamp in enumerate(stamps):
            rows.setdefault(stamp.band, []).append(number)
        pictures = stretched(stamps, each_band=self._stretch.active == 1)
        filled: dict[str, list[Any]] = {name: [] for name in _EMPTY}
        fibres: dict[str, list[float]] = {"x": [], "y": [], "w": []}
        self._cells = {}
        side = 1.0 - _GAP
        for line, members in enumerate(rows.values()):
            for place, number in enumerate(members):
                stamp = stamps[number]
                left, low = place + 0.5 * _GAP, -(line + 1) * (1 + _CAPTION) + _CAPTION
                filled["image"].append(pictures[number])
                filled["x"].append(left)
                filled["y"].append(low)
                filled["dw"].append(side)
                filled["obs_id"].append(stamp.obs_id)
                filled["caption"].append(f"{stamp.band}  {stamp.date}".strip())
                filled["unit"].append(stamp.unit)
                self._cells[line, place] = stamp.obs_id
                if self._fibre > 0:
                    fibres["x"].append(left + 0.5 * side)
                    fibres["y"].append(low + 0.5 * side)
                    fibres["w"].append(side * self._fibre * ARCSEC / size)
        across = max((len(members) for members in rows.values()), default=1)
        self._resize(across, max(len(rows), 1))
        self._images.data, self._fibres.data = filled, fibres
        self._figure.visible = bool(stamps)

    def _resize(self, across: int, down: int) -> None:
        self._figure.width = int(across * _CELL)
        self._figure.height = int(down * (1 + _CAPTION) * _CELL)
        self._figure.x_range.update(start=0.0, end=float(across))
        self._figure.y_range.update(start=-down * (1 + _CAPTION), end=0.0)

    def _tapped(self, event: Any) -> None:
        if event.x is None or event.y is None:
            return
        cell = int(np.floor(-event.y / (1 + _CAPTION))), int(np.floor(event.x))
        if cell in self._cells:
            self._on_image(self._cells[cell])
