"""A spectrum at every resolution: as observed, on the common grid, and halved again and again with its covariance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Mode
from skyloom.core.provenance import step as record_step
from skyloom.core.spectra import Spectra
from skyloom.kernels.spectra.pyramid import halve_beside, halve_spectrum
from skyloom.store.levels.common_grid import common_wave, level_edges, regrid, trimmed
from skyloom.store.levels.single_precision import in_single_precision
from skyloom.store.observation import Level
from skyloom.store.schema import CommonGrid, StoreSettings

__all__ = ["spectrum_levels"]

Array = NDArray[Any]
Float = NDArray[np.float64]


def spectrum_levels(
    spectrum: Spectra, settings: StoreSettings | None = None
) -> tuple[Level[Spectra], tuple[Level[Spectra], ...]]:
    """Make all that a store keeps of one spectrum.

    Parameters
    ----------
    spectrum : Spectra
        One spectrum, flux densities per unit of wavelength.
    settings : StoreSettings, optional
        The common grid and the number of levels.

    Returns
    -------
    native : Level
        The spectrum as it is, in float32. Values too small for the variance to fit are given in another power of ten
        of their unit.
    levels : tuple of Level
        Level 0 on the common grid (see `skyloom.store.levels.common_grid.on_common_grid`), each further one of half
        as many pixels; empty when no pixel of the common grid is covered.

    Raises
    ------
    ShapeError
        When there is more than one spectrum.

    Notes
    -----
    A pixel of level z is the mean flux density over the good pixels of level 0 in it, ``sum(w_i d_i) / sum(w_i)``
    with their widths w; masked only where none is good. Variances and lags are those of that sum, from the lags of
    the level before, exactly. ``n_good`` counts the pixels of level 0. Flags and modes are of the good pixels. The
    LSF is that of the sampled values: its square is the mean over the pair, plus the square of half a pixel of the
    level before.
    """
    settings = StoreSettings() if settings is None else settings
    single = in_single_precision(spectrum)
    native = Level(single, (~single.mask).astype(np.uint16))
    found = regrid(single, settings.common_grid)
    if found is None:
        return native, ()
    finest, lags = found
    levels = [finest]
    width = np.where(finest.subject.mask[0], 0.0, np.diff(level_edges(settings.common_grid)))
    for level in range(1, settings.levels):
        coarser, width, lags = _halve(levels[-1], width, lags, settings.common_grid, level)
        levels.append(coarser)
    return native, tuple(levels)


def _halve(
    level: Level[Spectra], width: Float, lags: Float, grid: CommonGrid, number: int
) -> tuple[Level[Spectra], Float, Float]:
    """Return the next level, the good wavelengths behind each of its pixels, and all lags."""
    subject = level.subject
    wave = common_wave(grid, number)
    m = wave.size
    reach = (lags.shape[1] // 2 + 1) // 2
    data, variance = np.empty((1, m), np.float32), np.empty((1, m), np.float32)
    mask, fewer, behind = np.empty((1, m), bool), np.zeros((m, 2 * reach + 1)), np.empty(m)
    halve_spectrum(
        subject.data[0], subject.variance[0], width, lags, data[0], variance[0], behind, mask[0], fewer
    )
    n_good = np.empty((1, m), np.uint16)
    beside = _beside(level, mask[0], level_edges(grid, number), n_good[0])
    # One step says how often it was halved.
    history = subject.history if number == 1 else subject.history[:-1]
    halved = subject.evolve_checked(
        record_step("halve_spectrum", level=number), history=history, data=data, variance=variance, mask=mask,
        wave=wave, correlation=trimmed(fewer), modes=tuple(_halved_mode(mode, width, behind) for mode in subject.modes),
        **beside,
    )  # fmt: skip
    return Level(halved, n_good), behind, fewer


def _beside(level: Level[Spectra], mask: Array, edges: Float, n_good: Array) -> dict[str, Any]:
    """Return the LSF and the flags of the next level, and count its pixels of level 0."""
    subject = level.subject
    squares = np.empty(0) if subject.lsf is None else np.square(subject.lsf)
    flags = np.empty(0, np.uint16) if subject.flags is None else subject.flags[0]
    out_squares, out_flags = np.empty(mask.size), np.empty((1, mask.size), np.uint16)
    halve_beside(squares, flags, level.n_good[0], mask, out_squares, out_flags[0], n_good)
    if squares.size:
        # The pixels of the level before are half as wide, and their centres half of that from the new one.
        out_squares += np.square(0.25 * (edges[1:] - edges[:-1]))
    return {
        "lsf": np.sqrt(out_squares) if squares.size else None,
        "flags": out_flags if flags.size else None,
    }


def _halved_mode(mode: Mode, width: Float, behind: Float) -> Mode:
    if np.ndim(mode.map) == 0:
        return mode
    plane = np.asarray(mode.map)
    weighted = np.where(width > 0, plane[0], 0.0) * width
    sums = np.add.reduceat(weighted, np.arange(0, width.size, 2))
    total = np.divide(sums, behind, out=np.zeros(behind.size), where=behind > 0)
    return mode._replace(map=total[np.newaxis].astype(plane.dtype))
