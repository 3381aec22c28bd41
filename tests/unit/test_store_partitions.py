"""The cells under which observations are filed: as much in each as the target says, whatever their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.errors import InputError, ShapeError
from skyloom.store.ingest.partitions import partition_tree
from skyloom.store.schema import POSITION_ORDER
from skyloom.store.search.cells import healpix_of


def naive_tree(healpix, size, target, max_order):
    """The same by recursion, one cell after the other."""
    result = {}

    def visit(order, cell, members):
        """Return the members that wait for a larger cell."""
        if order == max_order:
            return members
        waiting = []
        for child in range(4 * cell, 4 * cell + 4):
            inside = [number for number in members if healpix[number] >> 2 * (29 - order - 1) == child]
            rest = visit(order + 1, child, inside) if inside else []
            waiting.append((child, rest))
        total = sum(size[number] for _, rest in waiting for number in rest)
        while total > target:
            child, rest = max(waiting, key=lambda pair: (sum(size[number] for number in pair[1]), -pair[0]))
            waiting.remove((child, rest))
            total -= sum(size[number] for number in rest)
            result.update(dict.fromkeys(rest, (order + 1, child)))
        return [number for _, rest in waiting for number in rest]

    for base in range(12):
        members = [
            number for number in range(len(healpix)) if healpix[number] >= 0 and healpix[number] >> 58 == base
        ]
        result.update(dict.fromkeys(visit(0, base, members), (0, base)))
    return [result.get(number, (-1, -1)) for number in range(len(healpix))]


def clustered(rng, n):
    """Positions of which many lie close together, as those of surveys do."""
    centres = rng.uniform((0, -80), (360, 80), (6, 2))
    spread = 10 ** rng.uniform(-2.5, 1, 6)
    chosen = rng.integers(6, size=n)
    places = centres[chosen] + rng.normal(size=(n, 2)) * spread[chosen, None]
    return healpix_of(places[:, 0], np.clip(places[:, 1], -89, 89))


@given(
    seed=st.integers(0, 10_000), n=st.integers(1, 60), max_order=st.integers(0, 8), target=st.integers(1, 300)
)
@settings(max_examples=60, deadline=None)
def test_as_by_recursion(seed, n, max_order, target):
    rng = np.random.default_rng(seed)
    healpix, size = clustered(rng, n), rng.integers(1, 50, n)
    healpix[rng.random(n) < 0.05] = -1
    order, cell = partition_tree(healpix, size, target, max_order)
    found = list(zip(order.tolist(), cell.tolist(), strict=True))
    assert found == naive_tree(healpix.tolist(), size.tolist(), target, max_order)


def test_sizes_lie_between_a_quarter_of_the_target_and_the_target(rng):
    healpix, size, target = clustered(rng, 20_000), rng.integers(1, 1000, 20_000), 50_000
    order, cell = partition_tree(healpix, size, target)
    # Every observation is in the cell that it is filed under.
    np.testing.assert_array_equal(healpix >> 2 * (POSITION_ORDER - order.astype(int)), cell)
    keys, own = np.unique(np.stack([order, cell]), axis=1, return_inverse=True)
    held = np.bincount(own.ravel(), size)
    finest, coarsest = keys[0] == 12, keys[0] == 0
    assert (held[~finest] <= target).all()
    assert (held[~coarsest] > target / 4).all()
    # Not more partitions than that: what is dense is in fine cells, what is sparse in coarse ones.
    assert held.size < 4 * size.sum() / target + 12
    assert len(set(keys[0].tolist())) > 3


def test_order_of_the_observations_does_not_matter(rng):
    healpix, size = clustered(rng, 500), rng.integers(1, 1000, 500)
    order, cell = partition_tree(healpix, size, 20_000)
    shuffled = rng.permutation(500)
    again = partition_tree(healpix[shuffled], size[shuffled], 20_000)
    np.testing.assert_array_equal(again[0], order[shuffled])
    np.testing.assert_array_equal(again[1], cell[shuffled])


def test_without_positions_and_at_the_edges():
    order, cell = partition_tree([-1, 5, -1], [10, 10, 10], 100)
    assert order.tolist() == [-1, 0, -1]
    assert cell.tolist() == [-1, 0, -1]
    assert partition_tree([], [], 10)[0].shape == (0,)
    # What cannot be divided further is more than the target.
    assert partition_tree([7, 7, 7], [10, 10, 10], 5, 3)[0].tolist() == [3, 3, 3]
    with pytest.raises(ShapeError, match=r"expected \(2,\)"):
        partition_tree([1, 2], [1], 10)
    with pytest.raises(InputError, match="target is 0"):
        partition_tree([1], [1], 0)
    with pytest.raises(InputError, match="max_order is 30"):
        partition_tree([1], [1], 1, 30)
