"""The noise of one window of channels: residuals from a smooth continuum, and the products of their neighbours.

A polynomial along wavelength takes the continuum off each spaxel; what many spaxels have in common (stellar features,
sky residuals) is taken off across the field. Both are projections, which lower the variance and correlate what is left.
How they act on noise of a given covariance is known, so that `skyloom.spectral.noise.measure` can solve for the
covariance before them. ``docs/design/cube_noise.md`` derives the equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.kernels.bins.extract import lag_products

__all__ = ["MIN_CHANNELS", "MIN_SPAXELS", "WindowLags", "lag_response", "measure_window"]

Array = NDArray[Any]
Float = NDArray[np.float64]
DEGREE = 3
MIN_CHANNELS = 20  # A polynomial of degree 3 takes a fifth of the variance of so few.
MIN_SPAXELS = 30
COMPLETE = 0.7  # Spaxels with fewer usable channels in the window say little and cost accuracy.
CLIP = 5.0
REJECT = 4.0  # Channels whose variance stands out by so many of its errors hold lines or sky residuals;
TOLERANCE = 0.1  # so much more is granted to a variance plane that is off from channel to channel.
MANY_CLIPPED = 0.003  # Noise loses one voxel in a million to the clip, cosmic rays some more, lines many.
LOUD = 2.5  # Spaxels with so many times the median variance hold more than noise.
SAMPLE = 200_000
CHUNK = 512  # Spaxels whose arrays stay in the cache, and too few for threads of the matrix product to be worth it.
SPATIAL_VOXELS = 600_000  # More in one window make the lags across the field no better known than is needed.
FILLS = (
    8  # What is missing after so many is the share of the fit in the missing channels to the eighth power.
)
GRADIENT_SPAXELS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class WindowLags:
    """Sums of products of residuals in one window, and what would be expected of them.

    Parameters
    ----------
    wave : float
        Mean wavelength of the channels used, in A.
    spatial_sums : (k, k) array
        Sum over pairs of spaxels of the products of normalised residuals, at each spatial lag.
    spatial_pairs : (k, k) array
        Number of these pairs.
    pattern_lags : (p, k, k) array
        Autocorrelation of the p orthonormal patterns taken off across the field.
    spectral_sums : (m,) array
        The same sum over pairs of channels at lag 0, 1, ... m - 1.
    spectral_response : (m, m) array
        ``[l, j]``: the sum expected at lag l for noise of covariance 1 at lag j (and -j) and 0 elsewhere.
    n_planes : int
        Channels that the spatial sums run over.
    n_channels, n_spaxels, n_voxels : int
        What was used.
    """

    wave: float
    spatial_sums: Float
    spatial_pairs: Float
    pattern_lags: Float
    spectral_sums: Float
    spectral_response: Float
    n_planes: int
    n_channels: int
    n_spaxels: int
    n_voxels: int


@dataclass(slots=True, eq=False)
class _Block:
    """The channels and spaxels in use: (c, s) arrays, spaxels in a row."""

    flux: Array
    spread: Array
    used: NDArray[np.bool_]
    channels: NDArray[np.intp]  # (c,) positions on the wavelength axis
    spaxels: NDArray[np.intp]  # (s,) flat positions in the field

    def keep(self, channels: NDArray[np.bool_], spaxels: NDArray[np.bool_]) -> _Block:
        both = np.ix_(channels, spaxels)
        return _Block(
            self.flux[both],
            self.spread[both],
            self.used[both],
            self.channels[channels],
            self.spaxels[spaxels],
        )

    @property
    def enough(self) -> bool:
        return self.channels.size >= MIN_CHANNELS and self.spaxels.size >= MIN_SPAXELS


def measure_window(
    cube: Cube,
    where: slice,
    line_free: NDArray[np.bool_],
    spaxels: NDArray[np.bool_],
    radius: int,
    spectral_radius: int,
) -> WindowLags | None:
    """Measure the noise in the channels ``where``; None when too little of them can be used.

    Parameters
    ----------
    cube : Cube
    where : slice
        Contiguous channels.
    line_free : (n_wave,) bool array
    spaxels : (ny, nx) bool array
    radius, spectral_radius : int
        Largest lags.
    """
    block = _read_block(cube, where, line_free, spaxels)
    for last in (False,) * 5 + (True,):
        block = block.keep(*_complete(block.used))
        if not block.enough:
            return None
        residual, used, patterns = _residuals(block, cube.shape[2])
        quiet, calm = _quiet_channels(residual, used, block.used), _calm_spaxels(residual, used)
        if last or (quiet.all() and calm.all()):
            break
        block = block.keep(quiet, calm)
    block.used = used
    return _collect(cube, block, residual, patterns, radius, spectral_radius)


def _read_block(cube: Cube, where: slice, line_free: NDArray[np.bool_], spaxels: NDArray[np.bool_]) -> _Block:
    channels = np.flatnonzero(line_free[where]) + where.start
    places = np.flatnonzero(spaxels)

    def flat(plane: Array) -> Array:
        rows = np.empty((channels.size, places.size), plane.dtype)
        for row, channel in zip(rows, channels, strict=True):
            row[:] = plane[channel][spaxels]
        return rows

    used = ~flat(cube.mask)
    flux = np.where(used, flat(cube.data), 0.0)
    spread = np.sqrt(np.where(used, flat(cube.variance), 1.0), dtype=np.float64)
    # In units of a typical error all of it fits float32, whatever the unit of the cube.
    typical = float(np.median(spread[used])) if used.any() else 1.0
    return _Block(
        (flux / typical).astype(np.float32), (spread / typical).astype(np.float32), used, channels, places
    )


def _complete(used: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Channels and spaxels of which enough is usable."""
    if used.size == 0:
        return np.zeros(used.shape[0], bool), np.zeros(used.shape[1], bool)
    alive = used.any(axis=0)
    channels = used.sum(axis=1) >= 0.5 * max(1, int(np.count_nonzero(alive)))
    spaxels = used[channels].sum(axis=0) >= COMPLETE * max(1, int(np.count_nonzero(channels)))
    return channels, spaxels


def _residuals(block: _Block, nx: int) -> tuple[Array, NDArray[np.bool_], Array]:
    """Normalised residuals (c, s), 0 where clipped; which are used; and the patterns (s, p) taken off."""
    continuum = _fit_continuum(block)
    residual = (block.flux - continuum) / block.spread
    used = block.used & (np.abs(residual) <= CLIP * _scatter(residual, block.used))
    residual[~used] = 0.0
    patterns = _common_patterns(block, continuum, nx)
    residual -= np.einsum("cp,sp->cs", np.einsum("cs,sp->cp", residual, patterns), patterns)
    residual[~used] = 0.0
    return residual, used, patterns


def _basis(channels: NDArray[np.intp]) -> Float:
    middle, half = (channels[0] + channels[-1]) / 2, max(1.0, (channels[-1] - channels[0]) / 2)
    return np.asarray(legvander((channels - middle) / half, DEGREE))


def _fit_continuum(block: _Block) -> Array:
    """Polynomial of each spaxel, from its used channels without outliers."""
    basis = _basis(block.channels)
    inverse = np.linalg.pinv(basis).astype(np.float32)
    fit = np.empty_like(block.flux)
    for first in range(0, block.spaxels.size, CHUNK):
        part = slice(first, first + CHUNK)
        fit[:, part] = _fit_chunk(
            block.flux[:, part], block.spread[:, part], block.used[:, part], basis.astype(np.float32), inverse
        )
    return fit


def _fit_chunk(flux: Array, spread: Array, usable: NDArray[np.bool_], basis: Array, inverse: Array) -> Array:
    """Fit some spaxels; what is unused or stands out is filled with the fit until it rests."""
    used = usable
    fit = np.broadcast_to((flux * used).sum(axis=0) / np.maximum(used.sum(axis=0), 1), used.shape)
    for turn in range(FILLS):
        fit = basis @ (inverse @ np.where(used, flux, fit))
        if turn in (1, 3):
            residual = (flux - fit) / spread
            used = usable & (np.abs(residual) <= CLIP * _scatter(residual, usable))
            # Nothing is filled in: the fit is the one of least squares already.
            if used.all():
                break
    return fit


def _scatter(residual: Array, used: NDArray[np.bool_]) -> float:
    values = residual[used]
    values = values[:: max(1, values.size // SAMPLE)]
    return 1.4826 * float(np.median(np.abs(values))) if values.size else 1.0


def _common_patterns(block: _Block, continuum: Array, nx: int) -> Array:
    """Orthonormal patterns (s, p) across the field that spectra in common follow.

    A spectrum that all spaxels share (a sky residual) is a constant, stellar features follow the continuum; in large
    fields also its gradients, because features shift with the velocity field. All in units of each spaxel's error.
    """
    error = block.spread.mean(axis=0, dtype=np.float64)
    light = continuum.mean(axis=0, dtype=np.float64)
    columns = [1.0 / error, light / error]
    if block.spaxels.size >= GRADIENT_SPAXELS:
        y, x = np.divmod(block.spaxels, nx)
        columns += [light / error * (place - place.mean()) for place in (y, x)]
    matrix = np.stack(columns, axis=1)
    lengths = np.linalg.norm(matrix, axis=0)
    left, values, _ = np.linalg.svd(matrix / np.where(lengths > 0, lengths, 1.0), full_matrices=False)
    return np.asarray(left[:, values > 1e-3], dtype=np.float32)


def _quiet_channels(residual: Array, used: NDArray[np.bool_], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Channels of which few voxels were clipped and whose scatter does not stand out, alone or with neighbours."""
    counts = used.sum(axis=1)
    clipped = usable.sum(axis=1) - counts
    power = np.einsum("cs,cs->c", residual, residual, dtype=np.float64) / np.maximum(counts, 1)
    bad = clipped > np.maximum(2, MANY_CLIPPED * counts)
    for width in (1, 3, 7):
        box = np.ones(width)
        mean = np.convolve(power, box, "same") / np.convolve(np.ones(power.size), box, "same")
        # The channels say themselves how far such means scatter: by more, where spaxels are correlated.
        error = 1.4826 * np.median(np.abs(mean - np.median(mean)))
        bad |= mean > np.median(power) * (1.0 + TOLERANCE) + REJECT * error
    # What stands out has wings that do not.
    return ~np.convolve(bad, np.ones(5), "same").astype(bool)


def _calm_spaxels(residual: Array, used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Spaxels whose scatter along wavelength is not far above that of the others."""
    power = np.einsum("cs,cs->s", residual, residual, dtype=np.float64) / np.maximum(used.sum(axis=0), 1)
    return np.asarray(power <= LOUD * np.median(power))


def _collect(
    cube: Cube, block: _Block, residual: Array, patterns: Array, radius: int, spectral_radius: int
) -> WindowLags:
    """Sum the products of the residuals at each lag."""
    _, ny, nx = cube.shape

    def planes(rows: Array) -> Array:
        field = np.zeros((rows.shape[0], ny * nx), np.float32)
        field[:, block.spaxels] = rows
        return field.reshape(-1, ny, nx)

    sums, response = _spectral_lags(block, residual, spectral_radius)
    n_voxels = int(np.count_nonzero(block.used))
    some = slice(None, None, 1 + n_voxels // SPATIAL_VOXELS)
    return WindowLags(
        wave=float(cube.wave[block.channels].mean()),
        spatial_sums=lag_products(planes(residual[some]), radius),
        spatial_pairs=np.rint(lag_products(planes(block.used[some]), radius)),
        pattern_lags=np.stack([lag_products(planes(pattern[None]), radius) for pattern in patterns.T]),
        spectral_sums=sums,
        spectral_response=response,
        n_planes=block.channels[some].size,
        n_channels=block.channels.size,
        n_spaxels=block.spaxels.size,
        n_voxels=n_voxels,
    )


def _spectral_lags(block: _Block, residual: Array, radius: int) -> tuple[Float, Float]:
    """Sums of products along wavelength, and the sums that unit covariance at each lag would give."""
    channels = block.channels
    n = int(channels[-1] - channels[0]) + 1
    place = channels - channels[0]
    rows, used = np.zeros((n, residual.shape[1]), np.float32), np.zeros((n, residual.shape[1]), bool)
    rows[place], used[place] = residual, block.used
    basis, error = _basis(channels), np.median(block.spread, axis=1).astype(np.float64)
    # The polynomial is fitted to fluxes, the residuals are divided by their errors afterwards.
    filtered = (np.eye(place.size) - basis @ np.linalg.pinv(basis)) * error[None, :] / error[:, None]
    projection = np.zeros((n, n))
    projection[np.ix_(place, place)] = filtered
    lags = range(min(radius, n - 1) + 1)
    sums = np.zeros(radius + 1)
    for lag in lags:
        sums[lag] = np.einsum("cs,cs->", rows[: n - lag], rows[lag:], dtype=np.float64)
    pairs = [np.count_nonzero(used[: n - lag] & used[lag:], axis=1) for lag in lags]
    return sums, lag_response(projection, pairs, radius)


def lag_response(projection: Float, pairs: list[NDArray[np.intp]], radius: int) -> Float:
    """Return what the sums of products at each lag are on average, for noise of covariance 1 at one lag.

    Parameters
    ----------
    projection : (n, n) array
        What was done to the noise.
    pairs : list of (n - lag,) arrays
        How often channel i was multiplied with channel i + lag.
    radius : int

    Returns
    -------
    (radius + 1, radius + 1) array
        ``[l, m] = sum_i pairs_l[i] (P T_m P^T)[i, i + l]``, with T_m the matrix of ones where abs(i - j) = m.
    """
    n = projection.shape[0]
    response = np.zeros((radius + 1, radius + 1))
    for lag in range(len(pairs)):
        unit = np.eye(n, k=lag) if lag == 0 else np.eye(n, k=lag) + np.eye(n, k=-lag)
        projected = projection @ unit @ projection.T
        for other, number in enumerate(pairs):
            response[other, lag] = np.sum(number * np.diagonal(projected, other))
    return response
