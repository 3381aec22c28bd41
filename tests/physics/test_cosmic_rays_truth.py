"""Cosmic rays whose every electron is known: found, told from stars and nebulae, and repaired with right errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from tests.inputs.cosmic import EXPOSURE, crowded_field, drizzled_noise

from skyloom.core.image import Flag
from skyloom.core.psf import MoffatPSF
from skyloom.imaging.repair.cosmic_rays import remove_cosmic_rays
from skyloom.mock.hubble.noise import correlated_noise
from skyloom.mock.hubble.observe import cosmic_rays

STRONG = 5.0  # Sigma of a pixel: what a ray must leave in a pixel to be missed there.


@pytest.fixture(scope="module")
def field():
    return crowded_field(600, 70, 6, 25, 80)


def judge(mask, deposit):
    """Completeness, and the number of pixels in the mask that no ray touched."""
    return mask[deposit > STRONG].mean(), np.count_nonzero(mask & (deposit == 0))


def star_cores(field, smallest=100.0):
    """The 5 x 5 pixels of the stars that stand out and are not hit, and the rays' pixels among them."""
    truth = field.observation.truth.data / np.sqrt(field.observation.image.variance)
    cores = np.zeros(truth.shape, dtype=bool)
    for x, y in np.rint(field.stars).astype(int):
        cores[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] |= truth[y, x] > smallest / 10
    return cores & ~ndimage.binary_dilation(field.deposit > 0, np.ones((5, 5)))


def test_rays_are_found_and_nothing_else_is(field):
    found = remove_cosmic_rays(field.image)
    completeness, n_false = judge(found.mask, field.deposit)
    assert completeness >= 0.99
    assert n_false <= 150 * 600**2 / 1520**2
    assert found.n_pixels == found.mask.sum()
    assert found.n_rays == pytest.approx(70, abs=10)  # Rays cross, and noise makes a few.


@pytest.mark.slow
def test_the_whole_field_reaches_the_target():
    """1520 x 1520 pixels: a quarter of the field, mirrored, with noise and rays drawn over all of it."""
    quarter = crowded_field(760, 100, 9, 25, 100)
    truth = np.pad(quarter.observation.truth.data, ((0, 760), (0, 760)), mode="symmetric")
    generator = np.random.default_rng(3)
    model = drizzled_noise()
    variance = model.variance + truth / EXPOSURE
    rays = cosmic_rays(truth.shape, 450, generator) / EXPOSURE
    noise = correlated_noise(variance, model.kernel, generator)
    image = quarter.image.evolve(
        data=(truth + 0.004 + noise + rays).astype(np.float32),
        variance=variance.astype(np.float32),
        mask=np.zeros(truth.shape, dtype=bool),
    )
    completeness, n_false = judge(remove_cosmic_rays(image).mask, rays / np.sqrt(variance))
    assert completeness >= 0.99
    assert n_false <= 150


@pytest.mark.parametrize("width", [0.063, 0.07, 0.077, None])
def test_cores_of_stars_survive(field, width):
    """Also when the PSF is known to a tenth only, or not at all."""
    psf = None if width is None else MoffatPSF(width, 2.8)
    found = remove_cosmic_rays(field.image.evolve(psf=psf))
    cores = star_cores(field)
    assert cores.sum() > 200
    assert not (found.mask & cores).any()
    np.testing.assert_array_equal(found.image.data[cores], field.image.data[cores])
    assert judge(found.mask, field.deposit)[0] >= 0.99


def test_without_the_psf_a_low_contrast_would_eat_stars(field):
    """The test against the PSF does something: the same candidates without it cover stars."""
    loose = remove_cosmic_rays(field.image.evolve(psf=None), contrast=2.0)
    assert (loose.mask & star_cores(field)).sum() > 20


def test_the_unit_does_not_matter(field):
    mask = remove_cosmic_rays(field.image).mask
    for factor, unit in ((EXPOSURE, "electron"), (3.1e-19, "erg / (s cm2 AA)")):
        scaled = field.image.evolve(
            data=field.image.data * np.float32(factor),
            variance=(field.image.variance.astype(float) * factor**2),
            unit=unit,
        )
        other = remove_cosmic_rays(scaled).mask
        # Rounding may move a pixel over a threshold.
        assert np.count_nonzero(other != mask) <= 2, unit


def test_weight_maps_of_the_background_need_the_exposure(field):
    """With the background's variance alone, the photon noise of bright stars looks like rays."""
    background = field.image.evolve(variance=field.observation.background_variance.astype(np.float32))
    aware = remove_cosmic_rays(background, exposure=EXPOSURE)
    completeness, n_false = judge(aware.mask, field.deposit)
    assert completeness >= 0.99
    assert n_false <= 24
    assert not (aware.mask & star_cores(field)).any()
    # The variance of the product stays the background's, where no ray was.
    kept = ~aware.mask
    np.testing.assert_array_equal(aware.image.variance[kept], background.variance[kept])


def test_repaired_pixels_have_errors_that_cover_them(field):
    found = remove_cosmic_rays(field.image)
    hit = found.mask & (field.deposit > STRONG)
    truth = field.observation.truth.data + field.observation.sky
    pulls = (found.image.data - truth)[hit] / np.sqrt(found.image.variance[hit])
    # A repaired pixel claims more than a measured one; so its pulls scatter by less than 1, around 0.
    assert abs(pulls.mean()) < 0.1
    assert 0.2 < pulls.std() < 1.0
    assert np.abs(pulls).max() < 4.0
    assert np.median(found.image.variance[hit] / field.image.variance[hit]) > 1.05
    flagged = (found.image.flags & Flag.REPAIRED_COSMIC_RAY) != 0
    np.testing.assert_array_equal(flagged, found.mask)


def test_no_light_is_lost_or_made(field):
    """The sum of all repaired pixels agrees with the truth within its error."""
    found = remove_cosmic_rays(field.image)
    hit = found.mask
    truth = (field.observation.truth.data + field.observation.sky)[hit].sum()
    before, after = field.image.data[hit].sum(), found.image.data[hit].sum()
    error = np.sqrt(found.image.variance[hit].sum())
    assert abs(after - truth) < 3 * error
    assert before - truth > 100 * error
