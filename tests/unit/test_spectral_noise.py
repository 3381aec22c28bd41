"""Variance and correlation along wavelength, against full covariance matrices."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.cube import CubeCorrelation
from skyloom.core.noise import lag_covariance
from skyloom.core.spectral_noise import (
    cube_sum_variance,
    lag_bands,
    measure_lag_covariance,
    measure_lags,
    resample_lags,
    truncate_lags,
    weighted_sum_variance,
)
from skyloom.errors import InputError, ShapeError
from tests.oracles import noise as oracles_noise
from tests.oracles import spectral as oracles_spectral

LAGS = np.array([0.1, 0.5, 1.0, 0.5, 0.1])


def band(n_wave, rng):
    """A symmetric band whose correlations differ from channel to channel."""
    lags = lag_bands(LAGS, n_wave)
    for lag in (1, 2):
        values = lags[:-lag, 2 + lag] * rng.uniform(0.5, 1.0, n_wave - lag)
        lags[:-lag, 2 + lag] = values
        lags[lag:, 2 - lag] = values
    return lags


def test_lags_off_the_axis_are_zero():
    bands = lag_bands(LAGS, 4)
    np.testing.assert_array_equal(
        bands, [[0, 0, 1, 0.5, 0.1], [0, 0.5, 1, 0.5, 0.1], [0.1, 0.5, 1, 0.5, 0], [0.1, 0.5, 1, 0, 0]]
    )
    np.testing.assert_array_equal(lag_bands(None, 3), np.ones((3, 1)))
    np.testing.assert_array_equal(lag_bands(LAGS, 1), [[0, 0, 1, 0, 0]])


def test_a_band_is_copied():
    lags = band(6, np.random.default_rng(1))
    lag_bands(lags, 6)[:] = 7.0
    assert lags.max() == 1.0


@pytest.mark.parametrize("lags", [np.ones(4), np.ones((5, 4)), np.ones((6, 3))])
def test_lags_of_another_shape_are_refused(lags):
    with pytest.raises(ShapeError, match="correlation has shape"):
        lag_bands(lags, 5)


@pytest.mark.parametrize("kind", ["independent", "one for all", "band"])
def test_the_variance_of_a_sum_is_that_of_all_pairs(kind, rng):
    n_wave = 17
    lags = {"independent": None, "one for all": LAGS, "band": band(n_wave, rng)}[kind]
    variance = rng.uniform(0.5, 3.0, (2, 3, n_wave))
    weights = rng.normal(0, 1, (2, 3, n_wave)) * (rng.random((2, 3, n_wave)) < 0.8)
    result = weighted_sum_variance(variance, weights, lags)
    expected = [
        [oracles_spectral.sum_variance(variance[i, j], weights[i, j], lags) for j in range(3)]
        for i in range(2)
    ]
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    shared = weighted_sum_variance(variance, weights[0, 0], lags)
    np.testing.assert_allclose(
        shared[1, 2], oracles_spectral.sum_variance(variance[1, 2], weights[0, 0], lags), rtol=1e-12
    )


def test_what_has_no_weight_has_no_say():
    variance = np.array([np.nan, 1.0, 4.0, -1.0, np.inf], np.float32)
    weights = np.array([0.0, 1.0, 2.0, 0.0, 0.0])
    assert weighted_sum_variance(variance, weights, LAGS) == pytest.approx(1 + 16 + 2 * 2 * 2 * 0.5)
    with pytest.raises(ShapeError, match="weights have shape"):
        weighted_sum_variance(variance, np.ones(4))


def test_a_sum_of_a_cube_is_separable(rng):
    shape = (5, 4, 4)
    spatial = np.outer([0.3, 1.0, 0.3], [0.2, 1.0, 0.2])
    level, shape_of_sky = rng.uniform(1, 4, 5), rng.uniform(1, 2, shape[1:])
    variance = level[:, None, None] * shape_of_sky
    pixels, channels = rng.normal(1, 0.3, shape[1:]), np.array([0.0, 1.0, -0.5, 2.0, 1.0])
    correlation = CubeCorrelation(spatial, LAGS)
    result = cube_sum_variance(variance, pixels, channels, correlation)
    plane = oracles_noise.noise_covariance(shape_of_sky, spatial)
    along = np.sqrt(np.outer(level, level)) * oracles_spectral.lag_matrix(LAGS, 5)
    weights = np.outer(channels, pixels).ravel()
    assert result == pytest.approx(weights @ np.kron(along, plane) @ weights, rel=1e-10)
    white = cube_sum_variance(variance, pixels, channels)
    assert white == pytest.approx(np.sum(weights**2 * variance.ravel()), rel=1e-10)


def test_one_per_cent_of_the_lags_may_go():
    lags = np.array([0.001, 0.002, 0.3, 1.0, 0.3, 0.002, 0.001])
    np.testing.assert_array_equal(truncate_lags(lags), [0.3, 1.0, 0.3])
    np.testing.assert_array_equal(truncate_lags(lags, 1e-6), lags)
    assert truncate_lags([0.001, 1.0, 0.001]).tolist() == [1.0]
    # One channel that needs a lag keeps it for all.
    both = np.stack([lags, [0.0, 0.1, 0.3, 1.0, 0.3, 0.1, 0.0]])
    assert truncate_lags(both).shape == (2, 5)


def test_measured_lags_are_those_put_in(rng):
    kernel = np.array([0.5, 1.0, 0.5])
    white = rng.normal(0, 1, (300, 402))
    noise = 1.2 * np.array([np.convolve(row, kernel, "valid") for row in white]) / np.sqrt(1.5) + 30.0
    used = rng.random(noise.shape) < 0.8
    garbage = np.where(used, noise, np.nan)
    covariance = measure_lag_covariance(garbage, used, 4)
    truth = 1.44 * np.array([0, 0, 1 / 6, 2 / 3, 1, 2 / 3, 1 / 6, 0, 0])
    # 96,000 values, correlated over some two of them; a lag scatters by sqrt(sum rho^2 / n).
    np.testing.assert_allclose(covariance, truth, atol=4 * 1.44 * np.sqrt(2 / used.sum()))
    np.testing.assert_allclose(measure_lags(garbage, used, 4), covariance / covariance[4])


def test_the_mean_of_a_short_spectrum_is_given_back(rng):
    kernel = np.ones(5)
    noise = np.array([np.convolve(row, kernel, "valid") for row in rng.normal(0, 1, (4000, 34))])
    measured = measure_lag_covariance(noise, np.ones(noise.shape, bool), 5)
    truth = [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0]
    # Without the correction every lag would be 0.83 lower (25 / 30).
    np.testing.assert_allclose(measured, truth, atol=0.12)


def test_a_row_of_an_image_gives_the_same(rng):
    noise, used = rng.normal(0, 1, (1, 500)), rng.random((1, 500)) < 0.7
    measured = measure_lag_covariance(noise, used, 3)
    np.testing.assert_allclose(measured, lag_covariance(noise, used, 3)[3], atol=2e-3)


def test_too_few_channels_measure_nothing():
    with pytest.raises(InputError, match="only 150 channels are left"):
        measure_lags(np.ones((3, 50)), np.ones((3, 50), bool), 2)
    with pytest.raises(ShapeError, match="used has shape"):
        measure_lags(np.ones((3, 50)), np.ones((3, 51), bool), 2)
    with pytest.raises(InputError, match="all the same"):
        measure_lags(np.ones((3, 500)), np.ones((3, 500), bool), 2)


@pytest.mark.parametrize("kind", ["independent", "one for all", "band"])
def test_resampled_lags_are_those_of_the_full_covariance(kind, rng):
    n_wave, n_out, taps = 24, 30, 3
    lags = {"independent": None, "one for all": LAGS, "band": band(n_wave, rng)}[kind]
    first = np.minimum(np.arange(n_out) * n_wave // n_out, n_wave - 1)
    weights = rng.random((n_out, taps))
    weights[first[:, None] + np.arange(taps) >= n_wave] = 0.0
    weights[7] = 0.0
    variance = rng.uniform(0.5, 2.0, n_wave)
    result = resample_lags(first, weights, lags, variance)
    matrix = np.zeros((n_out, n_wave))
    for row in range(n_out):
        for tap in range(taps):
            if first[row] + tap < n_wave:
                matrix[row, first[row] + tap] += weights[row, tap]
    sigma = np.sqrt(variance)
    full = matrix @ (sigma[:, None] * oracles_spectral.lag_matrix(lags, n_wave) * sigma) @ matrix.T
    scale = np.sqrt(np.where(np.diag(full) > 0, np.diag(full), 1.0))
    expected = full / scale[:, None] / scale[None, :]
    expected[7, 7] = 1.0
    reached = oracles_spectral.lag_matrix(result, n_out)
    near = np.abs(np.subtract.outer(np.arange(n_out), np.arange(n_out))) <= result.shape[1] // 2
    np.testing.assert_allclose(reached[near], expected[near], atol=1e-12)
    assert np.abs(expected[~near]).sum(initial=0) <= 0.011 * np.abs(expected).sum()
