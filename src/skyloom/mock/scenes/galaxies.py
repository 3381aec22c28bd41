"""Builders of objects for a `Scene`: galaxies with rotation, dust and nebulae, small neighbours, stars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skyloom.core.bandpass import AB_ZERO, SPEED_OF_LIGHT
from skyloom.core.linelist import default_lines
from skyloom.errors import InputError
from skyloom.mock.scenes.mixture import Mixture, exponential_tiles, sersic_mixture
from skyloom.mock.scenes.scene import MAGNITUDE, Component, Scene, attenuation_curve
from skyloom.mock.scenes.templates import REFERENCE_WAVE, populations

__all__ = ["Spiral", "neighbour", "rotating_disc", "spiral_galaxy", "star"]

Float = NDArray[np.float64]
CASE_B = 2.86  # Halpha / Hbeta at 1e4 K (Osterbrock & Ferland 2006)


@dataclass(frozen=True, slots=True)
class Spiral:
    """What a spiral galaxy looks like; see `spiral_galaxy`.

    Parameters
    ----------
    label : int
        Object label in segmentation maps.
    magnitude : float
        Total AB magnitude at the redshifted 5500 A.
    redshift : float
    scale_length : float
        Of the disc, in arcsec.
    axis_ratio, position_angle : float
        Of the disc on the sky; degrees, north through east, of its receding side.
    bulge : float
        Share of the bulge in the light at 5500 A.
    arms : float
        Share of the spiral arms.
    n_nebulae : int
        Number of HII regions.
    halpha_width : float
        Equivalent width of Halpha of the whole galaxy, A in the rest frame.
    rotation : float
        Speed of the flat part of the rotation curve, km/s.
    dust : float
        A_V in the disc's centre; it falls with twice the scale length.
    spacing : float
        Of the tiles of the disc, in scale lengths.
    """

    label: int
    magnitude: float
    redshift: float
    scale_length: float
    axis_ratio: float = 0.65
    position_angle: float = 40.0
    bulge: float = 0.2
    arms: float = 0.2
    n_nebulae: int = 60
    halpha_width: float = 40.0
    rotation: float = 180.0
    dust: float = 0.8
    spacing: float = 0.4


def reference_flux(magnitude: float, redshift: float) -> float:
    """Return the flux density per A at the redshifted `REFERENCE_WAVE` of an AB magnitude."""
    wave = REFERENCE_WAVE * (1 + redshift)
    return float(AB_ZERO * SPEED_OF_LIGHT / wave**2 * 10 ** (-0.4 * magnitude))


def mix(**shares: float) -> Float:
    """Return population shares from ``a<age in Myr>=share`` or ``poor<age in Myr>=share`` ([M/H] = -0.7)."""
    library, weights = populations(), np.zeros(len(populations()))
    for name, share in shares.items():
        poor = name.startswith("poor")
        age = float(name.removeprefix("poor").removeprefix("a")) / 1000
        weights[library.nearest(age, -0.7 if poor else 0.0)] += share
    return weights / weights.sum()


def spiral_galaxy(
    galaxy: Spiral, generator: np.random.Generator, offset: tuple[float, float] = (0.0, 0.0)
) -> list[Component]:
    """Return the components of a spiral galaxy: bulge, disc, arms and nebulae.

    The disc and the gas rotate with 2/pi arctan(R / Rt); populations grow younger and metal lines weaker outwards,
    dust decreases; [N II]/Halpha falls and [O III]/Hbeta rises outwards.

    Parameters
    ----------
    galaxy : Spiral
    generator : numpy.random.Generator
        Places and brightness of arms' knots and nebulae.
    offset : (float, float)
        Of the centre from that of the scene, (east, north) in arcsec.
    """
    total = reference_flux(galaxy.magnitude, galaxy.redshift)
    gas = total * galaxy.halpha_width * (1 + galaxy.redshift)
    disc = exponential_tiles(
        galaxy.scale_length,
        axis_ratio=galaxy.axis_ratio,
        position_angle=galaxy.position_angle,
        spacing=galaxy.spacing,
    )
    bulge = sersic_mixture(
        0.45 * galaxy.scale_length,
        2.0,
        axis_ratio=0.5 + 0.5 * galaxy.axis_ratio,
        position_angle=galaxy.position_angle,
    )
    arms, knots = _spiral_arms(galaxy, generator)
    smooth = 1.0 - galaxy.bulge - galaxy.arms
    parts = [
        _part("bulge", galaxy, bulge, galaxy.bulge * total * bulge.fraction, None, 120.0),
        _part("disc", galaxy, disc, smooth * total * disc.fraction, 0.35 * gas * disc.fraction, 45.0),
    ]
    if galaxy.arms > 0:
        light = galaxy.arms * total * arms.fraction
        parts.append(_part("arms", galaxy, arms, 0.93 * light, 0.15 * gas * arms.fraction, 35.0))
    if galaxy.n_nebulae > 0:
        light = 0.07 * galaxy.arms * total * knots.fraction
        parts.append(_part("nebulae", galaxy, knots, light, 0.5 * gas * knots.fraction, 25.0))
    return [_moved(part, offset) for part in parts]


def rotating_disc(
    v_max: float = 200.0,
    *,
    scale_length: float = 2.0,
    redshift: float = 0.01,
    surface_brightness: float = 20.0,
    axis_ratio: float = 0.6,
    position_angle: float = 40.0,
    n_nebulae: int = 60,
    halpha_width: float = 40.0,
    centre: tuple[float, float] = (150.0, 2.0),
    seed: int = 1,
) -> Scene:
    """Return a scene of one disc galaxy: stars with absorption lines, diffuse gas, and HII regions in its arms.

    Parameters
    ----------
    v_max : float
        Velocity of the gas along the line of sight at three scale lengths on the receding side, km/s; the other
        side has the negative.
    scale_length : float
        arcsec; the disc reaches to four of them.
    redshift : float
    surface_brightness : float
        Of the galaxy's light if all of it were in the exponential disc: in its centre, AB mag arcsec-2 at the
        redshifted 5500 A.
    axis_ratio, position_angle, n_nebulae, halpha_width
        As for `Spiral`.
    centre : (float, float)
        Right ascension and declination, degrees.
    seed : int
        Places of nebulae and knots.
    """
    inclination = np.sqrt(1 - axis_ratio**2)
    if not 0 < inclination <= 1:
        raise InputError(f"a disc of axis ratio {axis_ratio} shows no rotation", field="axis_ratio")
    rotation = v_max / (inclination * 0.97 * 2 / np.pi * np.arctan(3 / 0.5))
    area = 2 * np.pi * scale_length**2 * axis_ratio
    galaxy = Spiral(
        1, surface_brightness - 2.5 * np.log10(area), redshift, scale_length, axis_ratio, position_angle,
        n_nebulae=n_nebulae, halpha_width=halpha_width, rotation=float(rotation),
    )  # fmt: skip
    return Scene("rotating disc", centre, tuple(spiral_galaxy(galaxy, np.random.default_rng(seed))))


def _moved(component: Component, offset: tuple[float, float]) -> Component:
    return replace(component, mixture=component.mixture.moved(*offset))


def _spiral_arms(galaxy: Spiral, generator: np.random.Generator) -> tuple[Mixture, Mixture]:
    """Two logarithmic arms as rows of round Gaussians, and nebulae scattered about them."""
    radius = np.linspace(0.5, 3.2, 36)
    winding = np.log(radius / radius[0]) / np.tan(np.radians(20.0))
    radii = np.tile(radius, 2)
    angles = np.concatenate([winding, winding + np.pi]) + generator.normal(0, 0.06, 2 * radius.size)
    light = np.exp(-radii) * radii * generator.lognormal(0, 0.4, radii.size)
    width = galaxy.scale_length * (0.10 + 0.03 * radii) * np.sqrt(galaxy.axis_ratio)
    arms = Mixture(
        light / light.sum(),
        _inclined(galaxy, radii, angles),
        width[:, np.newaxis, np.newaxis] ** 2 * np.eye(2),
    )
    n = max(galaxy.n_nebulae, 1)
    radii = generator.uniform(0.4, 3.4, n)
    turn = np.log(radii / radius[0]) / np.tan(np.radians(20.0)) + np.pi * generator.integers(0, 2, n)
    angles = turn + generator.normal(0, 0.25, n)
    # Luminosity function of slope -1.8 over two decades (Kennicutt et al. 1989, 10.1086/167147).
    low, high = 1.0, 100.0 ** (-0.8)
    brightness = (low + (high - low) * generator.uniform(0, 1, n)) ** (1 / -0.8)
    light = brightness * np.exp(-radii / 2.5)
    size = galaxy.scale_length * 0.035 * brightness**0.25
    nebulae = Mixture(
        light / light.sum(),
        _inclined(galaxy, radii, angles),
        size[:, np.newaxis, np.newaxis] ** 2 * np.eye(2),
    )
    return arms, nebulae


def _axes(galaxy: Spiral) -> tuple[Float, Float]:
    angle = np.radians(galaxy.position_angle)
    return np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])


def _inclined(galaxy: Spiral, radii: Float, angles: Float) -> Float:
    """Offsets on the sky (arcsec) of polar places in the disc, radii in scale lengths."""
    major, minor = _axes(galaxy)
    along = galaxy.scale_length * radii * np.cos(angles)
    across = galaxy.scale_length * radii * np.sin(angles) * galaxy.axis_ratio
    return np.asarray(along[:, np.newaxis] * major + across[:, np.newaxis] * minor)


def _part(
    name: str, galaxy: Spiral, mixture: Mixture, light: Float, halpha: Float | None, dispersion: float
) -> Component:
    """Give Gaussians the population, dust, velocities and lines of their place in the galaxy."""
    major, minor = _axes(galaxy)
    along = mixture.centre @ major / galaxy.scale_length
    across = mixture.centre @ minor / galaxy.scale_length / galaxy.axis_ratio
    radius = np.hypot(along, across)
    curve = galaxy.rotation * 2 / np.pi * np.arctan(radius / 0.5)
    inclination = np.sqrt(1 - galaxy.axis_ratio**2)
    velocity = curve * inclination * along / np.maximum(radius, 1e-9)
    dust = galaxy.dust * np.exp(-radius / 2) + (0.3 if name == "nebulae" else 0.0)
    return Component(
        name,
        galaxy.label,
        mixture,
        light,
        _shares(name, radius),
        galaxy.redshift,
        0.5 * dust if name == "bulge" else dust,
        velocity if name != "bulge" else 0.0,
        dispersion,
        {} if halpha is None else _line_ratios(halpha, dust, radius, diffuse=name == "disc"),
        0.97 * velocity if name != "bulge" else 0.0,
        30.0 if name == "disc" else 18.0,
    )


def _shares(name: str, radius: Float) -> Float:
    """Shares of the populations at radii in scale lengths."""
    inner, outer = {
        "bulge": (mix(a12000=0.8, a5000=0.2), mix(a12000=0.4, a5000=0.6)),
        "disc": (mix(a5000=0.6, a1400=0.3, a100=0.1), mix(poor5000=0.35, a1400=0.3, a500=0.2, a100=0.15)),
        "arms": (mix(a1400=0.3, a500=0.3, a100=0.4), mix(a500=0.3, a100=0.5, a10=0.2)),
        "nebulae": (mix(a10=0.8, a100=0.2), mix(a10=0.9, a100=0.1)),
    }[name]
    share = np.clip(radius / 3.0, 0.0, 1.0)[:, np.newaxis]
    return np.asarray((1 - share) * inner + share * outer)


def _line_ratios(halpha: Float, dust: Float, radius: Float, *, diffuse: bool) -> dict[str, Float]:
    """Observed line fluxes from the dust-free Halpha flux, by radius in scale lengths."""
    outwards = np.clip(radius / 3.0, 0.0, 1.0)
    hbeta = halpha / CASE_B
    nitrogen = halpha * 0.42 * 10 ** (-0.4 * outwards)
    sulphur = halpha * (0.40 if diffuse else 0.22) * 10 ** (0.1 * outwards)
    oxygen3 = hbeta * 0.35 * 10 ** (0.75 * outwards)
    oxygen2 = hbeta * (2.4 if diffuse else 1.8) * 10 ** (0.2 * outwards)
    intrinsic = {
        "Halpha": halpha,
        "Hbeta": hbeta,
        "Hgamma": hbeta * 0.468,
        "NII6583": nitrogen,
        "NII6548": nitrogen / 3.05,
        "SII6716": sulphur * 0.58,
        "SII6730": sulphur * 0.42,
        "OIII5007": oxygen3,
        "OIII4959": oxygen3 / 2.98,
        "OII3729": oxygen2 * 0.58,
        "OII3726": oxygen2 * 0.42,
    }
    lines = default_lines()
    return {
        key: flux * np.exp(-MAGNITUDE * dust * attenuation_curve(lines[key].rest_vacuum))
        for key, flux in intrinsic.items()
    }


def neighbour(
    label: int,
    magnitude: float,
    redshift: float,
    effective_radius: float,
    offset: tuple[float, float],
    *,
    index: float = 1.0,
    axis_ratio: float = 0.8,
    position_angle: float = 0.0,
    population: Float | None = None,
    oxygen_width: float = 0.0,
) -> Component:
    """Return a small galaxy: a Sersic profile of one population, with [O II] of a rest equivalent width in A."""
    mixture = sersic_mixture(
        effective_radius, index, axis_ratio=axis_ratio, position_angle=position_angle, n_gaussians=5
    )
    light = reference_flux(magnitude, redshift) * mixture.fraction
    doublet = light * oxygen_width * (1 + redshift)
    lines = {"OII3729": 0.58 * doublet, "OII3726": 0.42 * doublet} if oxygen_width > 0 else {}
    shares = mix(a1400=0.5, a100=0.5) if population is None else population
    return Component(
        "neighbour", label, mixture.moved(*offset), light, shares, redshift, 0.2, 0.0, 60.0, lines, 0.0, 40.0
    )


def star(
    label: int,
    magnitude: float,
    offset: tuple[float, float] = (0.0, 0.0),
    shares: Sequence[float] | Float | None = None,
) -> Component:
    """Return a point source of an AB magnitude at 5500 A."""
    point = Mixture(np.ones(1), np.array([offset], dtype=np.float64), np.zeros((1, 2, 2)))
    population = mix(a5000=0.7, a1400=0.3) if shares is None else np.asarray(shares)
    return Component("star", label, point, np.array([reference_flux(magnitude, 0.0)]), population)
