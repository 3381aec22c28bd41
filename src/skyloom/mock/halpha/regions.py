"""Regions that nebulae dominate at the resolution of MUSE, with their true fluxes, and the table of stars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.labels import NO_REGION, LabelMap
from skyloom.core.provenance import step
from skyloom.core.psf import PSF, MoffatPSF
from skyloom.mock.halpha.scene import HalphaScene, saturation_rate
from skyloom.mock.hubble.bands import Band
from skyloom.mock.scenes.mixture import psf_mixture
from skyloom.mock.scenes.render import plane_to_sky, sky_to_pixel
from skyloom.mock.scenes.scene import Component

__all__ = ["HalphaRegions", "find_truth_regions", "region_catalogue", "star_table"]

Float = NDArray[np.float64]
Single = NDArray[np.float32]
FLUX = u.Unit("1e-20 erg / (s cm2)")
# A nebula owns the pixels where it gives more than this share of all Halpha, and more than this many sigma.
DOMINANT, DETECTED = 0.4, 4.0
SMALLEST = 8  # pixels of a region
# Share of the disc's light below which the wings of a star are forgotten.
FORGOTTEN = 0.05
# Beyond the galaxy it is the sky that a star is forgotten in: as bright as this share of the disc's centre.
DARKEST = 0.002


@dataclass(frozen=True, slots=True, eq=False)
class HalphaRegions:
    """Regions of nebulae.

    Parameters
    ----------
    labels : LabelMap
        On the pixels of MUSE; numbers from 1.
    nebula : (n_regions,) array
        Row of each region's nebula in the component.
    flux : (n_regions,) array
        Intrinsic Halpha flux of the nebula, 1e-20 erg s-1 cm-2.
    muse_flux : (n_regions,) array
        True Halpha flux in the region on the pixels of MUSE, same unit.
    n_pixels : (n_regions,) array
    """

    labels: LabelMap
    nebula: NDArray[np.int64]
    flux: Float
    muse_flux: Float
    n_pixels: NDArray[np.int64]

    def on_rows(self, wcs: WCS, shape: tuple[int, int], first: int) -> NDArray[np.int32]:
        """Return the labels of pixels of another grid, by their centres, from row ``first`` on: -1 outside.

        Both grids must have the same tangent point, which makes the one a linear map of the other.
        """
        labels, coarse = self.labels.labels, self.labels.wcs
        assert coarse is not None
        corners = np.array([[0.0, first], [1.0, first], [0.0, first + 1.0]])
        x, y = coarse.wcs_world2pix(*wcs.wcs_pix2world(corners[:, 0], corners[:, 1], 0), 0)
        row, column = (np.arange(size) for size in shape)
        found = []
        for values, limit in ((x, labels.shape[1]), (y, labels.shape[0])):
            place = (
                values[0] + (values[1] - values[0]) * column + np.multiply.outer(row, [values[2] - values[0]])
            )
            index = np.rint(place).astype(np.int32)
            found.append(np.where((index >= 0) & (index < limit), index, -1))
        inside = (found[0] >= 0) & (found[1] >= 0)
        return np.where(inside, labels[found[1], found[0]], NO_REGION)

    def sum_rows(self, wcs: WCS, values: Single, first: int) -> tuple[Float, NDArray[np.int64]]:
        """Return the sums of values over the regions on rows of another grid, and the numbers of pixels."""
        ny, nx = values.shape
        labels = np.maximum(self.on_rows(wcs, (ny, nx), first).ravel(), 0)
        size = self.flux.size + 1
        sums = np.bincount(labels, values.ravel().astype(np.float64), size)[1:]
        return np.asarray(sums), np.asarray(np.bincount(labels, minlength=size)[1:], dtype=np.int64)

    def table(self, flux: Float, n_pixels: NDArray[np.int64]) -> QTable:
        """Return the truth of the regions; ``flux`` and ``n_pixels`` are those on Hubble's pixels."""
        table = QTable()
        table["region_ID"] = np.arange(1, self.flux.size + 1)
        table["flux"] = flux * FLUX
        table["flux_muse"] = self.muse_flux * FLUX
        table["n_pixels"] = n_pixels
        table["n_pixels_muse"] = self.n_pixels
        table["nebula"] = self.nebula
        table["nebula_flux"] = self.flux * FLUX
        return table


def find_truth_regions(
    source: HalphaScene, wcs: WCS, halpha: Single, noise: Single, psf: PSF
) -> HalphaRegions:
    """Return the pixels that single nebulae dominate, from the truth.

    Parameters
    ----------
    source : HalphaScene
    wcs : astropy.wcs.WCS
    halpha, noise : (ny, nx) arrays
        True surface brightness of all Halpha, and its error, 1e-20 erg s-1 cm-2 arcsec-2.
    psf : PSF
    """
    nebulae = source.nebulae
    flux = 1e20 * np.asarray(nebulae.lines["Halpha"])
    position, derivative = sky_to_pixel(nebulae.mixture.centre, source.scene.centre, wcs)
    scale = 1.0 / np.sqrt(np.abs(np.linalg.det(derivative)))
    best = np.zeros(halpha.shape, dtype=np.float32)
    labels = np.full(halpha.shape, NO_REGION, dtype=np.int32)
    blur = psf_mixture(psf)
    for index in np.flatnonzero(flux > 0):
        variance = nebulae.mixture.covariance[index, 0, 0] + blur.covariance[:, 0, 0]
        reach = int(np.ceil((1.5 * psf.fwhm + 4.0 * np.sqrt(variance.min())) / scale[index]))
        column, row = np.rint(position[index]).astype(int)
        y = slice(max(row - reach, 0), min(row + reach + 1, halpha.shape[0]))
        x = slice(max(column - reach, 0), min(column + reach + 1, halpha.shape[1]))
        if y.stop <= y.start or x.stop <= x.start:
            continue
        away = np.add.outer(
            (np.arange(y.start, y.stop) - position[index, 1]) ** 2,
            (np.arange(x.start, x.stop) - position[index, 0]) ** 2,
        ) * scale[index] ** 2  # fmt: skip
        radius = np.linspace(0.0, np.sqrt(away.max()), 200)
        profile = np.exp(-0.5 * np.divide.outer(radius**2, variance)) @ (
            blur.fraction / (2 * np.pi * variance)
        )
        own = (flux[index] * np.interp(np.sqrt(away), radius, profile)).astype(np.float32)
        first = own > best[y, x]
        labels[y, x][first] = index
        best[y, x][first] = own[first]
    labels[(best < DOMINANT * halpha) | (best < DETECTED * noise)] = NO_REGION
    return _numbered(labels, flux, halpha, wcs)


def _numbered(labels: NDArray[np.int32], flux: Float, halpha: Single, wcs: WCS) -> HalphaRegions:
    """Leave out small regions, and number the others from 1."""
    size = np.bincount(labels[labels >= 0], minlength=flux.size)
    kept = np.flatnonzero(size >= SMALLEST)
    number = np.full(flux.size + 1, NO_REGION, dtype=np.int32)
    number[kept] = np.arange(1, kept.size + 1)
    final = number[labels]
    inside = final >= 0
    area = abs(float(np.linalg.det(wcs.pixel_scale_matrix))) * 3600.0**2
    sums = np.asarray(np.bincount(final[inside] - 1, halpha[inside].astype(np.float64), kept.size) * area)
    done = (step("find_truth_regions", dominant=DOMINANT, detected=DETECTED),)
    return HalphaRegions(LabelMap(final, wcs, history=done), kept, flux[kept], sums, size[kept])


def region_catalogue(regions: HalphaRegions, halpha: Image) -> QTable:
    """Return the catalogue of regions as a survey publishes it: centres, fluxes summed over the map, and errors."""
    labels = regions.labels.labels
    inside = labels >= 0
    n, own = regions.flux.size, labels[inside] - 1
    area = halpha.pixel_scale**2
    y, x = np.nonzero(inside)
    data = np.where(halpha.mask, 0.0, halpha.data).astype(np.float64)[inside]
    weight = np.maximum(data, 0.0) + 1e-6 * float(np.abs(data).max(initial=1.0))
    total = np.bincount(own, weight, n)
    with np.errstate(invalid="ignore"):
        place = [np.bincount(own, weight * axis, n) / total for axis in (x, y)]
    assert halpha.wcs is not None
    ra, dec = halpha.wcs.wcs_pix2world(*place, 0)
    table = QTable()
    table["region_ID"] = np.arange(1, n + 1)
    table["cen_ra"], table["cen_dec"] = ra * u.deg, dec * u.deg
    table["HA6562_FLUX"] = np.bincount(own, data, n) * area * FLUX
    table["HA6562_FLUX_ERR"] = np.sqrt(_summed_variance(labels, halpha, n)) * area * FLUX
    return table


def _summed_variance(labels: NDArray[np.int32], image: Image, n: int) -> Float:
    """Variance of the sums over regions, with the correlation of neighbours."""
    kernel = np.ones((1, 1)) if image.correlation is None else image.correlation
    half = kernel.shape[0] // 2
    sigma = np.pad(np.where(image.mask, 0.0, np.sqrt(image.variance)), half)
    framed = np.pad(labels, half, constant_values=NO_REGION)
    inside = labels >= 0
    own, centre = (
        labels[inside] - 1,
        sigma[half : half + labels.shape[0], half : half + labels.shape[1]][inside],
    )
    total = np.zeros(n)
    for dy, dx in np.ndindex(kernel.shape):
        window = (slice(dy, dy + labels.shape[0]), slice(dx, dx + labels.shape[1]))
        same = framed[window][inside] == own + 1
        total += np.bincount(own, kernel[dy, dx] * centre * np.where(same, sigma[window][inside], 0.0), n)
    return total


def star_table(
    source: HalphaScene, bands: Mapping[str, Band], scale: float, psf: PSF, *, saturate: bool
) -> QTable:
    """Return the stars: places, magnitudes, whether they saturate in any band, and the radius to be masked.

    Beyond ``radius`` a star blurred by the PSF (of MUSE) is fainter than a twentieth of the disc's continuum.
    """
    offsets = np.array([star.mixture.centre[0] for star in source.stars]).reshape(-1, 2)
    ra, dec = plane_to_sky(offsets[:, 0], offsets[:, 1], source.scene.centre)
    disc = source.scene.components[0]
    centre = _disc_brightness(disc, disc.mixture.centre[np.argmax(disc.continuum)])
    sharp = next(iter(bands.values())).psf
    # Light of a point in its brightest pixel, between that in the middle of a pixel and that at a corner.
    peak = 0.8 * scale**2 * 4 * np.log(2) / (np.pi * sharp.fwhm**2)
    saturated, radii = [], []
    for star, place in zip(source.stars, offsets, strict=True):
        rates = {
            name: _band_rate(star.continuum[0], band) * peak / saturation_rate(name)
            for name, band in bands.items()
        }
        saturated.append(saturate and max(rates.values()) > 1.0)
        local = max(_disc_brightness(disc, place), DARKEST * centre)
        radii.append(_radius(float(star.continuum[0] / (FORGOTTEN * local)), psf))
    table = QTable()
    table["ra"], table["dec"] = ra * u.deg, dec * u.deg
    table["magnitude"] = source.star_magnitudes * u.mag
    table["saturated"] = np.array(saturated, dtype=bool)
    table["radius"] = np.array(radii) * u.arcsec
    return table


def _disc_brightness(disc: Component, place: Float) -> float:
    """Continuum of the disc at an offset, per arcsec2."""
    variance = disc.mixture.covariance[:, 0, 0]
    away = np.sum((disc.mixture.centre - place) ** 2, axis=1) / variance
    return float(np.sum(disc.continuum * np.exp(-0.5 * away) / (2 * np.pi * variance)))


def _band_rate(continuum: float, band: Band) -> float:
    return float(continuum / band.photflam)


def _radius(area: float, psf: PSF) -> float:
    """Radius in arcsec where a point's profile falls to 1 / ``area`` per arcsec2; at least one FWHM."""
    if isinstance(psf, MoffatPSF):
        centre = (psf.beta - 1) / (np.pi * psf.alpha**2)
        reach = psf.alpha * np.sqrt(max((area * centre) ** (1 / psf.beta) - 1.0, 0.0))
    else:
        sigma = psf.fwhm / np.sqrt(8 * np.log(2))
        reach = sigma * np.sqrt(2 * np.log(max(area / (2 * np.pi * sigma**2), 1.0)))
    return float(max(reach, psf.fwhm))
