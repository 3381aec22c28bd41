"""From a cube to the planes of a line: which channels count, and the linear functional over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.spectral_noise import lag_bands
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import InputError, ShapeError
from skyloom.kernels.signal.windows import measure_functional
from skyloom.spectral.axes.widths import channel_edges, channel_widths
from skyloom.spectral.signal.windows import LineWindows

__all__ = ["Channels", "Measurement", "cut_channels", "lsf_sigma", "measure", "spaxel_values"]

Array = NDArray[Any]
Float = NDArray[np.float64]

BLOCK = 4096  # Spaxels per task: large enough to hide the cost of a task, small enough to share work evenly.
SAMPLE = 500  # Spaxels from which the common run of the variance with wavelength is taken.


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """A run of channels of a cube, spaxels in one line.

    Parameters
    ----------
    data, variance : (n, m) arrays
    mask : (n, m) bool array
    opened : (n,) bool array
        Channels that may be used.
    scale : (n,) array
        True over claimed variance.
    lags : (n, k) array
        Correlation of channel i with i + d at ``[i, k // 2 + d]``.
    edges : (n + 1,) array
        Borders of the channels, A.
    common : (n,) array
        Median variance over the spaxels; infinite where no spaxel is usable.
    """

    data: Array
    variance: Array
    mask: NDArray[np.bool_]
    opened: NDArray[np.bool_]
    scale: Float
    lags: Float
    edges: Float
    common: Float


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """What a functional gives for each of m spaxels.

    ``status`` holds the codes of `skyloom.kernels.signal.weights`; ``coverage`` the share of the line in sight.
    """

    signal: Float
    variance: Float
    coverage: Float
    status: NDArray[np.int8]


def cut_channels(
    cube: Cube, channels: slice, *, scale: ArrayLike | None, exclude: ArrayLike | None
) -> Channels:
    """Return the channels of a cube with all that belongs to them, without copying voxels.

    Raises
    ------
    ShapeError
        When ``scale`` or ``exclude`` do not fit the axis.
    InputError
        When no voxel of these channels is usable, or ``scale`` is not positive.
    """
    n_wave = cube.shape[0]
    opened = ~_per_channel(exclude, n_wave, "exclude", False).astype(bool)[channels]
    factor = _per_channel(scale, n_wave, "scale", 1.0).astype(np.float64)[channels]
    if not np.all(factor[opened] > 0):
        raise InputError("the variance scale must be positive", field="scale")
    data, variance, mask = (_flat(plane[channels]) for plane in (cube.data, cube.variance, cube.mask))
    common = _common_variance(variance, mask, opened) * factor
    if not np.any(np.isfinite(common)):
        raise InputError(
            f"no voxel between {cube.wave[channels][0]:.1f} and {cube.wave[channels][-1]:.1f} A is usable",
            field="mask",
            remedy="check the errors and the mask of the cube: is everything NaN, or are all errors zero?",
        )
    lags = lag_bands(cube.correlation.spectral if cube.correlation else None, n_wave)[channels]
    edges = channel_edges(cube.wave)
    start, stop, _ = channels.indices(n_wave)
    return Channels(data, variance, mask, opened, factor, lags, edges[start : stop + 1], common)


def _per_channel(values: ArrayLike | None, n_wave: int, field: str, default: float | bool) -> Array:
    if values is None:
        return np.full(n_wave, default)
    array = np.asarray(values)
    if array.ndim and array.shape != (n_wave,):
        raise ShapeError(f"{field} has shape {array.shape}; expected ({n_wave},)", field=field)
    return np.broadcast_to(array, (n_wave,))


def _flat(plane: Array) -> Array:
    return np.ascontiguousarray(plane.reshape(plane.shape[0], -1))


def _common_variance(variance: Array, mask: NDArray[np.bool_], opened: NDArray[np.bool_]) -> Float:
    """Median over usable spaxels per channel, from a sample of them spread over the field."""
    used = np.flatnonzero(~mask.all(axis=0)) if mask.any() else np.arange(mask.shape[1])
    if not used.size:
        return np.full(mask.shape[0], np.inf)
    chosen = used[np.unique(np.linspace(0, used.size - 1, min(SAMPLE, used.size)).astype(int))]
    sample = np.where(mask[:, chosen], np.inf, variance[:, chosen].astype(np.float64))
    sample.sort(axis=1)
    count = np.isfinite(sample).sum(axis=1)
    common = sample[np.arange(count.size), np.maximum(count - 1, 0) // 2]
    return np.where(opened, common, np.inf)


def spaxel_values(values: object, shape: tuple[int, ...], field: str, unit: str | None = None) -> Float:
    """Return a number, array or Image as one value for all, or one per spaxel (NaN where masked).

    Raises
    ------
    ShapeError
        When a map has another shape than ``shape``.
    """
    if isinstance(values, Image):
        plane = np.where(values.mask, np.nan, values.data.astype(np.float64))
        if unit is not None and values.unit.is_equivalent(unit):
            plane = plane * values.unit.to(unit)
    elif unit is not None and hasattr(values, "to_value"):
        plane = np.asarray(values.to_value(unit), dtype=np.float64)
    else:
        plane = np.asarray(values, dtype=np.float64)
    if plane.ndim == 0:
        if not np.isfinite(plane):
            raise InputError(f"{field} is {plane}", field=field)
        return plane.reshape(1)
    if plane.shape != shape:
        raise ShapeError(f"the map has shape {plane.shape}; expected {shape}, that of the cube", field=field)
    return plane.ravel()


def lsf_sigma(cube: Cube, observed: Float) -> tuple[Float, bool]:
    """Return the standard deviation of the line-spread function, A, and whether it is known.

    Parameters
    ----------
    cube : Cube
    observed : (1, k) or (m, k) array
        Wavelengths, one row for all spaxels or one each.

    Returns
    -------
    (1, k) or (m, k) array, bool
        One row per spaxel also where the LSF differs from spaxel to spaxel. Without an LSF: one channel.
    """
    lsf = cube.lsf
    if lsf is None:
        return np.interp(observed, cube.wave, channel_widths(cube.wave)), False
    values = np.asarray(lsf)
    if values.ndim == 0:
        return np.full(observed.shape, float(values)), True
    if values.ndim == 1:
        return np.interp(observed, cube.wave, values), True
    flat = values.reshape(values.shape[0], -1)
    rows = np.broadcast_to(observed, (flat.shape[1], observed.shape[1]))
    position = np.interp(rows, cube.wave, np.arange(cube.wave.size))
    below = np.minimum(position.astype(np.int64), cube.wave.size - 2)
    share = position - below
    column = np.arange(flat.shape[1])[:, np.newaxis]
    sigma = (1 - share) * flat[below, column] + share * flat[below + 1, column]
    good = np.isfinite(sigma) & (sigma > 0)
    if not good.any():
        raise InputError("the line-spread function is nowhere finite and positive at the line", field="lsf")
    typical = np.median(sigma[good])
    return np.where(good, sigma, typical), True


def measure(
    channels: Channels,
    windows: LineWindows,
    stretch: Float,
    sigma: Float,
    *,
    matched: bool,
    degree: int,
    limits: tuple[float, float],
    tied: bool = False,
    workers: int | None = None,
    data: Array | None = None,
) -> Measurement:
    """Apply the functional of a line to all spaxels, on threads.

    Parameters
    ----------
    channels : Channels
    windows : LineWindows
    stretch : (1,) or (m,) array
        Observed over rest wavelength; not finite: masked.
    sigma : (1, k) or (m, k) array
        Standard deviations of the lines as observed, A.
    matched : bool
        Weights by the profile; else plain windows.
    degree, limits
        Of the continuum, and the least shares of line and continuum; see `skyloom.kernels.signal.weights`.
    tied : bool
        The measured lines have the same flux; the signal is that of all of them.
    workers : int, optional
        Threads; None: one per core where there is work for them.
    data : (n, m) array, optional
        Other values to apply the same weights to.
    """
    values = channels.data if data is None else data
    m = values.shape[1]
    signal, noise, coverage = np.empty(m), np.empty(m), np.empty(m)
    status = np.empty(m, np.int8)
    if stretch.size != sigma.shape[0]:
        rows = max(stretch.size, sigma.shape[0])
        stretch = np.broadcast_to(stretch, (rows,))
        sigma = np.broadcast_to(sigma, (rows, sigma.shape[1]))
    wanted, owner = windows.wanted, np.arange(windows.wanted.size)
    if tied:
        owner = np.where(wanted > 0, 0, owner)
        wanted = (np.arange(wanted.size) == 0).astype(np.float64)
    fixed = (
        values, channels.variance, channels.mask, channels.opened, channels.scale, channels.lags, channels.edges,
        channels.common, np.ascontiguousarray(stretch), np.ascontiguousarray(sigma), windows.centres,
        wanted, owner, windows.line, windows.sides, matched, degree, np.array(limits),
    )  # fmt: skip
    out = (signal, noise, coverage, status)

    def run(part: slice) -> None:
        measure_functional(*fixed, part.start, part.stop, *out)

    run_blocks(run, blocks(m, BLOCK), workers)
    return Measurement(signal, noise, coverage, status)
