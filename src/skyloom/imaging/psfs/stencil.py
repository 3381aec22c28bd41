"""A convolution kernel made ready for use: factorised or transformed once, applied to many planes.

Round and axis-aligned Gaussians, and the kernels their noise follows, are sums of very few separable kernels, which
are applied in two one-dimensional passes; what is not goes through the FFT, in tiles where the image is large.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from skyloom.core.noise import convolve_correlation
from skyloom.errors import InputError, ShapeError
from skyloom.kernels.images.convolve import convolve_separable, subtract_footprints

__all__ = ["Shares", "Stencil"]

Array = NDArray[Any]
Float = NDArray[np.float64]
MAX_TAPS = 400  # Separable passes with more multiplications per pixel than this cost more than the FFT.
TILE = 1024  # Side of the transforms of a large image.
EXACT = 1e-9  # Share of sum |kernel| that a factorisation may miss.
VARIANCE_EXACT = 1e-6  # The same for variances, whose model is good to 1e-2.
SPARSE = 20.0  # Masked pixels times kernel pixels per image pixel, up to which they are taken off one by one.
KEPT = 8  # Prepared correlations and transforms that one stencil remembers.


class Shares(NamedTuple):
    """How much of a kernel lies on usable pixels; pixel (y, x) has element (rows[y], columns[x]).

    ``signed`` is relative to the kernel's sum, ``coverage`` to its sum of absolute values; 1 is the whole kernel.
    Where no pixel is masked only the distinct places along the border are held.
    """

    signed: Array
    coverage: Array
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    def plane(self, shares: Array) -> Array:
        """Return ``signed`` or ``coverage`` for every pixel."""
        return np.asarray(shares[:, self.columns][self.rows])


class Stencil:
    """A convolution kernel and what has been prepared from it.

    Parameters
    ----------
    kernel : (n, m) array
        Odd sides; the centre is the central element. Its sum must be positive: it is applied as given, but only
        relative to its sum where pixels are missing.
    tolerance : float
        Share of sum |kernel| that a factorisation into separable kernels may miss.

    Raises
    ------
    ShapeError
        When the kernel has not two odd dimensions.
    InputError
        When it is not finite or its sum is not positive.
    """

    def __init__(self, kernel: ArrayLike, tolerance: float = EXACT) -> None:
        array = np.array(kernel, dtype=np.float64)
        if array.ndim != 2 or any(side % 2 == 0 for side in array.shape):
            raise ShapeError(
                f"the kernel has shape {array.shape}; expected two odd dimensions",
                field="kernel",
                remedy="pad it with a row or column of zeros so that its centre is a pixel",
            )
        total = float(array.sum())
        if not np.all(np.isfinite(array)) or not total > 1e-9 * float(np.abs(array).sum()):
            raise InputError(
                f"the kernel has a sum of {total}; expected finite values with a sum > 0, because pixels that are "
                "missing are made up for by the others",
                field="kernel",
            )
        array.flags.writeable = False
        self.kernel: Float = array
        self.total = total
        self.positive = bool(array.min() >= 0.0)
        self._factors = _factorise(array, tolerance)
        self._spectra: OrderedDict[tuple[int, int], Array] = OrderedDict()
        self._noise: OrderedDict[bytes | None, tuple[Float, Stencil]] = OrderedDict()
        self._magnitude: Stencil | None = None

    @property
    def is_identity(self) -> bool:
        """Whether the kernel is a single 1."""
        return self.kernel.shape == (1, 1) and self.total == 1.0

    @property
    def noise_gain(self) -> float:
        """``sum(kernel**2)``: the factor on the variance of white noise."""
        return float(np.sum(self.kernel**2))

    def convolve(self, plane: Array, mask: NDArray[np.bool_], *, ones: bool = False) -> Array:
        """Convolve the pixels that are not masked; masked ones and those beyond the border add nothing.

        Parameters
        ----------
        plane : (ny, nx) float32 or float64 array
        mask : (ny, nx) bool array
            True where a pixel does not count; what it holds is never read into the result.
        ones : bool
            Convolve 1 instead of the values of ``plane``.

        Returns
        -------
        (ny, nx) array of the type of ``plane``
        """
        if self._factors is None:
            values = np.where(mask, 0.0, 1.0 if ones else plane)
            return self._transformed(values).astype(plane.dtype, copy=False)
        out = np.empty_like(plane)
        along_x, along_y = (factor.astype(plane.dtype) for factor in self._factors)
        convolve_separable(plane, mask, ones, along_x, along_y, out)
        return out

    def shares(self, plane: Array, mask: NDArray[np.bool_]) -> Shares:
        """Return how much of the kernel lies on usable pixels: of its sum, and of its sum of absolute values.

        Parameters
        ----------
        plane : (ny, nx) array
            Gives the type of the result only.
        mask : (ny, nx) bool array
        """
        n_masked = int(np.count_nonzero(mask))
        shape, kind = (mask.shape[0], mask.shape[1]), plane.dtype
        borders = self._border_shares(shape, kind)
        if n_masked == 0:
            return borders
        rows, columns = np.arange(shape[0]), np.arange(shape[1])
        if n_masked * self.kernel.size <= SPARSE * mask.size:
            signed = borders.plane(borders.signed)
            subtract_footprints(signed, mask, (self.kernel / self.total).astype(kind))
            coverage = signed
            if not self.positive:
                coverage = borders.plane(borders.coverage)
                magnitude = np.abs(self.kernel)
                subtract_footprints(coverage, mask, (magnitude / magnitude.sum()).astype(kind))
            return Shares(signed, coverage, rows, columns)
        signed = self.convolve(plane, mask, ones=True)
        signed /= kind.type(self.total)
        coverage = signed
        if not self.positive:
            if self._magnitude is None:
                self._magnitude = Stencil(np.abs(self.kernel))
            coverage = self._magnitude.shares(plane, mask).signed
        return Shares(signed, coverage, rows, columns)

    def noise(self, correlation: Float | None) -> tuple[Float, Stencil]:
        """Return the correlation after this convolution and the stencil that variances follow; remembered.

        Parameters
        ----------
        correlation : (k, k) array or None
            Noise autocorrelation before.
        """
        key = None if correlation is None else np.ascontiguousarray(correlation).tobytes()
        if key not in self._noise:
            after, variance_kernel = convolve_correlation(self.kernel, correlation)
            self._noise[key] = after, Stencil(_trimmed(variance_kernel), tolerance=VARIANCE_EXACT)
            _forget(self._noise)
        return self._noise[key]

    def _border_shares(self, shape: tuple[int, int], kind: np.dtype[Any]) -> Shares:
        """Shares of an image without masked pixels: below 1 along its borders only."""
        rows, like_rows = _distinct_positions(shape[0], self.kernel.shape[0] // 2)
        columns, like_columns = _distinct_positions(shape[1], self.kernel.shape[1] // 2)
        signed = _table_shares(self.kernel, shape, rows, columns).astype(kind)
        coverage = signed
        if not self.positive:
            coverage = _table_shares(np.abs(self.kernel), shape, rows, columns).astype(kind)
        return Shares(signed, coverage, like_rows, like_columns)

    def _transformed(self, values: Float) -> Float:
        """Convolution by FFT: the whole image where it is small, overlapping tiles where it is not."""
        rows, columns = self.kernel.shape
        reach_y, reach_x = rows // 2, columns // 2
        ny, nx = values.shape
        side = max(TILE, 4 * max(rows, columns))
        step_y, step_x = min(ny, side - 2 * reach_y), min(nx, side - 2 * reach_x)
        out = np.empty((ny, nx))
        for y in range(0, ny, step_y):
            for x in range(0, nx, step_x):
                top, left = max(0, y - reach_y), max(0, x - reach_x)
                patch = values[top : y + step_y + reach_y, left : x + step_x + reach_x]
                full = self._patch(patch)
                height, width = min(step_y, ny - y), min(step_x, nx - x)
                row, column = y - top + reach_y, x - left + reach_x
                out[y : y + height, x : x + width] = full[row : row + height, column : column + width]
        return out

    def _patch(self, patch: Float) -> Float:
        """Full linear convolution of one patch."""
        shape = tuple(
            fft.next_fast_len(size + side - 1, real=True)
            for size, side in zip(patch.shape, self.kernel.shape, strict=True)
        )
        key = (shape[0], shape[1])
        if key not in self._spectra:
            self._spectra[key] = fft.rfft2(self.kernel, key)
            _forget(self._spectra)
        return np.asarray(fft.irfft2(fft.rfft2(patch, key) * self._spectra[key], key))


def _forget(memory: OrderedDict[Any, Any]) -> None:
    while len(memory) > KEPT:
        memory.popitem(last=False)


def _trimmed(kernel: Float) -> Float:
    """Cut the rim of a positive kernel as far as that takes away no more than ``VARIANCE_EXACT`` of its sum."""
    total = kernel.sum()
    cut = []
    for axis in (0, 1):
        line = kernel.sum(axis=1 - axis)
        rim = np.cumsum(line + line[::-1])[: line.size // 2]
        cut.append(int(np.searchsorted(rim, 0.5 * VARIANCE_EXACT * total)))
    rows, columns = kernel.shape
    inner = kernel[cut[0] : rows - cut[0], cut[1] : columns - cut[1]]
    return np.asarray(inner * (total / inner.sum()))


def _factorise(kernel: Float, tolerance: float) -> tuple[Float, Float] | None:
    """Write the kernel as a short sum of separable kernels; None where the FFT is cheaper.

    Row times column through the largest element of what is left, over that element (Gaussian elimination with full
    pivots). A round or aligned Gaussian needs one; singular values would need no fewer, but LAPACK wakes threads.
    """
    most = min(MAX_TAPS // sum(kernel.shape), min(kernel.shape))
    budget = tolerance * np.abs(kernel).sum()
    rest = kernel.copy()
    along_x, along_y = [], []
    for _ in range(most):
        row, column = np.unravel_index(int(np.argmax(np.abs(rest))), rest.shape)
        pivot = rest[row, column]
        line, stroke = rest[row].copy(), rest[:, column] / pivot
        # Halves of the pivot on both sides keep the factors of like size, and positive where the kernel is.
        scale = np.sqrt(abs(pivot))
        along_x.append(line / scale)
        along_y.append(stroke * scale)
        rest -= stroke[:, np.newaxis] * line
        if np.abs(rest).sum() <= budget:
            return np.array(along_x), np.array(along_y)
    return None


def _distinct_positions(size: int, half: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions along an axis where a kernel sees the border differently, and which of them each pixel is like."""
    if size <= 2 * half + 1:
        return np.arange(size), np.arange(size)
    distinct = np.concatenate([np.arange(half + 1), np.arange(size - half, size)])
    like = np.concatenate(
        [np.arange(half), np.full(size - 2 * half, half), np.arange(half + 1, 2 * half + 1)]
    )
    return distinct, like


def _table_shares(
    kernel: Float, shape: tuple[int, int], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> Float:
    """Share of the kernel's sum that falls inside an image, at these rows and columns, from cumulative sums."""
    table = np.pad(np.cumsum(np.cumsum(kernel, axis=0), axis=1), ((1, 0), (1, 0))) / kernel.sum()
    ends = []
    for position, size, side in zip((rows, columns), shape, kernel.shape, strict=True):
        # Output p takes kernel element k from pixel p + half - k, which must lie in 0 ... size - 1.
        half = side // 2
        ends.append((np.maximum(0, position + half - size + 1), np.minimum(side, position + half + 1)))
    (top, bottom), (left, right) = ends
    inside = table[np.ix_(bottom, right)] - table[np.ix_(top, right)] - table[np.ix_(bottom, left)]
    return np.asarray(inside + table[np.ix_(top, left)])
