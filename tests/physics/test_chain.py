"""The order of the recipe: resampled first, then matched; the scatter of real draws against the claimed errors."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.image import Image
from skyloom.core.noise import region_variances
from skyloom.core.psf import GaussianPSF
from skyloom.imaging.grids.reproject import reproject
from skyloom.imaging.psfs.convolve import match_psf, matching_kernel
from skyloom.mock.hubble.noise import draw_noise, drizzle_kernel, kernel_correlation
from skyloom.mock.scenes.images import sky_wcs

SHAPE = (110, 110)
CENTRE = (53.1, -27.8)
DRAWS = 640


def regions(shape, side):
    """Nine boxes of a side, spread over the middle of an image."""
    labels = np.full(shape, -1, np.int32)
    places = [int(size * fraction) for size in shape[:1] for fraction in (0.36, 0.5, 0.64)]
    for number, (row, column) in enumerate((row, column) for row in places for column in places):
        top, left = row - side // 2, column - side // 2
        labels[top : top + side, left : left + side] = number
    return labels


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gradient", "bump"])
@pytest.mark.parametrize(
    ("rotation", "scale"), [(0.2, 1.005), pytest.param(25.0, 1.0, marks=pytest.mark.long), (25.0, 1.5)]
)
def test_scatter_of_sums_after_resampling_and_matching(rotation, scale, kind):
    y, x = np.indices(SHAPE)
    variance = 1.0 + 2.0 * x / SHAPE[1]
    if kind == "bump":
        variance += 30.0 * np.exp(-0.5 * np.hypot(x - 55, y - 55) ** 2 / 8.0**2)
    kernel = drizzle_kernel(1.5, 0.8)
    correlation = kernel_correlation(kernel)
    wcs = sky_wcs(CENTRE, SHAPE, 0.06)
    shape = (round(110 / scale), round(110 / scale))
    grid = sky_wcs(CENTRE, shape, 0.06 * scale, angle=rotation), shape
    narrow, wide = GaussianPSF(0.11), GaussianPSF(0.20)

    def through(data):
        image = Image(data, variance, None, "electron/s", wcs, psf=narrow, correlation=correlation)
        on_grid = reproject(image, grid)
        return match_psf(on_grid, wide, kernel=shared(on_grid))

    kernels = []

    def shared(on_grid):
        if not kernels:
            kernels.append(matching_kernel(on_grid.psf, wide, on_grid.pixel_matrix))
        return kernels[0]

    generator = np.random.default_rng(11)
    boxes = {side: regions(shape, side) for side in (3, 9, 17)}
    sums = {side: [] for side in boxes}
    for draw in draw_noise(variance, kernel, generator, DRAWS):
        product = through(draw)
        for side, labels in boxes.items():
            inside = labels >= 0
            sums[side].append(np.bincount(labels[inside], product.data[inside], 9))
    for side, labels in boxes.items():
        claimed = np.sqrt(region_variances(product.variance, labels, 9, product.correlation))
        pulls = np.std(sums[side], axis=0) / claimed
        # The bands of the noise model, widened by what 640 draws leave open (2.8 % per position).
        low, high = (0.93, 1.07) if kind == "gradient" else (0.90, 1.10)
        assert pulls.min() > low - 0.08, (side, pulls)
        assert pulls.max() < high + 0.08, (side, pulls)
        assert abs(np.median(pulls) - 1.0) < (0.03 if kind == "gradient" else 0.06) + 0.02, (side, pulls)
