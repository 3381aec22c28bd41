"""One galaxy for all instruments: a spiral with nebulae, stars beside it, and the field around them.

Hubble, MUSE and SDSS observe the same sum of Gaussians (`skyloom.mock.scenes.scene`), each with its own pixels, PSF,
lines and noise. What measurements of them have to agree with is therefore one list of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.core.psf import GaussianPSF, MoffatPSF
from skyloom.mock.halpha.scene import HalphaScene, halpha_scene
from skyloom.mock.hubble.bands import Band, udf_band
from skyloom.mock.scenes.galaxies import mix, star
from skyloom.mock.scenes.render import plane_to_sky
from skyloom.mock.scenes.scene import Component, Scene
from skyloom.mock.sdss.field import FIELD_CENTRE, PIXEL, SdssField, Source, sdss_field

__all__ = ["GALAXY", "SIZES", "GalaxyScene", "GalaxySize", "galaxy_bands", "galaxy_scene"]

Float = NDArray[np.float64]
GALAXY = 1
"""Label of the galaxy in the scene."""
DISTANCE_MPC = 9.84
_BESIDE, _PSF_STARS = 11, 21
# Stars in the corners of Hubble's images: magnitude, and place in units of half of a side of the field.
_STARS_BESIDE = ((19.4, (0.80, -0.72)), (20.6, (-0.76, 0.82)))
# Stars that the PSFs are measured from: magnitude, and offset (east, north) in arcsec.
_STARS_AROUND = (
    (19.3, (-31.0, 18.0)), (19.7, (27.0, 33.0)), (19.0, (38.0, -22.0)), (20.0, (-24.0, -36.0)), (19.5, (6.0, 43.0)),
)  # fmt: skip
FIELD_STARS, FIELD_GALAXIES = 8, 6


class GalaxySize(NamedTuple):
    """How much of the galaxy is observed, and how finely.

    Parameters
    ----------
    side : float
        Of the square that the galaxy fills, arcsec.
    field : float
        Side of Hubble's images and of the images of MUSE, arcsec; around the galaxy there must be empty sky.
    n_nebulae : int
    cube : int
        Spaxels along a side of the cube of MUSE.
    wave_range : (float, float)
        Of the cube, A.
    frame : (int, int)
        (ny, nx) of the frames of SDSS.
    n_epochs, n_spectra : int
        Nights of SDSS, and its spectra.
    """

    side: float
    field: float
    n_nebulae: int
    cube: int
    wave_range: tuple[float, float]
    frame: tuple[int, int]
    n_epochs: int
    n_spectra: int


SIZES = {
    "full": GalaxySize(12.8, 20.0, 70, 56, (4750.0, 7000.0), (280, 320), 2, 6),
    "small": GalaxySize(6.4, 11.0, 20, 16, (4800.0, 6800.0), (240, 250), 1, 2),
}
"""The demonstration, and one for tests that are in a hurry."""


@dataclass(frozen=True, slots=True, eq=False)
class GalaxyScene:
    """The galaxy and all that is around it.

    Parameters
    ----------
    near : HalphaScene
        The galaxy and the stars beside it, which Hubble's and MUSE's images of it show.
    field : SdssField
        Everything, with a list of the sources: what SDSS sees.
    psf_stars : tuple of Source
        From which the PSFs of Hubble are measured.
    """

    near: HalphaScene
    field: SdssField
    psf_stars: tuple[Source, ...]

    @property
    def galaxy(self) -> Scene:
        """The galaxy alone."""
        return self.near.scene.select([GALAXY])


def galaxy_scene(size: GalaxySize = SIZES["full"], *, seed: int) -> GalaxyScene:
    """Return a spiral nearly face-on, two stars beside it, stars for PSFs, and a field of stars and galaxies.

    Parameters
    ----------
    size : GalaxySize
    seed : int
        The same seed gives the same scene.
    """
    spiral = halpha_scene(
        size.side, seed=seed, n_nebulae=size.n_nebulae, n_stars=0, rotation=90.0, axis_ratio=0.8, spacing=0.8,
        centre=FIELD_CENTRE,
    )  # fmt: skip
    parts = tuple(replace(part, label=GALAXY) for part in spiral.scene.components)
    beside = tuple(
        _star(_BESIDE + index, magnitude, (0.5 * size.field * x, 0.5 * size.field * y), index)
        for index, (magnitude, (x, y)) in enumerate(_STARS_BESIDE)
    )
    around = tuple(
        _star(_PSF_STARS + index, magnitude, offset, index)
        for index, (magnitude, offset) in enumerate(_STARS_AROUND)
    )
    near = HalphaScene(
        Scene("galaxy", FIELD_CENTRE, (*parts, *beside)), spiral.redshift, spiral.scale_length, spiral.axis_ratio,
        spiral.position_angle, parts[-1], beside, np.array([magnitude for magnitude, _ in _STARS_BESIDE]),
    )  # fmt: skip
    others, listed = _field(size, seed, (*beside, *around))
    sources = (
        Source(GALAXY, "spiral", *FIELD_CENTRE, spiral.redshift),
        *(_source(part, "star") for part in (*around, *beside)),
        *listed,
    )
    everything = Scene("galaxy", FIELD_CENTRE, (*parts, *beside, *around, *others))
    return GalaxyScene(near, SdssField(everything, sources), tuple(_source(part, "star") for part in around))


def _star(label: int, magnitude: float, offset: tuple[float, float], index: int) -> Component:
    shares = mix(a12000=0.3 + 0.1 * index, a1400=0.5)
    return replace(star(label, magnitude, offset, shares), name=f"star {label}")


def _source(part: Component, kind: str) -> Source:
    east, north = part.mixture.centre[0]
    ra, dec = plane_to_sky(np.asarray(east), np.asarray(north), FIELD_CENTRE)
    return Source(part.label, kind, float(ra), float(dec), part.redshift)


def _field(size: GalaxySize, seed: int, stars: tuple[Component, ...]) -> tuple[list[Component], list[Source]]:
    """Return the sources of a field of SDSS that are clear of the galaxy and of the stars."""
    field = sdss_field(
        seed,
        shape=size.frame,
        n_stars=FIELD_STARS,
        n_galaxies=FIELD_GALAXIES,
        spiral=False,
        centre=FIELD_CENTRE,
    )
    taken = np.array([part.mixture.centre[0] for part in stars])
    kept = []
    for part in field.scene.components:
        place = part.mixture.centre[0]
        clear = np.hypot(*(taken - place).T).min() > 12 * PIXEL
        if clear and np.hypot(*place) > 0.75 * size.field + 5.0:
            kept.append(part)
    return kept, [field.source(part.label) for part in kept]


def galaxy_bands() -> tuple[Band, Band]:
    """Return the bands beyond those of `skyloom.mock.halpha.scene.halpha_bands`: f435w of ACS and f160w of WFC3."""
    blue, infrared = udf_band("f435w"), udf_band("f160w")
    # Exposures of an hour instead of days.
    return (
        replace(blue, psf=GaussianPSF(0.078), noise=0.0062, exposure=2400.0, sky=0.011, weight_scale=1.0),
        replace(
            infrared, psf=MoffatPSF(0.195, 3.2), noise=0.011, exposure=2600.0, sky=0.021, weight_scale=1.0
        ),
    )
