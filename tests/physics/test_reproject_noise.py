"""The errors of sums over resampled pixels, judged position by position.

The truth needs no random numbers: resampling is a matrix A, the noise of the input has the covariance
S = sqrt(v) rho sqrt(v), and the variance of a sum r over the result is r^T A S A^T r. A is written out from full
WCS positions (tests/oracles/resample.py). "Pull": true over predicted standard deviation of a sum. One Monte Carlo
through the whole code confirms the algebra.
"""

from functools import lru_cache

import numpy as np
import pytest
from scipy import sparse
from tests.grids import tangent_wcs
from tests.oracles.resample import (
    exact_pixel_variances,
    exact_sum_variances,
    full_positions,
    interpolation_operator,
    mean_operator,
    overlap_operator,
    pixel_grid,
)

from skyloom.core.image import Image
from skyloom.core.noise import autocorrelate, region_variances
from skyloom.imaging.grids.reproject import pixel_variance, reproject
from skyloom.imaging.psfs.convolve import convolve

N = 100
SOURCE = tangent_wcs((N, N))
TRIANGLE = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
CORRELATIONS = {"white": np.ones((1, 1)), "drizzled": autocorrelate(TRIANGLE) / autocorrelate(TRIANGLE).max()}
SIZES = (3, 9, 20)
GEOMETRIES = [
    (0.2, 1.005), (0.2, 1.5), (25.0, 1.0), (25.0, 1.5),
    pytest.param(0.2, 1.0, marks=pytest.mark.long), pytest.param(25.0, 1.005, marks=pytest.mark.long),
]  # fmt: skip


def variance_plane(kind):
    """A gradient of a factor 3; on request a bump of 30 times the background (sigma 6 px) in the middle."""
    y, x = np.indices((N, N))
    plane = 1.0 + 2.0 * x / (N - 1)
    if kind == "bump":
        plane += 29.0 * np.exp(-0.5 * ((x - N / 2) ** 2 + (y - N / 2) ** 2) / 6.0**2)
    return plane


def target_grid(rotation, scale, margin=0):
    side = int((N - margin) / scale)
    return tangent_wcs((side, side), 0.05 * scale, rotation, (0.3, -0.4)), (side, side)


@lru_cache(maxsize=24)
def operator(method, rotation, scale, margin=0):
    target, shape = target_grid(rotation, scale, margin)
    if method == "area":
        y, x = np.indices((shape[0] + 1, shape[1] + 1)) - 0.5
        return mean_operator(overlap_operator(*full_positions(SOURCE, target, x, y), (N, N))[0])
    return interpolation_operator(method, *full_positions(SOURCE, target, *pixel_grid(shape)), (N, N))[0]


def boxes(mask, size, offset):
    """Label square boxes of usable pixels, a column apart, from an offset on."""
    labels, count = np.full(mask.shape, -1, np.int32), 0
    for y in range(offset[0], mask.shape[0] - size + 1, size + 1):
        for x in range(offset[1], mask.shape[1] - size + 1, size + 1):
            if not mask[y : y + size, x : x + size].any():
                labels[y : y + size, x : x + size] = count
                count += 1
    return labels, count


def box_pulls(result, matrix, variance, correlation, size):
    pulls = []
    claimed = np.where(result.mask, 1.0, result.variance)
    for offset in ((0, 0), (size // 2, size // 3)):
        labels, count = boxes(result.mask, size, offset)
        truth = exact_sum_variances(matrix, variance, correlation, labels, count)
        pulls.append(np.sqrt(truth / region_variances(claimed, labels, count, result.correlation)))
    return np.concatenate(pulls)


def check(pulls, kind, smooth, bump):
    low, high = smooth if kind == "gradient" else bump
    median = np.median(pulls)
    assert 0.97 < median < 1.03
    assert low < pulls.min(), pulls.min()
    assert pulls.max() < high, pulls.max()


@pytest.mark.parametrize("kind", ["gradient", "bump"])
@pytest.mark.parametrize("noise", CORRELATIONS)
@pytest.mark.parametrize(("rotation", "scale"), GEOMETRIES)
def test_sums_after_the_default_method(rotation, scale, noise, kind):
    variance, rho = variance_plane(kind), CORRELATIONS[noise]
    image = Image(np.zeros((N, N)), variance, None, "MJy/sr", SOURCE, correlation=rho)
    target = target_grid(rotation, scale)
    result = reproject(image, target)
    method = result.history[-1].parameters["method"]
    assert method == ("area" if scale == 1.5 else "lanczos3")
    matrix = operator(method, rotation, scale)
    for size in SIZES:
        check(box_pulls(result, matrix, variance, rho, size), kind, (0.93, 1.07), (0.90, 1.10))
    exact = exact_pixel_variances(matrix, variance, rho).reshape(target[1])
    ratio = (exact / result.variance)[result.valid]
    assert 0.9 < np.sqrt(ratio.mean()) < 1.1
    # From phase to phase; NOISE.md found 0.90-1.13 for Lanczos-3.
    assert np.sqrt(ratio.min()) > 0.85
    assert np.sqrt(ratio.max()) < 1.15


# Grids that turn slowly against each other beat: over patches of 1 / sin(0.2 degrees) = 286 px all pixels have the
# same phase, and a box of 3 x 3 bilinear or overlapping pixels sees that phase alone. One gain and one correlation for
# the whole image cannot follow; larger boxes average out. This is why neither method is the default at like scale,
# and why coarser pixels are averages: bilinear samples 1.5 px apart beat most of all.
@pytest.mark.parametrize("noise", CORRELATIONS)
@pytest.mark.parametrize("method", ["bilinear", "area", "lanczos3"])
@pytest.mark.parametrize(("rotation", "scale"), GEOMETRIES)
def test_sums_after_a_method_on_request(rotation, scale, method, noise):
    variance, rho = variance_plane("gradient"), CORRELATIONS[noise]
    image = Image(np.zeros((N, N)), variance, None, "MJy/sr", SOURCE, correlation=rho)
    target = target_grid(rotation, scale)
    result = reproject(image, target, method)
    matrix = operator(method, rotation, scale)
    beating = rotation == 0.2 and method != "lanczos3" and noise == "white"
    for size in SIZES:
        limits = (0.93, 1.07)
        if beating and size == 3:
            limits = (0.92, 1.20 if scale == 1.5 else 1.14)
        check(box_pulls(result, matrix, variance, rho, size), "gradient", limits, limits)
    exact = exact_pixel_variances(matrix, variance, rho).reshape(target[1])
    valid = result.valid
    assert 0.9 < np.sqrt((exact / result.variance)[valid].mean()) < 1.1
    np.testing.assert_allclose(pixel_variance(image, target, method)[valid], exact[valid], rtol=1e-5)


@pytest.mark.parametrize("method", ["bilinear", "area", "lanczos3"])
@pytest.mark.parametrize(
    ("rotation", "scale", "shift"),
    [
        (0.0, 1.0, (0.3, 0.45)),
        (0.0, 1.5, (0.1, 0.1)),
        pytest.param(90.0, 2.0, (0.5, 0.0), marks=pytest.mark.long),
    ],
)
def test_phases_that_repeat_are_taken_as_they_are(rotation, scale, shift, method):
    variance, rho = np.ones((N, N)), CORRELATIONS["white"]
    side = int(N / scale)
    target, shape = tangent_wcs((side, side), 0.05 * scale, rotation, shift), (side, side)
    image = Image(np.zeros((N, N)), variance, None, "MJy/sr", SOURCE, correlation=rho)
    result = reproject(image, (target, shape), method)
    if method == "area":
        y, x = np.indices((side + 1, side + 1)) - 0.5
        matrix = mean_operator(overlap_operator(*full_positions(SOURCE, target, x, y), (N, N))[0])
    else:
        matrix, _ = interpolation_operator(
            method, *full_positions(SOURCE, target, *pixel_grid(shape)), (N, N)
        )
    exact = exact_pixel_variances(matrix, variance, rho).reshape(shape)
    assert np.sqrt((exact / result.variance)[result.valid].mean()) == pytest.approx(1.0, abs=2e-3)
    for size in SIZES:
        pulls = box_pulls(result, matrix, variance, rho, size)
        assert np.sqrt(np.mean(pulls**2)) == pytest.approx(1.0, abs=0.02)
        # With two phases in turn, boxes of three pixels hold more of the one or of the other.
        assert np.abs(pulls - 1.0).max() < (0.02 if scale != 1.5 else 0.08 if size == 3 else 0.03)


def convolution_operator(kernel, shape):
    """Sparse matrix of a convolution; rows near the border are incomplete."""
    ny, nx = shape
    radius_y, radius_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    y, x = np.indices(shape)
    rows, columns, values = [], [], []
    for (row, column), weight in np.ndenumerate(kernel):
        source_y, source_x = y - (row - radius_y), x - (column - radius_x)
        inside = (source_y >= 0) & (source_y < ny) & (source_x >= 0) & (source_x < nx)
        rows.append((y * nx + x)[inside])
        columns.append((source_y * nx + source_x)[inside])
        values.append(np.full(inside.sum(), weight))
    joined = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(joined, shape=(ny * nx, ny * nx))


@pytest.mark.parametrize("kind", ["gradient", "bump"])
@pytest.mark.parametrize("noise", CORRELATIONS)
@pytest.mark.parametrize(("rotation", "scale"), [(0.2, 1.005), (25.0, 1.0), (25.0, 1.5)])
def test_sums_after_a_convolution_and_a_resampling(rotation, scale, noise, kind):
    variance, rho = variance_plane(kind), CORRELATIONS[noise]
    axis = np.arange(-8, 9)
    profile = np.exp(-(axis**2) / (2 * 2.0**2))
    kernel = np.outer(profile, profile) / profile.sum() ** 2
    image = Image(np.zeros((N, N)), variance, None, "MJy/sr", SOURCE, correlation=rho)
    target = target_grid(rotation, scale, margin=32)  # away from the borders, whose pixels mean another sum
    result = reproject(convolve(image, kernel), target)
    method = result.history[-1].parameters["method"]
    matrix = operator(method, rotation, scale, 32) @ convolution_operator(kernel, (N, N))
    for size in SIZES:
        check(box_pulls(result, matrix, variance, rho, size), kind, (0.93, 1.07), (0.90, 1.10))


@pytest.mark.parametrize(("rotation", "scale"), [(25.0, 1.0), (0.2, 1.5)])
def test_scatter_of_real_draws_is_the_claimed_error(rotation, scale):
    """Draws through the whole code, data included: 640 of them know each standard deviation to 2.8 %."""
    rng = np.random.default_rng(11)
    n, draws, pad = 56, 640, 2
    source = tangent_wcs((n, n))
    y, x = np.indices((n, n))
    variance = 1.0 + 2.0 * x / n + 10.0 * np.exp(-((x - 28.0) ** 2 + (y - 28.0) ** 2) / (2 * 5.0**2))
    side = int(n / scale)
    target = (tangent_wcs((side, side), 0.05 * scale, rotation, (0.3, -0.4)), (side, side))
    sums, claimed = [], None
    norm = np.sqrt(np.sum(TRIANGLE**2))
    for _ in range(draws):
        white = rng.normal(size=(n + 2 * pad, n + 2 * pad))
        drawn = sum(
            TRIANGLE[j, i] * white[1 + j : 1 + j + n, 1 + i : 1 + i + n] for j in range(3) for i in range(3)
        )
        data = 5.0 + np.sqrt(variance) * drawn / norm
        image = Image(data, variance, None, "electron/s", source, correlation=CORRELATIONS["drizzled"])
        result = reproject(image, target)
        if claimed is None:
            regions = [boxes(result.mask, size, (1, 1)) for size in (1, 3, 9)]
            plane = np.where(result.mask, 1.0, result.variance)
            claimed = [region_variances(plane, *region, result.correlation) for region in regions]
        light = np.where(result.mask, 0.0, result.data).ravel()
        sums.append([np.bincount(labels.ravel() + 1, light, count + 1)[1:] for labels, count in regions])
    for index, variances in enumerate(claimed):
        measured = np.var([drawn[index] for drawn in sums], axis=0, ddof=1)
        pulls = np.sqrt(measured / variances)
        assert np.median(pulls) == pytest.approx(1.0, abs=0.03)
        # Four standard errors of a scatter from 640 draws, on top of the model's own few per cent.
        assert pulls.max() < 1.07 + 4 * 0.028
        assert pulls.min() > 0.93 - 4 * 0.028
