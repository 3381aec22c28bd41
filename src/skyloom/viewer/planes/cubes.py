"""Planes of a cube: its channels, the sum of a range of them, and the white light of a cube of any size.

A channel is read when it is looked at. The white light is the mean of some evenly spaced channels, as many as are read
at once without a pause; its name says how many. A range is read completely.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.spectral_noise import lag_bands
from skyloom.errors import FileFormatError, InputError
from skyloom.io.cubes.files import CubeFile, open_cube
from skyloom.io.formats.files import Hdu, open_fits
from skyloom.io.formats.headers import wcs_from_header
from skyloom.viewer.planes.blocks import Pixels
from skyloom.viewer.planes.files import shown_unit
from skyloom.viewer.planes.images import ArrayReader, Plane, Planes
from skyloom.viewer.planes.sky import Sky
from skyloom.viewer.protocols import Box, PlaneView

__all__ = ["CubePlanes"]

Float = NDArray[np.float64]
WHITE, CHANNEL, RANGE = range(3)
WHITE_BYTES = 24 << 20
WHITE_CHANNELS = 64
"""The most that is read for the white light."""
SLAB_BYTES = 16 << 20
"""What is read of a range at a time."""
FEWEST = 0.5
"""Fraction of a sum's wavelengths that must be usable."""
KEPT = 6
"""Planes that stay in memory, so that panning and switching between them reads nothing."""


class _Voxels:
    """The array of a cube whose errors nobody knows."""

    def __init__(self, hdu: Hdu) -> None:
        n_wave, ny, nx = hdu.shape
        self._hdu = hdu
        self.shape = (n_wave, ny, nx)
        self.wave: Float | None = None
        self.unit_text = shown_unit(hdu)
        try:
            self.wcs = wcs_from_header(hdu.header, hdu.shape)[0]
        except InputError:
            self.wcs = None

    voxel_bytes = 4

    def read(self, channels: slice) -> tuple[NDArray[np.generic], None, NDArray[np.bool_]]:
        data = self._hdu.section(channels)
        return data, None, ~np.isfinite(data)


class _Errors:
    """A cube with errors, channel by channel."""

    def __init__(self, cube: CubeFile) -> None:
        self._cube = cube
        self.shape = cube.shape
        self.wave: Float | None = cube.wave
        self.wcs = cube.wcs
        self.unit_text = str(cube.unit.to_string("unicode"))

    voxel_bytes = 9

    def read(self, channels: slice) -> tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.bool_]]:
        part = self._cube.read(channels)
        return part.data, part.variance, part.mask

    @property
    def sum_unit(self) -> str:
        return str((self._cube.unit * u.AA).to_string("unicode"))

    def correlation_gain(self, channels: slice) -> float:
        """By how much neighbouring channels raise the variance of their sum, taken as alike in a short range."""
        correlation = self._cube.correlation
        lags = None if correlation is None else correlation.spectral
        bands = lag_bands(lags, self.shape[0])[channels]
        count, radius = bands.shape[0], bands.shape[1] // 2
        gain = 1.0
        for lag in range(1, min(radius, count - 1) + 1):
            gain += 2.0 * float(bands[: count - lag, radius + lag].sum()) / count
        return max(gain, 0.0)


class _Whole(NamedTuple):
    """A plane of a cube, complete, and what was read for it."""

    reader: ArrayReader
    read_bytes: int


class CubePlanes(Planes):
    """The planes of a cube in a file: white light, one channel, and the sum of a range.

    Parameters
    ----------
    path : path
    title : str

    Attributes
    ----------
    channels : (int, int)
        First channel of the range, and one past its last.
    """

    def __init__(self, path: Path, title: str) -> None:
        cube = _opened(path)
        n_wave, ny, nx = cube.shape
        self._cube = cube
        self._kept: OrderedDict[tuple[int, int, int, bool], _Whole] = OrderedDict()
        self._channel = n_wave // 2
        most = min(WHITE_CHANNELS, max(1, WHITE_BYTES // (ny * nx * cube.voxel_bytes)))
        self._every = -(-n_wave // most)
        has_errors = isinstance(cube, _Errors)
        self._units = (
            cube.unit_text,
            cube.unit_text,
            cube.sum_unit if isinstance(cube, _Errors) else cube.unit_text,
        )
        names = (
            "white light" if self._every == 1 else f"white light (mean of 1 in {self._every} channels)",
            "channel",
            "sum over a range" if has_errors else "mean of a range",
        )
        nothing = ArrayReader(Pixels(np.zeros((0, 0)), None, None))
        planes = [Plane(name, nothing, unit) for name, unit in zip(names, self._units, strict=True)]
        super().__init__(title, planes, (ny, nx), Sky(cube.wcs), has_errors=has_errors)
        self.n_channels = n_wave
        self.wave = cube.wave
        self.channels = (max(0, n_wave // 2 - 10), min(n_wave, n_wave // 2 + 10))

    def select(self, first: int, last: int) -> None:
        """Choose the range of channels, first and one past the last."""
        first = min(max(first, 0), self._cube.shape[0] - 1)
        self.channels = (first, min(max(last, first + 1), self._cube.shape[0]))

    def view(
        self, layer: str, *, plane: int = 0, channel: int | None = None, box: Box, pixels: tuple[int, int]
    ) -> PlaneView:
        """Return what is seen; ``channel`` says which one, where the plane is one of these."""
        if channel is not None:
            self._channel = min(max(int(channel), 0), self._cube.shape[0] - 1)
        whole = self._whole(plane)
        shown = self.picture(Plane(self.planes[plane], whole.reader, self._units[plane]), layer, box, pixels)
        return PlaneView(
            shown.values,
            shown.x0,
            shown.x1,
            shown.y0,
            shown.y1,
            shown.step,
            shown.unit,
            whole.read_bytes,
            shown.note,
        )

    def _whole(self, plane: int) -> _Whole:
        """Return a plane, from memory where it has been read before."""
        first, last = self.channels if plane == RANGE else (0, self._cube.shape[0])
        if plane == CHANNEL:
            first, last = self._channel, self._channel + 1
        key = (
            first,
            last,
            self._every if plane == WHITE else 1,
            plane == RANGE and isinstance(self._cube, _Errors),
        )
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]._replace(read_bytes=0)
        whole = self._sum(*key)
        self._kept[key] = whole
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return whole

    def _sum(self, first: int, last: int, every: int, is_integral: bool) -> _Whole:
        """Return the mean over channels, or the integral over their wavelengths.

        Channels that are masked in a pixel are left out, and the sum of the others is taken to be that of all; where
        fewer than half are usable, the pixel is masked.
        """
        cube = self._cube
        widths = np.ones(cube.shape[0])
        if is_integral and cube.wave is not None and cube.wave.size > 1:
            widths = np.gradient(cube.wave)
        total, squares, weight = (np.zeros(self.shape) for _ in range(3))
        used, has_variance = 0, False
        for channels in self._slabs(first, last, every):
            data, variance, mask = cube.read(channels)
            factors = widths[channels][:, None, None]
            good = ~mask
            total += (np.where(good, data, 0.0) * factors).sum(axis=0)
            weight += (good * factors).sum(axis=0)
            if variance is not None:
                has_variance = True
                squares += (np.where(good, variance, 0.0) * factors**2).sum(axis=0)
            used += data.shape[0]
        whole = float(widths[first:last:every].sum())
        gain = cube.correlation_gain(slice(first, last)) if isinstance(cube, _Errors) and every == 1 else 1.0
        scale = whole if is_integral else 1.0
        known = weight > 0
        share = np.divide(scale, weight, out=np.zeros(self.shape), where=known)
        values = (total * share).astype(np.float32)
        spread = (squares * gain * share**2).astype(np.float32) if has_variance else None
        read_bytes = used * self.shape[0] * self.shape[1] * cube.voxel_bytes
        pixels = Pixels(values, spread, ~known | (weight < FEWEST * whole))
        return _Whole(ArrayReader(pixels), read_bytes)

    def _slabs(self, first: int, last: int, every: int) -> Iterator[slice]:
        if every > 1:
            yield from (slice(channel, channel + 1) for channel in range(first, last, every))
            return
        count = max(1, SLAB_BYTES // max(1, self.shape[0] * self.shape[1] * self._cube.voxel_bytes))
        yield from (slice(start, min(start + count, last)) for start in range(first, last, count))


def _opened(path: Path) -> _Errors | _Voxels:
    try:
        return _Errors(open_cube(path))
    except InputError as error:
        with open_fits(path) as file:
            hdu = next((hdu for hdu in file if hdu.is_image and len(hdu.shape) == 3), None)
            if hdu is not None:
                return _Voxels(hdu)
        raise FileFormatError("there is no cube in this file", source=path) from error
