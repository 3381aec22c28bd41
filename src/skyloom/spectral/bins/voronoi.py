"""Weighted Voronoi bins of equal signal-to-noise ratio, with a floor that holds.

Three steps. *Plan*: around each pixel, the smallest window that reaches the target tells how large a bin must be
there, and halving the field along that density gives starting cells. *Tessellate*: the cells become weighted Voronoi
cells, generators moving to the centres, radii to equal signal-to-noise ratios, cells being removed or halved where a
neighbourhood has too many or too few. *Repair*: pixels cross borders one at a time, with exact covariance, until the
bins are even; what stays below the target is dissolved into its neighbours. ``docs/design/binning.md`` argues the
choices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.kernels.bins import exchange as bin_exchange
from skyloom.kernels.bins import plan as bin_plan
from skyloom.kernels.bins import repair as bin_repair
from skyloom.kernels.bins import voronoi_cells

__all__ = ["BinField", "Labels", "Progress", "join_poor", "number_bins", "voronoi_labels"]

Array = NDArray[Any]
Labels = NDArray[np.int32]
Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""

AIM = 1.02
"""(S/N / target)^2 that bins are steered to: as little above 1 as whole pixels and noise allow."""
LOW, HIGH = 1.0, 1.30
"""Mean content of a neighbourhood below which a cell is removed, above which one is halved."""
ROUNDS = 60
"""Rounds of the tessellation."""
CHANGES = range(4, 45, 4)
"""Rounds in which cells are removed and halved."""


POOR = (0.8, 0.9, 0.93, 0.96, 0.98, 1.0, 1.0, 1.0)
"""S/N over target below which superfluous bins are dissolved, repair by repair: most of the better ones recover once
the worst are gone."""
ACCEPT = (0.8, 0.9, 1.0)
"""Content that a bin may be left with when it takes in a small one that nobody else can have; the last is for good."""
ROUNDING = 4
"""Rounds before, that only make the starting cells rounder."""
VOID, VOID_PIXELS = 0.25, 16
"""A cell of so many pixels with less than this content holds no signal worth a bin."""
INNER_SHARE = 0.4
"""Share of a window's mean signal that its inner half must have; below it the window saw a source at its edge."""


class BinField(NamedTuple):
    """What is to be binned: zeros where not ``good``, float64 throughout."""

    signal: Array
    variance: Array
    good: NDArray[np.bool_]
    correlation: Array
    target: float


def voronoi_labels(field: BinField, progress: Progress | None = None) -> tuple[Labels, Labels]:
    """Return labels (-1 where not good) and the labels of remainders.

    Parameters
    ----------
    field : BinField
    progress : callable, optional
        Called with the steps done and the steps in all.

    Returns
    -------
    labels : (ny, nx) int32 array
        Dense from 0, in the order of their first pixels.
    remainder : (m,) int32 array
        Bins that stay below the target.
    """
    total = ROUNDS + ROUNDING + len(POOR) + len(ACCEPT) + 3
    tick = _Ticker(progress, total)
    free = field.good & ~(field.signal >= field.target * np.sqrt(field.variance))
    density = _plan(field, free)
    tick()
    cells, n_cells = _starting_cells(free, density)
    tick()
    _tessellate(field, cells, n_cells, tick)
    labels, kind = _with_other_pixels(field, cells, free)
    tick()
    numbered = number_bins(field, repair(field, labels, kind, tick))
    tick.finish()
    return numbered


class _Ticker:
    """Counts steps for a progress callback."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self) -> None:
        self.done += 1
        self.tell(min(self.done, self.total - 1))

    def finish(self) -> None:
        """Report all steps as done: how many repairs it takes is not known before."""
        self.tell(self.total)

    def tell(self, done: int) -> None:
        """Call the callback, if there is one."""
        if self.progress is not None:
            self.progress(done, self.total)


def _plan(field: BinField, free: NDArray[np.bool_]) -> Array:
    """Bins per pixel; 0 where there is no signal worth a bin."""
    longest = max(field.signal.shape)
    halves = np.unique(np.concatenate([np.arange(9), np.geomspace(9, max(10, longest // 2), 16).astype(int)]))
    return bin_plan.plan_density(
        np.where(free, field.signal, 0.0),
        np.where(free, field.variance, 0.0),
        free,
        field.target,
        field.correlation,
        halves[halves <= max(longest // 2, 1)].astype(np.int64),
        INNER_SHARE,
    )


def _starting_cells(free: NDArray[np.bool_], density: Array) -> tuple[Labels, int]:
    """Cells of equal planned content in each connected patch."""
    from scipy import ndimage

    cells = np.full(free.shape, -1, dtype=np.int32)
    patches, n_patches = ndimage.label(free)
    if n_patches == 0:
        return cells, 0
    content = np.asarray(ndimage.sum_labels(density, patches, np.arange(1, n_patches + 1)))
    n_cells = np.maximum(1, np.floor(content / AIM)).astype(np.int64)
    rows, columns = np.nonzero(patches)
    group = patches[rows, columns]
    order = np.argsort(group, kind="stable")
    rows, columns, group = rows[order], columns[order], group[order]
    # Where no window reaches the target, next to nothing is planned, yet the pixels belong to some cell.
    weight = np.maximum(density[rows, columns], 1e-3 / free.size)
    starts = np.searchsorted(group, np.arange(1, n_patches + 2)).astype(np.int64)
    numbers, n_all = bin_plan.bisect_cells(rows, columns, weight, starts, n_cells)
    cells[rows, columns] = numbers
    return cells, int(n_all)


def _tessellate(field: BinField, cells: Labels, n_cells: int, tick: _Ticker) -> None:
    """Turn ``cells`` into weighted Voronoi cells of equal signal-to-noise ratio, in place; -1 in the void."""
    if n_cells == 0:
        return
    generators = np.empty((n_cells, 3))
    for turn in range(-ROUNDING, ROUNDS):
        if turn == 0:
            generators = _set_void_aside(field, cells, generators)
        sums = voronoi_cells.cell_sums(cells, field.signal, field.variance, generators.shape[0])
        content = voronoi_cells.refine_radii(
            sums, generators, field.target, AIM, field.correlation, turn >= 0
        )
        if turn in CHANGES:
            generators, _, _ = voronoi_cells.adapt_cells(cells, content, generators, LOW, HIGH)
        voronoi_cells.assign_cells(cells, generators, 2)
        if turn % 6 == 5 or turn in (-1, ROUNDS - 1):
            voronoi_cells.join_fragments(cells, generators)
        tick()


def _set_void_aside(field: BinField, cells: Labels, generators: Array) -> Array:
    """Take cells without signal out of the game: label -1, unless all of a patch of them has some; then in new cells.

    A cell that has a quarter of the content planned for it has at most half the signal per pixel of its neighbours.
    With less, its pixels lower the signal-to-noise ratio of any bin that takes them in.
    """
    from scipy import ndimage

    sums = voronoi_cells.cell_sums(cells, field.signal, field.variance, generators.shape[0])
    content = voronoi_cells.refine_radii(sums, generators.copy(), field.target, AIM, field.correlation, False)
    void = (content < VOID) & (sums[:, 0] >= VOID_PIXELS)
    patches, n_patches = ndimage.label(np.where(cells >= 0, void[cells], False))
    if n_patches == 0:
        return generators
    index = np.arange(1, n_patches + 1)
    total, noise = (np.asarray(ndimage.sum_labels(plane, patches, index)) for plane in field[:2])
    n_pixels = np.bincount(patches.ravel(), minlength=n_patches + 1)[1:]
    inflation = np.array([bin_plan.square_inflation(float(n), field.correlation) for n in n_pixels])
    whole = total * np.abs(total) / (noise * inflation * field.target**2)
    rows, columns = np.nonzero(patches)
    group = patches[rows, columns]
    order = np.argsort(group, kind="stable")
    rows, columns, group = rows[order], columns[order], group[order]
    starts = np.searchsorted(group, np.arange(1, n_patches + 2)).astype(np.int64)
    n_new = np.maximum(1, np.floor(whole / AIM)).astype(np.int64)
    numbers, n_all = bin_plan.bisect_cells(rows, columns, np.ones(rows.size), starts, n_new)
    cells[rows, columns] = np.where(whole[group - 1] >= 1.0, numbers + generators.shape[0], -1)
    fresh = np.zeros((int(n_all), 3))
    fresh[:, 2] = np.bincount(numbers, minlength=int(n_all)) / np.pi
    return np.concatenate([generators, fresh])


def _with_other_pixels(field: BinField, cells: Labels, free: NDArray[np.bool_]) -> tuple[Labels, Array]:
    """Add the pixels that reach the target alone, and number all pieces."""
    labels = cells.astype(np.int32)
    labels[free & (cells < 0)] = labels.max(initial=-1) + 1
    alone = field.good & ~free
    labels[alone] = labels.max(initial=-1) + 1 + np.arange(np.count_nonzero(alone), dtype=np.int32)
    pieces, n_pieces = voronoi_cells.label_pieces(labels)
    return pieces, np.zeros(n_pieces, dtype=np.int64)


def repair(field: BinField, labels: Labels, kind: Array, tick: _Ticker) -> Labels:
    """Even out the bins and let no bin stay below the target where its neighbours can help."""
    pad = max(1, field.correlation.shape[0] // 2)
    signal = np.pad(field.signal, pad)
    spread = np.pad(np.sqrt(field.variance), pad)
    planes = (signal, spread, field.correlation)
    work = np.pad(labels, pad, constant_values=-1)
    stats = bin_exchange.bin_stats(work, *planes, kind.size, pad)
    for turn in range(len(POOR)):
        bin_exchange.exchange_pixels(work, *planes, stats, kind, field.target, AIM, 10)
        changed = _dissolve(work, stats, kind, field.target, POOR[turn]) + _split(
            work, planes, stats, field.target
        )
        tick()
        if not changed and turn >= 5:
            break
        work, kind = _separate(work, kind)
        stats = bin_exchange.bin_stats(work, *planes, kind.size, pad)
    for accept in ACCEPT:
        if _split(work, planes, stats, field.target):
            work, kind = _separate(work, kind)
            stats = bin_exchange.bin_stats(work, *planes, kind.size, pad)
        bin_exchange.exchange_pixels(work, *planes, stats, kind, field.target, AIM, 8)
        places, order = _poorest_first(work, stats, field.target)
        bin_repair.hand_over_pixels(work, *planes, stats, kind, places, order, field.target, AIM)
        work, kind = _separate(work, kind)
        stats = bin_exchange.bin_stats(work, *planes, kind.size, pad)
        places, order = _poorest_first(work, stats, field.target)
        bin_repair.merge_bins(work, *planes, stats, kind, places, order, field.target, accept)
        tick()
    return np.ascontiguousarray(work[pad:-pad, pad:-pad])


def join_poor(field: BinField, labels: Labels) -> Labels:
    """Join bins below the target with a neighbour, where both reach it then, and remainders with one another."""
    pad = max(1, field.correlation.shape[0] // 2)
    planes = (np.pad(field.signal, pad), np.pad(np.sqrt(field.variance), pad), field.correlation)
    work = np.pad(labels, pad, constant_values=-1)
    kind = np.zeros(int(labels.max(initial=-1)) + 1, dtype=np.int64)
    stats = bin_exchange.bin_stats(work, *planes, kind.size, pad)
    places, order = _poorest_first(work, stats, field.target)
    bin_repair.merge_bins(work, *planes, stats, kind, places, order, field.target, 1.0)
    return np.ascontiguousarray(work[pad:-pad, pad:-pad])


def _split(work: Labels, planes: tuple[Array, Array, Array], stats: Array, target: float) -> int:
    """Halve bins that hold enough for two, across their longer axis, in place; return how many."""
    from scipy import ndimage

    signal, spread, _ = planes
    with np.errstate(divide="ignore", invalid="ignore"):  # Bins may have run empty.
        content = stats[:, 0] ** 2 / (stats[:, 1] * target**2)
    rich = np.flatnonzero((content > 2.0 * AIM) & (stats[:, 2] >= 2.0) & (stats[:, 0] > 0))
    if rich.size == 0:
        return 0
    boxes = ndimage.find_objects(work + 1)
    n_split = 0
    for number in rich:
        box = boxes[number]
        rows, columns = np.nonzero(work[box] == number)
        values, noise = signal[box][rows, columns], spread[box][rows, columns] ** 2
        order = _along_axis(rows, columns)
        values, noise = values[order], noise[order]
        inflation = stats[number, 1] / noise.sum()
        first, last = np.cumsum(values)[:-1], np.cumsum(values[::-1])[::-1][1:]
        first_noise, last_noise = np.cumsum(noise)[:-1], np.cumsum(noise[::-1])[::-1][1:]
        lesser = np.minimum(first / np.sqrt(first_noise), last / np.sqrt(last_noise)) / np.sqrt(inflation)
        cut = int(np.argmax(lesser))
        if lesser[cut] >= target:
            part = order[: cut + 1]
            work[box][rows[part], columns[part]] = stats.shape[0] + n_split
            n_split += 1
    return n_split


def _along_axis(rows: Array, columns: Array) -> Array:
    """Order of pixels along the longer axis of their distribution."""
    centred = np.stack([rows - rows.mean(), columns - columns.mean()])
    axis = np.linalg.eigh(centred @ centred.T)[1][:, 1]
    return np.argsort(axis @ centred, kind="stable")


def _dissolve(work: Labels, stats: Array, kind: Array, target: float, poor: float) -> int:
    """Share out superfluous bins among their neighbours, in place; return how many there were."""
    places, order = _poorest_first(work, stats, target * poor)
    named = bin_repair.superfluous_bins(work, stats, kind, places, order, target)
    if not named.any():
        return 0
    n_pixels = np.maximum(stats[:, 2], 1.0)
    generators = np.column_stack([stats[:, 3] / n_pixels, stats[:, 4] / n_pixels, n_pixels / np.pi])
    closed = (kind != 0) | named | (stats[:, 2] < 2.0)
    voronoi_cells.settle_pixels(work, (work >= 0) & named[work], generators, closed, 4)
    return int(np.count_nonzero(named))


def _separate(work: Labels, kind: Array) -> tuple[Labels, Array]:
    """Number the pieces anew: what could not be dissolved may have fallen apart."""
    pieces, n_pieces = voronoi_cells.label_pieces(work)
    inside = pieces >= 0
    renewed = np.zeros(n_pieces, dtype=np.int64)
    known = inside & (work < kind.size)  # Halves have higher numbers, and are no remainders.
    renewed[pieces[known]] = kind[work[known]]
    return pieces, renewed


def _poorest_first(work: Labels, stats: Array, target: float) -> tuple[Array, Array]:
    """A pixel of each bin, and the bins below the target, the poorest first."""
    places = np.zeros(stats.shape[0], dtype=np.int64)
    flat = work.ravel()
    where = np.flatnonzero(flat >= 0)
    places[flat[where]] = where
    used = stats[:, 2] > 0
    ratio = np.full(stats.shape[0], np.inf)
    ratio[used] = stats[used, 0] / np.sqrt(stats[used, 1]) / target
    poor = np.flatnonzero(ratio < 1.0)
    return places, poor[np.argsort(ratio[poor], kind="stable")].astype(np.int64)


def number_bins(field: BinField, labels: Labels) -> tuple[Labels, Labels]:
    """Dense labels in the order of first pixels, and which are below the target by the exact variance."""
    from skyloom.core.noise import region_variances

    found, first, dense = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.full(found.size, -1, dtype=np.int32)
    used = np.flatnonzero(found >= 0)
    rank[used[np.argsort(first[used], kind="stable")]] = np.arange(used.size, dtype=np.int32)
    numbered = rank[dense].reshape(labels.shape).astype(np.int32)
    inside = numbered >= 0
    total = np.bincount(numbered[inside], field.signal[inside], used.size)
    noise = np.sqrt(region_variances(field.variance, numbered, used.size, field.correlation))
    # Sums in another order differ by rounding, which makes no bin a remainder.
    return numbered, np.flatnonzero(total < field.target * noise * (1.0 - 1e-9)).astype(np.int32)
