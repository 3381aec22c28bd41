"""Does a matched image hold the light it should, where it should? Against exactly convolved truth."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from tests.oracles import convolve as oracles

from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF, MoffatPSF, SampledPSF, square_matrix
from skyloom.imaging.psfs.convolve import match_psf

SCALE = 0.06
PIXELS = square_matrix(SCALE)
N = 100
SOURCES = ((50.3, 48.8, 1.0, 0.0), (44.0, 55.5, 4.0, 2.5), (57.2, 40.1, 2.0, 6.0), (38.4, 47.0, 0.7, 1.0))


def make_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [53.0, -27.0], [50.5, 50.5], [-SCALE / 3600, SCALE / 3600]
    return wcs


def gaussian(sigma):
    return GaussianPSF.from_sigma(sigma * SCALE)


def galaxy(sigma, sources=SOURCES):
    """Gaussian blobs seen through a Gaussian PSF: integrated over pixels, truth for any width."""
    widths = [np.hypot(width, sigma) for *_, width in sources]
    return sum(
        flux * oracles.gaussian_on_pixels((N, N), x, y, width, width)
        for (x, y, flux, _), width in zip(sources, widths, strict=True)
    )


def observed(sigma, psf=None):
    data = galaxy(sigma)
    return Image(
        data,
        np.ones_like(data),
        np.zeros(data.shape, bool),
        "electron/s",
        make_wcs(),
        psf=psf or gaussian(sigma),
    )


@pytest.mark.parametrize(("before", "after"), [(0.75, 1.37), (0.85, 1.37), (1.31, 1.37), (1.36, 1.371)])
@pytest.mark.parametrize("method", ["gaussian", "wiener"])
def test_flux_inside_a_mask_is_that_of_the_truth_to_a_thousandth(before, after, method):
    result = match_psf(observed(before), gaussian(after), method=method)
    truth = galaxy(after)
    inside = truth > 0.01 * truth.max()
    assert inside.sum() > 300
    flux = result.data[inside].sum() / truth[inside].sum()
    assert abs(flux - 1) < 1e-3


def test_flux_inside_a_mask_with_sampled_psfs(rng):
    before, after = (SampledPSF(gaussian(sigma).render(PIXELS, 61), PIXELS) for sigma in (0.85, 1.37))
    result = match_psf(observed(0.85, before), after)
    truth = galaxy(1.37)
    inside = truth > 0.01 * truth.max()
    assert abs(result.data[inside].sum() / truth[inside].sum() - 1) < 1e-3


def test_light_is_neither_made_nor_lost():
    image = observed(0.8)
    for target in (gaussian(1.5), MoffatPSF(0.25, 3.0)):
        result = match_psf(image, target, coverage=0.05)
        assert np.nansum(result.data) / image.data.sum() == pytest.approx(1.0, abs=2e-4)


def test_a_dead_pixel_costs_little_light():
    """One dead pixel in a hundred: what is missing is made up for by neighbours; smooth light within 1 %."""
    image = observed(1.3)
    mask = np.random.default_rng(5).random(image.shape) < 0.01
    result = match_psf(image.evolve(mask=mask, data=np.where(mask, np.nan, image.data)), gaussian(2.0))
    truth = galaxy(2.0)
    inside = (truth > 0.01 * truth.max()) & result.valid
    assert result.data[inside].sum() / truth[inside].sum() == pytest.approx(1.0, abs=0.01)
    wrong = np.abs(result.data / truth - 1)[inside]
    assert np.median(wrong) < 2e-3


def test_narrow_difference_between_neighbouring_bands_is_applied():
    """F140W to F160W: 0.176 px. The peak must fall by what the truth's does."""
    star = ((50.0, 50.0, 1.0, 0.0),)
    before, after = galaxy(1.36, star), galaxy(np.hypot(1.36, 0.176), star)
    image = observed(1.36).evolve(data=before)
    result = match_psf(image, gaussian(np.hypot(1.36, 0.176)))
    fall = 1 - after.max() / before.max()
    assert fall > 0.015
    # The kernel has the second moment, not the fourth: 90 % of the fall in a single pixel.
    assert 1 - result.data.max() / before.max() == pytest.approx(fall, rel=0.13)
