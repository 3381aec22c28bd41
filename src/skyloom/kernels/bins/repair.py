"""What becomes of bins that stay below the target: dissolved into their neighbours, handed over, merged, or left.

Arrays are padded and tables laid out as in `skyloom.kernels.bins.exchange`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyloom.kernels.bins.exchange import (
    COUNT,
    FREE,
    REMAINDER,
    SHAPE,
    SIGNAL,
    VARIANCE,
    content_of,
    cost,
    expected,
    link,
    misplaced,
    move,
)

__all__ = ["hand_over_pixels", "merge_bins", "superfluous_bins"]

Array = NDArray[Any]
SMALL = 30  # Pixels of a bin that may be handed over one by one.


@njit(cache=True, nogil=True, error_model="numpy")
def _collect(labels: Array, y: int, x: int, queue: Array, seen: Array, stamp: int) -> int:
    """List the pixels of the (connected) bin of (y, x) in ``queue``; return how many."""
    nx = labels.shape[1]
    own = labels[y, x]
    queue[0] = y * nx + x
    seen[y, x] = stamp
    head, tail = 0, 1
    while head < tail:
        place_y, place_x = queue[head] // nx, queue[head] % nx
        head += 1
        for side in range(4):
            other_y = place_y + (side == 0) - (side == 1)
            other_x = place_x + (side == 2) - (side == 3)
            if labels[other_y, other_x] == own and seen[other_y, other_x] != stamp:
                seen[other_y, other_x] = stamp
                queue[tail] = other_y * nx + other_x
                tail += 1
    return tail


@njit(cache=True, nogil=True, error_model="numpy")
def _taker(
    labels: Array,
    signal: Array,
    spread: Array,
    correlation: Array,
    stats: Array,
    kind: Array,
    target: float,
    aim: float,
    y: int,
    x: int,
) -> tuple[int, float]:
    """The neighbouring bin that takes in (y, x) at least cost without falling below the target, and its variance."""
    giver = labels[y, x]
    value, noise = signal[y, x], spread[y, x] ** 2
    best, least, best_variance = -1, np.inf, 0.0
    for side in range(4):
        taker = labels[y + (side == 0) - (side == 1), x + (side == 2) - (side == 3)]
        if taker < 0 or taker == giver or kind[taker] != FREE:
            continue
        before = content_of(stats[taker, SIGNAL], stats[taker, VARIANCE], target)
        variance = stats[taker, VARIANCE] + noise + link(labels, spread, correlation, y, x, taker)
        after = content_of(stats[taker, SIGNAL] + value, variance, target)
        if variance <= 0.0 or (after < 1.0 and (after <= before or before >= 1.0)):
            continue
        after = content_of(
            stats[taker, SIGNAL] + expected(stats, giver, taker, value, noise), variance, target
        )
        price = cost(after, aim) - cost(before, aim)
        price += SHAPE / stats[taker, COUNT] * misplaced(stats, y, x, giver, taker)
        if price < least:
            best, least, best_variance = taker, price, variance
    return best, best_variance


@njit(cache=True, nogil=True, error_model="numpy")
def _affordable(
    labels: Array,
    stats: Array,
    kind: Array,
    queue: Array,
    size: int,
    target: float,
    lengths: Array,
    touched: Array,
    named: Array,
) -> bool:
    """Whether the bin's neighbours, sharing it by their parts of its border, would stay above the target on average."""
    nx = labels.shape[1]
    poor = labels[queue[0] // nx, queue[0] % nx]
    n_seen, border, free = 0, 0.0, True
    for index in range(size):
        y, x = queue[index] // nx, queue[index] % nx
        for side in range(4):
            other = labels[y + (side == 0) - (side == 1), x + (side == 2) - (side == 3)]
            if other < 0 or other == poor or kind[other] != FREE or stats[other, COUNT] < 2.0:
                continue
            free = free and not named[other]
            if lengths[other] == 0.0:
                touched[n_seen] = other
                n_seen += 1
            lengths[other] += 1.0
            border += 1.0
    total = 0.0
    for index in range(n_seen):
        other = touched[index]
        share = lengths[other] / border
        content = content_of(
            stats[other, SIGNAL] + share * stats[poor, SIGNAL],
            stats[other, VARIANCE] + share * stats[poor, VARIANCE],
            target,
        )
        total += min(content, 2.0)
        lengths[other] = 0.0
    return free and n_seen > 0 and total >= n_seen


@njit(cache=True, nogil=True, error_model="numpy")
def superfluous_bins(
    labels: Array, stats: Array, kind: Array, places: Array, order: Array, target: float
) -> Array:
    """Return (n_bins,) bool: bins below the target whose neighbours can share them and stay above it on average.

    ``places`` holds the flat index of a pixel of each bin, ``order`` the bins to look at, poorest first. Of bins that
    touch only one is named.
    """
    nx = labels.shape[1]
    n_bins = stats.shape[0]
    queue = np.empty(labels.size, dtype=np.int64)
    seen = np.zeros(labels.shape, dtype=np.int64)
    lengths, touched = np.zeros(n_bins), np.empty(n_bins, dtype=np.int64)
    named = np.zeros(n_bins, dtype=np.bool_)
    for turn in range(order.size):
        poor = order[turn]
        if kind[poor] != FREE:
            continue
        size = _collect(labels, places[poor] // nx, places[poor] % nx, queue, seen, turn + 1)
        named[poor] = _affordable(labels, stats, kind, queue, size, target, lengths, touched, named)
    return named


@njit(cache=True, nogil=True, error_model="numpy")
def hand_over_pixels(
    labels: Array,
    signal: Array,
    spread: Array,
    correlation: Array,
    stats: Array,
    kind: Array,
    places: Array,
    order: Array,
    target: float,
    aim: float,
) -> int:
    """Hand the pixels of small bins below the target over one by one, where no taker falls below the target by it.

    The last resort for pixels among bins of one pixel, which take part here. Of a large bin only the lucky pixels would
    find takers, so those are left as they are.

    Parameters
    ----------
    places : (n_bins,) int64 array
        Flat index of one pixel of each bin.
    order : (n,) int64 array
        Bins to look at; each is skipped when its neighbours' pixels have lifted it over the target meanwhile.

    Returns
    -------
    int
        Pixels that no neighbour could take. They keep their label, perhaps in several pieces.
    """
    nx = labels.shape[1]
    queue = np.empty(labels.size, dtype=np.int64)
    seen = np.zeros(labels.shape, dtype=np.int64)
    stuck = 0
    for turn in range(order.size):
        poor = order[turn]
        if stats[poor, COUNT] == 0.0 or kind[poor] != FREE:
            continue
        if content_of(stats[poor, SIGNAL], stats[poor, VARIANCE], target) >= 1.0:
            continue
        n_left = _collect(labels, places[poor] // nx, places[poor] % nx, queue, seen, turn + 1)
        if n_left > SMALL:
            continue
        progress = True
        while n_left > 0 and progress:
            progress = False
            kept = 0
            for index in range(n_left):
                y, x = queue[index] // nx, queue[index] % nx
                taker, variance = _taker(labels, signal, spread, correlation, stats, kind, target, aim, y, x)
                if taker < 0:
                    queue[kept] = queue[index]
                    kept += 1
                    continue
                lost = spread[y, x] ** 2 + link(labels, spread, correlation, y, x, poor)
                move(labels, signal, stats, y, x, taker, stats[poor, VARIANCE] - lost, variance)
                progress = True
            n_left = kept
        stuck += n_left
    return stuck


@njit(cache=True, nogil=True, error_model="numpy")
def merge_bins(  # noqa: C901 (one loop over pixels)
    labels: Array,
    signal: Array,
    spread: Array,
    correlation: Array,
    stats: Array,
    kind: Array,
    places: Array,
    order: Array,
    target: float,
    accept: float,
) -> int:
    """Join each bin below the target with the neighbour that makes both reach it with least to spare.

    Where there is none it joins a remainder, or another bin below the target, beside it; where there is none either,
    it becomes a remainder. With ``accept`` below 1 only small bins (`SMALL`) are looked at: they join the neighbour
    that is left with most, if that is at least ``accept`` in (S/N / target)^2, for exchanges to lift it again, and
    nothing becomes a remainder.

    Returns
    -------
    int
        Bins that stayed below the target on their own.
    """
    nx = labels.shape[1]
    queue = np.empty(labels.size, dtype=np.int64)
    seen = np.zeros(labels.shape, dtype=np.int64)
    alone = 0
    for turn in range(order.size):
        poor = order[turn]
        if stats[poor, COUNT] == 0.0 or kind[poor] != FREE:
            continue
        if content_of(stats[poor, SIGNAL], stats[poor, VARIANCE], target) >= 1.0:
            continue
        size = _collect(labels, places[poor] // nx, places[poor] % nx, queue, seen, turn + 1)
        if accept < 1.0 and size > SMALL:
            continue
        best, least, best_variance, leftover = -1, np.inf, 0.0, -1
        tried = -1
        for index in range(size):
            y, x = queue[index] // nx, queue[index] % nx
            for side in range(4):
                other = labels[y + (side == 0) - (side == 1), x + (side == 2) - (side == 3)]
                if other == tried or other == best or other == poor or other < 0:  # noqa: SIM109 (numba)
                    continue
                if kind[other] != FREE:
                    leftover = other
                    continue
                tried = other
                variance = stats[poor, VARIANCE] + stats[other, VARIANCE]
                if content_of(stats[other, SIGNAL], stats[other, VARIANCE], target) < 1.0:
                    leftover = other if leftover < 0 else leftover
                # Correlation lowers this further; the sum over it is worth its time only here.
                if content_of(stats[poor, SIGNAL] + stats[other, SIGNAL], variance, target) < accept:
                    continue
                for member in range(size):
                    variance += link(
                        labels, spread, correlation, queue[member] // nx, queue[member] % nx, other
                    )
                content = content_of(stats[poor, SIGNAL] + stats[other, SIGNAL], variance, target)
                # Above the target the nearest to it, else the nearest below.
                spare = content if content >= 1.0 else 1e6 - content
                if content >= accept and spare < least:
                    best, least, best_variance = other, spare, variance
        if best < 0 and accept < 1.0:
            continue
        if best < 0 and leftover >= 0:
            best = leftover
            best_variance = stats[poor, VARIANCE] + stats[best, VARIANCE]
            for member in range(size):
                best_variance += link(
                    labels, spread, correlation, queue[member] // nx, queue[member] % nx, best
                )
        if best < 0:
            kind[poor] = REMAINDER
            alone += 1
            continue
        for index in range(size):
            move(labels, signal, stats, queue[index] // nx, queue[index] % nx, best, 0.0, best_variance)
    return alone
