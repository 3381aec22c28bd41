"""Room on the disk: an existing cube database reserves 49.5 GB at the start, and takes 4.3 times its input."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import skyloom as sl
from skyloom.core.image import Image
from tests.inputs.store import small_wcs

SIDE = 384
LEVELS = 5


def noise(seed: int) -> Image:
    """A frame of sky, noise and a star, with errors that follow from its counts."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    star = 4000.0 * np.exp(-0.5 * ((x - 100.0) ** 2 + (y - 200.0) ** 2) / 4.0)
    variance = (140.0 + star) / 4.7 + 1.3
    data = star + generator.normal(0.0, np.sqrt(variance))
    mask = np.zeros((SIDE, SIDE), bool)
    planes = data.astype(np.float32), variance.astype(np.float32)
    wcs = small_wcs(10.0 + 5 * seed, -5.0, (SIDE, SIDE))
    return Image(*planes, mask, "nmgy", wcs, meta={"band": "r"})


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_an_empty_store_takes_no_room(tmp_path: Path) -> None:
    """With the settings by default, and after an ingest of which nothing could be stored."""
    store = sl.store.create(tmp_path / "store")
    assert size(tmp_path / "store") < 10_000
    bad = tmp_path / "bad.fits"
    bad.write_text("none")
    assert len(store.ingest([bad]).failures) == 1
    assert size(tmp_path / "store") < 100_000


def test_a_store_is_smaller_than_its_arrays_and_grows_with_them_alone(tmp_path: Path) -> None:
    """Values and errors at all resolutions, as float32, are what has to be kept."""
    for number in range(3):
        sl.write(noise(number), tmp_path / f"frame{number}.fits")
    store = sl.store.create(tmp_path / "store", levels=LEVELS)
    arrays = sum(2 * 4 * (SIDE >> level) ** 2 for level in range(LEVELS))
    sizes = []
    for number in range(3):
        assert store.ingest([tmp_path / f"frame{number}.fits"]).failures == ()
        sizes.append(size(tmp_path / "store" / "partitions"))
    assert all(total < 0.9 * (number + 1) * arrays for number, total in enumerate(sizes))
    steps = np.diff([0, *sizes])
    np.testing.assert_allclose(steps, steps[0], rtol=0.02)
