"""Cubes of a scene as spectrographs see it, with every ingredient known: light, lines, noise, left-over sky.

A cube is a matrix product: the shares of every Gaussian's light in the spaxels times the Gaussians' spectra. The
shares are painted at a few wavelengths and interpolated between them, as the PSF changes slowly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.linelist import convert_medium, default_lines
from skyloom.core.provenance import step
from skyloom.errors import InputError
from skyloom.mock.cubes.noise import BAD, CubeNoise, SkyResiduals, field_of_view
from skyloom.mock.cubes.spectrographs import Field, Spectrograph
from skyloom.mock.scenes.images import LineTruth, sky_wcs
from skyloom.mock.scenes.milky_way import milky_way_factor
from skyloom.mock.scenes.render import paint_each
from skyloom.mock.scenes.scene import Light, Scene, line_profile
from skyloom.mock.scenes.templates import SPEED_OF_LIGHT

__all__ = ["CubeModel", "CubeObservation", "CubeSlab", "observe_cube"]

Float = NDArray[np.float64]
Single = NDArray[np.float32]
Bool = NDArray[np.bool_]
BOTH: tuple[Light, ...] = ("stars", "lines")
# Distance in A of the wavelengths at which the shares are painted.
NODE_DISTANCE = 400.0
# Memory for painted shares; two wavelengths are kept in any case.
CACHE_BYTES = 3e8
# Voxels that are made at once, and the least number of channels.
SLAB_VOXELS, SLAB_CHANNELS = 2_000_000, 64


class CubeSlab(NamedTuple):
    """Consecutive channels of an observation, each (n_channels, ny, nx)."""

    channels: slice
    data: Single
    variance: Single
    mask: Bool
    truth: Single


@dataclass(slots=True, eq=False)
class CubeModel:
    """An observation that is computed channel by channel, when it is asked for.

    Parameters
    ----------
    scene : Scene or None
        None: nothing but noise.
    spectrograph : Spectrograph
    wcs : astropy.wcs.WCS
        Celestial, of the spaxels.
    shape : (int, int)
        (ny, nx).
    seed : int
    redshift : float
        To which the velocities of lines are relative.
    a_v : float
        Extinction by the Milky Way in the data, magnitudes; 0 where the survey corrects its cubes.
    noise : float
        Factor of the noise's standard deviation; 0: no noise is drawn, and the variance is that of factor 1.
    residuals : SkyResiduals or None
    covered, dead : (ny, nx) bool arrays
        The field of view; spaxels in it without values.
    bad_share : float
        Share of voxels without a value.
    """

    scene: Scene | None
    spectrograph: Spectrograph
    wcs: WCS
    shape: tuple[int, int]
    seed: int
    redshift: float
    a_v: float
    noise: float
    residuals: SkyResiduals | None
    covered: Bool
    dead: Bool
    bad_share: float
    _nodes: Float = field(init=False, repr=False)
    _shares: dict[int, Single] = field(init=False, repr=False, default_factory=dict)
    _spectra: dict[tuple[Light, ...], Single] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        # Whole multiples, so that a cube that is cut in wavelength has the light of the whole one.
        low, high = self.spectrograph.edges[[0, -1]] / NODE_DISTANCE
        self._nodes = NODE_DISTANCE * np.arange(np.floor(low), max(np.ceil(high), np.floor(low) + 1) + 1)

    @property
    def n_wave(self) -> int:
        """Number of channels."""
        return int(self.spectrograph.wave.size)

    @property
    def extinction(self) -> Float:
        """(n_wave,) factor by which the Milky Way dims the light in the data."""
        vacuum = convert_medium(self.spectrograph.wave, self.spectrograph.medium, "vacuum")
        return milky_way_factor(vacuum, self.a_v)

    @property
    def residual_spectrum(self) -> Float:
        """(n_wave,) left-over sky at `residual_pattern` 1, in the unit of the cube."""
        if self.residuals is None:
            return np.zeros(self.n_wave)
        return self.residuals.spectrum(self.spectrograph, self.seed)

    @property
    def residual_pattern(self) -> Float:
        """(ny, nx) factor of the left-over sky."""
        return (self.residuals or SkyResiduals()).pattern(self.shape, self.seed)

    @property
    def background_variance(self) -> Float:
        """(n_wave,) variance without sources, in ``unit**2``."""
        excess = 0.0 if self.residuals is None else self.residuals.variance(self.spectrograph)
        return np.asarray((self.noise or 1.0) ** 2 * (self.spectrograph.background_variance + excess))

    def spectra(self, light: Sequence[Light] = BOTH) -> Single:
        """Return the Gaussians' spectra in the unit of the cube, dimmed by the Milky Way: (n, n_wave)."""
        key = tuple(light)
        if key not in self._spectra:
            if self.scene is None:
                return np.zeros((0, self.n_wave), dtype=np.float32)
            instrument = self.spectrograph
            flux = self.scene.spectra(
                instrument.wave, instrument.medium, instrument.lsf, edges=instrument.edges, light=key
            )
            self._spectra[key] = (flux * (self.extinction / instrument.flux_unit)).astype(np.float32)
        return self._spectra[key]

    def truth(self, channels: slice = slice(None), light: Sequence[Light] = BOTH) -> Single:
        """Return the noise-free cube, (n_channels, ny, nx) float32, of all light or of the stars' or lines' alone."""
        chosen = np.arange(self.n_wave)[channels]
        cube = np.zeros((chosen.size, *self.shape), dtype=np.float32)
        if self.scene is None:
            return cube
        spectra = self.spectra(light)
        lower, upper = self._between(self.spectrograph.wave[chosen])
        for node in np.unique(lower):
            inside = np.flatnonzero(lower == node)
            first, last = int(inside[0]), int(inside[-1]) + 1
            block, share = spectra[:, chosen[first:last]].T, upper[first:last, np.newaxis].astype(np.float32)
            flat = cube[first:last].reshape(last - first, -1)
            flat += (block * (1 - share)) @ self._painted(int(node))
            flat += (block * share) @ self._painted(int(node) + 1)
        return cube

    def line(self, key: str) -> LineTruth:
        """Return the flux, mean velocity and dispersion of a line in every spaxel, as the cube holds them.

        The flux is in erg s-1 cm-2 per spaxel, dimmed by the Milky Way like the data; velocities are relative to the
        redshift of the model, the dispersion has no LSF in it.
        """
        if self.scene is None:
            raise InputError("a cube of noise has no lines", field="line")
        centre, sigma = (np.concatenate(part) for part in zip(*self._profiles(key), strict=True))
        flux = self.scene.line_fluxes(key) * milky_way_factor(centre, self.a_v)
        reference = default_lines()[key].rest_vacuum * (1 + self.redshift)
        velocity, width = SPEED_OF_LIGHT * (centre / reference - 1), SPEED_OF_LIGHT * sigma / reference
        weights = (
            np.stack([flux, flux * velocity, flux * (velocity**2 + width**2)]) / self.spectrograph.flux_unit
        )
        moments = np.zeros((3, *self.shape))
        lower, upper = self._between(convert_medium(centre, "vacuum", self.spectrograph.medium))
        for node in np.unique(np.concatenate([lower, lower + 1])):
            share = np.where(lower == node, 1 - upper, np.where(lower + 1 == node, upper, 0.0))
            lit = np.flatnonzero(share * flux)
            if lit.size:
                part = (weights * share)[:, lit].astype(np.float32) @ self._painted(int(node))[lit]
                moments += part.reshape(moments.shape)
        seen = moments[0] > 0
        mean, square = (
            np.divide(moment, moments[0], out=np.full(self.shape, np.nan), where=seen)
            for moment in moments[1:]
        )
        flux = moments[0] * self.spectrograph.flux_unit
        return LineTruth(flux, mean, np.sqrt(np.maximum(square - mean**2, 0.0)))

    def _profiles(self, key: str) -> list[tuple[Float, Float]]:
        return [line_profile(part, key) for part in (self.scene.components if self.scene else ())]

    @property
    def line_keys(self) -> tuple[str, ...]:
        """The emission lines of the scene that lie within the wavelengths, in their order."""
        if self.scene is None:
            return ()
        low, high = convert_medium(self.spectrograph.edges[[0, -1]], self.spectrograph.medium, "vacuum")
        present = []
        for key in default_lines().keys:
            flux = self.scene.line_fluxes(key)
            if np.any(flux):
                centre = np.concatenate([places for places, _ in self._profiles(key)])[flux != 0]
                if centre.min() > low and centre.max() < high:
                    present.append(key)
        return tuple(present)

    def slabs(self) -> Iterator[CubeSlab]:
        """Return the observation in slabs of channels."""
        for channels in self.channel_slabs():
            yield self.slab(channels.start, channels.stop)

    def channel_slabs(self) -> Iterator[slice]:
        """Return consecutive ranges of channels that are made at once."""
        size = max(SLAB_CHANNELS, SLAB_VOXELS // (self.shape[0] * self.shape[1]))
        for start in range(0, self.n_wave, size):
            yield slice(start, min(start + size, self.n_wave))

    def slab(self, start: int, stop: int) -> CubeSlab:
        """Return the channels from ``start`` to ``stop``, the same however a cube is cut into slabs."""
        channels = slice(start, stop)
        truth = self.truth(channels)
        per_photon = (1 / self.spectrograph.electrons[channels]).astype(np.float32)[:, np.newaxis, np.newaxis]
        background = self.background_variance[channels].astype(np.float32)[:, np.newaxis, np.newaxis]
        variance = (self.noise or 1.0) ** 2 * per_photon * np.maximum(truth, 0) + background
        data = truth + _outer(self.residual_spectrum[channels], self.residual_pattern)
        if self.noise:
            unit = CubeNoise.of(self.spectrograph, self.shape, self.seed).draw(start, stop)
            unit *= np.sqrt(variance)
            data += unit
        mask = np.broadcast_to(~self.covered | self.dead, data.shape).copy()
        if self.bad_share:
            for index, plane in enumerate(mask, start=start + self.spectrograph.first):
                generator = np.random.default_rng([self.seed, BAD, index])
                plane |= generator.random(self.shape) < self.bad_share
        data[mask], variance[mask] = np.nan, np.nan
        return CubeSlab(channels, data, variance, mask, truth)

    def _between(self, wave: Float) -> tuple[NDArray[np.int_], Float]:
        """Index of the node below each wavelength, and the share of the next one."""
        place = np.interp(wave, self._nodes, np.arange(self._nodes.size))
        lower = np.minimum(place.astype(int), self._nodes.size - 2)
        return lower, place - lower

    def _painted(self, node: int) -> Single:
        """Shares of the Gaussians' light in the spaxels with the PSF of a node: (n, ny * nx)."""
        if node not in self._shares:
            assert self.scene is not None
            # Channels are asked for in order: two nodes at a time are enough where they are large.
            room = max(1, int(CACHE_BYTES // (4 * len(self.scene) * self.shape[0] * self.shape[1])) - 1)
            for old in sorted(self._shares, key=lambda other: -abs(other - node))[: len(self._shares) - room]:
                del self._shares[old]
            psf = self.spectrograph.psf.at(float(self._nodes[node]))
            scene = self.scene
            shares = paint_each(scene.offsets, scene.covariance, scene.centre, self.wcs, self.shape, psf)
            self._shares[node] = shares.reshape(shares.shape[0], -1)
        return self._shares[node]


def _outer(spectrum: Float, pattern: Float) -> Single:
    return np.multiply.outer(spectrum.astype(np.float32), pattern.astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class CubeObservation:
    """A cube, and everything that is in it.

    Parameters
    ----------
    cube : Cube
        float32, in the unit of the spectrograph, with the true variance, correlation, LSF and PSF; outside the field
        of view and in dead spaxels NaN and masked.
    truth : (n_wave, ny, nx) float32 array
        The scene alone, noise-free, dimmed by the Milky Way where the cube is, without left-over sky, everywhere.
    lines : mapping of key to LineTruth
        Of every emission line within the wavelengths, see `CubeModel.line`.
    model : CubeModel
        How it was made; gives the continuum and further channels.
    """

    cube: Cube
    truth: Single
    lines: Mapping[str, LineTruth]
    model: CubeModel

    @property
    def continuum(self) -> Single:
        """(n_wave, ny, nx) the stars' part of `truth`, computed anew."""
        return self.model.truth(light=("stars",))

    @property
    def sky_residual(self) -> Single:
        """(n_wave, ny, nx) left-over sky in the data."""
        return _outer(self.model.residual_spectrum, self.model.residual_pattern)

    @property
    def noise(self) -> Single:
        """(n_wave, ny, nx) noise in the data; NaN where there are none."""
        return np.asarray(self.cube.data - self.truth - self.sky_residual)


def cube_model(
    scene: Scene | None,
    spectrograph: Spectrograph,
    shape: tuple[int, int],
    *,
    seed: int,
    centre: tuple[float, float] | None = None,
    angle: float = 0.0,
    noise: float = 1.0,
    sky_residuals: bool | SkyResiduals = True,
    dead: int = 0,
    bad_share: float = 0.0,
    field: Field | None = None,
    field_angle: float = 0.0,
    a_v: float = 0.0,
    redshift: float | None = None,
) -> CubeModel:
    """Return an observation that is computed when it is asked for; the parameters are those of `observe_cube`."""
    if seed < 0 or noise < 0 or not 0 <= bad_share < 1:
        raise InputError(
            f"seed {seed}, noise {noise} and bad_share {bad_share} must be >= 0", field="cube_model"
        )
    middle = centre or (scene.centre if scene is not None else (150.0, 2.0))
    wcs = sky_wcs(middle, shape, spectrograph.pixel_scale, angle=angle)
    covered = field_of_view(field or spectrograph.field, shape, field_angle)
    dark = np.zeros(shape, dtype=bool)
    places = np.random.default_rng([seed, BAD]).permutation(np.flatnonzero(covered))[:dead]
    dark.ravel()[places] = True
    if redshift is None:
        redshift = scene.components[0].redshift if scene is not None else 0.0
    residuals = sky_residuals if isinstance(sky_residuals, SkyResiduals) else None
    if sky_residuals is True:
        residuals = SkyResiduals()
    return CubeModel(
        scene, spectrograph, wcs, shape, seed, redshift, 0.0 if spectrograph.corrected else a_v, noise, residuals,
        covered, dark, bad_share,
    )  # fmt: skip


def observe_cube(
    scene: Scene | None,
    spectrograph: Spectrograph,
    shape: tuple[int, int],
    *,
    seed: int,
    centre: tuple[float, float] | None = None,
    angle: float = 0.0,
    noise: float = 1.0,
    sky_residuals: bool | SkyResiduals = True,
    dead: int = 0,
    bad_share: float = 0.0,
    field: Field | None = None,
    field_angle: float = 0.0,
    a_v: float = 0.0,
    redshift: float | None = None,
) -> CubeObservation:
    """Observe a scene with an integral-field spectrograph.

    Parameters
    ----------
    scene : Scene or None
        None: a cube of noise.
    spectrograph : Spectrograph
        `skyloom.mock.cubes.spectrographs.muse`, `manga`, `pmas`, or one of one's own.
    shape : (int, int)
        (ny, nx) spaxels.
    seed : int
        The same seed gives the same observation; a range of wavelengths gives the channels of the whole.
    centre : (float, float), optional
        Right ascension and declination of the middle of the cube, degrees; by default that of the scene.
    angle : float
        Position angle of the y axis, degrees, north through east.
    noise : float
        Factor of the noise's standard deviation; 0: none is drawn, and the variance is that of factor 1.
    sky_residuals : bool or SkyResiduals
        What the subtraction of the sky leaves at its lines.
    dead : int
        Number of spaxels without values.
    bad_share : float
        Share of voxels without a value.
    field : {"square", "circle", "hexagon"}, optional
        Field of view, by default the spectrograph's; outside, the cube is NaN.
    field_angle : float
        By which the field is turned in the array, degrees; a turned square leaves NaN corners as MUSE does.
    a_v : float
        Extinction by the Milky Way, magnitudes (Fitzpatrick 1999, R_V = 3.1). Surveys that correct their cubes
        (`Spectrograph.corrected`) show none of it.
    redshift : float, optional
        To which the lines' velocities are relative, by default that of the scene's first component.

    Notes
    -----
    The variance of a voxel with flux density f is that of sky and detector, plus f per electron, plus the excess at
    sky lines. The noise is its root times stationary Gaussian noise with the spectrograph's correlation.
    """
    model = cube_model(
        scene, spectrograph, shape, seed=seed, centre=centre, angle=angle, noise=noise, sky_residuals=sky_residuals,
        dead=dead, bad_share=bad_share, field=field, field_angle=field_angle, a_v=a_v, redshift=redshift,
    )  # fmt: skip
    whole = (model.n_wave, *shape)
    data, variance, truth = (np.empty(whole, dtype=np.float32) for _ in range(3))
    mask = np.empty(whole, dtype=bool)
    for slab in model.slabs():
        data[slab.channels], variance[slab.channels] = slab.data, slab.variance
        mask[slab.channels], truth[slab.channels] = slab.mask, slab.truth
    lines = {key: model.line(key) for key in model.line_keys}
    cube = Cube(
        data, variance, mask, spectrograph.unit, model.wcs, spectrograph.wave, spectrograph.medium,
        lsf=spectrograph.lsf, psf=spectrograph.psf,
        correlation=CubeCorrelation(spectrograph.spatial_correlation, spectrograph.spectral_correlation),
        meta=cube_meta(model, a_v),
        history=(step("observe_cube", instrument=spectrograph.name, seed=seed),),
    )  # fmt: skip
    return CubeObservation(cube, truth, lines, model)


def cube_meta(model: CubeModel, a_v: float) -> dict[str, Any]:
    """Return what readers put into `Cube.meta`."""
    return {
        "instrument": model.spectrograph.name,
        "object": model.scene.name if model.scene is not None else "noise",
        "redshift": model.redshift,
        "milky_way_corrected": model.spectrograph.corrected,
        "ebv": a_v / 3.1,
    }
