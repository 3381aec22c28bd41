"""Planes that a view reads piece by piece: the blocks it needs, as values, errors, S/N or the mask."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyloom.viewer.planes.blocks import (
    Frame,
    Means,
    Pixels,
    Reader,
    block_means,
    block_note,
    frame_of,
    nearest,
)
from skyloom.viewer.planes.sky import Sky
from skyloom.viewer.protocols import LAYERS, Box, Float32, PlaneView

__all__ = ["ArrayReader", "Plane", "Planes"]

Float = NDArray[np.float64]
Int = NDArray[np.int32]
KEPT = 3
"""Views that stay in memory."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane and what reads it.

    Attributes
    ----------
    name : str
    reader : Reader
    unit : str
    is_code : bool
        Whether values are numbers of something, which have no mean.
    """

    name: str
    reader: Reader
    unit: str
    is_code: bool = False


class ArrayReader:
    """Rectangles of arrays that are in memory.

    Parameters
    ----------
    pixels : Pixels
    """

    pixel_bytes: int = 0

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return the pixels of a rectangle."""
        values, variance, bad = self._pixels
        return Pixels(
            values[rows, columns],
            None if variance is None else variance[rows, columns],
            None if bad is None else bad[rows, columns],
        )


class Planes:
    """Planes on one grid; a `PlaneSource`.

    Parameters
    ----------
    title : str
    planes : sequence of Plane
        At least one.
    shape : (ny, nx)
    sky : Sky
    has_errors, has_mask : bool
    labels : (ny, nx) int array, optional
        The bin of each pixel, negative: none.
    """

    n_channels: int | None = None
    wave: Float | None = None

    def __init__(
        self,
        title: str,
        planes: Sequence[Plane],
        shape: tuple[int, int],
        sky: Sky,
        *,
        has_errors: bool,
        has_mask: bool = True,
        labels: Int | None = None,
    ) -> None:
        self.title = title
        self.shape = shape
        self.sky = sky
        self.labels = labels
        self._planes = tuple(planes)
        self._last: OrderedDict[tuple[int, Frame], tuple[Reader, Means]] = OrderedDict()
        self.planes = tuple(plane.name for plane in self._planes)
        known = {"value": True, "error": has_errors, "snr": has_errors, "mask": has_mask}
        self.layers = tuple(layer for layer in LAYERS if known[layer])

    @property
    def unit(self) -> str:
        """Unit of the first plane; each view says its own."""
        return self._planes[0].unit

    def view(
        self, layer: str, *, plane: int = 0, channel: int | None = None, box: Box, pixels: tuple[int, int]
    ) -> PlaneView:
        """Return what is seen of a box on a screen; see `skyloom.viewer.protocols.PlaneSource`."""
        del channel
        return self.picture(self._planes[plane], layer, box, pixels)

    def picture(self, plane: Plane, layer: str, box: Box, pixels: tuple[int, int]) -> PlaneView:
        """Return what is seen of one plane."""
        frame = frame_of(self.shape, box, pixels)
        if plane.is_code and layer == "value":
            values, read_bytes = nearest(plane.reader, frame)
            note = "" if frame.step == 1 else f"one pixel of each {frame.step} × {frame.step}"
            return PlaneView(values, *frame.extent, frame.step, plane.unit, read_bytes, note)
        means = self._means(plane.reader, frame)
        values, unit = _layer(means, layer, plane.unit)
        return PlaneView(
            values, *frame.extent, frame.step, unit, means.read_bytes, block_note(frame, means, layer)
        )

    def _means(self, reader: Reader, frame: Frame) -> Means:
        """Read what a view needs, or take it from the last ones: all layers of a view come of the same blocks."""
        key = (id(reader), frame)
        if key in self._last:
            return self._last[key][1]._replace(read_bytes=0)
        means = block_means(reader, frame)
        # The reader is kept too, so that no other one takes its number.
        self._last[key] = reader, means
        while len(self._last) > KEPT:
            self._last.popitem(last=False)
        return means

    def world(self, x: float, y: float) -> tuple[float, float] | None:
        """Return ICRS longitude and latitude of a pixel, in degrees."""
        return self.sky.world(x, y)

    def labels_at(self, x: float, y: float) -> int | None:
        """Return the number of the bin there, None where there is none."""
        if self.labels is None:
            return None
        row, column = round(y), round(x)
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            return None
        label = int(self.labels[row, column])
        return label if label >= 0 else None


def _layer(means: Means, layer: str, unit: str) -> tuple[Float32, str]:
    if layer == "mask":
        return means.masked, "masked fraction"
    if layer == "value":
        return means.values, unit
    error = np.full_like(means.values, np.nan) if means.error is None else means.error
    if layer == "error":
        return error, unit
    with np.errstate(invalid="ignore", divide="ignore"):  # Nothing is known of such pixels.
        ratio = np.where(error > 0, means.values / error, np.float32(np.nan))
    return ratio.astype(np.float32, copy=False), "S/N"
