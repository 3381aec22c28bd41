"""Levels of cubes: blocks on the sky and along wavelength."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.image import Mode
from skyloom.core.noise import gaussian_correlation
from skyloom.core.spectral_noise import lag_bands
from skyloom.errors import InputError
from skyloom.store.levels.cubes import cube_levels, paired_wave
from skyloom.store.levels.image_noise import coarse_lags
from tests.grids import tangent_wcs
from tests.oracles import pyramid as oracles

SPATIAL = gaussian_correlation(0.9)
LAGS = np.array([0.05, 0.5, 1.0, 0.5, 0.05])
SHAPE = (19, 13, 16)


def patchy_cube(correlation=None, unit="1e-20 erg / (s cm2 AA)", wave=None, shape=SHAPE, **fields):
    rng = np.random.default_rng(8)
    mask = rng.random(shape) < 0.15
    mask[:, 4:8, 6:10] = True
    mask[4:9] = True
    data = rng.normal(10, 3, shape).astype(np.float32)
    variance = rng.uniform(1, 9, shape).astype(np.float32)
    data[mask], variance[mask] = np.nan, -1.0
    axis = 5000 + 1.25 * np.arange(shape[0]) if wave is None else wave
    return Cube(
        data,
        variance,
        mask,
        unit,
        tangent_wcs(shape[1:], 0.2),
        axis,
        "air",
        correlation=correlation,
        **fields,
    )


@pytest.mark.parametrize("unit", ["1e-20 erg / (s cm2 AA)", "1e-20 erg / (s cm2 AA arcsec2)"])
@pytest.mark.parametrize(
    "correlation",
    [None, CubeCorrelation(SPATIAL, None), CubeCorrelation(None, LAGS), CubeCorrelation(SPATIAL, LAGS)],
    ids=["white", "sky", "wavelength", "both"],
)
def test_levels_are_those_of_the_naive_loop(unit, correlation):
    levels = cube_levels(patchy_cube(correlation, unit), 5)
    assert [level.subject.shape for level in levels] == [(19, 13, 16), (10, 7, 8), (5, 4, 4)]
    area = 1.0 if "arcsec" in unit else 4.0
    for z, (fine, coarse) in enumerate(itertools.pairwise(levels)):
        before, result = fine.subject, coarse.subject
        spatial = spectral = None
        if correlation is not None:
            spatial, spectral = correlation.spatial, before.correlation.spectral
        if spatial is not None and z:
            spatial = oracles.block_correlation(spatial, 2**z, 2)
        data, variance, n_good = oracles.halved(
            before.data,
            before.variance,
            fine.n_good,
            spatial,
            area,
            lag_bands(spectral, before.wave.size),
        )
        np.testing.assert_array_equal(coarse.n_good, n_good)
        np.testing.assert_array_equal(result.mask, n_good == 0)
        np.testing.assert_allclose(result.data, data, rtol=1e-6)
        np.testing.assert_allclose(result.variance, variance, rtol=1e-6)
        result.evolve()
        if correlation is None:
            assert result.correlation is None


def test_lags_are_those_of_means_of_pairs():
    n = 41
    weights = np.zeros((20, n))
    for pair in range(20):
        weights[pair, 2 * pair : 2 * pair + 2] = 0.5
    matrix = np.array([[LAGS[2 + j - i] if abs(j - i) <= 2 else 0.0 for j in range(n)] for i in range(n)])
    covariance = weights @ matrix @ weights.T
    exact = covariance[10, 9:12] / covariance[10, 10]
    np.testing.assert_allclose(coarse_lags(LAGS, np.ones(n)), exact, rtol=1e-12)
    assert coarse_lags(np.ones(1), np.ones(n)) is None
    bands = coarse_lags(lag_bands(LAGS, n), np.ones(n))
    np.testing.assert_allclose(bands[10], exact, rtol=1e-12)


def test_lags_of_each_channel_follow_its_variance():
    variance = np.where(np.arange(16) == 7, 100.0, 1.0)
    bands = coarse_lags(lag_bands(np.array([0.4, 1.0, 0.4]), 16), variance)
    spread = np.sqrt(variance)
    matrix = np.eye(16) + 0.4 * (np.eye(16, k=1) + np.eye(16, k=-1))
    covariance = spread[:, None] * matrix * spread
    pairs = covariance.reshape(8, 2, 8, 2).sum(axis=(1, 3))
    exact = pairs[3, 4] / np.sqrt(pairs[3, 3] * pairs[4, 4])
    assert bands[3, bands.shape[1] // 2 + 1] == pytest.approx(exact, rel=1e-12)
    assert exact == pytest.approx(0.2222, abs=0.01)


@pytest.mark.parametrize("size", [18, 19])
@pytest.mark.parametrize("sampling", ["linear", "log"])
def test_wavelengths_are_the_middles_of_pairs(size, sampling):
    index = np.arange(size)
    wave = 5000 + 1.25 * index if sampling == "linear" else 10 ** (3.6 + 1e-3 * index)
    middle = 2 * np.arange((size + 1) // 2) + 0.5
    expected = 5000 + 1.25 * middle if sampling == "linear" else 10 ** (3.6 + 1e-3 * middle)
    np.testing.assert_allclose(paired_wave(wave), expected, rtol=1e-12)


@pytest.mark.parametrize("form", ["number", "channels", "voxels"])
def test_lines_are_as_wide_as_the_lsf_says(form):
    sigma = 2.0
    lsf = {"number": sigma, "channels": np.full(19, sigma), "voxels": np.full(SHAPE, sigma)}[form]
    level = cube_levels(patchy_cube(lsf=lsf), 2)[1]
    expected = np.sqrt(sigma**2 + (2.5**2 - 1.25**2) / 12)
    good = ~level.subject.mask if form == "voxels" else slice(None)
    np.testing.assert_allclose(level.subject.lsf[good], expected, rtol=1e-6)


def test_shared_errors_and_flags_follow():
    flags = np.zeros(SHAPE, np.uint16)
    cube = patchy_cube()
    z, y, x = np.argwhere(~cube.mask)[0]
    flags[z, y, x] = 4
    pattern = np.where(cube.mask, 0.0, cube.data)
    cube = cube.evolve(flags=flags, modes=(Mode("sky", pattern, 0.1),))
    level = cube_levels(cube, 2)[1].subject
    assert level.flags[z // 2, y // 2, x // 2] == 4
    assert np.count_nonzero(level.flags) == 1
    good = level.valid
    np.testing.assert_allclose(level.modes[0].map[good], level.data[good], rtol=1e-5)


def test_no_levels_are_an_error():
    with pytest.raises(InputError, match="n_levels is 0"):
        cube_levels(patchy_cube(), 0)
