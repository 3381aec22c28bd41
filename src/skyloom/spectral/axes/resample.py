"""Cubes and spectra on another grid of wavelengths, flux conserved, with the covariance that this leaves behind."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.image import Mode
from skyloom.core.provenance import step as record_step
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands, resample_lags
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import InputError
from skyloom.kernels.spectra.resample import resample_channels
from skyloom.spectral.axes.grids import Overlap, overlap, pixel_edges, regular_grid

__all__ = ["pixel_broadening", "resample", "resample_mode"]

Subject = TypeVar("Subject", Cube, Spectra)
Array = NDArray[Any]
Float = NDArray[np.float64]
SPAXELS = 4096  # Spaxels of one piece of work.
SAMPLED = 512  # Spectra that the typical shape of the variance is taken from.
PHASES = 6.0  # Channels (sigma) over which the broadening is averaged, so that all phases of a pixel occur.


class _Planes(NamedTuple):
    data: Array
    variance: Array
    mask: NDArray[np.bool_]


def resample(
    subject: Subject,
    wave: ArrayLike | None = None,
    *,
    step: float | None = None,
    sampling: str = "linear",
    threads: int | None = None,
) -> Subject:
    """Bring a cube or spectra to another grid of wavelengths.

    Fits are best made on native pixels; resample where a consumer asks for its own grid.

    Parameters
    ----------
    subject : Cube or Spectra
        On any ascending grid; values are densities per unit of wavelength.
    wave : (n_out,) array, optional
        Centres of the new pixels in A, ascending, in the medium of ``subject``. Or:
    step : float, optional
        Step of a regular grid that fills the range: in A for "linear", in dex of the wavelength for "log" (1e-4 is
        that of MaNGA, 69 km/s). Its centres are whole multiples of the step.
    sampling : {"linear", "log"}
    threads : int, optional
        All available ones by default.

    Returns
    -------
    Cube or Spectra
        Data (n_out, ...): mean flux density over each new pixel, so that ``sum(data * width)`` is conserved. Variance:
        exact for each pixel, the correlation of the input included. Correlation along wavelength: a band of lags,
        (n_out, k), with which sums over any channels have the right error; None when the new pixels are independent.
        Masked: pixels that touch a masked one or are not wholly covered. Flags: those of all pixels touched.
        LSF: standard deviation of an unresolved line as it is now sampled (see Notes). On the grid it has already,
        the object is returned with the same arrays.

    Raises
    ------
    InputError
        When not exactly one of ``wave`` and ``step`` is given, the new grid does not ascend, or none of it is covered.

    Notes
    -----
    ``d' = W d`` with ``W_ji`` the share of output pixel j that lies on input pixel i; covariance ``W C W^T`` with
    ``C_ij = sqrt(v_i v_j) rho_ij``. Edges of pixels lie half-way between centres (geometrically for logarithmic grids).
    The lags are those for the typical shape of the variance over all spectra; the variance is each pixel's own.
    The LSF is that of the sampled values, effect of the pixel included. It grows by the second moment of the weights,
    ``sigma'^2 = W sigma^2 + < sum_i W_ji (l_i - l_j)^2 >``, averaged with a Gaussian of 6 pixels: by up to
    ``(w_in^2 + w_out^2) / 12`` for grids without a common step.
    """
    target = _target(subject, wave, step, sampling)
    figures = {"sampling": _name(wave, sampling), "step": step, "first": target[0], "last": target[-1]}
    if target.shape == subject.wave.shape and np.allclose(target, subject.wave, rtol=0, atol=1e-9):
        return subject.evolve_checked(record_step("resample", **figures, same_grid=True))
    shares = overlap(pixel_edges(subject.wave), pixel_edges(target))
    if not shares.complete.any():
        raise InputError(
            f"no new pixel lies wholly between {subject.wave[0]:.1f} and {subject.wave[-1]:.1f} A; they run from "
            f"{target[0]:.1f} to {target[-1]:.1f} A",
            field="wave",
        )
    before = _lags(subject)
    bands = lag_bands(before, subject.wave.size)
    planes = _resample_planes(subject, shares, bands, threads)
    lags = resample_lags(shares.first, shares.weights, before, typical_variance(subject))
    changes = {
        **planes._asdict(),
        "wave": target,
        "lsf": _resample_lsf(subject, shares, target),
        "correlation": _correlation(subject, lags),
        "flags": _resample_flags(subject, shares),
        "modes": tuple(resample_mode(mode, subject, shares) for mode in subject.modes),
    }
    if isinstance(subject, Cube) and subject.wcs is not None and subject.wcs.naxis > 2:
        changes["wcs"] = subject.wcs.celestial
    figures["n_uncovered"] = int(np.count_nonzero(~shares.complete))
    return subject.evolve(record_step("resample", **figures), **changes)


def _name(wave: ArrayLike | None, sampling: str) -> str:
    return sampling if wave is None else "given"


def _target(subject: Cube | Spectra, wave: ArrayLike | None, step: float | None, sampling: str) -> Float:
    if (wave is None) == (step is None):
        raise InputError(
            f"{'neither wave nor step' if wave is None else 'both wave and step'} given; exactly one is needed",
            field="wave",
            remedy="give the new wavelengths, or the step of a regular grid",
        )
    if step is not None:
        return regular_grid(pixel_edges(subject.wave), float(step), sampling)
    target = np.array(wave, dtype=np.float64)
    pixel_edges(target)
    return target


def _lags(subject: Cube | Spectra) -> Float | None:
    if isinstance(subject, Spectra):
        return subject.correlation
    return None if subject.correlation is None else subject.correlation.spectral


def _correlation(subject: Cube | Spectra, lags: Float) -> Float | CubeCorrelation | None:
    spectral = None if lags.shape[1] == 1 else lags
    if isinstance(subject, Spectra):
        return spectral
    spatial = None if subject.correlation is None else subject.correlation.spatial
    return None if spatial is None and spectral is None else CubeCorrelation(spatial, spectral)


def _channel_axis(subject: Cube | Spectra, plane: Array) -> Array:
    """Return a view with the channels first."""
    return plane if isinstance(subject, Cube) else plane.T


def _resample_planes(subject: Cube | Spectra, shares: Overlap, bands: Float, threads: int | None) -> _Planes:
    n_out = shares.first.size
    shape = (n_out, *subject.data.shape[1:]) if isinstance(subject, Cube) else (subject.data.shape[0], n_out)
    result = _Planes(
        np.empty(shape, subject.data.dtype), np.empty(shape, subject.variance.dtype), np.empty(shape, bool)
    )
    source = _Planes(subject.data, subject.variance, subject.mask)
    work = _resample_cube if isinstance(subject, Cube) else _resample_rows
    work(source, result, shares, bands, threads)
    return result


def _resample_cube(
    source: _Planes, result: _Planes, shares: Overlap, bands: Float, threads: int | None
) -> None:
    flat = _Planes(*(np.ascontiguousarray(plane).reshape(plane.shape[0], -1) for plane in source))
    out = _Planes(*(plane.reshape(plane.shape[0], -1) for plane in result))

    def work(part: slice) -> None:
        resample_channels(
            flat.data, flat.variance, flat.mask, shares.first, shares.weights, bands,
            part.start, part.stop, out.data, out.variance, out.mask,
        )  # fmt: skip

    run_blocks(work, blocks(flat.data.shape[1], SPAXELS), threads)


def _resample_rows(
    source: _Planes, result: _Planes, shares: Overlap, bands: Float, threads: int | None
) -> None:
    """Turn blocks of spectra so that the loops of the kernel run over neighbouring spectra, too."""
    n_out = shares.first.size

    def work(part: slice) -> None:
        block = _Planes(*(np.ascontiguousarray(plane[part].T) for plane in source))
        size = block.data.shape[1]
        out = _Planes(*(np.empty((n_out, size), plane.dtype) for plane in result))
        resample_channels(
            block.data, block.variance, block.mask, shares.first, shares.weights, bands,
            0, size, out.data, out.variance, out.mask,
        )  # fmt: skip
        for whole, piece in zip(result, out, strict=True):
            whole[part] = piece.T

    run_blocks(work, blocks(source.data.shape[0], SPAXELS // 16), threads)


def typical_variance(subject: Cube | Spectra) -> Float:
    """Return the shape of the variance along wavelength, after fitting the logarithm by it and a level per spectrum."""
    mask = _channel_axis(subject, subject.mask).reshape(subject.wave.size, -1)
    variance = _channel_axis(subject, subject.variance).reshape(subject.wave.size, -1)
    alive = np.flatnonzero(~mask.all(axis=0))
    if alive.size == 0:
        return np.ones(subject.wave.size)
    sampled = alive[np.unique(np.linspace(0, alive.size - 1, min(alive.size, SAMPLED)).astype(int))]
    good = ~mask[:, sampled]
    logs = np.log(np.where(good, variance[:, sampled], 1.0).astype(np.float64))
    shape, level = np.zeros(subject.wave.size), np.zeros(sampled.size)
    for _ in range(4):
        shape = np.sum((logs - level) * good, axis=1) / np.maximum(good.sum(axis=1), 1)
        level = np.sum((logs - shape[:, None]) * good, axis=0) / good.sum(axis=0)
    return np.asarray(np.exp(shape - shape.max()))


def _spread_over(shares: Overlap, plane: Array) -> Float:
    """Return ``W plane`` along the first axis, 0 where not covered."""
    total = np.zeros((shares.first.size, *plane.shape[1:]))
    for tap in range(shares.weights.shape[1]):
        # Only what counts is read: a value that is not a number beside the pixel must not spoil it.
        rows = np.flatnonzero(shares.weights[:, tap])
        weight = shares.weights[rows, tap].reshape(-1, *(1,) * (plane.ndim - 1))
        total[rows] += weight * plane[shares.first[rows] + tap]
    return total


def pixel_broadening(wave: Float, shares: Overlap, target: Float) -> tuple[NDArray[np.int64], Float]:
    """Return what resampling does to the LSF.

    Parameters
    ----------
    wave : (n_wave,) array
    shares : Overlap
        With at least one new pixel that is covered.
    target : (n_out,) array

    Returns
    -------
    nearest : (n_out,) int64 array
        Each new pixel, or where it is not covered the nearest that is.
    moment : (n_out,) float64 array
        A^2 that the square of the LSF of ``nearest`` grows by.
    """
    from scipy.ndimage import gaussian_filter1d

    # The input is one stretch of wavelengths, so the covered pixels are one, too.
    covered = np.flatnonzero(shares.complete)
    nearest = np.clip(np.arange(target.size), covered[0], covered[-1])
    channel = shares.first[:, None] + np.arange(shares.weights.shape[1])
    moment = np.sum(shares.weights * (wave[channel] - target[:, None]) ** 2, axis=1)
    return nearest, gaussian_filter1d(moment[covered], PHASES, mode="reflect")[nearest - covered[0]]


def _resample_lsf(subject: Cube | Spectra, shares: Overlap, target: Float) -> float | Float | None:
    """Return the LSF of the new pixels; where they are not covered, that of the nearest that is."""
    if subject.lsf is None:
        return None
    nearest, moment = pixel_broadening(subject.wave, shares, target)
    sigma = np.asarray(subject.lsf, dtype=np.float64)
    if sigma.ndim < 2:
        squares = np.broadcast_to(sigma**2, subject.wave.shape)
        return np.sqrt(_spread_over(shares, squares)[nearest] + moment)
    squares = _spread_over(shares, _channel_axis(subject, sigma) ** 2)[nearest]
    width = np.sqrt(squares + moment.reshape(-1, *(1,) * (sigma.ndim - 1)))
    return np.ascontiguousarray(_channel_axis(subject, width))


def _resample_flags(subject: Cube | Spectra, shares: Overlap) -> NDArray[np.uint16] | None:
    """Return the flags of new pixels: those of all pixels touched."""
    if subject.flags is None:
        return None
    flags = _channel_axis(subject, subject.flags)
    result = np.zeros((shares.first.size, *flags.shape[1:]), np.uint16)
    for tap in range(shares.weights.shape[1]):
        rows = np.flatnonzero(shares.weights[:, tap] > 0)
        result[rows] |= flags[shares.first[rows] + tap]
    return np.ascontiguousarray(_channel_axis(subject, result))


def resample_mode(mode: Mode, subject: Cube | Spectra, shares: Overlap) -> Mode:
    """Resample the map of a shared error like data; a constant stays the constant that it is."""
    if np.ndim(mode.map) == 0:
        return mode
    plane = np.asarray(mode.map)
    known = _channel_axis(subject, np.where(subject.mask, 0, plane))
    moved = _channel_axis(subject, _spread_over(shares, known).astype(plane.dtype))
    return mode._replace(map=np.ascontiguousarray(moved))
