"""The wavelengths that all spectra of a store share, and how one spectrum gets there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Mode
from skyloom.core.linelist import air_to_vacuum
from skyloom.core.provenance import step as record_step
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands
from skyloom.errors import ShapeError
from skyloom.kernels.spectra.pyramid import largest_lags, regrid_beside, regrid_spectrum
from skyloom.spectral.axes.grids import Overlap, overlap, pixel_edges, regular_grid
from skyloom.spectral.axes.resample import pixel_broadening, resample_mode
from skyloom.store.observation import Level
from skyloom.store.schema import CommonGrid

__all__ = ["common_wave", "level_edges", "on_common_grid", "regrid", "rows", "trimmed"]

Array = NDArray[Any]
Float = NDArray[np.float64]
ALIGNED = 1e-3  # Pixels: grids that differ by less are the same one, 0.07 km/s on that of SDSS.
LOST_LAGS = 0.01  # Share of a pixel's correlations that may be left out, as everywhere.


class _Plan(NamedTuple):
    """How one grid of wavelengths lies on the common one."""

    wave: Float  # In vacuum.
    scale: Float  # Width of each pixel in its own medium over that in vacuum.
    shares: Overlap
    aligned: bool  # Its pixels are pixels of the common grid.
    reach: int  # Pixels of the common grid further apart share no noise.
    reached: bool  # Some pixel of the common grid is covered.
    nearest: NDArray[np.int64]  # Of each pixel the nearest that is covered.
    broadening: Float  # What the square of the LSF grows by, A^2.


@lru_cache(maxsize=64)
def common_wave(grid: CommonGrid, level: int = 0) -> Float:
    """Return the wavelengths of the common grid.

    Parameters
    ----------
    grid : CommonGrid
    level : int
        Level z has pixels of 2^z pixels of level 0, the first of which begins where the grid begins.

    Returns
    -------
    (n_wave,) float64 array, not to be written to
        Centres in A, vacuum: at level 0 all 10^(step * integer) whose pixels lie wholly between start and stop; of
        coarser pixels in the middle of the logarithm.
    """
    edges = level_edges(grid, level)
    wave = np.sqrt(edges[1:] * edges[:-1]) if level else _finest(grid)
    wave.flags.writeable = False
    return wave


def _finest(grid: CommonGrid) -> Float:
    return regular_grid(np.array([grid.start, grid.stop]), grid.step, "log")


@lru_cache(maxsize=64)
def level_edges(grid: CommonGrid, level: int = 0) -> Float:
    """Return where the pixels of a level begin and end, (n_wave + 1,) in A; the last may reach beyond the grid."""
    finest = _finest(grid)
    start = round(float(np.log10(finest[0])) / grid.step)
    n_wave = -(-finest.size // 2**level)
    edges = 10.0 ** (grid.step * (start - 0.5 + 2**level * np.arange(n_wave + 1)))
    edges.flags.writeable = False
    return np.asarray(edges)


def rows(spectra: Spectra) -> Iterator[Spectra]:
    """Yield spectra one by one, each with its own LSF, flags, modes and entries of ``meta``.

    An entry of ``meta`` that is an array or a list with one element per spectrum is taken apart.
    """
    n = spectra.data.shape[0]
    if n == 1:
        yield spectra
        return
    lsf = spectra.lsf
    for i in range(n):
        part = slice(i, i + 1)
        yield spectra.evolve_checked(
            data=spectra.data[part],
            variance=spectra.variance[part],
            mask=spectra.mask[part],
            flags=None if spectra.flags is None else spectra.flags[part],
            lsf=lsf[part] if isinstance(lsf, np.ndarray) and lsf.ndim == 2 else lsf,
            modes=tuple(
                mode._replace(map=mode.map[part]) if isinstance(mode.map, np.ndarray) else mode
                for mode in spectra.modes
            ),
            meta={key: value[i] if _per_row(value, n) else value for key, value in spectra.meta.items()},
        )


def _per_row(value: object, n: int) -> bool:
    return isinstance(value, (list, np.ndarray)) and np.ndim(value) > 0 and len(value) == n


def on_common_grid(spectrum: Spectra, grid: CommonGrid) -> Level[Spectra] | None:
    """Bring one spectrum to the common grid.

    Parameters
    ----------
    spectrum : Spectra
        One spectrum, flux densities per unit of wavelength.
    grid : CommonGrid

    Returns
    -------
    Level or None
        Spectra (1, n_wave) over the whole common grid, float32, in vacuum: mean flux density over each pixel, so that
        ``sum(data * width)`` is conserved; exact variance; lags (n_wave, k) of this spectrum's own covariance, None
        where its pixels are independent. Masked: pixels that touch a masked one or are not wholly covered. Flags: those
        of all pixels touched. LSF in A, (n_wave,). None when no pixel of the common grid is covered.

    Raises
    ------
    ShapeError
        When there is more than one spectrum.

    Notes
    -----
    ``d' = W d`` and covariance ``W C W^T`` as in `skyloom.spectral.axes.resample.resample`, but with ``C`` from this
    spectrum's own variance, not a typical one. A grid that agrees with the common one within 1e-3 pixels is copied, so
    spectra of SDSS stay as they are. Air: the edges of the pixels are brought to vacuum, and as
    flux is conserved the flux densities become smaller by the ratio of the widths, 0.028 %.
    """
    found = regrid(spectrum, grid)
    return None if found is None else found[0]


def regrid(spectrum: Spectra, grid: CommonGrid) -> tuple[Level[Spectra], Float] | None:
    """Do what `on_common_grid` does, and return all lags, (n_wave, k), beside those that matter."""
    if spectrum.data.shape[0] != 1:
        raise ShapeError(
            f"there are {spectrum.data.shape[0]} spectra; one at a time has its own correlation",
            field="spectrum",
            remedy="loop over skyloom.store.levels.common_grid.rows(spectra)",
        )
    radius = 0 if spectrum.correlation is None else spectrum.correlation.shape[-1] // 2
    plan = _plan(spectrum.wave.tobytes(), spectrum.medium, grid, radius)
    if not plan.reached:
        return None
    wave = common_wave(grid)
    data, variance = np.empty((1, wave.size), np.float32), np.empty((1, wave.size), np.float32)
    mask, lags = np.empty((1, wave.size), bool), np.zeros((wave.size, 2 * plan.reach + 1))
    regrid_spectrum(
        spectrum.data[0], spectrum.variance[0], spectrum.mask[0], plan.scale, plan.shares.first,
        plan.shares.weights, lag_bands(spectrum.correlation, spectrum.wave.size), data[0], variance[0], mask[0], lags,
    )  # fmt: skip
    record = record_step(
        "on_common_grid", start=grid.start, stop=grid.stop, step=grid.step, medium=spectrum.medium,
        copied=plan.aligned, n_masked=int(np.count_nonzero(mask)),
    )  # fmt: skip
    moved = spectrum.evolve_checked(
        record, data=data, variance=variance, mask=mask, wave=wave, medium="vacuum", correlation=trimmed(lags),
        **_beside(spectrum, plan),
    )  # fmt: skip
    return Level(moved, (~mask).astype(np.uint16)), lags


def _beside(spectrum: Spectra, plan: _Plan) -> dict[str, Any]:
    """Return what goes with the values: LSF, flags and modes."""
    if spectrum.lsf is None and spectrum.flags is None and not spectrum.modes:
        return {}
    n_out = plan.shares.first.size
    squares = np.empty(0)
    if spectrum.lsf is not None:
        lsf = np.asarray(spectrum.lsf, dtype=np.float64)
        squares = np.square((lsf[0] if lsf.ndim == 2 else lsf) / plan.scale)
    flags = np.empty(0, np.uint16) if spectrum.flags is None else spectrum.flags[0]
    out_squares, out_flags = np.empty(n_out), np.empty((1, n_out), np.uint16)
    regrid_beside(squares, flags, plan.shares.first, plan.shares.weights, out_squares, out_flags[0])
    changes: dict[str, Any] = {}
    if squares.size:
        changes["lsf"] = np.sqrt(out_squares[plan.nearest] + plan.broadening)
    if flags.size:
        changes["flags"] = out_flags
    changes["modes"] = tuple(_moved_mode(mode, spectrum, plan) for mode in spectrum.modes)
    return changes


def _moved_mode(mode: Mode, spectrum: Spectra, plan: _Plan) -> Mode:
    if np.ndim(mode.map) == 0:
        return mode
    plane = np.asarray(mode.map)
    return resample_mode(mode._replace(map=(plane * plan.scale).astype(plane.dtype)), spectrum, plan.shares)


def trimmed(lags: Float) -> Float | None:
    """Cut lags to those that matter (all but 1 % of their sum); None where none is left."""
    radius = lags.shape[1] // 2
    sizes = largest_lags(lags)
    lost = 2.0 * np.cumsum(sizes[::-1])[::-1]
    kept = int(np.count_nonzero(lost > LOST_LAGS))
    return None if kept == 0 else np.ascontiguousarray(lags[:, radius - kept : radius + kept + 1])


@lru_cache(maxsize=16)
def _plan(key: bytes, medium: str, grid: CommonGrid, radius: int) -> _Plan:
    """Return how the grid with these bytes lies on the common one; spectra of one instrument often share it."""
    given = np.frombuffer(key, dtype=np.float64)
    wave, scale = given, np.ones(given.size)
    copies = _copies(given, grid) if medium == "vacuum" else None
    if copies is None:
        edges = pixel_edges(given)
        if medium == "air":
            in_vacuum = air_to_vacuum(edges)
            wave, scale = air_to_vacuum(given), np.diff(edges) / np.diff(in_vacuum)
            edges = in_vacuum
        shares = overlap(edges, level_edges(grid))
        reach = _reach(shares, radius)
    else:
        shares, reach = copies, radius
    covered = np.flatnonzero(shares.complete)
    if covered.size == 0:
        return _Plan(wave, scale, shares, False, reach, False, covered, np.empty(0))
    if copies is None:
        nearest, broadening = pixel_broadening(wave, shares, common_wave(grid))
    else:
        nearest, broadening = np.clip(np.arange(shares.first.size), covered[0], covered[-1]), np.zeros(1)
    return _Plan(wave, scale, shares, copies is not None, reach, True, nearest, broadening)


def _copies(wave: Float, grid: CommonGrid) -> Overlap | None:
    """Return which pixels are pixels of the common grid; None when they lie otherwise."""
    target = common_wave(grid)
    index = (np.log10(wave) - np.log10(target[0])) / grid.step
    whole = np.round(index)
    if np.max(np.abs(index - whole)) > ALIGNED or np.any(np.diff(whole) != 1):
        return None
    channel = np.arange(target.size) - int(whole[0])
    inside = (channel >= 0) & (channel < wave.size)
    first = np.where(inside, channel, 0).astype(np.int64)
    return Overlap(first, inside[:, np.newaxis].astype(np.float64))


def _reach(shares: Overlap, radius: int) -> int:
    """Return how far apart two pixels can be that touch the same or correlated ones."""
    used = shares.weights > 0
    covered = used.any(axis=1)
    taps = used.shape[1]
    low = (shares.first + np.argmax(used, axis=1))[covered]
    high = (shares.first + taps - 1 - np.argmax(used[:, ::-1], axis=1))[covered]
    reach = 0
    while reach + 1 < low.size and np.any(high[: -reach - 1] + radius >= low[reach + 1 :]):
        reach += 1
    return reach
