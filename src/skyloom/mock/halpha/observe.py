"""A nearby spiral as Hubble sees it in Halpha and two broad bands, and as MUSE sees it, with everything known.

Both instruments look at the same sum of Gaussians (`skyloom.mock.halpha.scene`), Hubble on small turned pixels with
sky offsets, drizzled noise, cosmic rays and saturated stars, MUSE on large pixels with a wide PSF.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.provenance import step
from skyloom.mock.halpha.hubble import STRIPE, HalphaModel, Stripe, halpha_model, hst_meta
from skyloom.mock.halpha.muse import CGS, LINE_BRIGHTNESS, MuseImages, find_regions_of, muse_side
from skyloom.mock.halpha.regions import HalphaRegions, region_catalogue, star_table
from skyloom.mock.halpha.scene import HALPHA_BANDS, NARROW, HalphaScene
from skyloom.mock.hubble.observe import Observation
from skyloom.mock.scenes.images import ELECTRON_RATE

__all__ = ["STRIPE", "HalphaMock", "HalphaModel", "HalphaTruth", "Stripe", "halpha_model", "observe_halpha"]

Single = NDArray[np.float32]
# A cosmic ray counts where it leaves this many standard deviations of the noise.
VISIBLE = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class HalphaTruth:
    """What is known of a `HalphaMock`.

    Parameters
    ----------
    halpha : Image
        Halpha emission on Hubble's pixels with Hubble's PSF, noise-free.
    halpha_muse : Image
        The same on the pixels of MUSE, with its PSF.
    sky : dict of str to float
        Left-over sky in Hubble's images, e/s per pixel.
    muse_bands, muse_lines : dict of str to array
        The images of MUSE without noise.
    regions : QTable
        For every region of the label map: region_ID, the true Halpha flux in it on Hubble's pixels (those whose
        centres lie in pixels of the region) and on those of MUSE, the numbers of pixels, and the nebula.
    absorption : (ny, nx) array
        Equivalent width (A, rest frame) of the stars' Halpha absorption, on the pixels of MUSE with its PSF.
    nii_ratio : (ny, nx) array
        [N II] 6583 / Halpha, likewise.
    cosmic_rays : dict of str to bool array
        Pixels of Hubble's images where a ray left more than 5 standard deviations.
    saturated : dict of str to bool array
    scene : HalphaScene
    model : HalphaModel
    """

    halpha: Image
    halpha_muse: Image
    sky: dict[str, float]
    muse_bands: dict[str, Single]
    muse_lines: dict[str, Single]
    regions: QTable
    absorption: Single
    nii_ratio: Single
    cosmic_rays: dict[str, NDArray[np.bool_]]
    saturated: dict[str, NDArray[np.bool_]]
    scene: HalphaScene
    model: HalphaModel


@dataclass(frozen=True, slots=True, eq=False)
class HalphaMock:
    """An observation by Hubble and MUSE.

    Parameters
    ----------
    narrow : Observation
        Hubble's narrow band, e/s per pixel; arrays are float32.
    continua : dict of str to Observation
        The broad bands.
    bandpasses : dict of str to Bandpass
        Of all three, in vacuum.
    muse_bands : dict of str to Image
        Synthetic images of MUSE through the three bands, 1e-20 erg / (s cm2 AA arcsec2).
    muse_lines : dict of str to Image
        Halpha, NII6583, Hbeta, OIII5007, 1e-20 erg / (s cm2 arcsec2); emission only, as a fit with stellar
        templates gives it.
    labels : LabelMap
        On the pixels of MUSE: region that a nebula dominates; -1 none.
    catalogue : QTable
        region_ID, cen_ra, cen_dec, HA6562_FLUX, HA6562_FLUX_ERR of every region, as measured in the Halpha map.
    stars : QTable
        ra, dec, magnitude, saturated, radius (within which the star outshines a twentieth of the disc).
    redshift : float
    truth : HalphaTruth
    """

    narrow: Observation
    continua: dict[str, Observation]
    bandpasses: dict[str, Bandpass]
    muse_bands: dict[str, Image]
    muse_lines: dict[str, Image]
    labels: LabelMap
    catalogue: QTable
    stars: QTable
    redshift: float
    truth: HalphaTruth

    @property
    def hst(self) -> dict[str, Observation]:
        """All of Hubble's images by band, the narrow one first."""
        return {NARROW: self.narrow, **self.continua}


def observe_halpha(
    *,
    shape: tuple[int, int] = (1600, 1600),
    scale: float = 0.04,
    angle: float = 25.0,
    muse_scale: float = 0.2,
    muse_angle: float = -8.0,
    seeing: float = 0.8,
    fwhm: float = 0.07,
    sky: Mapping[str, float] | None = None,
    cosmic_rays: float = 1.0,
    saturate: bool = True,
    border: int = 0,
    noise: float = 1.0,
    muse_exposure: float = 3600.0,
    n_nebulae: int | None = None,
    n_stars: int | None = None,
    seed: int,
    **scene: Any,
) -> HalphaMock:
    """Observe a nearby spiral with Hubble and MUSE.

    Parameters
    ----------
    shape : (int, int)
        (ny, nx) of Hubble's images. The galaxy fills the field, whatever its size; nebulae keep their own.
    scale, angle : float
        Hubble's pixels, arcsec, and the position angle of their y axis, degrees.
    muse_scale, muse_angle : float
        The same for MUSE, whose square is as large as Hubble's, so that both cover a corner that the other does not.
    seeing, fwhm : float
        FWHM of the Moffat PSF of MUSE at 7000 A (beta 2.8), and of Hubble's Gaussian PSF, arcsec.
    sky : mapping of str to float, optional
        Left-over sky by band, e/s per pixel, instead of the usual one.
    cosmic_rays : float
        Factor of their usual number; 0: none.
    saturate : bool
        Whether bright pixels are cut off at the full well.
    border : int
        Pixels without a value around Hubble's images.
    noise : float
        Factor of all noise's standard deviations; 0: none is drawn, and variances are those of factor 1.
    muse_exposure : float
        Seconds.
    n_nebulae, n_stars : int, optional
        By default 1000 and 8 on 64x64 arcsec2, in proportion to the area, but at most 2000 and 40.
    seed : int
        The same seed gives the same observation.
    **scene
        Further parameters of `skyloom.mock.halpha.scene.halpha_scene`.

    Notes
    -----
    The variance of a pixel is that of the background plus the truth over the exposure time; the noise is its root
    times stationary Gaussian noise with the correlation of drizzling without limit of the dither positions, at two
    samples per pixel. Images of MUSE have the noise of `skyloom.mock.cubes.spectrographs.muse`, summed over the band
    or, for a line, over the Gaussian profile as the best unbiased estimate does; errors of different images are
    independent.
    """
    model = halpha_model(
        shape=shape, scale=scale, angle=angle, muse_scale=muse_scale, muse_angle=muse_angle, seeing=seeing, fwhm=fwhm,
        sky=sky, cosmic_rays=cosmic_rays, saturate=saturate, border=border, noise=noise, muse_exposure=muse_exposure,
        n_nebulae=n_nebulae, n_stars=n_stars, seed=seed, **scene,
    )  # fmt: skip
    observations, halpha, saturated = _assemble(model)
    side = muse_side(model)
    stars = star_table(model.source, model.bands, model.scale, model.muse.psf.at(6580.0), saturate=saturate)
    regions = find_regions_of(model, side)
    truth = _truth(model, side, halpha, regions, observations, saturated)
    catalogue = region_catalogue(regions, side.lines["Halpha"])
    bandpasses = {name: band.bandpass for name, band in model.bands.items()}
    return HalphaMock(
        observations[NARROW], {name: observations[name] for name in HALPHA_BANDS if name != NARROW}, bandpasses,
        side.bands, side.lines, regions.labels, catalogue, stars, model.source.redshift, truth,
    )  # fmt: skip


def _assemble(model: HalphaModel) -> tuple[dict[str, Observation], Single, dict[str, NDArray[np.bool_]]]:
    """Make all stripes of all bands and put them together; also the truth of Halpha, erg s-1 cm-2 per pixel."""
    names = ("truth", "noise", "rays", "data", "variance", "background_variance")
    planes = {band: {name: np.empty(model.shape, dtype=np.float32) for name in names} for band in model.bands}
    flags = {
        band: {name: np.empty(model.shape, dtype=bool) for name in ("dead", "saturated")}
        for band in model.bands
    }
    halpha = np.empty(model.shape, dtype=np.float32)
    for rows in model.stripes():
        light = model.paint_rows(rows)
        halpha[rows] = light[-1]
        for band, plane in zip(model.bands, light, strict=False):
            made = model.stripe(band, rows, plane)
            for name, whole in (planes[band] | flags[band]).items():
                whole[rows] = getattr(made, name)
    observations = {
        name: _observation(model, name, planes[name], flags[name]["dead"]) for name in model.bands
    }
    return observations, halpha, {name: flags[name]["saturated"] for name in model.bands}


def _observation(
    model: HalphaModel, name: str, planes: dict[str, NDArray[Any]], dead: NDArray[np.bool_]
) -> Observation:
    band = model.bands[name]
    done = (step("observe_halpha", band=name, seed=model.seed),)
    image = Image(
        planes["data"], planes["variance"], dead, ELECTRON_RATE, model.wcs, psf=band.psf,
        correlation=model.correlation, meta=hst_meta(model, name), history=done,
    )  # fmt: skip
    truth = image.evolve(data=planes["truth"], mask=np.zeros(model.shape, dtype=bool), correlation=None)
    sky: NDArray[Any] = np.broadcast_to(np.float32(model.sky[name]), model.shape)
    return Observation(
        image, truth, planes["noise"], sky, planes["rays"], dead, planes["background_variance"], planes["truth"]
    )  # fmt: skip


def _truth(
    model: HalphaModel,
    side: MuseImages,
    halpha: Single,
    regions: HalphaRegions,
    observations: Mapping[str, Observation],
    saturated: dict[str, NDArray[np.bool_]],
) -> HalphaTruth:
    """Collect what is known."""
    observed = side.lines["Halpha"]
    narrow = model.bands[NARROW]
    flux, number = regions.sum_rows(model.wcs, halpha, 0)
    rays = {
        name: seen.cosmic_rays > VISIBLE * np.sqrt(seen.image.variance) for name, seen in observations.items()
    }
    scale = np.float32(CGS / model.scale**2)
    brightness = Image(
        halpha * scale, np.ones(model.shape, dtype=np.float32), np.zeros(model.shape, dtype=bool), LINE_BRIGHTNESS,
        model.wcs, psf=narrow.psf, meta={"line": "Halpha"}, history=(step("truth", line="Halpha"),),
    )  # fmt: skip
    coarse = observed.evolve(
        data=side.true_lines["Halpha"], variance=np.ones(observed.shape, dtype=np.float32), correlation=None
    )
    return HalphaTruth(
        brightness, coarse, dict(model.sky), side.true_bands, side.true_lines,
        regions.table(flux * CGS, number), side.absorption,
        np.asarray(side.true_lines["NII6583"] / side.true_lines["Halpha"]),
        rays, saturated, model.source, model,
    )  # fmt: skip
