"""Sums of Gaussians against the profiles that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gammaincinv

from skyloom.core.psf import GaussianPSF, MoffatPSF, SampledPSF, square_matrix
from skyloom.errors import InputError
from skyloom.mock.scenes.mixture import Mixture, exponential_tiles, psf_mixture, sersic_mixture


def brightness(mixture: Mixture, points: np.ndarray) -> np.ndarray:
    total = np.zeros(len(points))
    for fraction, centre, covariance in zip(
        mixture.fraction, mixture.centre, mixture.covariance, strict=True
    ):
        inverse = np.linalg.inv(covariance)
        distance = np.einsum("ni,ij,nj->n", points - centre, inverse, points - centre)
        total += fraction * np.sqrt(np.linalg.det(inverse)) / (2 * np.pi) * np.exp(-0.5 * distance)
    return total


@pytest.mark.parametrize("beta", [1.5, 2.5, 3.2, 4.765, 10.0])
@pytest.mark.parametrize(("axis_ratio", "angle"), [(1.0, 0.0), (0.7, 25.0)])
def test_a_moffat_profile_is_a_sum_of_gaussians(beta: float, axis_ratio: float, angle: float) -> None:
    psf = MoffatPSF(0.8, beta, axis_ratio, angle)
    mixture = psf_mixture(psf)
    assert mixture.fraction.sum() == pytest.approx(1.0, rel=1e-12)
    direction = np.radians(angle)
    major = np.array([np.sin(direction), np.cos(direction)])
    radius = np.concatenate([[0.0], np.geomspace(0.01, 20.0, 60)])
    # The axis ratio keeps the geometric mean of the widths.
    expected = (beta - 1) / (np.pi * psf.alpha**2) * (1 + radius**2 * axis_ratio / psf.alpha**2) ** -beta
    measured = brightness(mixture, radius[:, np.newaxis] * major)
    np.testing.assert_allclose(measured, expected, rtol=0, atol=5e-7 * expected[0])


def test_other_psfs() -> None:
    assert psf_mixture(None).covariance.max() == 0
    np.testing.assert_allclose(psf_mixture(GaussianPSF(0.2)).covariance[0], GaussianPSF(0.2).covariance)
    with pytest.raises(InputError, match="SampledPSF"):
        psf_mixture(SampledPSF(np.ones((3, 3)), square_matrix(0.1)))


@pytest.mark.parametrize("index", [1.0, 2.0, 4.0])
def test_sersic_profile(index: float) -> None:
    mixture = sersic_mixture(0.5, index)
    radius = 0.5 * np.geomspace(0.05, 3.0, 20)
    profile = np.exp(-gammaincinv(2 * index, 0.5) * (radius / 0.5) ** (1 / index))
    ratio = brightness(mixture, np.stack([radius, 0 * radius], axis=1)) / profile
    np.testing.assert_allclose(ratio / ratio[10], 1.0, atol=0.08)
    assert mixture.fraction.sum() == pytest.approx(1.0)
    with pytest.raises(InputError, match="must exceed 0"):
        sersic_mixture(0.0, 1.0)


def test_tiles_make_a_smooth_exponential_disc() -> None:
    disc = exponential_tiles(1.0, axis_ratio=0.6, position_angle=30.0)
    angle = np.radians(30.0)
    radius = np.linspace(0.8, 2.2, 60)
    along = brightness(disc, radius[:, np.newaxis] * np.array([np.sin(angle), np.cos(angle)]))
    across = brightness(disc, 0.6 * radius[:, np.newaxis] * np.array([np.cos(angle), -np.sin(angle)]))
    logarithm = np.log(along)
    smooth = np.polyval(np.polyfit(radius, logarithm, 3), radius)
    assert np.abs(logarithm - smooth).max() < 2e-3
    assert np.polyfit(radius, logarithm, 1)[0] == pytest.approx(-1.0, abs=0.1)
    # The isophotes have the axis ratio of the disc, softened by the round tiles.
    np.testing.assert_allclose(across / along, 1.0, atol=0.15)
    moved = disc.moved(1.0, -2.0)
    np.testing.assert_allclose(moved.centre - disc.centre, [[1.0, -2.0]] * len(disc))
