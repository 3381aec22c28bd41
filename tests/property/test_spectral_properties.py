"""What holds for any spectra: flux is conserved, what lies under a mask does not matter, scale is only scale."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands, weighted_sum_variance
from skyloom.spectral.axes.extinction import deredden
from skyloom.spectral.axes.grids import overlap, pixel_edges
from skyloom.spectral.axes.resample import resample
from skyloom.spectral.axes.rest_frame import to_rest_frame

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def axes(draw):
    """Linear, logarithmic and uneven axes, of 4 to 60 channels of 0.3 to 5 A."""
    n = draw(st.integers(4, 60))
    start = draw(st.floats(3500, 9000))
    kind = draw(st.sampled_from(["linear", "log", "uneven"]))
    step = draw(st.floats(0.3, 5.0))
    if kind == "linear":
        return start + step * np.arange(n)
    if kind == "log":
        return start * np.exp(step / start * np.arange(n))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return start + np.cumsum(rng.uniform(0.3, 5.0, n))


@st.composite
def spectra(draw, dtype=np.float64):
    wave = draw(axes())
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shape = (draw(st.integers(1, 3)), wave.size)
    mask = rng.random(shape) < draw(st.sampled_from([0.0, 0.05, 0.3]))
    lags = draw(st.sampled_from([None, np.array([0.3, 1.0, 0.3]), np.array([0.05, 0.4, 1.0, 0.4, 0.05])]))
    return Spectra(
        rng.normal(2, 1, shape).astype(dtype), rng.uniform(0.5, 2, shape).astype(dtype), mask,
        "1e-20 erg/(s cm2 AA)", wave, "air", lsf=1.2, correlation=lags,
    )  # fmt: skip


@given(axes(), axes())
@SETTINGS
def test_shares_of_a_whole_pixel_add_up_to_one(source, target):
    target = target - target[0] + source[0]
    shares = overlap(pixel_edges(source), pixel_edges(target))
    totals = shares.weights.sum(axis=1)
    np.testing.assert_allclose(totals[shares.complete], 1.0, rtol=1e-12)
    assert not totals[~shares.complete].any()
    assert (shares.weights >= 0).all()
    assert (shares.first >= 0).all()
    assert (shares.first + shares.weights.shape[1] <= source.size).all()


@given(spectra(), st.floats(0.3, 6.0))
@SETTINGS
def test_flux_is_conserved(subject, step):
    clean = subject.evolve(mask=np.zeros_like(subject.mask))
    edges = pixel_edges(clean.wave)
    target = np.linspace(edges[0], edges[-1], max(3, int((edges[-1] - edges[0]) / step)))
    result = resample(clean, 0.5 * (target[1:] + target[:-1]))
    assert result.valid.all()
    before = np.sum(clean.data * np.diff(edges), axis=1)
    after = np.sum(result.data * np.diff(pixel_edges(result.wave)), axis=1)
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6 * np.abs(before).max())


@given(spectra(np.float32), st.floats(0.4, 4.0), st.floats(-0.5, 3.0))
@SETTINGS
def test_what_lies_under_the_mask_does_not_matter(subject, step, redshift):
    def chain(item):
        return resample(deredden(to_rest_frame(item, redshift), av=0.3), step=step / (1 + redshift))

    data, variance = subject.data.copy(), subject.variance.copy()
    data[subject.mask], variance[subject.mask] = np.nan, -np.inf
    edges = pixel_edges(subject.wave)
    assume(edges[-1] - edges[0] > 4 * step)
    first, second = chain(subject), chain(subject.evolve(data=data, variance=variance))
    np.testing.assert_array_equal(first.mask, second.mask)
    valid = first.valid
    np.testing.assert_array_equal(first.data[valid], second.data[valid])
    np.testing.assert_array_equal(first.variance[valid], second.variance[valid])


@given(spectra(), st.floats(0.01, 100.0))
@SETTINGS
def test_scale_is_only_scale(subject, factor):
    scaled = subject.evolve(data=subject.data * factor, variance=subject.variance * factor**2)
    grid = subject.wave[0] + 0.5 * np.arange(6)
    first, second = (resample(to_rest_frame(item, 0.1), grid / 1.1) for item in (subject, scaled))
    valid = first.valid
    np.testing.assert_allclose(second.data[valid], first.data[valid] * factor, rtol=1e-9)
    np.testing.assert_allclose(second.variance[valid], first.variance[valid] * factor**2, rtol=1e-9)


@given(spectra(), st.floats(-0.9, 8.0))
@SETTINGS
def test_a_redshift_and_its_inverse_are_nothing(subject, redshift):
    there = to_rest_frame(subject, redshift)
    back = to_rest_frame(there.evolve(meta={}), 1 / (1 + redshift) - 1)
    np.testing.assert_allclose(back.wave, subject.wave, rtol=1e-13)
    np.testing.assert_allclose(back.data, subject.data, rtol=1e-12)
    np.testing.assert_allclose(back.variance, subject.variance, rtol=1e-12)


@given(spectra(), st.integers(1, 60), st.integers(0, 59))
@SETTINGS
def test_the_variance_of_a_sum_grows_with_the_square_of_its_weights(subject, width, start):
    weights = np.zeros(subject.wave.size)
    weights[start : start + width] = 1.0
    single = weighted_sum_variance(subject.variance, weights, subject.correlation)
    assert (single >= 0).all()
    triple = weighted_sum_variance(subject.variance, 3 * weights, subject.correlation)
    np.testing.assert_allclose(triple, 9 * single, rtol=1e-12)
    bands = lag_bands(subject.correlation, subject.wave.size)
    same = weighted_sum_variance(subject.variance, weights, bands)
    np.testing.assert_allclose(same, single, rtol=1e-12)
