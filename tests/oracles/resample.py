"""Naive twins of the resampling: full WCS positions, written-out stencils, clipped polygons, explicit
operators."""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse


def full_positions(source, target, x, y):
    """Source pixels of target pixels through the full WCS, one call for all pixels."""
    longitude, latitude = target.all_pix2world(x.ravel(), y.ravel(), 0)
    if source.sip is None:
        found = source.wcs_world2pix(longitude, latitude, 0)
    else:
        found = source.all_world2pix(longitude, latitude, 0, tolerance=1e-10, maxiter=100)
    return found[0].reshape(x.shape), found[1].reshape(x.shape)


def pixel_grid(shape):
    """x and y of all pixel centres."""
    y, x = np.indices(shape, dtype=float)
    return x, y


def sinc(x):
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)


def axis_weights(method, position):
    """First pixel and weights of a one-dimensional stencil."""
    start = math.floor(position)
    if method == "bilinear":
        fraction = position - start
        return start, np.array([1 - fraction, fraction])
    offsets = [position - (start - 2 + k) for k in range(6)]
    weights = np.array([sinc(u) * sinc(u / 3) if abs(u) < 3 else 0.0 for u in offsets])
    weights /= weights.sum()
    # The centre of mass is put right on the outermost pixels.
    moment = sum(weight * (start - 2 + k) for k, weight in enumerate(weights)) - position
    weights[0] += moment / 5
    weights[5] -= moment / 5
    return start - 2, weights


def interpolation_operator(method, x, y, source_shape):
    """Sparse matrix (target pixels, source pixels) and the target pixels whose stencil is complete."""
    ny, nx = source_shape
    rows, columns, values = [], [], []
    complete = np.zeros(x.size, bool)
    for index, (px, py) in enumerate(zip(x.ravel(), y.ravel(), strict=True)):
        left, weights_x = axis_weights(method, px)
        top, weights_y = axis_weights(method, py)
        stencil = [
            (top + j, left + i, weight_y * weight_x)
            for j, weight_y in enumerate(weights_y)
            for i, weight_x in enumerate(weights_x)
        ]
        within = [(j, i, weight) for j, i, weight in stencil if 0 <= j < ny and 0 <= i < nx]
        outside = sum(abs(weight) for _, _, weight in stencil) - sum(abs(weight) for _, _, weight in within)
        complete[index] = outside < 1e-6
        if complete[index]:
            for j, i, weight in within:
                rows.append(index)
                columns.append(j * nx + i)
                values.append(weight)
    return sparse.csr_matrix((values, (rows, columns)), shape=(x.size, ny * nx)), complete


def clip_polygon(corners, axis, limit, keep_above):
    """Sutherland-Hodgman: the part of a polygon on one side of an axis-parallel line."""
    result = []
    for first, second in zip(corners, corners[1:] + corners[:1], strict=True):
        inside_first = (first[axis] >= limit) == keep_above
        inside_second = (second[axis] >= limit) == keep_above
        if inside_first:
            result.append(first)
        if inside_first != inside_second:
            share = (limit - first[axis]) / (second[axis] - first[axis])
            result.append(tuple(a + share * (b - a) for a, b in zip(first, second, strict=True)))
    return result


def polygon_area(corners):
    return 0.5 * abs(
        sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(corners, corners[1:] + corners[:1], strict=True))
    )


def overlap_operator(corner_x, corner_y, source_shape):
    """Sparse matrix of the shared areas (target pixels, source pixels), and the target pixels within the
    source.

    ``corner_x``, ``corner_y``: (ny + 1, nx + 1) positions of the corners, 0 in the centre of the first
    source pixel.
    """
    ny, nx = source_shape
    target_ny, target_nx = corner_x.shape[0] - 1, corner_x.shape[1] - 1
    rows, columns, values = [], [], []
    complete = np.zeros(target_ny * target_nx, bool)
    for index in range(target_ny * target_nx):
        j, i = divmod(index, target_nx)
        corners = [
            (corner_x[b, a] + 0.5, corner_y[b, a] + 0.5)
            for b, a in ((j, i), (j, i + 1), (j + 1, i + 1), (j + 1, i))
        ]
        x, y = [c[0] for c in corners], [c[1] for c in corners]
        complete[index] = min(*x, *y) >= -1e-6 and max(x) <= nx + 1e-6 and max(y) <= ny + 1e-6
        if not complete[index]:
            continue
        for row in range(max(math.floor(min(y)), 0), min(math.floor(max(y)) + 1, ny)):
            for column in range(max(math.floor(min(x)), 0), min(math.floor(max(x)) + 1, nx)):
                piece = corners
                for axis, limit, above in (
                    (0, column, True),
                    (0, column + 1, False),
                    (1, row, True),
                    (1, row + 1, False),
                ):
                    piece = clip_polygon(piece, axis, limit, above) if piece else piece
                if piece:
                    rows.append(index)
                    columns.append(row * nx + column)
                    values.append(polygon_area(piece))
    return sparse.csr_matrix(
        (values, (rows, columns)), shape=(corner_x.size - target_nx - target_ny - 1, ny * nx)
    ), complete


def mean_operator(operator):
    """The same operator with rows that sum to 1 (empty rows stay empty)."""
    sums = np.asarray(operator.sum(axis=1)).ravel()
    return sparse.diags(np.divide(1.0, sums, out=np.zeros_like(sums), where=sums != 0)) @ operator


def masked_operator(operator, mask, limit):
    """Leave out masked source pixels as documented.

    Returns the operator with renormalised weights, the usable rows, and the rows that went without some
    pixel.
    """
    good = sparse.diags((~mask.ravel()).astype(float))
    total = np.asarray(abs(operator).sum(axis=1)).ravel()
    missing = total - np.asarray(abs(operator @ good).sum(axis=1)).ravel()
    usable = (missing <= limit * total + 1e-12) & (total > 0)
    kept = operator @ good
    full, left = np.asarray(operator.sum(axis=1)).ravel(), np.asarray(kept.sum(axis=1)).ravel()
    factor = np.divide(full, left, out=np.zeros_like(full), where=usable)
    return sparse.diags(factor) @ kept, usable, missing > 1e-6


def correlation_operator(correlation, shape):
    """Sparse matrix of a stationary noise correlation between the pixels of an image."""
    ny, nx = shape
    radius = correlation.shape[0] // 2
    y, x = np.indices(shape)
    rows, columns, values = [], [], []
    for lag_y in range(-radius, radius + 1):
        for lag_x in range(-radius, radius + 1):
            inside = (y + lag_y >= 0) & (y + lag_y < ny) & (x + lag_x >= 0) & (x + lag_x < nx)
            rows.append((y * nx + x)[inside])
            columns.append(((y + lag_y) * nx + x + lag_x)[inside])
            values.append(np.full(inside.sum(), correlation[radius + lag_y, radius + lag_x]))
    joined = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(joined, shape=(ny * nx, ny * nx))


def exact_sum_variances(operator, variance, correlation, labels, n_regions):
    """Variance of the sums over regions of ``operator @ data``: r^T A S A^T r, with S the covariance of the
    data."""
    inside = np.nonzero(labels.ravel() >= 0)[0]
    sums = sparse.csr_matrix(
        (np.ones(inside.size), (labels.ravel()[inside], inside)), shape=(n_regions, labels.size)
    )
    spread = (sums @ operator) @ sparse.diags(np.sqrt(variance.ravel()))
    noise = correlation_operator(correlation, variance.shape)
    return np.asarray((spread @ noise).multiply(spread).sum(axis=1)).ravel()


def exact_pixel_variances(operator, variance, correlation):
    """Diagonal of A S A^T."""
    spread = operator @ sparse.diags(np.sqrt(variance.ravel()))
    noise = correlation_operator(correlation, variance.shape)
    return np.asarray((spread @ noise).multiply(spread).sum(axis=1)).ravel()
