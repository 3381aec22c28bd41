"""Defects measured in existing pipelines for homogeneous stamps, each of which this one must not have."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS

from skyloom.core.image import Image
from skyloom.core.noise import sum_variance
from skyloom.core.psf import GaussianPSF, SampledPSF, square_matrix
from skyloom.imaging.psfs.convolve import convolve, match_psf, matching_kernel
from skyloom.imaging.psfs.matching import encircled_fractions
from skyloom.imaging.psfs.psf import measure_psf
from tests.oracles import convolve as oracles

SCALE = 0.06
PIXELS = square_matrix(SCALE)


def gaussian(sigma):
    return GaussianPSF.from_sigma(sigma * SCALE)


def make_image(data, psf=None, mask=None):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [53.0, -27.0], [1.0, 1.0], [-SCALE / 3600, SCALE / 3600]
    mask = np.zeros(data.shape, bool) if mask is None else mask
    return Image(data, np.ones_like(data), mask, "electron/s", wcs, psf=psf)


def test_mask_applied_before_and_after_the_convolution_loses_flux_0987_kept_worst_0960():
    """The object mask comes after matching; applied before, its rim is darker and flux is lost."""
    truth_before = oracles.gaussian_on_pixels((100, 100), 50, 50, 6.0, 6.0)
    truth = oracles.gaussian_on_pixels((100, 100), 50, 50, np.hypot(6.0, 1.2), np.hypot(6.0, 1.2))
    outside = np.hypot(*(np.indices((100, 100)) - 50.0)) > 12
    image = make_image(truth_before, gaussian(0.8))
    matched = match_psf(image, gaussian(np.hypot(0.8, 1.2)))
    kept = matched.data[~outside].sum() / truth[~outside].sum()
    assert kept == pytest.approx(1.0, abs=1e-3)
    zeroed = match_psf(image.evolve(data=np.where(outside, 0.0, image.data)), gaussian(np.hypot(0.8, 1.2)))
    assert zeroed.data[~outside].sum() / truth[~outside].sum() < 0.99


def test_a_mask_before_the_convolution_does_not_darken_its_rim_11_to_15_percent():
    """Even if it is masked before, what lies outside is not taken for zero."""
    outside = np.hypot(*(np.indices((100, 100)) - 50.0)) > 12
    image = make_image(np.full((100, 100), 5.0), gaussian(0.8), outside)
    matched = match_psf(image, gaussian(np.hypot(0.8, 1.2)), coverage=0.3)
    assert matched.valid[~outside].all()
    np.testing.assert_allclose(matched.data[~outside], 5.0, rtol=2e-5)


def test_variance_from_squared_kernel_without_covariance_is_wrong_by_1p3_to_9_in_box_sums():
    image = make_image(np.zeros((60, 60)), gaussian(0.8))
    kernel = matching_kernel(gaussian(0.8), gaussian(np.hypot(0.8, 1.2)), PIXELS)
    matched = match_psf(image, kernel.target, kernel=kernel)
    mask = np.zeros((60, 60), bool)
    for side in (1, 3, 9):
        box = np.zeros((60, 60))
        box[25 : 25 + side, 25 : 25 + side] = 1.0
        true = sum_variance(image.variance, oracles.matched_weights(kernel.kernel, mask, box))
        assert sum_variance(matched.variance, box, matched.correlation) == pytest.approx(true, rel=0.03)
    assert true / sum_variance(matched.variance, box, None) > 9


@pytest.mark.parametrize("shape", [(100, 100), (101, 101), (101, 100)])
def test_kernel_shifted_on_odd_shapes_by_0p99_and_0p50_px(shape):
    y, x = shape[0] / 2 + 0.1, shape[1] / 2 - 0.2
    image = make_image(oracles.gaussian_on_pixels(shape, x, y, 0.8, 0.8), gaussian(0.8))
    matched = np.nan_to_num(match_psf(image, gaussian(1.5)).data)
    rows, columns = np.indices(shape)
    assert np.sum(columns * matched) / matched.sum() == pytest.approx(x, abs=1e-3)
    assert np.sum(rows * matched) / matched.sum() == pytest.approx(y, abs=1e-3)


def test_kernel_sampled_not_integrated_leaves_f140w_with_sigma_0p176_px_unsmoothed():
    kernel = matching_kernel(gaussian(1.36), gaussian(np.hypot(1.36, 0.176)), PIXELS).kernel
    centre = kernel.shape[0] // 2
    offsets = np.arange(-centre, centre + 1)
    sampled = np.exp(-0.5 * (offsets / 0.176) ** 2)
    assert (sampled / sampled.sum()).max() > 0.999999
    assert np.sum(kernel * offsets**2) == pytest.approx(0.176**2, rel=1e-6)


def test_the_reference_band_itself_sigma_0_is_a_product_like_the_others(rng):
    image = make_image(rng.normal(size=(50, 50)).astype(np.float32), gaussian(1.37))
    matched = match_psf(image, gaussian(1.37))
    np.testing.assert_array_equal(matched.data, image.data)
    np.testing.assert_array_equal(matched.variance, image.variance)
    assert matched.psf == image.psf
    sampled = SampledPSF(gaussian(1.37).render(PIXELS, 31), PIXELS)
    again = match_psf(image.evolve(psf=sampled), SampledPSF(sampled.array.copy(), PIXELS))
    np.testing.assert_array_equal(again.data, image.data)


def test_zero_padding_halves_the_variance_at_the_borders_corners_0p51():
    image = make_image(np.zeros((80, 80)), gaussian(0.8))
    for coverage in (0.2, 0.9):
        matched = match_psf(image, gaussian(np.hypot(0.8, 1.2)), coverage=coverage)
        inner = matched.variance[40, 40]
        # Fewer pixels enter there, so the mean is noisier, never quieter.
        assert matched.variance[matched.valid].min() > 0.999 * inner


def test_weight_is_zero_not_infinite_where_there_is_nothing():
    mask = np.zeros((60, 60), bool)
    mask[:, :30] = True
    matched = match_psf(make_image(np.ones((60, 60)), gaussian(0.8), mask), gaussian(1.5))
    assert matched.mask[:, :28].all()
    assert (matched.weight[matched.mask] == 0).all()
    assert np.isfinite(matched.weight).all()


def make_star(rng, sigma, phase, flux=1000.0, halo=0.0):
    star = flux * oracles.gaussian_on_pixels((61, 61), 30 + phase[0], 30 + phase[1], sigma, sigma)
    if halo:
        star += halo * flux * oracles.gaussian_on_pixels((61, 61), 30 + phase[0], 30 + phase[1], 5.0, 5.0)
    return make_image(star + rng.normal(0, 1.0, star.shape)).evolve(variance=np.ones(star.shape))


def test_mean_of_five_stars_one_an_outlier_is_off_by_11_to_17_percent(rng):
    phases = rng.uniform(-0.5, 0.5, (5, 2))
    stars = [
        make_star(rng, 1.3, phase, 20000.0 * (1 + i), 0.3 if i == 0 else 0.0)
        for i, phase in enumerate(phases)
    ]
    measured = measure_psf(stars, names=["halo", "b", "c", "d", "e"])
    assert measured.rejected == ("halo",)
    assert "px differs" in measured.reasons[0]
    radii = np.arange(1.0, 6.5, 0.5)
    side = measured.psf.array.shape[0]
    truth = encircled_fractions(gaussian(1.3).render(PIXELS, side), radii)
    assert np.abs(encircled_fractions(measured.psf.array, radii) / truth - 1).max() < 0.02


def test_gaussian_quadrature_on_psfs_that_are_not_gaussian_is_off_by_11_percent_wiener_by_1p5():
    """Cores with haloes: Gaussian fits match the cores, the encircled energy needs the whole PSF."""

    def real(core, halo, share):
        shape = (61, 61)
        array = (1 - share) * oracles.gaussian_on_pixels(shape, 30, 30, core, core)
        return SampledPSF(array + share * oracles.gaussian_on_pixels(shape, 30, 30, halo, halo), PIXELS)

    source, target = real(0.8, 4.0, 0.15), real(1.4, 3.0, 0.35)
    radii = np.arange(1.0, 6.5, 0.5)
    wanted = encircled_fractions(target.array, radii)
    image = make_image(np.pad(source.array, 10), source)

    def error(result):
        return np.abs(
            encircled_fractions(np.nan_to_num(result.data)[10:-10, 10:-10], radii) / wanted - 1
        ).max()

    wiener = match_psf(image, target)
    quadrature = convolve(image, matching_kernel(gaussian(0.8), gaussian(1.4), PIXELS).stencil)
    assert error(wiener) < 0.015
    assert error(quadrature) > 0.11
