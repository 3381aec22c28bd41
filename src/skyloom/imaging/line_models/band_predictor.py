"""What an instrument of broader PSF and coarser pixels would see of finer images, quickly enough to fit PSF and place.

The fine images are transformed once. A PSF and a shift are then factors on their transforms, and the coarse pixels sums
over blocks, so that trying another PSF costs one inverse transform for each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from skyloom.core.image import Image
from skyloom.core.psf import FWHM_PER_SIGMA
from skyloom.errors import InputError

__all__ = ["BandPredictor", "Blur"]

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
REACH = 3.0  # Sigmas of the blur that a coarse pixel must keep from what is not known.
LEAST_COVERED = 0.9  # Share of the blur that must lie on known pixels; beyond them the sky is taken as empty.


@dataclass(frozen=True, slots=True)
class Blur:
    """A round Gaussian, and where it puts the light.

    Attributes
    ----------
    fwhm : float
        In coarse pixels.
    shift_x, shift_y : float
        What stands at x in the fine images appears at x + shift, in coarse pixels.
    """

    fwhm: float
    shift_x: float = 0.0
    shift_y: float = 0.0

    @property
    def sigma(self) -> float:
        """Standard deviation in coarse pixels."""
        return self.fwhm / FWHM_PER_SIGMA


@dataclass(frozen=True, slots=True, eq=False)
class BandPredictor:
    """Fine images of several bands, ready to be blurred, shifted and put on coarse pixels.

    Parameters
    ----------
    transforms : (n_bands, ky, kx) complex array
        Of the padded fine images, zero where masked.
    valid : (ky, kx) complex array
        Of the mask of pixels that are known in all bands.
    padded : (int, int)
        Shape of the padded fine images.
    shape : (ny, nx)
        Of the coarse grid.
    factor : int
        Fine pixels along the side of a coarse one.
    per_area : bool
        Whether pixels hold surface brightness (blocks are averaged) or flux (added up).
    """

    transforms: NDArray[np.complex128]
    valid: NDArray[np.complex128]
    padded: tuple[int, int]
    shape: tuple[int, int]
    factor: int
    per_area: bool

    @classmethod
    def prepare(
        cls, images: Sequence[Image], shape: tuple[int, int], factor: int, *, per_area: bool
    ) -> BandPredictor:
        """Transform images on one fine grid of ``factor`` times ``shape`` pixels.

        Raises
        ------
        InputError
            When no pixel is known in all bands.
        """
        known = np.logical_and.reduce([image.valid for image in images])
        if not known.any():
            raise InputError("no pixel of the grid is known in all bands", field="bands")
        ny, nx = known.shape
        padded = (fft.next_fast_len(2 * ny, real=True), fft.next_fast_len(2 * nx, real=True))
        planes = [np.where(known, image.data, 0.0) for image in images]
        transforms = np.stack([fft.rfft2(plane, padded) for plane in planes])
        return cls(transforms, fft.rfft2(known.astype(float), padded), padded, shape, factor, per_area)

    def predict(self, blur: Blur, bands: Sequence[int] | None = None) -> Float:
        """Return (n, ny, nx) coarse images of the chosen bands; unknown fine pixels count as empty."""
        chosen = self.transforms if bands is None else self.transforms[list(bands)]
        fine = fft.irfft2(chosen * self._factor(blur), self.padded)
        return np.stack([self._blocks(plane) for plane in fine])

    def covered(self, blur: Blur) -> Mask:
        """(ny, nx) True where at least `LEAST_COVERED` of the blur lies on known pixels."""
        share = fft.irfft2(self.valid * self._factor(blur), self.padded)
        blocks = self._blocks(share) if self.per_area else self._blocks(share) / self.factor**2
        return np.asarray(blocks >= LEAST_COVERED)

    def _factor(self, blur: Blur) -> NDArray[np.complex128]:
        """Transform of the blur on the padded fine grid."""
        frequency_y = fft.fftfreq(self.padded[0]) * self.factor
        frequency_x = fft.rfftfreq(self.padded[1]) * self.factor
        width = -2.0 * (np.pi * blur.sigma) ** 2
        along_y = np.exp(width * frequency_y**2 - 2j * np.pi * blur.shift_y * frequency_y)
        along_x = np.exp(width * frequency_x**2 - 2j * np.pi * blur.shift_x * frequency_x)
        return np.asarray(along_y[:, np.newaxis] * along_x)

    def _blocks(self, plane: Float) -> Float:
        ny, nx = self.shape
        blocks = plane[: ny * self.factor, : nx * self.factor].reshape(ny, self.factor, nx, self.factor)
        return np.asarray(blocks.mean(axis=(1, 3)) if self.per_area else blocks.sum(axis=(1, 3)))
