"""Continuum subtraction on plain arrays: one pass through three images with their variances and masks.

Values are combined in float64 and stored in the type of the images; nothing that lies under a mask is read into a
result. Each kernel takes rows of the image and is called by several threads, each with rows of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["N_COUNTS", "SMALLEST", "add_blocks", "subtract_fixed", "subtract_mapped"]

Array = NDArray[Any]
Float = NDArray[np.float64]
N_COUNTS = 16
"""Counts that a pass returns: usable pixels; shares of the three images in the variance of the excess; the same for
the continuum; pixels not zero in either continuum; unusable results; pixels without a positive continuum; pixels
interpolated in log flux, linearly with the colour around them, linearly without; without convergence; iterations."""
ROUNDS = 40
SMALLEST = 0.1  # Share of the line light that must be left when the lines in the broad bands are taken out.
SHARE_STEP = 4  # The shares of the variance are means over every so many pixels of a row.

# Re-association lets sums run on whole vectors; tests for NaN and infinity stay intact.
SAFE = {"contract", "reassoc", "nsz"}


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SAFE)
def subtract_fixed(
    data: tuple[Array, ...],
    variance: tuple[Array, ...],
    hidden: tuple[Array, ...],
    factors: Float,
    out_data: tuple[Array, ...],
    out_variance: tuple[Array, ...],
    mask: NDArray[np.bool_],
    counts: Float,
) -> None:  # pragma: no cover - compiled
    """Write two sums of three images, ``factors[i] @ data``, with variance ``factors[i]**2 @ variance``.

    Parameters
    ----------
    data, variance, hidden : three (ny, nx) arrays each
        Narrow band and the two continua; True in ``hidden`` where a pixel does not count.
    factors : (2, 3) float64 array
        Rows: excess, continuum.
    out_data, out_variance : two (ny, nx) arrays each
        Overwritten: excess, continuum. NaN where masked.
    mask : (ny, nx) bool array
        Overwritten.
    counts : (N_COUNTS,) float64 array
        Added to.
    """
    ny, nx = mask.shape
    e0, e1, e2 = factors[0, 0], factors[0, 1], factors[0, 2]
    c0, c1, c2 = factors[1, 0], factors[1, 1], factors[1, 2]
    e0s, e1s, e2s = e0 * e0, e1 * e1, e2 * e2
    c0s, c1s, c2s = c0 * c0, c1 * c1, c2 * c2
    for y in range(ny):
        n, b, r = data[0][y], data[1][y], data[2][y]
        vn, vb, vr = variance[0][y], variance[1][y], variance[2][y]
        mn, mb, mr = hidden[0][y], hidden[1][y], hidden[2][y]
        excess, continuum, ve, vc = out_data[0][y], out_data[1][y], out_variance[0][y], out_variance[1][y]
        masked = mask[y]
        n_valid, n_given, n_blue, n_red, n_dark = 0, 0, 0, 0, 0
        for x in range(nx):
            given = not (mn[x] | mb[x] | mr[x])
            first, second, third = np.float64(n[x]), np.float64(b[x]), np.float64(r[x])
            value = excess.dtype.type(e0 * first + e1 * second + e2 * third)
            level = continuum.dtype.type(c0 * first + c1 * second + c2 * third)
            spread = ve.dtype.type(e0s * vn[x] + e1s * vb[x] + e2s * vr[x])
            width = vc.dtype.type(c0s * vn[x] + c1s * vb[x] + c2s * vr[x])
            usable = (
                given
                & (abs(value) < np.inf)
                & (spread > 0)
                & (spread < np.inf)
                & (abs(level) < np.inf)
                & (width > 0)
                & (width < np.inf)
            )
            masked[x] = not usable
            excess[x] = value if usable else np.nan
            continuum[x] = level if usable else np.nan
            ve[x] = spread if usable else np.nan
            vc[x] = width if usable else np.nan
            n_given += given
            n_valid += usable
            n_blue += given & (second != 0)
            n_red += given & (third != 0)
            n_dark += usable & (level <= 0)
        for x in range(0, nx, SHARE_STEP):
            if not masked[x]:
                total = e0s * vn[x] + e1s * vb[x] + e2s * vr[x]
                counts[1] += e0s * vn[x] / total
                counts[2] += e1s * vb[x] / total
                counts[3] += e2s * vr[x] / total
                total = c0s * vn[x] + c1s * vb[x] + c2s * vr[x]
                counts[4] += c0s * vn[x] / total
                counts[5] += c1s * vb[x] / total
                counts[6] += c2s * vr[x] / total
        counts[0] += n_valid
        counts[7] += n_blue
        counts[8] += n_red
        counts[9] += n_given - n_valid
        counts[10] += n_dark


@njit(cache=True, nogil=True, error_model="numpy")
def _solve(
    narrow: float, blue: float, red: float, k1: float, k2: float, w1: float, w2: float, start: float
) -> tuple[float, int]:  # pragma: no cover - compiled
    """Newton's solution of E = N - (B - k1 E)^w1 (R - k2 E)^w2, and the rounds it took; -1 when there is none."""
    excess = start
    for turn in range(ROUNDS):
        x, y = blue - k1 * excess, red - k2 * excess
        if not (x > 0 and y > 0):
            return excess, -1
        level = np.exp(w1 * np.log(x) + w2 * np.log(y))
        slope = 1.0 - level * (k1 * w1 / x + k2 * w2 / y)
        if not slope > SMALLEST:
            return excess, -1
        change = (excess - narrow + level) / slope
        excess -= change
        if abs(change) <= 1e-10 * (abs(excess) + level) or (k1 == 0 and k2 == 0):
            return excess, turn + 1
    return excess, -1


@njit(cache=True, nogil=True, error_model="numpy")
def _logarithmic(
    level: float,
    x: float,
    y: float,
    vn: float,
    vb: float,
    vr: float,
    k1: float,
    k2: float,
    w1: float,
    w2: float,
) -> tuple[float, float, float, float, float]:  # pragma: no cover - compiled
    """Return 1 / slope, both derivatives of the continuum, its bias, and the second-order term of the variance.

    ``level`` is the continuum x^w1 y^w2; the equations stand in `skyloom.imaging.narrow_band.continuum`.
    """
    cb, cr = w1 * level / x, w2 * level / y
    gain = 1.0 / (1.0 - k1 * cb - k2 * cr)
    spread = (vn + cb * cb * vb + cr * cr * vr) * gain * gain
    vx = vb * (1.0 + 2.0 * k1 * cb * gain) + k1 * k1 * spread
    vy = vr * (1.0 + 2.0 * k2 * cr * gain) + k2 * k2 * spread
    vxy = (k2 * cb * vb + k1 * cr * vr) * gain + k1 * k2 * spread
    colour = vx / (x * x) + vy / (y * y) - 2.0 * vxy / (x * y)
    bias = -0.5 * w1 * w2 * level * colour
    ub, ur = vb / (x * x), vr / (y * y)
    third = w1 * w1 * ub * w2 * ((1.0 + w2) * ub - w1 * ur) + w2 * w2 * ur * w1 * ((1.0 + w1) * ur - w2 * ub)
    second = -2.0 * bias * bias - level * level * third
    return gain, cb, cr, bias, second


@njit(cache=True, nogil=True, error_model="numpy")
def _between(position: float, n: int) -> tuple[int, int, float]:  # pragma: no cover - compiled
    """Two neighbours of a position among n samples, and the share of the second; constant beyond the ends."""
    inside = min(max(position, 0.0), n - 1.0)
    low = min(int(inside), max(n - 2, 0))
    return low, min(low + 1, n - 1), inside - low


@njit(cache=True, nogil=True, error_model="numpy")
def _combine(
    values: tuple[float, float, float],
    errors: tuple[float, float, float],
    k1: float,
    k2: float,
    local: tuple[float, float],
    weights: Float,
    minimum_snr: float,
) -> tuple[float, float, float, float, float, int]:  # pragma: no cover - compiled
    """Return excess, 1 / slope, both derivatives of the continuum, second-order variance, and how it was found.

    How: -2 not at all, -1 linearly since there was no convergence, 0 linearly, otherwise rounds of the logarithm.
    """
    narrow, blue, red = values
    g1, g2 = local
    left = 1.0 - g1 * k1 - g2 * k2
    if not left > SMALLEST:
        return np.nan, np.nan, g1, g2, 0.0, -2
    excess = (narrow - g1 * blue - g2 * red) / left
    if not minimum_snr < np.inf:
        return excess, 1.0 / left, g1, g2, 0.0, 0
    x, y = blue - k1 * excess, red - k2 * excess
    if not (x > minimum_snr * np.sqrt(errors[1]) and y > minimum_snr * np.sqrt(errors[2])):
        return excess, 1.0 / left, g1, g2, 0.0, 0
    w1, w2 = weights[0], weights[1]
    value, rounds = _solve(narrow, blue, red, k1, k2, w1, w2, excess)
    if rounds < 0:
        return excess, 1.0 / left, g1, g2, 0.0, -1
    x, y = blue - k1 * value, red - k2 * value
    gain, cb, cr, bias, second = _logarithmic(
        narrow - value, x, y, errors[0], errors[1], errors[2], k1, k2, w1, w2
    )
    return value + bias * gain, gain, cb, cr, second, rounds


@njit(cache=True, nogil=True, error_model="numpy")
def _store(
    narrow: float,
    errors: tuple[float, float, float],
    found: tuple[float, float, float, float, float, int],
    out_data: tuple[Array, ...],
    out_variance: tuple[Array, ...],
    y: int,
    x: int,
    counts: Float,
) -> bool:  # pragma: no cover - compiled
    """Write a pixel of both results and count it; False, and NaN, where it is not usable."""
    excess, gain, cb, cr, second, _ = found
    n_part, b_part, r_part = (
        errors[0] * gain * gain,
        errors[1] * (cb * gain) ** 2,
        errors[2] * (cr * gain) ** 2,
    )
    spread = n_part + b_part + r_part
    c_part = errors[0] * (1.0 - gain) ** 2
    width = c_part + b_part + r_part
    # The expansion is one of small errors: it may sharpen the error, never take most of it away.
    more = max(second * gain * gain, -0.5 * (b_part + r_part))
    out_data[0][y, x], out_data[1][y, x] = excess, narrow - excess
    out_variance[0][y, x], out_variance[1][y, x] = spread + more, width + more
    usable = True
    for i in range(2):
        usable = usable and abs(out_data[i][y, x]) < np.inf
        usable = usable and out_variance[i][y, x] > 0 and out_variance[i][y, x] < np.inf
    if not usable:
        counts[9] += 1
        for i in range(2):
            out_data[i][y, x] = np.nan
            out_variance[i][y, x] = np.nan
        return False
    counts[0] += 1
    counts[1] += n_part / spread
    counts[2] += b_part / spread
    counts[3] += r_part / spread
    counts[4] += c_part / width
    counts[5] += b_part / width
    counts[6] += r_part / width
    counts[10] += narrow - excess <= 0
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def subtract_mapped(
    data: tuple[Array, ...],
    variance: tuple[Array, ...],
    hidden: tuple[Array, ...],
    scales: Float,
    weights: Float,
    k1: Float,
    k2: Float,
    coarse: Float,
    place: tuple[int, int],
    minimum_snr: float,
    out_data: tuple[Array, ...],
    out_variance: tuple[Array, ...],
    mask: NDArray[np.bool_],
    slopes: tuple[Array, ...],
    counts: Float,
) -> None:  # pragma: no cover - compiled
    """Subtract a continuum whose weights change from pixel to pixel.

    Parameters
    ----------
    data, variance, hidden, out_data, out_variance, mask, counts
        As for `subtract_fixed`.
    scales : (3,) float64 array
        What each image is multiplied by first.
    weights : (2,) float64 array
        Weights of the continua, linear or in log flux.
    k1, k2 : (ny, nx) or (1, 1) float64 arrays
        Light of the lines in each continuum, per light of the lines in the narrow band.
    coarse : (2, n, m) float64 array
        Linear weights at the centres of blocks, interpolated in between. n = m = 0: ``weights`` everywhere.
    place : (int, int)
        Row of the image that these rows start at; side of a block.
    minimum_snr : float
        Signal to noise that both continua must have to be interpolated in log flux; infinite: never.
    slopes : three (ny, nx) arrays, or (0, 0)
        Overwritten where they have a size: derivative of the excess by each image.
    """
    ny, nx = mask.shape
    n_down, n_along = coarse.shape[1], coarse.shape[2]
    first_row, block = place
    line = np.empty((2, max(1, n_along)))
    line[0], line[1] = weights[0], weights[1]
    map1, map2 = k1.size > 1, k2.size > 1
    for plane in slopes:
        plane[:] = 0
    for y in range(ny):
        if n_down:
            low, high, part = _between((first_row + y + 0.5) / block - 0.5, n_down)
            for i in range(n_along):
                line[0, i] = (1 - part) * coarse[0, low, i] + part * coarse[0, high, i]
                line[1, i] = (1 - part) * coarse[1, low, i] + part * coarse[1, high, i]
        for x in range(nx):
            mask[y, x] = True
            if hidden[0][y, x] or hidden[1][y, x] or hidden[2][y, x]:
                out_data[0][y, x], out_data[1][y, x] = np.nan, np.nan
                out_variance[0][y, x], out_variance[1][y, x] = np.nan, np.nan
                continue
            values = (
                scales[0] * np.float64(data[0][y, x]),
                scales[1] * np.float64(data[1][y, x]),
                scales[2] * np.float64(data[2][y, x]),
            )
            errors = (
                scales[0] * scales[0] * np.float64(variance[0][y, x]),
                scales[1] * scales[1] * np.float64(variance[1][y, x]),
                scales[2] * scales[2] * np.float64(variance[2][y, x]),
            )
            counts[7] += values[1] != 0
            counts[8] += values[2] != 0
            low, high, part = _between((x + 0.5) / block - 0.5, line.shape[1])
            local = (
                (1 - part) * line[0, low] + part * line[0, high],
                (1 - part) * line[1, low] + part * line[1, high],
            )
            share1 = k1[y, x] if map1 else k1[0, 0]
            share2 = k2[y, x] if map2 else k2[0, 0]
            found = _combine(values, errors, share1, share2, local, weights, minimum_snr)
            if not _store(values[0], errors, found, out_data, out_variance, y, x, counts):
                continue
            mask[y, x] = False
            _, gain, cb, cr, _, how = found
            counts[11 if how > 0 else (12 if n_down else 13)] += 1
            counts[14] += how == -1
            counts[15] = max(counts[15], how)
            if slopes[0].size:
                slopes[0][y, x] = scales[0] * gain
            if slopes[1].size:
                slopes[1][y, x] = -scales[1] * cb * gain
            if slopes[2].size:
                slopes[2][y, x] = -scales[2] * cr * gain


@njit(cache=True, nogil=True, error_model="numpy")
def add_blocks(
    first: Array,
    second: Array,
    first_variance: Array,
    second_variance: Array,
    first_mask: NDArray[np.bool_],
    second_mask: NDArray[np.bool_],
    block: int,
    sums: Float,
) -> None:  # pragma: no cover - compiled
    """Add up two images and their variances over square blocks, of the pixels that both have.

    Parameters
    ----------
    first, second, first_variance, second_variance, first_mask, second_mask : (ny, nx) arrays
    block : int
        Side of a block in pixels; blocks at the end may be smaller.
    sums : (4, n, m) float64 array
        Added to: sum of each image, sum of each variance.
    """
    ny, nx = first.shape
    for y in range(ny):
        row = y // block
        for column in range(sums.shape[2]):
            blue, red, vb, vr = 0.0, 0.0, 0.0, 0.0
            for x in range(column * block, min(nx, (column + 1) * block)):
                if not (first_mask[y, x] | second_mask[y, x]):
                    blue += first[y, x]
                    red += second[y, x]
                    vb += first_variance[y, x]
                    vr += second_variance[y, x]
            sums[0, row, column] += blue
            sums[1, row, column] += red
            sums[2, row, column] += vb
            sums[3, row, column] += vr
