"""Synthetic images: what a camera with a filter would have seen, from a cube.

The flux density of a pixel is the photon-weighted mean of its spectrum over the band, with the errors of the channels,
correlated along wavelength, carried into it. What of the band the cube does not cover is judged by the colour of the
pixel. A cube is read once, in slabs, for any number of bands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.image import Flag, Image, Mode
from skyloom.core.linelist import Medium
from skyloom.core.provenance import step
from skyloom.core.psf import PSF
from skyloom.core.spectral_noise import lag_bands
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import InputError
from skyloom.kernels.spectra.synthetic import add_channels
from skyloom.spectral.bands.synthetic_colour import (
    STEEPEST,
    Colours,
    long_sum_inflation,
    measure_colours,
    move_means,
)
from skyloom.spectral.bands.synthetic_plan import BandPlan, Beyond, plan_band

__all__ = ["CubeSource", "synthetic_image", "synthetic_images"]

Array = NDArray[Any]
Float = NDArray[np.float64]
BLOCK = 2048  # Pixels whose sums stay in the cache.
SLAB_BYTES = 1 << 26
ROUNDING = 1e-6
NOTES = {
    "slope": "the spectrum of each pixel goes on with its slope beyond the axis",
    "constant": "the spectrum of each pixel stays constant beyond the axis",
    "none": "mean over the covered part of the band",
}


class CubeSource(Protocol):
    """What is needed of a cube in a file, such as `skyloom.io.cubes.files.CubeFile`."""

    shape: tuple[int, int, int]
    wave: Float
    medium: str
    unit: u.UnitBase
    wcs: WCS | None
    psf: PSF | None
    correlation: CubeCorrelation | None
    meta: dict[str, Any]

    def read(self, channels: slice) -> Cube:
        """Read a range of channels."""


def synthetic_image(
    cube: Cube,
    bandpass: Bandpass,
    *,
    minimum_coverage: float = 0.5,
    beyond: Beyond = "slope",
    maximum_lost: float = 0.1,
    workers: int | None = None,
) -> Image:
    """Make an image of a cube through a filter.

    Parameters
    ----------
    cube : Cube
        Of flux densities per A.
    bandpass : Bandpass
        Its wavelengths are converted to the medium of the cube.
    minimum_coverage : float
        Least share of the band (of the photons of a flat spectrum) on usable channels.
    beyond : {"slope", "constant", "none"}
        How spectra go on where the band leaves the axis: with the slope of each pixel, without one, or not at all:
        then the image is the mean over the covered part. See Notes.
    maximum_lost : float
        Pixels that lack more than this share of the covered part of the band are masked.
    workers : int, optional
        Threads; by default one per processor.

    Returns
    -------
    Image
        In ``cube.unit``: a flux density per pixel when the cube is one per spaxel. Variance with the correlation of
        the channels; ``correlation`` the spatial one of the cube; ``psf`` that of the cube at the photon-weighted
        mean wavelength. Pixels that lack a part of the band are flagged ``LOW_COVERAGE``. A partly covered band has a
        shared error more, the uncertainty of what lies beyond. ``meta`` has ``band``, ``covered_fraction``,
        ``beyond``, ``correction`` (factor on the mean over the covered part, for the colour of the field),
        ``correction_error`` and ``colour`` (relative slope of the field, per A).

    Raises
    ------
    InputError
        When less of the band is covered than asked, on the axis or on usable channels, or the axis is too short to
        tell a slope.

    Notes
    -----
    f = sum w_i d_i / sum w_i with `Bandpass.mean_weights`, exact for spectra that are linear between channels. The
    covered part, without a pixel's lost voxels, has the mean wavelength l_u, the whole band l_b. A spectrum of slope s
    has the mean f + s (l_b - l_u) in the whole band: this is added (with ``beyond="constant"`` wavelengths beyond the
    axis count as its ends in l_b; with "none" l_b is that of the covered part). It corrects for voxels lost inside the
    band as well. s is the slope between windows at both ends of the band, each the median of five means, drawn to
    that of the field where it is noisy; see `skyloom.spectral.bands.synthetic_colour`. The relative error of the
    correction is the quadrature sum of the difference that a parabola through the field's spectrum would make, of the
    error of its slope, of the missing share times the scatter of the windows (lines, breaks) about that parabola, and
    for "constant" of the difference to "slope". Bands of less than 300 A that are covered need no slope.

    A flux density per A in air is taken for one per A in vacuum: they differ by 0.03 %.
    """
    return synthetic_images(
        cube,
        {bandpass.name: bandpass},
        minimum_coverage=minimum_coverage,
        beyond=beyond,
        maximum_lost=maximum_lost,
        workers=workers,
    )[bandpass.name]


def synthetic_images(
    cube: Cube | CubeSource,
    bandpasses: Mapping[str, Bandpass] | Sequence[Bandpass],
    *,
    minimum_coverage: float = 0.5,
    beyond: Beyond = "slope",
    maximum_lost: float = 0.1,
    slab_bytes: int = SLAB_BYTES,
    workers: int | None = None,
) -> dict[str, Image]:
    """Make images of a cube through several filters in one pass over its channels.

    Parameters
    ----------
    cube : Cube or CubeSource
        A cube in memory, or one in a file (`skyloom.io.cubes.files.open_cube`), of which slabs of channels are read.
    bandpasses : mapping of name to Bandpass, or sequence of Bandpass
        Those of a sequence are known by their own names.
    minimum_coverage, beyond, maximum_lost, workers
        As for `synthetic_image`.
    slab_bytes : int
        Memory for the slab that is read.

    Returns
    -------
    dict of name to Image
        See `synthetic_image`.

    Raises
    ------
    InputError
        As for `synthetic_image`; when two bands have one name or there is none.
    """
    wave, medium = np.asarray(cube.wave, dtype=np.float64), _medium(cube.medium)
    plans = {
        name: plan_band(wave, medium, band, minimum_coverage=minimum_coverage, beyond=beyond)
        for name, band in _named(bandpasses).items()
    }
    spectral = None if cube.correlation is None else cube.correlation.spectral
    pairs = _pairs(spectral, wave.size)
    sums = {name: _Sums.empty(plan, cube.shape, pairs.shape[1]) for name, plan in plans.items()}
    for part, slab in _slabs(cube, list(plans.values()), slab_bytes):
        for name, plan in plans.items():
            if part.start < plan.channels.stop and part.stop > plan.channels.start:
                sums[name].add(plan, part, slab, pairs, workers)
    settings = {"minimum_coverage": minimum_coverage, "beyond": beyond, "maximum_lost": maximum_lost}
    inflation = long_sum_inflation(spectral)
    return {name: _image(cube, plan, sums[name], settings, inflation, name) for name, plan in plans.items()}


def _named(bandpasses: Mapping[str, Bandpass] | Sequence[Bandpass]) -> dict[str, Bandpass]:
    if isinstance(bandpasses, Mapping):
        named = dict(bandpasses)
    else:
        named = {band.name: band for band in bandpasses}
        if len(named) < len(bandpasses):
            names = ", ".join(repr(band.name) for band in bandpasses)
            raise InputError(f"two bands have the same name: {names}", field="bandpasses")
    if not named:
        raise InputError("there is no band to make an image in", field="bandpasses")
    return named


def _medium(medium: str) -> Medium:
    return "air" if medium == "air" else "vacuum"


def _pairs(spectral: Float | None, n_wave: int) -> Float:
    """(n_wave, r) correlation of each channel with the r before it, the nearest first."""
    bands = lag_bands(spectral, n_wave)
    radius = bands.shape[1] // 2
    pairs = np.zeros((n_wave, radius))
    for lag in range(1, min(radius, n_wave - 1) + 1):
        pairs[lag:, lag - 1] = bands[:-lag, radius + lag]
    return pairs


def _slabs(
    cube: Cube | CubeSource, plans: Sequence[BandPlan], slab_bytes: int
) -> Iterator[tuple[slice, Cube]]:
    """Read the channels that some band needs, each once, in ascending order."""
    wanted = np.zeros(cube.shape[0] + 1, dtype=bool)
    for plan in plans:
        wanted[plan.channels] = True
    edges = np.flatnonzero(np.diff(wanted.astype(np.int8), prepend=0))
    per_channel = cube.shape[1] * cube.shape[2] * 9
    most = max(1, slab_bytes // max(1, per_channel))
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        for start in range(first, last, most):
            part = slice(start, min(start + most, last))
            yield part, (_cut(cube, part) if isinstance(cube, Cube) else cube.read(part))


def _cut(cube: Cube, part: slice) -> Cube:
    """Channels of a cube in memory; without what images take from the whole of it."""
    modes = tuple(
        mode._replace(map=mode.map[part]) if isinstance(mode.map, np.ndarray) and mode.map.ndim else mode
        for mode in cube.modes
    )
    return cube.evolve_checked(
        data=cube.data[part], variance=cube.variance[part], mask=cube.mask[part], wave=cube.wave[part],
        flags=None if cube.flags is None else cube.flags[part], modes=modes, lsf=None, correlation=None,
    )  # fmt: skip


@dataclass(slots=True, eq=False)
class _Sums:
    """Sums of one band over the channels so far; the arrays are those of `add_channels`."""

    sums: Float
    windows: Float
    recent: Float
    flags: NDArray[np.uint16] | None
    modes: dict[str, tuple[Float, float]]
    alive: float = 0.0  # Weight of the channels that are usable in some pixel.
    lever: float = 0.0  # The sum of their weights times their distances.

    @classmethod
    def empty(cls, plan: BandPlan, shape: tuple[int, int, int], radius: int) -> _Sums:
        m = shape[1] * shape[2]
        return cls(np.zeros((4, m)), np.zeros((plan.n_windows, 5, m)), np.zeros((radius, m)), None, {})

    def add(self, plan: BandPlan, part: slice, slab: Cube, pairs: Float, workers: int | None) -> None:
        """Add a slab; its pixels are shared out to threads."""
        n = part.stop - part.start
        data, variance, mask = (
            np.ascontiguousarray(plane).reshape(n, -1) for plane in (slab.data, slab.variance, slab.mask)
        )
        weights, distances = plan.weights[part], plan.distances[part]
        parts, near = plan.parts[part], pairs[part]

        def run(pixels: slice) -> None:
            add_channels(
                data, variance, mask, part.start, weights, distances, parts, near, self.recent, self.sums,
                self.windows, pixels.start, pixels.stop,
            )  # fmt: skip

        run_blocks(run, blocks(data.shape[1], BLOCK), workers)
        alive = np.where(mask.all(axis=1), 0.0, weights)
        self.alive += float(alive.sum())
        self.lever += float(alive @ distances)
        self._add_rest(slab, weights, mask)

    def _add_rest(self, slab: Cube, weights: Float, mask: NDArray[np.bool_]) -> None:
        if slab.flags is None and not slab.modes:
            return
        used = ~mask & (weights > 0)[:, np.newaxis]
        if slab.flags is not None:
            if self.flags is None:
                self.flags = np.zeros(mask.shape[1], np.uint16)
            self.flags |= np.bitwise_or.reduce(
                np.where(used, slab.flags.reshape(mask.shape), 0).astype(np.uint16), axis=0
            )
        for mode in slab.modes:
            plane = np.broadcast_to(np.asarray(mode.map, np.float64), slab.shape).reshape(mask.shape)
            total, _ = self.modes.setdefault(mode.name, (np.zeros(mask.shape[1]), mode.sigma))
            total += weights @ np.where(used, plane, 0.0)


def _image(
    cube: Cube | CubeSource,
    plan: BandPlan,
    done: _Sums,
    settings: dict[str, Any],
    inflation: float,
    name: str,
) -> Image:
    """Turn sums into an image, and correct for what is not covered."""
    total, weight, lever, variance = done.sums
    if plan.covered * done.alive < settings["minimum_coverage"] - 1e-9 or not done.alive > 0:
        raise InputError(
            f"usable channels hold {plan.covered * done.alive:.4f} of the band, less than"
            f" {settings['minimum_coverage']}",
            source=name or None,
            field="cube",
            remedy="check the mask of the cube, or give a lower minimum_coverage",
        )
    good = (weight >= (1 - settings["maximum_lost"]) * done.alive) & (weight > 0) & (variance > 0)
    safe = np.where(good, weight, 1.0)
    flux, error = np.where(good, total / safe, 0.0), np.where(good, variance / safe**2, 1.0)
    shift = np.where(good, plan.target - lever / safe, 0.0)
    facts: dict[str, Any] = {"correction": 1.0, "correction_error": 0.0, "colour": None}
    if plan.n_windows:
        windows = done.windows
        windows[:, 4] /= safe
        steepest = STEEPEST / plan.centre
        colours = measure_colours(flux, good, windows, inflation=inflation, steepest=steepest)
        # A pixel with every voxel of a covered band has nothing to correct, not even by rounding.
        shift[np.abs(shift) < ROUNDING * plan.centre] = 0.0
        flux, error = move_means(flux, error, shift, colours)
        facts = _facts(plan, colours, plan.target - done.lever / done.alive, settings["beyond"])
    modes = [
        Mode(key, _plane(np.where(good, plane / safe, 0.0), cube), sigma)
        for key, (plane, sigma) in done.modes.items()
    ]
    if facts["correction_error"] > 0:
        modes.append(Mode(f"beyond {name}".strip(), _plane(flux, cube), facts["correction_error"]))
    flags = _flags(done, good, weight)
    return _assembled(cube, plan, flux, error, good, flags, tuple(modes), facts, settings, name)


def _facts(plan: BandPlan, colours: Colours, shift: float, beyond: str) -> dict[str, Any]:
    """What is said about the correction of the field as a whole."""
    correction = 1.0 + shift * colours.field
    error = 0.0
    if plan.partial and beyond != "none":
        parts = (
            plan.spread * colours.curve,
            (1.0 - plan.covered) * colours.structure,
            shift * colours.field_error,
            (plan.other - plan.target) * colours.field if beyond == "constant" else 0.0,
        )
        error = float(np.linalg.norm(parts) / abs(correction))
    return {"correction": float(correction), "correction_error": error, "colour": float(colours.field)}


def _flags(done: _Sums, good: NDArray[np.bool_], weight: Float) -> NDArray[np.uint16] | None:
    low = good & (weight < (1.0 - ROUNDING) * done.alive)
    if done.flags is None and not low.any():
        return None
    flags = np.zeros(good.size, np.uint16) if done.flags is None else done.flags.copy()
    flags[low] |= np.uint16(Flag.LOW_COVERAGE)
    return flags


def _plane(values: Array, cube: Cube | CubeSource) -> Array:
    return values.reshape(cube.shape[1:])


def _assembled(
    cube: Cube | CubeSource,
    plan: BandPlan,
    flux: Float,
    error: Float,
    good: NDArray[np.bool_],
    flags: NDArray[np.uint16] | None,
    modes: tuple[Mode, ...],
    facts: dict[str, Any],
    settings: dict[str, Any],
    name: str,
) -> Image:
    band = plan.bandpass
    middle = band.to_medium(_medium(cube.medium)).photon_mean
    known = {
        "band": name,
        "pivot": band.to_medium("vacuum").pivot,
        "covered_fraction": plan.covered,
        "beyond": settings["beyond"],
        "beyond_note": NOTES[settings["beyond"]] if plan.partial else "the band is covered",
        **facts,
    }
    path = {"path": str(cube.meta["path"])} if "path" in cube.meta else {}
    record = step("synthetic_image", band=name, **path, **settings, covered=plan.covered, **facts)
    wcs = cube.wcs if cube.wcs is None or cube.wcs.naxis == 2 else cube.wcs.celestial
    return Image(
        _plane(np.where(good, flux, np.nan), cube),
        _plane(np.where(good, error, np.nan), cube),
        _plane(~good, cube),
        cube.unit,
        wcs,
        psf=None if cube.psf is None else cube.psf.at(middle),
        correlation=None if cube.correlation is None else cube.correlation.spatial,
        flags=None if flags is None else _plane(flags, cube),
        modes=modes,
        meta={**cube.meta, **known},
        history=(*getattr(cube, "history", ()), record),
    )
