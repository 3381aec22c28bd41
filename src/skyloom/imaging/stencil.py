"""A convolution kernel made ready for use: factorised or transformed once, applied to many planes.

Round and axis-aligned Gaussians, and the kernels their noise follows, are sums of very few separable kernels, which
are applied in two one-dimensional passes; what is not goes through the FFT, in tiles where the image is large.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from skyloom.core.noise import convolve_correlation
from skyloom.errors import InputError, ShapeError
from skyloom.kernels.convolve import convolve_separable

__all__ = ["Stencil"]

Array = NDArray[Any]
Float = NDArray[np.float64]
MAX_TAPS = 400  # Separable passes with more multiplications per pixel than this cost more than the FFT.
TILE = 1024  # Side of the transforms of a large image.
EXACT = 1e-9  # Share of sum |kernel| that a factorisation may miss.
VARIANCE_EXACT = 1e-6  # The same for variances, whose model is good to 1e-2.
KEPT = 8  # Prepared correlations and transforms that one stencil remembers.


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

    def shares(self, plane: Array, mask: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Return how much of the kernel lies on usable pixels: of its sum, and of its sum of absolute values.

        Parameters
        ----------
        plane : (ny, nx) array
            Gives the type of the result only.
        mask : (ny, nx) bool array

        Returns
        -------
        signed, coverage : (ny, nx) arrays, 1 where the whole kernel counts
        """
        if not mask.any():
            shape = (mask.shape[0], mask.shape[1])
            signed = _border_shares(self.kernel, shape, plane.dtype)
            if self.positive:
                return signed, signed
            return signed, _border_shares(np.abs(self.kernel), shape, plane.dtype)
        signed = self.convolve(plane, mask, ones=True)
        signed /= plane.dtype.type(self.total)
        if self.positive:
            return signed, signed
        if self._magnitude is None:
            self._magnitude = Stencil(np.abs(self.kernel))
        return signed, self._magnitude.shares(plane, mask)[0]

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
            self._noise[key] = after, Stencil(variance_kernel, tolerance=VARIANCE_EXACT)
            _forget(self._noise)
        return self._noise[key]

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


def _factorise(kernel: Float, tolerance: float) -> tuple[Float, Float] | None:
    """Write the kernel as a short sum of separable kernels, None where the FFT is cheaper.

    The largest element of what remains is a pivot, its row and column a term (Bebendorf 2000,
    doi:10.1007/PL00005410): a kernel of low rank is exhausted after as many terms, at a thousandth of the cost of
    its singular values.
    """
    rest = kernel.copy()
    budget = tolerance * np.abs(kernel).sum()
    along_x, along_y = [], []
    for _ in range(min(MAX_TAPS // sum(kernel.shape), *kernel.shape)):
        row, column = np.unravel_index(np.abs(rest).argmax(), rest.shape)
        pivot = rest[row, column]
        scale = np.sqrt(abs(pivot))
        along_x.append(rest[row] / scale)
        along_y.append(rest[:, column] * (scale / pivot))
        rest -= np.outer(along_y[-1], along_x[-1])
        if np.abs(rest).sum() <= budget:
            return np.array(along_x), np.array(along_y)
    return None


def _border_shares(kernel: Float, shape: tuple[int, int], kind: np.dtype[Any]) -> Array:
    """Share of the kernel's sum that falls inside an image without masked pixels: below 1 along the borders only."""
    table = np.pad(np.cumsum(np.cumsum(kernel, axis=0), axis=1), ((1, 0), (1, 0))) / kernel.sum()
    (ny, nx), (half_y, half_x) = shape, (kernel.shape[0] // 2, kernel.shape[1] // 2)

    def reach(position: NDArray[np.intp], size: int, half: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        # Output p takes kernel element k from pixel p + half - k, which must lie in 0 ... size - 1.
        return np.maximum(0, position + half - size + 1), np.minimum(2 * half + 1, position + half + 1)

    shares = np.ones(shape, kind)
    below, beside = np.arange(min(half_y, ny)), np.arange(min(half_x, nx))
    every_row, every_column = np.arange(ny), np.arange(nx)
    strips = [
        (below, every_column), (ny - 1 - below, every_column), (every_row, beside), (every_row, nx - 1 - beside)
    ]  # fmt: skip
    for rows, columns in strips:
        (top, bottom), (left, right) = reach(rows, ny, half_y), reach(columns, nx, half_x)
        inside = table[np.ix_(bottom, right)] - table[np.ix_(top, right)] - table[np.ix_(bottom, left)]
        shares[np.ix_(rows, columns)] = inside + table[np.ix_(top, left)]
    return shares
