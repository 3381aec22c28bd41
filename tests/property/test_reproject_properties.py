"""What holds for any grids, shapes and masks."""

import copy

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.grids import tangent_wcs

from skyloom.core.image import Image
from skyloom.errors import InputError
from skyloom.imaging.grids.reproject import reproject

METHODS = st.sampled_from(["auto", "lanczos3", "bilinear", "area"])
SIDES = st.integers(16, 41)
SHAPES = st.tuples(SIDES, SIDES)
ANGLES = st.floats(-180.0, 180.0)
SHIFTS = st.tuples(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make_image(seed, shape, unit="electron/s", masked=0.03, dtype=np.float32):
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < masked
    data = rng.normal(10.0, 1.0, shape).astype(dtype)
    variance = rng.uniform(0.5, 2.0, shape).astype(dtype)
    return Image(data, variance, mask, unit, tangent_wcs(shape))


@QUICK
@given(st.integers(0, 2**31), SHAPES, st.floats(0.02, 0.2), ANGLES, SHIFTS, st.booleans())
def test_flux_is_conserved_exactly_by_area(seed, shape, scale, angle, shift, flip):
    inner = np.random.default_rng(seed).exponential(size=shape)
    # The target has room for the whole image, and the image a border for the target's pixels to lie on.
    border = int(np.ceil(3 * max(1.0, scale / 0.05)))
    data = np.pad(inner, border)
    image = Image(data, np.ones(data.shape), None, "electron/s", tangent_wcs(data.shape))
    side = int(np.ceil(1.5 * max(data.shape) * 0.05 / scale)) + 8
    target = tangent_wcs((side, side + 1), scale, angle, shift, flip=flip)
    result = reproject(image, (target, (side, side + 1)), "area")
    np.testing.assert_allclose(np.nansum(result.data), data.sum(), rtol=1e-6)


@QUICK
@given(st.integers(0, 2**31), SHAPES, SHAPES, st.floats(0.03, 0.12), ANGLES, METHODS)
def test_garbage_under_the_mask_changes_nothing(seed, shape, target_shape, scale, angle, method):
    image = make_image(seed, shape)
    target = (tangent_wcs(target_shape, scale, angle), target_shape)
    data, variance = image.data.copy(), image.variance.copy()
    garbage = np.random.default_rng(seed).choice([np.nan, np.inf, -np.inf, 1e30, -1e30], image.mask.sum())
    data[image.mask] = garbage
    variance[image.mask] = garbage
    try:
        expected = reproject(image, target, method)
    except InputError:
        return  # all masked
    result = reproject(image.evolve(data=data, variance=variance), target, method)
    np.testing.assert_array_equal(result.mask, expected.mask)
    np.testing.assert_array_equal(result.data, expected.data)
    np.testing.assert_array_equal(result.variance, expected.variance)
    assert np.isfinite(result.data[result.valid]).all()
    assert (result.variance[result.valid] > 0).all()


@QUICK
@given(st.integers(0, 2**31), SHAPES, SHAPES, ANGLES, METHODS)
def test_inputs_are_not_changed(seed, shape, target_shape, angle, method):
    image = make_image(seed, shape)
    before = copy.deepcopy((image.data, image.variance, image.mask))
    header = image.wcs.to_header_string()
    target = tangent_wcs(target_shape, 0.05, angle)
    try:
        reproject(image, (target, target_shape), method)
    except InputError:
        return
    for old, new in zip(before, (image.data, image.variance, image.mask), strict=True):
        np.testing.assert_array_equal(old, new)
    assert image.wcs.to_header_string() == header


@QUICK
@given(SHAPES, SHAPES, st.floats(0.04, 0.06), ANGLES, SHIFTS, METHODS)
def test_odd_and_even_shapes_lie_in_the_same_place(shape, target_shape, scale, angle, shift, method):
    """A slope on the sky is the same slope on any grid: no method moves anything, whatever the shape."""

    def plane(wcs, sides):
        y, x = np.indices(sides, dtype=float)
        intermediate = wcs.wcs.cd @ np.stack(
            [(x - wcs.wcs.crpix[0] + 1).ravel(), (y - wcs.wcs.crpix[1] + 1).ravel()]
        )
        return (5.0 + 3600.0 * (intermediate[0] * 0.7 - intermediate[1] * 0.4)).reshape(sides)

    source = tangent_wcs(shape, 0.05, 11.0, shift)
    image = Image(plane(source, shape), np.ones(shape), None, "MJy/sr", source)
    target = tangent_wcs(target_shape, scale, angle)
    try:
        result = reproject(image, (target, target_shape), method)
    except InputError:
        return
    expected = plane(target, target_shape)
    # Area cuts flat tiles: where the grids are of like scale a slope turns into steps of up to 1/8 px per axis.
    exact = result.history[-1].parameters["method"] != "area"
    tolerance = 1e-6 if exact else (0.7 + 0.4) * 0.05 * 0.15
    np.testing.assert_allclose(result.data[result.valid], expected[result.valid], atol=tolerance)


@QUICK
@given(st.integers(0, 2**31), SHAPES, st.integers(-9, 9), st.integers(-9, 9), METHODS)
def test_whole_shifts_there_and_back_are_the_identity(seed, shape, dx, dy, method):
    image = make_image(seed, shape, masked=0.1)
    there = reproject(image, (tangent_wcs(shape, shift=(dx, dy)), shape), method)
    back = reproject(there, image, method)
    kept = back.valid
    assert kept.sum() == np.count_nonzero(
        image.valid[max(0, -dy) : shape[0] - max(0, dy)][:, max(0, -dx) : shape[1] - max(0, dx)]
    )
    np.testing.assert_array_equal(back.data[kept], image.data[kept])
    np.testing.assert_array_equal(back.variance[kept], image.variance[kept])
