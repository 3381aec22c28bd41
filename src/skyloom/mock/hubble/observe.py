"""Observations of a scene: the truth, with noise, sky, cosmic rays and dead pixels that are known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.errors import InputError
from skyloom.mock.hubble.bands import STEP, Band
from skyloom.mock.hubble.noise import correlated_noise, kernel_correlation
from skyloom.mock.scenes.images import noise_free, object_images
from skyloom.mock.scenes.scene import Scene

__all__ = ["Noise", "Observation", "Sky", "band_noise", "cosmic_rays", "observe"]

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Gaussian noise with a variance map and a stationary correlation.

    Parameters
    ----------
    variance : float or (ny, nx) array
        Of the background, (e/s)^2 per pixel.
    kernel : (k, k) array, optional
        Filter whose autocorrelation is that of the noise; None: independent pixels.
    step : int
        Samples of the kernel per pixel.
    gradient : float
        Relative change of the variance from the left edge to the right edge.
    poisson : bool
        Whether the noise of the sources' electrons is added (needs an exposure time).
    """

    variance: Float | float
    kernel: Float | None = None
    step: int = 1
    gradient: float = 0.0
    poisson: bool = True

    def background(self, shape: tuple[int, int]) -> Float:
        """Return the (ny, nx) variance of the background."""
        if not abs(self.gradient) < 2:
            raise InputError(
                f"gradient is {self.gradient}; the variance would become negative", field="noise"
            )
        x = (np.arange(shape[1]) + 0.5) / shape[1] - 0.5
        return np.asarray(np.broadcast_to(self.variance, shape) * (1.0 + self.gradient * x))


@dataclass(frozen=True, slots=True)
class Sky:
    """A left-over sky: a level, and its change from edge to edge along x and y, e/s per pixel."""

    level: float = 0.0
    gradient_x: float = 0.0
    gradient_y: float = 0.0

    def image(self, shape: tuple[int, int]) -> Float:
        """Return the (ny, nx) sky."""
        y, x = ((np.arange(size) + 0.5) / size - 0.5 for size in shape)
        return np.asarray(self.level + self.gradient_x * x + self.gradient_y * y[:, np.newaxis])


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """An image, and everything that is in it.

    Parameters
    ----------
    image : Image
        What the instrument gives, with the true variance and correlation; dead pixels are NaN and masked.
    truth : Image
        The scene alone, noise-free, on the same grid with the same PSF.
    noise, sky, cosmic_rays : (ny, nx) arrays, e/s
        What was added to the truth.
    dead : (ny, nx) bool array
        Pixels without a value.
    background_variance : (ny, nx) array, (e/s)^2
        Without the sources' Poisson noise: what weight maps hold.
    target : (ny, nx) array, e/s
        The light of the chosen objects alone, noise-free; that of all when none were chosen.
    """

    image: Image
    truth: Image
    noise: Float
    sky: Float
    cosmic_rays: Float
    dead: NDArray[np.bool_]
    background_variance: Float
    target: Float

    @property
    def cosmic_ray_mask(self) -> NDArray[np.bool_]:
        """True where a cosmic ray left electrons."""
        return np.asarray(self.cosmic_rays > 0)


def band_noise(band: Band, scale: float, *, gradient: float = 0.0, poisson: bool = True) -> Noise:
    """Return the noise of a band on drizzled pixels of ``scale`` arcsec."""
    return Noise(band.variance(scale), band.kernel(scale), STEP, gradient, poisson)


def observe(
    scene: Scene,
    band: Band,
    wcs: WCS,
    shape: tuple[int, int],
    psf: PSF | None = None,
    *,
    noise: Noise | None = None,
    exposure: float | None = None,
    gain: float = 1.0,
    sky: Sky | None = None,
    n_cosmic_rays: int = 0,
    n_dead: int = 0,
    labels: Sequence[int] | None = None,
    seed: int | np.random.Generator,
) -> Observation:
    """Observe a scene.

    Parameters
    ----------
    scene : Scene
    band : Band
    wcs, shape
        Of the image; shape is (ny, nx).
    psf : PSF, optional
        Instead of the band's.
    noise : Noise, optional
        Instead of the band's drizzled noise on pixels of this size.
    exposure : float, optional
        Exposure time in s instead of the band's; it sets the Poisson noise and the brightness of cosmic rays.
    gain : float
        Electrons per count; the image is in counts per second when it is not 1.
    sky : Sky, optional
        Instead of none.
    n_cosmic_rays, n_dead : int
        Tracks of cosmic rays; pixels without a value.
    labels : sequence of int, optional
        Objects whose light is given apart.
    seed : int or numpy.random.Generator
        The same seed gives the same observation.

    Notes
    -----
    The variance of a pixel with rate r over a time t is the background's plus r / (gain t sum(rho)): drizzling gives
    the noise of sources the correlation rho of the background, and sums then have the variance of their electrons. The
    Poisson noise is drawn as Gaussian.
    """
    generator = np.random.default_rng(seed)
    blur = band.psf if psf is None else psf
    photflam = band.photflam * gain
    everything = {int(label) for label in np.unique(scene.labels)}
    chosen = everything if labels is None else everything & set(labels)
    groups = [sorted(chosen), sorted(everything - chosen)]
    target, others = object_images(scene, band.bandpass, wcs, shape, blur, groups=groups) / photflam
    truth = noise_free(scene, band.bandpass, wcs, target + others, blur, photflam)
    model = band_noise(band, truth.pixel_scale) if noise is None else noise
    time = band.exposure if exposure is None else exposure
    background = model.background(shape)
    correlation = None if model.kernel is None else kernel_correlation(model.kernel, model.step)
    spread = 1.0 if correlation is None else float(correlation.sum())
    variance = background + (np.maximum(truth.data, 0.0) / (gain * time * spread) if model.poisson else 0.0)
    realisation = correlated_noise(variance, model.kernel, generator, step=model.step)
    level = (sky or Sky()).image(shape)
    rays = cosmic_rays(shape, n_cosmic_rays, generator) / (gain * time)
    dead = np.zeros(shape, dtype=bool)
    dead.ravel()[generator.choice(dead.size, n_dead, replace=False)] = True
    data = np.where(dead, np.nan, truth.data + level + realisation + rays)
    meta: dict[str, Any] = {**truth.meta, "exposure": time, "gain": gain, "instrument": "MOCK"}
    image = truth.evolve(
        step("observe", scene=scene.name, band=band.name, exposure=time, gain=gain),
        data=data,
        variance=variance,
        mask=dead,
        correlation=correlation,
        meta=meta,
    )
    return Observation(
        image, truth.evolve(variance=variance), realisation, level, rays, dead, background, target
    )


def cosmic_rays(shape: tuple[int, int], n: int, generator: np.random.Generator) -> Float:
    """Return the electrons that ``n`` cosmic rays leave: straight tracks of 1 to about 20 pixels.

    Returns
    -------
    (ny, nx) float64 array, electrons, 0 where no ray passed
    """
    ny, nx = shape
    image = np.zeros(shape)
    for _ in range(n):
        x, y = generator.uniform(-0.5, nx - 0.5), generator.uniform(-0.5, ny - 0.5)
        angle, length = generator.uniform(0, 2 * np.pi), 0.5 + generator.exponential(4.0)
        # A minimum-ionising particle leaves a few hundred electrons per pixel of its path.
        electrons = 400.0 * generator.lognormal(0.0, 0.7)
        samples = np.arange(0.0, length, 0.05)
        columns = np.rint(x + samples * np.cos(angle)).astype(int)
        rows = np.rint(y + samples * np.sin(angle)).astype(int)
        hit = (columns >= 0) & (columns < nx) & (rows >= 0) & (rows < ny)
        np.add.at(image, (rows[hit], columns[hit]), 0.05 * electrons)
    return image
