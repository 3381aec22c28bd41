"""Grids of wavelengths: where pixels begin and end, regular grids, and how much of one pixel lies on another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import InputError

__all__ = ["Overlap", "overlap", "pixel_edges", "regular_grid"]

Float = NDArray[np.float64]
SLIVER = 1e-9  # Shares of a pixel below this are rounding of the edges.
INCOMPLETE = 1e-6  # An output pixel may miss this share, again by rounding, and still be whole.


class Overlap(NamedTuple):
    """Shares of output pixels on input pixels: row j holds those of input channels first[j], first[j] + 1, ...

    The shares of a pixel add up to 1; those of a pixel that is not wholly covered are all 0.
    """

    first: NDArray[np.int64]
    weights: Float

    @property
    def complete(self) -> NDArray[np.bool_]:
        """(n_out,) True for output pixels that the input covers wholly."""
        return np.asarray(self.weights.sum(axis=1) > 0.5)


def pixel_edges(wave: ArrayLike) -> Float:
    """Return the edges of pixels from their centres.

    Parameters
    ----------
    wave : (n,) array
        Centres, ascending, n >= 2.

    Returns
    -------
    (n + 1,) float64 array
        Edges half-way between centres: arithmetic, or geometric when the centres are more evenly spaced in the
        logarithm than in wavelength. The outermost pixels are as wide (as their ratio) as the step beside them.

    Raises
    ------
    InputError
        When there are fewer than two wavelengths, or they do not ascend.
    """
    centres = np.asarray(wave, dtype=np.float64)
    if centres.ndim != 1 or centres.size < 2:
        raise InputError(
            f"a grid of shape {centres.shape} has no pixel widths; two wavelengths are needed", field="wave"
        )
    if not np.all(np.isfinite(centres)) or not np.all(np.diff(centres) > 0):
        raise InputError("wavelengths must be finite and ascending", field="wave")
    if centres[0] > 0:
        logs = np.log(centres)
        if _unevenness(logs) < _unevenness(centres):
            return np.exp(_midpoints(logs))
    return _midpoints(centres)


def _unevenness(values: Float) -> float:
    steps = np.diff(values)
    return float(np.ptp(steps) / steps.mean())


def _midpoints(centres: Float) -> Float:
    inner = 0.5 * (centres[1:] + centres[:-1])
    ends = 1.5 * centres[[0, -1]] - 0.5 * centres[[1, -2]]
    return np.concatenate((ends[:1], inner, ends[1:]))


def regular_grid(edges: Float, step: float, sampling: str) -> Float:
    """Return all pixel centres of a regular grid whose pixels lie wholly between the outermost of ``edges``.

    Parameters
    ----------
    edges : (n + 1,) array
    step : float
        In A for "linear", in dex (log10 of the wavelength) for "log".
    sampling : {"linear", "log"}

    Returns
    -------
    (m,) float64 array
        ``step`` times whole numbers (or 10 to that power): grids of the same step always coincide, whatever the range,
        and a step of 1 A is exactly 1 A.

    Raises
    ------
    InputError
        When the sampling is unknown, or the step leaves no two pixels.
    """
    if sampling not in ("linear", "log"):
        raise InputError(f"sampling is {sampling!r}; expected 'linear' or 'log'", field="sampling")
    unit = "A" if sampling == "linear" else "dex"
    if not (np.isfinite(step) and step > 0):
        raise InputError(f"step is {step}; expected a positive number of {unit}", field="step")
    low, high = edges[[0, -1]] if sampling == "linear" else np.log10(edges[[0, -1]])
    start = int(np.ceil(low / step + 0.5 - INCOMPLETE))
    end = int(np.floor(high / step - 0.5 + INCOMPLETE))
    if end - start < 1:
        raise InputError(
            f"a step of {step:g} {unit} leaves no two pixels between {edges[0]:.1f} and {edges[-1]:.1f} A",
            field="step",
            remedy="in dex, 1e-4 is 69 km/s" if sampling == "log" else None,
        )
    points = step * np.arange(start, end + 1)
    return np.asarray(points if sampling == "linear" else 10.0**points, dtype=np.float64)


def overlap(source: Float, target: Float) -> Overlap:
    """Return the shares of the pixels between edges ``target`` that lie on the pixels between edges ``source``."""
    low, high = target[:-1], target[1:]
    n_wave = source.size - 1
    start = np.clip(np.searchsorted(source, low, side="right") - 1, 0, n_wave - 1)
    end = np.clip(np.searchsorted(source, high, side="left") - 1, 0, n_wave - 1)
    taps = int(np.max(end - start)) + 1
    # The window of a row is moved, not cut, at the red end, so that it never leaves the axis.
    taps = min(taps, n_wave)
    first = np.minimum(start, n_wave - taps)
    channel = first[:, None] + np.arange(taps)
    shared = np.minimum(source[channel + 1], high[:, None]) - np.maximum(source[channel], low[:, None])
    weights = np.maximum(shared, 0.0) / (high - low)[:, None]
    weights[weights < SLIVER] = 0.0
    total = weights.sum(axis=1, keepdims=True)
    whole = total > 1.0 - INCOMPLETE
    return Overlap(first.astype(np.int64), np.where(whole, weights / np.where(whole, total, 1.0), 0.0))
