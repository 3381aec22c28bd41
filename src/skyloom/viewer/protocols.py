"""What the parts of the viewer hand to each other: planes of images, what was picked in them, and spectra."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LAYERS",
    "Box",
    "Kind",
    "PlaneSource",
    "PlaneView",
    "Region",
    "SpectrumSource",
    "SpectrumView",
]

Bool = NDArray[np.bool_]
Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

Box = tuple[float, float, float, float]
Kind = Literal["image", "cube", "spectra", "store", "table"]
LAYERS = ("value", "error", "snr", "mask")


@dataclass(frozen=True, slots=True)
class PlaneView:
    """What is on screen.

    Attributes
    ----------
    values : (h, w) float32 array, in `unit`
        NaN where nothing usable is known.
    x0, x1, y0, y1 : float
        Edges of the array in 0-based pixel coordinates of the full resolution: a whole image of w pixels reaches from
        -0.5 to w - 0.5.
    step : int
        Pixels of the full resolution per element (1, 2, 4 ...): the level.
    unit : str
    read_bytes : int
        What was read for it.
    note : str
        What an element stands for where it is more than one pixel, such as "mean of 4 × 4 pixels".
    """

    values: Float32
    x0: float
    x1: float
    y0: float
    y1: float
    step: int
    unit: str
    read_bytes: int
    note: str = ""


class PlaneSource(Protocol):
    """Where planes come from: an image, the maps of a product, a cube, or an image of a store."""

    @property
    def title(self) -> str:
        """Name shown above the image."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns at full resolution."""

    @property
    def unit(self) -> str:
        """Unit of the values."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Which of "value", "error", "snr" and "mask" there are."""

    @property
    def planes(self) -> tuple[str, ...]:
        """Names of bands, lines or epochs; channels of a cube are chosen by ``channel``."""

    @property
    def n_channels(self) -> int | None:
        """How many channels a cube has."""

    @property
    def wave(self) -> Float | None:
        """Wavelengths of the channels, in A."""

    def view(
        self, layer: str, *, plane: int = 0, channel: int | None = None, box: Box, pixels: tuple[int, int]
    ) -> PlaneView:
        """Return what is seen of a box (x0, x1, y0, y1) on a screen of (w, h) pixels.

        Never more elements than about four times the pixels on the screen, read at the coarsest level that resolves
        them.
        """

    def world(self, x: float, y: float) -> tuple[float, float] | None:
        """Return ICRS longitude and latitude of a pixel, in degrees."""

    def labels_at(self, x: float, y: float) -> int | None:
        """Return the number of the bin there, where the product has bins."""


@dataclass(frozen=True, slots=True)
class Region:
    """What was clicked or lassoed.

    Attributes
    ----------
    x, y : float arrays
        Pixel coordinates of the plane at full resolution; one point is a click, more are the corners of a polygon.
    entry : str
        Key of the entry of the shelf.
    """

    x: Float
    y: Float
    entry: str


@dataclass(frozen=True, slots=True)
class SpectrumView:
    """One curve with all that belongs to it.

    Attributes
    ----------
    title : str
    wave : (n,) float array, in A
    medium : str
        "air" or "vacuum".
    flux, error : (n,) float arrays, in `unit`
    mask : (n,) bool array
        True where unusable.
    unit : str
    continuum, model, residual : (n,) float arrays or None, in `unit`
    components : dict of (n,) float arrays, in `unit`
    masked_ranges : tuple of (from, to), in A
    lines : tuple of (name, wavelength in A where it is seen)
    numbers : tuple of (name, text)
        The numbers of the fit, with unit and error; ``Halpha · flux (unit)`` belongs to the line Halpha.
    redshift : float or None
        Of the source, where it is known.
    rest_frame : bool
        Whether `wave` is that of the rest frame already.
    """

    title: str
    wave: Float
    medium: str
    flux: Float
    error: Float
    mask: Bool
    unit: str
    continuum: Float | None = None
    components: dict[str, Float] = field(default_factory=dict)
    model: Float | None = None
    residual: Float | None = None
    masked_ranges: tuple[tuple[float, float], ...] = ()
    lines: tuple[tuple[str, float], ...] = ()
    numbers: tuple[tuple[str, str], ...] = ()
    redshift: float | None = None
    rest_frame: bool = False


class SpectrumSource(Protocol):
    """Where spectra come from: the bins of a run, a cube, or a store."""

    def spectrum(self, region: Region) -> SpectrumView | None:
        """Return the spectrum of what was picked, or None where there is none."""
