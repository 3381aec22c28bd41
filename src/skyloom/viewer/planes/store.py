"""Planes of an image or a cube of a store: a view reads the cut-out of the level that fits it, nothing else."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.units import adds_up, is_per_area, parse_unit
from skyloom.errors import InputError
from skyloom.io.formats.headers import unit_text
from skyloom.store.contents import Contents
from skyloom.store.files.part_reader import PartReader
from skyloom.viewer.planes.blocks import Frame, Pixels, block_means, block_note, frame_of
from skyloom.viewer.planes.sky import Sky
from skyloom.viewer.protocols import LAYERS, Box, Float, Float32, PlaneView
from skyloom.viewer.stores.listing import date_text

__all__ = ["StorePlanes"]

CHANNEL = 1
"""The plane of a cube that is a channel of it."""
MOST_WHITE = 16 << 20
"""Voxels that are read for a picture of all channels."""


class StorePlanes:
    """An image or a cube of a store, level by level.

    Values are those of pixels of level 0: of a coarser level their mean, with the error of that mean, which the store
    knows with the correlation of the noise. A single channel of a cube is in level 0 alone: there a block has the
    error of one of its pixels. "mask" is the fraction of pixels of level 0 that is unusable.

    Parameters
    ----------
    store : Contents
    obs_id : str

    Raises
    ------
    InputError
        When there is no such observation, or it has no pixels on the sky.
    """

    def __init__(self, store: Contents, obs_id: str) -> None:
        self.store = store
        self.obs_id = obs_id
        self._row = store.row(obs_id)
        self._reader, self._number = store.reader_of(self._row)
        self._shape = self._reader.shape(self._number, 0)
        index = store.index
        self._levels = int(index.columns["n_levels"][self._row])
        self._unit = parse_unit(store.column("o_unit", [self._row])[0].decode())
        is_cube = len(self._shape) == 3
        self._adds_up = not is_per_area(self._unit) if is_cube else adds_up(self._unit)

    @cached_property
    def title(self) -> str:
        """Name, band and date."""
        band = self.store.bands_of([self._row])[0]
        date = date_text(float(self.store.index.columns["t_start"][self._row]), clock=True)
        return " · ".join(part for part in (self.obs_id, band, date) if part)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns at level 0."""
        return self._shape[-2], self._shape[-1]

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return unit_text(self._unit)

    @property
    def layers(self) -> tuple[str, ...]:
        """All four: a store knows the errors of everything in it."""
        return LAYERS

    @property
    def planes(self) -> tuple[str, ...]:
        """The band; of a cube all channels together, and one of them."""
        if self.n_channels is not None:
            return ("white light", "channel")
        return (self.store.bands_of([self._row])[0] or self.obs_id,)

    @property
    def n_channels(self) -> int | None:
        """How many channels a cube has."""
        return self._shape[0] if len(self._shape) == 3 else None

    @cached_property
    def wave(self) -> Float | None:
        """Wavelengths of the channels, in A."""
        if len(self._shape) != 3:
            return None
        return np.asarray(self._reader.planes(self._number, 0, None, ("wave",))["wave"], np.float64)

    @cached_property
    def sky(self) -> Sky:
        """Where the pixels of level 0 lie."""
        return Sky(self._reader.wcs(self._number, 0))

    def world(self, x: float, y: float) -> tuple[float, float] | None:
        """Return ICRS longitude and latitude of a pixel of level 0, in deg."""
        return self.sky.world(x, y)

    def labels_at(self, x: float, y: float) -> int | None:  # noqa: ARG002  # as the protocol wants it
        """Return None: what is stored has no bins."""
        return None

    def view(
        self,
        layer: str,
        *,
        plane: int = 0,
        channel: int | None = None,
        box: Box,
        pixels: tuple[int, int],
    ) -> PlaneView:
        """Return what is seen of a box on a screen; see `skyloom.viewer.protocols.PlaneSource`."""
        if layer not in LAYERS:
            raise InputError(
                f"unknown layer {layer!r}", field="layer", remedy=f"use one of {', '.join(LAYERS)}"
            )
        frame = frame_of(self.shape, box, pixels)
        if self.n_channels is not None and channel is not None and plane == CHANNEL:
            return self._channel(layer, min(max(channel, 0), self.n_channels - 1), frame)
        planes, step, read = self._at_level(frame)
        skip = max(1, frame.step // step)
        values = _layer(planes, layer, step, self._adds_up)[::skip, ::skip]
        height, width = values.shape
        x0, y0 = frame.x - frame.x % step - 0.5, frame.y - frame.y % step - 0.5
        side = step * skip
        note = _note(layer, step, skip)
        return PlaneView(
            values, x0, x0 + width * side, y0, y0 + height * side, side, self._unit_of(layer), read, note
        )

    def _unit_of(self, layer: str) -> str:
        return {"snr": "S/N", "mask": "masked fraction"}.get(layer, self.unit)

    def _at_level(self, frame: Frame) -> tuple[dict[str, NDArray[Any]], int, int]:
        """Return the planes of a frame at the coarsest level that resolves it, its step, and how much was read."""
        level = min(frame.step.bit_length() - 1, self._levels - 1)
        if self.n_channels is not None:
            # All channels together: of a large cube those of a coarser level.
            while level < self._levels - 1 and self._voxels(frame, level) > MOST_WHITE:
                level += 1
        step = 1 << level
        window = (
            slice(frame.y // step, -(-frame.rows // step)),
            slice(frame.x // step, -(-frame.columns // step)),
        )
        names = ("flux", "variance", "mask", "n_good")
        planes = self._reader.planes(self._number, level, window, names)
        read = sum(plane.nbytes for plane in planes.values())
        return (planes if self.n_channels is None else _white(planes)), step, read

    def _voxels(self, frame: Frame, level: int) -> int:
        channels = self._reader.shape(self._number, level)[0]
        return channels * ((frame.rows - frame.y) >> level) * ((frame.columns - frame.x) >> level)

    def _channel(self, layer: str, channel: int, frame: Frame) -> PlaneView:
        """Return a channel of a cube: that of level 0, for the coarser ones are means of several channels."""
        means = block_means(_Channel(self._reader, self._number, channel), frame)
        error = np.full_like(means.values, np.nan) if means.error is None else means.error
        with np.errstate(divide="ignore", invalid="ignore"):  # NaN where nothing is known
            values = {
                "value": means.values,
                "error": error,
                "snr": means.values / error,
                "mask": means.masked,
            }[layer]
        note = block_note(frame, means, layer)
        return PlaneView(
            values.astype(np.float32), *frame.extent, frame.step, self._unit_of(layer), means.read_bytes, note
        )

    def cut(self, box: Box, plane: int = 0) -> Image | Cube | None:
        """Return what lies in a box at level 0, with all that is known of it; None of a single channel."""
        if plane == CHANNEL:
            return None
        frame = frame_of(self.shape, box, (1 << 30, 1 << 30))
        window = slice(frame.y, frame.rows), slice(frame.x, frame.columns)
        if self.n_channels is None:
            return self._reader.image(self._number, 0, window)
        return self._reader.cube(self._number, 0, window)


class _Channel:
    """Reads rectangles of one channel."""

    pixel_bytes = 9

    def __init__(self, reader: PartReader, number: int, channel: int) -> None:
        self._file, self._number, self._channels = reader, number, slice(channel, channel + 1)

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return the pixels of a rectangle."""
        planes = self._file.planes(self._number, 0, (rows, columns), channels=self._channels)
        return Pixels(planes["flux"][0], planes["variance"][0], planes["mask"][0])


def _note(layer: str, step: int, skip: int) -> str:
    """Say what an element stands for where it is more than one pixel."""
    if step * skip == 1:
        return ""
    block = f"{step} × {step} pixels" + ("" if skip == 1 else f", one block of {skip} × {skip}")
    named = {"value": "mean of", "error": "error of the mean of", "snr": "S/N of the mean of"}
    return f"{named.get(layer, 'masked fraction of')} {block}, as stored"


def _white(planes: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the mean of the usable channels, with the error it has when the channels are independent."""
    good = ~planes["mask"]
    number = good.sum(axis=0)
    divided = np.maximum(number, 1)
    return {
        "flux": np.where(good, planes["flux"], 0).sum(axis=0, dtype=np.float64) / divided,
        "variance": np.where(good, planes["variance"], 0).sum(axis=0, dtype=np.float64) / divided**2,
        "mask": number == 0,
        "n_good": planes["n_good"].max(axis=0),
    }


def _layer(planes: dict[str, NDArray[Any]], layer: str, step: int, adds: bool) -> Float32:
    """Return a layer of planes of a level; NaN under the mask."""
    area = float(step * step)
    mask = planes["mask"]
    if layer == "mask":
        return np.asarray(1.0 - np.minimum(planes["n_good"] / area, 1.0), np.float32)
    values = np.where(mask, np.nan, planes["flux"])
    error = np.sqrt(np.where(mask, np.nan, planes["variance"]))
    if layer == "snr":
        return np.asarray(values / error, np.float32)
    # A flux of a level is that of its larger pixel.
    return np.asarray((values if layer == "value" else error) / (area if adds else 1.0), np.float32)
