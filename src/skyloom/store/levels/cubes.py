"""Cubes at coarser and coarser resolutions, on the sky and along wavelength."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.provenance import step
from skyloom.core.units import is_per_area
from skyloom.errors import InputError
from skyloom.spectral.axes.grids import pixel_edges
from skyloom.spectral.axes.resample import typical_variance
from skyloom.store.levels.image_noise import coarse_correlation, coarse_lags, neighbour_lags, pair_lags
from skyloom.store.levels.image_planes import Planes, block_mean, halved, level_count
from skyloom.store.levels.image_psf import coarse_psf
from skyloom.store.levels.image_wcs import coarse_wcs
from skyloom.store.levels.single_precision import in_single_precision
from skyloom.store.observation import Level

__all__ = ["cube_levels", "paired_wave"]

Float = NDArray[np.float64]


def cube_levels(cube: Cube, n_levels: int) -> tuple[Level[Cube], ...]:
    """Make a cube at several resolutions.

    Parameters
    ----------
    cube : Cube
    n_levels : int
        Resolutions wanted, level 0 included. Levels of which one side, or the axis of wavelength, would have fewer than
        4 pixels are not made.

    Returns
    -------
    tuple of Level
        A voxel of level z is a block of ``2^z`` pixels on each side and ``2^z`` channels. As for
        `skyloom.store.levels.images.image_levels`: sums over the sky of fluxes per pixel, means of brightnesses; along
        wavelength always the mean, since values are densities there.

    Notes
    -----
    The noise is taken as separable, as the cube says: ``rho(x, y) rho(channel)``. Lags of their own for each channel
    stay exact for the typical variance of the channels. Wavelengths are those of the middles of pairs of channels,
    geometric where the channels are logarithmic. The LSF of an averaged channel holds its larger pixel,
    ``sigma'^2 = <sigma^2> + <(wave_i - wave')^2>``.

    Raises
    ------
    InputError
        When fewer than one level is wanted, or the correlation leaves no noise in a block.
    """
    if n_levels < 1:
        raise InputError(f"n_levels is {n_levels}; expected 1 or more", field="n_levels")
    base = in_single_precision(cube)
    area = 1.0 if is_per_area(base.unit) else 4.0
    n_good = (~base.mask).view(np.uint8)
    planes = Planes(base.data, base.variance, base.mask, n_good, base.flags, base.modes)
    levels = [Level(base, planes.n_good)]
    spatial = None if base.correlation is None else base.correlation.spatial
    for level in range(1, level_count(base.shape, n_levels)):
        before = levels[-1].subject
        lags = None if before.correlation is None else before.correlation.spectral
        pairs = pair_lags(lags, before.wave.size)
        coarse = halved(planes, neighbour_lags(spatial, level - 1), pairs, 2, area)
        noise = CubeCorrelation(coarse_correlation(spatial, level), _lags(before, lags))
        levels.append(Level(_cube(base, before, planes, coarse, noise, level), coarse.n_good))
        planes = coarse
    return tuple(levels)


def _cube(base: Cube, before: Cube, fine: Planes, coarse: Planes, noise: CubeCorrelation, level: int) -> Cube:
    wave = paired_wave(before.wave)
    return base.evolve_checked(
        step("coarsen", level=level, source_shape=list(base.shape)),
        data=coarse.data,
        variance=coarse.variance,
        mask=coarse.mask,
        wcs=coarse_wcs(base.wcs, level),
        wave=wave,
        lsf=_paired_lsf(before, wave, fine),
        psf=coarse_psf(base.psf, level),
        correlation=None if all(part is None for part in noise) else noise,
        flags=coarse.flags,
        modes=coarse.modes,
    )


def paired_wave(wave: Float) -> Float:
    """Return the middles of pairs of channels; of a last one without a partner, where the pair would have had it.

    The middle of a pair is the edge between its channels, geometric for logarithmic grids (`pixel_edges`).
    """
    if wave.size % 2:
        # Edges of the last channel alone: its upper one is the middle of the missing pair.
        return np.ascontiguousarray(pixel_edges(wave)[1::2])
    return np.ascontiguousarray(pixel_edges(wave)[1:-1:2])


def _paired_lsf(cube: Cube, wave: Float, planes: Planes) -> Float | None:
    """Return the LSF of means over pairs of channels: averaged, and widened by the distance of the two."""
    if cube.lsf is None:
        return None
    sigma = np.asarray(cube.lsf, dtype=np.float64)
    starts = np.arange(0, cube.wave.size, 2)
    middle = np.repeat(wave, 2)[: cube.wave.size]
    share = np.diff(np.append(starts, cube.wave.size))
    moment = np.add.reduceat((cube.wave - middle) ** 2, starts) / share
    if sigma.ndim < 2:
        squares = np.broadcast_to(sigma**2, cube.wave.shape)
        return np.sqrt(np.add.reduceat(squares, starts) / share + moment)
    squares = block_mean(sigma**2, planes.n_good, 2, 1.0).astype(np.float64)
    return np.sqrt(squares + moment[:, np.newaxis, np.newaxis])


def _lags(cube: Cube, lags: Float | None) -> Float | None:
    if lags is None:
        return None
    # Only lags of their own for each channel depend on how the variance changes between channels.
    return coarse_lags(lags, cube.wave if lags.ndim == 1 else typical_variance(cube))
