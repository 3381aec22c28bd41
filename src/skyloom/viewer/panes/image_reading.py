"""What an image pane asks of its source, and what of it goes to the browser."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from skyloom.viewer.panes.sky_grid import sky_grid
from skyloom.viewer.planes.cubes import CubePlanes
from skyloom.viewer.protocols import Box, PlaneSource, PlaneView

__all__ = ["LAYER_NAMES", "SCREEN", "Request", "Shown", "probe_data", "read_request"]

LAYER_NAMES = {"value": "value", "error": "error", "snr": "S/N", "mask": "mask"}
OVERVIEW = (480, 480)
"""Pixels of the whole image that stay behind the view, for panning and for the limits."""
SCREEN = (700, 560)
"""What is taken for the screen until the browser has said how large it is."""


class Request(NamedTuple):
    """What is to be seen."""

    source: PlaneSource
    layer: str
    plane: int
    channel: int | None
    channels: tuple[int, int] | None
    box: Box
    pixels: tuple[int, int]
    needs_overview: bool

    @property
    def subject(self) -> tuple[Any, ...]:
        """All but the place: what an overview is of."""
        return id(self.source), self.layer, self.plane, self.channel, self.channels


class Shown(NamedTuple):
    """What was read for it; values and errors are for the read-out."""

    request: Request
    view: PlaneView
    values: PlaneView
    errors: PlaneView | None
    overview: PlaneView | None
    seconds: float

    @property
    def read_bytes(self) -> int:
        """What was read for all of it."""
        parts = {id(part): part for part in (self.view, self.values, self.errors, self.overview) if part}
        return sum(part.read_bytes for part in parts.values())

    @property
    def status(self) -> str:
        """Which level is seen, what its pixels mean, and what was read for it."""
        view = self.view
        level = "full resolution" if view.step == 1 else f"level 1/{view.step}"
        note = f": {view.note}" if view.note else ""
        read = (
            f"read {_size(self.read_bytes)} in {1000 * self.seconds:.0f} ms"
            if self.read_bytes
            else "from memory"
        )
        return f"{level}{note} · {read}"


def read_request(request: Request) -> Shown:
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
    return Shown(request, shown, values, errors, overview, time.perf_counter() - started)


def probe_data(shown: Shown, key: str, total_bytes: int) -> dict[str, Any]:
    """Return what the browser computes the read-out from, of which entry it is, and how much was read in all."""
    view, request = shown.values, shown.request
    ny, nx = view.values.shape
    directions, edges = sky_grid(request.source, (view.x0, view.x1, view.y0, view.y1))
    is_other = request.layer not in ("value", "error")
    return {
        "entry": [key],
        "values": [np.ascontiguousarray(view.values)],
        "errors": [None if shown.errors is None else np.ascontiguousarray(shown.errors.values)],
        "shown": [np.ascontiguousarray(shown.view.values) if is_other else None],
        "layer": [LAYER_NAMES[request.layer]],
        "frame": [[view.x0, view.y0, view.step, nx, ny]],
        "sky": [directions],
        "sky_frame": [edges],
        "unit": [view.unit],
        "status": [shown.status],
        "read_bytes": [shown.read_bytes],
        "total_bytes": [total_bytes],
    }


def _size(count: int) -> str:
    """Write a number of bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
