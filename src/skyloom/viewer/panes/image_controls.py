"""What is chosen in an image pane: plane, layer, channel, and how values become colours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bokeh.layouts import row
from bokeh.models import Div, RadioButtonGroup, RangeSlider, Select, Slider, TextInput

from skyloom.errors import InputError
from skyloom.viewer.panes.image_reading import LAYER_NAMES
from skyloom.viewer.panes.image_state import ImageState
from skyloom.viewer.panes.stretch import LIMITS, PALETTES, STRETCHES, limits_of, number_text
from skyloom.viewer.planes.cubes import CHANNEL, RANGE, CubePlanes
from skyloom.viewer.protocols import Float32, PlaneSource

__all__ = ["ImageControls"]

SUITED = {
    "velocity": ("linear", "symmetric", "blue–red"),
    "quantity": ("linear", "98 %", "viridis"),
    "light": ("asinh", "99.5 %", "inferno"),
}
"""Stretch, limits and colours that a plane of each kind begins with."""
_QUANTITIES = {
    "SIGMA",
    "SNR",
    "EW",
    "FLAG",
    "BINS",
    "ERR",
    "REDSHIFT",
    "RATIO",
    "EBV",
    "AV",
    "AGE",
    "DENSITY",
}


class ImageControls:
    """The widgets of an image pane.

    Parameters
    ----------
    choices : dict
        What can be shown: headings with lists of (key, title).
    number : int
        Which pane, from 1; part of the names of the widgets.
    """

    def __init__(self, choices: Mapping[str, list[tuple[str, str]]], number: int) -> None:
        self.is_quiet = False
        self._kind = "light"
        self._suited = {kind: [*suited, "", ""] for kind, suited in SUITED.items()}
        wide = {"sizing_mode": "stretch_width"}
        self.entry = Select(options=dict(choices), value="", name=f"entry-select-{number}", **wide)
        self.plane = Select(options=[], name=f"plane-select-{number}", **wide)
        self.layer = RadioButtonGroup(labels=[], name=f"layer-{number}", css_classes=["layers"])
        stretch, limits, colours = SUITED["light"]
        self.stretch = Select(
            options=list(STRETCHES), value=stretch, name=f"stretch-select-{number}", width=84
        )
        self.limits = Select(options=list(LIMITS), value=limits, name=f"limits-select-{number}", width=104)
        self.low = TextInput(value="", name=f"low-{number}", width=84, placeholder="from")
        self.high = TextInput(value="", name=f"high-{number}", width=84, placeholder="to")
        self.palette = Select(options=list(PALETTES), value=colours, name=f"colours-{number}", width=118)
        self.channel = Slider(
            start=0, end=1, value=0, step=1, title="channel", name=f"channel-{number}", visible=False, **wide
        )
        self.range = RangeSlider(
            start=0, end=1, value=(0, 1), step=1, title="channels", name=f"range-{number}", visible=False, **wide
        )  # fmt: skip
        self.message = Div(text="", name=f"message-{number}", visible=False, css_classes=["message"], **wide)

    @property
    def rows(self) -> list[Any]:
        """The widgets, in rows."""
        return [
            row(self.entry, self.plane, sizing_mode="stretch_width", spacing=8),
            row(
                self.layer, self.stretch, self.limits, self.low, self.high, self.palette,
                sizing_mode="stretch_width", spacing=6, styles={"flex-wrap": "wrap"},
            ),
            self.channel,
            self.range,
            self.message,
        ]  # fmt: skip

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Change widgets without anything happening of it."""
        before, self.is_quiet = self.is_quiet, True
        try:
            yield
        finally:
            self.is_quiet = before

    # --- what is seen -----------------------------------------------------------------------------------

    def offer(self, key: str, source: PlaneSource) -> None:
        """Show what can be chosen of a source."""
        with self.quiet():
            self._add_choice(key, source)
            self.entry.value = key
            self.plane.options = [(str(number), name) for number, name in enumerate(source.planes)]
            self.plane.value = str(_first_plane(source))
            self.plane.visible = len(source.planes) > 1
            self.layer.labels = [LAYER_NAMES[layer] for layer in source.layers]
            self.layer.active = 0
            self._forget_typed()
            count = source.n_channels
            if count is not None and count > 1:
                self.channel.update(end=count - 1, value=count // 2)
                first, last = getattr(source, "channels", (0, count))
                self.range.update(end=count - 1, value=(first, last - 1))
            self.suit(source)
            self.name_channels(source)

    def _forget_typed(self) -> None:
        """Forget limits that were typed for another image, of every kind of plane."""
        if self.limits.value == "typed":
            self.limits.value = SUITED[self._kind][1]
        for kind, (stretch, limits, palette, _, _) in self._suited.items():
            if limits == "typed":
                self._suited[kind] = [stretch, SUITED[kind][1], palette, "", ""]

    def _add_choice(self, key: str, source: PlaneSource) -> None:
        """Name in the list what is not of the shelf, such as an observation of a store."""
        options = self.entry.options
        if not any(key == known for choices in options.values() for known, _ in choices):
            self.entry.options = {**options, "from the store": [(key, source.title)]}

    @property
    def plane_number(self) -> int:
        """Which plane is chosen."""
        return int(self.plane.value) if self.plane.value else 0

    def layer_of(self, source: PlaneSource) -> str:
        """Which layer is chosen."""
        active = 0 if self.layer.active is None else self.layer.active
        return source.layers[min(active, len(source.layers) - 1)]

    def name_channels(self, source: PlaneSource) -> None:
        """Show the slider that belongs to the plane, with its wavelengths."""
        is_cube = source.n_channels is not None and source.n_channels > 1
        has_range = isinstance(source, CubePlanes)
        self.channel.visible = is_cube and (self.plane_number == CHANNEL or not has_range)
        self.range.visible = is_cube and has_range and self.plane_number == RANGE
        wave = source.wave
        if not is_cube or wave is None:
            return
        self.channel.title = f"{wave[int(self.channel.value)]:.2f} Å · channel"
        first, last = (int(value) for value in self.range.value)
        self.range.title = f"{wave[first]:.2f} to {wave[last]:.2f} Å · channels"

    def restore(self, wanted: ImageState, source: PlaneSource | None) -> None:
        """Choose what a saved view says, as far as the source has it."""
        if source is None:
            return
        with self.quiet():
            self.plane.value = str(min(wanted.plane, max(len(source.planes) - 1, 0)))
            self.layer.active = min(wanted.layer, len(source.layers) - 1)
            self.suit(source)
            self.stretch.value, self.limits.value = wanted.stretch, wanted.limits
            self.low.value, self.high.value = wanted.low, wanted.high
            self.palette.value = wanted.colours
            if source.n_channels is not None and source.n_channels > 1:
                last = source.n_channels - 1
                self.channel.value = min(wanted.channel, last)
                self.range.value = (min(wanted.range[0], last), min(wanted.range[1], last))
            self.name_channels(source)

    # --- colours ----------------------------------------------------------------------------------------

    def suit(self, source: PlaneSource) -> None:
        """Choose stretch, limits and colours as they were last for a plane of this kind."""
        name = source.planes[self.plane_number].upper() if source.planes else ""
        kind = "light"
        if "VELOCITY" in name and "ERR" not in name:
            kind = "velocity"
        elif (
            _QUANTITIES & set(name.replace("-", " ").replace("_", " ").split())
            or self.layer_of(source) == "mask"
        ):
            kind = "quantity"
        widgets = (self.stretch, self.limits, self.palette, self.low, self.high)
        self._suited[self._kind] = [str(widget.value) for widget in widgets]
        if kind != self._kind:
            self._kind = kind
            with self.quiet():
                for widget, value in zip(widgets, self._suited[kind], strict=True):
                    widget.value = value

    def limits_for(self, values: Float32) -> tuple[float, float]:
        """Return the limits, typed or of a part of the values, and show them.

        Raises
        ------
        InputError
            When what was typed is no range.
        """
        if self.limits.value == "typed":
            return self._typed()
        low, high = limits_of(values, self.limits.value)
        with self.quiet():
            self.low.value, self.high.value = number_text(low), number_text(high)
        return low, high

    def _typed(self) -> tuple[float, float]:
        try:
            low, high = float(self.low.value), float(self.high.value)
        except ValueError:
            raise InputError(
                f"the limits are {self.low.value!r} and {self.high.value!r}", remedy="type two numbers"
            ) from None
        if not (math.isfinite(low) and math.isfinite(high) and high > low):
            raise InputError(f"the limits are {low:g} and {high:g}", remedy="the second must be larger")
        return low, high


def _first_plane(source: PlaneSource) -> int:
    """The plane that is shown first: of maps, one of light rather than of numbers of bins."""
    for wanted in ("HALPHA FLUX", "FLUX", "SNR"):
        for number, name in enumerate(source.planes):
            if name.upper().endswith(wanted):
                return number
    return 0
