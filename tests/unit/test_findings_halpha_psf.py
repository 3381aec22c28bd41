"""Defects measured in existing pipelines that anchor HST to MUSE, each of which this one must not have: PSFs."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.image import Image, Mode
from skyloom.core.noise import region_variances
from skyloom.core.psf import GaussianPSF, MoffatPSF
from skyloom.imaging.psfs.psf_fit import fit_kernel, match_to
from skyloom.mock.hubble.noise import correlated_noise, kernel_correlation
from tests.grids import tangent_wcs
from tests.inputs.kernel import COARSE, SHARP, SHARP_FILTER, UNIT, Field

SMALL = {"shape": (50, 54), "sharp_shape": (400, 400)}


def noiseless(field):
    return field.observe(np.random.default_rng(1), sharp_sigma=0.3, coarse_sigma=0.03)


@pytest.mark.parametrize("own", [0.07, 0.18, 0.3])
def test_a_fixed_007_arcsec_psf_the_kernel_is_fitted_whatever_the_psf_of_the_image(own):
    """The blurred image stays the same, the sharp one changes: so does the kernel, and the result agrees again."""
    total = 0.75
    field = Field(fwhm=np.sqrt(total**2 - own**2), beta=None, sharp_fwhm=own, **SMALL)
    image, reference = noiseless(field)
    fit = fit_kernel(image, reference, model="gaussian")
    assert np.hypot(fit.fwhm, own) == pytest.approx(total, rel=0.002)
    matched = match_to(image, reference, fit)
    residual = (fit.slope * matched.data + fit.offset - reference.data)[matched.valid]
    assert np.abs(residual).max() < 0.01 * np.ptp(reference.data)
    # A PSF of 0.07 arcsec taken for granted would leave a wider one, by up to 8 %.
    if own > 0.1:
        assert abs(fit.fwhm - np.sqrt(total**2 - 0.07**2)) > 5 * fit.fwhm_err


def test_the_muse_psf_parsed_from_a_file_name_is_measured_from_the_images():
    """Neither a name nor a declared PSF decides: the images do, and the result has an error."""
    image, reference = noiseless(Field(fwhm=0.7, beta=2.6, **SMALL))
    plain = fit_kernel(image, reference)
    named = reference.evolve(
        psf=MoffatPSF(0.92, 2.2), meta={"path": "/data/NGC0000_MAPS_copt_0.92asec.fits", "object": "0.92asec"}
    )
    fit = fit_kernel(image, named)
    assert fit.fwhm == plain.fwhm
    assert fit.fwhm == pytest.approx(0.7, rel=0.002)
    assert 0 < fit.fwhm_err < 0.01
    assert 0 < fit.beta_err < 0.1
    assert match_to(image, named, fit).history[-1].parameters["fwhm_err"] == fit.fwhm_err


def test_the_smoothed_maps_have_no_errors_now_variance_correlation_and_shared_errors():
    """Noise alone through the smoothing: its scatter is what the result says, pixel by pixel and in sums of 5 x 5."""
    fit = fit_kernel(*noiseless(Field(**SMALL)))
    rng, shape = np.random.default_rng(8), (460, 460)
    wcs, target = tangent_wcs(shape, SHARP, 25.0), (tangent_wcs((50, 50), COARSE), (50, 50))
    variance = np.full(shape, 4.0)
    scatter = {1: [], 5: []}
    for _ in range(12):
        image = Image(
            correlated_noise(variance, SHARP_FILTER, rng),
            variance,
            None,
            UNIT,
            wcs,
            correlation=kernel_correlation(SHARP_FILTER),
            modes=(Mode("sky", 1.0, 0.3),),
        )
        smoothed = match_to(image, target, fit)
        for side, found in scatter.items():
            n = 50 // side
            labels = np.repeat(np.repeat(np.arange(n * n).reshape(n, n), side, axis=0), side, axis=1)
            sums = np.bincount(labels.ravel(), smoothed.data.ravel())
            expected = region_variances(smoothed.variance, labels, n * n, smoothed.correlation)
            found.append(np.mean(sums**2 / expected))
    # About 12 x 80 independent values: 5 % covers two standard deviations.
    for side in scatter:
        assert np.sqrt(np.mean(scatter[side])) == pytest.approx(1.0, abs=0.05)
    assert smoothed.correlation.shape[0] > 5
    assert smoothed.modes[0].sigma == 0.3
    np.testing.assert_allclose(smoothed.modes[0].map, 1.0, rtol=1e-6)
    # Independent pixels would make the sums of 5 x 5 look four times as sure as they are.
    assert region_variances(smoothed.variance, labels, 100, smoothed.correlation)[55] > 9 * 25 * np.median(
        smoothed.variance
    )


def test_coverage_closing_fills_real_holes_a_hole_stays_a_hole():
    """A star masked out, the gap between two chips and what lies off the field stay masked after matching."""
    shape, rng = (500, 500), np.random.default_rng(2)
    y, x = np.indices(shape)
    star, gap = np.hypot(x - 150, y - 330) < 40, np.abs(x - 300) < 20
    image = Image(
        np.where(star | gap, np.nan, 10.0 + rng.normal(size=shape)),
        np.ones(shape),
        star | gap,
        UNIT,
        tangent_wcs(shape, SHARP),
        psf=GaussianPSF(0.07),
    )
    wcs = tangent_wcs((120, 120), COARSE)
    fit = fit_kernel(*noiseless(Field(fwhm=0.7, beta=None, **SMALL)), model="gaussian")
    matched = match_to(image, (wcs, (120, 120)), fit)
    # Pixel of the sharp image under the centre of each pixel of the result.
    rows, columns = np.indices(matched.shape)
    under_x, under_y = 249.5 + 5 * (columns - 59.5), 249.5 + 5 * (rows - 59.5)
    hole = (np.hypot(under_x - 150, under_y - 330) < 38) | (np.abs(under_x - 300) < 18)
    outside = (under_x < 0) | (under_x > 499) | (under_y < 0) | (under_y > 499)
    assert matched.mask[hole].all()
    assert matched.mask[outside].all()
    # Two FWHM away from everything missing nothing is lost.
    margin = 40
    clear = (np.hypot(under_x - 150, under_y - 330) > 40 + margin) & (np.abs(under_x - 300) > 20 + margin)
    for under in (under_x, under_y):
        clear &= (under > margin) & (under < 499 - margin)
    assert clear.any()
    assert matched.valid[clear].all()
    assert not matched.variance[matched.valid].min() <= 0
