"""The line through binned medians that existing pipelines anchor with, given errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError

__all__ = ["binned_fit"]

Array = NDArray[Any]
Float = NDArray[np.float64]
BINS = 20
FEWEST_PER_BIN = 10
LOW, HIGH = 0.5, 99.5


def binned_fit(image: Array, reference: Array, blocks: Array, slope: float | None) -> tuple[Float, Float]:
    """Fit a line through the medians of ``image`` in equal steps of ``reference``.

    Parameters
    ----------
    image, reference : (n,) array
    blocks : (n,) int array
        Block of each pixel; the errors are the jackknife over them.
    slope : float or None
        Hold the slope.

    Returns
    -------
    parameters : (2,) float64 array
        Slope, offset.
    covariance : (2, 2) float64 array

    Raises
    ------
    InputError
        When fewer than three bins hold pixels.

    Notes
    -----
    Bins run from the 0.5 to the 99.5 percentile of the reference; each median weighs ``n / MAD**2``.
    """
    x, y = reference.astype(np.float64), image.astype(np.float64)
    low, high = np.percentile(x, [LOW, HIGH])
    if not high > low:
        raise _no_range()
    bins = np.floor((x - low) / (high - low) * BINS)
    inside = (bins >= 0) & (bins < BINS)
    x, y, blocks, bins = x[inside], y[inside], blocks[inside], bins[inside].astype(np.intp)
    best = _line(x, y, bins, slope)
    names = np.unique(blocks)
    each = np.array(
        [_line(x[keep], y[keep], bins[keep], slope) for keep in (blocks != name for name in names)]
    )
    deviations = each - each.mean(axis=0)
    covariance = (names.size - 1) / names.size * deviations.T @ deviations
    return best, np.asarray(covariance)


def _line(x: Float, y: Float, bins: Array, slope: float | None) -> Float:
    order = np.argsort(bins, kind="stable")
    points = []
    for members in np.split(order, np.flatnonzero(np.diff(bins[order])) + 1):
        if members.size < FEWEST_PER_BIN:
            continue
        middle = np.median(y[members])
        spread = 1.4826 * np.median(np.abs(y[members] - middle))
        points.append((np.median(x[members]), middle, spread, members.size))
    if len(points) < (1 if slope is not None else 3):
        raise _no_range()
    centre, middle, spread, number = np.array(points).T
    floor = 1e-3 * float(np.max(spread)) or 1.0
    weight = number / np.maximum(spread, floor) ** 2
    if slope is not None:
        return np.array([slope, np.average(middle - slope * centre, weights=weight)])
    fitted = np.polyfit(centre, middle, 1, w=np.sqrt(weight))
    return np.array([fitted[0], fitted[1]])


def _no_range() -> InputError:
    return InputError(
        "the reference fills fewer than three bins of brightness: a slope cannot be fitted",
        field="reference",
        remedy="use method 'errors_in_both', or hold the slope",
    )
