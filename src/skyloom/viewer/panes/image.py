"""The image pane: any plane of the shelf at the level that the screen resolves, and what is picked in it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from bokeh.document import Document
from bokeh.events import SelectionGeometry, Tap
from bokeh.layouts import column, row
from bokeh.models import Div, RadioButtonGroup, RangeSlider, Select, Slider, TextInput

from skyloom.errors import InputError, SkyloomError
from skyloom.viewer.panes.latest import Latest
from skyloom.viewer.panes.outline import bin_outline, closed
from skyloom.viewer.panes.picture import NO_IMAGE, Picture
from skyloom.viewer.panes.sky_grid import local_scale, pixel_at, sky_grid
from skyloom.viewer.panes.stretch import (
    LIMITS,
    PALETTES,
    STRETCHES,
    bar_ticks,
    colour_indices,
    limits_of,
    number_text,
)
from skyloom.viewer.planes.cubes import CHANNEL, RANGE, CubePlanes
from skyloom.viewer.protocols import Box, PlaneSource, PlaneView, Region

__all__ = ["ImagePane"]

LAYER_NAMES = {"value": "value", "error": "error", "snr": "S/N", "mask": "mask"}
OVERVIEW = (480, 480)
"""Pixels of the whole image that stay behind the view, for panning and for the limits."""
SCREEN = (700, 560)
"""What is taken for the screen until the browser has said how large it is."""


class _Request(NamedTuple):
    """What is to be seen."""

    source: PlaneSource
    layer: str
    plane: int
    channel: int | None
    channels: tuple[int, int] | None
    box: Box
    pixels: tuple[int, int]
    needs_overview: bool


class _Shown(NamedTuple):
    """What was read for it; values and errors are for the read-out."""

    request: _Request
    view: PlaneView
    values: PlaneView
    errors: PlaneView | None
    overview: PlaneView | None
    seconds: float


class ImagePane:
    """One image of the page.

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
        on_pick: Callable[[Region], None],
        *,
        number: int = 1,
    ) -> None:
        self._open, self._on_pick = opener, on_pick
        self.source: PlaneSource | None = None
        self.key = ""
        self.shown: _Shown | None = None
        self.on_source: list[Callable[[], None]] = []
        self._overview: PlaneView | None = None
        self._overview_of: tuple[Any, ...] = ()
        self._is_quiet = False
        self._latest: Latest[_Shown] = Latest(document, self._apply, self._complain)
        self.picture = Picture(number)
        self._make_widgets(choices, number)
        self._connect()
        self.layout = self._arranged(number)

    # --- widgets ----------------------------------------------------------------------------------------

    def _make_widgets(self, choices: Mapping[str, list[tuple[str, str]]], number: int) -> None:
        wide = {"sizing_mode": "stretch_width"}
        self.entry = Select(options=dict(choices), value="", name=f"entry-select-{number}", **wide)
        self.plane = Select(options=[], name=f"plane-select-{number}", **wide)
        self.layer = RadioButtonGroup(labels=[], name=f"layer-{number}", css_classes=["layers"])
        self.stretch = Select(
            options=list(STRETCHES), value="asinh", name=f"stretch-select-{number}", width=84
        )
        self.limits = Select(options=list(LIMITS), value="99.5 %", name=f"limits-select-{number}", width=104)
        self.low = TextInput(value="", name=f"low-{number}", width=84, placeholder="from")
        self.high = TextInput(value="", name=f"high-{number}", width=84, placeholder="to")
        self.palette = Select(options=list(PALETTES), value="inferno", name=f"colours-{number}", width=118)
        self.channel = Slider(
            start=0, end=1, value=0, step=1, title="channel", name=f"channel-{number}", visible=False, **wide
        )
        self.range = RangeSlider(
            start=0,
            end=1,
            value=(0, 1),
            step=1,
            title="channels",
            name=f"range-{number}",
            visible=False,
            **wide,
        )
        self.message = Div(text="", name=f"message-{number}", visible=False, css_classes=["message"], **wide)

    def _arranged(self, number: int) -> Any:
        first = row(self.entry, self.plane, sizing_mode="stretch_width", spacing=8)
        second = row(
            self.layer, self.stretch, self.limits, self.low, self.high, self.palette,
            sizing_mode="stretch_width", spacing=6, css_classes=["controls"],
        )  # fmt: skip
        return column(
            first, second, self.channel, self.range, self.message, self.picture.figure, self.picture.read_out,
            sizing_mode="stretch_both", spacing=6, name=f"image-pane-{number}",
        )  # fmt: skip

    def _connect(self) -> None:
        self.entry.on_change("value", lambda _attr, _old, new: self._guarded(lambda: self.show(new)))
        self.plane.on_change("value", lambda _attr, _old, _new: self._plane_changed())
        self.layer.on_change("active", lambda _attr, _old, _new: self.refresh())
        for widget in (self.stretch, self.limits):
            widget.on_change("value", lambda _attr, _old, _new: self._guarded(self._recolour))
        for widget in (self.low, self.high):
            widget.on_change("value", lambda _attr, _old, _new: self._guarded(self._typed))
        self.palette.on_change("value", lambda _attr, _old, new: self.picture.colours(new))
        self.channel.on_change("value", lambda _attr, _old, _new: self._channel_changed())
        self.range.on_change("value_throttled", lambda _attr, _old, _new: self._channel_changed())
        shown = self.picture.figure
        for axis in (shown.x_range, shown.y_range):
            for edge in ("start", "end"):
                axis.on_change(edge, lambda _attr, _old, _new: self.refresh())
        for size in ("inner_width", "inner_height"):
            shown.on_change(size, lambda _attr, _old, _new: self.refresh())
        shown.on_event(Tap, self._tapped)
        shown.on_event(SelectionGeometry, self._lassoed)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do what a widget asked for; what is wrong with it is said in the pane."""
        if self._is_quiet:
            return
        try:
            work()
        except SkyloomError as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not isinstance(error, (SkyloomError, OSError)):
            raise error
        self.message.text = str(error).replace("&", "&amp;").replace("<", "&lt;")
        self.message.visible = True

    # --- what is shown ----------------------------------------------------------------------------------

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
        self.message.visible = False
        self._is_quiet = True
        try:
            self.entry.value = key
            self.plane.options = [(str(number), name) for number, name in enumerate(source.planes)]
            self.plane.value = str(_first_plane(source))
            self.plane.visible = len(source.planes) > 1
            self.layer.labels = [LAYER_NAMES[layer] for layer in source.layers]
            self.layer.active = 0
            self._show_channels(source)
        finally:
            self._is_quiet = False
        self._overview, self._overview_of = None, ()
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

    def _show_channels(self, source: PlaneSource) -> None:
        count = source.n_channels
        is_cube = count is not None and count > 1
        if is_cube and count is not None:
            self.channel.update(end=count - 1, value=count // 2)
            first, last = getattr(source, "channels", (0, count))
            self.range.update(end=count - 1, value=(first, last - 1))
        self._name_channels()

    def _name_channels(self) -> None:
        """Show the slider that belongs to the plane, with its wavelengths."""
        source = self.source
        is_cube = source is not None and source.n_channels is not None and source.n_channels > 1
        number = self._plane_number
        has_range = isinstance(source, CubePlanes)
        self.channel.visible = is_cube and (number == CHANNEL or not has_range)
        self.range.visible = is_cube and has_range and number == RANGE
        wave = None if source is None else source.wave
        if not is_cube or wave is None:
            return
        self.channel.title = f"{wave[int(self.channel.value)]:.2f} Å · channel"
        first, last = (int(value) for value in self.range.value)
        self.range.title = f"{wave[first]:.2f} to {wave[last]:.2f} Å · channels"

    @property
    def _plane_number(self) -> int:
        return int(self.plane.value) if self.plane.value else 0

    def _plane_changed(self) -> None:
        if not self._is_quiet:
            self._name_channels()
            self.refresh()

    def _channel_changed(self) -> None:
        if not self._is_quiet:
            self._name_channels()
            self.refresh()

    def refresh(self) -> None:
        """Read what the screen shows, as soon as it stands still."""
        if self.source is None or self._is_quiet:
            return
        request = self._request(self.source)
        self._latest.ask(lambda: _read(request))

    def _request(self, source: PlaneSource) -> _Request:
        shown = self.picture.figure
        box = (shown.x_range.start, shown.x_range.end, shown.y_range.start, shown.y_range.end)
        screen = self.picture.screen
        if screen is None:
            box = (-0.5, source.shape[1] - 0.5, -0.5, source.shape[0] - 0.5)
        active = 0 if self.layer.active is None else self.layer.active
        layer = source.layers[min(active, len(source.layers) - 1)]
        is_cube = source.n_channels is not None
        channel = int(self.channel.value) if is_cube else None
        channels = None
        if isinstance(source, CubePlanes):
            first, last = (int(value) for value in self.range.value)
            channels = (first, last + 1)
        wanted = (self.key, layer, self._plane_number, channel, channels)
        request = _Request(
            source,
            layer,
            self._plane_number,
            channel,
            channels,
            box,
            screen or SCREEN,
            wanted != self._overview_of,
        )
        return request

    def _apply(self, shown: _Shown) -> None:
        request = shown.request
        if request.source is not self.source:
            return
        self.shown = shown
        if shown.overview is not None:
            self._overview = shown.overview
            self._overview_of = (self.key, request.layer, request.plane, request.channel, request.channels)
        self._recolour()
        self._probe(shown)
        self.message.visible = False

    # --- colours ----------------------------------------------------------------------------------------

    def _recolour(self) -> None:
        """Bring what has been read to the screen, with the limits and the stretch that are chosen."""
        if self.shown is None or self._overview is None:
            return
        low, high = self._limits()
        stretch = self.stretch.value
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

    def _limits(self) -> tuple[float, float]:
        if self.limits.value == "typed":
            return self._typed_limits()
        assert self._overview is not None
        low, high = limits_of(self._overview.values, self.limits.value)
        self._is_quiet = True
        self.low.value, self.high.value = number_text(low), number_text(high)
        self._is_quiet = False
        return low, high

    def _typed(self) -> None:
        self._is_quiet = True
        self.limits.value = "typed"
        self._is_quiet = False
        self._recolour()

    def _typed_limits(self) -> tuple[float, float]:
        try:
            low, high = float(self.low.value), float(self.high.value)
        except ValueError:
            raise InputError(
                f"the limits are {self.low.value!r} and {self.high.value!r}", remedy="type two numbers"
            ) from None
        if not (math.isfinite(low) and math.isfinite(high) and high > low):
            raise InputError(f"the limits are {low:g} and {high:g}", remedy="the second must be larger")
        return low, high

    # --- the pointer ------------------------------------------------------------------------------------

    def _probe(self, shown: _Shown) -> None:
        """Send what the read-out is computed from."""
        view, request = shown.values, shown.request
        ny, nx = view.values.shape
        directions, edges = sky_grid(request.source, (view.x0, view.x1, view.y0, view.y1))
        level = (
            "full resolution" if view.step == 1 else f"level 1/{view.step}: {shown.view.note or view.note}"
        )
        read = sum(
            part.read_bytes for part in (shown.view, shown.values, shown.errors, shown.overview) if part
        )
        status = f"{level} · read {_size(read)} in {1000 * shown.seconds:.0f} ms"
        self.picture.probe.data = {
            "values": [np.ascontiguousarray(view.values)],
            "errors": [None if shown.errors is None else np.ascontiguousarray(shown.errors.values)],
            "shown": [
                None if request.layer in ("value", "error") else np.ascontiguousarray(shown.view.values)
            ],
            "layer": [LAYER_NAMES[request.layer]],
            "frame": [[view.x0, view.y0, view.step, nx, ny]],
            "sky": [directions],
            "sky_frame": [edges],
            "unit": [view.unit],
            "status": [status],
            "read_bytes": [read],
        }
        self.picture.read_out.text = f'<span class="level">{status}</span>'

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
        shown = self.picture.figure
        return {
            "entry": self.key,
            "plane": self._plane_number,
            "layer": self.layer.active or 0,
            "stretch": self.stretch.value,
            "limits": self.limits.value,
            "low": self.low.value,
            "high": self.high.value,
            "colours": self.palette.value,
            "channel": int(self.channel.value),
            "range": [int(value) for value in self.range.value],
            "box": [shown.x_range.start, shown.x_range.end, shown.y_range.start, shown.y_range.end],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Show what `state` returned.

        Raises
        ------
        InputError
            When there is no such entry, or a value cannot be.
        """
        from skyloom.viewer.panes.image_state import checked

        wanted = checked(state)
        self.show(wanted.entry)
        source = self.source
        assert source is not None
        self._is_quiet = True
        try:
            self.plane.value = str(min(wanted.plane, len(source.planes) - 1))
            self.layer.active = min(wanted.layer, len(source.layers) - 1)
            self.stretch.value, self.limits.value = wanted.stretch, wanted.limits
            self.low.value, self.high.value = wanted.low, wanted.high
            if source.n_channels is not None:
                last = source.n_channels - 1
                self.channel.value = min(wanted.channel, last)
                self.range.value = (min(wanted.range[0], last), min(wanted.range[1], last))
            self.palette.value = wanted.colours
        finally:
            self._is_quiet = False
        self.picture.colours(wanted.colours)
        self._name_channels()
        if wanted.box is not None:
            self.picture.place(wanted.box)
        self.refresh()


def _first_plane(source: PlaneSource) -> int:
    """The plane that is shown first: of maps, one of values rather than of numbers of bins."""
    planes = source.planes
    return next((number for number, name in enumerate(planes) if name.endswith("FLUX")), 0) if planes else 0


def _read(request: _Request) -> _Shown:
    """Read what is wanted; in a thread of its own."""
    started = time.perf_counter()
    source = request.source
    if isinstance(source, CubePlanes) and request.channels is not None:
        source.select(*request.channels)

    def view(layer: str, box: Box, pixels: tuple[int, int]) -> PlaneView:
        return source.view(layer, plane=request.plane, channel=request.channel, box=box, pixels=pixels)

    shown = view(request.layer, request.box, request.pixels)
    values = shown if request.layer == "value" else view("value", request.box, request.pixels)
    errors = None
    if "error" in source.layers:
        errors = shown if request.layer == "error" else view("error", request.box, request.pixels)
    overview = None
    if request.needs_overview:
        ny, nx = source.shape
        overview = view(request.layer, (-0.5, nx - 0.5, -0.5, ny - 0.5), OVERVIEW)
    return _Shown(request, shown, values, errors, overview, time.perf_counter() - started)


def _size(count: int) -> str:
    """Write a number of bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
