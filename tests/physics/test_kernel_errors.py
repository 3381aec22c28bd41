"""Fitted kernels scatter by their quoted errors about the truth, and matched images by theirs."""

from __future__ import annotations

import numpy as np
import pytest
from tests.grids import tangent_wcs
from tests.inputs.kernel import COARSE, SHARP, SHARP_FILTER, UNIT, Field

from skyloom.core.image import Image
from skyloom.core.noise import region_variances
from skyloom.imaging.psfs.psf_fit import fit_kernel, match_to
from skyloom.mock.hubble.noise import draw_noise, kernel_correlation

TRUTH = {"shift_x": 0.0, "shift_y": 0.0, "slope": 1.3, "offset": 4.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fwhm", "beta", "sharp_sigma"),
    [pytest.param(0.6, 2.2, 6.0, marks=pytest.mark.long), (1.0, 4.0, 60.0), (0.8, None, 20.0)],
)
def test_pulls_of_the_kernel(fwhm, beta, sharp_sigma):
    """0.04" pixels turned by 25 degrees on pixels of 0.2", correlated noise that grows with the light in both.

    At a sigma of 60 the noise of the sharp image, convolved, is five times that of the other.
    """
    draws = 25
    field = Field(fwhm=fwhm, beta=beta, shape=(70, 74), sharp_shape=(520, 520))
    rng = np.random.default_rng(11)
    truth = {**TRUTH, "fwhm": fwhm, "beta": beta}
    pulls, chi_squares = [], []
    for _ in range(draws):
        image, reference = field.observe(rng, sharp_sigma=sharp_sigma, poisson=0.02, masked=0.001)
        fit = fit_kernel(image, reference, model="gaussian" if beta is None else "moffat")
        values = {"fwhm": fit.fwhm, "beta": fit.beta, "slope": fit.slope, "offset": fit.offset}
        values |= {"shift_x": fit.shift[0], "shift_y": fit.shift[1]}
        pulls.append(
            [
                (values[name] - truth[name]) / np.sqrt(fit.covariance[i, i])
                for i, name in enumerate(fit.parameters)
            ]
        )
        chi_squares.append(fit.chi_square)
    pulls = np.array(pulls)
    # Errors are as noisy as the fits: what exceeds 1 in chi square widens them by up to 3 %.
    assert np.all(np.abs(pulls.std(axis=0, ddof=1) - 1.0) < 3.0 / np.sqrt(2 * draws))
    assert np.all(np.abs(pulls.mean(axis=0)) < 3.0 / np.sqrt(draws))
    # The noise plane of the sharp image is that of its own pixels, smoothed: around bright points it is a little large.
    assert 0.75 < np.mean(chi_squares) < 1.05


def test_kernel_without_noise_is_exact():
    """What is left without noise: 1e-3 of width and flux, 2e-3 of the wings, 1 % of which lies beyond the margin."""
    for fwhm, beta in ((0.6, 2.2), (1.0, 4.0)):
        field = Field(fwhm=fwhm, beta=beta, shape=(60, 64), sharp_shape=(460, 460))
        fit = fit_kernel(*field.observe(np.random.default_rng(0), sharp_sigma=1e-3, coarse_sigma=1e-3))
        assert fit.fwhm == pytest.approx(fwhm, rel=1e-3)
        assert fit.beta == pytest.approx(beta, rel=2e-3)
        assert fit.slope == pytest.approx(1.3, rel=1e-3)


@pytest.mark.slow
def test_pulls_of_sums_of_a_matched_image():
    """Correlated noise with a gradient by a factor of three, turned by 25 degrees, matched: 1x1, 3x3 and 9x9 sums.

    Many boxes of few images: all together for the mean, and in 16 places of the field for the worst of them.
    """
    field = Field(shape=(60, 64), sharp_shape=(460, 460))
    fit = fit_kernel(*field.observe(np.random.default_rng(3)))
    shape, target = (620, 620), (tangent_wcs((72, 72), COARSE), (72, 72))
    wcs = tangent_wcs(shape, SHARP, 25.0)
    variance = np.broadcast_to(1.0 + 2.0 * np.arange(shape[1]) / shape[1], shape)
    rng, draws = np.random.default_rng(6), 45
    correlation = kernel_correlation(SHARP_FILTER)
    fields = []
    for _ in range(draws):
        noise = draw_noise(variance, SHARP_FILTER, rng, 1)[0]
        matched = match_to(Image(noise, variance, None, UNIT, wcs, correlation=correlation), target, fit)
        assert matched.valid.all()
        fields.append(matched.data)
    fields = np.array(fields)
    for side, low, high in ((1, 0.9, 1.1), (3, 0.93, 1.07), (9, 0.93, 1.07)):
        n = 72 // side
        boxes = fields.reshape(draws, n, side, n, side).sum(axis=(2, 4))
        regions = np.repeat(np.repeat(np.arange(n * n).reshape(n, n), side, axis=0), side, axis=1)
        predicted = region_variances(matched.variance, regions, n * n, matched.correlation).reshape(n, n)
        pulls = (boxes**2).mean(axis=0) / predicted
        assert np.sqrt(pulls.mean()) == pytest.approx(1.0, abs=0.03)
        quarters = pulls.reshape(4, n // 4, 4, n // 4).mean(axis=(1, 3)) ** 0.5
        # With 2 x 2 sums of 9 x 9 in a quarter, 180 in all, the worst of 16 scatters by 2.2 times 5 % more.
        allowance = 0.11 if side == 9 else 0.04
        assert low - allowance < quarters.min()
        assert quarters.max() < high + allowance
