"""Sums over boxes of real empty sky scatter as predicted, with the noise measured on other objects of the band."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from tests.inputs.sky import ACS, INFRARED, OBJECTS, PIXEL, read_stamp, sky_image

from skyloom.core.noise import (
    apply_noise,
    autocorrelate,
    combine_measurements,
    lag_covariance,
    measure_correlation,
    sum_variance,
)
from skyloom.core.psf import GaussianPSF
from skyloom.imaging.psfs.convolve import match_psf
from skyloom.imaging.psfs.matching import matching_kernel
from skyloom.imaging.sky.background import empty_sky, measure_background

BOXES = (1, 3, 5, 9)
LIMITS = {"acs": (0.80, 1.15), "ir": (0.75, 1.20)}
# Gaussian sigma of the PSF in 60 mas pixels, as published with the stars.
SIGMA = {
    "f435w": 0.78, "f606w": 0.95, "f775w": 0.87, "f814w": 0.91, "f850lp": 0.85,
    "f105w": 1.47, "f125w": 1.49, "f140w": 1.55, "f160w": 1.56,
}  # fmt: skip


def box_sums(image, usable, side):
    """Sums over all boxes that are usable throughout, in units of the noise of a pixel."""
    normalised = np.zeros(image.shape)
    normalised[usable] = image.data[usable] / np.sqrt(image.variance[usable])
    window = np.lib.stride_tricks.sliding_window_view
    complete = window(usable, (side, side)).all(axis=(2, 3))
    return window(normalised, (side, side)).sum(axis=(2, 3))[complete]


def scatter_over_prediction(image, usable):
    """Scatter of box sums over what variance and correlation predict, for each size of box."""
    ratios = []
    for side in BOXES:
        sums = box_sums(image, usable, side)
        predicted = sum_variance(np.ones((side, side)), np.ones((side, side)), image.correlation)
        ratios.append(sums.std() / np.sqrt(predicted) if sums.size > 100 else np.nan)
    return ratios


def root_mean_square(ratios):
    return np.sqrt(np.nanmean(np.square(ratios), axis=0))


def leave_one_out(data_dir, band):
    """For each object: the image with the noise of the other objects, and its empty sky."""
    skies, measured = {}, {}
    for name in OBJECTS:
        image = read_stamp(data_dir, name, band).evolve(psf=GaussianPSF.from_sigma(SIGMA[band] * PIXEL))
        skies[name] = empty_sky(image, measure_background(image))
        measured[name] = measure_correlation(*skies[name])
    for name in OBJECTS:
        others = combine_measurements([measured[other] for other in OBJECTS if other != name])
        image, sources = skies[name]
        yield apply_noise(image, others), ~sources


@pytest.mark.data
@pytest.mark.parametrize("band", [*ACS, *INFRARED])
def test_box_sums_of_real_empty_sky_scatter_as_predicted(data_dir, band):
    low, high = LIMITS["acs" if band in ACS else "ir"]
    target = GaussianPSF.from_sigma(SIGMA["f160w"] * PIXEL)
    native, matched, claimed, kernel = [], [], [], None
    for image, usable in leave_one_out(data_dir, band):
        native.append(scatter_over_prediction(image, usable))
        claimed.append(scatter_over_prediction(image.evolve(correlation=np.ones((1, 1))), usable))
        if kernel is None:
            kernel = matching_kernel(image.psf, target, image.pixel_matrix)
        smooth = match_psf(image, target, kernel=kernel)
        matched.append(
            scatter_over_prediction(smooth, ndimage.binary_erosion(usable, iterations=2) & smooth.valid)
        )
    # One stamp holds few independent boxes of 9 px, and haloes that reach everywhere (3, 919); the band is judged.
    assert np.all((root_mean_square(native) > low) & (root_mean_square(native) < high)), root_mean_square(
        native
    )
    assert np.all((root_mean_square(matched) > low) & (root_mean_square(matched) < high)), root_mean_square(
        matched
    )
    assert np.all(np.nanmedian(native, axis=0) > low)
    assert np.all(np.nanmedian(native, axis=0) < high)
    assert root_mean_square(claimed)[3] > (1.1 if band in ACS else 2.0)


@pytest.mark.parametrize(("sigma", "masked"), [(0.55, 0.0), (0.55, 0.6), (1.3, 0.0), (1.3, 0.6)])
def test_noise_of_small_masked_stamps_is_measured_without_bias(sigma, masked):
    axis = np.arange(-7, 8)
    kernel = np.exp(-0.5 * np.add.outer(axis**2, axis**2) / sigma**2)
    truth = autocorrelate(kernel)
    truth = truth / truth.max()
    weights = np.ones((9, 9))
    expected = sum_variance(weights, weights, truth)
    predicted, measurements = [], []
    for number in range(60):
        rng = np.random.default_rng(number)
        noise = ndimage.convolve(rng.normal(size=(80, 80)), kernel / np.sqrt(np.sum(kernel**2)), mode="wrap")
        blobs = ndimage.gaussian_filter(rng.normal(size=noise.shape), 5.0, mode="wrap")
        sources = blobs > np.quantile(blobs, 1 - masked) if masked else np.zeros(noise.shape, bool)
        gradient = np.linspace(0.5, 2.0, 80) * np.ones((80, 1))
        image = sky_image(noise * np.sqrt(gradient) + 30.0 + 1e3 * sources).evolve(variance=0.4 * gradient)
        found = measure_correlation(image, sources)
        measurements.append(found)
        predicted.append(found.scale * sum_variance(weights, weights, found.correlation))
    error = np.std(predicted) / np.mean(predicted) / np.sqrt(len(predicted))
    assert np.mean(predicted) / (2.5 * expected) == pytest.approx(1.0, abs=3 * error + 0.02)
    scales = np.array([found.scale for found in measurements])
    assert scales.mean() == pytest.approx(2.5, abs=4 * scales.std() / np.sqrt(scales.size) + 0.01)
    # The average of many stamps closes in on the truth, lag by lag.
    together = combine_measurements(measurements)
    middle = truth.shape[0] // 2
    cut = truth[middle - 6 : middle + 7, middle - 6 : middle + 7]
    np.testing.assert_allclose(together.correlation, cut, atol=0.03)


def test_lag_covariance_equals_the_mean_over_pairs(rng):
    residual, used = rng.normal(3.0, 1.0, (12, 13)), rng.random((12, 13)) < 0.7
    found = lag_covariance(residual, used, 2)
    centred = residual - residual[used].mean()
    plain, pairs = np.zeros((5, 5)), np.zeros((5, 5))
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            for row, column in np.argwhere(used):
                y, x = row + dy, column + dx
                if 0 <= y < 12 and 0 <= x < 13 and used[y, x]:
                    plain[dy + 2, dx + 2] += centred[row, column] * centred[y, x]
                    pairs[dy + 2, dx + 2] += 1
    plain /= pairs
    n_pixels = np.count_nonzero(used)
    of_mean = np.sum(pairs * plain) / n_pixels**2 / (1 - pairs.sum() / n_pixels**2)
    np.testing.assert_allclose(found, plain + of_mean)
