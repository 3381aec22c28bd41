"""Line S/N is linear, indifferent to what does not concern it, and keeps to units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inputs.snr import axis, cube_of, noise_cube

from skyloom.core.linelist import default_lines
from skyloom.spectral.signal.snr import line_snr

HALPHA = default_lines()["Halpha"].rest("air")
WAVE = axis(HALPHA)
SHAPE = (120, 4, 5)
METHODS = pytest.mark.parametrize("method", ["window", "matched"])
seeds = st.integers(0, 2**31)


def measured(data, variance, method, mask=None, velocity=40.0):
    return line_snr(cube_of(data, variance, WAVE, mask=mask), "Halpha", 0.0, method, velocity=velocity)


@METHODS
@settings(max_examples=15, deadline=None)
@given(seed=seeds, a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_signal_is_linear(method, seed, a, b):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    variance = rng.uniform(0.5, 2.0, SHAPE)
    mask = rng.random(SHAPE) < 0.01
    parts = [
        measured(each, variance, method, mask).signal for each in (first, second, a * first + b * second)
    ]
    good = parts[0].valid
    np.testing.assert_allclose(
        parts[2].data[good], a * parts[0].data[good] + b * parts[1].data[good], atol=2e-4
    )


@METHODS
@settings(max_examples=15, deadline=None)
@given(seed=seeds, power=st.integers(-60, 30))
def test_snr_knows_no_unit(method, seed, power):
    """erg or 1e-20 erg: float32 holds variances down to 1e-38, and the S/N is the same."""
    rng = np.random.default_rng(seed)
    data, variance = rng.normal(size=SHAPE), rng.uniform(0.5, 2.0, SHAPE)
    plain = measured(data, variance, method).snr.data
    np.testing.assert_allclose(
        measured(data * 2.0**power, variance * 4.0**power, method).snr.data, plain, rtol=1e-4, atol=1e-5
    )


@METHODS
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_spaxels_do_not_know_each_other(method, seed):
    """In another order, the same spaxels have the same S/N: with their own velocities and masks."""
    rng = np.random.default_rng(seed)
    data, variance = rng.normal(size=SHAPE), rng.uniform(0.5, 2.0, SHAPE)
    mask, velocity = rng.random(SHAPE) < 0.01, rng.uniform(-200, 200, SHAPE[1:])
    order = rng.permutation(20)

    def shuffled(planes):
        return planes.reshape(*planes.shape[:-2], 20)[..., order].reshape(planes.shape)

    first = measured(data, variance, method, mask, velocity).snr
    other = measured(*map(shuffled, (data, variance)), method, shuffled(mask), shuffled(velocity)).snr
    # the typical run of the variance is a median over spaxels, the same in any order
    np.testing.assert_allclose(other.data, shuffled(first.data), rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_channels_beyond_the_windows_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    cube = noise_cube(rng, SHAPE)
    windows = line_snr(cube, "Halpha", 0.0)
    low, high = windows.windows.span
    away = (cube.wave < low - 2) | (cube.wave > high + 2)
    data = cube.data.copy()
    data[away] = 1e5 * rng.normal(size=data[away].shape)
    np.testing.assert_array_equal(
        line_snr(cube.evolve(data=data), "Halpha", 0.0).signal.data, windows.signal.data
    )
