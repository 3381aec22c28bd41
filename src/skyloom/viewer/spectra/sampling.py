"""Fewer points where a screen cannot show more: the smallest and the largest value under each of its pixels stay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.viewer.protocols import Float

__all__ = ["MOST_POINTS", "thinned"]

MOST_POINTS = 20_000  # Below this a browser draws all of them without delay.


def thinned(
    wave: Float, flux: Float, low: float, high: float, pixels: int, most: int = MOST_POINTS
) -> NDArray[np.int64]:
    """Return which channels to draw of those that are seen.

    Parameters
    ----------
    wave, flux : (n,) arrays
        ``flux`` may be NaN.
    low, high : float
        Range of wavelengths on the screen; one channel beyond each end is drawn, too.
    pixels : int
        Width of the screen.
    most : int
        So many channels are drawn as they are.

    Returns
    -------
    (m,) int array, ascending
        Where there are too many: of each pixel the channels with the smallest and the largest flux, so that no line is
        lost however narrow it is.
    """
    first = max(int(np.searchsorted(wave, low)) - 1, 0)
    last = min(int(np.searchsorted(wave, high, side="right")) + 1, wave.size)
    if last - first <= most:
        return np.arange(first, last)
    pixel = ((wave[first:last] - wave[first]) / (wave[last - 1] - wave[first]) * pixels).astype(np.int64)
    starts = np.flatnonzero(np.diff(pixel, prepend=-1))
    values = flux[first:last]
    small = np.where(np.isnan(values), np.inf, values)
    large = np.where(np.isnan(values), -np.inf, values)
    order_small, order_large = np.lexsort((small, pixel)), np.lexsort((-large, pixel))
    kept = np.concatenate([order_small[starts], order_large[starts], [0, last - first - 1]])
    return np.unique(kept) + first
