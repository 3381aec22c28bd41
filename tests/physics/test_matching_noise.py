"""Are the errors of sums right after PSF matching? Judged region by region, with no random numbers.

For a linear operation A the variance of a sum with weights r is that of the input with weights A'r, exactly: the
adjoint is written out in ``tests/oracles/convolve.py``. ``pull`` is the true over the predicted standard deviation.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.oracles import convolve as oracles

from skyloom.core.image import Image
from skyloom.core.noise import sum_variance
from skyloom.core.psf import GaussianPSF, MoffatPSF, square_matrix
from skyloom.imaging.psfs.convolve import match_psf, matching_kernel
from skyloom.mock.hubble.noise import draw_noise, drizzle_kernel, kernel_correlation

SCALE = 0.06
PIXELS = square_matrix(SCALE)
BOXES = (1, 3, 9, 20)
FILTERS = {
    "white": None,
    "ACS drizzle": drizzle_kernel(0.05 / SCALE),
    "IR drizzle": drizzle_kernel(0.128 / SCALE),
}


def gaussian(sigma):
    return GaussianPSF.from_sigma(sigma * SCALE)


PAIRS = {
    "Gaussian, 1.2 px": (gaussian(0.8), gaussian(np.hypot(0.8, 1.2))),
    "Gaussian, 0.18 px": (gaussian(1.5), gaussian(np.hypot(1.5, 0.176))),
    "Wiener": (MoffatPSF(0.1, 2.5), MoffatPSF(0.19, 3.0)),
    "Gaussian, 4 px": (gaussian(0.8), gaussian(np.hypot(0.8, 4.0))),
}


def variance_plane(n, bump_sigma=6.0):
    """A gradient by a factor of three, and a source thirty times as bright in variance."""
    y, x = np.mgrid[:n, :n]
    radius = np.hypot(x - 0.62 * n, y - 0.6 * n)
    return (1.0 + 2.0 * x / n) * (1.0 + 30.0 * np.exp(-0.5 * (radius / bump_sigma) ** 2)), radius


def boxes(side, n, step):
    for top in range(0, n - side + 1, step):
        for left in range(0, n - side + 1, step):
            weights = np.zeros((n, n))
            weights[top : top + side, left : left + side] = 1.0
            yield weights


def matched(pair, variance, mask, correlation):
    source, target = PAIRS[pair]
    image = Image(np.zeros(variance.shape), variance, mask, "Jy", None, psf=source, correlation=correlation)
    kernel = matching_kernel(source, target, PIXELS)
    return match_psf(image, target, kernel=kernel), kernel


def pulls(result, kernel, variance, mask, correlation, side, step):
    """True over predicted deviation of box sums, and the weights of each box."""
    found = []
    for weights in boxes(side, variance.shape[0], step):
        weights[result.mask] = 0.0
        if weights.sum() < 0.5 * side**2:
            continue
        adjoint = oracles.matched_weights(kernel.kernel, mask, weights)
        true = sum_variance(variance, adjoint, correlation)
        found.append((np.sqrt(true / sum_variance(result.variance, weights, result.correlation)), weights))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise", ["white", pytest.param("ACS drizzle", marks=pytest.mark.long), "IR drizzle"]
)
@pytest.mark.parametrize("pair", PAIRS)
def test_box_sums_have_the_right_errors_after_matching(pair, noise):
    correlation = None if FILTERS[noise] is None else kernel_correlation(FILTERS[noise])
    n = 96 if pair != "Gaussian, 4 px" else 120
    variance, radius = variance_plane(n)
    mask = np.zeros((n, n), bool)
    result, kernel = matched(pair, variance, mask, correlation)
    reach = kernel.kernel.shape[0] // 2
    for side in BOXES:
        smooth, bump = [], []
        for pull, weights in pulls(result, kernel, variance, mask, correlation, side, max(side // 2, 7)):
            # The source reaches 3 sigma and the stencil; what lies outside has the gradient only.
            near = radius[weights > 0].min() < 18 + reach / 2
            (bump if near else smooth).append(pull)
        assert bump
        assert smooth
        assert 0.97 < np.median(smooth) < 1.03, side
        assert min(smooth) > 0.93, side
        assert max(smooth) < 1.07, side
        assert min(bump) > 0.90, side
        assert max(bump) < 1.10, side
        if side == 1:
            assert 0.97 < np.mean(smooth + bump) < 1.03


@pytest.mark.parametrize("noise", ["white", "IR drizzle"])
def test_pixels_beside_holes_and_borders_have_the_right_errors_too(noise):
    correlation = None if FILTERS[noise] is None else kernel_correlation(FILTERS[noise])
    n = 60
    variance = variance_plane(n)[0] * 0.0 + 1.0 + np.arange(n) / n
    mask = np.random.default_rng(3).random((n, n)) < 0.01
    result, kernel = matched("Gaussian, 1.2 px", variance, mask, correlation)
    assert np.count_nonzero(result.flags) > 100
    for side in BOXES:
        found = [
            pull for pull, _ in pulls(result, kernel, variance, mask, correlation, side, max(side // 2, 3))
        ]
        assert 0.97 < np.median(found) < 1.03, side
        # Correlated noise that a hole takes away is still counted: errors up to 8 % too large, never too small.
        assert min(found) > 0.92, side
        assert max(found) < 1.07, side


def test_realisations_of_the_noise_scatter_as_predicted():
    """The same through the real thing: noise drawn, image matched, boxes summed; 800 draws give 2.5 %."""
    correlation = kernel_correlation(FILTERS["IR drizzle"])
    n, draws = 40, 800
    variance = variance_plane(n, bump_sigma=4.0)[0]
    noise = draw_noise(variance, FILTERS["IR drizzle"], np.random.default_rng(11), draws)
    source, target = PAIRS["Gaussian, 1.2 px"]
    kernel = matching_kernel(source, target, PIXELS)
    image = Image(noise[0], variance, np.zeros((n, n), bool), "Jy", None, psf=source, correlation=correlation)
    results = [match_psf(image.evolve(data=plane), target, kernel=kernel) for plane in noise]
    data = np.array([result.data for result in results])
    for side, corner in ((1, (8, 8)), (3, (5, 25)), (9, (4, 5)), (20, (15, 15)), (9, (20, 20))):
        box = slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side)
        weights = np.zeros((n, n))
        weights[box] = 1.0
        predicted = np.sqrt(sum_variance(results[0].variance, weights, results[0].correlation))
        scatter = np.std(data[(slice(None), *box)].sum(axis=(1, 2)))
        # Three standard errors of a scatter from 800 draws, on top of the 7 % that a source may cost.
        assert abs(scatter / predicted - 1.0) < 0.07 + 3.0 / np.sqrt(2 * draws), (side, corner)


def test_ignoring_the_correlation_would_be_wrong_by_factors():
    n = 60
    variance = np.ones((n, n))
    mask = np.zeros((n, n), bool)
    result, kernel = matched("Gaussian, 1.2 px", variance, mask, None)
    weights = np.zeros((n, n))
    weights[20:29, 20:29] = 1.0
    true = sum_variance(variance, oracles.matched_weights(kernel.kernel, mask, weights))
    assert np.sqrt(true / sum_variance(result.variance, weights, None)) > 3.0
