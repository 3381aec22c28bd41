"""Bins keep what they claim when the noise is drawn again, correlated noise included."""

from __future__ import annotations

import numpy as np
import pytest
from tests.inputs.binning import add_noise, disc_and_blobs, gaussian_correlation

from skyloom.core.noise import region_variances
from skyloom.spectral.bins.binning import METHODS, bin_to_snr

TARGET = 10.0
SIGMA = 0.6
N_DRAWS = 120


def draw_sums(numbers, truth, variance, n_draws):
    """(n_draws, n_bins) sums of fresh noise over the bins."""
    return np.array(
        [
            np.bincount(numbers.ravel(), (add_noise(truth, variance, 100 + seed, SIGMA) - truth).ravel())
            for seed in range(n_draws)
        ]
    )


@pytest.mark.parametrize("method", METHODS)
def test_correlated_spaxels_have_the_noise_that_bins_claim(method):
    truth, variance = disc_and_blobs(90)
    rho = gaussian_correlation(SIGMA, 3)
    signal = add_noise(truth, variance, 1, SIGMA)
    numbers = np.asarray(bin_to_snr(signal, variance, TARGET, method, correlation=rho))
    n_bins = numbers.max() + 1
    claimed = np.sqrt(region_variances(variance, numbers, n_bins, rho))
    measured = draw_sums(numbers, truth, variance, N_DRAWS).std(axis=0)
    several = np.bincount(numbers.ravel()) > 3
    assert several.sum() > 15
    # Each scatter is known to 1 / sqrt(2 N) = 6.5 %, their mean over 15 and more bins to 1.7 %.
    assert 0.95 < np.mean(claimed[several] / measured[several]) < 1.05
    ignoring = np.sqrt(np.bincount(numbers.ravel(), variance.ravel()))
    # The sum of this correlation is 4.07: large bins would claim twice their S/N.
    assert np.mean(measured[several] / ignoring[several]) > 1.5


def test_snr_measured_over_claimed_on_fresh_noise():
    """Fresh sums over their true noise, against the S/N claimed on the noise the bins were made on."""
    truth, variance = disc_and_blobs(90)
    rho = gaussian_correlation(SIGMA, 3)
    ratios = []
    for seed in range(6):
        signal = add_noise(truth, variance, seed, SIGMA)
        numbers = np.asarray(bin_to_snr(signal, variance, TARGET, correlation=rho))
        several = np.bincount(numbers.ravel()) > 1
        claimed = np.bincount(numbers.ravel(), signal.ravel())[several]
        fresh = np.bincount(numbers.ravel(), add_noise(truth, variance, 50 + seed, SIGMA).ravel())[several]
        ratios.append(np.mean(fresh / claimed))
    # Some 50 bins of 14 % each, six times: 0.8 %.
    assert 0.95 < np.mean(ratios) < 1.05
