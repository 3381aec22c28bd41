"""Hubble's side of the mock in Halpha: images of a narrow and two broad bands, made in stripes of rows.

A large field can be written without ever being in memory; a stripe is the same whether or not the others are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.mock.cubes.spectrographs import Spectrograph, muse
from skyloom.mock.halpha.paint import paint_galaxy
from skyloom.mock.halpha.scene import HALPHA_BANDS, HalphaScene, halpha_bands, halpha_scene, saturation_rate
from skyloom.mock.hubble.bands import Band
from skyloom.mock.hubble.noise import drizzle_kernel, kernel_correlation
from skyloom.mock.hubble.observe import cosmic_rays
from skyloom.mock.scenes.images import sky_wcs

__all__ = ["STRIPE", "HalphaModel", "Stripe", "halpha_model", "hst_meta"]

Float = NDArray[np.float64]
Single = NDArray[np.float32]
# Rows of Hubble's images that are made at once.
STRIPE = 400
# Left-over sky, e/s per pixel of 0.04 arcsec.
SKY = {"f658n": 0.006, "f555w": 0.04, "f814w": -0.0015}
# Cosmic rays that drizzling has left per square arcminute.
RAYS = {"f658n": 250.0, "f555w": 80.0, "f814w": 80.0}
NOISE, COSMIC = 31, 32
# Fine samples per pixel of the drizzled noise, and how many of their rows start from one seed.
STEP, BLOCK = 2, 128


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
        shape = (rows.stop - rows.start, self.shape[1])
        psf = next(iter(self.bands.values())).psf
        return paint_galaxy(self.source.scene, self.fluxes, self.wcs, shape, psf, rows.start)

    def stripe(self, name: str, rows: slice, truth: Float) -> Stripe:
        """Observe rows of a band whose truth is known from `paint_rows`; ``rows`` is one of `stripes`."""
        band, index = self.bands[name], list(self.bands).index(name)
        shape = (rows.stop - rows.start, self.shape[1])
        area = (self.scale / 0.04) ** 2
        factor = (self.noise or 1.0) ** 2
        background = np.full(shape, factor * area * band.noise**2, dtype=np.float32)
        # Drizzling spreads electrons over pixels that then share their noise: what one pixel has of it is smaller by
        # the sum of the correlation, so that large sums have the variance of their electrons.
        spread = band.exposure * self.correlation.sum()
        variance = background + (factor * np.maximum(truth, 0.0) / spread).astype(np.float32)
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
    source: HalphaScene | None = None,
    **scene: Any,
) -> HalphaModel:
    """Return an observation that is computed when it is asked for.

    The parameters are those of `observe_halpha`; a ``source`` takes the place of the scene that they would make.
    """
    if min(shape) < 40 or seed < 0 or noise < 0:
        raise InputError(
            f"shape {shape} (at least 40), seed {seed} and noise {noise} (>= 0)", field="halpha_model"
        )
    area = shape[0] * shape[1] * scale**2
    share = area / 64.0**2
    nebulae = min(max(round(1000 * share), 5), 2000) if n_nebulae is None else n_nebulae
    stars = min(max(round(8 * share), 2), 40) if n_stars is None else n_stars
    side = float(np.sqrt(area))
    if source is None:
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


def hst_meta(model: HalphaModel, name: str) -> dict[str, Any]:
    """Return what a reader of Hubble's images finds in the headers."""
    band = model.bands[name]
    return {
        "telescope": "HST", "instrument": "ACS", "detector": "WFC", "band": name, "exposure": band.exposure,
        "photflam": band.photflam, "photplam": band.bandpass.pivot, "gain": 1.0, "scene": model.source.scene.name,
    }  # fmt: skip
