"""`Image`: a map of the sky that knows its errors, their correlation, its PSF, its place and its past."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import IntFlag
from functools import lru_cache
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core import geometry
from skyloom.core.display import Shown
from skyloom.core.provenance import Step
from skyloom.core.psf import PSF
from skyloom.core.units import parse_unit
from skyloom.errors import InputError, ShapeError

__all__ = ["Flag", "Image", "Mode", "check_correlation", "check_planes", "check_shapes", "copy_with"]

Array = NDArray[Any]
CHECKED = frozenset({"data", "variance", "mask"})
"""Planes that decide whether a pixel is usable."""
CHECKED_TOGETHER = 1 << 17  # Voxels whose planes and tests stay in the cache.


class Flag(IntFlag):
    """Bits of `Image.flags`: what happened to a pixel that is nevertheless usable."""

    REPAIRED_COSMIC_RAY = 1
    NEGATIVE = 2
    INTERPOLATED = 4
    NEAR_SATURATED = 8
    LOW_COVERAGE = 16
    UNKNOWN_FOOTPRINT = 32


class Mode(NamedTuple):
    """An error that pixels share: a sum with weights r adds ``(sum r map)^2 sigma^2`` to its variance.

    ``map`` is a scalar or an array of the image's shape; ``map * sigma`` has the unit of the image.
    """

    name: str
    map: Array | float
    sigma: float


@dataclass(frozen=True, slots=True, eq=False)
class Image(Shown):
    """A calibrated image with its uncertainties.

    Parameters
    ----------
    data : (ny, nx) float array, in ``unit``
        Values. What lies under the mask is unspecified (NaN is allowed there).
    variance : (ny, nx) float array, in ``unit**2``
        Variance of each pixel, positive and finite wherever the mask is False; averaged over sub-pixel phases
        when the image was resampled.
    mask : (ny, nx) bool array
        True where the pixel must not be used.
    unit : astropy unit or str
        Without a solid angle: flux per pixel; with one: surface brightness.
    wcs : astropy.wcs.WCS or None
        Where the pixels lie. Most operations need it; cut-outs of stars live without.
    psf : PSF, optional
        Point-spread function.
    correlation : (k, k) float array, optional
        Autocorrelation of the noise, k odd, 1 in the centre, symmetric through it. None: independent pixels.
    flags : (ny, nx) uint16 array, optional
        `Flag` bits of usable pixels.
    modes : tuple of Mode
        Errors that pixels share.
    meta : dict
        Instrument, band, exposure, time, and what else the reader found.
    history : tuple of Step
        What was done, oldest first.

    Raises
    ------
    ShapeError
        When the planes differ in shape or are not two-dimensional.
    InputError
        When an unmasked pixel has no finite value or no positive finite variance, or the correlation is not one.
    """

    data: Array
    variance: Array
    mask: NDArray[np.bool_]
    unit: u.UnitBase
    wcs: WCS | None
    psf: PSF | None = None
    correlation: NDArray[np.float64] | None = None
    flags: NDArray[np.uint16] | None = None
    modes: tuple[Mode, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    history: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        self._settle()
        check_planes(self.data, self.variance, self.mask, self.flags, self.modes)

    def _settle(self) -> None:
        """Bring every field to its type and check all that costs no pass over the pixels."""
        object.__setattr__(self, "unit", parse_unit(self.unit))
        object.__setattr__(self, "data", as_float(self.data, "data"))
        object.__setattr__(self, "variance", as_float(self.variance, "variance"))
        mask = np.zeros(self.data.shape, bool) if self.mask is None else np.asarray(self.mask, dtype=bool)
        object.__setattr__(self, "mask", mask)
        if self.flags is not None:
            object.__setattr__(self, "flags", np.asarray(self.flags, dtype=np.uint16))
        object.__setattr__(self, "modes", tuple(Mode(*mode) for mode in self.modes))
        if self.data.ndim != 2:
            raise ShapeError(f"data has {self.data.ndim} dimensions; an Image has 2 (y, x)", field="data")
        check_shapes(self.data, self.variance, self.mask, self.flags, self.modes)
        if self.correlation is not None:
            object.__setattr__(self, "correlation", check_correlation(self.correlation, ndim=2))

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        ny, nx = self.data.shape
        return ny, nx

    @property
    def valid(self) -> NDArray[np.bool_]:
        """True where the pixel is usable."""
        return ~self.mask

    @property
    def weight(self) -> Array:
        """Inverse variance, 0 where masked, in 1 / unit**2."""
        weight = np.zeros_like(self.variance)
        np.divide(1.0, self.variance, out=weight, where=~self.mask)
        return weight

    @property
    def pixel_matrix(self) -> NDArray[np.float64]:
        """(2, 2) matrix from pixel offsets (x, y) to sky offsets (east, north), in arcsec, at the centre."""
        return geometry.pixel_matrix(self.wcs, self.shape)

    @property
    def pixel_area(self) -> float:
        """Area of the central pixel, in arcsec2."""
        return geometry.pixel_area(self.wcs, self.shape)

    @property
    def pixel_scale(self) -> float:
        """Side of a square of the central pixel's area, in arcsec."""
        return geometry.pixel_scale(self.wcs, self.shape)

    def evolve(self, step: Step | None = None, **changes: Any) -> Image:
        """Return a new image with ``changes`` made and ``step`` added to the history.

        Pixels are looked at again only where data, variance or mask are among the changes.
        """
        if not CHECKED & changes.keys():
            return self.evolve_checked(step, **changes)
        if step is not None:
            changes["history"] = (*changes.get("history", self.history), step)
        changed: Image = replace(self, **changes)
        return changed

    def evolve_checked(self, step: Step | None = None, **changes: Any) -> Image:
        """Do what `evolve` does, for changes that leave the usable pixels usable.

        The caller vouches for the pixels: no plane is changed, or the kernel that wrote them has seen to it that each
        one without a mask has a finite value and a positive, finite variance. Shapes, units and the correlation are
        checked as always; what is left out is another pass over all pixels.
        """
        if step is not None:
            changes["history"] = (*changes.get("history", self.history), step)
        changed: Image = copy_with(self, changes)
        changed._settle()
        return changed


def copy_with(instance: Any, changes: dict[str, Any]) -> Any:
    """Return a copy of a frozen dataclass with other fields, none of them validated: that is left to the caller."""
    names = _field_names(type(instance))  # type: ignore[arg-type]  # mypy holds classes for unhashable
    unknown = changes.keys() - names
    if unknown:
        raise TypeError(f"{type(instance).__name__} has no field {sorted(unknown)}")
    copy = object.__new__(type(instance))
    for name in names:
        object.__setattr__(copy, name, changes[name] if name in changes else getattr(instance, name))
    return copy


@lru_cache(maxsize=16)
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(item.name for item in fields(kind))


def as_float(array: object, name: str) -> Array:
    """Return ``array`` as native-endian float32 or float64, keeping which of the two it is."""
    values = np.asarray(array)
    if values.dtype in (np.float32, np.float64) and values.dtype.isnative:
        return values
    if values.dtype.kind not in "fiub":
        raise InputError(f"{name} has type {values.dtype}; expected numbers", field=name)
    small = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    return values.astype(np.float32 if small else np.float64)


def check_planes(
    data: Array,
    variance: Array,
    mask: Array,
    flags: Array | None,
    modes: tuple[Mode, ...],
) -> None:
    """Raise unless all planes have the shape of ``data`` and the usable voxels have a value and an error."""
    check_shapes(data, variance, mask, flags, modes)
    if _are_usable(data, variance, mask):
        return
    for name, bad in (("data", ~np.isfinite(data)), ("variance", ~((variance > 0) & (variance < np.inf)))):
        bad &= ~mask
        if bad.any():
            place = tuple(int(index[0]) for index in np.nonzero(bad))
            value = data[place] if name == "data" else variance[place]
            raise InputError(
                f"{name} is {value} at {place} (and {int(bad.sum()) - 1} more pixels) where the mask is False",
                field=name,
                remedy="mask these pixels, or give them a value" + (" > 0" if name == "variance" else ""),
            )


def check_shapes(
    data: Array,
    variance: Array,
    mask: Array,
    flags: Array | None,
    modes: tuple[Mode, ...],
) -> None:
    """Raise unless all planes have the shape of ``data``."""
    planes: list[tuple[str, Array | None]] = [("variance", variance), ("mask", mask), ("flags", flags)]
    planes += [(f"modes[{mode.name!r}]", np.asarray(mode.map)) for mode in modes if np.ndim(mode.map)]
    for name, plane in planes:
        if plane is not None and plane.shape != data.shape:
            raise ShapeError(
                f"{name} has shape {plane.shape}; expected {data.shape}, the shape of data", field=name
            )


def _are_usable(data: Array, variance: Array, mask: Array) -> bool:
    """Tell whether every voxel has a value and an error, or a mask; block by block, so that a cube costs one pass."""
    rows = max(1, CHECKED_TOGETHER // max(1, data[:1].size))
    for start in range(0, data.shape[0], rows):
        block = slice(start, start + rows)
        errors = variance[block]
        usable = np.isfinite(data[block])
        usable &= errors > 0
        usable &= errors < np.inf
        usable |= mask[block]
        if not usable.all():
            return False
    return True


def check_correlation(correlation: object, ndim: int) -> NDArray[np.float64]:
    """Return a noise autocorrelation as float64 after checking that it is one."""
    rho = np.asarray(correlation, dtype=np.float64)
    if rho.ndim != ndim or any(size % 2 == 0 for size in rho.shape):
        raise ShapeError(
            f"correlation has shape {rho.shape}; expected {ndim} odd dimensions", field="correlation"
        )
    centre = tuple(size // 2 for size in rho.shape)
    if not np.all(np.isfinite(rho)) or abs(rho[centre] - 1.0) > 1e-6:
        raise InputError(f"correlation is {rho[centre]} in its centre; expected 1", field="correlation")
    flipped = rho[(slice(None, None, -1),) * ndim]
    if np.abs(rho - flipped).max() > 1e-6:
        raise InputError("correlation is not symmetric through its centre", field="correlation")
    return rho
