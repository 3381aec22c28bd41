"""Scenes for a mock deep field: spirals, a disc seen edge-on, a merger, neighbours and stars."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from skyloom.mock.scenes.galaxies import Spiral, mix, neighbour, spiral_galaxy, star
from skyloom.mock.scenes.render import plane_to_sky
from skyloom.mock.scenes.scene import Component, Scene

__all__ = ["FIELD_CENTRE", "Target", "field_star", "field_target"]

# Reference point of the mosaic that all stamps are cut from, degrees.
FIELD_CENTRE = (53.122751, -27.805089)


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """An object of the field with its surroundings.

    Parameters
    ----------
    name : str
        Number used in file names.
    scene : Scene
        The object and its neighbours, around ``scene.centre``.
    label : int
        Of the object in the segmentation map.
    members : tuple of int
        Labels that belong to the object: the object, and the companion of a merger.
    redshift : float
    """

    name: str
    scene: Scene
    label: int
    members: tuple[int, ...]
    redshift: float


def field_target(number: int, seed: int, *, size: float = 6.0) -> Target:
    """Return one object of the field: 1 a spiral, 2 a red disc seen edge-on, 3 a merger, then spirals of all kinds.

    Parameters
    ----------
    number : int
        Counted from 1.
    seed : int
        The same seed and number give the same object.
    size : float
        Side in arcsec of the stamp that the neighbours are scattered over.
    """
    generator = np.random.default_rng([seed, number])
    label = 5000 + 1000 * number + int(generator.integers(0, 900))
    galaxy = _galaxy(number, label, generator, size)
    components = spiral_galaxy(galaxy, generator)
    members: tuple[int, ...] = (label,)
    if number == 3:
        companion = neighbour(
            label - 3, galaxy.magnitude + 0.4, galaxy.redshift, 0.045 * size, (-0.19 * size, -0.09 * size),
            index=2.5, axis_ratio=0.85, position_angle=10.0, population=mix(a12000=0.6, a5000=0.4),
        )  # fmt: skip
        components.append(companion)
        members = (label, label - 3)
    components += _surroundings(label, generator, size)
    offset = generator.uniform(-60.0, 60.0, 2)
    right_ascension, declination = plane_to_sky(offset[0], offset[1], FIELD_CENTRE)
    scene = Scene(str(number), (float(right_ascension), float(declination)), tuple(components))
    return Target(str(number), scene, label, members, galaxy.redshift)


def _galaxy(number: int, label: int, generator: np.random.Generator, size: float) -> Spiral:
    if number == 1:
        return Spiral(label, 22.6, 0.62, 0.065 * size, axis_ratio=0.6, position_angle=35.0, bulge=0.15)
    if number == 2:
        return Spiral(
            label, 22.9, 0.667, 0.085 * size, axis_ratio=0.22, position_angle=35.0, bulge=0.3, arms=0.05,
            n_nebulae=15, halpha_width=10.0, rotation=220.0, dust=1.5,
        )  # fmt: skip
    if number == 3:
        return Spiral(
            label, 22.0, 0.6217, 0.07 * size, axis_ratio=0.5, position_angle=55.0, bulge=0.2, arms=0.35,
            n_nebulae=90, halpha_width=60.0,
        )  # fmt: skip
    return Spiral(
        label,
        generator.uniform(22.0, 24.0),
        generator.uniform(0.5, 1.1),
        generator.uniform(0.04, 0.075) * size,
        axis_ratio=generator.uniform(0.3, 0.95),
        position_angle=generator.uniform(0.0, 180.0),
        bulge=generator.uniform(0.05, 0.35),
        arms=generator.uniform(0.1, 0.35),
        n_nebulae=int(generator.integers(20, 90)),
    )


def _surroundings(label: int, generator: np.random.Generator, size: float) -> list[Component]:
    """Small galaxies and one faint star in the outer part of the stamp."""
    components = []
    for index in range(4):
        radius, angle = size * generator.uniform(0.33, 0.55), generator.uniform(0, 2 * np.pi)
        offset = (radius * np.cos(angle), radius * np.sin(angle))
        if index == 3:
            components.append(star(label + 4, generator.uniform(25.0, 26.5), offset))
            continue
        components.append(
            neighbour(
                label + 1 + index,
                generator.uniform(25.0, 27.5),
                generator.uniform(0.3, 2.0),
                generator.uniform(0.06, 0.2),
                offset,
                index=generator.uniform(0.8, 2.0),
                axis_ratio=generator.uniform(0.4, 1.0),
                position_angle=generator.uniform(0, 180),
                population=mix(a100=generator.uniform(0.2, 1.0), a1400=0.6),
                oxygen_width=generator.uniform(0.0, 60.0),
            )
        )
    return components


def field_star(number: int, seed: int) -> Target:
    """Return a star of the field; number 1 is a close double that a PSF must not be measured from."""
    generator = np.random.default_rng([seed, 100_000 + number])
    magnitude = generator.uniform(21.0, 22.0)
    components = [star(number, magnitude, shares=mix(a12000=0.5 + 0.1 * number, a1400=0.5))]
    if number == 1:
        companion = star(number, magnitude + 0.7, (0.10, 0.06))
        components.append(replace(companion, name="companion"))
    offset = generator.uniform(-60.0, 60.0, 2)
    right_ascension, declination = plane_to_sky(offset[0], offset[1], FIELD_CENTRE)
    scene = Scene(f"star {number}", (float(right_ascension), float(declination)), tuple(components))
    return Target(str(number), scene, number, (number,), 0.0)
