"""Painted images: exact against brute force, whatever the PSF, pixels, rotation and distortion."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS, Sip

from skyloom.core.geometry import pixel_matrix
from skyloom.core.psf import GaussianPSF, MoffatPSF, SampledPSF
from skyloom.errors import InputError
from skyloom.mock.scenes.images import sky_wcs
from skyloom.mock.scenes.mixture import exponential_tiles, psf_mixture, sersic_mixture
from skyloom.mock.scenes.render import paint, plane_to_sky, sky_to_pixel, sky_to_plane
from tests.oracles.mock import painted

CENTRE = (53.16, -27.78)


def galaxy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = [
        sersic_mixture(0.3, 2.0, axis_ratio=0.6, position_angle=30.0),
        exponential_tiles(0.25, axis_ratio=0.5, position_angle=50.0, spacing=1.2).moved(0.1, 0.2),
    ]
    offsets = np.concatenate([part.centre for part in parts])
    covariance = np.concatenate([part.covariance for part in parts])
    return offsets, covariance, np.concatenate([0.4 * parts[0].fraction, 0.6 * parts[1].fraction])


def blurred(psf, offsets, covariance, light):
    """The same Gaussians with every component of the PSF written out."""
    mixture = psf_mixture(psf)
    return (
        np.concatenate([offsets] * len(mixture)),
        np.concatenate([covariance + blur for blur in mixture.covariance]),
        np.concatenate([light * fraction for fraction in mixture.fraction]),
    )


def distorted_wcs(shape: tuple[int, int], scale: float) -> WCS:
    wcs = sky_wcs(CENTRE, shape, scale, angle=33.0)
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    # At the edge of a 60-px image these move positions by about 1 px.
    a[2, 0], a[1, 1], b[0, 2], b[1, 1] = 1e-3, -4e-4, 8e-4, 5e-4
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


def test_tangent_plane_and_sky_are_inverse() -> None:
    east, north = np.array([0.0, 30.0, -500.0]), np.array([0.0, -40.0, 900.0])
    back = sky_to_plane(*plane_to_sky(east, north, CENTRE), CENTRE)
    np.testing.assert_allclose(back, [east, north], atol=1e-8)


@pytest.mark.parametrize("angle", [0.0, 25.0, 90.0])
@pytest.mark.parametrize("psf", [GaussianPSF(0.1), GaussianPSF(0.12, 0.7, 20.0), MoffatPSF(0.11, 2.8)])
def test_images_are_integrals_over_pixels(psf, angle: float) -> None:
    offsets, covariance, light = (array[::4] for array in galaxy())
    wcs, shape = sky_wcs(CENTRE, (25, 28), 0.06, angle=angle, shift=(0.3, -0.2)), (25, 28)
    image = paint(offsets, covariance, light[np.newaxis], CENTRE, wcs, shape, psf)[0]
    expected = painted(*blurred(psf, offsets, covariance, light), CENTRE, wcs, shape, order=12)
    assert np.abs(image - expected).max() < 1e-7 * expected.max()


def test_narrow_gaussians_on_coarse_pixels() -> None:
    """Gaussians of a tenth of a pixel and of ten pixels, tilted, from the same code."""
    offsets = np.array([[0.03, -0.1], [0.4, 0.3]])
    covariance = np.array([[[0.004, 0.002], [0.002, 0.003]], [[4.0, 1.5], [1.5, 2.0]]])
    wcs, shape = sky_wcs(CENTRE, (21, 21), 0.4, angle=10.0), (21, 21)
    light = np.array([0.1, 1.0])
    image = paint(offsets, covariance, light[np.newaxis], CENTRE, wcs, shape)[0]
    expected = painted(offsets, covariance, light, CENTRE, wcs, shape, order=40)
    assert np.abs(image - expected).max() < 1e-7 * expected.max()


def test_flux_and_centroid_do_not_depend_on_the_grid() -> None:
    offsets, covariance, light = galaxy()
    compact = (np.linalg.norm(offsets, axis=1) < 1.2) & (covariance[:, 0, 0] < 0.5**2)
    offsets, covariance, light = offsets[compact], covariance[compact], light[compact]
    light /= light.sum()
    expected = light @ offsets
    # Broad enough that pixels of 0.1 arcsec sample it: the centroid of an undersampled image is not the true one.
    psf = GaussianPSF(0.22)
    for scale, angle in [(0.05, 0.0), (0.06, 25.0), (0.1, 90.0), (0.0733, 211.0)]:
        side = int(9.0 / scale)
        wcs = sky_wcs(CENTRE, (side, side + 1), scale, angle=angle, shift=(0.2, 0.4))
        image = paint(offsets, covariance, light[np.newaxis], CENTRE, wcs, (side, side + 1), psf)[0]
        assert image.sum() == pytest.approx(1.0, abs=1e-6)
        y, x = np.mgrid[:side, : side + 1]
        place = (float((image * x).sum()), float((image * y).sum()))
        east, north = sky_to_plane(*wcs.all_pix2world(*place, 0), CENTRE)
        np.testing.assert_allclose([east, north], expected, atol=1e-6)


def test_distortions_are_followed() -> None:
    """Each Gaussian is carried by the local derivative: exact while the map is linear across it."""
    shape = (60, 60)
    wcs = distorted_wcs(shape, 0.06)
    offsets = np.array([[0.0, 0.0], [0.7, -0.6], [-0.6, -0.5]])
    covariance = np.array([0.12**2 * np.eye(2)] * 3)
    light = np.array([1.0, 0.5, 0.7])
    image = paint(offsets, covariance, light[np.newaxis], CENTRE, wcs, shape)[0]
    expected = painted(offsets, covariance, light, CENTRE, wcs, shape, order=4)
    assert image.sum() == pytest.approx(expected.sum(), rel=1e-6)
    assert np.abs(image - expected).max() < 0.01 * expected.max()
    straight = sky_wcs(CENTRE, shape, 0.06, angle=33.0)
    undistorted = paint(offsets, covariance, light[np.newaxis], CENTRE, straight, shape)[0]
    assert np.abs(undistorted - expected).max() > 0.03 * expected.max()


def test_a_point_without_psf_lies_in_one_pixel() -> None:
    wcs = sky_wcs(CENTRE, (9, 9), 0.1)
    image = paint(np.zeros((1, 2)), np.zeros((1, 2, 2)), np.ones((1, 1)), CENTRE, wcs, (9, 9))[0]
    expected = np.zeros((9, 9))
    expected[4, 4] = 1.0
    np.testing.assert_allclose(image, expected, atol=1e-12)


def test_a_point_with_a_psf_is_the_psf() -> None:
    wcs, shape = sky_wcs(CENTRE, (41, 41), 0.06, angle=15.0), (41, 41)
    psf = GaussianPSF(0.15, 0.8, 70.0)
    image = paint(np.zeros((1, 2)), np.zeros((1, 2, 2)), np.ones((1, 1)), CENTRE, wcs, shape, psf)[0]
    np.testing.assert_allclose(image, psf.render(pixel_matrix(wcs, shape), 41), atol=1e-6 * image.max())


def test_sampled_psf_between_its_samples_is_a_spline() -> None:
    """A point in a pixel's centre gives the samples themselves; a blob agrees with the profile they came from."""
    wcs, shape = sky_wcs(CENTRE, (61, 61), 0.06), (61, 61)
    matrix = pixel_matrix(wcs, shape)
    smooth = GaussianPSF(0.24)
    sampled = SampledPSF(smooth.render(matrix, 31), matrix)
    point = (np.zeros((1, 2)), np.zeros((1, 2, 2)), np.ones((1, 1)))
    image = paint(*point, CENTRE, wcs, shape, sampled)[0]
    np.testing.assert_allclose(image[15:46, 15:46], sampled.array, atol=1e-9)
    offsets = np.array([[0.023, -0.031], [0.3, 0.25]])
    covariance = np.array([np.zeros((2, 2)), [[0.02, 0.008], [0.008, 0.01]]])
    light = np.array([[1.0, 2.0], [0.0, 1.0]])
    images = paint(offsets, covariance, light, CENTRE, wcs, shape, sampled)
    expected = paint(offsets, covariance, light, CENTRE, wcs, shape, smooth)
    # Splines through samples 1.7 px wide reproduce the Gaussian between them to about 1e-3 of its peak.
    assert np.abs(images - expected).max() < 2e-3 * expected.max()
    np.testing.assert_allclose(images.sum(axis=(1, 2)), [3.0, 1.0], rtol=1e-5)
    with pytest.raises(InputError, match="not those of the image"):
        paint(*point, CENTRE, sky_wcs(CENTRE, (61, 61), 0.05), shape, sampled)


def test_large_images_are_painted_box_by_box_alike() -> None:
    offsets, covariance, light = galaxy()
    small, large = (60, 60), (360, 360)
    psf = GaussianPSF(0.1)
    inner = paint(offsets, covariance, light[np.newaxis], CENTRE, sky_wcs(CENTRE, small, 0.06), small, psf)[0]
    outer = paint(offsets, covariance, light[np.newaxis], CENTRE, sky_wcs(CENTRE, large, 0.06), large, psf)[0]
    np.testing.assert_allclose(outer[150:210, 150:210], inner, atol=2e-9 * inner.max())


def test_light_beside_the_image_is_not_painted_but_its_wings_are() -> None:
    wcs, shape = sky_wcs(CENTRE, (20, 20), 0.1), (20, 20)
    covariance = np.array([0.3**2 * np.eye(2)])
    near = paint(np.array([[-1.2, 0.0]]), covariance, np.ones((1, 1)), CENTRE, wcs, shape)[0]
    far = paint(np.array([[-60.0, 0.0]]), covariance, np.ones((1, 1)), CENTRE, wcs, shape)[0]
    assert 0.1 < near.sum() < 0.5
    assert far.max() == 0


def test_derivative_of_the_map() -> None:
    wcs = sky_wcs(CENTRE, (10, 10), 0.06, angle=25.0)
    place, derivative = sky_to_pixel(np.zeros((1, 2)), CENTRE, wcs)
    np.testing.assert_allclose(place, [[4.5, 4.5]], atol=1e-8)
    np.testing.assert_allclose(np.linalg.inv(derivative[0]), pixel_matrix(wcs, (10, 10)), atol=1e-8)
