"""One target: the mean of all exposures of each band on one grid, and of its spectra, with their errors.

Everything is averaged by `skyloom.store.stack`, which carries variance, correlation, masks and shared errors along.
Here the pieces are only cut out, put onto the grid of the target, and turned into arrays of one shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.geometry import celestial
from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.store.cutouts import LARGEST, cutout_window
from skyloom.store.stack import place_image, stack_images, stack_spectra

if TYPE_CHECKING:
    from skyloom.store.contents import Contents

__all__ = [
    "LAGS",
    "REACH",
    "ImageStack",
    "Plan",
    "SpectrumStack",
    "TargetStack",
    "stack_target",
    "target_grid",
]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
Int = NDArray[np.int64]
REACH = 5
"""Pixels to each side up to which the noise correlation of an image is kept: what Lanczos-3 makes of white noise."""
LAGS = 3
"""Channels up to which the noise correlation of a spectrum is kept."""
EDGE = 8
"""Pixels of an exposure that are cut out around what the grid covers, for interpolation."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is made for every target.

    Parameters
    ----------
    size : int
        Pixels along a side at level 0.
    pixel_scale : float
        arcsec, at level 0.
    bands : tuple of str
    units : tuple of str
        Of each band.
    image_levels, spectrum_levels : tuple of int
    n_wave : mapping of level to int
        Channels of the common grid.
    spectrum_unit : str
    spectra : {"mean", "nearest"}
    weights : {"observation", "pixel"}
    where : mapping
        Further conditions on images.
    """

    size: int
    pixel_scale: float
    bands: tuple[str, ...]
    units: tuple[str, ...]
    image_levels: tuple[int, ...]
    spectrum_levels: tuple[int, ...]
    n_wave: Mapping[int, int]
    spectrum_unit: str
    spectra: str
    weights: str
    where: Mapping[str, Any] = field(default_factory=dict)

    def side(self, level: int) -> int:
        """Return the pixels along a side at a level, at least as large on the sky as at level 0."""
        return -(-self.size // 2**level)


class ImageStack(NamedTuple):
    """All bands of one target at one level.

    Parameters
    ----------
    flux, ivar : (n_band, ny, nx) float32 arrays
        NaN and 0 where nothing is known.
    valid : (n_band, ny, nx) bool array
    correlation : (n_band, 2 REACH + 1, 2 REACH + 1) float32 array
    shared_error : (n_band,) float32 array
        Root mean square over the image of the errors that its pixels share.
    """

    flux: Float32
    ivar: Float32
    valid: Bool
    correlation: Float32
    shared_error: Float32


class SpectrumStack(NamedTuple):
    """The spectrum of one target at one level.

    Parameters
    ----------
    flux, ivar : (n_wave,) float32 arrays
    valid : (n_wave,) bool array
    lags : (n_wave, LAGS) float32 array
        Correlation of channel i with i + 1, i + 2 ...
    shared_error : float32
    """

    flux: Float32
    ivar: Float32
    valid: Bool
    lags: Float32
    shared_error: np.float32


class TargetStack(NamedTuple):
    """Everything of one target.

    Parameters
    ----------
    images, spectra : mapping of level to what there is at it
    n_exposures : (n_band,) int16 array
        Images behind each band at the finest level.
    sources : tuple of (row of the store, number of the band or -1 of a spectrum)
    """

    images: dict[int, ImageStack]
    spectra: dict[int, SpectrumStack]
    n_exposures: NDArray[np.int16]
    sources: tuple[tuple[int, int], ...]


def target_grid(ra: float, dec: float, side: int, pixel_scale: float) -> WCS:
    """Return the tangent projection (gnomonic, north up, east left) whose middle is a place; deg and arcsec."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(side + 1) / 2, (side + 1) / 2]
    wcs.wcs.cd = np.diag([-pixel_scale, pixel_scale]) / 3600.0
    wcs.pixel_shape = (side, side)
    wcs.wcs.set()
    return wcs


def stack_target(store: Contents, plan: Plan, place: tuple[float, float], spectra: Int) -> TargetStack:
    """Average everything that covers a place.

    Parameters
    ----------
    store : Contents
    plan : Plan
    place : (ra, dec), deg
    spectra : int array
        Rows of its spectra, the nearest first.
    """
    members = _images_near(store, plan, place)
    images: dict[int, ImageStack] = {}
    used: list[list[int]] = [[] for _ in plan.bands]
    for level in plan.image_levels:
        scale = plan.pixel_scale * 2**level
        wcs, side = target_grid(*place, plan.side(level), scale), plan.side(level)
        found = _empty_images(len(plan.bands), side)
        for number, rows in enumerate(members):
            unit = _unit(plan.units[number])
            placed = [(row, _placed(store, row, level, (wcs, side), place, unit)) for row in rows]
            exposures = [(row, image) for row, image in placed if image is not None and not image.mask.all()]
            if level == plan.image_levels[0]:
                used[number] = [row for row, _ in exposures]
            if exposures:
                mean = stack_images(
                    [image for _, image in exposures], (wcs, (side, side)), weights=plan.weights
                )
                _fill(found, number, mean)
        images[level] = found
    chosen = spectra[:1] if plan.spectra == "nearest" else spectra
    of_levels = {level: _spectrum(store, plan, chosen, level) for level in plan.spectrum_levels}
    sources = [(row, number) for number, rows in enumerate(used) for row in rows]
    return TargetStack(
        images,
        of_levels,
        np.array([len(rows) for rows in used], dtype=np.int16),
        (*sources, *((int(row), -1) for row in chosen)),
    )


@lru_cache(maxsize=64)
def _unit(text: str) -> Any:
    return u.Unit(text)


def _images_near(store: Contents, plan: Plan, place: tuple[float, float]) -> list[list[int]]:
    """Return the rows of the images that touch the grid, for each band."""
    # The coarsest grid may be a little larger than the finest.
    half = max(plan.side(level) * 2**level for level in plan.image_levels or (0,)) * plan.pixel_scale / 2
    rows = store.search(cone=(place, half * np.sqrt(2.0) / 3600.0), kind="image", **plan.where)
    bands = store.bands_of(rows)
    return [[int(row) for row, own in zip(rows, bands, strict=True) if own == band] for band in plan.bands]


def _placed(
    store: Contents, row: int, level: int, grid: tuple[WCS, int], place: tuple[float, float], unit: Any
) -> Image | None:
    """Return an exposure on the grid of the target; None where it does not reach it, or has no such level."""
    reader, number = store.reader_of(row)
    if str(level) not in reader.level_names(number):
        return None
    wcs, side = grid
    shape = reader.shape(number, level)
    whole = reader.wcs(number, level)
    arcsec = side * abs(float(wcs.wcs.cd[1, 1])) * 3600.0
    try:
        # The diagonal: exposures may be turned.
        pixel = 3600.0 * np.sqrt(abs(np.linalg.det(celestial(whole, "a place").pixel_scale_matrix)))
        n_pixels = round(arcsec * np.sqrt(2.0) / pixel) + 2 * EDGE
        window = cutout_window(whole, (shape[-2], shape[-1]), place, min(n_pixels, LARGEST))
    except InputError as error:
        if error.field == "center":
            return None  # So far from the place that its projection does not reach there.
        raise
    assert window is not None  # A size was given.
    if any(part.stop <= 0 or part.start >= length for part, length in zip(window, shape[-2:], strict=True)):
        return None
    return place_image(reader.image(number, level, window), (wcs, (side, side)), unit)


def _empty_images(n_bands: int, side: int) -> ImageStack:
    shape = (n_bands, side, side)
    correlation = np.zeros((n_bands, 2 * REACH + 1, 2 * REACH + 1), np.float32)
    correlation[:, REACH, REACH] = 1.0
    return ImageStack(
        np.full(shape, np.nan, np.float32),
        np.zeros(shape, np.float32),
        np.zeros(shape, bool),
        correlation,
        np.zeros(n_bands, np.float32),
    )


def _fill(found: ImageStack, number: int, mean: Image) -> None:
    found.valid[number] = _filled(mean, found.flux[number], found.ivar[number])
    if mean.correlation is not None:
        reach = mean.correlation.shape[0] // 2
        kept = min(reach, REACH)
        middle = slice(reach - kept, reach + kept + 1)
        here = slice(REACH - kept, REACH + kept + 1)
        found.correlation[number, here, here] = mean.correlation[middle, middle]
    found.shared_error[number] = _shared(mean, found.valid[number])


def _filled(mean: Image | Spectra, flux: Float32, ivar: Float32) -> Bool:
    """Write values and inverse variances of what is usable; return where that is."""
    data, variance = mean.data.reshape(flux.shape), mean.variance.reshape(flux.shape)
    valid = ~mean.mask.reshape(flux.shape) & (variance > 0) & np.isfinite(data)
    flux[valid] = data[valid]
    ivar[valid] = 1.0 / variance[valid].astype(np.float64)
    return np.asarray(valid)


def _shared(mean: Image | Spectra, valid: Bool) -> np.float32:
    total = 0.0
    for mode in mean.modes:
        effect = np.broadcast_to(np.asarray(mode.map), mean.data.shape).reshape(valid.shape)[valid]
        total += (
            float(np.mean(effect.astype(np.float64) ** 2)) * float(mode.sigma) ** 2 if effect.size else 0.0
        )
    return np.float32(np.sqrt(total))


def _spectrum(store: Contents, plan: Plan, rows: Sequence[int] | Int, level: int) -> SpectrumStack:
    n_wave = plan.n_wave[level]
    flux, ivar = np.full(n_wave, np.nan, np.float32), np.zeros(n_wave, np.float32)
    lags = np.zeros((n_wave, LAGS), np.float32)
    members = []
    for row in rows:
        reader, number = store.reader_of(int(row))
        if str(level) in reader.level_names(number):
            members.append(reader.spectrum(number, level, "common"))
    if not members:
        return SpectrumStack(flux, ivar, np.zeros(n_wave, bool), lags, np.float32(0.0))
    mean = stack_spectra(members, weights=plan.weights)
    factor = float(mean.unit.to(_unit(plan.spectrum_unit)))
    valid = _filled(mean, flux, ivar)
    if factor != 1.0:
        flux *= np.float32(factor)
        ivar /= np.float32(factor**2)
    if mean.correlation is not None:
        middle = mean.correlation.shape[-1] // 2
        kept = min(middle, LAGS)
        lags[:, :kept] = mean.correlation[..., middle + 1 : middle + 1 + kept]
    return SpectrumStack(flux, ivar, valid, lags, _shared(mean, valid) * np.float32(factor))
