"""Noise of cubes with known variance and correlation, left-over sky, and the shapes of fields of view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.mock.cubes.sky_lines import SKY_LINES, sky_line_spectrum
from skyloom.mock.cubes.spectrographs import Field, Spectrograph

__all__ = ["CubeNoise", "SkyResiduals", "field_of_view"]

Float = NDArray[np.float64]
Single = NDArray[np.float32]
# Streams of random numbers that start from one seed.
NOISE, SKY, BAD = 1, 2, 3
# Channels before the first one, which the filter along wavelength reaches into.
MARGIN = 64


@dataclass(frozen=True, slots=True, eq=False)
class CubeNoise:
    """Noise of unit variance, reproducible channel by channel.

    Parameters
    ----------
    shape : (int, int)
        (ny, nx).
    spatial, spectral : (k,) arrays
        Filters along x and y, and along wavelength.
    seed : int
    first : int
        Number of the first channel on the instrument's full grid: a cube that is cut in wavelength has the noise of
        the whole one.
    """

    shape: tuple[int, int]
    spatial: Float
    spectral: Float
    seed: int
    first: int = 0

    @classmethod
    def of(cls, instrument: Spectrograph, shape: tuple[int, int], seed: int) -> CubeNoise:
        """Return the noise of a spectrograph."""
        return cls(shape, instrument.spatial_kernel, instrument.spectral_kernel, seed, instrument.first)

    def draw(self, start: int, stop: int) -> Single:
        """Return the noise of the channels from ``start`` to ``stop``: (stop - start, ny, nx), variance 1.

        White noise of every channel, started by its own seed, passes through the filters one axis after the other.
        """
        space, wave = _unit_taps(self.spatial), _unit_taps(self.spectral)
        radius, reach = space.size // 2, wave.size // 2
        frame = (self.shape[0] + 2 * radius, self.shape[1] + 2 * radius)
        planes = np.empty((stop - start + 2 * reach, *self.shape), dtype=np.float32)
        for index, plane in enumerate(planes):
            number = MARGIN + self.first + start - reach + index
            generator = np.random.default_rng([self.seed, NOISE, number])
            white = generator.standard_normal(frame, dtype=np.float32)
            plane[...] = _filtered(_filtered(white, space).T, space).T
        return _filtered(planes, wave)


def _unit_taps(kernel: Float) -> Single:
    return np.asarray(kernel / np.sqrt(np.sum(kernel**2)), dtype=np.float32)


def _filtered(values: Single, taps: Single) -> Single:
    """Filter along the first axis and keep what the filter covers completely."""
    if taps.size == 1:
        return values
    length = values.shape[0] - taps.size + 1
    total = taps[0] * values[:length]
    for shift in range(1, taps.size):
        total += taps[shift] * values[shift : shift + length]
    return np.asarray(total)


@dataclass(frozen=True, slots=True)
class SkyResiduals:
    """What the subtraction of the sky leaves at its lines, as shares of their brightness.

    Parameters
    ----------
    offset : float
        Standard deviation of the offsets of the lines.
    shift : float
        Error of their wavelengths, A, which leaves a positive and a negative lobe.
    excess : float
        Standard deviation of the noise that is added, independent of the photons.
    """

    offset: float = 0.01
    shift: float = 0.005
    excess: float = 0.01

    def spectrum(self, instrument: Spectrograph, seed: int) -> Float:
        """Return the (n_wave,) offset, in the unit of the spectrograph."""
        generator = np.random.default_rng([seed, SKY])
        strength = self.offset * generator.standard_normal(len(SKY_LINES))
        factor = instrument.pixel_scale**2 / instrument.flux_unit
        axis = instrument.axis
        moved = sky_line_spectrum(axis, shift=self.shift)
        still = sky_line_spectrum(axis)
        offset = sky_line_spectrum(axis, strength)
        return np.asarray(factor * (offset + moved - still))

    def pattern(self, shape: tuple[int, int], seed: int) -> Float:
        """Return the (ny, nx) factor of the offset: stripes like those of slices, mean 1."""
        generator = np.random.default_rng([seed, SKY, 1])
        rows = np.repeat(1.0 + 0.3 * generator.standard_normal(shape[0] // 4 + 1), 4)[: shape[0]]
        slope = 1.0 + 0.4 * np.linspace(-0.5, 0.5, shape[1])
        pattern = np.outer(rows, slope)
        return np.asarray(pattern / pattern.mean())

    def variance(self, instrument: Spectrograph) -> Float:
        """Return the (n_wave,) variance of the added noise, in ``unit**2``."""
        return np.asarray((self.excess * instrument.sky_lines) ** 2)


def field_of_view(kind: Field, shape: tuple[int, int], angle: float = 0.0) -> NDArray[np.bool_]:
    """Return the (ny, nx) spaxels that a field of view covers.

    Parameters
    ----------
    kind : {"square", "circle", "hexagon"}
        The largest of its kind that fits into the array; a square that is not turned is the array itself.
    shape : (int, int)
    angle : float
        By which the field is turned in the array, degrees.
    """
    ny, nx = shape
    y, x = np.meshgrid(np.arange(ny) - (ny - 1) / 2, np.arange(nx) - (nx - 1) / 2, indexing="ij")
    if kind == "circle":
        return np.asarray(np.hypot(x, y) < min(nx, ny) / 2)
    corners = {"square": 4, "hexagon": 6}.get(kind)
    if corners is None:
        raise InputError(
            f"{kind!r} is no field of view", field="field", remedy="choose square, circle or hexagon"
        )
    if kind == "square" and angle % 90.0 == 0.0:
        return np.ones(shape, dtype=bool)
    turn = np.radians(angle) + 2 * np.pi * np.arange(corners) / corners
    # Distance of the corners from the centre so that all lie within the array.
    vertex = turn + np.pi / corners
    reach = min(nx / np.ptp(np.cos(vertex)), ny / np.ptp(np.sin(vertex)))
    apothem = reach * np.cos(np.pi / corners)
    inside = np.ones(shape, dtype=bool)
    for direction in turn:
        inside &= x * np.cos(direction) + y * np.sin(direction) < apothem
    return inside
