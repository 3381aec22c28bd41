"""The PSF that a resampled image claims is the one its stars have, on average over sub-pixel positions."""

import numpy as np
import pytest

from skyloom.core.apertures import circle_overlap
from skyloom.core.geometry import pixel_matrix
from skyloom.core.image import Image
from skyloom.core.psf import ChromaticPSF, GaussianPSF, MoffatPSF, SampledPSF
from skyloom.imaging.grids.reproject import reproject
from tests.grids import tangent_wcs

SHAPE = (61, 61)


def observed_stars(truth, carried, method, scale, rotation, count=24):
    """Stars at random sub-pixel positions, resampled: the true centres (target pixels) and the result."""
    rng = np.random.default_rng(5)
    source = tangent_wcs(SHAPE)
    matrix = pixel_matrix(source, SHAPE)
    size = 2 * int(20 / scale * 0.05) + 21
    for _ in range(count):
        offset = rng.uniform(-0.5, 0.5, 2)
        star = truth.render(matrix, SHAPE[0], tuple(offset))
        image = Image(star, np.ones(SHAPE), None, "electron/s", source, psf=carried)
        target = tangent_wcs((size, size), scale, rotation, tuple(rng.uniform(-0.5, 0.5, 2)))
        result = reproject(image, (target, (size, size)), method)
        sky = source.all_pix2world(SHAPE[1] // 2 + offset[0], SHAPE[0] // 2 + offset[1], 0)
        yield [float(value) for value in target.wcs_world2pix(*sky, 0)], result


CASES = [
    (method, scale, rotation)
    for method in ("lanczos3", "bilinear", "area")
    for scale, rotation in ((0.05, 25.0), (0.056, 0.0), (0.03, 10.0), (0.1, 40.0))
    if not (method == "lanczos3" and scale == 0.1)
]


@pytest.mark.parametrize(("method", "scale", "rotation"), CASES)
def test_second_moments_of_stars_are_those_of_the_gaussian(method, scale, rotation):
    psf = GaussianPSF(0.2, 0.8, 30.0)
    moments, claimed, weight = np.zeros((2, 2)), None, 0.0
    for (x0, y0), result in observed_stars(psf, psf, method, scale, rotation):
        y, x = np.indices(result.shape)
        offset = np.stack([(x - x0).ravel(), (y - y0).ravel()])
        light = np.where(result.mask, 0.0, result.data).ravel()
        # Far wings of the resampled star hold nothing but the ringing of the kernel.
        light[np.hypot(*offset) * scale > 0.75] = 0.0
        moments += (offset * light) @ offset.T
        weight += light.sum()
        claimed = result.psf
        matrix = pixel_matrix(result.wcs, result.shape)
    on_sky = matrix @ (moments / weight) @ matrix.T
    expected = claimed.covariance + matrix @ matrix.T / 12.0
    np.testing.assert_allclose(on_sky, expected, atol=0.01 * np.trace(expected))


@pytest.mark.parametrize("psf", [MoffatPSF(0.2, 3.0, 0.85, 70.0), "sampled"], ids=["moffat", "sampled"])
@pytest.mark.parametrize(("method", "scale", "rotation"), CASES)
def test_profiles_of_stars_are_those_of_the_sampled_psf(method, scale, rotation, psf):
    if psf == "sampled":
        matrix = pixel_matrix(tangent_wcs(SHAPE), SHAPE)
        profile = 0.7 * GaussianPSF(0.15).render(matrix, 31) + 0.3 * GaussianPSF(0.4, 0.7, 10.0).render(
            matrix, 31
        )
        truth = GaussianMixture()
        stored = SampledPSF(profile, matrix)
    else:
        truth = stored = psf
    # A circle of one pixel holds more light of a star off the pixel's centre: that is not the PSF's.
    radii = max(0.1, 2 * scale) + np.array([0.0, 0.1, 0.2])
    curves, expected = [], None
    for (x0, y0), result in observed_stars(truth, stored, method, scale, rotation, 16):
        shape, light = result.shape, result.data
        curves.append([np.nansum(light * circle_overlap(shape, x0, y0, radius / scale)) for radius in radii])
        if expected is None:
            assert isinstance(result.psf, SampledPSF)
            expected = result.psf.encircled_energy(radii, pixel_matrix(result.wcs, shape))
    np.testing.assert_allclose(np.mean(curves, axis=0), expected, atol=0.012)


class GaussianMixture:
    """A profile that is not one of the types, rendered at any offset."""

    def render(self, matrix, size, offset):
        first = GaussianPSF(0.15).render(matrix, size, offset)
        return 0.7 * first + 0.3 * GaussianPSF(0.4, 0.7, 10.0).render(matrix, size, offset)


def test_no_psf_stays_none_and_a_copy_keeps_it():
    psf = MoffatPSF(0.2, 3.0)
    image = Image(np.ones(SHAPE), np.ones(SHAPE), None, "electron/s", tangent_wcs(SHAPE), psf=psf)
    assert reproject(image, (tangent_wcs(SHAPE, shift=(3.0, 1.0)), SHAPE)).psf is psf
    bare = image.evolve(psf=None)
    assert reproject(bare, (tangent_wcs(SHAPE, rotation=3.0), SHAPE)).psf is None


def test_chromatic_gaussians_stay_chromatic():
    psf = ChromaticPSF(np.array([5000.0, 9000.0]), (GaussianPSF(0.7), GaussianPSF(0.6)))
    shape = (30, 30)
    image = Image(np.ones(shape), np.ones(shape), None, "electron/s", tangent_wcs(shape, 0.2), psf=psf)
    moved = reproject(image, (tangent_wcs(shape, 0.2, 25.0), shape), "bilinear").psf
    assert isinstance(moved, ChromaticPSF)
    for wave in (5000.0, 9000.0):
        extra = moved.at(wave).covariance[0, 0] - psf.at(wave).covariance[0, 0]
        assert extra == pytest.approx(0.2**2 / 6, rel=1e-3)


def test_a_point_on_coarser_pixels_keeps_a_valid_psf():
    image = Image(
        np.ones(SHAPE), np.ones(SHAPE), None, "electron/s", tangent_wcs(SHAPE), psf=GaussianPSF(0.001)
    )
    moved = reproject(image, (tangent_wcs((40, 40), 0.059, 5.0), (40, 40)), "lanczos3")
    assert 0 < moved.psf.fwhm < 0.02
