"""Reprojection: values, masks, flags, shared errors and single-pixel variances against written-out operators."""

from functools import cache

import numpy as np
import pytest

from skyloom.core.image import Flag, Image, Mode
from skyloom.core.noise import autocorrelate, region_variances
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.grids.reproject import MASKED_SHARE, _touched, pixel_variance, reproject
from skyloom.kernels.images.resample import kernel_table
from tests.grids import noisy_image, tangent_wcs
from tests.oracles.resample import (
    axis_weights,
    exact_pixel_variances,
    full_positions,
    interpolation_operator,
    masked_operator,
    mean_operator,
    overlap_operator,
    pixel_grid,
)

METHODS = ("lanczos3", "bilinear", "area")
SHAPE = (44, 51)
DRIZZLED = (
    autocorrelate(np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]))
    / autocorrelate(np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])).max()
)
TARGETS = {
    "turned": ((40, 45), 0.05, 25.0, (0.3, -0.4)),
    "slightly turned": ((50, 40), 0.05, 0.2, (0.1, 0.2)),
    "coarser": ((28, 33), 0.085, -40.0, (0.2, 0.0)),
    "finer": ((60, 70), 0.03, 100.0, (4.0, 9.0)),
    "parallel": ((20, 21), 0.11, 0.0, (0.37, 0.11)),
}


def target_grid(name):
    shape, scale, rotation, shift = TARGETS[name]
    return tangent_wcs(shape, scale, rotation, shift), shape


def build_operator(source, source_shape, target, shape, method):
    """Operator with rows that sum to 1, complete rows, and areas of the target pixels in source pixels."""
    y, x = np.indices((shape[0] + 1, shape[1] + 1)) - 0.5
    corner_x, corner_y = full_positions(source, target, x, y)
    diagonal = (corner_x[1:, 1:] - corner_x[:-1, :-1]) * (corner_y[1:, :-1] - corner_y[:-1, 1:])
    other = (corner_x[1:, :-1] - corner_x[:-1, 1:]) * (corner_y[1:, 1:] - corner_y[:-1, :-1])
    areas = 0.5 * np.abs(diagonal - other)
    if method == "area":
        shared, complete = overlap_operator(corner_x, corner_y, source_shape)
        return mean_operator(shared), complete, areas
    positions = full_positions(source, target, *pixel_grid(shape))
    return *interpolation_operator(method, *positions, source_shape), areas


@cache
def operator_of(name, method):
    return build_operator(tangent_wcs(SHAPE), SHAPE, *target_grid(name), method)


@pytest.mark.parametrize("unit", ["electron/s", "erg/(s cm2 AA arcsec2)"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TARGETS)
def test_values_and_mask_follow_the_written_out_operator(rng, name, method, unit):
    source = tangent_wcs(SHAPE)
    image = noisy_image(rng, SHAPE, source, unit, masked=0.02, dtype=np.float64)
    target, shape = target_grid(name)
    result = reproject(image, (target, shape), method)
    plain, complete, areas = operator_of(name, method)
    operator, usable, lacking = masked_operator(plain, image.mask, MASKED_SHARE[method])
    expected_mask = ~(complete & usable).reshape(shape)
    # A share that equals the limit to rounding may fall on either side.
    assert np.count_nonzero(result.mask != expected_mask) <= 1
    valid = ~result.mask & ~expected_mask
    assert valid.mean() > 0.2
    factor = 1.0 if "arcsec2" in unit else areas
    expected = (operator @ np.where(image.mask, 0.0, image.data).ravel()).reshape(shape) * factor
    np.testing.assert_allclose(result.data[valid], expected[valid], rtol=3e-6)
    flagged = (result.flags & Flag.LOW_COVERAGE) > 0
    np.testing.assert_array_equal(flagged[valid], lacking.reshape(shape)[valid])


@pytest.mark.parametrize("method", METHODS)
def test_variance_is_the_noise_gain_times_the_smooth_variance(rng, method):
    source = tangent_wcs(SHAPE)
    image = noisy_image(rng, SHAPE, source, dtype=np.float64)
    target, shape = target_grid("turned")
    result = reproject(image, (target, shape), method)
    gain = result.history[-1].parameters["noise_gain"]
    spread = "area" if method == "area" else "bilinear"
    plain, _, areas = build_operator(source, SHAPE, target, shape, spread)
    expected = gain * areas**2 * (plain @ image.variance.ravel()).reshape(shape)
    valid = result.valid
    np.testing.assert_allclose(result.variance[valid], expected[valid], rtol=1e-6)
    assert 0.3 < gain < 1.0
    assert np.isnan(result.variance[result.mask]).all()
    assert np.isnan(result.data[result.mask]).all()


@pytest.mark.parametrize("correlation", [None, DRIZZLED], ids=["white", "drizzled"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["slightly turned", "coarser"])
def test_pixel_variance_is_exact(rng, name, method, correlation):
    source = tangent_wcs(SHAPE)
    image = noisy_image(rng, SHAPE, source, masked=0.02, dtype=np.float64, correlation=correlation)
    target, shape = target_grid(name)
    found = pixel_variance(image, (target, shape), method)
    plain, _, areas = operator_of(name, method)
    operator, _, _ = masked_operator(plain, image.mask, MASKED_SHARE[method])
    rho = np.ones((1, 1)) if correlation is None else correlation
    variance = np.where(image.mask, 0.0, image.variance)
    expected = exact_pixel_variances(operator, variance, rho).reshape(shape) * areas**2
    result = reproject(image, (target, shape), method)
    assert np.isnan(found[result.mask]).all()
    np.testing.assert_allclose(found[result.valid], expected[result.valid], rtol=5e-6)


def test_pixel_variance_of_a_copy_is_the_variance(rng):
    image = noisy_image(rng, SHAPE, tangent_wcs(SHAPE), masked=0.01)
    target = (tangent_wcs(SHAPE, shift=(2.0, 0.0)), SHAPE)
    result = reproject(image, target)
    found = pixel_variance(image, target)
    np.testing.assert_array_equal(found, np.where(result.mask, np.nan, result.variance))


def test_same_grid_is_not_touched(rng):
    image = noisy_image(rng, SHAPE, tangent_wcs(SHAPE), masked=0.01, correlation=DRIZZLED)
    for target in (image, (image.wcs, SHAPE), (tangent_wcs(SHAPE), SHAPE)):
        result = reproject(image, target)
        assert result.data is image.data
        assert result.variance is image.variance
        assert result.correlation is image.correlation
        assert result.history[-1].parameters["method"] == "copy"
    almost = reproject(image, (tangent_wcs(SHAPE, shift=(3e-5, 0.0)), SHAPE))
    assert almost.data is image.data


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_whole_shifts_are_exact_copies(rng, method):
    flags = rng.integers(0, 4, SHAPE).astype(np.uint16)
    mode = Mode("gradient", rng.normal(size=SHAPE).astype(np.float32), 0.1)
    image = noisy_image(
        rng, SHAPE, tangent_wcs(SHAPE), masked=0.01, correlation=DRIZZLED, flags=flags, modes=(mode,)
    )
    shape = (60, 41)
    # From centre to centre: (51 - 41) / 2 and (44 - 60) / 2 whole pixels, and the shift of the tangent point.
    result = reproject(image, (tangent_wcs(shape, shift=(-3.0, 1.0)), shape), method)
    x0, y0 = 5 + 3, -8 - 1
    inside = np.zeros(shape, bool)
    inside[-y0 : -y0 + 44, : 51 - x0] = True
    cut = np.s_[:, x0 : x0 + 41]
    for name in ("data", "variance", "flags"):
        moved = getattr(result, name)[-y0 : -y0 + 44]
        np.testing.assert_array_equal(moved, getattr(image, name)[cut])
    np.testing.assert_array_equal(result.mask[-y0 : -y0 + 44], image.mask[cut])
    assert result.mask[~inside].all()
    np.testing.assert_array_equal(result.modes[0].map[-y0 : -y0 + 44], mode.map[cut])
    assert result.correlation is image.correlation
    assert result.history[-1].parameters["shift"] == [x0, y0]


def test_method_follows_the_scale():
    image = Image(np.ones(SHAPE), np.ones(SHAPE), None, "electron/s", tangent_wcs(SHAPE))
    for scale, expected in (
        (0.03, "lanczos3"),
        (0.0502, "lanczos3"),
        (0.059, "lanczos3"),
        (0.061, "area"),
        (0.2, "area"),
    ):
        shape = (10, 11)
        result = reproject(image, (tangent_wcs(shape, scale, 10.0), shape))
        assert result.history[-1].parameters["method"] == expected
        assert result.history[-1].parameters["scale"] == pytest.approx(scale / 0.05, rel=1e-6)
        assert result.history[-1].parameters["rotation"] == pytest.approx(10.0, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sip", [False, True])
def test_constant_brightness_stays_constant_and_flux_follows_the_area(method, sip):
    source = tangent_wcs(SHAPE, sip=sip)
    target, shape = target_grid("turned")
    for unit in ("erg/(s cm2 AA arcsec2)", "electron/s"):
        image = Image(np.full(SHAPE, 2.5), np.ones(SHAPE), None, unit, source)
        result = reproject(image, (target, shape), method)
        expected = np.full(shape, 2.5)
        if unit == "electron/s":
            expected *= build_operator(source, SHAPE, target, shape, "bilinear")[2]
        np.testing.assert_allclose(result.data[result.valid], expected[result.valid], rtol=1e-6)


@pytest.mark.parametrize("scale", [0.04, 0.05, 0.052, 0.2])
@pytest.mark.parametrize("unit", ["electron/s", "MJy/sr"])
def test_area_conserves_flux(rng, unit, scale):
    data = np.zeros((64, 71))
    data[12:-12, 12:-12] = rng.exponential(size=(40, 47))  # masked results at the border see none of it
    image = Image(data, np.ones(data.shape), None, unit, tangent_wcs(data.shape, rotation=31.0))
    shape = (90, 95)
    result = reproject(image, (tangent_wcs(shape, scale, shift=(0.21, -0.4)), shape), "area")
    ratio = 1.0 if unit == "electron/s" else (scale / 0.05) ** 2
    assert np.nansum(result.data) * ratio == pytest.approx(data.sum(), rel=1e-6)


# Samples of a bilinear surface on a turned grid miss 0.3 % of a star of 1.5 px (sigma), 1.1 % of one of 1 px.
@pytest.mark.parametrize(("method", "tolerance"), [("lanczos3", 1e-4), ("bilinear", 4e-3), ("area", 1e-9)])
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.5])
def test_point_source_keeps_its_flux(method, tolerance, phase):
    shape = (81, 81)
    y, x = np.indices(shape) - 40.0
    star = np.exp(-((x - phase) ** 2 + y**2) / (2 * 1.5**2))
    image = Image(star, np.ones(shape), None, "electron/s", tangent_wcs(shape))
    result = reproject(image, (tangent_wcs((100, 100), 0.05, 25.0, (0.2, 0.4)), (100, 100)), method)
    assert np.nansum(result.data) == pytest.approx(star.sum(), rel=tolerance)


def test_flags_are_carried_from_the_neighbours():
    flags = np.zeros(SHAPE, np.uint16)
    flags[20, 25] = Flag.REPAIRED_COSMIC_RAY
    flags[21, 25] = Flag.NEGATIVE
    image = Image(np.ones(SHAPE), np.ones(SHAPE), None, "electron/s", tangent_wcs(SHAPE), flags=flags)
    target = (tangent_wcs(SHAPE, shift=(0.5, 0.0)), SHAPE)
    for method in ("lanczos3", "bilinear", "area"):
        found = np.argwhere(reproject(image, target, method).flags & Flag.REPAIRED_COSMIC_RAY)
        assert found.tolist() == [[20, 25], [20, 26]]
    coarse = reproject(image, (tangent_wcs((14, 17), 0.15, shift=(0.1, 0.1)), (14, 17)), "area")
    assert coarse.flags.max() == Flag.REPAIRED_COSMIC_RAY | Flag.NEGATIVE
    assert np.count_nonzero(coarse.flags) <= 4
    clean = image.evolve(flags=None)
    assert reproject(clean, target).flags is None


@pytest.mark.parametrize("method", METHODS)
def test_shared_errors_are_resampled_like_the_data(rng, method):
    y, x = np.indices(SHAPE) / 50.0
    modes = (Mode("pedestal", 1.0, 0.3), Mode("gradient", 1.0 + x - y, 0.2))
    target, shape = target_grid("coarser")
    for unit in ("electron/s", "MJy/sr"):
        image = noisy_image(rng, SHAPE, tangent_wcs(SHAPE), unit, masked=0.01, dtype=np.float64, modes=modes)
        result = reproject(image, (target, shape), method)
        for mode, moved in zip(modes, result.modes, strict=True):
            data = np.broadcast_to(mode.map, SHAPE).astype(float)
            expected = reproject(image.evolve(data=data), (target, shape), method)
            assert (moved.name, moved.sigma) == (mode.name, mode.sigma)
            got = np.broadcast_to(moved.map, shape)
            np.testing.assert_allclose(got[result.valid], expected.data[result.valid], rtol=1e-4)
            assert np.isfinite(got).all()


def test_an_isolated_bad_pixel_costs_its_neighbourhood_only():
    mask = np.zeros(SHAPE, bool)
    mask[20, 25] = True
    image = Image(np.ones(SHAPE), np.ones(SHAPE), mask, "MJy/sr", tangent_wcs(SHAPE))
    lost = {}
    for method in METHODS:
        result = reproject(image, (tangent_wcs(SHAPE, rotation=25.0), SHAPE), method)
        whole = reproject(image.evolve(mask=np.zeros(SHAPE, bool)), (result.wcs, SHAPE), method)
        lost[method] = int(np.count_nonzero(result.mask & ~whole.mask))
        assert 0 < np.count_nonzero(result.flags) <= 40
        assert np.nanmax(result.variance) > np.nanmax(whole.variance)
    assert lost["bilinear"] <= 2
    assert lost["area"] <= 2
    assert lost["lanczos3"] <= 9


def test_incomplete_stencils_at_the_border_are_masked():
    image = Image(np.ones(SHAPE), np.ones(SHAPE), None, "MJy/sr", tangent_wcs(SHAPE))
    target = (tangent_wcs((54, 61), shift=(0.5, 0.5)), (54, 61))
    usable = {method: int(reproject(image, target, method).valid.sum()) for method in METHODS}
    assert usable == {"lanczos3": 39 * 46, "bilinear": 43 * 50, "area": 43 * 50}


def test_sums_over_regions_keep_their_error(rng):
    """The whole chain: the variance of a large box agrees with that of the same piece of sky before."""
    image = noisy_image(rng, (80, 80), tangent_wcs((80, 80)), dtype=np.float64, correlation=DRIZZLED)
    result = reproject(image, (tangent_wcs((80, 80), rotation=90.0, shift=(0.5, 0.5)), (80, 80)), "lanczos3")
    labels = np.full((80, 80), -1, np.int32)
    labels[20:60, 20:60] = 0
    before = region_variances(image.variance, labels, 1, image.correlation)
    after = region_variances(np.where(result.mask, 1.0, result.variance), labels, 1, result.correlation)
    assert after == pytest.approx(before, rel=0.03)


@pytest.mark.parametrize("taps", [2, 6])
def test_weight_table_is_accurate(taps):
    table = kernel_table(taps)
    steps = table.shape[0] - 1
    for position in np.random.default_rng(1).uniform(0, 1, 500):
        place = position * steps
        row = int(place)
        weights = table[row, 0] + (place - row) * table[row, 1]
        _, exact = axis_weights("bilinear" if taps == 2 else "lanczos3", position)
        np.testing.assert_allclose(weights, exact, atol=2e-7)
        assert weights.sum() == pytest.approx(1.0, abs=1e-12)


def test_stencils_that_meet_masked_pixels_are_found(rng):
    for shape in ((9, 13), (30, 20), (6, 6)):
        mask = rng.random(shape) < 0.05
        for taps in (2, 6):
            touched = _touched(mask, taps)
            for y in range(shape[0] - taps + 1):
                for x in range(shape[1] - taps + 1):
                    assert touched[y, x] == mask[y : y + taps, x : x + taps].any()


def test_read_only_and_mixed_types_are_accepted(rng):
    image = noisy_image(rng, SHAPE, tangent_wcs(SHAPE), masked=0.01)
    target, shape = target_grid("turned")
    expected = reproject(image, (target, shape))
    data = image.data.copy()
    data.setflags(write=False)
    frozen = reproject(image.evolve(data=data, variance=image.variance.astype(np.float64)), (target, shape))
    np.testing.assert_array_equal(frozen.data, expected.data)
    assert frozen.variance.dtype == np.float64
    np.testing.assert_allclose(frozen.variance, expected.variance, rtol=1e-6)
    strided = np.repeat(image.data, 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(reproject(image.evolve(data=strided), (target, shape)).data, expected.data)


def test_bad_requests_are_refused(rng):
    image = noisy_image(rng, SHAPE, tangent_wcs(SHAPE))
    target, shape = target_grid("turned")
    with pytest.raises(InputError, match=r"nearest.*lanczos3"):
        reproject(image, (target, shape), "nearest")
    with pytest.raises(ShapeError, match="neither an Image"):
        reproject(image, target)
    with pytest.raises(ShapeError, match="at least one pixel"):
        reproject(image, (target, (0, 5)))
    with pytest.raises(InputError, match="WCS"):
        reproject(image.evolve(wcs=None), (target, shape))
    with pytest.raises(InputError, match="WCS"):
        reproject(image, image.evolve(wcs=None))
    with pytest.raises(InputError, match="no pixel of the target"):
        reproject(image.evolve(mask=np.ones(SHAPE, bool)), (target, shape))
    with pytest.raises(InputError, match=r"no pixel of the target|do not overlap"):
        reproject(image, (tangent_wcs(SHAPE, shift=(51.0, 0.0)), SHAPE))
