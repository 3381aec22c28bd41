"""Observations: everything that was put in is known and can be taken out again."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.bandpass import Bandpass
from skyloom.core.psf import GaussianPSF
from skyloom.errors import InputError
from skyloom.mock.hubble.bands import UDF_BANDS, Band, udf_band
from skyloom.mock.hubble.noise import drizzle_kernel, kernel_correlation
from skyloom.mock.hubble.observe import Noise, Observation, Sky, cosmic_rays, observe
from skyloom.mock.scenes.galaxies import neighbour, star
from skyloom.mock.scenes.images import sky_wcs
from skyloom.mock.scenes.scene import Scene

CENTRE = (53.16, -27.78)
SHAPE = (40, 44)
BAND = Band("f800", Bandpass.tophat(8000, 1000, edge=100, name="f800"), 1e-19, GaussianPSF(0.15), 1e-3, 0.05)
SCENE = Scene("pair", CENTRE, (neighbour(1, 21.0, 0.6, 0.3, (0.0, 0.0)), star(2, 22.0, (0.7, 0.5))))


def observation(seed: int = 5, **options: object) -> Observation:
    wcs = sky_wcs(CENTRE, SHAPE, 0.06, angle=25.0)
    return observe(SCENE, BAND, wcs, SHAPE, seed=seed, **options)


def test_an_observation_is_the_sum_of_its_parts() -> None:
    made = observation(sky=Sky(0.02, 0.004, -0.002), n_cosmic_rays=4, n_dead=6)
    parts = made.truth.data + made.sky + made.noise + made.cosmic_rays
    good = made.image.valid
    np.testing.assert_array_equal(made.image.data[good], parts[good])
    assert np.isnan(made.image.data[made.dead]).all()
    np.testing.assert_array_equal(made.image.mask, made.dead)
    assert made.dead.sum() == 6
    assert made.cosmic_ray_mask.sum() >= 4
    assert made.image.meta["exposure"] == BAND.exposure
    np.testing.assert_allclose(made.image.correlation, BAND.correlation(made.truth.pixel_scale), atol=1e-9)
    assert made.sky.mean() == pytest.approx(0.02)
    assert made.sky[:, -1].mean() - made.sky[:, 0].mean() == pytest.approx(0.004 * 43 / 44)
    assert made.sky[-1].mean() - made.sky[0].mean() == pytest.approx(-0.002 * 39 / 40)


def test_the_light_of_chosen_objects_is_given_apart() -> None:
    made = observation(labels=[2])
    flux = SCENE.select([2]).band_fluxes(BAND.bandpass).sum() / BAND.photflam
    assert made.target.sum() == pytest.approx(flux, rel=1e-3)
    assert (made.truth.data - made.target).min() > -1e-12
    np.testing.assert_allclose(observation().target, made.truth.data, rtol=1e-12)


def test_variance_is_that_of_many_observations() -> None:
    noise = Noise(1e-6, drizzle_kernel(1.4), gradient=0.8)
    wcs = sky_wcs(CENTRE, SHAPE, 0.06)
    generator = np.random.default_rng(3)
    runs = [observe(SCENE, BAND, wcs, SHAPE, noise=noise, exposure=300.0, seed=generator) for _ in range(300)]
    pulls = np.array([run.noise / np.sqrt(run.image.variance) for run in runs])
    bright = runs[0].truth.data > 0.3 * runs[0].truth.data.max()
    faint = runs[0].truth.data < 1e-3 * runs[0].truth.data.max()
    for region in (bright, faint):
        # Correlated over about 3 pixels: 300 x n / 3 independent values.
        bound = 4 / np.sqrt(2 * 300 * region.sum() / 3)
        assert pulls[:, region].std() == pytest.approx(1.0, abs=bound)
        assert pulls[:, region].mean() == pytest.approx(0.0, abs=2 * bound)
    source = runs[0].image.variance - runs[0].background_variance
    # Sums have the variance of their electrons, so pixels that share noise have less of it each.
    spread = kernel_correlation(drizzle_kernel(1.4)).sum()
    np.testing.assert_allclose(source, runs[0].truth.data / 300.0 / spread)
    background = runs[0].background_variance
    assert background[0, -1] / background[0, 0] == pytest.approx(1.4 / 0.6, rel=0.05)
    np.testing.assert_allclose(runs[0].image.correlation, kernel_correlation(drizzle_kernel(1.4)))


def test_counts_and_gain() -> None:
    electrons, counts = observation(noise=Noise(1e-6)), observation(noise=Noise(1e-6), gain=2.0)
    np.testing.assert_allclose(2 * counts.truth.data, electrons.truth.data)
    source = counts.image.variance - counts.background_variance
    np.testing.assert_allclose(source, electrons.truth.data / BAND.exposure / 4, atol=1e-20)


def test_poisson_noise_can_be_left_out() -> None:
    made = observation(noise=Noise(4e-6, poisson=False))
    np.testing.assert_allclose(made.image.variance, 4e-6)
    assert made.image.correlation is None
    with pytest.raises(InputError, match="gradient"):
        observation(noise=Noise(4e-6, gradient=2.5))


def test_the_seed_decides() -> None:
    first, again, other = (observation(seed, n_cosmic_rays=2, n_dead=3) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.image.data, again.image.data)
    assert np.nanmax(np.abs(first.image.data - other.image.data)) > 0


def test_cosmic_rays_are_tracks() -> None:
    image = cosmic_rays((200, 210), 30, np.random.default_rng(2))
    assert 60 < np.count_nonzero(image) < 600
    assert image.max() > 100
    assert cosmic_rays((5, 5), 0, np.random.default_rng(2)).max() == 0


def test_noise_of_large_areas_does_not_depend_on_the_pixels() -> None:
    for band in UDF_BANDS:
        coarse = band.variance(0.06) * band.correlation(0.06).sum() / 0.06**2
        fine = band.variance(0.03) * band.correlation(0.03).sum() / 0.03**2
        assert fine == pytest.approx(coarse, rel=1e-9)
        assert band.variance(0.06) == pytest.approx(band.noise**2)


def test_bands_are_near_the_real_ones() -> None:
    band = udf_band("f606w")
    assert band.bandpass.pivot == pytest.approx(5922, rel=0.01)
    # PHOTFLAM of ACS/WFC F606W is 7.8e-20 erg/s/cm2/A.
    assert band.photflam == pytest.approx(7.8e-20, rel=0.03)
    with pytest.raises(InputError, match="use f435w"):
        udf_band("f999w")
