"""The objects of a mock field of the Sloan Digital Sky Survey: stars, small galaxies and one large spiral."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.errors import InputError
from skyloom.io.bandpass import find_bandpass
from skyloom.io.sdss.ccd import BANDS
from skyloom.mock.scenes.galaxies import Spiral, mix, neighbour, spiral_galaxy, star
from skyloom.mock.scenes.render import plane_to_sky
from skyloom.mock.scenes.scene import Component, Scene

__all__ = ["FIELD_CENTRE", "NANOMAGGY", "PIXEL", "SdssField", "Source", "sdss_bandpass", "sdss_field"]

Float = NDArray[np.float64]
PIXEL = 0.396
"""Side of a pixel, arcsec."""
NANOMAGGY = 22.5
"""AB magnitude of one nanomaggy."""
FIELD_CENTRE = (38.33, -0.107)
"""Right ascension and declination, degrees."""


class Source(NamedTuple):
    """An object of the field: its label in the scene, what it is, its place in degrees, and its redshift."""

    label: int
    kind: str
    ra: float
    dec: float
    redshift: float


@dataclass(frozen=True, slots=True, eq=False)
class SdssField:
    """A scene and a list of what is in it."""

    scene: Scene
    sources: tuple[Source, ...]

    def source(self, label: int) -> Source:
        """Return the source with a label."""
        for source in self.sources:
            if source.label == label:
                return source
        raise InputError(f"no source has the label {label}", field="label")

    def table(self) -> QTable:
        """Return the truth: one row per source, with its total flux in every band in nanomaggies."""
        labels = self.scene.labels
        columns: dict[str, Any] = {
            "label": [source.label for source in self.sources],
            "kind": [source.kind for source in self.sources],
            "ra": [source.ra for source in self.sources] * u.deg,
            "dec": [source.dec for source in self.sources] * u.deg,
            "redshift": [source.redshift for source in self.sources],
        }
        for band in BANDS:
            curve = sdss_bandpass(band)
            fluxes = self.scene.band_fluxes(curve) / curve.photflam(NANOMAGGY)
            total = [fluxes[labels == source.label].sum() for source in self.sources]
            columns[f"flux_{band}"] = total * u.Unit("nmgy")
        return QTable(columns)


# One curve per band: fluxes of a scene are kept by the curve that they were made for.
@cache
def sdss_bandpass(band: str) -> Bandpass:
    """Return the throughput of a band of the camera, measured in 2010, with 1.3 air masses."""
    return find_bandpass(f"sdss2010-{band}")


def sdss_field(
    seed: int,
    *,
    shape: tuple[int, int] = (372, 512),
    centre: tuple[float, float] = FIELD_CENTRE,
    n_stars: int = 24,
    n_galaxies: int = 12,
    spiral: bool = True,
) -> SdssField:
    """Return a field of stars, small galaxies and one large spiral.

    Parameters
    ----------
    seed : int
        The same seed gives the same field.
    shape : (int, int)
        (ny, nx) of the frames that the sources are scattered over.
    centre : (float, float)
        Right ascension and declination, degrees.
    n_stars, n_galaxies : int
    spiral : bool
        Whether there is a galaxy as large as a tenth of the field; it has the label 1.
    """
    generator = np.random.default_rng([seed, 2820])
    # Along a row of a frame declination changes, along a column right ascension.
    half = 0.5 * PIXEL * np.array([shape[0], shape[1]])
    components: list[Component] = []
    places: list[tuple[int, str, tuple[float, float], float]] = []
    if spiral:
        galaxy = Spiral(
            1,
            15.2,
            0.021,
            float(min(half) / 10.0),
            axis_ratio=0.55,
            position_angle=35.0,
            n_nebulae=30,
            spacing=0.6,
        )
        offset = (0.11 * float(half[0]), -0.07 * float(half[1]))
        components += spiral_galaxy(galaxy, generator, offset)
        places.append((1, "spiral", offset, galaxy.redshift))
    for label in range(100, 100 + n_stars):
        offset = _scatter(half, generator)
        shares = mix(a100=generator.uniform(), a1400=generator.uniform(), a12000=generator.uniform())
        components.append(star(label, generator.uniform(15.5, 21.0), offset, shares))
        places.append((label, "star", offset, 0.0))
    for label in range(500, 500 + n_galaxies):
        offset, redshift = _scatter(half, generator), generator.uniform(0.03, 0.35)
        components.append(_small_galaxy(label, redshift, offset, generator))
        places.append((label, "galaxy", offset, redshift))
    sources = []
    for label, kind, (east, north), redshift in places:
        ra, dec = plane_to_sky(np.asarray(east), np.asarray(north), centre)
        sources.append(Source(label, kind, float(ra), float(dec), float(redshift)))
    return SdssField(Scene("sdss", centre, tuple(components)), tuple(sources))


def _scatter(half: Float, generator: np.random.Generator) -> tuple[float, float]:
    east, north = generator.uniform(-0.97, 0.97, 2) * half
    return float(east), float(north)


def _small_galaxy(
    label: int, redshift: float, offset: tuple[float, float], generator: np.random.Generator
) -> Component:
    return neighbour(
        label,
        generator.uniform(17.0, 20.5),
        redshift,
        generator.uniform(0.7, 2.5),
        offset,
        index=generator.uniform(0.9, 3.5),
        axis_ratio=generator.uniform(0.35, 1.0),
        position_angle=generator.uniform(0.0, 180.0),
        population=mix(a100=generator.uniform(0.0, 0.5), a5000=0.5, a12000=0.5),
        oxygen_width=generator.uniform(0.0, 25.0),
    )
