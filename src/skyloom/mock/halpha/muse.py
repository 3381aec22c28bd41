"""The side of MUSE of the mock in Halpha: synthetic band images and maps of emission lines, with their noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.linelist import default_lines
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.core.spectral_noise import weighted_sum_variance
from skyloom.mock.halpha.hubble import HalphaModel
from skyloom.mock.halpha.paint import paint_galaxy
from skyloom.mock.halpha.regions import HalphaRegions, find_truth_regions
from skyloom.mock.halpha.scene import HALPHA_BANDS, NARROW, absorption_fluxes
from skyloom.mock.scenes.templates import SPEED_OF_LIGHT

__all__ = ["MUSE_LINES", "MuseImages", "find_regions_of", "muse_side"]

Single = NDArray[np.float32]
BRIGHTNESS = u.Unit("1e-20 erg / (s cm2 AA arcsec2)")
LINE_BRIGHTNESS = u.Unit("1e-20 erg / (s cm2 arcsec2)")
CGS = 1e20  # units of the images per erg s-1 cm-2
MUSE_LINES = ("Halpha", "NII6583", "Hbeta", "OIII5007")
MUSE_NOISE = 33
GAS_DISPERSION = 20.0  # km/s, of the profile that lines are fitted with


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
        images = paint_galaxy(scene, light, model.muse_wcs, model.muse_shape, psf)
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
        sigma = float(np.hypot(tool.lsf[index], wave * GAS_DISPERSION / SPEED_OF_LIGHT))
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
