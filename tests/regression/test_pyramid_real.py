"""A real SDSS frame at every resolution: its noise, its light, its size on disk."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from skyloom.io.registry import read
from skyloom.store.files.filters import write_array
from skyloom.store.levels.images import image_levels
from skyloom.store.levels.quantise import quantise_levels

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def levels(data_dir):
    return image_levels(read(data_dir / "sdss_frames" / "frame-r-002820-3-0122.fits.bz2"), 5)


def stored_bytes(path, levels):
    with h5py.File(path, "w") as file:
        for z, level in enumerate(levels):
            group = file.create_group(str(z))
            planes = level.subject
            write_array(group, "flux", planes.data, "lz4")
            write_array(group, "variance", planes.variance, "lz4")
            write_array(group, "mask", planes.mask.view(np.uint8), "lz4")
            write_array(group, "n_good", level.n_good, "lz4")
    return path.stat().st_size


def test_size_on_disk(levels, tmp_path):
    pixels = sum(level.n_good.size for level in levels)
    flux_and_sigma = 2 * 4 * pixels
    assert stored_bytes(tmp_path / "lossless.h5", levels) < 0.65 * flux_and_sigma
    assert stored_bytes(tmp_path / "quantised.h5", quantise_levels(levels, 0.1)) < 0.30 * flux_and_sigma


def test_scatter_of_the_sky_is_the_claimed_one(levels):
    for z, limit in ((0, 0.05), (1, 0.06), (2, 0.10)):
        image = levels[z].subject
        values = image.data[image.valid]
        pulls = (values - np.median(values)) / np.sqrt(image.variance[image.valid])
        # Faint galaxies and the wings of stars add to the scatter, the more the larger the pixels.
        assert 1.4826 * np.median(np.abs(pulls)) == pytest.approx(1.0, abs=limit), z


def test_light_is_kept(levels):
    total = levels[0].subject.data[levels[0].subject.valid].sum(dtype=float)
    for z, level in enumerate(levels):
        good = level.subject.valid
        light = np.sum(level.subject.data[good].astype(float) * level.n_good[good] / 4.0**z)
        assert light == pytest.approx(total, rel=1e-7)


def test_rounding_is_below_three_per_cent_of_the_noise_without_bias(levels):
    for level, rounded in zip(levels, quantise_levels(levels, 0.1), strict=True):
        good = level.subject.valid
        error = (rounded.subject.data[good].astype(float) - level.subject.data[good]) / np.sqrt(
            level.subject.variance[good]
        )
        assert 0.014 < error.std() < 0.029
        # Data numbers are whole: the error is not quite uniform over a step.
        assert abs(error.mean()) < 2e-4 + 3 * error.std() / np.sqrt(error.size)


def test_pixels_lie_at_the_same_place(levels):
    image = levels[0].subject
    for z, level in enumerate(levels):
        side = 2**z
        centres = np.array([[10, 20], [40, 60], [92, 85]]) * 16 // side
        x, y = centres[:, 1], centres[:, 0]
        here = level.subject.wcs.all_pix2world(x, y, 0)
        middle = (side - 1) / 2
        there = image.wcs.all_pix2world(x * side + middle, y * side + middle, 0)
        offset = np.hypot((here[0] - there[0]) * np.cos(np.radians(there[1])), here[1] - there[1])
        assert offset.max() * 3600 < 1e-4
