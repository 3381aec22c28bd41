"""Scenes of cosmic rays whose every electron is known: a disc with nebulae and stars, seen as WFC3/UVIS sees it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from skyloom.core.bandpass import Bandpass
from skyloom.core.psf import MoffatPSF
from skyloom.mock.hubble.bands import Band
from skyloom.mock.hubble.observe import Noise, Observation, Sky, observe
from skyloom.mock.scenes.galaxies import rotating_disc, star
from skyloom.mock.scenes.images import sky_wcs
from skyloom.mock.scenes.render import plane_to_sky

SCALE = 0.04
EXPOSURE = 2200.0
NOISE = 0.0045  # e/s per pixel: 3 reads of 3 e, a dark sky, over 2200 s.


def narrow_band(name="f657n", centre=6566.0, width=121.0, noise=NOISE):
    """A band of WFC3/UVIS on drizzled pixels of 0.04 arcsec."""
    bandpass = Bandpass.tophat(centre, width, edge=0.06 * width, peak=0.23, name=name)
    band = Band(
        name,
        bandpass,
        bandpass.photflam(22.3 + 2.5 * np.log10(width / 121.0)),
        MoffatPSF(0.07, 2.8),
        1.0,
        0.0395,
        0.8,
        EXPOSURE,
    )
    return replace(band, noise=noise / np.sqrt(band.variance(SCALE)))


def drizzled_noise(variance=NOISE**2):
    """Noise of drizzled pixels: neighbours correlated by 0.2, diagonal ones by 0.04, and the sources' photons."""
    return Noise(variance, np.outer([0.1, 1.0, 0.1], [0.1, 1.0, 0.1]))


@dataclass(frozen=True)
class CrowdedField:
    """An observation through F657N, and the places (x, y) and AB magnitudes of its stars."""

    observation: Observation
    stars: np.ndarray
    magnitudes: np.ndarray

    @property
    def image(self):
        return self.observation.image.evolve(
            data=self.observation.image.data.astype(np.float32),
            variance=self.observation.image.variance.astype(np.float32),
        )

    @property
    def deposit(self):
        """What the rays left, in sigma of the pixels."""
        return self.observation.cosmic_rays / np.sqrt(self.observation.image.variance)


@lru_cache(maxsize=4)
def crowded_field(n=1520, n_rays=450, seed=5, n_stars=60, n_nebulae=300):
    """A disc with nebulae in an image of n x n pixels, stars of 16.5 to 24.5 mag, and cosmic rays."""
    generator = np.random.default_rng(seed)
    side = n * SCALE
    scene = rotating_disc(
        scale_length=0.2 * side, surface_brightness=19.5, redshift=0.002, n_nebulae=n_nebulae, seed=seed
    )
    offsets = generator.uniform(-0.34 * side, 0.34 * side, (n_stars, 2))
    magnitudes = generator.uniform(16.5, 24.5, n_stars)
    stars = [
        star(100 + index, magnitude, (offset[0], offset[1]))
        for index, (magnitude, offset) in enumerate(zip(magnitudes, offsets, strict=True))
    ]
    scene = replace(scene, components=(*scene.components, *stars))
    wcs = sky_wcs(scene.centre, (n, n), SCALE, angle=25.0)
    observation = observe(
        scene,
        narrow_band(),
        wcs,
        (n, n),
        noise=drizzled_noise(),
        sky=Sky(0.004),
        n_cosmic_rays=n_rays,
        seed=seed + 1,
    )
    longitude, latitude = plane_to_sky(offsets[:, 0], offsets[:, 1], scene.centre)
    return CrowdedField(observation, np.column_stack(wcs.all_world2pix(longitude, latitude, 0)), magnitudes)
