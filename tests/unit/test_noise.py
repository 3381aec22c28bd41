"""The noise model against written-out covariances."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core import noise
from skyloom.core.image import Image
from skyloom.errors import InputError, ShapeError
from tests.oracles.noise import convolution_matrix, noise_covariance, pair_variance


def gaussian(sigma, radius):
    axis = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * np.add.outer(axis**2, axis**2) / sigma**2)
    return kernel / kernel.sum()


@pytest.fixture
def correlated():
    rho, _ = noise.convolve_correlation(gaussian(1.0, 4))
    return rho


@pytest.mark.parametrize("direct_radius", [0, 10], ids=["transformed", "pairs"])
def test_region_variances_equal_all_pairs(direct_radius, correlated, monkeypatch, rng):
    monkeypatch.setattr(noise, "DIRECT_RADIUS", direct_radius)
    labels = rng.integers(-1, 3, (14, 17)).astype(np.int32)
    variance = rng.uniform(0.5, 3.0, labels.shape)
    weights = rng.normal(size=labels.shape)
    found = noise.region_variances(variance, labels, 4, correlated, weights)
    for region in range(3):
        expected = pair_variance(weights * np.sqrt(variance), labels, correlated, region)
        assert found[region] == pytest.approx(expected, rel=3e-7)
    assert found[3] == 0.0


def test_variance_under_the_mask_never_leaks(correlated):
    variance = np.ones((9, 9))
    variance[4, 4] = np.nan
    weights = np.ones((9, 9))
    weights[4, 4] = 0.0
    assert np.isfinite(noise.sum_variance(variance, weights, correlated))


def test_independent_pixels_add_their_variances(rng):
    variance = rng.uniform(1, 2, (6, 7))
    weights = rng.normal(size=variance.shape)
    assert noise.sum_variance(variance, weights) == pytest.approx(np.sum(weights**2 * variance))


@pytest.mark.parametrize("white", [True, False])
def test_convolution_gives_the_covariance_of_the_operator(white, correlated):
    shape = (31, 31)
    kernel = gaussian(0.8, 3)
    before = None if white else correlated
    after, variance_kernel = noise.convolve_correlation(kernel, before)
    operator = convolution_matrix(kernel, shape)
    covariance = (
        operator @ noise_covariance(np.ones(shape), np.ones((1, 1)) if white else correlated) @ operator.T
    )
    centre = (shape[0] // 2) * shape[1] + shape[1] // 2
    assert variance_kernel.sum() == pytest.approx(covariance[centre, centre], rel=1e-10)
    radius = after.shape[0] // 2
    truth = (covariance[centre] / covariance[centre, centre]).reshape(shape)
    cut = slice(shape[0] // 2 - radius, shape[0] // 2 + radius + 1)
    np.testing.assert_allclose(after, truth[cut, cut], atol=1e-10)


def test_truncation_keeps_99_percent_of_the_correlation():
    rho, _ = noise.convolve_correlation(gaussian(8.0, 40))
    full = noise.autocorrelate(gaussian(8.0, 40))
    full /= full.max()
    assert rho.sum() >= 0.99 * full.sum()
    # A match with sigma 8 px needs a wide kernel: a fixed cap would not do.
    assert rho.shape[0] // 2 >= 25


@pytest.mark.parametrize("method", ["bilinear", "lanczos3", "area"])
def test_identity_phase_passes_noise_unchanged(method, correlated):
    after, gain = noise.resample_correlation(method, np.eye(2), correlated, phases=[[0.0, 0.0]])
    assert gain == pytest.approx(1.0, abs=1e-9)
    radius = min(after.shape[0], correlated.shape[0]) // 2
    np.testing.assert_allclose(_cut(after, radius), _cut(correlated, radius), atol=1e-6)


def _cut(array, radius):
    centre = array.shape[0] // 2
    return array[centre - radius : centre + radius + 1, centre - radius : centre + radius + 1]


def test_bilinear_half_pixel_shift_averages_four_pixels():
    after, gain = noise.resample_correlation("bilinear", np.eye(2), None, phases=[[0.5, 0.5]])
    assert gain == pytest.approx(0.25)
    np.testing.assert_allclose(after, np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]), atol=1e-12)


def test_block_mean_of_white_noise_stays_white():
    after, gain = noise.resample_correlation("area", 2 * np.eye(2), None, phases=[[0.5, 0.5]])
    assert gain == pytest.approx(0.25)
    assert after.shape == (1, 1)


def test_phase_average_conserves_the_noise_of_large_sums():
    # Sums over areas much larger than the kernel must not care about the interpolation.
    for method in ("bilinear", "lanczos3", "area"):
        after, gain = noise.resample_correlation(method, [[0.9, 0.4], [-0.4, 0.9]])
        area = 0.9**2 + 0.4**2
        assert gain * after.sum() * area == pytest.approx(1.0, abs=0.02)


def test_combined_correlation_is_the_variance_weighted_mean(correlated):
    combined = noise.combine_correlation([3.0, 1.0], [None, correlated])
    centre = combined.shape[0] // 2
    middle = correlated.shape[0] // 2
    assert combined[centre, centre + 1] == pytest.approx(0.25 * correlated[middle, middle + 1])
    assert noise.combine_correlation([1.0, 1.0], [None, None]) is None


def test_measured_noise_recovers_scale_and_correlation(rng):
    from scipy.ndimage import convolve

    kernel = gaussian(1.0, 4)
    truth = noise.autocorrelate(kernel)
    truth /= truth.max()
    scales, correlations = [], []
    for _ in range(40):
        data = convolve(rng.normal(size=(100, 100)), kernel, mode="wrap")
        sources = np.zeros(data.shape, bool)
        sources[30:60, 40:70] = True
        data[sources] += 100.0
        claimed = np.full(data.shape, 0.5 * np.sum(kernel**2))
        found = noise.measure_correlation(Image(data, claimed, None, "electron/s", None), sources, radius=3)
        scales.append(found.scale)
        correlations.append(found.correlation)
    spread = np.std(scales) / np.sqrt(len(scales))
    assert abs(np.mean(scales) - 2.0) < 4 * spread
    np.testing.assert_allclose(np.mean(correlations, axis=0), _cut(truth, 3), atol=0.03)
    assert found.scale_error == pytest.approx(np.std(scales), rel=0.5)


def test_combined_measurements_weigh_pixels():
    first = noise.NoiseMeasurement(1.0, np.ones((1, 1)), 100, 0.1)
    second = noise.NoiseMeasurement(2.0, np.ones((1, 1)), 300, 0.1)
    both = noise.combine_measurements([first, second])
    assert both.scale == pytest.approx(1.75)
    assert both.n_pixels == 400
    with pytest.raises(InputError, match="no noise measurement"):
        noise.combine_measurements([])


def test_too_little_sky_is_refused():
    image = Image(np.zeros((10, 10)), np.ones((10, 10)), None, "electron/s", None)
    with pytest.raises(InputError, match="only 100 sky pixels"):
        noise.measure_correlation(image)


def test_photon_noise_of_a_source_reaches_its_sum(correlated):
    data = np.full((40, 40), 2.0)
    image = Image(data, np.full(data.shape, 1e-3), None, "electron/s", None, correlation=correlated)
    noisy = noise.add_source_poisson(image, gain=1.0, exposure=500.0)
    region = np.zeros(data.shape)
    region[8:32, 8:32] = 1.0
    added = noise.sum_variance(noisy.variance, region, correlated) - noise.sum_variance(
        image.variance, region, correlated
    )
    # sqrt(v_i v_j) mixes both parts, so the difference is exact only far from the edge of the region.
    assert added == pytest.approx(2.0 * 24**2 / 500.0, rel=0.1)
    with pytest.raises(InputError, match="exposure is 0"):
        noise.add_source_poisson(image, gain=1.0, exposure=0.0)


def test_negative_signal_adds_no_variance():
    image = Image(np.full((8, 8), -5.0), np.ones((8, 8)), None, "electron/s", None)
    assert np.all(noise.add_source_poisson(image, 1.0, 10.0).variance == 1.0)


def test_even_kernels_are_refused():
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        noise.convolve_correlation(np.ones((2, 3)))
