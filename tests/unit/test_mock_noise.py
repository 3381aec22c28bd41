"""Noise of the mock: its variance and correlation are what it says they are."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.errors import InputError, ShapeError
from skyloom.mock.hubble.noise import (
    correlated_noise,
    draw_noise,
    drizzle_kernel,
    kernel_correlation,
    white_noise,
)


def variance_gradient(shape: tuple[int, int]) -> np.ndarray:
    ny, nx = shape
    return 1.0 + 2.0 * np.arange(nx)[None, :] / nx + np.zeros((ny, 1))


def naive_correlation(kernel: np.ndarray, step: int) -> np.ndarray:
    size = kernel.shape[0]
    reach = (size - 1) // step
    rho = np.zeros((2 * reach + 1, 2 * reach + 1))
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            for y in range(size):
                for x in range(size):
                    if 0 <= y + step * dy < size and 0 <= x + step * dx < size:
                        rho[dy + reach, dx + reach] += kernel[y, x] * kernel[y + step * dy, x + step * dx]
    return rho / rho[reach, reach]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_kernel_correlation_is_the_naive_sum(step: int) -> None:
    kernel = np.random.default_rng(3).normal(size=(7, 7))
    np.testing.assert_allclose(kernel_correlation(kernel, step), naive_correlation(kernel, step), atol=1e-12)


def test_white_noise_has_no_correlation() -> None:
    assert kernel_correlation(None).shape == (1, 1)
    noise = white_noise(np.full((200, 200), 4.0), np.random.default_rng(1))
    assert noise.std() == pytest.approx(2.0, abs=4 * 2.0 / np.sqrt(2 * noise.size))


@pytest.mark.parametrize(("ratio", "pixfrac", "step"), [(0.83, 0.8, 1), (2.13, 0.8, 1), (1.67, 1.0, 4)])
def test_draws_have_the_stated_variance_and_correlation(ratio: float, pixfrac: float, step: int) -> None:
    kernel = drizzle_kernel(ratio, pixfrac, step=step)
    rho = kernel_correlation(kernel, step)
    variance = variance_gradient((24, 24))
    draws = draw_noise(variance, kernel, np.random.default_rng(2), 3000, step=step)
    unit = draws / np.sqrt(variance)
    # 3000 x 576 values, of which about 1 in 10 is independent: 3 sigma of a mean square is 0.01.
    assert np.mean(unit**2) == pytest.approx(1.0, abs=0.01)
    # Per pixel, corners and borders included: 6 sigma of a sample variance is 0.155.
    np.testing.assert_allclose(np.mean(unit**2, axis=0), 1.0, atol=0.155)
    centre = rho.shape[0] // 2
    for dy, dx in [(0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (3, 3)]:
        expected = rho[centre + dy, centre + dx] if max(dy, abs(dx)) <= centre else 0.0
        first = unit[:, : 24 - dy, max(0, -dx) : 24 - max(0, dx)]
        second = unit[:, dy:, max(0, dx) : 24 + min(0, dx)]
        assert np.mean(first * second) == pytest.approx(expected, abs=0.01)


def test_variance_of_a_sum_follows_the_correlation() -> None:
    kernel = drizzle_kernel(2.13, 0.8)
    rho = kernel_correlation(kernel)
    draws = draw_noise(np.ones((20, 20)), kernel, np.random.default_rng(5), 4000)
    y, x = (axis.ravel() for axis in np.mgrid[:5, :5])
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    centre = rho.shape[0] // 2
    inside = (np.abs(dy) <= centre) & (np.abs(dx) <= centre)
    expected = np.sum(
        rho[np.clip(dy, -centre, centre) + centre, np.clip(dx, -centre, centre) + centre] * inside
    )
    measured = draws[:, 7:12, 7:12].sum(axis=(1, 2)).var()
    assert measured / expected == pytest.approx(1.0, abs=3 * np.sqrt(2 / 4000))


def test_the_generator_decides_the_noise() -> None:
    kernel = drizzle_kernel(1.5)
    first = correlated_noise(np.ones((9, 8)), kernel, np.random.default_rng(7))
    again = correlated_noise(np.ones((9, 8)), kernel, np.random.default_rng(7))
    other = correlated_noise(np.ones((9, 8)), kernel, np.random.default_rng(8))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (9, 8)
    assert np.abs(first - other).max() > 0.1


def test_drizzle_kernel_of_a_drop_within_one_pixel_is_almost_white() -> None:
    kernel = drizzle_kernel(0.5)
    assert kernel.sum() == pytest.approx(1.0)
    assert kernel.shape == (1, 1)


def test_bad_parameters_are_named() -> None:
    with pytest.raises(InputError, match=r"pixfrac 1\.5"):
        drizzle_kernel(1.0, 1.5)
    with pytest.raises(ShapeError, match="odd"):
        kernel_correlation(np.ones((2, 2)))
    with pytest.raises(InputError, match="negative"):
        white_noise(-np.ones((3, 3)), np.random.default_rng(0))
    with pytest.raises(ShapeError, match="expected 2"):
        white_noise(np.ones(3), np.random.default_rng(0))
