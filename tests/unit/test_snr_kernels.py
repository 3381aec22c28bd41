"""The kernels of line S/N against dense naive twins."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.kernels.signal import scatter
from skyloom.kernels.signal import weights as kernel
from skyloom.kernels.signal.windows import measure_functional
from tests.oracles import snr as naive

N, M = 60, 600
EDGES = np.concatenate([[0.0], np.cumsum(np.linspace(1.0, 1.5, N))]) + 6500.0
LINE = np.array([[6530.3, 6541.9]])
SIDES = np.array([[6506.2, 6522.7], [6548.1, 6549.0], [6551.3, 6568.8]])
CENTRES = np.array([6534.0, 6538.4, 6545.0])
WANTED = np.array([1.0, 1.0, 0.0])
OWNER = np.arange(3)
SIGMA = np.array([1.3, 1.3, 1.9])
LIMITS = np.array([0.5, 0.4])


def planes(rng, dtype=np.float32, masked=0.03):
    data = rng.normal(size=(N, M)).astype(dtype)
    variance = rng.uniform(0.5, 2.0, (N, M)).astype(dtype)
    mask = rng.random((N, M)) < masked
    mask[:, 300:] = False
    data[mask], variance[mask] = np.nan, -1.0
    lags = np.zeros((N, 5))
    lags[:] = [0.1, 0.4, 1.0, 0.4, 0.1]
    return data, variance, mask, lags


def run(
    data, variance, mask, lags, *, matched, degree, stretch, sigma, opened=None, limits=LIMITS, scale=None
):
    common = np.linspace(1.0, 2.0, N)
    out = np.empty(M), np.empty(M), np.empty(M), np.empty(M, np.int8)
    measure_functional(
        data, variance, mask, np.ones(N, bool) if opened is None else opened,
        np.ones(N) if scale is None else scale, lags, EDGES, common, stretch, sigma, CENTRES, WANTED, OWNER, LINE,
        SIDES, matched, degree, limits, 0, M, *out,
    )  # fmt: skip
    return (*out, common)


@pytest.mark.parametrize("matched", [False, True])
@pytest.mark.parametrize("degree", [0, 1])
@pytest.mark.parametrize("alike", [False, True])
def test_functional_is_the_naive_one(matched, degree, alike, rng):
    data, variance, mask, lags = planes(rng)
    opened = np.ones(N, bool)
    opened[[12, 47]] = False
    scale = rng.uniform(0.8, 1.2, N)
    stretch = np.ones(1) if alike else 1.0 + rng.uniform(-4e-4, 4e-4, M)
    sigma = SIGMA[np.newaxis] if alike else SIGMA * rng.uniform(0.8, 1.2, (M, 1))
    signal, noise, coverage, status, common = run(
        data, variance, mask, lags, matched=matched, degree=degree, stretch=stretch, sigma=sigma, opened=opened,
        scale=scale,
    )  # fmt: skip
    measured = 0
    for q in range(0, M, 7):
        if status[q] != kernel.MEASURED:
            continue
        measured += 1
        k = 0 if alike else q
        usable = opened & ~mask[:, q]
        weights, share = naive.line_weights(
            usable, EDGES, common, stretch[k], sigma[k], CENTRES, WANTED, LINE, SIDES, matched, degree
        )
        seen = weights != 0
        # The compiled profile ends at 5 sigma, where 6e-7 of it is left.
        np.testing.assert_allclose(coverage[q], share, atol=3e-6)
        expected = weights[seen] @ data[seen, q] if not np.isnan(data[seen, q]).any() else np.nan
        np.testing.assert_allclose(signal[q], expected, rtol=0, atol=3e-5)
        spread = np.where(usable, variance[:, q] * scale, 0.0)
        np.testing.assert_allclose(noise[q], weights @ naive.covariance(spread, lags) @ weights, rtol=3e-5)
    assert measured > 60


def test_without_numba_the_same(rng):
    """The kernel as plain Python gives the numbers of the compiled one."""
    data, variance, mask, lags = planes(rng)
    compiled = run(
        data, variance, mask, lags, matched=True, degree=1, stretch=np.ones(1), sigma=SIGMA[np.newaxis]
    )
    weights, shares = np.zeros(N), np.zeros((3, N))
    status, coverage = kernel.line_weights.py_func(
        weights, ~mask[:, 5], EDGES, compiled[4], 1.0, SIGMA, CENTRES, WANTED, OWNER, LINE, SIDES, True, 1,
        LIMITS, shares,
    )  # fmt: skip
    assert status == compiled[3][5]
    assert coverage == pytest.approx(compiled[2][5])
    used = weights != 0
    assert weights[used] @ data[used, 5] == pytest.approx(compiled[0][5])


def test_tied_lines_are_one_profile():
    """Two lines of the same flux as one unknown: their sum, with less noise than two unknowns have."""
    light = np.array([naive.shares(EDGES, c, s) for c, s in zip(CENTRES, SIGMA, strict=True)])
    spectrum = 5.0 * (light[0] + light[1]) / np.diff(EDGES) + 2.0
    found = []
    for wanted, owner in ((WANTED, OWNER), (np.array([1.0, 0.0, 0.0]), np.array([0, 0, 2]))):
        weights = np.zeros(N)
        status, coverage = kernel.line_weights(
            weights, np.ones(N, bool), EDGES, np.ones(N), 1.0, SIGMA, CENTRES, wanted, owner, LINE, SIDES, True, 1,
            LIMITS, np.zeros((3, N)),
        )  # fmt: skip
        assert status == kernel.MEASURED
        assert coverage == pytest.approx(1.0, abs=1e-5)
        assert weights @ spectrum == pytest.approx(10.0, rel=1e-5)
        found.append(weights @ weights)
    assert found[1] < found[0]


def test_statuses(rng):
    data, variance, mask, lags = planes(rng, masked=0.0)
    mask[:] = False
    mask[20:40, 0] = True  # the line
    mask[:20, 1] = True  # the continuum below
    mask[:, 2] = True
    stretch = np.ones(M)
    stretch[3], stretch[4] = 1.05, np.nan
    *_, status, _ = run(
        data, variance, mask, lags, matched=False, degree=1, stretch=stretch, sigma=np.tile(SIGMA, (M, 1))
    )
    assert status[:6].tolist() == [
        kernel.UNSEEN_LINE,
        kernel.FEW_CONTINUUM,
        kernel.UNSEEN_LINE,
        kernel.OUTSIDE,
        kernel.OUTSIDE,
        kernel.MEASURED,
    ]


@pytest.mark.parametrize("wave", [6499.0, 6500.0, 6510.1, 6574.9, 6575.0, 7000.0])
def test_first_channel_is_a_search(wave):
    expected = np.clip(np.searchsorted(EDGES, wave, "right") - 1, 0, N)
    assert kernel.first_channel(EDGES, wave) == expected


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_scatter_is_the_naive_one(degree, rng):
    data, variance, mask, lags = planes(rng)
    common, scale = np.linspace(1.0, 2.0, N), rng.uniform(0.8, 1.2, N)
    out = tuple(np.empty(M) for _ in range(4))
    scatter.measure_scatter(
        data, variance, mask, np.ones(N, bool), scale, lags, EDGES, common, np.array([1.0001]), SIDES, degree, 0.5,
        0, M, *out,
    )  # fmt: skip
    for q in range(0, M, 11):
        usable = ~mask[:, q]
        values, spread = np.where(usable, data[:, q], 0.0), np.where(usable, variance[:, q] * scale, 0.0)
        expected = naive.scatter(values, spread, usable, lags, EDGES, common, SIDES * 1.0001, degree)
        np.testing.assert_allclose([plane[q] for plane in out], expected, rtol=1e-9)


def test_scatter_needs_channels(rng):
    data, variance, mask, lags = planes(rng)
    mask[:, 0] = True
    out = tuple(np.empty(M) for _ in range(4))
    scatter.measure_scatter(
        data, variance, mask, np.ones(N, bool), np.ones(N), lags, EDGES, np.ones(N), np.array([1.0]), SIDES, 1, 0.5,
        0, M, *out,
    )  # fmt: skip
    assert out[3][0] == 0
    assert (out[3][300:] > 25).all()


def test_peak_is_the_naive_one(rng):
    data, _, mask, _ = planes(rng)
    out = tuple(np.empty(M) for _ in range(3))
    centre = rng.integers(20, 40, M)
    centre[1] = -1
    scatter.measure_peak(data, mask, np.ones(N, bool), centre, 5, 8, 19, np.array([0.5, 0.5]), 0, M, *out)
    assert out[2][1] == 0
    for q in range(2, M, 13):
        np.testing.assert_allclose(
            [out[0][q], out[1][q]],
            naive.peak(data[:, q].astype(float), ~mask[:, q], centre[q], 5, 8, 19),
            rtol=1e-10,
        )
