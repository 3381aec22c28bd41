"""Measuring the noise of a cube: scale and correlations, against injected truth."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.noise import gaussian_correlation, region_variances
from skyloom.core.spectral_noise import weighted_sum_variance
from skyloom.errors import InputError, ShapeError
from skyloom.spectral.noise.measure import (
    CubeNoise,
    apply_cube_noise,
    combine_cube_noise,
    manga_sum_factor,
    measure_cube_noise,
)
from skyloom.spectral.noise.windows import lag_response
from tests.oracles import extract as oracles

TRUE_SCALE = 1.3


def galaxy_cube(seed, shape=(192, 36, 36), *, spatial=0.6, spectral=0.4, light=5.0, line=60.0, tilt=0.0):
    """A galaxy with a gradient of colour, absorption that rotates, an emission line; variance claimed too small."""
    noise, rho, lags = oracles.correlated_noise(np.random.default_rng(seed), shape, spatial, spectral)
    n_wave, ny, nx = shape
    y, x = np.indices((ny, nx))
    distance = np.hypot(y - ny / 2, x - nx / 2)
    channel = np.arange(n_wave)[:, None, None]
    wave = 4750 + 1.25 * np.arange(n_wave)
    shift = (x - nx / 2) / nx * 2
    absorption = 1 - 0.1 * np.exp(-0.5 * ((channel % 40 - 20 - shift) / 4) ** 2)
    profile = light * np.exp(-distance / (ny / 4))
    signal = profile * (1 + 0.3 * np.sin(wave / 300))[:, None, None] * absorption
    signal = signal + line * np.exp(-0.5 * ((channel - n_wave // 2) / 2.5) ** 2) * np.exp(-distance / 4)
    claimed = (1 + 0.5 * np.sin(wave / 70) ** 2)[:, None, None] * (1 + profile / 20)
    true = TRUE_SCALE * (1 + tilt * np.linspace(-1, 1, n_wave))[:, None, None]
    data = signal + noise * np.sqrt(claimed * true)
    cube = Cube(
        data.astype(np.float32), claimed.astype(np.float32), np.zeros(shape, bool), "1e-20 erg/(s cm2 AA)", None,
        wave, "air",
    )  # fmt: skip
    return cube, rho, lags


def middle(lags):
    return lags[lags.size // 2 :]


@pytest.mark.parametrize(("spatial", "spectral"), [(0.0, 0.0), (0.6, 0.4), (0.6, 0.7)])
def test_scale_and_correlations_are_those_injected(spatial, spectral):
    cube, rho, lags = galaxy_cube(1, spatial=spatial, spectral=spectral)
    noise = measure_cube_noise(cube)
    assert noise.scale == pytest.approx(TRUE_SCALE, rel=0.02)
    assert noise.spatial.sum() == pytest.approx(rho.sum(), rel=0.04)
    assert noise.spectral.sum() == pytest.approx(lags.sum(), rel=0.03)
    centre = rho.shape[0] // 2
    reach = min(noise.spatial.shape[0], rho.shape[0]) // 2
    np.testing.assert_allclose(
        noise.spatial[noise.spatial.shape[0] // 2 :, noise.spatial.shape[0] // 2][: reach + 1],
        rho[centre:, centre][: reach + 1],
        atol=0.02,
    )
    n = min(middle(noise.spectral).size, middle(lags).size)
    np.testing.assert_allclose(middle(noise.spectral)[:n], middle(lags)[:n], atol=0.02)
    assert noise.n_channels < cube.shape[0], "the channels of the emission line are left out"
    assert noise.n_voxels > 2e5


def test_errors_are_those_of_repeated_draws():
    draws = [
        measure_cube_noise(galaxy_cube(seed, (96, 24, 24), light=0.0, line=0.0)[0]) for seed in range(20)
    ]
    scales = np.array([noise.scale for noise in draws])
    mean_error = np.mean([noise.scale_error for noise in draws])
    # 20 draws know a standard deviation to 16 %; the bound is three of these.
    assert 0.52 < scales.std(ddof=1) / mean_error < 1.48
    assert abs(scales.mean() - TRUE_SCALE) < 3 * mean_error / np.sqrt(20)
    lag = np.array([noise.windows[0].spectral_sums[1] / noise.windows[0].spectral_sums[0] for noise in draws])
    assert 0.52 < lag.std(ddof=1) / draws[0].spectral_error < 1.48


def test_the_filter_would_bias_what_is_not_corrected():
    cube, _, _ = galaxy_cube(3, spatial=0.0, spectral=0.7, light=0.0, line=0.0)
    noise = measure_cube_noise(cube, window=32)
    window = noise.windows[2]
    naive = window.spectral_sums[0] / window.n_voxels
    assert naive < 0.85 * TRUE_SCALE, "a polynomial over 32 channels takes much of correlated noise with it"
    assert noise.scale == pytest.approx(TRUE_SCALE, rel=0.02)


def test_a_scale_that_runs_with_wavelength_is_followed():
    cube, _, _ = galaxy_cube(4, (448, 24, 24), tilt=0.2, light=1.0)
    noise = measure_cube_noise(cube)
    truth = TRUE_SCALE * (1 + 0.2 * np.linspace(-1, 1, 448))
    np.testing.assert_allclose(noise.scale_at(cube.wave)[40:-40], truth[40:-40], rtol=0.03)
    assert noise.wave.shape == noise.scales.shape == noise.scale_errors.shape == (7,)
    beyond = noise.scale_at([1000.0, 20000.0])
    np.testing.assert_allclose(beyond, noise.scale_at([noise.wave[0], noise.wave[-1]]))
    flat = measure_cube_noise(galaxy_cube(4, (448, 24, 24), light=1.0)[0])
    np.testing.assert_allclose(flat.scale_at(cube.wave), TRUE_SCALE, rtol=0.03)


def test_slabs_combine_to_the_measurement_of_the_whole():
    cube, _, _ = galaxy_cube(5, (192, 30, 30))
    parts = []
    for first in (128, 0, 64):
        where = slice(first, first + 64)
        slab = Cube(
            cube.data[where], cube.variance[where], cube.mask[where], cube.unit, None, cube.wave[where], "air"
        )
        parts.append(measure_cube_noise(slab))
    joined, whole = combine_cube_noise(parts), measure_cube_noise(cube)
    assert joined.scale == pytest.approx(whole.scale, rel=1e-9)
    np.testing.assert_allclose(joined.spatial, whole.spatial)
    np.testing.assert_allclose(joined.spectral, whole.spectral)
    np.testing.assert_allclose(joined.wave, whole.wave)
    assert joined.n_voxels == whole.n_voxels == sum(part.n_voxels for part in parts)
    assert joined.scale_error < parts[0].scale_error


def test_masked_voxels_and_dead_spaxels_do_not_matter(rng):
    cube, _, _ = galaxy_cube(6)
    mask = rng.random(cube.shape) < 0.03
    mask[:, :5, :8] = True
    data, variance = cube.data.copy(), cube.variance.copy()
    data[mask], variance[mask] = np.nan, -1.0
    noise = measure_cube_noise(cube.evolve(data=data, variance=variance, mask=mask))
    assert noise.scale == pytest.approx(TRUE_SCALE, rel=0.02)
    other = cube.evolve(data=np.where(mask, 1e30, data), variance=np.where(mask, np.inf, variance), mask=mask)
    assert measure_cube_noise(other).scale == noise.scale


def test_units_of_any_size_serve():
    cube, _, _ = galaxy_cube(7, (64, 20, 20), line=0.0)
    noise = measure_cube_noise(cube)
    scaled = cube.evolve(
        data=cube.data.astype(float) * 1e-20,
        variance=cube.variance.astype(float) * 1e-40,
        unit="erg/(s cm2 AA)",
    )
    assert measure_cube_noise(scaled).scale == pytest.approx(noise.scale, rel=1e-3)


def test_structure_that_wide_patches_share_is_told_and_taken_off(rng):
    """Spectra that no pattern describes: a smooth ripple across the field, with its own spectrum."""
    cube, rho, _ = galaxy_cube(14, (192, 60, 60), line=0.0, light=0.0)
    y, x = np.indices((60, 60))
    ripple = np.sin(y / 9) * np.cos(x / 11)
    extra = 0.3 * rng.standard_normal(192)[:, None, None] * ripple
    share = (0.3**2 * np.mean(ripple**2)) / (TRUE_SCALE * np.mean(cube.variance))
    noise = measure_cube_noise(cube.evolve(data=(cube.data + extra).astype(np.float32)))
    assert 0.4 * share < noise.structure < 1.2 * share
    assert noise.scale == pytest.approx(TRUE_SCALE, rel=0.02)
    assert noise.spatial.sum() == pytest.approx(rho.sum(), rel=0.15), "left in, it would add half"
    assert measure_cube_noise(cube).structure == 0.0


def test_given_channels_and_spaxels_are_the_only_ones_used():
    cube, _, _ = galaxy_cube(8, (128, 24, 24), line=0.0)
    line_free = np.arange(128) < 64
    spaxels = np.indices((24, 24))[0] < 12
    noise = measure_cube_noise(cube, line_free=line_free, spaxels=spaxels)
    assert noise.n_channels <= 64
    assert noise.n_voxels <= 64 * 12 * 24
    assert noise.wave.max() < cube.wave[64]


def test_threads_change_nothing():
    cube, _, _ = galaxy_cube(9, (128, 20, 20))
    assert measure_cube_noise(cube, workers=2).scale == measure_cube_noise(cube).scale


def test_few_channels_are_not_asked_for_more_lags_than_they_tell_apart(rng):
    """Lags up to 5 from 26 channels beside a line once gave a correlation with sums of less than no variance."""
    noise, _, lags = oracles.correlated_noise(rng, (51, 31, 31), 0.5, 0.4)
    channel = np.arange(51)[:, None, None]
    # Wings of a line, too faint for the channels to stand out and too steep for the polynomial.
    wings = 0.8 * np.exp(-np.abs(channel - 27) / 3.0) * np.exp(-np.hypot(*(np.indices((31, 31)) - 15)) / 6)
    cube = Cube(
        (noise + wings).astype(np.float32), np.ones(noise.shape, np.float32), np.zeros(noise.shape, bool),
        "1e-20 erg/(s cm2 AA)", None, 7350 + 1.25 * np.arange(51), "air",
    )  # fmt: skip
    measured = measure_cube_noise(cube, line_free=np.abs(channel[:, 0, 0] - 27) > 12)
    assert measured.spectral.size <= 5
    assert measured.spectral.sum() == pytest.approx(lags.sum(), abs=0.15)
    sums = weighted_sum_variance(np.ones(51), np.eye(51)[:40].cumsum(axis=1)[::-1], measured.spectral)
    assert np.all(sums > 0)


def test_small_fields_get_a_smaller_radius():
    cube, _, _ = galaxy_cube(10, (128, 8, 6), line=0.0, light=0.0)
    noise = measure_cube_noise(cube)
    assert noise.windows[0].spatial_sums.shape == (3, 3)
    assert noise.scale == pytest.approx(TRUE_SCALE, rel=0.1)


def test_apply_scales_the_variance_and_sets_the_correlation():
    cube, _, _ = galaxy_cube(11, (64, 24, 24), line=0.0)
    noise = measure_cube_noise(cube)
    changed = apply_cube_noise(cube, noise)
    np.testing.assert_allclose(changed.variance / cube.variance, noise.scale, rtol=1e-5)
    assert changed.variance.dtype == cube.variance.dtype
    np.testing.assert_array_equal(changed.correlation.spatial, noise.spatial)
    np.testing.assert_array_equal(changed.correlation.spectral, noise.spectral)
    assert changed.data is cube.data
    assert changed.history[-1].name == "apply_cube_noise"
    assert changed.history[-1].parameters["variance_scale"] == noise.scale
    independent, _, _ = galaxy_cube(12, (64, 24, 24), spatial=0.0, spectral=0.0, line=0.0)
    assert apply_cube_noise(independent, measure_cube_noise(independent)).correlation == CubeCorrelation(
        None, None
    )


def test_what_the_filter_does_to_lags_matches_the_naive_twin(rng):
    projection = rng.standard_normal((12, 12))
    used = rng.random(12) < 0.8
    pairs = [(used[: 12 - lag] & used[lag:]).astype(int) for lag in range(4)]
    np.testing.assert_allclose(
        lag_response(projection, pairs, 3), oracles.lag_response(projection, used, 3), rtol=1e-10, atol=1e-10
    )


def test_bad_input_is_named():
    cube, _, _ = galaxy_cube(13, (64, 12, 12), line=0.0)
    with pytest.raises(ShapeError, match=r"line_free has shape \(3,\); expected \(64,\)"):
        measure_cube_noise(cube, line_free=np.ones(3, bool))
    with pytest.raises(ShapeError, match="spaxels"):
        measure_cube_noise(cube, spaxels=np.ones((3, 3), bool))
    with pytest.raises(InputError, match="no window of the 64 channels"):
        measure_cube_noise(cube, line_free=np.zeros(64, bool))
    with pytest.raises(InputError, match="no window"):
        measure_cube_noise(cube.evolve(mask=np.ones(cube.shape, bool)))
    with pytest.raises(InputError, match="window is 5"):
        measure_cube_noise(cube, window=5)
    with pytest.raises(InputError, match="no noise"):
        measure_cube_noise(cube.evolve(data=np.ones(cube.shape, np.float32)))
    with pytest.raises(InputError, match="no noise"):
        measure_cube_noise(cube.evolve(data=np.zeros(cube.shape, np.float32)))
    with pytest.raises(InputError, match="no measurements"):
        combine_cube_noise([])
    one = measure_cube_noise(cube)
    with pytest.raises(InputError, match="different radii"):
        combine_cube_noise([one, measure_cube_noise(cube, radius=1)])
    bare = CubeNoise(*[getattr(one, name) for name in CubeNoise.__dataclass_fields__ if name != "windows"])
    with pytest.raises(InputError, match="carry no windows"):
        combine_cube_noise([one, bare])
    with pytest.raises(InputError, match="sigma is 0"):
        gaussian_correlation(0.0)


def test_gaussian_correlation_of_manga_agrees_with_the_published_factor_of_sums():
    rho = gaussian_correlation(1.92)
    assert rho[rho.shape[0] // 2, rho.shape[0] // 2 + 2] == pytest.approx(np.exp(-0.5 * (2 / 1.92) ** 2))
    np.testing.assert_allclose(rho, rho.T)
    assert manga_sum_factor(1) == 1.0
    assert manga_sum_factor(1000) == 4.2
    for side in (2, 4, 8):
        n = side**2
        factor = np.sqrt(region_variances(np.ones((side, side)), np.zeros((side, side), int), 1, rho)[0] / n)
        # Two independent published descriptions of the same cubes; they differ by up to a fifth.
        assert factor == pytest.approx(float(manga_sum_factor(n)), rel=0.2)
