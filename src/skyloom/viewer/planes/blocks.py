"""Which pixels a view needs, and what remains of them at its level: means of square blocks, masked pixels left out.

The blocks of a level begin at the first pixel of the image, whatever the view, so that nothing shimmers when it moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from skyloom.viewer.protocols import Box, Float32

__all__ = ["Frame", "Means", "Pixels", "Reader", "block_means", "block_note", "frame_of", "nearest"]

Float = NDArray[np.float64]
MOST_BYTES = 96 << 20
"""Of a view; beyond that not all rows of a block are read, and the view says so."""
STRIP_BYTES = 4 << 20
"""Read at a time."""


class Pixels(NamedTuple):
    """A rectangle of pixels.

    Attributes
    ----------
    values : (ny, nx) array
    variance : (ny, nx) array or None
    bad : (ny, nx) bool array or None
    """

    values: NDArray[np.generic]
    variance: NDArray[np.generic] | None
    bad: NDArray[np.bool_] | None


class Reader(Protocol):
    """What reads rectangles of one plane."""

    @property
    def pixel_bytes(self) -> int:
        """What is read for a pixel."""

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return the pixels of a rectangle."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The blocks of a view.

    Attributes
    ----------
    x, y : int
        First column and row, multiples of ``step``.
    columns, rows : int
        One past the last ones; the last blocks may be narrower.
    step : int
        Side of a block.
    """

    x: int
    y: int
    columns: int
    rows: int
    step: int

    @property
    def shape(self) -> tuple[int, int]:
        """Blocks along y and x."""
        return -(-(self.rows - self.y) // self.step), -(-(self.columns - self.x) // self.step)

    @property
    def extent(self) -> Box:
        """Edges (x0, x1, y0, y1) of the blocks, narrow ones taken as whole."""
        ny, nx = self.shape
        x0, y0 = self.x - 0.5, self.y - 0.5
        return x0, x0 + nx * self.step, y0, y0 + ny * self.step


class Means(NamedTuple):
    """Blocks of a view; see `block_means`.

    Attributes
    ----------
    values : (h, w) float32 array
        Mean of the usable pixels, NaN where there are none.
    error : (h, w) float32 array or None
        Root mean square of the errors of single pixels.
    masked : (h, w) float32 array
        Fraction of unusable pixels.
    rows : int
        How many rows of each block were read.
    read_bytes : int
    """

    values: Float32
    error: Float32 | None
    masked: Float32
    rows: int
    read_bytes: int


def frame_of(shape: tuple[int, int], box: Box, pixels: tuple[int, int]) -> Frame:
    """Return the blocks that a box needs on a screen: the coarsest level with at least one block per pixel of it.

    Parameters
    ----------
    shape : (ny, nx)
        Of the image.
    box : (x0, x1, y0, y1)
        Edges in pixel coordinates; what lies outside the image is left out.
    pixels : (w, h)
        Of the screen.
    """
    ny, nx = shape
    x0, x1, y0, y1 = (value if math.isfinite(value) else 0.0 for value in box)
    first_x, last_x = _span(min(x0, x1), max(x0, x1), nx)
    first_y, last_y = _span(min(y0, y1), max(y0, y1), ny)
    ratio = max((last_x - first_x) / max(1, pixels[0]), (last_y - first_y) / max(1, pixels[1]))
    step = 1 << max(0, math.floor(math.log2(max(ratio, 1.0)) + 1e-9))
    first_x -= first_x % step
    first_y -= first_y % step
    return Frame(
        first_x,
        first_y,
        min(nx, -(-last_x // step) * step),
        min(ny, -(-last_y // step) * step),
        step,
    )


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """First pixel of an interval and one past its last, at least one of the image."""
    first = min(max(math.floor(low + 0.5), 0), size - 1)
    last = max(min(math.ceil(high + 0.5), size), first + 1)
    return first, last


def block_means(reader: Reader, frame: Frame, most_bytes: int = MOST_BYTES) -> Means:
    """Read the pixels of a view, some rows at a time, and return the means of its blocks.

    The error of a block is not that of its mean, which would need the correlation of the noise: it is what a single
    pixel of the block has, sqrt(mean(variance)).
    """
    step, width = frame.step, frame.columns - frame.x
    ny, nx = frame.shape
    used = _rows_used(frame, reader.pixel_bytes, most_bytes)
    total, squares = np.zeros((ny, nx)), np.zeros((ny, nx))
    good = np.zeros((ny, nx))
    counted = np.zeros((ny, 1))
    has_variance = False
    read_bytes = 0
    for block, rows in _strips(frame, used, reader.pixel_bytes):
        pixels = reader.read(rows, slice(frame.x, frame.columns))
        height = rows.stop - rows.start
        read_bytes += height * width * reader.pixel_bytes
        values = np.asarray(pixels.values, np.float32)
        usable = np.isfinite(values)
        if pixels.bad is not None:
            usable &= ~pixels.bad
        target = slice(block, block + -(-height // step)) if used == step else slice(block, block + 1)
        side = step if used == step else height
        total[target] += _block_sums(np.where(usable, values, np.float32(0)), step, side)
        good[target] += _block_sums(usable, step, side)
        counted[target] += np.minimum(side, height - side * np.arange(target.stop - target.start))[:, None]
        if pixels.variance is not None:
            has_variance = True
            variance = np.asarray(pixels.variance, np.float32)
            known = usable & np.isfinite(variance)
            squares[target] += _block_sums(np.where(known, variance, np.float32(0)), step, side)
    columns = np.minimum(step, width - step * np.arange(nx))
    with np.errstate(invalid="ignore", divide="ignore"):  # Blocks without a usable pixel become NaN.
        mean = np.where(good > 0, total / good, np.nan).astype(np.float32)
        error = (
            np.sqrt(np.where(good > 0, squares / good, np.nan)).astype(np.float32) if has_variance else None
        )
    masked = (1.0 - good / (counted * columns)).astype(np.float32)
    return Means(mean, error, masked, used, read_bytes)


def _rows_used(frame: Frame, pixel_bytes: int, most_bytes: int) -> int:
    """How many rows of each block are read, all of them where that is not too much."""
    whole = (frame.rows - frame.y) * (frame.columns - frame.x) * pixel_bytes
    return frame.step if whole <= most_bytes else max(1, int(frame.step * most_bytes / whole))


def _strips(frame: Frame, used: int, pixel_bytes: int) -> Iterator[tuple[int, slice]]:
    """Yield the first block and the rows of each piece that is read at a time."""
    step, (ny, _) = frame.step, frame.shape
    row_bytes = (frame.columns - frame.x) * pixel_bytes
    at_once = max(1, STRIP_BYTES // max(1, row_bytes * step)) if used == step else 1
    for block in range(0, ny, at_once):
        start = frame.y + block * step
        height = at_once * step if used == step else used
        yield block, slice(start, min(start + height, frame.rows))


def _block_sums(values: NDArray[np.generic], step: int, side: int) -> Float:
    """Sums over blocks of ``side`` rows and ``step`` columns; the last ones may be smaller."""
    if step == 1 and side == 1:
        return values.astype(np.float64)
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], side), axis=0, dtype=np.float64)
    return np.asarray(np.add.reduceat(rows, np.arange(0, values.shape[1], step), axis=1))


def nearest(reader: Reader, frame: Frame) -> tuple[Float32, int]:
    """Return the first pixel of each block, for codes and labels, which have no mean; and how much was read.

    Negative ones, which stand for nothing, are NaN.
    """
    width = frame.columns - frame.x
    ny, nx = frame.shape
    values = np.full((ny, nx), np.nan, np.float32)
    read_bytes = 0
    if frame.step == 1:
        strips = list(_strips(frame, 1, reader.pixel_bytes))
    else:
        strips = [
            (row, slice(place, place + 1)) for row, place in enumerate(range(frame.y, frame.rows, frame.step))
        ]
    for block, rows in strips:
        pixels = reader.read(rows, slice(frame.x, frame.columns))
        part = np.array(pixels.values[:, :: frame.step], np.float32)
        part[part < 0] = np.nan
        values[block : block + part.shape[0]] = part
        read_bytes += (rows.stop - rows.start) * width * reader.pixel_bytes
    return values, read_bytes


def block_note(frame: Frame, means: Means, layer: str) -> str:
    """Say what an element stands for where it is more than one pixel."""
    if frame.step == 1:
        return ""
    block = f"{frame.step} × {frame.step} pixels"
    if means.rows < frame.step:
        block += f" ({means.rows} rows of each)"
    return {
        "value": f"mean of {block}",
        "error": f"error of one pixel, rms of {block}",
        "snr": f"mean over the error of one pixel, {block}",
        "mask": f"masked fraction of {block}",
    }[layer]
