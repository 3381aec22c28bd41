"""Pixels change bins, one at a time, under three rules: bins stay connected, their exact signal-to-noise ratio is
always known, and none falls below the target to serve another.

Arrays are padded by the radius of the noise correlation (at least 1) with label -1 and standard deviation 0, so that
no loop asks where the border is. ``stats`` has a row per bin: signal, variance, pixels, sum of rows, sum of columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "COUNT",
    "FREE",
    "REMAINDER",
    "SHAPE",
    "SIGNAL",
    "VARIANCE",
    "bin_stats",
    "content_of",
    "cost",
    "exchange_pixels",
    "expected",
    "link",
    "misplaced",
    "move",
    "removable",
]

Array = NDArray[Any]
SIGNAL, VARIANCE, COUNT, ROWS, COLUMNS = 0, 1, 2, 3, 4
FREE, REMAINDER = 0, 1
BELOW = 6  # Price of one unit of content below the target, against the square of a deviation above.
# Price of one more pair of neighbours in different bins, per share of the bin; up to 21 times that for large bins.
EDGE = 0.15
REACH = 2.0  # Square of the distance, in radii of the bin, at which it may still take a pixel.
SHAPE = 0.15  # Price of a pixel one cell radius on the wrong side of the border, per share of the cell.


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def link(labels: Array, spread: Array, correlation: Array, y: int, x: int, member: int) -> float:
    """Twice the covariance of pixel (y, x) with the pixels of bin ``member`` other than itself."""
    radius = correlation.shape[0] // 2
    total = 0.0
    if radius == 0:
        return total
    for row in range(-radius, radius + 1):
        for column in range(-radius, radius + 1):
            if labels[y + row, x + column] == member:
                total += correlation[radius + row, radius + column] * spread[y + row, x + column]
    if labels[y, x] == member:
        total -= correlation[radius, radius] * spread[y, x]
    return 2.0 * spread[y, x] * total


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def content_of(signal: float, variance: float, target: float) -> float:
    """(S/N / target)^2, with the sign of the signal."""
    return signal * abs(signal) / (variance * target * target)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def cost(content: float, aim: float) -> float:
    """Price of a bin: none at ``aim``, growing both ways, steep below the target, flat where it is far above."""
    capped = min(content, aim + 2.0)
    price = (capped - aim) ** 2 if capped > -1.0 else (1.0 + aim) ** 2
    if content < 1.0:
        price += BELOW * (1.0 - content)
    return price


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def removable(labels: Array, y: int, x: int) -> bool:
    """Whether the bin of (y, x) stays 4-connected without it, judged from the eight pixels around (sufficient)."""
    own = labels[y, x]
    south, north = labels[y - 1, x] == own, labels[y + 1, x] == own
    west, east = labels[y, x - 1] == own, labels[y, x + 1] == own
    joints = 0
    joints += south and west and labels[y - 1, x - 1] == own
    joints += south and east and labels[y - 1, x + 1] == own
    joints += north and west and labels[y + 1, x - 1] == own
    joints += north and east and labels[y + 1, x + 1] == own
    return int(south) + int(north) + int(west) + int(east) - joints == 1


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def misplaced(stats: Array, y: int, x: int, giver: int, taker: int) -> float:
    """How far (y, x) lies on the giver's side of the border with the taker: about -1 to 1; positive = keep.

    1e9 where the pixel would be an arm of the taker, beyond 1.4 radii (more for bins of a few pixels).
    """
    give_n, take_n = stats[giver, COUNT], stats[taker, COUNT]
    give_y, give_x = stats[giver, ROWS] / give_n, stats[giver, COLUMNS] / give_n
    take_y, take_x = stats[taker, ROWS] / take_n, stats[taker, COLUMNS] / take_n
    give = ((y - give_y) ** 2 + (x - give_x) ** 2) * np.pi / give_n
    take = ((y - take_y) ** 2 + (x - take_x) ** 2) * np.pi / take_n
    if take > REACH + 4.0 / take_n and take > give:
        return 1e9
    return min(max(take - give, -2.0), 2.0)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def expected(stats: Array, first: int, second: int, value: float, noise: float) -> float:
    """What a pixel between two bins is worth, its noise taken off.

    Decisions made with the noisy value would sort lucky pixels into poor bins along fractal borders. The pixel's own
    value counts by q / (1 + q), q being the square of the mean signal over the pixel's variance.
    """
    mean = (stats[first, SIGNAL] + stats[second, SIGNAL]) / (stats[first, COUNT] + stats[second, COUNT])
    share = mean * mean / (mean * mean + noise)
    return mean + share * (value - mean)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _roughening(labels: Array, y: int, x: int, giver: int, taker: int) -> int:
    """How much longer the border gets: pixels of the giver less those of the taker, of the eight around (y, x)."""
    longer = 0
    for row in range(-1, 2):
        for column in range(-1, 2):
            other = labels[y + row, x + column]
            longer += int(other == giver) - int(other == taker)
    return longer - 1


@njit(cache=True, nogil=True, error_model="numpy")
def bin_stats(
    labels: Array, signal: Array, spread: Array, correlation: Array, n_bins: int, pad: int
) -> Array:
    """Return the (n_bins, 5) table of exact sums of a padded field."""
    stats = np.zeros((n_bins, 5))
    ny, nx = labels.shape
    for y in range(pad, ny - pad):
        for x in range(pad, nx - pad):
            own = labels[y, x]
            if own < 0:
                continue
            stats[own, SIGNAL] += signal[y, x]
            shared = link(labels, spread, correlation, y, x, own)
            stats[own, VARIANCE] += spread[y, x] ** 2 + 0.5 * shared
            stats[own, COUNT] += 1.0
            stats[own, ROWS] += y
            stats[own, COLUMNS] += x
    return stats


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def move(
    labels: Array,
    signal: Array,
    stats: Array,
    y: int,
    x: int,
    taker: int,
    give_variance: float,
    take_variance: float,
) -> None:
    """Hand a pixel over; the variances of both bins afterwards are known to the caller."""
    giver = labels[y, x]
    stats[giver, SIGNAL] -= signal[y, x]
    stats[giver, VARIANCE] = give_variance
    stats[giver, COUNT] -= 1.0
    stats[giver, ROWS] -= y
    stats[giver, COLUMNS] -= x
    stats[taker, SIGNAL] += signal[y, x]
    stats[taker, VARIANCE] = take_variance
    stats[taker, COUNT] += 1.0
    stats[taker, ROWS] += y
    stats[taker, COLUMNS] += x
    labels[y, x] = taker


@njit(cache=True, nogil=True, error_model="numpy")
def exchange_pixels(  # noqa: C901 (one loop over pixels)
    labels: Array,
    signal: Array,
    spread: Array,
    correlation: Array,
    stats: Array,
    kind: Array,
    target: float,
    aim: float,
    sweeps: int,
) -> int:
    """Let border pixels change sides where that evens out the bins or rounds them, for some sweeps.

    Bins that are one pixel at or above the target, and remainders, take no part. A bin at or above the target never
    falls below it here.

    Returns
    -------
    int
        Pixels moved in the last sweep.
    """
    pad = max(1, correlation.shape[0] // 2)
    ny, nx = labels.shape
    moved = 0
    for sweep in range(sweeps):
        moved = 0
        forward = sweep % 2 == 0
        for row in range(pad, ny - pad):
            y = row if forward else ny - 1 - row
            for column in range(pad, nx - pad):
                x = column if forward else nx - 1 - column
                giver = labels[y, x]
                if giver < 0:
                    continue
                south, north, west, east = (
                    labels[y - 1, x],
                    labels[y + 1, x],
                    labels[y, x - 1],
                    labels[y, x + 1],
                )
                if south == giver and north == giver and west == giver and east == giver:
                    continue
                if kind[giver] != FREE or stats[giver, COUNT] < 2.0 or not removable(labels, y, x):
                    continue
                value, noise = signal[y, x], spread[y, x] ** 2
                give_before = content_of(stats[giver, SIGNAL], stats[giver, VARIANCE], target)
                give_variance = (
                    stats[giver, VARIANCE] - noise - link(labels, spread, correlation, y, x, giver)
                )
                if give_variance <= 0.0:
                    continue
                give_after = content_of(stats[giver, SIGNAL] - value, give_variance, target)
                if give_before >= 1.0 and give_after < 1.0:
                    continue
                best, most, best_variance = -1, 1e-9, 0.0
                for side in range(4):
                    taker = south if side == 0 else north if side == 1 else west if side == 2 else east
                    if taker == best or taker == giver or taker < 0 or kind[taker] != FREE:  # noqa: SIM109 (numba)
                        continue
                    before = content_of(stats[taker, SIGNAL], stats[taker, VARIANCE], target)
                    if stats[taker, COUNT] < 2.0 and before >= 1.0:
                        continue
                    variance = stats[taker, VARIANCE] + noise + link(labels, spread, correlation, y, x, taker)
                    if variance <= 0.0:
                        continue
                    after = content_of(stats[taker, SIGNAL] + value, variance, target)
                    if before >= 1.0 and after < 1.0:
                        continue
                    likely = expected(stats, giver, taker, value, noise)
                    give_after = content_of(stats[giver, SIGNAL] - likely, give_variance, target)
                    after = content_of(stats[taker, SIGNAL] + likely, variance, target)
                    # Both by the noisy value, above, and by the likely one: a bin at the floor would otherwise
                    # give away its unlucky pixels, and only those.
                    if (give_before >= 1.0 and give_after < 1.0) or (before >= 1.0 and after < 1.0):
                        continue
                    total = cost(give_before, aim) - cost(give_after, aim)
                    total += cost(before, aim) - cost(after, aim)
                    share = 0.5 / stats[giver, COUNT] + 0.5 / stats[taker, COUNT]
                    total -= SHAPE * share * misplaced(stats, y, x, giver, taker)
                    straight = 1.0 + min(0.02 * min(stats[giver, COUNT], stats[taker, COUNT]), 20.0)
                    total -= EDGE * straight * share * _roughening(labels, y, x, giver, taker)
                    if total > most:
                        best, most, best_variance = taker, total, variance
                if best >= 0:
                    move(labels, signal, stats, y, x, best, give_variance, best_variance)
                    moved += 1
        if moved == 0:
            break
    return moved
