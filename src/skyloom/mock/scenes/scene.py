"""A scene on the sky that every instrument can observe: Gaussians with spectra.

Each Gaussian has a stellar population, dust, velocities and emission lines of its own. Its image under any PSF is
exact (see `skyloom.mock.scenes.render`), its spectrum is a closed form (see `skyloom.mock.scenes.templates`); an image
in a band is the sum over the Gaussians of shape times band flux, a cube the sum of shape times spectrum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.linelist import Medium, default_lines
from skyloom.errors import InputError, ShapeError
from skyloom.mock.scenes.mixture import Mixture
from skyloom.mock.scenes.spectral_axis import SpectralAxis
from skyloom.mock.scenes.templates import REFERENCE_WAVE, SPEED_OF_LIGHT, populations

__all__ = ["Component", "Scene", "attenuation_curve", "line_profile"]

Float = NDArray[np.float64]
Light = Literal["stars", "lines"]
MAGNITUDE = 0.4 * np.log(10)


def attenuation_curve(wave: ArrayLike) -> Float:
    """Return A(wave) / A_V at rest wavelengths in A: (wave / 5500 A)^-0.7 (Charlot & Fall 2000, 10.1086/309250)."""
    return np.asarray((np.asarray(wave, dtype=np.float64) / REFERENCE_WAVE) ** -0.7)


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """Gaussians of one kind in one object.

    Parameters
    ----------
    name : str
        ``bulge``, ``disc``, ``arms``, ``nebulae``, ``star``, ...
    label : int
        Object that it belongs to.
    mixture : Mixture
        Where the n Gaussians lie; the component's light is given below, not by the fractions.
    continuum : (n,) array
        Observed flux density at the redshifted `REFERENCE_WAVE`, dust included, erg s-1 cm-2 A-1.
    population : (n, n_populations) array
        Shares of the populations in the light at `REFERENCE_WAVE`, sum 1.
    redshift : float
    attenuation : float or (n,) array
        A_V of a foreground screen, in magnitudes.
    velocity, dispersion : float or (n,) array
        Of the stars, km/s, the velocity optical and relative to the redshift.
    lines : mapping of key to (n,) array
        Observed fluxes of emission lines, erg s-1 cm-2.
    gas_velocity, gas_dispersion : float or (n,) array
        Of the gas, km/s.
    """

    name: str
    label: int
    mixture: Mixture
    continuum: Float
    population: Float
    redshift: float = 0.0
    attenuation: Float | float = 0.0
    velocity: Float | float = 0.0
    dispersion: Float | float = 0.0
    lines: Mapping[str, Float] = field(default_factory=dict)
    gas_velocity: Float | float = 0.0
    gas_dispersion: Float | float = 20.0

    def __post_init__(self) -> None:
        n = len(self.mixture)
        for name in ("continuum", "attenuation", "velocity", "dispersion", "gas_velocity", "gas_dispersion"):
            object.__setattr__(self, name, _vector(getattr(self, name), n, f"{self.name}.{name}"))
        shares = np.broadcast_to(np.asarray(self.population, dtype=np.float64), (n, len(populations())))
        object.__setattr__(self, "population", shares)
        if not np.allclose(shares.sum(axis=1), 1.0):
            raise InputError(
                "the shares of the populations do not add up to 1", field=f"{self.name}.population"
            )
        lines = {key: _vector(flux, n, f"{self.name}.lines[{key}]") for key, flux in self.lines.items()}
        object.__setattr__(self, "lines", lines)
        for key in lines:
            default_lines()[key]


def _vector(values: ArrayLike, n: int, name: str) -> Float:
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((), (n,)):
        raise ShapeError(f"has shape {array.shape}; expected ({n},) or a number", field=name)
    return np.broadcast_to(array, (n,))


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Components around a point of the sky.

    Parameters
    ----------
    name : str
    centre : (float, float)
        Right ascension and declination of the tangent point, degrees.
    components : tuple of Component
    """

    name: str
    centre: tuple[float, float]
    components: tuple[Component, ...]

    def __len__(self) -> int:
        return sum(len(component.mixture) for component in self.components)

    @property
    def offsets(self) -> Float:
        """(n, 2) centres of all Gaussians, east and north, arcsec."""
        return np.concatenate([component.mixture.centre for component in self.components])

    @property
    def covariance(self) -> Float:
        """(n, 2, 2) covariances of all Gaussians, arcsec2."""
        return np.concatenate([component.mixture.covariance for component in self.components])

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) object of each Gaussian."""
        return np.repeat(
            [component.label for component in self.components],
            [len(component.mixture) for component in self.components],
        )

    def collect(self, name: str) -> Float:
        """Return a property of `Component` for all Gaussians, e.g. ``gas_velocity``."""
        return np.concatenate([np.asarray(getattr(component, name)) for component in self.components])

    def select(self, labels: Iterable[int]) -> Scene:
        """Return the scene with these objects only."""
        wanted = set(labels)
        kept = tuple(component for component in self.components if component.label in wanted)
        if not kept:
            known = sorted({component.label for component in self.components})
            raise InputError(
                f"no object has a label in {sorted(wanted)}", field="labels", remedy=f"known: {known}"
            )
        return Scene(self.name, self.centre, kept)

    def line_fluxes(self, key: str) -> Float:
        """Return the flux of an emission line for all Gaussians: (n,), erg s-1 cm-2."""
        default_lines()[key]
        zero = [np.zeros(len(component.mixture)) for component in self.components]
        parts = [part.lines.get(key, none) for part, none in zip(self.components, zero, strict=True)]
        return np.concatenate(parts)

    def velocity_field(self, east: ArrayLike, north: ArrayLike, line: str = "Halpha") -> Float:
        """Return the flux-weighted mean gas velocity of a line (km/s) before any blurring; NaN where it is absent.

        Parameters
        ----------
        east, north : arrays of one shape
            Offsets from the centre in arcsec.
        """
        x, y = np.broadcast_arrays(np.asarray(east, dtype=np.float64), np.asarray(north, dtype=np.float64))
        flux, velocity = self.line_fluxes(line), self.collect("gas_velocity")
        offsets, covariance = self.offsets, self.covariance
        total, weighted = np.zeros(x.shape), np.zeros(x.shape)
        for index in np.flatnonzero(flux):
            inverse = np.linalg.inv(covariance[index])
            dx, dy = x - offsets[index, 0], y - offsets[index, 1]
            distance = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
            density = flux[index] * np.sqrt(np.linalg.det(inverse)) * np.exp(-0.5 * distance)
            total += density
            weighted += velocity[index] * density
        return np.divide(weighted, total, out=np.full(x.shape, np.nan), where=total > 0)

    def spectra(
        self,
        wave: ArrayLike,
        medium: Medium = "vacuum",
        lsf: ArrayLike = 0.0,
        *,
        edges: ArrayLike | None = None,
        light: Sequence[Light] = ("stars", "lines"),
    ) -> Float:
        """Return the spectrum of every Gaussian, stars and lines.

        Parameters
        ----------
        wave : (n_wave,) array
            Observed wavelengths in A.
        medium : {"vacuum", "air"}
            What they are measured in.
        lsf : float or (n_wave,) array
            Standard deviation of the line-spread function in A.
        edges : (n_wave + 1,) array, optional
            Edges of the channels in A, ascending, in ``medium``: the spectra are averaged over the channels as the
            pixels of a spectrograph do. Lines then have the LSF of their centre and lose no light; the stars are
            averaged by three Gauss-Legendre points, good to 1e-6.
            `skyloom.mock.scenes.spectral_axis.channel_edges` makes edges from centres.
        light : sequence of {"stars", "lines"}
            Which parts are wanted.

        Returns
        -------
        (n, n_wave) float64 array
            Without edges in erg s-1 cm-2 per A in vacuum, sampled at the wavelengths; with them per A in ``medium``,
            so that a sum over channels times their widths is the flux of a line.
        """
        axis = SpectralAxis.build(wave, medium, lsf, edges)
        return np.concatenate([component_spectra(part, axis, light) for part in self.components])

    def band_fluxes(self, band: Bandpass) -> Float:
        """Return the photon-weighted mean flux density of every Gaussian over a band: (n,), erg s-1 cm-2 A-1.

        Stellar velocities and dust enter through Chebyshev interpolation of the band's integral, good to 1e-7; the
        velocity dispersion of the stars, which broad integrals hardly feel, as its mean over the component.
        """
        return np.concatenate([_component_band(component, band) for component in self.components])


def component_spectra(component: Component, axis: SpectralAxis, light: Sequence[Light]) -> Float:
    """Return the spectra of the Gaussians of one component, (n, n_wave); see `Scene.spectra`."""
    spectra = np.zeros((len(component.mixture), axis.size))
    if "stars" in light:
        spectra += _stars(component, axis)
    if "lines" in light:
        for key, flux in component.lines.items():
            axis.add_lines(spectra, flux, *line_profile(component, key))
    return spectra


def _stars(component: Component, axis: SpectralAxis) -> Float:
    """Stellar continua after dust. Spectra at other velocities are interpolated from those at Chebyshev nodes."""
    library = populations()
    velocity, dispersion = np.asarray(component.velocity), np.asarray(component.dispersion)
    rest = axis.points / (1 + component.redshift)
    instrument = SPEED_OF_LIGHT * axis.point_lsf / axis.points
    stars = np.empty((velocity.size, axis.size))
    for sigma in np.unique(dispersion):
        chosen = np.flatnonzero(dispersion == sigma)
        narrowest = np.hypot(sigma, SPEED_OF_LIGHT * library.line_width.min())
        nodes, matrix = _velocity_nodes(velocity[chosen], float(narrowest))
        broadening = np.hypot(sigma, instrument)
        table = np.stack(
            [axis.average(library.evaluate(rest / (1 + v / SPEED_OF_LIGHT), broadening)) for v in nodes]
        )
        weights = matrix[:, :, np.newaxis] * component.population[chosen, np.newaxis, :]
        stars[chosen] = weights.reshape(chosen.size, -1) @ table.reshape(-1, axis.size)
    screen = attenuation_curve(axis.vacuum / (1 + component.redshift)) - 1.0
    dust = np.exp(-MAGNITUDE * np.multiply.outer(np.asarray(component.attenuation), screen))
    return np.asarray(np.asarray(component.continuum)[:, np.newaxis] * stars * dust)


def _velocity_nodes(velocity: Float, narrowest: float) -> tuple[Float, Float]:
    """Velocities at which spectra are computed, and the matrix that leads from them to ``velocity``.

    A feature of standard deviation s over velocities of half range h is a Gaussian of width s / h on (-1, 1); its
    Chebyshev coefficients fall below 1e-10 before the degree 12 + 6 h / s.
    """
    unique, inverse = np.unique(velocity, return_inverse=True)
    number = 13 + int(np.ceil(6 * (unique[-1] - unique[0]) / (2 * narrowest)))
    if unique.size <= number:
        return unique, np.eye(unique.size)[inverse]
    return _nodes(velocity, number)


def line_profile(component: Component, key: str) -> tuple[Float, Float]:
    """Return the observed centres (vacuum) and standard deviations of a line in A, both (n,)."""
    rest = default_lines()[key].rest_vacuum * (1 + component.redshift)
    centre = rest * (1 + np.asarray(component.gas_velocity) / SPEED_OF_LIGHT)
    return centre, centre * np.asarray(component.gas_dispersion) / SPEED_OF_LIGHT


# The same components are observed on several grids, together and alone.
@lru_cache(maxsize=512)
def _component_band(component: Component, curve: Bandpass) -> Float:
    band = curve.to_medium("vacuum")
    low, high = band.limits
    wave = np.linspace(low, high, int(np.clip((high - low) / 1.5, 300, 3000)))
    weights = band.mean_weights(wave)
    rest = wave / (1 + component.redshift)
    velocity, to_velocity = _nodes(np.asarray(component.velocity), 7)
    dust, to_dust = _nodes(np.asarray(component.attenuation), 9)
    dispersion = float(np.mean(component.dispersion))
    library = populations()
    screen = weights * np.exp(-MAGNITUDE * np.multiply.outer(dust, attenuation_curve(rest) - 1.0))
    table = np.stack(
        [library.evaluate(rest / (1 + v / SPEED_OF_LIGHT), dispersion) @ screen.T for v in velocity]
    )
    stars = np.einsum("nv,vpa,na,np->n", to_velocity, table, to_dust, component.population, optimize=True)
    fluxes = component.continuum * stars
    for key, flux in component.lines.items():
        fluxes = fluxes + flux * _line_response(band, *line_profile(component, key))
    return np.asarray(fluxes)


def _nodes(values: Float, number: int) -> tuple[Float, Float]:
    """Chebyshev nodes that span ``values``, and the matrix that interpolates from the nodes to the values."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-12 * max(1.0, abs(high)):
        return np.array([low]), np.ones((values.size, 1))
    nodes = chebyshev.chebpts1(number)
    scaled = (2 * values - low - high) / (high - low)
    matrix = chebyshev.chebvander(scaled, number - 1) @ np.linalg.inv(chebyshev.chebvander(nodes, number - 1))
    return (low + high) / 2 + nodes * (high - low) / 2, matrix


def _line_response(band: Bandpass, centre: Float, sigma: Float) -> Float:
    """Mean flux density over the band of a line of unit flux: <T l> over the profile / int T l dl."""
    steps = np.linspace(-6.0, 6.0, 61)
    weights = np.exp(-0.5 * steps**2)
    wave = centre[:, np.newaxis] + sigma[:, np.newaxis] * steps
    mean = (band.throughput_at(wave) * wave) @ (weights / weights.sum())
    return np.asarray(mean / band.photon_integral)
