"""Levels of images: values, errors, masks, flags, shared errors and units of blocks of pixels."""

from __future__ import annotations

import itertools

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.image import Flag, Image, Mode
from skyloom.core.noise import gaussian_correlation
from skyloom.errors import InputError
from skyloom.store.levels.image_noise import coarse_correlation, neighbour_lags
from skyloom.store.levels.images import image_levels
from tests.grids import tangent_wcs
from tests.oracles import pyramid as oracles

CORRELATION = gaussian_correlation(1.1)


def patchy_image(shape=(37, 50), unit="electron", correlation=None, masked=0.2, **fields):
    """An image with scattered bad pixels and a hole larger than a block, all of them filled with garbage."""
    rng = np.random.default_rng(4)
    mask = rng.random(shape) < masked
    if masked:
        mask[8:20, 8:24] = True
    data = rng.normal(100, 10, shape).astype(np.float32)
    variance = rng.uniform(1, 30, shape).astype(np.float32)
    data[mask] = rng.choice([np.nan, np.inf, -1e30], mask.sum())
    variance[mask] = rng.choice([np.nan, -1.0, 0.0, 1e30], mask.sum())
    return Image(data, variance, mask, unit, tangent_wcs(shape, 0.4), correlation=correlation, **fields)


@pytest.mark.parametrize("unit", ["electron", "electron / arcsec2"])
@pytest.mark.parametrize("correlation", [None, CORRELATION], ids=["white", "correlated"])
def test_levels_are_those_of_the_naive_loop(unit, correlation):
    image = patchy_image(unit=unit, correlation=correlation)
    levels = image_levels(image, 5)
    assert [level.subject.shape for level in levels] == [(37, 50), (19, 25), (10, 13), (5, 7)]
    area = 4.0 if unit == "electron" else 1.0
    for z, (fine, coarse) in enumerate(itertools.pairwise(levels)):
        rho = None
        if correlation is not None:
            rho = oracles.block_correlation(correlation, 2**z, 2) if z else correlation
        before = fine.subject
        data, variance, n_good = oracles.halved(
            before.data[None], before.variance[None], fine.n_good[None], rho, area
        )
        result = coarse.subject
        assert result.data.dtype == result.variance.dtype == np.float32
        np.testing.assert_array_equal(coarse.n_good, n_good[0])
        np.testing.assert_array_equal(result.mask, n_good[0] == 0)
        np.testing.assert_allclose(result.data, data[0], rtol=1e-6)
        np.testing.assert_allclose(result.variance, variance[0], rtol=1e-6)
        # What was not checked on the way holds: the constructor takes it.
        result.evolve()


def test_level_0_is_the_image_itself_in_single_precision():
    image = patchy_image()
    level = image_levels(image, 1)[0]
    assert level.subject is image
    np.testing.assert_array_equal(level.n_good, ~image.mask)
    double = image.evolve(data=image.data.astype(float), variance=image.variance.astype(float))
    single = image_levels(double, 1)[0].subject
    assert single.data.dtype == single.variance.dtype == np.float32
    np.testing.assert_array_equal(single.data[image.valid], image.data[image.valid])


def test_input_is_not_touched():
    image = patchy_image(flags=np.ones((37, 50), np.uint16))
    planes = [image.data, image.variance, image.mask, image.flags]
    before = [plane.copy() for plane in planes]
    image_levels(image, 4)
    for plane, copy in zip(planes, before, strict=True):
        np.testing.assert_array_equal(plane, copy)


@pytest.mark.parametrize("shape", [(64, 64), (37, 50), (33, 129)])
def test_flux_of_all_good_pixels_is_the_same_at_every_level(shape):
    image = patchy_image(shape)
    total = image.data[image.valid].sum(dtype=float)
    for z, level in enumerate(image_levels(image, 5)):
        share = level.n_good / 4.0**z
        good = level.subject.valid
        flux = np.sum(level.subject.data[good] * share[good])
        assert flux == pytest.approx(total, rel=1e-6)
        assert level.n_good.sum() == image.valid.sum()


def test_brightness_and_flux_are_the_same_light():
    flux = patchy_image(unit="nJy")
    area = flux.pixel_area
    brightness = flux.evolve(unit="nJy / arcsec2", data=flux.data / area, variance=flux.variance / area**2)
    for z, (first, second) in enumerate(zip(image_levels(flux, 4), image_levels(brightness, 4), strict=True)):
        pixel = area * 4.0**z
        good = first.subject.valid
        np.testing.assert_allclose(second.subject.data[good] * pixel, first.subject.data[good], rtol=1e-5)
        np.testing.assert_allclose(
            second.subject.variance[good] * pixel**2, first.subject.variance[good], rtol=1e-5
        )


def test_correlation_of_a_level_is_that_of_block_means():
    for z in (1, 2, 3):
        exact = oracles.block_correlation(CORRELATION, 2**z, 2)
        kept = coarse_correlation(CORRELATION, z)
        radius = kept.shape[0] // 2
        cut = exact[2 - radius : 3 + radius, 2 - radius : 3 + radius]
        np.testing.assert_allclose(kept, cut, atol=1e-9)
        assert np.abs(kept).sum() > 0.99 * np.abs(exact).sum()
        near = exact[2, 3], exact[3, 2], exact[3, 3], exact[3, 1]
        np.testing.assert_allclose(neighbour_lags(CORRELATION, z), near, atol=1e-9)
    assert coarse_correlation(None, 3) is None
    assert coarse_correlation(np.ones((1, 1)), 3) is None


def test_lopsided_correlation_keeps_its_sides():
    rho = np.zeros((3, 3))
    rho[1] = 0.3, 1.0, 0.3
    rho[0, 0] = rho[2, 2] = 0.1
    np.testing.assert_allclose(neighbour_lags(rho, 0), [0.3, 0.0, 0.1, 0.0])
    image = patchy_image((8, 8), correlation=rho, masked=0.0)
    expected = oracles.halved(image.data[None], image.variance[None], np.ones((1, 8, 8), int), rho, 4.0)[1][0]
    np.testing.assert_allclose(image_levels(image, 2)[1].subject.variance, expected, rtol=1e-6)


def test_measured_correlation_that_is_none_leaves_variances_positive():
    rho = np.zeros((3, 3))
    rho[1], rho[:, 1] = (0.6, 1.0, 0.6), (-0.6, 1.0, -0.6)
    rho[0, 0] = rho[2, 2] = rho[0, 2] = rho[2, 0] = 0.2
    along_x, along_y, down, up = neighbour_lags(rho, 0)
    block = np.eye(4)
    block[0, 1] = block[2, 3] = along_x
    block[0, 2] = block[1, 3] = along_y
    block[0, 3], block[1, 2] = down, up
    assert np.linalg.eigvalsh(block, UPLO="U")[0] > 0
    assert 0 < along_x < 0.6
    assert along_y == -along_x


def test_correlation_that_leaves_no_noise_is_an_error():
    rho = np.full((3, 3), -0.4)
    rho[1, 1] = 1.0
    with pytest.raises(InputError, match="sum is > 0"):
        image_levels(patchy_image((16, 16), correlation=rho, masked=0.0), 2)


def test_flags_of_good_pixels_are_collected():
    image = patchy_image((8, 8), masked=0.0, flags=np.zeros((8, 8), np.uint16))
    image.flags[0, 0], image.flags[1, 1], image.flags[4, 4] = Flag.NEGATIVE, Flag.INTERPOLATED, Flag.NEGATIVE
    mask = np.zeros((8, 8), bool)
    mask[4, 4] = True
    flags = image_levels(image.evolve(mask=mask), 2)[1].subject.flags
    expected = np.zeros((4, 4), np.uint16)
    expected[0, 0] = Flag.NEGATIVE | Flag.INTERPOLATED
    np.testing.assert_array_equal(flags, expected)


@pytest.mark.parametrize(("unit", "factor"), [("electron", 4.0), ("electron / arcsec2", 1.0)])
def test_shared_errors_are_averaged_like_values(unit, factor):
    image = patchy_image(unit=unit)
    pattern = np.where(image.mask, 0.0, image.data)
    modes = (Mode("sky", 1.0, 0.1), Mode("slope", pattern, 0.02))
    levels = image_levels(image.evolve(modes=modes), 3)
    for z, level in enumerate(levels):
        sky, slope = level.subject.modes
        assert sky == ("sky", factor**z, 0.1)
        good = level.subject.valid
        np.testing.assert_allclose(slope.map[good], level.subject.data[good], rtol=1e-5)


def test_wholly_masked_image_stays_masked():
    image = patchy_image((9, 9)).evolve(mask=np.ones((9, 9), bool))
    for level in image_levels(image, 2):
        assert level.subject.mask.all()
        assert not level.n_good.any()


@pytest.mark.parametrize(
    ("shape", "made"), [((4, 4), 1), ((7, 7), 2), ((6, 60), 1), ((33, 33), 4), ((1, 9), 1)]
)
def test_no_level_has_fewer_than_four_pixels_on_a_side(shape, made):
    levels = image_levels(patchy_image(shape, masked=0.0), 5)
    assert len(levels) == made


def test_variances_beyond_single_precision_move_into_the_unit():
    image = patchy_image((16, 16), masked=0.1, modes=(Mode("sky", 1.0, 0.1),))
    tiny = image.evolve(
        unit="erg / (s cm2 AA)",
        data=image.data.astype(float) * 1e-21,
        variance=image.variance.astype(float) * 1e-42,
        modes=(Mode("sky", 1.0, 1e-22),),
    )
    for level, usual in zip(image_levels(tiny, 3), image_levels(image, 3), strict=True):
        result, good = level.subject, usual.subject.valid
        to_tiny = result.unit.to(tiny.unit) * 1e21
        np.testing.assert_allclose(result.data[good] * to_tiny, usual.subject.data[good], rtol=1e-6)
        np.testing.assert_allclose(
            result.variance[good] * to_tiny**2, usual.subject.variance[good], rtol=1e-6
        )
        assert result.modes[0].sigma * to_tiny == pytest.approx(0.1)
        assert result.history[0].name == "rescale"
        assert u.Unit(result.unit.to_string("fits")) == result.unit


def test_no_levels_are_an_error():
    with pytest.raises(InputError, match="n_levels is 0"):
        image_levels(patchy_image(), 0)


def test_history_tells_the_level():
    for z, level in enumerate(image_levels(patchy_image(), 3)):
        steps = level.subject.history
        assert [(step.name, step.parameters["level"]) for step in steps] == ([("coarsen", z)] if z else [])
