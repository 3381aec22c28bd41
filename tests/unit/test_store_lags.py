"""Correlations along wavelength, into a file and back."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.spectral_noise import lag_bands, weighted_sum_variance
from skyloom.errors import ShapeError
from skyloom.store.lags import pack_lags, unpack_lags


def random_bands(n_wave, radius, seed=1):
    """Symmetric lags that differ from channel to channel."""
    rng = np.random.default_rng(seed)
    matrix = np.zeros((n_wave, n_wave))
    for lag in range(1, radius + 1):
        matrix += np.diag(rng.uniform(0.1, 0.3, n_wave - lag), lag)
    matrix += matrix.T + np.eye(n_wave)
    bands = np.zeros((n_wave, 2 * radius + 1))
    for i in range(n_wave):
        for d in range(-radius, radius + 1):
            if 0 <= i + d < n_wave:
                bands[i, radius + d] = matrix[i, i + d]
    return bands


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_bands_come_back(radius):
    bands = random_bands(40, radius)
    upper = pack_lags(bands, 40)
    assert upper.shape == (40, radius)
    assert upper.dtype == np.float32
    np.testing.assert_allclose(unpack_lags(upper), bands, atol=1e-7)
    for i in range(37):
        assert upper[i, radius - 1] == np.float32(bands[i, 2 * radius])


def test_columns_added_for_a_common_radius_are_dropped():
    bands = random_bands(30, 1)
    padded = np.pad(pack_lags(bands, 30), ((0, 0), (0, 3)))
    np.testing.assert_allclose(unpack_lags(padded), bands, atol=1e-7)


def test_one_correlation_for_all_channels_becomes_a_band():
    lags = np.array([0.1, 0.4, 1.0, 0.4, 0.1])
    back = unpack_lags(pack_lags(lags, 25))
    np.testing.assert_allclose(back, lag_bands(lags, 25), atol=1e-7)
    weights, variance = np.linspace(1, 2, 25), np.linspace(2, 1, 25)
    np.testing.assert_allclose(
        weighted_sum_variance(variance, weights, back),
        weighted_sum_variance(variance, weights, lags),
        rtol=1e-6,
    )


def test_independent_channels_take_no_room():
    assert pack_lags(None, 12).shape == (12, 0)
    assert pack_lags([1.0], 12).shape == (12, 0)
    assert unpack_lags(np.empty((12, 0), np.float32)) is None
    assert unpack_lags(np.zeros((12, 2), np.float32)) is None


def test_an_axis_shorter_than_the_lags():
    back = unpack_lags(pack_lags([0.1, 0.4, 1.0, 0.4, 0.1], 2))
    assert back[0, back.shape[1] // 2 + 1] == pytest.approx(0.4)
    assert back[1, back.shape[1] // 2 + 1] == 0


def test_a_cube_of_lags_is_refused():
    with pytest.raises(ShapeError, match="n_wave, r"):
        unpack_lags(np.zeros((2, 5, 1)))
