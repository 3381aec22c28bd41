"""The cells under which observations are filed: as much in each as the target says, whatever their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import skyloom as sl
from skyloom.cli import app
from skyloom.errors import InputError, ShapeError
from skyloom.io.fits import write
from skyloom.store.ingest.locate import locate
from skyloom.store.ingest.partitions import PACKED_BYTES, partition_tree
from skyloom.store.schema import POSITION_ORDER
from skyloom.store.search.cells import healpix_of
from tests.inputs.store import digests, small_image, small_spectrum


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


# --- stores -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A field with many images, and few on the rest of the sky; a spectrum in the field."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(3)
    places = np.concatenate(
        [(30, 10) + rng.normal(size=(24, 2)) * 0.2, rng.uniform((0, -60), (360, 60), (12, 2))]
    )
    paths = []
    for number, (ra, dec) in enumerate(places):
        paths.append(folder / f"image{number:02d}.fits")
        write(small_image(number, float(ra), float(dec)), paths[-1])
    paths.append(folder / "spectrum.fits")
    write(small_spectrum(1, *map(float, places[0])), paths[-1])
    return paths


def held(store):
    """Observations of each partition, by its order and cell."""
    counts = {}
    for part in store.manifest.parts:
        place = part.name.split("/")[1]
        counts[place] = counts.get(place, 0) + part.n
    return counts


def test_a_store_of_partitions_by_bytes(files, tmp_path):
    one = locate(files[0]).n_pixels * PACKED_BYTES
    fixed = sl.store.create(tmp_path / "fixed", levels=2)
    adaptive = sl.store.create(tmp_path / "adaptive", levels=2, adaptive_bytes=8 * one)
    fixed.ingest(files[:30])
    adaptive.ingest(files[:30])
    counts = held(adaptive)
    assert max(counts.values()) <= 8
    assert min(n for place, n in counts.items() if not place.startswith("0-")) >= 2
    orders = {int(place.partition("-")[0]) for place in counts}
    # Finer in the field, coarser elsewhere; fewer files than cells of one order make.
    assert max(orders) > 5
    assert min(orders) < 3
    assert len(counts) < len(held(fixed)) + 4
    assert max(held(fixed).values()) > 8
    # What is added lies in cells of its own, and leaves the rest as it is.
    before = {part.name: (adaptive.path / part.name).read_bytes() for part in adaptive.manifest.parts}
    fixed.ingest(files)
    adaptive.ingest(files[::-1])
    assert {name: (adaptive.path / name).read_bytes() for name in before} == before
    assert len(adaptive.manifest.parts) > len(before)
    # Nothing but the files differs.
    assert digests(adaptive.path) == digests(fixed.path)
    again = sl.store.open(adaptive.path)
    assert again.settings.adaptive_bytes == 8 * one
    for where in ({"cone": ((30.0, 10.0), 0.3)}, {"kind": "spectrum"}, {"box": (0, 200, -60, 0)}):
        names = [sorted(store.observations(**where)["obs_id"]) for store in (fixed, again)]
        assert names[0] == names[1]
        assert len(names[0]) > 0
    assert sorted(again.links("spectrum")["obs_id"]) == sorted(fixed.links("spectrum")["obs_id"])


def test_settings_of_stores_without_them_are_as_they_were(tmp_path):
    store = sl.store.create(tmp_path / "store")
    assert "adaptive_bytes" not in (store.path / "store.json").read_text()
    assert sl.store.open(store.path).settings.adaptive_bytes is None
    with pytest.raises(InputError, match="adaptive_bytes is 0"):
        sl.store.create(tmp_path / "other", adaptive_bytes=0)


@pytest.mark.parametrize(
    ("text", "value"), [("500MB", 500e6), ("2GiB", 2 << 30), ("15e3", 15000), ("64k", 64e3)]
)
def test_sizes_on_the_command_line(text, value, tmp_path):
    assert (
        CliRunner().invoke(app, ["store", "create", str(tmp_path / "sky"), "--adaptive", text]).exit_code == 0
    )
    assert sl.store.open(tmp_path / "sky").settings.adaptive_bytes == value


@pytest.mark.parametrize("text", ["much", "0", "-5MB", "1..2GB", "5XB"])
def test_what_is_no_size(text, tmp_path):
    result = CliRunner().invoke(app, ["store", "create", str(tmp_path / "sky"), f"--adaptive={text}"])
    assert result.exit_code == 2
    assert "is no size; write it as 500MB or 2GiB" in result.output


def test_a_number_that_lacks_its_unit(tmp_path):
    result = CliRunner().invoke(app, ["store", "create", str(tmp_path / "sky"), "--adaptive", "5"])
    assert result.exit_code == 2
    assert "'5' is too small for a file; write it as 500MB or 2GiB" in result.output
    assert not (tmp_path / "sky").exists()
