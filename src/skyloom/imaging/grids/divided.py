"""An image averaged onto the divided pixels of another grid, once, to be convolved there with several kernels.

The transforms of the divided pixels serve all kernels. Means over the parts are part of the product of transforms, and
of their inverse only the whole pixels are calculated: frequencies that fall together on them are added first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import fft

from skyloom.core.geometry import pixel_scale
from skyloom.core.image import Flag, Image
from skyloom.core.provenance import Step
from skyloom.core.psf import PSF
from skyloom.core.units import is_per_area
from skyloom.imaging.grids.block_means import any_in_blocks, block_noise
from skyloom.imaging.grids.derived import derived_grid
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.psfs.convolve import DEFAULT_COVERAGE, LOW_COVERAGE, ROUNDING
from skyloom.imaging.psfs.stencil import Stencil

__all__ = ["FINEST", "Divided", "Origin", "divide", "parts_per_pixel"]

Array = NDArray[Any]
Float = NDArray[np.float64]
FINEST = 3
"""Most parts into which a pixel is divided along a side."""
PER_PART = 1.8
"""Pixels of the sharp image per part, along a side."""
SAME_PLACE = 0.001
"""Pixels by which a window may lie between pixels."""
THREADED = 2**22
"""Pixels from which transforms are worth two threads."""


class Origin(NamedTuple):
    """What the image was before it was averaged."""

    shape: tuple[int, int]
    psf: PSF | None
    pixel_matrix: Float
    history: tuple[Step, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Divided:
    """An image averaged over the parts of the pixels of a grid.

    Parameters
    ----------
    fine : Image
        The parts, with a margin around the grid.
    wcs, shape
        The grid.
    margin : int
        In pixels of the grid, on every side.
    factor : int
        Parts of a pixel along a side.
    origin : Origin
        The image that was averaged.
    """

    fine: Image
    wcs: WCS
    shape: tuple[int, int]
    margin: int
    factor: int
    origin: Origin
    _spectra: dict[str, Array] = field(default_factory=dict)

    def window(self, wcs: WCS, shape: tuple[int, int], margin: int) -> Image | None:
        """Return the parts of a window of the grid, with a margin; None when they are not all here."""
        if wcs.sip is not None or self.wcs.sip is not None:
            return None
        place = np.array(self.wcs.wcs.crpix) - np.array(wcs.wcs.crpix)
        same = np.allclose(self.wcs.wcs.crval, wcs.wcs.crval, rtol=1e-12, atol=1e-12) and np.allclose(
            self.wcs.pixel_scale_matrix, wcs.pixel_scale_matrix, rtol=1e-9, atol=1e-15
        )
        start = np.round(place).astype(int) + self.margin - margin
        stop = start + np.array(shape)[::-1] + 2 * margin
        limit = np.array(self.shape)[::-1] + 2 * self.margin
        if not same or np.abs(place - np.round(place)).max() > SAME_PLACE:
            return None
        if start.min() < 0 or np.any(stop > limit):
            return None
        (left, top), (right, bottom) = start * self.factor, stop * self.factor
        cut = slice(int(top), int(bottom)), slice(int(left), int(right))
        planes = {name: getattr(self.fine, name)[cut] for name in ("data", "variance", "mask")}
        grid = derived_grid(wcs, shape, margin=margin, factor=self.factor)[0]
        return self.fine.evolve(wcs=grid, flags=None, modes=(), **planes)

    def forget(self) -> None:
        """Let go of the transforms."""
        self._spectra.clear()

    def blurred(self, kernel: Float) -> Image:
        """Convolve the parts with a kernel and average over the pixels of the grid.

        Parameters
        ----------
        kernel : (k, l) array
            On the parts; odd sides, sum above 0.

        Returns
        -------
        Image
            Without a PSF. Pixels with less than 0.9 of the kernel on usable parts are masked, those with less than
            0.99 flagged, as in `skyloom.imaging.psfs.convolve.convolve`.
        """
        fine, factor = self.fine, self.factor
        stencil = Stencil(kernel)
        after, variance_stencil = stencil.noise(fine.correlation)
        correlation, gain = block_noise(after, factor)
        area = 1.0 if is_per_area(fine.unit) else float(factor**2)
        frame = self._frame(max(kernel.shape) // 2)
        transfer = _transfer(kernel, frame, factor)
        coverage = signed = self._share(stencil, transfer, frame)
        if not stencil.positive:
            magnitude = np.abs(kernel)
            coverage = self._share(Stencil(magnitude), _transfer(magnitude, frame, factor), frame)
        bad = coverage < DEFAULT_COVERAGE - ROUNDING
        # What is missing is replaced by the mean of the rest.
        share = np.where(bad, 1.0, signed)
        data = self._smooth("data", transfer, frame) / share * area
        spread = _transfer(variance_stencil.kernel, frame, factor)
        variance = self._smooth("variance", spread, frame) * (gain * area**2) / share**2
        low = ~bad & (coverage < LOW_COVERAGE)
        flags = None if fine.flags is None else any_in_blocks(fine.flags, factor)[self._inner]
        if low.any():
            flags = np.zeros(self.shape, np.uint16) if flags is None else flags
            flags[low] |= np.uint16(Flag.LOW_COVERAGE)
        modes = tuple(
            mode._replace(map=float(mode.map) * stencil.total * area)
            if np.ndim(mode.map) == 0
            else mode._replace(
                map=np.where(bad, 0.0, self._smooth(f"mode {number}", transfer, frame) / share * area).astype(
                    fine.data.dtype
                )
            )
            for number, mode in enumerate(fine.modes)
        )
        smallest = np.finfo(fine.variance.dtype).tiny
        return Image(
            np.where(bad, np.nan, data).astype(fine.data.dtype),
            np.where(bad, np.nan, np.maximum(variance, smallest)).astype(fine.variance.dtype),
            bad,
            fine.unit,
            self.wcs,
            psf=None,
            correlation=correlation,
            flags=flags,
            modes=modes,
            meta=dict(fine.meta),
            history=fine.history,
        )

    @property
    def _inner(self) -> tuple[slice, slice]:
        ny, nx = self.shape
        return slice(self.margin, self.margin + ny), slice(self.margin, self.margin + nx)

    def _frame(self, half: int) -> tuple[int, int]:
        """Return the sides of the periodic plane for kernels that reach ``half`` parts far: whole pixels."""
        reach = self.margin * self.factor
        # Light from beyond the margin must not come in from the other side.
        empty = max(reach, half - reach)
        rows, columns = (
            self.factor * fft.next_fast_len(-(-(side + empty) // self.factor), real=True)
            for side in self.fine.shape
        )
        return rows, columns

    def _spectrum(self, name: str, frame: tuple[int, int]) -> Array:
        """Return the transform of a plane, masked parts as 0; made when first asked for."""
        key = f"{name} {frame}"
        if key not in self._spectra:
            mask = self.fine.mask
            if name == "usable":
                plane = (~mask).astype(self.fine.data.dtype)
            elif name.startswith("mode"):
                plane = np.asarray(self.fine.modes[int(name.split()[1])].map)
            else:
                plane = getattr(self.fine, name)
            if mask.any():
                plane = np.where(mask, 0.0, plane)
            self._spectra[key] = fft.rfft2(plane, frame, workers=_threads(frame))
        return self._spectra[key]

    def _smooth(self, name: str, transfer: Array, frame: tuple[int, int]) -> Array:
        """Convolve a plane of the parts, average over whole pixels and cut the margin off."""
        spectrum = self._spectrum(name, frame)
        product = spectrum * transfer.astype(spectrum.dtype, copy=False)
        # Rows that are left out fold their frequencies onto those that stay.
        folded = product.reshape(self.factor, frame[0] // self.factor, -1).sum(axis=0)
        folded /= self.factor
        half = fft.ifft(folded, axis=0, overwrite_x=True, workers=_threads(frame))[self._inner[0]]
        plane = fft.irfft(half, frame[1], axis=1, workers=_threads(frame))[:, :: self.factor]
        return np.asarray(plane[:, self._inner[1]])

    def _share(self, stencil: Stencil, transfer: Array, frame: tuple[int, int]) -> Array:
        """Return the share of a positive kernel that lies on usable parts."""
        if self.fine.mask.any():
            return self._smooth("usable", transfer, frame) / transfer[0, 0].real
        borders = stencil.shares(self.fine.data, self.fine.mask)
        rows = borders.signed[borders.rows]
        table = rows.reshape(-1, self.factor, rows.shape[1]).mean(axis=1)[self._inner[0]]
        plane = table[:, borders.columns].reshape(table.shape[0], -1, self.factor).mean(axis=2)
        return np.asarray(plane[:, self._inner[1]])


def _transfer(kernel: Float, frame: tuple[int, int], factor: int) -> Array:
    """Return the transform of a kernel on the parts, times that of the mean over the parts of a pixel."""
    rows, columns = (
        (np.arange(size) - size // 2) % side for size, side in zip(kernel.shape, frame, strict=True)
    )
    lines = np.zeros((kernel.shape[0], frame[1]))
    np.add.at(lines.T, columns, kernel.T)
    # The kernel is small: most rows of its plane are empty and need no transform.
    half = np.zeros((frame[0], frame[1] // 2 + 1), np.complex64)
    np.add.at(half, rows, fft.rfft(lines, axis=1).astype(np.complex64))
    whole = fft.fft(half, axis=0, overwrite_x=True, workers=_threads(frame))
    whole *= _mean_transfer(fft.fftfreq(frame[0]), factor)[:, np.newaxis]
    whole *= _mean_transfer(fft.rfftfreq(frame[1]), factor)
    return np.asarray(whole)


def _mean_transfer(frequency: Float, factor: int) -> Array:
    """Transfer function of the mean over ``factor`` parts, read at the first; in cycles per part."""
    steps = np.arange(factor)[:, np.newaxis]
    return np.asarray(np.exp(2j * np.pi * frequency * steps).mean(axis=0).astype(np.complex64))


def _threads(frame: tuple[int, int]) -> int:
    return 2 if frame[0] * frame[1] >= THREADED else 1


def parts_per_pixel(image: Image, scale: float) -> int:
    """Return into how many parts a pixel of ``scale`` arcsec is divided along a side, for an image."""
    return int(np.clip(round(scale / image.pixel_scale / PER_PART), 1, FINEST))


def divide(image: Image, wcs: WCS, shape: tuple[int, int], margin: int) -> Divided:
    """Average an image over the parts of the pixels of a grid with a margin.

    Parameters
    ----------
    image : Image
    wcs, shape
        The grid.
    margin : int
        In pixels of the grid, on every side.

    Raises
    ------
    InputError
        When the image does not overlap the grid.
    """
    factor = parts_per_pixel(image, pixel_scale(wcs, shape))
    fine = reproject(image, derived_grid(wcs, shape, margin=margin, factor=factor), "area")
    return Divided(
        fine, wcs, shape, margin, factor, Origin(image.shape, image.psf, image.pixel_matrix, image.history)
    )
