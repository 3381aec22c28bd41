"""Injected noise through rest frame, dereddening and resampling: the errors that are carried are the scatter."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.cube import Cube, CubeCorrelation
from skyloom.core.noise import sum_variance
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import cube_sum_variance, lag_bands, measure_lags, weighted_sum_variance
from skyloom.spectral.axes.extinction import deredden
from skyloom.spectral.axes.prepare import prepare_cube
from skyloom.spectral.axes.resample import resample
from skyloom.spectral.axes.rest_frame import to_rest_frame

N_DRAWS = 3000
N_WAVE = 120
UNIT = "1e-20 erg/(s cm2 AA)"


def correlated(rng, shape, kernel):
    """White noise filtered along its last axis, unit variance, and its lags."""
    kernel = np.asarray(kernel, float) / np.sqrt(np.sum(np.square(kernel)))
    white = rng.normal(0, 1, (*shape[:-1], shape[-1] + kernel.size - 1))
    noise = sum(weight * white[..., start : start + shape[-1]] for start, weight in enumerate(kernel))
    return noise, np.convolve(kernel, kernel[::-1])


def draw(rng, kind, wave):
    """Spectra of noise alone, with the variance of a gradient or of a sky with lines."""
    kernel = {"white": [1.0], "correlated": [1.0, 2.0, 1.0], "rebinned": [0.4, 1.0, 0.1]}[kind]
    noise, lags = correlated(rng, (N_DRAWS, wave.size), kernel)
    variance = np.linspace(1.0, 3.0, wave.size)
    variance = variance * (1 + 15 * np.exp(-0.5 * ((wave - wave[60]) / 1.5) ** 2))
    level = rng.uniform(0.5, 2.0, (N_DRAWS, 1))
    data = noise * np.sqrt(variance) * level
    return Spectra(
        data, variance * level**2, None, UNIT, wave, "air", correlation=None if kind == "white" else lags
    )


def pulls_of_sums(spectra, width):
    """(n, sums) pulls of sums over ``width`` neighbouring channels."""
    n_sums = spectra.wave.size // width
    pulls = np.empty((spectra.data.shape[0], n_sums))
    bands = lag_bands(spectra.correlation, spectra.wave.size)
    for index in range(n_sums):
        part = slice(index * width, (index + 1) * width)
        assert spectra.valid[:, part].all()
        expected = weighted_sum_variance(spectra.variance[:, part], np.ones(width), bands[part])
        pulls[:, index] = spectra.data[:, part].sum(axis=1) / np.sqrt(expected)
    return pulls


CHAINS = {
    "1.25 A to 1 A": lambda spectra: resample(spectra, step=1.0),
    "1.25 A to 3 A": lambda spectra: resample(spectra, step=3.0),
    "1.25 A to log": lambda spectra: resample(spectra, step=1e-4, sampling="log"),
    "rest frame, dust, 1 A": lambda spectra: resample(
        deredden(to_rest_frame(spectra, 0.0885), av=0.5), step=1.0
    ),
    "twice": lambda spectra: resample(resample(spectra, step=0.9), step=1.3),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("kind", ["white", "correlated", "rebinned"])
def test_sums_have_the_errors_that_are_carried(chain, kind):
    rng = np.random.default_rng(11)
    spectra = CHAINS[chain](draw(rng, kind, 4750.0 + 1.25 * np.arange(N_WAVE)))
    for width in (1, 5, 20):
        scatter = pulls_of_sums(spectra, width).std(axis=0)
        # 3000 draws give the pull of one sum to 1.3 %; the worst of a hundred sums may be 4.5 times that off (chance
        # 1e-3). The mean over all positions is known better, though neighbours agree.
        assert abs(scatter.mean() - 1) < max(0.01, 3 / np.sqrt(2 * N_DRAWS * scatter.size)), width
        assert np.abs(scatter - 1).max() < 4.5 / np.sqrt(2 * N_DRAWS), width


def test_a_log_axis_becomes_linear_with_its_errors():
    rng = np.random.default_rng(12)
    spectra = resample(draw(rng, "correlated", 10 ** (3.7 + 1e-4 * np.arange(N_WAVE))), step=1.0)
    for width in (1, 5, 20):
        scatter = pulls_of_sums(spectra, width).std(axis=0)
        assert np.abs(scatter - 1).max() < 4.5 / np.sqrt(2 * N_DRAWS)


def test_measured_lags_are_the_lags_carried():
    rng = np.random.default_rng(13)
    spectra = resample(draw(rng, "white", 4750.0 + 1.25 * np.arange(N_WAVE)), step=1.0)
    normalised = spectra.data / np.sqrt(spectra.variance)
    measured = measure_lags(normalised, spectra.valid, 3)
    radius = spectra.correlation.shape[1] // 2
    carried = spectra.correlation[5:-5, radius - 1 : radius + 2].mean(axis=0)
    np.testing.assert_allclose(measured[2:5], carried, atol=5 / np.sqrt(spectra.data.size))


def test_a_cube_keeps_both_its_correlations():
    rng = np.random.default_rng(14)
    side, n_wave, n_draws = 5, 48, 400
    noise, lags = correlated(rng, (n_draws, side + 2, side + 2, n_wave), [0.5, 1.0, 0.5])
    kernel = np.array([0.4, 1.0, 0.4]) / np.sqrt(1.32)
    noise = sum(kernel[i] * noise[:, i : i + side] for i in range(3))
    noise = sum(kernel[i] * noise[:, :, i : i + side] for i in range(3))
    along = np.convolve(kernel, kernel[::-1])
    correlation = CubeCorrelation(np.outer(along, along), lags)
    wave = 4750.0 + 1.25 * np.arange(n_wave)
    shape_of_sky = np.linspace(1, 2, side)[:, None] * np.linspace(1, 1.5, side)
    variance = np.linspace(1, 2, n_wave)[:, None, None] * shape_of_sky
    sums, expected = [], 0.0
    pixels = np.ones((side, side))
    for number in range(n_draws):
        data = np.moveaxis(noise[number], -1, 0) * np.sqrt(variance)
        cube = Cube(data, variance, None, UNIT, None, wave, "air", correlation=correlation)
        cube = resample(prepare_cube(cube, redshift=0.02, av=0.3), step=1.0)
        channels = np.zeros(cube.wave.size)
        channels[10:40] = 1.0
        sums.append(np.sum(cube.data[10:40]))
        if number == 0:
            expected = cube_sum_variance(cube.variance, pixels, channels, cube.correlation)
            alone = sum(sum_variance(plane, pixels) for plane in cube.variance[10:40])
            assert expected > 10 * alone
    pull = np.std(sums) / np.sqrt(expected)
    assert abs(pull - 1) < 3 / np.sqrt(2 * n_draws)


def test_line_fluxes_survive_the_whole_chain():
    wave = 7000.0 + 1.25 * np.arange(200)
    profile = np.exp(-0.5 * ((wave - 7120.3) / 2.2) ** 2)
    truth = 500.0 * profile / (profile.sum() * 1.25)
    spectra = Spectra(truth[None], np.ones((1, 200)), None, UNIT, wave, "air", lsf=1.1)
    rest = resample(to_rest_frame(spectra, 0.0885), step=1.0)
    centre = 7120.3 / 1.0885
    assert np.sum(rest.data) * 1.0 == pytest.approx(500.0, rel=1e-6)
    assert np.sum(rest.data * rest.wave) / np.sum(rest.data) == pytest.approx(centre, abs=0.02)
