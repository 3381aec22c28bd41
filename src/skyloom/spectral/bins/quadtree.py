"""Square bins: squares are cut into four as long as the quarters reach the target."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.core.noise import region_variances
from skyloom.kernels.bins.voronoi_cells import label_pieces
from skyloom.spectral.bins.voronoi import BinField, Labels, join_poor, number_bins

__all__ = ["quadtree_labels"]

Array = NDArray[Any]
PASSES = 12
"""Times that empty quarters are cut anew; it ends by itself when there are none."""


class _Level(NamedTuple):
    """Sums over the squares of one size; each (rows, columns)."""

    n_pixels: Array
    signal: Array
    variance: Array


def quadtree_labels(field: BinField) -> tuple[Labels, Labels]:
    """Return labels (-1 where not good) and the labels of remainders.

    Parameters
    ----------
    field : BinField

    Returns
    -------
    labels : (ny, nx) int32 array
        Dense from 0, in the order of their first pixels.
    remainder : (m,) int32 array
        Bins that stay below the target.

    Notes
    -----
    Squares have sides of 2^k pixels and their corners at multiples of that. A square is cut when all its quarters with
    usable pixels reach the target, or two of them at least, or when the others are empty of signal. Empty: the square
    has a higher S/N without such quarters than with them, so they could only spoil a bin. The pixels of all empty
    quarters are then cut anew, by themselves: faint light around a bright knot gets its own, larger squares, in which
    the knot is left out. What is not connected (by masked pixels, or by what was left out) falls into its parts. A
    quarter or part below the target joins the neighbour that reaches it together with the part and has least to spare;
    where there is none it remains, flagged, together with others that touch it. So most bins are squares, and the rest
    a square with one or more smaller ones beside it; no pixel is in two bins, and S/N are those of the pixels in them.
    """
    labels = np.full(field.signal.shape, -1, dtype=np.int32)
    todo, n_bins = field, 0
    for _ in range(PASSES):
        leaf, n_leaves, empty = _one_tree(todo)
        labels = np.where(leaf >= 0, leaf + n_bins, labels).astype(np.int32)
        n_bins += n_leaves
        if not empty.any():
            break
        todo = field._replace(
            signal=np.where(empty, field.signal, 0.0),
            variance=np.where(empty, field.variance, 0.0),
            good=empty,
        )
    else:
        labels = np.where(empty, n_bins, labels).astype(np.int32)
    return number_bins(field, join_poor(field, label_pieces(labels)[0]))


def _one_tree(field: BinField) -> tuple[Array, int, NDArray[np.bool_]]:
    """Squares from 0 (-1 outside them), how many, and the pixels of empty quarters, which are in none."""
    shape = field.signal.shape
    n_levels = max(1, int(np.ceil(np.log2(max(shape)))))
    levels = [_sum_squares(field, level) for level in range(n_levels + 1)]
    leaf = np.full(shape, -1, dtype=np.int64)
    empty = np.zeros(shape, dtype=bool)
    open_squares = np.ones(levels[-1].n_pixels.shape, dtype=bool)
    n_leaves = 0
    for level in range(n_levels, -1, -1):
        cut = np.zeros_like(open_squares)
        if level > 0:
            cut, void = _which_to_cut(levels[level], levels[level - 1], open_squares, field.target)
            empty |= _spread(void, level - 1, shape)
        done = open_squares & ~cut & (levels[level].n_pixels > 0)
        numbers = np.full(done.shape, -1, dtype=np.int64)
        numbers[done] = n_leaves + np.arange(np.count_nonzero(done))
        n_leaves += int(np.count_nonzero(done))
        leaf = np.maximum(leaf, _spread(numbers, level, shape))
        if level > 0:
            open_squares = _quarters(cut, levels[level - 1].n_pixels.shape) & ~void
    leaf[~field.good | empty] = -1
    return leaf, n_leaves, empty & field.good


def _sum_squares(field: BinField, level: int) -> _Level:
    """Sums over squares of 2^level pixels, exact for correlated noise too."""
    ny, nx = field.signal.shape
    rows, columns = np.arange(ny) >> level, np.arange(nx) >> level
    shape = (int(rows[-1]) + 1, int(columns[-1]) + 1)
    squares = (rows[:, None] * shape[1] + columns[None, :]).astype(np.int32)
    squares[~field.good] = -1
    inside = squares >= 0
    n_squares = shape[0] * shape[1]
    count = np.bincount(squares[inside], minlength=n_squares)
    signal = np.bincount(squares[inside], field.signal[inside], n_squares)
    correlation = field.correlation if field.correlation.size > 1 else None
    variance = region_variances(field.variance, squares, n_squares, correlation)
    return _Level(count.reshape(shape), signal.reshape(shape), variance.reshape(shape))


def _reaches(signal: Array, variance: Array, target: float) -> NDArray[np.bool_]:
    """Whether S/N >= target, False where nothing is used."""
    reached: NDArray[np.bool_] = (variance > 0) & (signal >= target * np.sqrt(np.maximum(variance, 0.0)))
    return reached


def _which_to_cut(
    parent: _Level, child: _Level, open_squares: NDArray[np.bool_], target: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Squares to cut, and those of their quarters that are empty of signal."""
    shape = child.n_pixels.shape
    good = child.n_pixels > 0
    reached = good & _reaches(child.signal, child.variance, target)
    lacking = good & ~reached
    kept_signal = _add_quarters(np.where(reached, child.signal, 0.0))
    kept_variance = _add_quarters(np.where(reached, child.variance, 0.0))
    n_reached = _add_quarters(reached.astype(np.int64))
    any_lacking = _add_quarters(lacking.astype(np.int64)) > 0
    noise = np.sqrt(np.maximum(parent.variance, 0.0))
    # S/N without the lacking quarters >= with them; the correlation between quarters is left out of this choice only.
    better = kept_signal * noise >= parent.signal * np.sqrt(np.maximum(kept_variance, 0.0))
    better &= open_squares & (n_reached > 0)
    cut = better | (open_squares & ((n_reached >= 2) | ((n_reached == 1) & ~any_lacking)))
    return cut, _quarters(better, shape) & lacking


def _add_quarters(plane: Array) -> Array:
    """Sum 2 x 2 blocks; odd borders are filled with zeros."""
    ny, nx = plane.shape
    padded = np.pad(plane, ((0, ny % 2), (0, nx % 2)))
    blocks = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
    return np.asarray(blocks.sum(axis=(1, 3)))


def _quarters(plane: Array, shape: tuple[int, ...]) -> Array:
    """Give each quarter the value of its square."""
    return np.repeat(np.repeat(plane, 2, axis=0), 2, axis=1)[: shape[0], : shape[1]]


def _spread(plane: Array, level: int, shape: tuple[int, int]) -> Array:
    """Give each pixel the value of its square of 2^level pixels."""
    rows, columns = np.arange(shape[0]) >> level, np.arange(shape[1]) >> level
    return np.asarray(plane[rows[:, None], columns[None, :]])
