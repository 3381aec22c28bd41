"""Which pixels a click or a lasso means, and how the errors of the bins it meets hang together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skyloom.viewer.protocols import Bool, Float, Region

__all__ = ["bin_correlation", "is_click", "pixels_inside", "rows_of", "rows_region"]


def rows_region(rows: list[int], entry: str) -> Region:
    """Return the region that stands for rows of a list: they have numbers, and no place in a plane."""
    return Region(np.asarray(rows, np.float64), np.full(len(rows), np.nan), entry)


def rows_of(region: Region) -> list[int] | None:
    """Return the rows of a list that were chosen, or None where a place in a plane was."""
    if region.y.size and np.isnan(region.y).all():
        return [int(number) for number in region.x]
    return None


def is_click(region: Region) -> bool:
    """Tell whether one point was picked."""
    return region.x.size < 3


def pixels_inside(region: Region, shape: tuple[int, int]) -> Bool:
    """Return which pixels a region means.

    Parameters
    ----------
    region : Region
        One point: the pixel it lies in. The corners of a polygon: the pixels whose centre is inside (even-odd rule); of
        a polygon so small that it holds no centre, the pixel in its middle.
    shape : (ny, nx)

    Returns
    -------
    (ny, nx) bool array
    """
    inside = np.zeros(shape, bool)
    if region.x.size and not is_click(region):
        _fill(inside, np.asarray(region.x, np.float64), np.asarray(region.y, np.float64))
        if inside.any():
            return inside
    if region.x.size:
        x, y = int(np.rint(np.mean(region.x))), int(np.rint(np.mean(region.y)))
        if 0 <= y < shape[0] and 0 <= x < shape[1]:
            inside[y, x] = True
    return inside


def _fill(inside: Bool, x: Float, y: Float) -> None:
    """Mark the pixels of the polygon: a pixel changes sides at every edge that passes to its right."""
    ny, nx = inside.shape
    left, right = max(int(np.ceil(x.min())), 0), min(int(np.floor(x.max())), nx - 1)
    low, high = max(int(np.ceil(y.min())), 0), min(int(np.floor(y.max())), ny - 1)
    if left > right or low > high:
        return
    columns = np.arange(left, right + 1, dtype=np.float64)
    rows = np.arange(low, high + 1, dtype=np.float64)[:, np.newaxis]
    box = np.zeros((rows.size, columns.size), bool)
    for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
        if y0 == y1:
            continue
        crossing = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
        box ^= ((rows < y0) != (rows < y1)) & (columns < crossing)
    inside[low : high + 1, left : right + 1] = box


def bin_correlation(labels: NDArray[np.int32], ids: NDArray[Any], correlation: Float | None) -> Any:
    """Return how strongly the errors of bins hang together.

    Parameters
    ----------
    labels : (ny, nx) int array
        Bin of each pixel; negative: none.
    ids : (k,) int array
        Which bins, ascending.
    correlation : (m, m) array, optional
        Noise autocorrelation of pixels; None: independent ones.

    Returns
    -------
    (k, k) sparse array
        ``r_bc = S_bc / sqrt(S_bb S_cc)`` with ``S_bc = sum_{i in b, j in c} rho(x_i - x_j)``, for equal variances
        within a bin, as in `skyloom.spectral.gas.maps.sum_bins`. A bin without pixels is independent of all others.
    """
    k = ids.size
    if correlation is None:
        return sparse.eye_array(k, format="csr")
    place = np.clip(np.searchsorted(ids, labels), 0, max(k - 1, 0))
    dense = np.where(ids[place] == labels, place, -1)
    radius = correlation.shape[0] // 2
    padded = np.pad(dense, radius, constant_values=-1)
    ny, nx = dense.shape
    total = sparse.csr_array((k, k))
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            other = padded[radius + dy : radius + dy + ny, radius + dx : radius + dx + nx]
            both = (dense >= 0) & (other >= 0)
            weight = np.full(int(both.sum()), correlation[radius + dy, radius + dx])
            total = total + sparse.csr_array((weight, (dense[both], other[both])), shape=(k, k))
    own = total.diagonal()
    scale = np.zeros(k)
    np.divide(1.0, np.sqrt(own, out=np.zeros(k), where=own > 0), out=scale, where=own > 0)
    alone = sparse.diags_array((own <= 0).astype(np.float64))
    return (sparse.diags_array(scale) @ total @ sparse.diags_array(scale) + alone).tocsr()
