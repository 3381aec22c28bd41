"""Defects measured in an existing cube database, each shown and each gone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import zoom

from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF
from skyloom.store.levels.cubes import cube_levels
from skyloom.store.levels.image_wcs import coarse_wcs
from skyloom.store.levels.images import image_levels
from tests.grids import tangent_wcs
from tests.unit.test_cube_pyramid import patchy_cube


def noise_image(shape=(512, 512), unit="nJy / arcsec2"):
    rng = np.random.default_rng(0)
    data = rng.normal(size=shape).astype(np.float32)
    return Image(data, np.ones_like(data), np.zeros(shape, bool), unit, tangent_wcs(shape, 0.396))


def test_sigma_divided_by_four_per_level():
    levels = image_levels(noise_image(), 5)
    for z, level in enumerate(levels):
        scatter = float(level.subject.data.std())
        claimed = float(np.sqrt(level.subject.variance.mean()))
        error = 3.0 / np.sqrt(2.0 * level.n_good.size)
        assert scatter / claimed == pytest.approx(1.0, abs=error)
        # What the rule of the existing pipeline claims for a mean of four.
        assert scatter / 0.25**z == pytest.approx(2.0**z, rel=error)


def test_cubic_resize_changes_the_flux_of_stars():
    shape = (64, 64)
    psf = GaussianPSF(0.9)
    wcs = tangent_wcs(shape, 0.396)
    worst = 0.0
    for offset in np.linspace(-0.5, 0.5, 5):
        star = np.zeros(shape)
        star[:63, :63] = psf.render(np.diag([-0.396, 0.396]), 63, (offset, 0.3))
        image = Image(star, np.ones(shape), np.zeros(shape, bool), "Jy", wcs)
        for level in image_levels(image, 4):
            assert level.subject.data.sum(dtype=float) == pytest.approx(1.0, rel=1e-6)
            # Sums of pixels have no negative lobes.
            assert level.subject.data.min() >= 0
        resized = 16.0 * zoom(star, 0.25, order=3, grid_mode=True, mode="nearest")
        worst = max(worst, abs(resized.sum() - 1.0))
    assert worst > 0.03


def test_low_resolution_wcs_is_not_crpix_over_two():
    wcs = tangent_wcs((1489, 2048), 0.396)
    for z, claimed in ((2, 0.6), (3, 1.4)):
        side = 2**z
        coarse = coarse_wcs(wcs, z)
        # The centre of a block is the mean of its pixels.
        x, y = 40 * side + (side - 1) / 2, 30 * side + (side - 1) / 2
        right = coarse.all_pix2world(40, 30, 0)
        np.testing.assert_allclose(right, wcs.all_pix2world(x, y, 0), rtol=0, atol=1e-3 / 3600)
        wrong = coarse.deepcopy()
        wrong.wcs.crpix = wcs.wcs.crpix / side
        offset = np.array(wrong.all_pix2world(40, 30, 0)) - right
        distance = 3600 * np.hypot(offset[0] * np.cos(np.radians(right[1])), offset[1])
        # In each coordinate (side - 1) / 2 pixels of level 0.
        assert distance == pytest.approx(np.sqrt(2) * 0.396 * (side - 1) / 2, rel=0.01)
        assert distance > claimed


def test_errors_of_coarse_cubes_are_not_copies_of_the_data():
    cube = patchy_cube()
    brighter = cube.evolve(data=np.where(cube.mask, np.nan, cube.data * 7 + 100).astype(np.float32))
    for level, other in zip(cube_levels(cube, 3), cube_levels(brighter, 3), strict=True):
        # Errors come from errors alone, whatever the data are.
        np.testing.assert_array_equal(level.subject.variance, other.subject.variance)
        good = level.subject.valid
        assert not np.allclose(level.subject.variance[good], level.subject.data[good], rtol=0.5)
