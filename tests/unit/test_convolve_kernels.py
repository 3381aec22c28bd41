"""Kernels between PSFs: exact second moments, small residuals of the encircled energy, refusals that name widths."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.psf import GaussianPSF, MoffatPSF, SampledPSF, square_matrix
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.psfs.matching import encircled_fractions, matching_kernel
from tests.oracles import convolve as oracles

SCALE = 0.06
PIXELS = square_matrix(SCALE)
TURNED = SCALE * np.array([[-np.cos(0.5), np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])


def gaussian(sigma, axis_ratio=1.0, position_angle=0.0):
    return GaussianPSF.from_sigma(sigma * SCALE, axis_ratio, position_angle)


def moments(kernel):
    """Second moments (xx, yy, xy) about the central pixel, in pixels squared."""
    y, x = np.indices(kernel.shape) - np.array(kernel.shape)[:, None, None] // 2
    return np.array([np.sum(kernel * x**2), np.sum(kernel * y**2), np.sum(kernel * x * y)])


def slow_convolution(image, kernel):
    half = kernel.shape[0] // 2
    padded = np.pad(image, half)
    ny, nx = image.shape
    out = np.zeros_like(image)
    for (row, column), tap in np.ndenumerate(kernel):
        out += tap * padded[2 * half - row : 2 * half - row + ny, 2 * half - column : 2 * half - column + nx]
    return out


@pytest.mark.parametrize("width", [0.03, 0.176, 0.2886, 0.3, 0.5, 0.9, 1.0, 1.5, 4.0, 8.5])
def test_gaussian_kernels_have_exact_second_moments_however_narrow(width):
    kernel = matching_kernel(gaussian(0.9), gaussian(np.hypot(0.9, width)), PIXELS).kernel
    assert kernel.sum() == pytest.approx(1.0, abs=1e-12)
    assert kernel.min() >= 0
    # Wide ones end at 4.6 sigma, which takes 1e-4 off the second moment.
    np.testing.assert_allclose(moments(kernel), [width**2, width**2, 0], rtol=5e-4, atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 35.0, 90.0, 160.0])
@pytest.mark.parametrize("matrix", [PIXELS, TURNED], ids=["north up", "turned"])
def test_elliptical_gaussians_are_matched_by_their_covariances(angle, matrix):
    source, target = gaussian(0.7, 0.8, 20.0), gaussian(1.6, 0.7, angle)
    kernel = matching_kernel(source, target, matrix).kernel
    inverse = np.linalg.inv(matrix)
    wanted = inverse @ (target.covariance - source.covariance) @ inverse.T
    np.testing.assert_allclose(
        moments(kernel), [wanted[0, 0], wanted[1, 1], wanted[0, 1]], rtol=2e-3, atol=2e-3 * np.trace(wanted)
    )
    assert kernel.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("before", "after"), [(0.75, 1.4), (1.39, 1.4), (1.38, 1.4), (1.3, 1.32), (1.0, 3.0)]
)
@pytest.mark.parametrize("phase", [0.0, 0.4])
def test_pixel_integrated_gaussians_come_out_as_pixel_integrated_gaussians(before, after, phase):
    kernel = matching_kernel(gaussian(before), gaussian(after), PIXELS)
    shape, centre = (61, 61), 30 + phase
    start = oracles.gaussian_on_pixels(shape, centre, 30, before, before)
    wanted = oracles.gaussian_on_pixels(shape, centre, 30, after, after)
    reached = slow_convolution(start, kernel.kernel)
    # A kernel narrower than half a pixel can match the second moment but not the fourth: 0.3 % at worst.
    assert np.abs(reached - wanted).max() < 4e-3 * wanted.max()
    assert kernel.residual < 4e-3


@pytest.mark.parametrize("width", [0.3, 0.8, 3.0, 8.5])
@pytest.mark.parametrize("tilt", [1e-6, 1e-3, 0.4])
def test_tilted_gaussians_are_as_good_as_aligned_ones_at_any_width(width, tilt):
    covariance = SCALE**2 * width**2 * np.array([[1.0, tilt], [tilt, 1.0]])
    source = gaussian(1.2)
    kernel = matching_kernel(source, GaussianPSF.from_covariance(source.covariance + covariance), PIXELS)
    assert kernel.residual < 5e-3
    if tilt < 1e-4:
        assert len(kernel.stencil._factors[0]) == 1


def test_a_needle_shaped_difference_is_rendered():
    source, target = (
        gaussian(1.0),
        GaussianPSF.from_covariance(SCALE**2 * (np.eye(2) + 3.0 * np.outer([0.8, 0.6], [0.8, 0.6]))),
    )
    kernel = matching_kernel(source, target, PIXELS)
    assert kernel.residual < 0.02
    expected = 3.0 * np.array([0.64, 0.36, -0.48])  # x runs against east
    np.testing.assert_allclose(moments(kernel.kernel), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (gaussian(0.8), gaussian(1.6)),
        (MoffatPSF(0.11, 2.5), MoffatPSF(0.2, 3.0)),
        (MoffatPSF(0.12, 3.0, 0.9, 30.0), gaussian(1.8)),
        (SampledPSF(gaussian(0.9).render(PIXELS, 41), PIXELS), MoffatPSF(0.25, 4.0)),
    ],
)
def test_wiener_kernels_reach_their_target(source, target):
    kernel = matching_kernel(source, target, PIXELS, method="wiener")
    assert kernel.method == "wiener"
    assert kernel.kernel.sum() == pytest.approx(1.0, abs=1e-12)
    assert kernel.kernel.shape[0] % 2 == 1
    assert kernel.residual < 0.005
    assert kernel.noise_gain < 0.2
    side = kernel.psf.array.shape[0]
    radii = np.array([1.0, 2.0, 4.0, 6.0])
    reached = slow_convolution(source.render(PIXELS, side), kernel.kernel)
    ratio = encircled_fractions(reached, radii) / encircled_fractions(target.render(PIXELS, side), radii)
    assert np.abs(ratio - 1).max() < 0.006


def test_a_wiener_kernel_between_gaussians_is_the_gaussian_one():
    exact = matching_kernel(gaussian(0.9), gaussian(1.8), PIXELS)
    wiener = matching_kernel(gaussian(0.9), gaussian(1.8), PIXELS, method="wiener")
    reach = min(exact.kernel.shape[0], wiener.kernel.shape[0]) // 2

    def centre(kernel):
        half = kernel.shape[0] // 2
        return kernel[half - reach : half + reach + 1, half - reach : half + reach + 1]

    np.testing.assert_allclose(centre(wiener.kernel), centre(exact.kernel), atol=0.03 * exact.kernel.max())


def test_more_regularization_means_less_noise_and_more_residual():
    source, target = MoffatPSF(0.18, 3.0), MoffatPSF(0.2, 3.0)
    weak = matching_kernel(source, target, PIXELS, regularization=1e-7)
    strong = matching_kernel(source, target, PIXELS, regularization=1e-2)
    assert strong.noise_gain < weak.noise_gain
    assert strong.residual > weak.residual
    automatic = matching_kernel(source, target, PIXELS)
    assert automatic.residual <= 0.001
    assert weak.regularization < automatic.regularization < strong.regularization


def test_auto_takes_gaussians_for_gaussians_and_wiener_for_the_rest():
    assert matching_kernel(gaussian(1.0), gaussian(2.0), PIXELS).method == "gaussian"
    assert matching_kernel(gaussian(1.0), MoffatPSF(0.3, 3.0), PIXELS).method == "wiener"


def test_the_size_can_be_asked_for():
    for method in ("gaussian", "wiener"):
        assert matching_kernel(gaussian(0.8), gaussian(1.6), PIXELS, method=method, size=11).kernel.shape == (
            11,
            11,
        )


def test_residual_and_gain_are_those_of_the_kernel():
    kernel = matching_kernel(MoffatPSF(0.11, 2.5), MoffatPSF(0.2, 3.0), PIXELS)
    assert kernel.noise_gain == pytest.approx(np.sum(kernel.kernel**2))
    assert kernel.residual == pytest.approx(np.abs(kernel.residuals).max())
    assert kernel.residual_radii[0] == 1.0
    assert (np.diff(kernel.residual_radii) > 0).all()
    assert {6.0, 3.5} <= set(kernel.residual_radii.tolist())


@pytest.mark.parametrize("change", [0.0, 5e-7, -5e-7])
def test_equal_widths_need_no_kernel(change):
    kernel = matching_kernel(gaussian(1.2), gaussian(1.2 * (1 + change)), PIXELS)
    assert kernel.method == "identity"
    np.testing.assert_array_equal(kernel.kernel, [[1.0]])
    assert kernel.residual == 0.0


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (GaussianPSF(0.2), GaussianPSF(0.1)),
        (GaussianPSF(0.2), GaussianPSF(0.2 * (1 - 1e-4))),
        (MoffatPSF(0.2, 3.0), MoffatPSF(0.1, 3.0)),
        (GaussianPSF(0.3), MoffatPSF(0.15, 3.0)),
    ],
)
def test_a_sharper_target_is_an_error_that_names_both_widths(source, target):
    with pytest.raises(InputError) as caught:
        matching_kernel(source, target, PIXELS)
    assert f'{source.fwhm:.4f}"' in str(caught.value)
    assert f'{target.fwhm:.4f}"' in str(caught.value)
    assert "sharper than the source" in str(caught.value)


def test_a_target_sharper_along_one_axis_is_an_error_too():
    with pytest.raises(InputError, match=r"sharper than the source .* along one axis"):
        matching_kernel(gaussian(1.0), gaussian(1.2, 0.5), PIXELS)


def test_what_cannot_be_done_is_refused():
    with pytest.raises(InputError, match="expected one of auto, gaussian, wiener"):
        matching_kernel(gaussian(1.0), gaussian(2.0), PIXELS, method="pypher")
    with pytest.raises(InputError, match="needs two Gaussian PSFs"):
        matching_kernel(gaussian(1.0), MoffatPSF(0.3, 3.0), PIXELS, method="gaussian")
    with pytest.raises(ShapeError, match="expected an odd number"):
        matching_kernel(gaussian(1.0), gaussian(2.0), PIXELS, size=10)
    with pytest.raises(ShapeError, match="invertible"):
        matching_kernel(gaussian(1.0), gaussian(2.0), np.zeros((2, 2)))
