"""The map of the sky: outlines of images, points of spectra, or counts per HEALPix cell; boxes are chosen on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from bokeh.events import RangesUpdate, Reset, SelectionGeometry, Tap
from bokeh.io import curdoc
from bokeh.models import (
    BoxSelectTool,
    ColorBar,
    ColumnDataSource,
    HoverTool,
    LogColorMapper,
    PanTool,
    Range1d,
    ResetTool,
    WheelZoomTool,
)
from bokeh.palettes import cividis
from bokeh.plotting import figure
from numpy.typing import NDArray

from skyloom.store.contents import Contents
from skyloom.store.search.index import KINDS
from skyloom.viewer.stores.filters import Filters, Place
from skyloom.viewer.stores.projections import (
    Mollweide,
    Projection,
    Tangent,
    Window,
    field_of,
    projection_for,
    whole_window,
)
from skyloom.viewer.stores.sky_map import box_on_sky, box_outline, circle_on_map, drawn, graticule

__all__ = ["COLOURS", "SkyMap"]

Int = NDArray[np.int64]
COLOURS = {"image": "#2563a8", "cube": "#c2571a", "spectrum": "#16856b"}
HEIGHT = 380
ASPECT = 2.0
_CHOSEN = "#d6246e"
_GRID = "#c9d1da"
_NUMBERS = "#6b7683"
_LATER = 150  # ms after the last wheel or drag
_NARROW, _WIDE = 40.0, 100.0  # deg, widths at which the projection changes
_FAR = 15.0  # deg from its centre, beyond which a tangent plane is laid anew
_COLUMNS: dict[str, list[Any]] = {"xs": [], "ys": [], "colour": [], "told": []}


class SkyMap:
    """The map.

    Parameters
    ----------
    store : Contents
    on_box : callable
        Called with a box on the sky (ra_min, ra_max, dec_min, dec_max) that was drawn.
    on_place : callable
        Called with a position that was clicked on.
    """

    def __init__(
        self,
        store: Contents,
        on_box: Callable[[tuple[float, float, float, float]], None],
        on_place: Callable[[Place], None],
    ) -> None:
        self._store, self._on_box, self._on_place = store, on_box, on_place
        self._rows: Int = np.arange(len(store))
        self._field = self._field_of(self._rows)
        self.projection: Projection = projection_for(*self._field)
        self._filters = Filters()
        self._place: Place | None = None
        self._chosen: int | None = None
        self._waiting: Any = None
        self._make_sources()
        self.figure = self._make_figure()
        self._go_home()

    def _make_sources(self) -> None:
        self._lines = ColumnDataSource({"xs": [], "ys": []})
        self._labels = ColumnDataSource({"x": [], "y": [], "text": []})
        self._outlines = ColumnDataSource(dict(_COLUMNS))
        self._points = ColumnDataSource({"x": [], "y": [], "colour": []})
        self._cells = ColumnDataSource({"xs": [], "ys": [], "count": []})
        self._region = ColumnDataSource({"xs": [], "ys": []})
        self._mark = ColumnDataSource({"x": [], "y": []})
        self._outlined = ColumnDataSource({"xs": [], "ys": []})

    def _make_figure(self) -> Any:
        pan, wheel, box = PanTool(), WheelZoomTool(zoom_on_axis=False), BoxSelectTool(renderers=[])
        drawing = figure(
            name="store-map",
            height=HEIGHT,
            aspect_ratio=ASPECT,
            sizing_mode="scale_width",
            x_range=Range1d(-1, 1),
            y_range=Range1d(-1, 1),
            tools=[pan, wheel, box, ResetTool()],
            active_drag=pan,
            active_scroll=wheel,
            toolbar_location="right",
            min_border=0,
            outline_line_color=_GRID,
        )
        drawing.xaxis.visible = drawing.yaxis.visible = False
        drawing.grid.visible = False
        drawing.toolbar.logo = None
        drawing.multi_line("xs", "ys", source=self._lines, line_color=_GRID, line_width=0.7)
        colours = LogColorMapper(palette=cividis(256), low=1, high=10)
        cells = drawing.patches(
            "xs",
            "ys",
            source=self._cells,
            fill_color={"field": "count", "transform": colours},
            line_color=None,
            fill_alpha=0.9,
            name="store-cells",
        )
        outlines = drawing.patches(
            "xs",
            "ys",
            source=self._outlines,
            fill_color="colour",
            fill_alpha=0.06,
            line_color="colour",
            line_alpha=0.7,
            line_width=1,
            name="store-outlines",
        )
        drawing.scatter("x", "y", source=self._points, size=4, color="colour", alpha=0.75, line_color=None)
        self._draw_highlights(drawing)
        self._bar = _colour_bar(colours)
        self._colours = colours
        drawing.add_layout(self._bar, "center")
        drawing.add_tools(
            HoverTool(renderers=[outlines], tooltips="@told", point_policy="follow_mouse"),
            HoverTool(renderers=[cells], tooltips="@count{0,0} observations", point_policy="follow_mouse"),
        )
        drawing.on_event(RangesUpdate, lambda _: self._moved())
        drawing.on_event(Reset, lambda _: self.home())
        drawing.on_event(Tap, lambda event: self._tapped(event.x, event.y))
        drawing.on_event(SelectionGeometry, self._boxed)
        return drawing

    def _draw_highlights(self, drawing: Any) -> None:
        """Draw the region that was asked for, what was chosen, and the numbers of the grid, above everything."""
        drawing.multi_line("xs", "ys", source=self._region, line_color=_CHOSEN, line_dash="dashed")
        drawing.patches("xs", "ys", source=self._outlined, fill_color=None, line_color=_CHOSEN, line_width=2)
        drawing.scatter(
            "x", "y", source=self._mark, marker="cross", size=16, line_color=_CHOSEN, line_width=2
        )
        drawing.text(
            "x", "y", "text", source=self._labels, text_font_size="11px", text_color=_NUMBERS,
            x_offset=4, y_offset=-3,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------- what is shown

    def show(self, rows: Int, filters: Filters) -> None:
        """Show some rows (ascending), and the region that was asked for."""
        self._rows, self._filters = rows, filters
        self.redraw()

    def choose(self, row: int | None, place: Place | None) -> None:
        """Mark an observation and a position."""
        self._chosen, self._place = row, place
        self._draw_marks()

    def home(self) -> None:
        """Show everything there is."""
        self._go_home()
        self.redraw()

    def _go_home(self) -> None:
        self.projection = projection_for(*self._field)
        self._set_window(whole_window(self.projection, self._field[2], ASPECT), is_home=True)

    def go_to(self, place: Place, radius: float) -> None:
        """Show the surroundings of a position, a radius in deg."""
        self.projection = Tangent(place.ra, place.dec)
        self._set_window(whole_window(self.projection, max(radius, 1e-3), ASPECT))
        self.redraw()

    @property
    def window(self) -> Window:
        """The part of the map that is in view."""
        x, y = self.figure.x_range, self.figure.y_range
        return float(x.start), float(x.end), float(y.start), float(y.end)

    def state(self) -> dict[str, Any]:
        """Return what is in view, as values of JSON: the centre on the sky and the width of the map, deg."""
        x0, x1, y0, y1 = self.window
        ra, dec = self.projection.backward(0.5 * (x0 + x1), 0.5 * (y0 + y1))
        if isinstance(self.projection, Mollweide) or not np.isfinite(ra + dec):
            return {"whole": True}
        return {"ra": round(float(ra), 8), "dec": round(float(dec), 8), "width": round(x1 - x0, 8)}

    def _field_of(self, rows: Int) -> tuple[float, float, float]:
        columns = self._store.index.columns
        step = max(1, rows.size // 100_000)
        return field_of(*(columns[name][rows[::step]] for name in ("s_ra", "s_dec", "radius")))

    def _set_window(self, window: Window, is_home: bool = False) -> None:
        x0, x1, y0, y1 = window
        for own, start, end in ((self.figure.x_range, x0, x1), (self.figure.y_range, y0, y1)):
            own.update(start=start, end=end)
            if is_home:
                own.update(reset_start=start, reset_end=end)

    def redraw(self) -> None:
        """Draw what is in view."""
        self._waiting = None
        seen = drawn(self._store, self._rows, self.projection, self.window)
        xs, ys = ([list(part[axis]) for part in seen.outlines] for axis in (0, 1))
        told = [
            f"{number} {kind}{'s' if number > 1 and kind != 'spectrum' else ''}"
            for number, kind in zip(seen.outline_counts, seen.outline_kinds, strict=True)
        ]
        colours = [COLOURS[kind] for kind in seen.outline_kinds]
        self._outlines.data = {"xs": xs, "ys": ys, "colour": colours, "told": told}
        index = self._store.index
        kinds = [index.kind.values[code] for code in index.kind.codes[seen.point_rows].tolist()]
        self._points.data = {
            "x": seen.points[0],
            "y": seen.points[1],
            "colour": [COLOURS.get(kind, COLOURS[KINDS[0]]) for kind in kinds],
        }
        self._cells.data = {
            "xs": [list(part[0]) for part in seen.cells],
            "ys": [list(part[1]) for part in seen.cells],
            "count": seen.counts,
        }
        low, high = min(seen.counts, default=1), max(seen.counts, default=10)
        self._colours.update(low=low, high=max(high, low + 1))
        self._bar.visible = bool(seen.counts)
        lines = graticule(self.projection, self.window)
        self._lines.data = {"xs": [x for x, _ in lines.lines], "ys": [y for _, y in lines.lines]}
        x, y, text = zip(*lines.labels, strict=True) if lines.labels else ((), (), ())
        self._labels.data = {"x": list(x), "y": list(y), "text": list(text)}
        self._draw_marks()

    def _draw_marks(self) -> None:
        regions = []
        if self._filters.box is not None:
            regions.append(box_outline(self.projection, self._filters.box))
        if self._filters.cone is not None and self._filters.cone[2] > 0:
            x, y = circle_on_map(self.projection, *self._filters.cone)
            regions.append((np.append(x, x[0]), np.append(y, y[0])))
        self._region.data = {"xs": [x for x, _ in regions], "ys": [y for _, y in regions]}
        place = None if self._place is None else self.projection.forward(self._place.ra, self._place.dec)
        self._mark.data = (
            {"x": [], "y": []} if place is None else {"x": [float(place[0])], "y": [float(place[1])]}
        )
        outline = {"xs": [], "ys": []} if self._chosen is None else self._outline_of(self._chosen)
        self._outlined.data = outline

    def _outline_of(self, row: int) -> dict[str, list[Any]]:
        one = drawn(self._store, np.array([row]), self.projection, self.window)
        return {"xs": [x for x, _ in one.outlines], "ys": [y for _, y in one.outlines]}

    # ------------------------------------------------------------------------------------------- what was done

    def _moved(self) -> None:
        """Draw anew a moment after the last movement, not for each turn of a wheel."""
        if self._waiting is None:
            self._waiting = curdoc().add_timeout_callback(self._settle, _LATER)

    def _settle(self) -> None:
        """Change the projection where another one shows the view better, then draw it."""
        x0, x1, y0, y1 = self.window
        width, middle = x1 - x0, (0.5 * (x0 + x1), 0.5 * (y0 + y1))
        ra, dec = (float(value) for value in self.projection.backward(*middle))
        if isinstance(self.projection, Tangent) and width > _WIDE:
            self.projection = Mollweide(round(ra / 15.0) * 15.0 % 360.0)
            self._set_window(whole_window(self.projection, 180.0, ASPECT))
        elif np.isfinite(ra + dec):
            is_narrow = isinstance(self.projection, Mollweide) and width < _NARROW
            if is_narrow or (isinstance(self.projection, Tangent) and np.hypot(*middle) > _FAR):
                self.projection = Tangent(ra, dec)
                half = 0.5 * width
                self._set_window((-half, half, -half / ASPECT, half / ASPECT))
        self.redraw()

    def _tapped(self, x: float | None, y: float | None) -> None:
        if x is None or y is None:
            return
        ra, dec = (float(value) for value in self.projection.backward(x, y))
        if np.isfinite(ra + dec):
            self._on_place(Place(ra % 360.0, dec))

    def _boxed(self, event: Any) -> None:
        geometry = event.geometry
        if not event.final or geometry.get("type") != "rect":
            return
        x0, x1, y0, y1 = (float(geometry[name]) for name in ("x0", "x1", "y0", "y1"))
        if x1 - x0 <= 0 or y1 - y0 <= 0:
            return
        box = box_on_sky(self.projection, (x0, x1, y0, y1))
        if box is not None:
            self._on_box(box)


def _colour_bar(colours: LogColorMapper) -> ColorBar:
    return ColorBar(
        color_mapper=colours,
        location="bottom_right",
        orientation="horizontal",
        title="observations per cell",
        width=180,
        height=8,
        padding=6,
        background_fill_alpha=0.75,
        visible=False,
    )
