"""Values rounded to a fraction of their noise: by how much, without bias, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError, ShapeError
from skyloom.store.levels.images import image_levels
from skyloom.store.levels.quantise import (
    quantise,
    quantise_levels,
    quantise_observation,
    round_values,
    round_variance,
)
from skyloom.store.observation import Level, Observation
from tests.grids import tangent_wcs


def naive_rounding(value, variance, quantum):
    step = 2.0 ** np.floor(np.log2(quantum * np.sqrt(float(variance))))
    return np.float32(np.rint(float(value) / step) * step)


@pytest.mark.parametrize("quantum", [0.03, 0.1, 0.7, 1.0])
def test_values_are_those_of_the_naive_rule(quantum):
    rng = np.random.default_rng(1)
    variance = (10.0 ** rng.uniform(-25, 25, 2000)).astype(np.float32)
    values = (rng.normal(0, 30, 2000) * np.sqrt(variance)).astype(np.float32)
    expected = [naive_rounding(*pair, quantum) for pair in zip(values, variance, strict=True)]
    # A quantum that is no binary number moves a step where it falls upon a power of two.
    different = round_values(values, variance, quantum) != expected
    assert different.mean() < 0.001


@pytest.mark.parametrize(("quantum", "low", "high"), [(0.1, 0.014, 0.029), (0.5, 0.072, 0.145)])
def test_error_is_a_small_share_of_the_noise_without_bias(quantum, low, high):
    rng = np.random.default_rng(2)
    n = 400_000
    variance = rng.uniform(0.5, 8, n).astype(np.float32)
    values = (3.0 + rng.normal(size=n) * np.sqrt(variance)).astype(np.float32)
    error = (round_values(values, variance, quantum).astype(float) - values) / np.sqrt(variance)
    assert low < error.std() < high
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(n)
    assert np.abs(error).max() <= quantum / 2 + 1e-6
    # Independent from pixel to pixel and of the value: errors of sums grow like the square root of their number.
    sums = error.reshape(-1, 100).sum(axis=1)
    assert sums.std() == pytest.approx(10 * error.std(), rel=3 / np.sqrt(2 * sums.size))
    assert abs(np.corrcoef(error, values)[0, 1]) < 3 / np.sqrt(n)


def test_rounding_twice_is_rounding_once():
    rng = np.random.default_rng(3)
    variance = rng.uniform(1, 8, 5000).astype(np.float32)
    values = rng.normal(size=5000).astype(np.float32)
    once = round_variance(variance)
    np.testing.assert_array_equal(round_variance(once), once)
    rounded = round_values(values, once)
    np.testing.assert_array_equal(round_values(rounded, once), rounded)


@pytest.mark.parametrize("bits", [5, 7, 12])
def test_variance_keeps_its_digits(bits):
    rng = np.random.default_rng(4)
    variance = (10.0 ** rng.uniform(-37, 37, 20_000)).astype(np.float32)
    error = round_variance(variance, bits).astype(float) / variance - 1.0
    assert np.abs(error).max() <= 2.0 ** -(bits + 1) * (1 + 1e-9)
    assert np.abs(error).max() > 0.9 * 2.0 ** -(bits + 1)
    assert abs(error.mean()) < 0.01 * 2.0 ** -(bits + 1) + 3 * error.std() / np.sqrt(error.size)


def test_all_digits_are_no_rounding():
    variance = np.array([1.1, 2.2], np.float32)
    np.testing.assert_array_equal(round_variance(variance, 23), variance)


def test_what_has_no_error_is_left_alone():
    values = np.array([1.23456, np.nan, np.inf, 1.23456, 1.23456, 1.23456], np.float32)
    variance = np.array([np.nan, 1.0, 1.0, 0.0, -1.0, np.inf], np.float32)
    np.testing.assert_array_equal(round_values(values, variance), values)
    np.testing.assert_array_equal(round_variance(variance), variance)


def test_bright_values_keep_all_their_digits():
    values = np.array([3.3e9, -7.7e8], np.float32)
    np.testing.assert_array_equal(round_values(values, np.ones(2)), values)


def test_image_is_rounded_and_says_so():
    rng = np.random.default_rng(5)
    mask = rng.random((20, 30)) < 0.1
    data = rng.normal(size=(20, 30)).astype(np.float32)
    data[mask] = np.nan
    variance = np.where(mask, -1.0, 2.0 + rng.random((20, 30))).astype(np.float32)
    image = Image(data, variance, mask, "nJy", tangent_wcs((20, 30)))
    rounded = quantise(image, 0.1)
    rounded.evolve()
    assert rounded.history[-1].name == "quantise"
    assert rounded.history[-1].parameters == {"quantum": 0.1, "variance_bits": 7}
    assert rounded.wcs is image.wcs
    np.testing.assert_array_equal(rounded.mask, image.mask)
    assert np.unique(rounded.data[image.valid]).size < 0.2 * np.count_nonzero(image.valid)
    assert np.abs(rounded.data - data)[image.valid].max() < 0.05 * np.sqrt(3.0)
    levels = image_levels(image, 3)
    for level, exact in zip(quantise_levels(levels), levels, strict=True):
        assert level.n_good is exact.n_good
        good = exact.subject.valid
        error = (level.subject.data - exact.subject.data)[good] / np.sqrt(exact.subject.variance[good])
        assert np.abs(error).max() < 0.051


def test_all_of_an_observation_is_rounded_and_nothing_else():
    rng = np.random.default_rng(6)
    wave = 4000.0 + 1.1 * np.arange(40)
    spectra = Spectra(
        rng.normal(3, 1, (1, 40)).astype(np.float32),
        np.ones((1, 40), np.float32),
        np.zeros((1, 40), bool),
        "1e-17 erg / (s cm2 AA)",
        wave,
        "vacuum",
        lsf=1.2345678,
    )
    level = Level(spectra, np.ones((1, 40), np.uint8))
    observation = Observation("a", "spectrum", {"s_ra": 1.23456789012345}, "CARD", (level, level), level)
    rounded = quantise_observation(observation, 0.1)
    for after in (rounded.native, *rounded.levels):
        steps = after.subject.data * 16
        np.testing.assert_array_equal(steps, np.rint(steps))
        assert after.subject.wave is spectra.wave
        assert after.subject.lsf == spectra.lsf
    assert rounded.columns == observation.columns
    assert quantise_observation(replace(observation, native=None)).native is None


def test_wrong_arguments_are_errors():
    with pytest.raises(ShapeError, match="shape"):
        round_values(np.ones(3), np.ones(4))
    with pytest.raises(InputError, match="quantum is 2"):
        round_values(np.ones(3), np.ones(3), 2)
    with pytest.raises(InputError, match="bits is 0"):
        round_variance(np.ones(3), 0)
