"""A nearby spiral seen nearly face-on, and the bands that show its Halpha.

Everything that a continuum subtraction has to cope with varies over the disc: the strength of the stars' Halpha
absorption, their colours, the dust, [N II]/Halpha, and the velocity, which moves the lines through the narrow band.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.linelist import default_lines
from skyloom.core.psf import PSF, GaussianPSF
from skyloom.errors import InputError
from skyloom.mock.hubble.bands import Band
from skyloom.mock.scenes.galaxies import CASE_B, mix, reference_flux, star
from skyloom.mock.scenes.mixture import Mixture, exponential_tiles, shape_matrix
from skyloom.mock.scenes.scene import MAGNITUDE, Component, Scene, attenuation_curve
from skyloom.mock.scenes.templates import populations

__all__ = ["HALPHA_BANDS", "HalphaScene", "absorption_fluxes", "halpha_bands", "halpha_scene"]

Float = NDArray[np.float64]
REDSHIFT = 0.00219
CENTRE = (24.174, 15.7835)
HALPHA = 6564.63  # A, vacuum: centre of the absorption in the populations
NARROW = "f658n"
# name, limits/A of half height, steepness/A of both edges, slope of the throughput from edge to edge, PHOTFLAM,
# exposure/s, frames, noise of the background/(e/s per 0.04 arcsec). Zero points like those of ACS.
_BANDS = (
    ("f658n", 6531.0, 6629.0, (9.0, 9.0), 0.40, 1.95e-18, 10000.0, 8, 0.0015),
    ("f555w", 4670.0, 6080.0, (22.0, 30.0), 0.15, 1.96e-19, 2800.0, 4, 0.0052),
    ("f814w", 7030.0, 9250.0, (25.0, 80.0), -0.45, 7.07e-20, 2600.0, 4, 0.0060),
)
HALPHA_BANDS = tuple(row[0] for row in _BANDS)
FULL_WELL = 8.0e4  # electrons per frame
# Luminosities of nebulae span this factor, with a slope of -1.8 (Kennicutt et al. 1989, 10.1086/167147).
LUMINOSITIES = 10**2.5
ARMS, PITCH = 4, np.radians(20.0)
NEBULA, DISC, GAS, ARM, STAR = 4, 1, 2, 3, 1000


@cache
def halpha_bands(fwhm: float = 0.07) -> dict[str, Band]:
    """Return a narrow band around Halpha and two broad ones, like F658N, F555W and F814W of ACS, by name.

    Parameters
    ----------
    fwhm : float
        Of the Gaussian PSF, arcsec.

    Notes
    -----
    Halpha and both lines of [N II] lie inside the narrow band, 98 A wide, where its throughput rises by a tenth
    from the one to the other; Hbeta and [O III] lie inside F555W. The noise is for pixels of 0.04 arcsec.
    """
    bands = {}
    for name, blue, red, edges, slope, photflam, exposure, _, noise in _BANDS:
        curve = _throughput(name, blue, red, edges, slope)
        psf: PSF = GaussianPSF(fwhm)
        bands[name] = Band(name, curve, photflam, psf, noise, 0.05, 1.0, exposure)
    return bands


def _throughput(name: str, blue: float, red: float, edges: tuple[float, float], slope: float) -> Bandpass:
    """Smooth edges, and a slope between them; 0 where the edges have fallen to 1e-4."""
    low, high = blue - 9.0 * edges[0], red + 9.0 * edges[1]
    wave = np.linspace(low, high, 601)
    shape = 1.0 / (1.0 + np.exp(-(wave - blue) / edges[0])) / (1.0 + np.exp((wave - red) / edges[1]))
    tilt = np.clip(1.0 + slope * (wave - (blue + red) / 2) / (red - blue), 0.2, 2.0)
    throughput = np.maximum(0.4 * shape * tilt - 1e-4, 0.0)
    return Bandpass(wave, throughput, name)


def saturation_rate(name: str) -> float:
    """Return the e/s per pixel at which the frames of a band saturate."""
    return FULL_WELL * frames_of(name) / halpha_bands()[name].exposure


def frames_of(name: str) -> int:
    """Return the number of frames that an image of a band is made of."""
    for row in _BANDS:
        if row[0] == name:
            return row[7]
    raise InputError(
        f"{name!r} is no band of the mock", field="band", remedy=f"use {', '.join(HALPHA_BANDS)}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class HalphaScene:
    """A scene, and its parts that tests ask for.

    Parameters
    ----------
    scene : Scene
        Components disc, arms (stars and gas), diffuse (gas), nebulae, and one per star.
    redshift : float
    scale_length : float
        Of the stellar disc, arcsec; the diffuse gas has twice as much.
    axis_ratio, position_angle : float
    nebulae : Component
        Without the stars' light: it has none.
    stars : tuple of Component
    star_magnitudes : (n_stars,) array
        AB at 5500 A.
    """

    scene: Scene
    redshift: float
    scale_length: float
    axis_ratio: float
    position_angle: float
    nebulae: Component
    stars: tuple[Component, ...]
    star_magnitudes: Float

    def radius(self, offsets: Float) -> Float:
        """Return the radii in the disc, in scale lengths, of offsets (..., 2) (east, north) in arcsec."""
        return disc_radius(offsets, self.axis_ratio, self.position_angle) / self.scale_length


def disc_radius(offsets: Float, axis_ratio: float, position_angle: float) -> Float:
    """Return the major-axis radius of the ellipse through each offset (..., 2), in its unit."""
    inverse = np.linalg.inv(shape_matrix(axis_ratio, position_angle))
    return np.asarray(np.sqrt(np.einsum("...i,ij,...j->...", offsets, inverse, offsets)))


def halpha_scene(
    side: float = 64.0,
    *,
    seed: int,
    surface_brightness: float = 19.0,
    n_nebulae: int = 1000,
    n_stars: int = 8,
    absorption: tuple[float, float] = (2.1, 2.65),
    nitrogen: tuple[float, float] = (0.56, 0.28),
    diffuse_width: float = 4.0,
    faintest: float = 1.0e-16,
    rotation: float = 30.0,
    axis_ratio: float = 0.9,
    position_angle: float = 30.0,
    redshift: float = REDSHIFT,
    centre: tuple[float, float] = CENTRE,
    spacing: float = 0.5,
) -> HalphaScene:
    """Return a spiral that fills a square field.

    Parameters
    ----------
    side : float
        Of the field, arcsec; the disc's scale length is 3/32 of it, so that its light falls to 1 % of that in the
        centre within the field.
    seed : int
        Places and brightness of nebulae and stars.
    surface_brightness : float
        Of the disc's centre, AB mag arcsec-2 at the redshifted 5500 A.
    n_nebulae, n_stars : int
        Stars have 15.5 to 20.5 mag; in fields smaller than 64 arcsec the brightest are fainter, so that they do not
        outshine the galaxy.
    absorption : (float, float)
        Equivalent width of the stars' Halpha absorption in the centre and at five scale lengths, A in the rest
        frame, on which a dipole of a twentieth is laid; between 1.2 and 3.5.
    nitrogen : (float, float)
        [N II] 6583 / Halpha in the centre and at five scale lengths.
    diffuse_width : float
        Equivalent width of the diffuse Halpha emission in the centre, A; it rises outwards, as the gas has twice the
        stars' scale length.
    faintest : float
        Halpha flux of the faintest nebula, erg s-1 cm-2; the brightest has 316 times as much.
    rotation : float
        Largest velocity of gas and stars along the line of sight, km/s.
    spacing : float
        Of the tiles of the disc, in scale lengths.
    """
    generator = np.random.default_rng([seed, 17])
    length = side * 3.0 / 32.0
    maker = _Maker(length, axis_ratio, position_angle, redshift, absorption, nitrogen, rotation)
    disc = maker.disc(surface_brightness, spacing)
    level = _level_at_halpha(disc)
    arms = maker.arms(disc, diffuse_width, generator)
    diffuse = maker.diffuse(level * diffuse_width)
    brightest = 15.5 + max(0.0, 2.8 * np.log10(64.0 / side))
    magnitudes = np.linspace(brightest, 20.5, max(n_stars, 1))[:n_stars]
    places = _star_places(n_stars, side, generator)
    stars = tuple(
        replace(star(STAR + index, magnitude, (float(east), float(north))), name=f"star {index}")
        for index, (magnitude, (east, north)) in enumerate(zip(magnitudes, places, strict=True))
    )
    parts: list[Component] = [disc, arms, diffuse]
    nebulae = maker.nebulae(n_nebulae, side, faintest, places, generator)
    scene = Scene("halpha spiral", centre, (*parts, nebulae, *stars))
    return HalphaScene(scene, redshift, length, axis_ratio, position_angle, nebulae, stars, magnitudes)


def _star_places(n: int, side: float, generator: np.random.Generator) -> Float:
    """Offsets of stars: not in the middle of the disc, not at the edge, not near one another."""
    places: list[Float] = []
    while len(places) < n:
        place = generator.uniform(-0.38 * side, 0.38 * side, 2)
        near = any(np.hypot(*(place - other)) < 0.12 * side for other in places)
        if np.hypot(*place) > 0.12 * side and not (near and len(places) < 30):
            places.append(place)
    return np.array(places).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class _Maker:
    """What all components of the galaxy have in common."""

    length: float
    axis_ratio: float
    position_angle: float
    redshift: float
    absorption: tuple[float, float]
    nitrogen: tuple[float, float]
    rotation: float

    def disc(self, surface_brightness: float, spacing: float) -> Component:
        """Stars."""
        tiles = exponential_tiles(
            self.length, axis_ratio=self.axis_ratio, position_angle=self.position_angle, extent=7.0,
            spacing=spacing,
        )  # fmt: skip
        light = tiles.fraction * reference_flux(surface_brightness, self.redshift) / _centre_value(tiles)
        return self._component("disc", DISC, tiles, light, self.shares(tiles.centre), {}, 40.0)

    def arms(self, disc: Component, width: float, generator: np.random.Generator) -> Component:
        """Arms of younger stars, a fifth as bright as the disc, with half of its diffuse gas again."""
        radius = np.tile(np.linspace(0.6, 5.0, 30), ARMS) * self.length
        angle = _arm_angle(radius / self.length, np.repeat(np.arange(ARMS), 30))
        radius = radius * generator.lognormal(0.0, 0.02, radius.size)
        centre = self._place(radius, angle)
        sigma = 0.22 * self.length * (radius / self.length) ** 0.4
        covariance = sigma[:, np.newaxis, np.newaxis] ** 2 * np.eye(2)
        mixture = Mixture(np.full(radius.size, 1.0 / radius.size), centre, covariance)
        central = float(disc.continuum.sum() * _centre_value(disc.mixture))
        light = 0.2 * central * np.exp(-radius / self.length) * 2 * np.pi * sigma**2
        light = light * generator.lognormal(0.0, 0.3, radius.size)
        smooth = self.shares(centre)
        shares = 0.7 * smooth + 0.3 * mix(a100=0.7, a500=0.3)
        level = _level_at_halpha(disc)
        gas = 0.5 * width * level * np.exp(-0.5 * radius / self.length) * 2 * np.pi * sigma**2
        return self._component("arms", ARM, mixture, light, shares, self.lines(gas, centre), 30.0)

    def diffuse(self, brightness: float) -> Component:
        """Diffuse ionised gas with a central surface brightness, erg s-1 cm-2 arcsec-2."""
        tiles = exponential_tiles(
            2 * self.length, axis_ratio=self.axis_ratio, position_angle=self.position_angle, extent=4.0
        )
        flux = tiles.fraction * brightness / _centre_value(tiles)
        dark = np.zeros(len(tiles))
        return self._component(
            "diffuse", GAS, tiles, dark, mix(a1400=1.0), self.lines(flux, tiles.centre), 0.0, gas=28.0
        )

    def nebulae(
        self, n: int, side: float, faintest: float, stars: Float, generator: np.random.Generator
    ) -> Component:
        """HII regions, two thirds of them along the arms, the brighter ones larger."""
        index = -0.8
        share = np.sort(generator.uniform(0, 1, max(n, 1)))[::-1]
        luminosity = (1.0 + (LUMINOSITIES**index - 1.0) * share) ** (1 / index)
        sigma = np.clip(0.05 * luminosity**0.4 * generator.lognormal(0.0, 0.25, luminosity.size), 0.05, 0.8)
        centre = self._scatter(sigma, side, stars, generator)
        covariance = sigma[:, np.newaxis, np.newaxis] ** 2 * np.eye(2)
        mixture = Mixture(luminosity / luminosity.sum(), centre, covariance)
        flux = faintest * luminosity * (n > 0)
        # Stars of the nebulae: Halpha equivalent widths of 1000 A.
        return self._component(
            "nebulae", NEBULA, mixture, flux / 1000.0, mix(a10=1.0), self.lines(flux, centre), 10.0, gas=15.0
        )

    def _scatter(self, sigma: Float, side: float, stars: Float, generator: np.random.Generator) -> Float:
        """Places of nebulae, the first ones first, apart from one another and from stars where there is room."""
        placed = np.empty((sigma.size, 2))
        reach = 0.49 * side
        for index in range(sigma.size):
            apart = np.maximum(0.7, 1.2 * (sigma[index] + sigma[:index]))
            for _ in range(60):
                radius = np.sqrt(generator.uniform(0.02, 1.0)) * reach
                if generator.uniform() < 0.65:
                    turn = float(_arm_angle(radius / self.length, int(generator.integers(0, ARMS))))
                    angle = turn + generator.normal(0.0, 0.22)
                else:
                    angle = generator.uniform(0.0, 2 * np.pi)
                place = self._place(np.array([radius]), np.array([angle]))[0]
                free = np.all(np.hypot(*(placed[:index] - place).T) > apart)
                if free and np.all(np.hypot(*(stars - place).T) > 2.0):
                    break
            placed[index] = place
        return placed

    def _place(self, radius: Float, angle: Float) -> Float:
        """Offsets (n, 2) of polar places in the disc (arcsec, radians from the major axis)."""
        turn = np.radians(self.position_angle)
        major, minor = np.array([np.sin(turn), np.cos(turn)]), np.array([np.cos(turn), -np.sin(turn)])
        across = radius * np.sin(angle) * self.axis_ratio
        return np.asarray(np.multiply.outer(radius * np.cos(angle), major) + np.multiply.outer(across, minor))

    def _radius(self, centre: Float) -> Float:
        return disc_radius(centre, self.axis_ratio, self.position_angle) / self.length

    def shares(self, centre: Float) -> Float:
        """Populations that give the absorption its equivalent width: older inside, younger outside."""
        radius = self._radius(centre)
        wanted = self.absorption[0] + np.diff(self.absorption) * np.clip(radius / 5.0, 0.0, 1.2)
        wanted = wanted * (1.0 + 0.05 * np.tanh(centre[:, 0] / (2.0 * self.length)))
        nodes = (
            mix(a5000=1.0),
            mix(a1400=0.45, a5000=0.55),
            mix(a1400=0.85, a5000=0.15),
            mix(a500=0.5, a1400=0.5),
        )
        widths = np.array([_width(shares) for shares in nodes])
        low = np.clip(np.searchsorted(widths, wanted) - 1, 0, len(nodes) - 2)
        level = np.array([_level(shares) for shares in nodes])
        part = np.clip((wanted - widths[low]) / (widths[low + 1] - widths[low]), 0.0, 1.0)
        # Equivalent widths mix by the light at Halpha, shares by that at 5500 A.
        upper, lower = part / level[low + 1], (1 - part) / level[low]
        upper = (upper / (upper + lower))[:, np.newaxis]
        table = np.stack(nodes)
        return np.asarray((1 - upper) * table[low] + upper * table[low + 1])

    def lines(self, halpha: Float, centre: Float) -> dict[str, Float]:
        """Observed line fluxes at places with an observed Halpha flux."""
        outwards = np.clip(self._radius(centre) / 5.0, 0.0, 1.2)
        nitrogen = self.nitrogen[0] * (self.nitrogen[1] / self.nitrogen[0]) ** outwards
        dust, known = self.dust(centre), default_lines()

        def faded(key: str) -> Float:
            screen = attenuation_curve(known[key].rest_vacuum) - attenuation_curve(
                known["Halpha"].rest_vacuum
            )
            return np.asarray(np.exp(-MAGNITUDE * dust * screen))

        hbeta = halpha / CASE_B * faded("Hbeta")
        oxygen = halpha / CASE_B * 0.3 * 4.0**outwards * faded("OIII5007")
        return {
            "Halpha": halpha,
            "NII6583": halpha * nitrogen,
            "NII6548": halpha * nitrogen / 3.05,
            "Hbeta": hbeta,
            "OIII5007": oxygen,
            "OIII4959": oxygen / 2.98,
            "SII6716": 0.20 * halpha,
            "SII6730": 0.15 * halpha,
        }

    def dust(self, centre: Float) -> Float:
        """A_V in magnitudes."""
        return np.asarray(0.1 + 0.6 * np.exp(-self._radius(centre) / 3.0))

    def _component(
        self, name: str, label: int, mixture: Mixture, light: Float, shares: Float, lines: dict[str, Float],
        dispersion: float, gas: float = 20.0,
    ) -> Component:  # fmt: skip
        turn = np.radians(self.position_angle)
        along = mixture.centre @ np.array([np.sin(turn), np.cos(turn)]) / self.length
        velocity = self.rotation * np.tanh(along)
        return Component(
            name, label, mixture, light, shares, self.redshift, self.dust(mixture.centre), velocity, dispersion,
            lines, velocity, gas,
        )  # fmt: skip


def _arm_angle(radius: Float | float, arm: Float | int) -> Float:
    """Angle in the disc of a logarithmic arm at radii in scale lengths."""
    return np.asarray(np.log(np.asarray(radius) / 0.5) / np.tan(PITCH) + 2 * np.pi / ARMS * np.asarray(arm))


def _centre_value(tiles: Mixture) -> float:
    """Surface density per arcsec2 of tiles of total 1 in the middle."""
    variance = tiles.covariance[:, 0, 0]
    density = np.exp(-0.5 * np.sum(tiles.centre**2, axis=1) / variance) / (2 * np.pi * variance)
    return float(tiles.fraction @ density)


@cache
def _halpha_table() -> tuple[Float, Float]:
    """Of every population: flux density at Halpha without the absorption line, and what the line takes away (A)."""
    library = populations()
    bare = replace(library, line_depth=np.zeros_like(library.line_depth))
    own = np.abs(library.line_wave - HALPHA) < 1.0
    area = np.sqrt(2 * np.pi) * library.line_width[own] * library.line_wave[own]
    return bare.evaluate([HALPHA])[:, 0], library.line_depth[:, own] @ area


def _width(shares: Float) -> float:
    level, absorbed = _halpha_table()
    return float(shares @ absorbed / (shares @ level))


def _level(shares: Float) -> float:
    return float(shares @ _halpha_table()[0])


def absorption_fluxes(component: Component) -> tuple[Float, Float]:
    """Return the stars' flux density at Halpha without its absorption, and the flux that the absorption takes.

    Returns
    -------
    two (n,) arrays, erg s-1 cm-2 A-1 and erg s-1 cm-2
        Observed; the second over the first, and over 1 + z, is the equivalent width in the rest frame.
    """
    level, absorbed = _halpha_table()
    screen = float(attenuation_curve(HALPHA)) - 1.0
    light = component.continuum * np.exp(-MAGNITUDE * np.asarray(component.attenuation) * screen)
    shares = np.asarray(component.population)
    return light * (shares @ level), light * (shares @ absorbed) * (1 + component.redshift)


def _level_at_halpha(disc: Component) -> float:
    """Surface brightness of the disc's centre at Halpha, erg s-1 cm-2 A-1 arcsec-2."""
    level, _ = absorption_fluxes(disc)
    variance = disc.mixture.covariance[:, 0, 0]
    density = np.exp(-0.5 * np.sum(disc.mixture.centre**2, axis=1) / variance) / (2 * np.pi * variance)
    return float(level @ density)
