"""What must hold for any field, mask, noise and target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inputs.binning import gaussian_correlation
from tests.unit.test_binning import check_promises

from skyloom.spectral.bins.binning import METHODS, bin_to_snr

FIELDS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "shape": st.tuples(st.integers(1, 30), st.integers(1, 30)),
        "level": st.floats(-1.0, 15.0),
        "masked": st.floats(0.0, 0.6),
        "target": st.floats(1.0, 30.0),
        "sigma": st.sampled_from([0.0, 0.6]),
        "method": st.sampled_from(METHODS),
    }
)
SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


def make(field):
    generator = np.random.default_rng(field["seed"])
    y, x = np.indices(field["shape"])
    truth = field["level"] * np.exp(
        -np.hypot(y - generator.uniform(0, 30), x - generator.uniform(0, 30)) / 10
    )
    variance = generator.uniform(0.3, 2.0, field["shape"])
    signal = truth + generator.normal(size=truth.shape) * np.sqrt(variance)
    mask = generator.random(truth.shape) < field["masked"]
    mask.flat[generator.integers(mask.size)] = False
    rho = gaussian_correlation(field["sigma"], 2) if field["sigma"] else None
    return signal, variance, mask, rho


def run(field, signal, variance, mask, rho):
    return bin_to_snr(signal, variance, field["target"], field["method"], mask=mask, correlation=rho)


@SETTINGS
@given(FIELDS)
def test_bins_partition_the_valid_pixels_and_keep_the_floor(field):
    signal, variance, mask, rho = make(field)
    labels = run(field, signal, variance, mask, rho)
    check_promises(signal, variance, ~mask, labels, field["target"], rho)


@SETTINGS
@given(FIELDS, st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30]))
def test_garbage_under_the_mask_changes_nothing(field, garbage):
    signal, variance, mask, rho = make(field)
    expected = run(field, signal, variance, mask, rho)
    other = run(field, np.where(mask, garbage, signal), np.where(mask, garbage, variance), mask, rho)
    assert np.array_equal(expected, other)


@SETTINGS
@given(FIELDS)
def test_inputs_are_not_changed(field):
    inputs = make(field)
    copies = [None if each is None else each.copy() for each in inputs]
    for each in inputs:
        if each is not None:
            each.flags.writeable = False
    run(field, *inputs)
    for each, copy in zip(inputs, copies, strict=True):
        np.testing.assert_equal(each, copy)


@SETTINGS
@given(FIELDS, st.integers(-40, 40))
def test_the_unit_does_not_matter(field, power):
    """By powers of two, for which rounding is the same."""
    signal, variance, mask, rho = make(field)
    factor = 2.0**power
    scaled = run(field, signal * factor, variance * factor**2, mask, rho)
    assert np.array_equal(scaled, run(field, signal, variance, mask, rho))


@SETTINGS
@given(FIELDS)
@pytest.mark.parametrize("turn", [np.transpose, np.flipud, np.fliplr])
def test_turned_fields_keep_the_floor(turn, field):
    signal, variance, mask, rho = make(field)
    turned = [np.ascontiguousarray(turn(plane)) for plane in (signal, variance, mask)]
    labels = run(field, *turned, None if rho is None else np.ascontiguousarray(turn(rho)))
    check_promises(turned[0], turned[1], ~turned[2], labels, field["target"], rho)
