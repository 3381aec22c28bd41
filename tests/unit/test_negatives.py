"""Negative outliers filled without clipping noise, and white noise on request."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.image import Flag, Image
from skyloom.core.noise import measure_correlation
from skyloom.errors import InputError
from skyloom.imaging.repair.negatives import find_negatives, repair_negatives
from skyloom.imaging.repair.white_noise import add_white_noise
from skyloom.mock.hubble.noise import correlated_noise, kernel_correlation
from tests.grids import tangent_wcs

N = 400
KERNEL = np.outer([0.2, 1.0, 0.2], [0.2, 1.0, 0.2])


def sky_image(seed=1, claimed=1.0):
    """Correlated noise of sigma 1 with nebulae; ``claimed`` is the variance that the image claims."""
    rng = np.random.default_rng(seed)
    data = correlated_noise(np.ones((N, N)), KERNEL, rng).astype(np.float32)
    variance = np.full((N, N), claimed, dtype=np.float32)
    rho = kernel_correlation(KERNEL)
    return Image(data, variance, None, "electron / s", tangent_wcs((N, N), 0.04), correlation=rho)


def with_pits(image, n=60, depth=30.0, seed=3):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(8, N - 8, (2, n))
    data = image.data.copy()
    data[rows, columns] -= depth
    data[rows, columns + 1] -= 0.15 * depth  # A neighbour above the second threshold, below the first.
    pits = np.zeros(image.shape, dtype=bool)
    pits[rows, columns] = True
    return image.evolve(data=data), pits


@pytest.mark.parametrize("claimed", [0.3, 1.0, 4.0])
def test_outliers_are_replaced_whatever_variance_is_claimed(claimed):
    image = sky_image(claimed=claimed)
    hit, pits = with_pits(image)
    result = repair_negatives(hit)
    changed = result.data != hit.data
    assert changed[pits].all()
    assert np.count_nonzero(changed & ~pits) <= 80
    wanted = np.uint16(Flag.NEGATIVE | Flag.INTERPOLATED)
    np.testing.assert_array_equal((result.flags & wanted) == wanted, changed)
    assert result.history[-1].parameters["pixels"] == np.count_nonzero(changed)
    # The truth there is an empty sky.
    pulls = (
        result.data[changed]
        / np.sqrt(np.maximum(result.variance[changed], 1e-9))
        * np.sqrt(max(1.0, claimed))
    )
    assert np.abs(pulls.mean()) < 0.35
    assert (result.variance >= hit.variance).all()
    assert np.median(result.variance[changed] / hit.variance[changed]) > 1.05


def test_the_error_of_a_filled_pixel_is_honest():
    """Against the noise-free sky, filled pixels scatter no more than they claim, and not absurdly less."""
    pulls = []
    for seed in range(4):
        hit, pits = with_pits(sky_image(seed), n=150, seed=seed)
        result = repair_negatives(hit)
        pulls.append(result.data[pits] / np.sqrt(result.variance[pits]))
    pulls = np.concatenate(pulls)
    assert abs(pulls.mean()) < 3 * pulls.std() / np.sqrt(pulls.size) + 0.02
    assert 0.2 < pulls.std() < 1.0


def test_an_empty_sky_keeps_its_mean():
    changes = []
    for seed in range(6):
        image = sky_image(seed)
        result = repair_negatives(image)
        changes.append(float(result.data.mean(dtype=float) - image.data.mean(dtype=float)))
        assert result.history[-1].parameters["mean_change"] == pytest.approx(changes[-1], abs=1e-6)
    # The mean of such an image has an error of sqrt(sum rho) / N, 0.0045.
    error = np.sqrt(kernel_correlation(KERNEL).sum()) / N
    assert np.abs(changes).max() < 0.05 * error


def test_what_is_nonpositive_is_replaced_on_request_and_clips():
    image = sky_image()
    result = repair_negatives(image, method="nonpositive")
    np.testing.assert_array_equal(find_negatives(image, method="nonpositive"), image.data <= 0)
    interpolated = (result.flags & Flag.INTERPOLATED) != 0
    assert interpolated.sum() > 0.45 * N * N
    assert (result.data[interpolated] > 0).all()
    # This is why it is not the default.
    assert result.data.mean() > 0.5
    assert result.history[-1].parameters["mean_change"] > 0.5


def test_nebulae_do_not_hide_outliers():
    """Light on half of the image widens its upper side only."""
    image = sky_image()
    y, x = np.indices((N, N))
    light = 20.0 * (np.sin(x / 5.0) * np.sin(y / 7.0) > 0.2)
    bright = image.evolve(data=(image.data + light).astype(np.float32))
    hit, pits = with_pits(bright, depth=60.0)
    assert find_negatives(hit)[pits].all()


def test_large_pits_and_holes_are_not_filled():
    image = sky_image()
    data, mask = image.data.copy(), np.zeros((N, N), dtype=bool)
    data[100:140, 100:140] = -50.0
    mask[200:230, 200:230] = True
    data[mask] = np.nan
    result = repair_negatives(image.evolve(data=data, mask=mask))
    np.testing.assert_array_equal(result.mask, mask)
    assert (result.data[110:130, 110:130] == -50.0).all()
    middle = result.flags[110:130, 110:130]
    assert ((middle & Flag.NEGATIVE) != 0).all()
    assert ((middle & Flag.INTERPOLATED) == 0).all()
    assert np.isnan(result.data[mask]).all()


def test_thresholds_and_kernel():
    image, _ = with_pits(sky_image())
    data = image.data.copy()
    data[50, 50:52] = -10.0, -4.0
    data[60, 60] = -4.0
    image = image.evolve(data=data)
    found = find_negatives(image)
    assert found[50, 50]
    assert found[50, 51]
    assert not found[60, 60]
    strict = find_negatives(image, thresholds=(5.0,))
    assert strict[50, 50]
    assert not strict[50, 51]
    assert repair_negatives(image).history[-1].parameters["kernel_pixels"] == 1.5
    wide = repair_negatives(image, kernel_arcsec=0.12)
    assert wide.history[-1].parameters["kernel_pixels"] == pytest.approx(3.0)


def test_nothing_to_repair():
    flat = sky_image().evolve(data=np.ones((N, N), np.float32))
    np.testing.assert_array_equal(repair_negatives(flat).data, flat.data)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"thresholds": (5.0, 3.0)}, "thresholds"),
        ({"thresholds": ()}, "thresholds"),
        ({"thresholds": (1.0, 2.0, 3.0)}, "thresholds"),
        ({"thresholds": (-1.0,)}, "thresholds"),
        ({"method": "clip"}, "method"),
        ({"kernel_arcsec": 0.0}, "kernel_arcsec"),
    ],
)
def test_bad_settings_are_named(options, field):
    with pytest.raises(InputError) as caught:
        repair_negatives(sky_image(), **options)
    assert caught.value.field == field


def test_all_masked_is_refused():
    masked = sky_image().evolve(mask=np.ones((N, N), dtype=bool))
    with pytest.raises(InputError, match="all pixels are masked"):
        repair_negatives(masked)
    with pytest.raises(InputError, match="all pixels are masked"):
        add_white_noise(masked, 1.0, seed=1)


# --- white noise -----------------------------------------------------------------------------------------


def test_white_noise_has_the_variance_and_correlation_it_claims():
    image = sky_image()
    noisy = add_white_noise(image, 1.5, seed=7)
    np.testing.assert_allclose(noisy.variance, 1.0 + 1.5**2)
    measured = measure_correlation(noisy, radius=2)
    assert abs(measured.scale - 1.0) < 4 * measured.scale_error
    rho = np.pad(noisy.correlation, 2 - noisy.correlation.shape[0] // 2)
    # Lags scatter by about 1 / N.
    np.testing.assert_allclose(measured.correlation, rho, atol=5.0 / N)
    added = noisy.data - image.data
    assert abs(added.std() - 1.5) < 4 * 1.5 / np.sqrt(2) / N
    assert abs(added.mean()) < 4 * 1.5 / N


def test_the_seed_decides_and_is_kept():
    image = sky_image()
    first, again, other = (add_white_noise(image, 2.0 * u.electron / u.s, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.data, again.data)
    assert (first.data != other.data).mean() > 0.99
    assert first.history[-1].parameters == {"sigma": 2.0, "seed": 3}


def test_white_noise_on_white_noise_stays_white():
    assert add_white_noise(sky_image().evolve(correlation=None), 1.0, seed=1).correlation is None


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan, 1.0 * u.Jy])
def test_bad_noise_is_refused(sigma):
    with pytest.raises(InputError) as caught:
        add_white_noise(sky_image(), sigma, seed=1)
    assert caught.value.field == "sigma"
