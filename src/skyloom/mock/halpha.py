"""A nearby spiral as Hubble sees it in Halpha and two broad bands, and as MUSE sees it, with everything known.

Both instruments look at the same sum of Gaussians (`skyloom.mock.halpha_scene`), Hubble on small turned pixels with
sky offsets, drizzled noise, cosmic rays and saturated stars, MUSE on large pixels with a wide PSF. Hubble's images are
made in stripes of rows, so that a large field can be written without ever being in memory; a stripe is the same
whether or not the others are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.linelist import default_lines
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.core.spectral_noise import weighted_sum_variance
from skyloom.errors import InputError
from skyloom.mock.bands import Band
from skyloom.mock.halpha_regions import HalphaRegions, find_truth_regions, region_catalogue, star_table
from skyloom.mock.halpha_scene import (
    HALPHA_BANDS,
    NARROW,
    HalphaScene,
    absorption_fluxes,
    halpha_bands,
    halpha_scene,
    saturation_rate,
)
from skyloom.mock.images import ELECTRON_RATE, sky_wcs
from skyloom.mock.noise import drizzle_kernel, kernel_correlation
from skyloom.mock.observe import Observation, cosmic_rays
from skyloom.mock.render import paint
from skyloom.mock.spectrographs import Spectrograph, muse

__all__ = ["HalphaMock", "HalphaModel", "HalphaTruth", "Stripe", "halpha_model", "observe_halpha"]

Float = NDArray[np.float64]
Single = NDArray[np.float32]
BRIGHTNESS = u.Unit("1e-20 erg / (s cm2 AA arcsec2)")
LINE_BRIGHTNESS = u.Unit("1e-20 erg / (s cm2 arcsec2)")
CGS = 1e20  # units of the images per erg s-1 cm-2
# Rows of Hubble's images that are made at once.
STRIPE = 400
# Left-over sky, e/s per pixel of 0.04 arcsec.
SKY = {"f658n": 0.006, "f555w": 0.04, "f814w": -0.0015}
# Cosmic rays that drizzling has left per square arcminute.
RAYS = {"f658n": 250.0, "f555w": 80.0, "f814w": 80.0}
MUSE_LINES = ("Halpha", "NII6583", "Hbeta", "OIII5007")
NOISE, COSMIC, MUSE_NOISE = 31, 32, 33
# Fine samples per pixel of the drizzled noise, and how many of their rows start from one seed.
STEP, BLOCK = 2, 128
# A cosmic ray counts where it leaves this many standard deviations of the noise.
VISIBLE = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Stripe:
    """Rows of one of Hubble's images; e/s, (rows, nx) float32.

    Parameters
    ----------
    rows : slice
    truth, noise, rays : arrays
        The scene, and what was added to it together with the sky.
    data, variance : arrays
        What the instrument gives: saturated pixels are cut off, those in the border are NaN.
    background_variance : array
        Without the sources' Poisson noise.
    dead, saturated : bool arrays
    """

    rows: slice
    truth: Single
    noise: Single
    rays: Single
    data: Single
    variance: Single
    background_variance: Single
    dead: NDArray[np.bool_]
    saturated: NDArray[np.bool_]


@dataclass(slots=True, eq=False)
class HalphaModel:
    """An observation whose images are computed when they are asked for; `halpha_model` makes one.

    Parameters
    ----------
    source : HalphaScene
    bands : mapping of str to Band
        The narrow one first.
    wcs, muse_wcs : astropy.wcs.WCS
    shape, muse_shape : (int, int)
        (ny, nx).
    scale : float
        Side of Hubble's pixels, arcsec.
    muse : Spectrograph
    sky : mapping of str to float
        e/s per pixel.
    cosmic_rays : float
        Factor of their usual number.
    saturate : bool
    border : int
        Pixels without a value around Hubble's images.
    noise : float
        Factor of all noise's standard deviations; 0: none is drawn, and variances are those of factor 1.
    seed : int
    """

    source: HalphaScene
    bands: Mapping[str, Band]
    wcs: WCS
    shape: tuple[int, int]
    scale: float
    muse: Spectrograph
    muse_wcs: WCS
    muse_shape: tuple[int, int]
    sky: Mapping[str, float]
    cosmic_rays: float
    saturate: bool
    border: int
    noise: float
    seed: int
    _fluxes: Float | None = field(init=False, repr=False, default=None)

    @property
    def kernel(self) -> Float:
        """The drizzle kernel of Hubble's noise, `STEP` times finer than the pixels."""
        return drizzle_kernel(0.05 / self.scale, 1.0, step=STEP)

    @property
    def correlation(self) -> Float:
        """Autocorrelation of the noise in Hubble's images."""
        return kernel_correlation(self.kernel, STEP)

    @property
    def fluxes(self) -> Float:
        """(n_bands + 1, n) light of every Gaussian in e/s in the bands, and in Halpha in erg s-1 cm-2."""
        if self._fluxes is None:
            scene = self.source.scene
            rows = [scene.band_fluxes(band.bandpass) / band.photflam for band in self.bands.values()]
            self._fluxes = np.stack([*rows, scene.line_fluxes("Halpha")])
        return self._fluxes

    def stripes(self) -> Iterator[slice]:
        """Return consecutive ranges of rows of Hubble's images."""
        for start in range(0, self.shape[0], STRIPE):
            yield slice(start, min(start + STRIPE, self.shape[0]))

    def paint_rows(self, rows: slice) -> Float:
        """Return the noise-free light in rows, (n_bands + 1, rows, nx), as `fluxes` orders it."""
        scene = self.source.scene
        part = self.wcs.deepcopy()
        part.wcs.crpix = [self.wcs.wcs.crpix[0], self.wcs.wcs.crpix[1] - rows.start]
        part.wcs.set()
        shape = (rows.stop - rows.start, self.shape[1])
        psf = next(iter(self.bands.values())).psf
        return paint(scene.offsets, scene.covariance, self.fluxes, scene.centre, part, shape, psf)

    def stripe(self, name: str, rows: slice, truth: Float) -> Stripe:
        """Observe rows of a band whose truth is known from `paint_rows`; ``rows`` is one of `stripes`."""
        band, index = self.bands[name], list(self.bands).index(name)
        shape = (rows.stop - rows.start, self.shape[1])
        area = (self.scale / 0.04) ** 2
        factor = (self.noise or 1.0) ** 2
        background = np.full(shape, factor * area * band.noise**2, dtype=np.float32)
        variance = background + (factor * np.maximum(truth, 0.0) / band.exposure).astype(np.float32)
        noise = np.zeros(shape, dtype=np.float32)
        if self.noise:
            noise = np.sqrt(variance) * self._unit_noise(index, rows)
        number = self.cosmic_rays * RAYS[name] * shape[0] * shape[1] * self.scale**2 / 3600.0
        generator = np.random.default_rng([self.seed, COSMIC, index, rows.start // STRIPE])
        rays = (cosmic_rays(shape, round(number), generator) / band.exposure).astype(np.float32)
        data = (truth + self.sky[name] + noise + rays).astype(np.float32)
        limit = saturation_rate(name) if self.saturate else np.inf
        saturated = data > limit
        data[saturated] = limit
        dead = np.zeros(shape, dtype=bool)
        if self.border:
            number_of_row = np.arange(rows.start, rows.stop)
            edge = (number_of_row < self.border) | (number_of_row >= self.shape[0] - self.border)
            dead[edge] = True
            dead[:, : self.border] = dead[:, self.shape[1] - self.border :] = True
            data[dead] = np.nan
        return Stripe(
            rows, truth.astype(np.float32), noise, rays, data, variance, background, dead, saturated
        )

    def _unit_noise(self, index: int, rows: slice) -> Single:
        """Noise of variance 1 with `correlation`: fine white noise, filtered and thinned along x, then along y."""
        taps = np.asarray(self.kernel.sum(axis=0))
        taps = (taps / np.sqrt(np.sum(taps**2))).astype(np.float32)
        width = (self.shape[1] - 1) * STEP + taps.size
        first, last = rows.start * STEP, (rows.stop - 1) * STEP + taps.size
        blocks = [
            np.random.default_rng([self.seed, NOISE, index, block]).standard_normal(
                (BLOCK, width), dtype=np.float32
            )
            for block in range(first // BLOCK, (last - 1) // BLOCK + 1)
        ]
        offset = first % BLOCK
        fine = np.concatenate(blocks)[offset : offset + last - first]
        along = sum_taps(fine.T, taps, self.shape[1]).T
        return sum_taps(along, taps, rows.stop - rows.start)


def sum_taps(values: Single, taps: Single, number: int) -> Single:
    """Filter along the first axis, and keep every `STEP`-th of ``number`` samples."""
    span = (number - 1) * STEP + 1
    total = taps[0] * values[0:span:STEP]
    for shift in range(1, taps.size):
        total += taps[shift] * values[shift : shift + span : STEP]
    return np.asarray(total)


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


def halpha_model(
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
) -> HalphaModel:
    """Return an observation that is computed when it is asked for; the parameters are those of `observe_halpha`."""
    if min(shape) < 40 or seed < 0 or noise < 0:
        raise InputError(
            f"shape {shape} (at least 40), seed {seed} and noise {noise} (>= 0)", field="halpha_model"
        )
    area = shape[0] * shape[1] * scale**2
    share = area / 64.0**2
    nebulae = min(max(round(1000 * share), 5), 5000) if n_nebulae is None else n_nebulae
    stars = min(max(round(8 * share), 2), 40) if n_stars is None else n_stars
    side = float(np.sqrt(area))
    source = halpha_scene(side, seed=seed, n_nebulae=nebulae, n_stars=stars, **scene)
    instrument = muse(exposure=muse_exposure, seeing=seeing).evolve(pixel_scale=muse_scale)
    muse_shape = (round(shape[0] * scale / muse_scale), round(shape[1] * scale / muse_scale))
    centre = source.scene.centre
    levels = {name: SKY[name] * (scale / 0.04) ** 2 for name in HALPHA_BANDS} | dict(sky or {})
    return HalphaModel(
        source, halpha_bands(fwhm), sky_wcs(centre, shape, scale, angle=angle), shape, scale, instrument,
        sky_wcs(centre, muse_shape, muse_scale, angle=muse_angle), muse_shape, levels, cosmic_rays, saturate, border,
        noise, seed,
    )  # fmt: skip


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
        By default 1000 and 8 on 64x64 arcsec2, in proportion to the area, but at most 5000 and 40.
    seed : int
        The same seed gives the same observation.
    **scene
        Further parameters of `skyloom.mock.halpha_scene.halpha_scene`.

    Notes
    -----
    The variance of a pixel is that of the background plus the truth over the exposure time; the noise is its root
    times stationary Gaussian noise with the correlation of drizzling without limit of the dither positions, at two
    samples per pixel. Images of MUSE have the noise of `skyloom.mock.spectrographs.muse`, summed over the band or,
    for a line, over the Gaussian profile as the best unbiased estimate does; errors of different images are
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


def hst_meta(model: HalphaModel, name: str) -> dict[str, Any]:
    """Return what a reader of Hubble's images finds in the headers."""
    band = model.bands[name]
    return {
        "telescope": "HST", "instrument": "ACS", "detector": "WFC", "band": name, "exposure": band.exposure,
        "photflam": band.photflam, "photplam": band.bandpass.pivot, "gain": 1.0, "scene": model.source.scene.name,
    }  # fmt: skip


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


@dataclass(frozen=True, slots=True, eq=False)
class MuseImages:
    """Images and maps of MUSE, their truth, and the equivalent width of the absorption."""

    bands: dict[str, Image]
    lines: dict[str, Image]
    true_bands: dict[str, Single]
    true_lines: dict[str, Single]
    absorption: Single


def muse_side(model: HalphaModel) -> MuseImages:
    """Return the images of MUSE in the bands and lines."""
    scene, area = model.source.scene, model.muse.pixel_scale**2
    level, absorbed = (
        np.concatenate(part) for part in zip(*(absorption_fluxes(c) for c in scene.components), strict=True)
    )
    amplitudes = {name: scene.band_fluxes(band.bandpass) for name, band in model.bands.items()}
    amplitudes |= {key: scene.line_fluxes(key) for key in MUSE_LINES}
    amplitudes |= {"level": level, "absorbed": absorbed}
    painted: dict[str, Single] = {}
    psfs: dict[str, PSF] = {}
    for names, wave in _muse_groups(model):
        psf = model.muse.psf.at(wave)
        light = np.stack([amplitudes[name] for name in names]) * (CGS / area)
        images = paint(
            scene.offsets, scene.covariance, light, scene.centre, model.muse_wcs, model.muse_shape, psf
        )
        painted |= dict(zip(names, images.astype(np.float32), strict=True))
        psfs |= dict.fromkeys(names, psf)
    redshift = 1.0 + model.source.redshift
    width = np.divide(painted["absorbed"], painted["level"] * np.float32(redshift))
    noise = _MuseNoise(model)
    bands = {name: noise.band(name, painted[name], psfs[name]) for name in model.bands}
    continuum = {key: painted[NARROW if key in ("Halpha", "NII6583") else "f555w"] for key in MUSE_LINES}
    lines = {key: noise.line(key, painted[key], continuum[key], psfs[key]) for key in MUSE_LINES}
    return MuseImages(
        bands,
        lines,
        {name: painted[name] for name in model.bands},
        {key: painted[key] for key in MUSE_LINES},
        width,
    )


def _muse_groups(model: HalphaModel) -> tuple[tuple[tuple[str, ...], float], ...]:
    """What has one PSF, and its wavelength."""
    return (
        ((NARROW, "Halpha", "NII6583", "level", "absorbed"), model.bands[NARROW].bandpass.pivot),
        (("Hbeta", "OIII5007"), 4945.0),
        (("f555w",), model.bands["f555w"].bandpass.pivot),
        (("f814w",), model.bands["f814w"].bandpass.pivot),
    )


@dataclass(frozen=True, slots=True)
class _MuseNoise:
    """Noise of images that are sums over channels of MUSE."""

    model: HalphaModel

    def band(self, name: str, truth: Single, psf: PSF) -> Image:
        """A synthetic image: the mean over the part of the band that MUSE covers has the noise of its channels."""
        tool, curve = self.model.muse, self.model.bands[name].bandpass
        weights = curve.mean_weights(tool.wave, tool.medium, minimum_coverage=0.5)
        lags = tool.spectral_correlation
        background = float(weighted_sum_variance(tool.background_variance, weights, lags))
        per_photon = float(weighted_sum_variance(1.0 / tool.electrons, weights, lags))
        meta = {"band": name, "photplam": curve.pivot}
        return self._image(name, truth, background, per_photon * truth, BRIGHTNESS, psf, meta)

    def line(self, key: str, truth: Single, continuum: Single, psf: PSF) -> Image:
        """A line fitted with its known profile has the variance 2 sqrt(pi) sigma dl of a channel's noise."""
        tool = self.model.muse
        wave = default_lines()[key].rest(tool.medium) * (1.0 + self.model.source.redshift)
        index = int(np.argmin(np.abs(tool.wave - wave)))
        width = float(tool.edges[index + 1] - tool.edges[index])
        sigma = float(np.hypot(tool.lsf[index], wave * 20.0 / 299792.458))
        factor = 2.0 * np.sqrt(np.pi) * sigma * width * float(tool.spectral_correlation.sum())
        background = factor * float(tool.background_variance[index])
        photons = (factor * continuum + width * truth) / np.float32(tool.electrons[index])
        return self._image(key, truth, background, photons, LINE_BRIGHTNESS, psf, {"line": key})

    def _image(
        self,
        name: str,
        truth: Single,
        background: float,
        photons: Single,
        unit: u.UnitBase,
        psf: PSF,
        meta: Any,
    ) -> Image:
        """Add noise; ``photons`` is the sources' part of the variance in units of per-area brightness, unscaled."""
        model, area = self.model, self.model.muse.pixel_scale**2
        factor = (model.noise or 1.0) ** 2
        variance = (factor * (background / area**2 + np.maximum(photons, 0) / area)).astype(np.float32)
        data = truth.copy()
        if model.noise:
            taps = model.muse.spatial_kernel
            taps = (taps / np.sqrt(np.sum(taps**2))).astype(np.float32)
            order = (*HALPHA_BANDS, *MUSE_LINES).index(name)
            generator = np.random.default_rng([model.seed, MUSE_NOISE, order])
            frame = tuple(size + taps.size - 1 for size in model.muse_shape)
            white = generator.standard_normal(frame, dtype=np.float32)
            data += np.sqrt(variance) * _smooth(_smooth(white, taps).T, taps).T
        return Image(
            data, variance, np.zeros(data.shape, dtype=bool), unit, model.muse_wcs, psf=psf,
            correlation=model.muse.spatial_correlation,
            meta={"instrument": "MUSE", "scene": model.source.scene.name, **meta},
            history=(step("observe_halpha", image=name, seed=model.seed),),
        )  # fmt: skip


def _smooth(values: Single, taps: Single) -> Single:
    length = values.shape[0] - taps.size + 1
    return np.asarray(sum(tap * values[shift : shift + length] for shift, tap in enumerate(taps)))


def find_regions_of(model: HalphaModel, side: MuseImages) -> HalphaRegions:
    """Return the regions of the scene's nebulae on the pixels of MUSE."""
    line = side.lines["Halpha"]
    assert line.psf is not None
    noise = np.sqrt(line.variance)
    return find_truth_regions(model.source, model.muse_wcs, side.true_lines["Halpha"], noise, line.psf)


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
