"""Convolution on plain arrays: separable passes that stay in the cache, and the last step of a normalised convolution.

A pixel that does not count is left out when its line is read, so nothing that lies under a mask, NaN included, can
reach a result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["convolve_separable", "normalise_convolution", "subtract_footprints"]

Array = NDArray[Any]
TILE = 512  # Columns filtered together: a ring of 80 float32 lines of this width stays in a 512 kB cache.

# Contraction and re-association let the compiler use fused multiply-add on whole vectors; NaN tests stay intact.
SAFE = {"contract", "reassoc", "nsz"}


@njit(cache=True, nogil=True, fastmath=SAFE)
def _filter_line(out: Array, line: Array, taps: Array, width: int) -> None:  # pragma: no cover - compiled
    """``out[x] = sum_t taps[t] line[x + t]``, eight taps per sweep so that each load serves a multiply-add."""
    n_taps = taps.size
    out[:width] = 0
    t = 0
    while t + 8 <= n_taps:
        c0, c1, c2, c3 = taps[t], taps[t + 1], taps[t + 2], taps[t + 3]
        c4, c5, c6, c7 = taps[t + 4], taps[t + 5], taps[t + 6], taps[t + 7]
        for x in range(width):
            y = x + t
            first = (c0 * line[y] + c1 * line[y + 1]) + (c2 * line[y + 2] + c3 * line[y + 3])
            second = (c4 * line[y + 4] + c5 * line[y + 5]) + (c6 * line[y + 6] + c7 * line[y + 7])
            out[x] += first + second
        t += 8
    while t < n_taps:
        c0 = taps[t]
        for x in range(width):
            out[x] += c0 * line[x + t]
        t += 1


@njit(cache=True, nogil=True, fastmath=SAFE)
def _filter_ring(out: Array, ring: Array, first: int, taps: Array, width: int) -> None:  # pragma: no cover
    """``out[x] = sum_t taps[t] ring[(first + t) mod n, x]`` for as many lines as there are taps."""
    n = taps.size
    out[:width] = 0
    t = 0
    while t + 8 <= n:
        a0, a1 = ring[(first + t) % n], ring[(first + t + 1) % n]
        a2, a3 = ring[(first + t + 2) % n], ring[(first + t + 3) % n]
        a4, a5 = ring[(first + t + 4) % n], ring[(first + t + 5) % n]
        a6, a7 = ring[(first + t + 6) % n], ring[(first + t + 7) % n]
        c0, c1, c2, c3 = taps[t], taps[t + 1], taps[t + 2], taps[t + 3]
        c4, c5, c6, c7 = taps[t + 4], taps[t + 5], taps[t + 6], taps[t + 7]
        for x in range(width):
            low = (c0 * a0[x] + c1 * a1[x]) + (c2 * a2[x] + c3 * a3[x])
            high = (c4 * a4[x] + c5 * a5[x]) + (c6 * a6[x] + c7 * a7[x])
            out[x] += low + high
        t += 8
    while t < n:
        a0 = ring[(first + t) % n]
        c0 = taps[t]
        for x in range(width):
            out[x] += c0 * a0[x]
        t += 1


@njit(cache=True, nogil=True)
def _read_line(
    line: Array, plane: Array, mask: Array, ones: bool, y: int, start: int
) -> None:  # pragma: no cover
    """Fill ``line`` with row y from column ``start`` on: 0 outside and where masked, 1 for values if asked."""
    nx = plane.shape[1]
    line[:] = 0
    low, high = max(0, start), min(nx, start + line.size)
    values, hidden = plane[y], mask[y]
    # A choice between two values, not a branch, so that the loop runs on whole vectors.
    if ones:
        for x in range(low, high):
            line[x - start] = 0 if hidden[x] else 1
    else:
        for x in range(low, high):
            line[x - start] = 0 if hidden[x] else values[x]


@njit(cache=True, nogil=True)
def convolve_separable(
    plane: Array, mask: Array, ones: bool, along_x: Array, along_y: Array, out: Array
) -> None:  # pragma: no cover - compiled
    """Convolve with a sum of separable kernels, without masked pixels and with nothing beyond the border.

    Parameters
    ----------
    plane : (ny, nx) array
        Values.
    mask : (ny, nx) bool array
        True where a pixel does not count.
    ones : bool
        Convolve 1 instead of the values: gives the share of the kernel that lies on usable pixels.
    along_x : (rank, kx) array
        Factors of the kernel along x, kx odd, same type as ``plane``.
    along_y : (rank, ky) array
        Factors along y; the kernel is ``sum_r along_y[r, :, None] * along_x[r, None, :]``.
    out : (ny, nx) array
        Overwritten with the convolution.

    Notes
    -----
    A strip of columns is filtered along x line by line into a ring of ky lines, and the ring along y: the image is
    read once and written once. Sums are kept in the type of the plane; with float32 the rounding is 1e-6 of the
    largest term.
    """
    ny, nx = plane.shape
    rank, n_x = along_x.shape
    n_y = along_y.shape[1]
    half_x, half_y = n_x // 2, n_y // 2
    line = np.zeros(TILE + n_x - 1, plane.dtype)
    ring = np.zeros((n_y, TILE), plane.dtype)
    filtered = np.zeros(TILE, plane.dtype)
    for r in range(rank):
        taps_x = along_x[r, ::-1].copy()
        taps_y = along_y[r, ::-1].copy()
        for start in range(0, nx, TILE):
            width = min(TILE, nx - start)
            ring[:] = 0
            for y in range(-half_y, ny + half_y):
                slot = (y + half_y) % n_y
                if 0 <= y < ny:
                    _read_line(line, plane, mask, ones, y, start - half_x)
                    _filter_line(ring[slot], line, taps_x, width)
                else:
                    ring[slot] = 0
                row = y - half_y
                if row >= 0:
                    _filter_ring(filtered, ring, (slot + 1) % n_y, taps_y, width)
                    target = out[row]
                    if r == 0:
                        for x in range(width):
                            target[start + x] = filtered[x]
                    else:
                        for x in range(width):
                            target[start + x] += filtered[x]


@njit(cache=True, nogil=True)
def subtract_footprints(shares: Array, mask: Array, kernel: Array) -> None:  # pragma: no cover - compiled
    """Take away, around each masked pixel, what the kernel would have had from it; in place.

    Parameters
    ----------
    shares : (ny, nx) array
        Share of the kernel that lies inside the image.
    mask : (ny, nx) bool array
    kernel : (ky, kx) array
        Normalised to sum 1, of the type of ``shares``.
    """
    ny, nx = mask.shape
    half_y, half_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    for y in range(ny):
        for x in range(nx):
            if mask[y, x]:
                low, high = max(0, x - half_x), min(nx, x + half_x + 1)
                for row in range(max(0, y - half_y), min(ny, y + half_y + 1)):
                    taps, target = kernel[row - y + half_y], shares[row]
                    for column in range(low, high):
                        target[column] -= taps[column - x + half_x]


@njit(cache=True, nogil=True, error_model="numpy")
def normalise_convolution(
    data: Array,
    variance: Array,
    signed: Array,
    coverage: Array,
    rows: Array,
    columns: Array,
    minimum: float,
    low: float,
    mask: Array,
    flagged: Array,
) -> tuple[int, int]:  # pragma: no cover - compiled
    """Finish a normalised convolution in place.

    Parameters
    ----------
    data, variance : (ny, nx) arrays
        Convolutions of the usable pixels; divided here by the share of the kernel that was used, and its square.
    signed : (n, m) array
        Sum of the kernel over usable pixels, relative to its whole sum, of pixel (y, x) at (rows[y], columns[x]).
    coverage : (n, m) array
        Sum of the absolute kernel over usable pixels, relative to the whole; same places.
    rows, columns : (ny,), (nx,) int arrays
    minimum : float
        Pixels with less of either are masked.
    low : float
        Pixels of less coverage are flagged.
    mask, flagged : (ny, nx) bool arrays
        Overwritten: what is masked, what is flagged.

    Returns
    -------
    n_masked, n_flagged : int
    """
    ny, nx = data.shape
    n_masked, n_flagged = 0, 0
    for y in range(ny):
        for x in range(nx):
            covered = coverage[rows[y], columns[x]]
            share = signed[rows[y], columns[x]]
            mask[y, x] = False
            flagged[y, x] = False
            if not (covered >= minimum and share >= minimum and variance[y, x] > 0):
                mask[y, x] = True
                data[y, x] = np.nan
                variance[y, x] = np.nan
                n_masked += 1
            elif covered < 1.0 - 1e-5:  # Closer to 1 than that is rounding: a whole stencil is left as it is.
                data[y, x] /= share
                variance[y, x] /= share * share
                if covered < low:
                    flagged[y, x] = True
                    n_flagged += 1
    return n_masked, n_flagged
