"""Covariance of resampled noise in closed form: what stands behind `skyloom.core.noise.resample_correlation`.

An output pixel is ``sum_y h(x - y) n(y)``: the interpolation kernel h, centred on the output pixel at x in
input pixels, weighs stationary noise of autocorrelation rho. The covariance of two output pixels d apart
depends on where x falls between the input pixels. It is averaged either over all sub-pixel phases alike,
which turns the sum into an integral with a closed form, or over the phases that occur.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.kernels.images.lanczos import lanczos3

__all__ = ["SUPPORT", "resample_covariance"]

Float = NDArray[np.float64]
SUPPORT = {"bilinear": 1, "lanczos3": 3, "area": 1}
"""Half width of the interpolation kernels in input pixels (for areas: of the input pixel's share of it)."""


def resample_covariance(method: str, matrix: Float, rho: Float, phases: Float | None) -> Float:
    """Return the covariance of output pixels at all lags, for input noise of unit variance.

    Parameters
    ----------
    method : {"bilinear", "lanczos3", "area"}
        Interpolation kernel; its weights sum to 1 for every output pixel.
    matrix : (2, 2) array
        Step of one output pixel (x, y) in input pixels (x, y).
    rho : (k, k) array
        Autocorrelation of the input.
    phases : (n, 2) array or None
        Positions (x, y) of output pixels in the input grid; only their fractions matter, and those of x are
        taken to occur with all those of y (exact for shifts and rational scales, and for the drift of a small turn).
        None: all alike. Areas of output pixels that are not parallel to the input pixels are averaged over all
        phases in any case.

    Returns
    -------
    (2 r + 1, 2 r + 1) array
        Covariance per lag of output pixels (y, x); r is the lag beyond which it vanishes.

    Raises
    ------
    InputError
        When there is no such kernel.
    """
    if method not in SUPPORT:
        raise InputError(f"{method!r} is no interpolation kernel", remedy="use bilinear, lanczos3 or area")
    step = np.ascontiguousarray(matrix, dtype=np.float64)
    parallel = _parallel_part(step) if phases is not None else None
    if parallel is not None:
        step = parallel
    elif method == "area":
        phases = None
    # Nearly equal requests (the same field in another band) share one entry.
    fractions = None if phases is None else np.round(np.mod(phases, 1.0), 6).tobytes()
    matrix_key, rho_key = (np.round(array, 9).tobytes() for array in (step, rho))
    return _covariance(method, rho.shape[0], matrix_key, rho_key, fractions).copy()


@lru_cache(maxsize=128)
def _covariance(method: str, side: int, matrix_key: bytes, rho_key: bytes, phases_key: bytes | None) -> Float:
    matrix = np.frombuffer(matrix_key).reshape(2, 2)
    rho = np.frombuffer(rho_key).reshape(side, -1)
    if method == "area" and phases_key is None:
        covariance = _area_average(matrix, rho)
    else:
        lag_x, lag_y, shape = _lags(method, matrix, rho)
        if phases_key is None:
            x = matrix[0, 0] * lag_x + matrix[0, 1] * lag_y
            y = matrix[1, 0] * lag_x + matrix[1, 1] * lag_y
            share_x, share_y = _stars(method, x, rho.shape[1]), _stars(method, y, rho.shape[0])
        else:
            phases = np.frombuffer(phases_key).reshape(-1, 2)
            share_x = _shares(method, matrix[0], phases[:, 0], lag_x, lag_y, rho.shape[1])
            share_y = _shares(method, matrix[1], phases[:, 1], lag_x, lag_y, rho.shape[0])
        covariance = np.einsum("dm,dm->d", share_y @ rho, share_x).reshape(shape)
    # Equal lags forth and back differ only by rounding, or by an uneven choice of phases.
    return np.asarray(0.5 * (covariance + covariance[::-1, ::-1]))


def _parallel_part(matrix: Float) -> Float | None:
    """Return the matrix without a turn so small that phases hardly drift over an image; None for a larger one.

    Flips and turns by 90 degrees are parallel as well. On parallel grids a lag in y does not move along x.
    """
    small = np.abs(matrix) < 0.02 * np.abs(matrix).max()
    off_diagonal = np.eye(2) == 0
    if np.all(small == off_diagonal) or np.all(small == ~off_diagonal):
        return np.where(small, 0.0, matrix)
    return None


def _lags(method: str, matrix: Float, rho: Float) -> tuple[Float, Float, tuple[int, int]]:
    """Return the lags (x, y) of output pixels that can be correlated, flat, and the shape they fill."""
    reach = 2.0 * SUPPORT[method] + rho.shape[0] // 2
    if method == "area":
        reach += np.abs(matrix).sum(axis=1).max() - 1.0
    radius = int(np.ceil(np.abs(np.linalg.inv(matrix)).sum(axis=1).max() * reach))
    axis = np.arange(-radius, radius + 1.0)
    lag_x, lag_y = np.meshgrid(axis, axis)
    return lag_x.ravel(), lag_y.ravel(), lag_x.shape


def _triangle(x: Float) -> Float:
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(x)))


def _cubic_bspline(x: Float) -> Float:
    """Triangle star triangle."""
    r = np.abs(x)
    inner = 2.0 / 3.0 - r**2 + 0.5 * r**3
    return np.asarray(np.where(r < 1.0, inner, np.maximum(2.0 - r, 0.0) ** 3 / 6.0))


@lru_cache(maxsize=1)
def _lanczos3_table() -> tuple[Float, Float, Float]:
    """Offsets from 0 to 6, the kernel there, and its autocorrelation; linear interpolation errs by 2e-5."""
    steps = 128
    kernel = lanczos3(np.arange(-3 * steps, 3 * steps + 1) / steps)
    star = np.correlate(kernel, kernel, mode="full") / steps
    x = np.arange(6 * steps + 1) / steps
    return x, lanczos3(x), star[star.size // 2 :]


def _lanczos3(x: Float) -> Float:
    table_x, kernel, _ = _lanczos3_table()
    return np.asarray(np.interp(np.abs(x), table_x, kernel, right=0.0))


def _stars(method: str, x: Float, side: int) -> Float:
    """Return (h star h)(x - m) in one dimension for offsets x and all lags m of a correlation of ``side``."""
    offset = x[:, np.newaxis] - (np.arange(side) - side // 2)
    if method == "bilinear":
        return _cubic_bspline(offset)
    table_x, _, star = _lanczos3_table()
    return np.asarray(np.interp(np.abs(offset), table_x, star, right=0.0))


def _shares(method: str, row: Float, phases: Float, lag_x: Float, lag_y: Float, side: int) -> Float:
    """Return the mean over phases of sum_a w_0(a) w_d(a - m) along one axis, per lag d and lag m of the correlation.

    ``w_0`` are the weights of an output pixel at the phase, ``w_d`` those of the pixel d steps further.
    """
    width = float(np.abs(row).sum())
    reach = side // 2 + 2 * SUPPORT[method] + int(np.ceil(width)) + 1
    axis = np.arange(-reach, reach + 1.0)
    start, count = np.unique(phases, return_counts=True)
    # Most lags repeat on parallel grids.
    lags, place = np.unique(np.round(row[0] * lag_x + row[1] * lag_y, 9), return_inverse=True)
    own = _axis_weights(method, width, start[:, np.newaxis] - axis)
    other = _axis_weights(method, width, (start[:, np.newaxis] + lags)[..., np.newaxis] - axis)
    shifted = np.stack([np.roll(own, -shift, axis=1) for shift in range(-(side // 2), side // 2 + 1)], axis=2)
    return np.asarray(np.average(other @ shifted, axis=0, weights=count)[place])


def _axis_weights(method: str, width: float, offset: Float) -> Float:
    """Weights along one axis of input pixels at ``offset`` from the output pixel; they sum to 1."""
    if method == "bilinear":
        return _triangle(offset)
    if method == "lanczos3":
        return _lanczos3(offset)
    shared = np.minimum(offset + width / 2, 0.5) - np.maximum(offset - width / 2, -0.5)
    return np.asarray(np.maximum(shared, 0.0) / width)


def _area_average(matrix: Float, rho: Float) -> Float:
    """Covariance of exact overlaps, averaged over all phases.

    With T the output pixel, ``C(d) = int R(t) |T and (T + M d - t)| dt / |T|^2``, where R is rho interpolated
    bilinearly (two input pixels at a lag share a triangle of area). In output pixels the common area of two
    T is a product of triangles, so that C is the cloud-in-cell gridding of R at the points ``M^-1 t``: one
    pass over Gauss points, cheap for any scale and any width of rho.
    """
    inverse = np.linalg.inv(matrix)
    radius = rho.shape[0] // 2
    panels = int(np.ceil(2.0 * max(1.0, np.abs(inverse).max())))
    nodes, weights = np.polynomial.legendre.leggauss(4)
    nodes = ((np.arange(panels)[:, np.newaxis] + 0.5 + 0.5 * nodes) / panels).ravel()
    weights = np.tile(weights / (2 * panels), panels)
    cells = 2 * (radius + 1)
    points = (np.arange(cells)[:, np.newaxis] + nodes).ravel() - (radius + 1)
    weight = np.tile(weights, cells)
    padded = np.pad(rho, 1)
    lerp = _triangle(points[:, np.newaxis] - np.arange(-radius - 1.0, radius + 2.0))
    mass = (lerp @ padded @ lerp.T) * weight[:, np.newaxis] * weight / abs(np.linalg.det(matrix))
    x = inverse[0, 0] * points + inverse[0, 1] * points[:, np.newaxis]
    y = inverse[1, 0] * points + inverse[1, 1] * points[:, np.newaxis]
    return _grid_cloud(x.ravel(), y.ravel(), mass.ravel())


def _grid_cloud(x: Float, y: Float, mass: Float) -> Float:
    """Share point masses among the four nearest integers, bilinearly; the result is centred on 0."""
    reach = int(np.floor(max(np.abs(x).max(), np.abs(y).max()))) + 1
    side = 2 * reach + 1
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = x - column, y - row
    flat = (row + reach) * side + column + reach
    total = np.zeros(side * side)
    for step, share in (
        (0, (1 - fx) * (1 - fy)),
        (1, fx * (1 - fy)),
        (side, (1 - fx) * fy),
        (side + 1, fx * fy),
    ):
        total += np.bincount(flat + step, weights=mass * share, minlength=side * side)[: side * side]
    return total.reshape(side, side)
