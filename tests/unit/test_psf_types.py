"""PSF types: widths on the sky, integration over pixels, round trips."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.psf import (
    ChromaticPSF,
    GaussianPSF,
    MoffatPSF,
    SampledPSF,
    psf_from_dict,
    square_matrix,
)
from skyloom.errors import InputError, ShapeError


def brute(psf_profile, matrix, size, samples=161):
    """Mean of a profile over a fine raster in each pixel."""
    axis = (np.arange(size * samples) + 0.5) / samples - size / 2
    x, y = np.meshgrid(axis, axis)
    east = matrix[0][0] * x + matrix[0][1] * y
    north = matrix[1][0] * x + matrix[1][1] * y
    values = psf_profile(east, north).reshape(size, samples, size, samples).mean(axis=(1, 3))
    return values / values.sum()


ROTATED = np.array([[-0.05, 0.02], [0.02, 0.05]])


@pytest.mark.parametrize("matrix", [square_matrix(0.06), ROTATED], ids=["north-up", "rotated"])
@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.1])
def test_gaussian_is_integrated_over_pixels(matrix, sigma):
    psf = GaussianPSF.from_sigma(sigma, axis_ratio=0.7, position_angle=30.0)
    inverse = np.linalg.inv(psf.covariance)

    def profile(east, north):
        return np.exp(
            -0.5 * (inverse[0, 0] * east**2 + 2 * inverse[0, 1] * east * north + inverse[1, 1] * north**2)
        )

    np.testing.assert_allclose(psf.render(matrix, 15), brute(profile, matrix, 15), atol=2e-5)


def test_moffat_is_integrated_over_pixels():
    psf = MoffatPSF(0.15, 2.8)

    def profile(east, north):
        return (1 + (east**2 + north**2) / psf.alpha**2) ** -psf.beta

    np.testing.assert_allclose(psf.render(ROTATED, 21), brute(profile, ROTATED, 21), atol=2e-5)


def test_widths_are_arcsec_even_from_other_angles():
    assert GaussianPSF(200 * u.mas).fwhm == pytest.approx(0.2)
    with pytest.raises(u.UnitConversionError):
        GaussianPSF(3 * u.pix)
    with pytest.raises(InputError, match="width > 0"):
        GaussianPSF(0.0)


def test_covariance_round_trip():
    psf = GaussianPSF(0.2, 0.6, 40.0)
    again = GaussianPSF.from_covariance(psf.covariance)
    assert again.fwhm == pytest.approx(psf.fwhm)
    assert again.axis_ratio == pytest.approx(0.6)
    assert again.position_angle == pytest.approx(40.0)


def test_position_angle_counts_from_north_through_east():
    image = GaussianPSF(0.3, 0.4, 90.0).render(square_matrix(0.06), 21)
    east_west, north_south = image[10, :], image[:, 10]
    assert np.sum(east_west > 0.3 * image.max()) > np.sum(north_south > 0.3 * image.max())


def test_offset_moves_the_centroid():
    image = GaussianPSF(0.2).render(square_matrix(0.06), 31, offset=(0.3, -0.2))
    y, x = np.indices(image.shape) - 15
    assert np.sum(x * image) == pytest.approx(0.3, abs=1e-4)
    assert np.sum(y * image) == pytest.approx(-0.2, abs=1e-4)


def test_sampled_psf_is_itself_on_its_own_grid_and_turns_with_the_sky():
    elongated = GaussianPSF(0.3, 0.5, 0.0)
    sampled = SampledPSF(elongated.render(square_matrix(0.03), 61), square_matrix(0.03))
    assert sampled.render(square_matrix(0.03)) is sampled.array
    turned = np.array([[0.0, 0.03], [0.03, 0.0]])  # x points north
    np.testing.assert_allclose(sampled.render(turned, 41), elongated.render(turned, 41), atol=1e-4)


def test_sampled_psf_on_larger_pixels_has_their_width():
    gaussian = GaussianPSF(0.2)
    sampled = SampledPSF(gaussian.render(square_matrix(0.03), 61), square_matrix(0.03))
    np.testing.assert_allclose(
        sampled.render(square_matrix(0.06), 21), gaussian.render(square_matrix(0.06), 21), atol=1e-3
    )


def test_fwhm_of_a_sampled_gaussian():
    sampled = SampledPSF(GaussianPSF(0.5).render(square_matrix(0.04), 61), square_matrix(0.04))
    assert sampled.fwhm == pytest.approx(0.5, rel=0.01)


def test_encircled_energy_of_a_gaussian():
    radii = np.array([0.1, 0.2, 0.4])
    sigma = 0.15
    found = GaussianPSF.from_sigma(sigma).encircled_energy(radii, square_matrix(0.01))
    np.testing.assert_allclose(found, 1 - np.exp(-0.5 * (radii / sigma) ** 2), atol=2e-3)


def test_chromatic_psf_interpolates():
    psf = ChromaticPSF([5000.0, 9000.0], (MoffatPSF(0.8, 2.5), MoffatPSF(0.6, 2.7)))
    assert psf.at(7000.0).fwhm == pytest.approx(0.7)
    assert psf.at(100.0).fwhm == pytest.approx(0.8)
    with pytest.raises(InputError, match="not a mixture"):
        ChromaticPSF([1.0, 2.0], (GaussianPSF(1.0), MoffatPSF(1.0, 3.0)))


@pytest.mark.parametrize(
    "psf",
    [
        GaussianPSF(0.2, 0.8, 20.0),
        MoffatPSF(0.2, 3.0),
        SampledPSF(np.outer([1, 2, 1], [1, 2, 1]), square_matrix(0.06)),
        ChromaticPSF([1.0, 2.0], (GaussianPSF(1.0), GaussianPSF(2.0))),
    ],
)
def test_description_round_trip(psf):
    again = psf_from_dict(psf.describe())
    assert type(again) is type(psf)
    assert again.describe() == psf.describe()


def test_bad_psfs_are_refused():
    with pytest.raises(ShapeError, match="odd square"):
        SampledPSF(np.ones((4, 4)), square_matrix(1.0))
    with pytest.raises(InputError, match="beta"):
        MoffatPSF(1.0, 1.0)
    with pytest.raises(InputError, match="no kind of PSF"):
        psf_from_dict({"type": "airy"})
