"""The image pane: any plane of the shelf at the level that the screen resolves, and what is picked in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.events import SelectionGeometry, Tap
from bokeh.layouts import column

from skyloom.errors import SkyloomError
from skyloom.viewer.panes.image_controls import ImageControls
from skyloom.viewer.panes.image_reading import LAYER_NAMES, SCREEN, Request, Shown, probe_data, read_request
from skyloom.viewer.panes.image_state import checked
from skyloom.viewer.panes.latest import Latest
from skyloom.viewer.panes.listening import when_changed
from skyloom.viewer.panes.outline import bin_outline, closed
from skyloom.viewer.panes.picture import NO_IMAGE, NO_READING, Picture
from skyloom.viewer.panes.sky_grid import local_scale, pixel_at
from skyloom.viewer.panes.stretch import bar_ticks, colour_indices
from skyloom.viewer.planes.cubes import CubePlanes
from skyloom.viewer.protocols import PlaneSource, PlaneView, Region

__all__ = ["ImagePane"]


class ImagePane:
    """One image of the page; it consists of an empty layout until it has something to show, or `fill` is called.

    Parameters
    ----------
    document : bokeh Document
    opener : callable
        Gives the `PlaneSource` of a key; raises `InputError` for one that there is none of.
    choices : dict
        What can be chosen: headings with lists of (key, title), as `bokeh.models.Select` takes them.
    on_pick : callable
        Takes the `Region` that was clicked or lassoed.
    number : int
        Which pane, from 1; part of the names of its models.
    """

    def __init__(
        self,
        document: Document,
        opener: Callable[[str], PlaneSource],
        choices: Mapping[str, list[tuple[str, str]]],
        on_pick: Callable[[Region], object],
        *,
        number: int = 1,
    ) -> None:
        self._open, self._on_pick = opener, on_pick
        self.source: PlaneSource | None = None
        self.key = ""
        self.shown: Shown | None = None
        self.total_bytes = 0
        self.on_source: list[Callable[[], None]] = []
        self._overview: PlaneView | None = None
        self._overview_of: tuple[Any, ...] = ()
        self._latest: Latest[Shown] = Latest(document, self._apply, self._complain)
        self._choices, self._number = choices, number
        self.layout = column(
            sizing_mode="stretch_both", spacing=6, name=f"image-pane-{number}", styles={"min-width": "0"}
        )

    @cached_property
    def picture(self) -> Picture:
        """The figure and what it shows."""
        return Picture(self._number)

    @cached_property
    def controls(self) -> ImageControls:
        """The widgets above it."""
        return ImageControls(self._choices, self._number)

    def fill(self) -> None:
        """Make all that the pane consists of, unless it is there."""
        if not self.layout.children:
            self._connect()
            self.layout.children = [*self.controls.rows, self.picture.figure, self.picture.read_out]

    def _connect(self) -> None:
        controls, shown = self.controls, self.picture.figure
        when_changed(controls.entry, "value", self.try_to_show)
        for widget, name in (
            (controls.plane, "value"),
            (controls.layer, "active"),
            (controls.channel, "value"),
            (controls.range, "value_throttled"),
        ):
            when_changed(widget, name, lambda _: self._guarded(self._choose))
        for widget in (controls.stretch, controls.limits):
            when_changed(widget, "value", lambda _: self._guarded(self._recolour))
        for widget in (controls.low, controls.high):
            when_changed(widget, "value", lambda _: self._guarded(self._typed))
        when_changed(controls.palette, "value", self.picture.colours)
        for axis in (shown.x_range, shown.y_range):
            for edge in ("start", "end"):
                when_changed(axis, edge, lambda _: self.refresh())
        for size in ("inner_width", "inner_height"):
            when_changed(shown, size, lambda _: self.refresh())
        shown.on_event(Tap, self._tapped)
        shown.on_event(SelectionGeometry, self._lassoed)

    def _guarded(self, work: Callable[[], object]) -> None:
        """Do what a widget asked for; what is wrong with it is said in the pane."""
        if self.controls.is_quiet:
            return
        try:
            work()
        except (SkyloomError, OSError) as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not isinstance(error, (SkyloomError, OSError)):
            raise error
        message = self.controls.message
        message.text = escape(str(error))
        message.visible = True

    # --- what is shown ----------------------------------------------------------------------------------

    def try_to_show(self, key: str) -> None:
        """Show an entry of the shelf, or say in the pane what is wrong with it."""
        self._guarded(lambda: self.show(key))

    def show(self, key: str) -> None:
        """Show an entry of the shelf, all of it.

        Raises
        ------
        InputError
            When there is no such entry, or it cannot be read.
        """
        self.show_source(self._open(key), key)

    def show_source(self, source: PlaneSource, key: str, place: tuple[float, float] | None = None) -> None:
        """Show planes from elsewhere, such as an observation of a store.

        Parameters
        ----------
        source : PlaneSource
        key : str
            By which the opener finds it again.
        place : (longitude, latitude), optional
            ICRS degrees that the view is centred on; the whole image is shown otherwise.
        """
        self.source, self.key = source, key
        self.fill()
        self.controls.message.visible = False
        self.controls.offer(key, source)
        self._overview, self._overview_of, self.shown = None, (), None
        self.picture.probe.data = dict(NO_READING)
        for data in (self.picture.image, self.picture.overview):
            data.data = NO_IMAGE
        self.clear_outline()
        self.picture.orient(local_scale(source))
        centre = None if place is None else pixel_at(source, *place)
        if centre is None:
            self.picture.home(source.shape)
        else:
            half = 0.15 * max(source.shape)
            self.picture.place((centre[0] - half, centre[0] + half, centre[1] - half, centre[1] + half))
        for listener in self.on_source:
            listener()
        self.refresh()

    def _choose(self) -> None:
        """Follow the choice of a plane, a layer or a channel."""
        if self.source is not None:
            self.controls.suit(self.source)
            self.controls.name_channels(self.source)
            self.refresh()

    def refresh(self) -> None:
        """Read what the screen shows, as soon as it stands still."""
        if self.source is None or self.controls.is_quiet:
            return
        request = self._request(self.source)
        self._latest.ask(lambda: read_request(request))

    def _request(self, source: PlaneSource) -> Request:
        shown, controls = self.picture.figure, self.controls
        box = (shown.x_range.start, shown.x_range.end, shown.y_range.start, shown.y_range.end)
        screen = self.picture.screen
        if screen is None:
            box = (-0.5, source.shape[1] - 0.5, -0.5, source.shape[0] - 0.5)
        channel = None if source.n_channels is None else int(controls.channel.value)
        channels = None
        if isinstance(source, CubePlanes):
            first, last = (int(value) for value in controls.range.value)
            channels = (first, last + 1)
        layer = controls.layer_of(source)
        request = Request(
            source,
            layer,
            controls.plane_number,
            channel,
            channels,
            box,
            screen or SCREEN,
            needs_overview=False,
        )
        return request._replace(needs_overview=request.subject != self._overview_of)

    def _apply(self, shown: Shown) -> None:
        request = shown.request
        if request.source is not self.source:
            return
        self.shown = shown
        self.total_bytes += shown.read_bytes
        if shown.overview is not None:
            self._overview = shown.overview
            self._overview_of = request.subject
        self._guarded(self._paint)
        self.picture.probe.data = probe_data(shown, self.key, self.total_bytes)
        self.picture.read_out.text = f'<span class="level">{shown.status}</span>'

    # --- colours ----------------------------------------------------------------------------------------

    def _recolour(self) -> None:
        """Follow a choice of limits or stretch; what was wrong with the last one is forgotten."""
        self._paint()
        self.controls.message.visible = False

    def _paint(self) -> None:
        """Bring what has been read to the screen, with the limits and the stretch that are chosen."""
        if self.shown is None or self._overview is None:
            return
        low, high = self.controls.limits_for(self._overview.values)
        stretch = self.controls.stretch.value
        if self.picture.palette != self.controls.palette.value:
            self.picture.colours(self.controls.palette.value)
        for data, view in ((self.picture.overview, self._overview), (self.picture.image, self.shown.view)):
            indices = colour_indices(view.values, low, high, stretch)
            data.data = {
                "image": [indices],
                "x": [view.x0],
                "y": [view.y0],
                "dw": [view.x1 - view.x0],
                "dh": [view.y1 - view.y0],
            }
        ticks, texts = bar_ticks(low, high, stretch)
        bar = self.picture.bar
        bar.ticker.ticks = ticks
        bar.major_label_overrides = texts
        bar.title = self._bar_title()

    def _bar_title(self) -> str:
        assert self.shown is not None
        request, view = self.shown.request, self.shown.view
        name = request.source.planes[request.plane] if request.source.planes else ""
        kind = "" if request.layer == "value" else LAYER_NAMES[request.layer]
        unit = f"({view.unit})" if view.unit and view.unit != LAYER_NAMES.get(request.layer) else ""
        return "  ".join(part for part in (name, kind, unit) if part)

    def _typed(self) -> None:
        with self.controls.quiet():
            self.controls.limits.value = "typed"
        self._recolour()

    # --- the pointer ------------------------------------------------------------------------------------

    def _tapped(self, event: Tap) -> None:
        if event.x is None or event.y is None or self.source is None:
            return
        ny, nx = self.source.shape
        if not (-0.5 <= event.x <= nx - 0.5 and -0.5 <= event.y <= ny - 0.5):
            return
        self._pick(np.array([event.x], dtype=float), np.array([event.y], dtype=float))

    def _lassoed(self, event: SelectionGeometry) -> None:
        geometry = event.geometry or {}
        if not event.final or geometry.get("type") != "poly":
            return
        x, y = (np.asarray(geometry.get(axis, ()), dtype=float) for axis in ("x", "y"))
        if x.size >= 3 and x.size == y.size and np.isfinite(x).all() and np.isfinite(y).all():
            self._pick(x, y)

    def _pick(self, x: Any, y: Any) -> None:
        region = Region(x, y, self.key)
        self.outline(region)
        self._guarded(lambda: self._on_pick(region))

    def outline(self, region: Region) -> None:
        """Draw what was picked: the bin, the pixel, or the line of the lasso."""
        assert self.source is not None
        if region.x.size > 1:
            xs, ys = closed(region.x, region.y)
        else:
            xs, ys = bin_outline(self.source, float(region.x[0]), float(region.y[0]))
        self.picture.outline.data = {"xs": xs, "ys": ys}

    def clear_outline(self) -> None:
        """Draw nothing."""
        self.picture.outline.data = {"xs": [], "ys": []}

    # --- saving -----------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that decides what is seen, as plain values."""
        shown, controls = self.picture.figure, self.controls
        return {
            "entry": self.key,
            "plane": controls.plane_number,
            "layer": controls.layer.active or 0,
            "stretch": controls.stretch.value,
            "limits": controls.limits.value,
            "low": controls.low.value,
            "high": controls.high.value,
            "colours": controls.palette.value,
            "channel": int(controls.channel.value),
            "range": [int(value) for value in controls.range.value],
            "box": [shown.x_range.start, shown.x_range.end, shown.y_range.start, shown.y_range.end],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Show what `state` returned.

        Raises
        ------
        InputError
            When there is no such entry, or a value cannot be.
        """
        wanted = checked(state)
        if not wanted.entry:
            return
        self.show(wanted.entry)
        self.controls.restore(wanted, self.source)
        self.picture.colours(wanted.colours)
        if wanted.box is not None:
            self.picture.place(wanted.box)
        self.refresh()
