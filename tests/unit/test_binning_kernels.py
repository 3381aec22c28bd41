"""The loops of the binning against their naive twins."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.kernels.bins import exchange as bin_exchange
from skyloom.kernels.bins import plan as bin_plan
from skyloom.kernels.bins import repair as bin_repair
from skyloom.kernels.bins import voronoi_cells
from tests.inputs.binning import gaussian_correlation
from tests.oracles import binning as oracles_binning

WHITE = np.ones((1, 1))


@pytest.fixture
def cells(rng):
    """Three vertical stripes with a hole."""
    labels = np.repeat(np.arange(3), 4)[None, :].repeat(9, axis=0).astype(np.int32)
    labels[3:5, 5] = -1
    return labels


def padded(labels, signal, spread, pad):
    return (
        np.pad(labels, pad, constant_values=-1),
        np.pad(signal, pad),
        np.pad(spread, pad),
    )


@pytest.mark.parametrize("correlation", [WHITE, gaussian_correlation(0.6, 2)])
def test_bin_stats_are_sums_over_all_pairs(rng, cells, correlation):
    signal, variance = rng.normal(size=cells.shape), rng.uniform(0.5, 2, cells.shape)
    pad = max(1, correlation.shape[0] // 2)
    work, values, spread = padded(cells, signal, np.sqrt(variance), pad)
    stats = bin_exchange.bin_stats(work, values, spread, correlation, 3, pad)
    for label, (total, noise, n_pixels) in oracles_binning.bin_sums(
        signal, variance, cells, correlation
    ).items():
        np.testing.assert_allclose(stats[label, :3], [total, noise**2, n_pixels], rtol=1e-12)


@pytest.mark.parametrize("correlation", [WHITE, gaussian_correlation(0.6, 2)])
def test_exchanges_keep_the_sums_exact_the_bins_connected_and_the_floor(rng, correlation):
    truth = np.full((16, 16), 3.0)
    truth[6:10, 6:10] = 6.0
    variance = rng.uniform(0.8, 1.2, truth.shape)
    signal = truth + rng.normal(size=truth.shape) * np.sqrt(variance)
    y, x = np.indices(truth.shape)
    labels = ((y // 4) * 4 + x // 4).astype(np.int32)
    pad = max(1, correlation.shape[0] // 2)
    work, values, spread = padded(labels, signal, np.sqrt(variance), pad)
    planes = (values, spread, correlation)
    stats = bin_exchange.bin_stats(work, *planes, 16, pad)
    before = bin_exchange.content_of.py_func(stats[0, 0], stats[0, 1], 10.0)
    assert np.isfinite(before)
    content = stats[:, 0] ** 2 / stats[:, 1] / 100.0
    moved = bin_exchange.exchange_pixels(work, *planes, stats, np.zeros(16, dtype=np.int64), 10.0, 1.02, 1)
    assert moved > 0, "nothing was tested"
    after = bin_exchange.bin_stats(work, *planes, 16, pad)
    np.testing.assert_allclose(stats, after, rtol=1e-9, atol=1e-9)
    assert (after[content >= 1, 0] ** 2 / after[content >= 1, 1] / 100.0 >= 1 - 1e-12).all()
    inner = work[pad:-pad, pad:-pad]
    assert all(oracles_binning.connected_parts(inner == label) == 1 for label in range(16))
    assert np.std(after[:, 0] ** 2 / after[:, 1]) < np.std(content * 100.0), "the bins are not more even"


def test_a_pixel_that_holds_a_bin_together_stays(rng):
    """The rule from eight neighbours may forbid what would be harmless, never allow what is not."""
    allowed = 0
    for _ in range(200):
        labels = (rng.random((5, 5)) < 0.7).astype(np.int32)
        labels[2, 2] = 1
        member = labels == 1
        if oracles_binning.connected_parts(member) != 1 or member.sum() < 2:
            continue
        if bin_exchange.removable(np.pad(labels, 1, constant_values=-1), 3, 3):
            allowed += 1
            assert oracles_binning.stays_connected(labels, 2, 2)
    assert allowed > 20


def test_plan_density_equals_windows_written_out(rng):
    signal, variance = rng.normal(1.0, 1.0, (14, 17)), rng.uniform(0.5, 2, (14, 17))
    signal[5:8, 5:8] += 8
    free = rng.random((14, 17)) > 0.2
    signal[~free] = variance[~free] = 0.0
    halves = np.array([0, 1, 2, 3, 5])
    planned = bin_plan.plan_density(signal, variance, free, 5.0, WHITE, halves, 0.4)
    expected = oracles_binning.density(signal, variance, free, 5.0, halves, 0.4)
    np.testing.assert_allclose(planned, expected, rtol=1e-10)
    assert 0 < np.count_nonzero(planned) < free.sum()


@pytest.mark.parametrize("side", [1, 2, 5])
def test_inflation_of_a_square(side):
    rho = gaussian_correlation(0.6, 2)
    expected = oracles_binning.square_inflation(side, rho)
    assert bin_plan.square_inflation(float(side**2), rho) == pytest.approx(expected, rel=1e-12)


def test_cells_of_equal_weight(rng):
    rows, columns = (axis.ravel() for axis in np.indices((24, 31)))
    weight = np.exp(-np.hypot(rows - 12, columns - 15) / 8)
    starts = np.array([0, rows.size])
    cells, n_cells = bin_plan.bisect_cells(rows, columns, weight, starts, np.array([11]))
    assert n_cells == 11
    shares = np.bincount(cells, weight) / weight.sum()
    assert np.abs(shares * 11 - 1).max() < 0.25
    # Never more cells than pixels.
    few, n_few = bin_plan.bisect_cells(rows[:3], columns[:3], weight[:3], np.array([0, 3]), np.array([7]))
    assert n_few == 3
    assert sorted(few) == [0, 1, 2]


def test_assigned_cells_are_the_nearest_at_rest(rng, cells):
    generators = np.array([[2.0, 1.0, 4.0], [6.0, 6.0, 9.0], [4.0, 10.0, 2.0]])
    for _ in range(30):
        if voronoi_cells.assign_cells(cells, generators, 1) == 0:
            break
    assert voronoi_cells.assign_cells(cells, generators, 1) == 0
    assert (cells[3:5, 5] == -1).all()
    for y, x in np.argwhere(cells >= 0):
        _, least = oracles_binning.nearest_cell(cells, generators, y, x)
        own = generators[cells[y, x]]
        assert ((y - own[0]) ** 2 + (x - own[1]) ** 2) / own[2] == pytest.approx(least)


def test_pieces_are_numbered_apart(rng):
    labels = rng.integers(-1, 3, (12, 13)).astype(np.int32)
    pieces, n_pieces = voronoi_cells.label_pieces(labels)
    assert ((pieces >= 0) == (labels >= 0)).all()
    expected = sum(oracles_binning.connected_parts(labels == label) for label in range(3))
    assert n_pieces == expected == pieces.max() + 1
    for piece in range(n_pieces):
        assert oracles_binning.connected_parts(pieces == piece) == 1
        assert np.unique(labels[pieces == piece]).size == 1


def test_fragments_join_a_neighbour(cells):
    cells[0, 11] = 0  # An island of the first stripe in the last.
    generators = np.array([[4.0, 1.5, 11.0], [4.0, 5.5, 11.0], [4.0, 9.5, 11.0]])
    assert voronoi_cells.join_fragments(cells, generators) == 1
    assert cells[0, 11] == 2


def test_loose_pixels_that_nobody_may_take_keep_their_label(cells):
    generators = np.array([[4.0, 1.5, 11.0], [4.0, 5.5, 11.0], [4.0, 9.5, 11.0]])
    loose = cells == 1
    left = voronoi_cells.settle_pixels(cells, loose, generators, np.array([True, False, True]), 2)
    assert left == loose.sum()
    assert (cells[loose] == 1).all()
    assert voronoi_cells.settle_pixels(cells, loose, generators, np.array([True, False, False]), 2) == 0
    assert (cells[loose] == 2).all()


def merge(signal, labels, target=10.0):
    work, values, spread = padded(labels, signal, np.ones(signal.shape), 1)
    n_bins = labels.max() + 1
    stats = bin_exchange.bin_stats(work, values, spread, WHITE, n_bins, 1)
    kind = np.zeros(n_bins, dtype=np.int64)
    places = np.zeros(n_bins, dtype=np.int64)
    flat = work.ravel()
    places[flat[flat >= 0]] = np.flatnonzero(flat >= 0)
    order = np.argsort(stats[:, 0] / np.sqrt(stats[:, 1]))
    bin_repair.merge_bins(work, values, spread, WHITE, stats, kind, places, order, target, 1.0)
    return work[1:-1, 1:-1], kind


def test_a_poor_bin_joins_the_neighbour_with_least_to_spare():
    merged, kind = merge(np.array([[40.0, 5.0, 12.0]]), np.array([[0, 1, 2]], dtype=np.int32))
    assert merged.tolist() == [[0, 2, 2]]
    assert (kind == 0).all()


def test_a_bin_that_would_spoil_its_neighbours_remains():
    merged, kind = merge(np.array([[11.0, -20.0, 12.0]]), np.array([[0, 1, 2]], dtype=np.int32))
    assert merged.tolist() == [[0, 1, 2]]
    assert kind.tolist() == [bin_exchange.FREE, bin_exchange.REMAINDER, bin_exchange.FREE]
