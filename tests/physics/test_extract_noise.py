"""Errors of extracted spectra: pulls of bins of all sizes under correlated noise, with and without the correlation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree
from tests.oracles.extract import correlated_noise

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.spectral_noise import weighted_sum_variance
from skyloom.spectral.bins.extract import extract_spectra
from skyloom.spectral.noise.measure import apply_cube_noise, measure_cube_noise

SHAPE = (240, 96, 96)
SIZES = (1, 9, 50, 300)


def noise_cube(seed, claimed=1.0):
    """Correlated noise whose variance runs by a factor of 9 across the field and 2 along wavelength."""
    noise, rho, lags = correlated_noise(np.random.default_rng(seed), SHAPE, 0.6, 0.5)
    x = np.indices(SHAPE[1:])[1]
    variance = np.exp(1.1 * (x / 48 - 1)) * (1 + 0.5 * np.sin(np.arange(SHAPE[0]) / 20))[:, None, None]
    data = noise * np.sqrt(variance)
    cube = Cube(
        data.astype(np.float32),
        (variance * claimed).astype(np.float32),
        np.zeros(SHAPE, bool),
        "1e-20 erg/(s cm2 AA)",
        None,
        4750 + 1.25 * np.arange(SHAPE[0]),
        "air",
        correlation=CubeCorrelation(rho, lags),
    )
    return cube


def bins_of(size, rng):
    """Ragged bins of about ``size`` spaxels: the neighbourhoods of random points."""
    ny, nx = SHAPE[1:]
    y, x = np.indices((ny, nx))
    if size == 1:
        return np.arange(ny * nx).reshape(ny, nx)
    points = rng.uniform(0, ny, (round(ny * nx / size), 2))
    _, nearest = cKDTree(points).query(np.stack([y.ravel(), x.ravel()], axis=1))
    return nearest.reshape(ny, nx)


def pulls(cube, labels):
    spectra = extract_spectra(cube, labels)
    return spectra.data / np.sqrt(spectra.variance)


@pytest.mark.parametrize("size", SIZES)
def test_pulls_of_extracted_spectra_are_one_for_bins_of_every_size(size, rng):
    cube = noise_cube(31)
    labels = bins_of(size, rng)
    true = pulls(cube, labels)
    naive = pulls(cube.evolve(correlation=None), labels)
    # 30 bins of 300 spaxels times 240 channels, half of them independent, give the standard deviation to 1.2 %;
    # the correlation is not cut and the variance smooth, so that 3 % is 2.5 of its errors in the worst case.
    assert true.std() == pytest.approx(1.0, abs=0.03)
    assert abs(true.mean()) < 0.05
    excess = naive.std() / true.std()
    expected = {1: 1.0, 9: 1.6, 50: 1.8, 300: 1.9}[size]
    assert excess == pytest.approx(expected, abs=0.12), "what ignoring the correlation costs, for the record"


def test_measured_noise_serves_as_well_as_the_true_one(rng):
    cube = noise_cube(32, claimed=0.7).evolve(correlation=None)
    measured = apply_cube_noise(cube, measure_cube_noise(cube))
    assert np.median(measured.variance / cube.variance) == pytest.approx(1 / 0.7, rel=0.03)
    for size in SIZES:
        ratio = pulls(measured, bins_of(size, rng)).std()
        assert 0.95 < ratio < 1.05, f"bins of {size}: {ratio:.3f}"


def test_sums_over_channels_of_extracted_spectra_hold_too(rng):
    """The lags that spectra inherit: the flux of a line, summed over 10 channels of a bin."""
    cube = noise_cube(33)
    spectra = extract_spectra(cube, bins_of(9, rng))
    sums = spectra.data.reshape(spectra.shape[0], -1, 10).sum(axis=2)
    first = np.arange(spectra.shape[1]) // 10
    pull = []
    for group in range(sums.shape[1]):
        weights = (first == group).astype(float)
        pull.append(
            sums[:, group] / np.sqrt(weighted_sum_variance(spectra.variance, weights, spectra.correlation))
        )
    # 24000 sums, neighbouring bins a little correlated: 0.7 %.
    assert np.std(pull) == pytest.approx(1.0, abs=0.025)


def test_a_mean_and_a_scaled_sum_have_the_right_errors(rng):
    """Masked voxels: the sum of what is left, scaled, still scatters as it claims."""
    cube = noise_cube(34)
    mask = rng.random(SHAPE) < 0.1
    labels = bins_of(50, rng)
    spectra = extract_spectra(cube.evolve(mask=mask), labels, mode="mean")
    pull = (spectra.data / np.sqrt(spectra.variance))[spectra.valid]
    assert pull.std() == pytest.approx(1.0, abs=0.03)
    assert spectra.valid.mean() > 0.95
