"""The images of HST made ready: cosmic rays repaired, stars masked, noise known, in flux density, on one grid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.geometry import same_grid
from skyloom.core.image import Flag, Image
from skyloom.core.labels import NO_REGION, LabelMap
from skyloom.core.provenance import step
from skyloom.core.psf import GaussianPSF
from skyloom.errors import InputError
from skyloom.imaging.grids.block_means import block_means
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.measure.masks import source_mask
from skyloom.imaging.repair.cosmic_rays import remove_cosmic_rays
from skyloom.imaging.stars.masks import mask_stars
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.blocks import Extension, card, write_hdus
from skyloom.io.formats.headers import wcs_cards
from skyloom.io.stars import read_stars as read_star_list
from skyloom.recipes.halpha.inputs import Source, exposure_of, read_band, ready_band
from skyloom.recipes.label_files import read_label_file

__all__ = [
    "Hst",
    "Rays",
    "binned",
    "find_cosmic_rays",
    "find_stars",
    "read_rays",
    "read_stars",
    "write_rays",
    "write_stars",
]

Mask = NDArray[np.bool_]
STAR_GROWTH = 1.0
"""FWHM of MUSE by which stars are grown on its grid."""


@dataclass(slots=True)
class Hst:
    """The images of HST of one object, read when they are asked for and let go when they are done with.

    Attributes
    ----------
    source : Source
    rays : dict
        Band -> what cosmic rays have hit, once known.
    star_map : Stars or None
        Once known.
    """

    source: Source
    rays: Mapping[str, Rays] = field(default_factory=dict)
    star_map: Stars | None = None
    _raw: dict[str, Image] = field(default_factory=dict)
    _ready: dict[str, Image] = field(default_factory=dict)
    _units: dict[str, u.UnitBase] = field(default_factory=dict)

    def raw(self, band: str) -> Image:
        """Return the image of a band as the file has it."""
        if band not in self._raw:
            self._raw[band] = read_band(self.source, band)
            self._units[band] = self._raw[band].unit
        return self._raw[band]

    def ready(self, band: str) -> Image:
        """Return the image of a band in flux density, repaired, on the grid of the narrow band."""
        if band not in self._ready:
            image = self.raw(band)
            if band in self.rays:
                image = self.rays[band].repair(image)
            # The raw image is as large again, and is not needed any more.
            del self._raw[band]
            image = ready_band(self.source, image).evolve(psf=GaussianPSF(self.source.config.images.psf_fwhm))
            self._ready[band] = self._on_grid(image)
        return self._ready[band]

    def release(self, band: str) -> Image:
        """Return the image of a band as `ready` does, and forget it."""
        image = self.ready(band)
        del self._ready[band]
        return image

    @property
    def unit(self) -> u.UnitBase:
        """The unit of the narrow band as the file has it."""
        return self._units[self.source.narrow]

    @property
    def stars(self) -> Mask | None:
        """True on stars, on the grid of the narrow band."""
        return None if self.star_map is None else self.star_map.mask

    def stars_on(self, image: Image) -> Mask | None:
        """Return the stars on another grid, grown by its PSF: what is saturated in HST is wrong as far as that."""
        if self.star_map is None or not self.star_map.mask.any():
            return None
        labels = np.where(self.star_map.mask, 1, NO_REGION).astype(np.int32)
        grown = STAR_GROWTH * (1.0 if image.psf is None else image.psf.fwhm)
        assert image.wcs is not None
        return source_mask(
            LabelMap(labels, self.star_map.wcs), (image.wcs, image.shape), dilation_arcsec=grown
        )

    def _on_grid(self, image: Image) -> Image:
        narrow = self.source.narrow
        if image.meta["band"] == narrow:
            return image
        reference = self._ready[narrow] if narrow in self._ready else self.raw(narrow)
        if same_grid(image.wcs, image.shape, reference.wcs, reference.shape):
            return image.evolve(wcs=reference.wcs)
        try:
            return reproject(image, reference)
        except InputError as error:
            raise error.located(self.source.files_of(str(image.meta["band"])).image) from None


def binned(image: Image, side: int) -> Image:
    """Average an image over blocks of pixels; one with distortions is left as it is."""
    if side <= 1 or image.wcs is None or image.wcs.sip is not None:
        return image
    return block_means(image.evolve(modes=(), flags=None), side)


# --- cosmic rays ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rays:
    """The pixels of one band that cosmic rays have hit, and what replaces them.

    Attributes
    ----------
    place : (n,) int64 array
        Index into the flattened image.
    value, variance : (n,) arrays
        In the unit of the image; NaN where nothing could replace a pixel, which is then masked.
    n_rays : int
    settings : dict
    shape, wcs
        Of the image.
    """

    place: NDArray[np.int64]
    value: NDArray[np.floating]
    variance: NDArray[np.floating]
    n_rays: int
    settings: dict[str, Any]
    shape: tuple[int, int]
    wcs: WCS

    def repair(self, image: Image) -> Image:
        """Return an image with the pixels replaced, and flagged."""
        data, variance, mask = image.data.copy(), image.variance.copy(), image.mask.copy()
        flags = np.zeros(image.shape, np.uint16) if image.flags is None else image.flags.copy()
        known = np.isfinite(self.value)
        mask.reshape(-1)[self.place[~known]] = True
        place = self.place[known]
        data.reshape(-1)[place] = self.value[known]
        variance.reshape(-1)[place] = self.variance[known]
        flags.reshape(-1)[place] |= np.uint16(Flag.REPAIRED_COSMIC_RAY)
        record = step("remove_cosmic_rays", pixels=self.place.size, rays=self.n_rays, **self.settings)
        return image.evolve(record, data=data, variance=variance, mask=mask, flags=flags)


def find_cosmic_rays(source: Source, hst: Hst) -> dict[str, Rays]:
    """Find the cosmic rays of every band, and what replaces their pixels."""
    config = source.config
    if config.cosmic_rays.method == "none":
        return {}
    saturation = None if config.stars is None else config.stars.saturation
    found = {}
    for number, band in enumerate(config.bands):
        source.tick("cosmic_rays", number, len(config.bands))
        image = hst.raw(band)
        rays = remove_cosmic_rays(
            image,
            exposure=exposure_of(image) if config.noise.source_poisson else None,
            gain=config.images.gain or 1.0,
            threshold=config.cosmic_rays.threshold,
            psf=GaussianPSF(config.images.psf_fwhm),
            saturation=saturation if isinstance(saturation, float) else None,
        )
        place = np.flatnonzero(rays.mask)
        lost = rays.image.mask.reshape(-1)[place]
        value = np.where(lost, np.nan, rays.image.data.reshape(-1)[place])
        variance = np.where(lost, np.nan, rays.image.variance.reshape(-1)[place])
        found[band] = Rays(place, value, variance, rays.n_rays, dict(rays.settings), image.shape, image.wcs)
    return found


def rays_path(source: Source, band: str) -> Path:
    """Name the file of the cosmic rays of a band."""
    return source.folder / f"{source.name}_{band}_cosmicrays.fits"


def write_rays(source: Source, rays: Mapping[str, Rays]) -> list[Path]:
    """Write the mask of each band, and what replaces its pixels."""
    paths = []
    for band, item in rays.items():
        mask = np.zeros(item.shape, np.uint8)
        mask.reshape(-1)[item.place] = 1
        rows = np.empty(item.place.size, [("PIXEL", "i8"), ("VALUE", "f8"), ("VARIANCE", "f8")])
        rows["PIXEL"], rows["VALUE"], rows["VARIANCE"] = item.place, item.value, item.variance
        about = card("NRAYS", item.n_rays) + card("SETTINGS", json.dumps(item.settings))
        path = rays_path(source, band)
        write_extensions(
            path, Extension("MASK", mask, wcs_cards(item.wcs)), Extension("REPAIRED", rows, about)
        )
        paths.append(path)
    return paths


def read_rays(source: Source, paths: Sequence[Path]) -> dict[str, Rays]:
    """Read what `write_rays` has written."""
    found = {}
    for band in source.config.bands:
        path = rays_path(source, band)
        if path not in paths:
            continue
        with fits.open(path, memmap=False) as hdus:
            rows, header = hdus["REPAIRED"].data, hdus["REPAIRED"].header
            mask = hdus["MASK"]
            found[band] = Rays(
                rows["PIXEL"].astype(np.int64),
                rows["VALUE"].astype(np.float64),
                rows["VARIANCE"].astype(np.float64),
                int(header["NRAYS"]),
                json.loads(header["SETTINGS"]),
                mask.shape,
                WCS(mask.header),
            )
    return found


def write_extensions(path: Path, *extensions: Extension) -> Path:
    """Write extensions into a FITS file that appears when it is complete."""
    with atomic_path(path, overwrite=True) as temporary, open(temporary, "wb") as stream:
        write_hdus(stream, [Extension("", None, card("ORIGIN", "Skyloom")), *extensions])
    return path


# --- stars ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stars:
    """Stars in the field.

    Attributes
    ----------
    mask : (ny, nx) bool array
        On the grid of the narrow band.
    wcs : WCS
    """

    mask: Mask
    wcs: WCS


def find_stars(source: Source, hst: Hst) -> Stars | None:
    """Mask the stars: of a catalogue, of a mask, or found; None when the configuration asks for none.

    Raises
    ------
    InputError
        When a catalogue or a mask cannot be read.
    """
    settings, files = source.config.stars, source.files
    if settings is None:
        return None
    image = hst.raw(source.narrow)
    try:
        found = mask_stars(
            image.evolve(psf=GaussianPSF(source.config.images.psf_fwhm)),
            catalogue=None if files.star_catalogue is None else read_star_list(files.star_catalogue),
            mask=None if files.star_mask is None else read_mask(files.star_mask, image),
            detect=settings.detect,
            saturation=settings.saturation,
        )
    except InputError as error:
        raise error.located(files.star_catalogue or source.files_of(source.narrow).image) from None
    assert image.wcs is not None
    return Stars(found.mask, image.wcs)


def read_mask(path: Path, image: Image) -> LabelMap:
    """Read an image whose pixels above 0 are stars, or regions of DS9 around them."""
    labels = read_label_file(path, image)
    return labels.evolve(labels=np.where(labels.labels > 0, labels.labels, NO_REGION).astype(np.int32))


def write_stars(source: Source, stars: Stars | None) -> list[Path]:
    """Write the mask of the stars."""
    if stars is None:
        return []
    path = source.folder / f"{source.name}_starmask.fits"
    return [write_extensions(path, Extension("MASK", stars.mask.astype(np.uint8), wcs_cards(stars.wcs)))]


def read_stars(paths: Sequence[Path]) -> Stars | None:
    """Read what `write_stars` has written."""
    if not paths:
        return None
    with fits.open(paths[0], memmap=False) as hdus:
        return Stars(hdus["MASK"].data.astype(bool), WCS(hdus["MASK"].header))
