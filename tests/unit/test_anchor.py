"""Anchors of a band: the fit, how it is applied, and the pixel-wise methods."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

import skyloom as sl
from skyloom.core.image import Mode
from skyloom.errors import AssumptionWarning, InputError, ShapeError, UnitError
from skyloom.imaging.anchoring.errors_in_both import NoiseSource, Problem, _pair_sum, block_index, regress
from skyloom.mock.hubble.noise import kernel_correlation
from skyloom.mock.scenes.images import sky_wcs
from tests.grids import tangent_wcs
from tests.inputs.anchor import SMOOTHED, UNIT, image, pair
from tests.invariants import check_invariants
from tests.oracles import anchor as oracles_anchor


def test_white_noise_gives_yorks_line():
    rng = np.random.default_rng(1)
    n = 4000
    truth = rng.gamma(1.0, 20.0, n)
    x_variance, y_variance = rng.uniform(2, 9, n), rng.uniform(1, 4, n)
    x = truth + rng.normal(size=n) * np.sqrt(x_variance)
    y = 1.3 * truth + 5 + rng.normal(size=n) * np.sqrt(y_variance)
    problem = Problem(
        y,
        np.stack([x, np.ones(n)], axis=1),
        (
            NoiseSource(y_variance, y_variance, None, 1.0),
            NoiseSource(x_variance, x_variance, None, 0.0, (0, 1)),
        ),
        (),
        np.arange(n) // 80,
        np.arange(n) % 80,
        (50, 80),
    )
    result = regress(problem, block_index(problem.rows, problem.columns_of, problem.shape, 8.0))
    slow = oracles_anchor.york_line(x, y, x_variance, y_variance)
    error = np.sqrt(np.diag(result.covariance))
    # Both estimates are unbiased; robust weights and the expectation of a square move it by a part of its error.
    assert np.all(np.abs(result.parameters - slow) < 0.5 * error)
    assert np.all(np.abs(result.parameters - [1.3, 5.0]) < 3 * error)


def test_covariance_of_the_score_adds_all_pairs():
    rng = np.random.default_rng(2)
    rows, columns = np.nonzero(rng.random((9, 11)) < 0.7)
    maps = rng.normal(size=(3, rows.size))
    rho = kernel_correlation(SMOOTHED)[2:-2, 2:-2]
    expected = oracles_anchor.pair_sum(maps, rows, columns, rho)
    found = _pair_sum(maps, (rows, columns), (9, 11), rho)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_slope_and_offset_within_their_errors():
    first, second, _ = pair(np.random.default_rng(3))
    anchor = sl.imaging.fit_anchor(first, second)
    assert abs(anchor.slope - 1.1) < 3 * anchor.slope_err
    assert abs(anchor.offset - 25.48) < 3 * anchor.offset_err
    assert anchor.covariance[0, 1] < 0
    assert anchor.slope_err < 0.02
    assert 0.8 < anchor.chi_square < 1.2
    assert anchor.correlation > 0.9
    assert anchor.meta["slope"] == "fitted"
    assert anchor.unit == u.Unit(UNIT)
    assert anchor.table["offset"].unit == anchor.unit
    assert anchor.points["n_pixels"].sum() + anchor.n_rejected == anchor.n_pixels


def test_scale_of_either_image_does_not_matter():
    first, second, _ = pair(np.random.default_rng(4))
    anchor = sl.imaging.fit_anchor(first, second)
    scaled = sl.imaging.fit_anchor(first.evolve(data=first.data * 8, variance=first.variance * 64), second)
    np.testing.assert_allclose(scaled.slope, 8 * anchor.slope, rtol=1e-4)
    np.testing.assert_allclose(scaled.offset_err, 8 * anchor.offset_err, rtol=1e-3)


def test_stars_under_the_mask_do_not_matter_and_outliers_are_rejected():
    first, second, _ = pair(np.random.default_rng(5))
    clean = sl.imaging.fit_anchor(first, second)
    mask = np.zeros(first.shape, bool)
    mask[50:58, 60:68] = True
    data = first.data.copy()
    data[mask] = 1e5
    masked = sl.imaging.fit_anchor(first.evolve(data=data), second, mask=mask)
    assert masked.n_pixels == clean.n_pixels - 64
    assert abs(masked.offset - clean.offset) < clean.offset_err
    data = first.data.copy()
    data[5::12, 7::12] += 400.0
    struck = sl.imaging.fit_anchor(first.evolve(data=data), second)
    assert struck.n_rejected > 80
    assert abs(struck.offset - 25.48) < 3 * struck.offset_err
    assert abs(struck.slope - 1.1) < 3 * struck.slope_err


def test_differences_beyond_noise_become_intrinsic_scatter():
    first, second, _ = pair(np.random.default_rng(6), scatter=0.1)
    anchor = sl.imaging.fit_anchor(first, second)
    assert 0.04 < anchor.intrinsic_scatter < 0.16
    assert abs(anchor.slope - 1.1) < 3 * anchor.slope_err
    # Bright pixels no longer promise more than the images keep.
    plain = sl.imaging.fit_anchor(*pair(np.random.default_rng(6))[:2])
    assert anchor.slope_err > 1.3 * plain.slope_err


def test_flat_reference_holds_the_slope_and_says_so():
    flat = np.full((120, 120), 10.0)
    first, second, _ = pair(np.random.default_rng(7), slope=1.0, truth=flat)
    with pytest.warns(AssumptionWarning, match="held at 1"):
        anchor = sl.imaging.fit_anchor(first, second)
    assert anchor.slope == 1.0
    assert anchor.slope_err == 0.0
    assert "held at 1" in anchor.meta["slope"]
    assert abs(anchor.offset - 25.48) < 3 * anchor.offset_err
    applied = sl.imaging.apply_anchor(first, anchor)
    assert [mode.name for mode in applied.modes] == ["anchor_offset"]


def test_slope_can_be_held():
    first, second, _ = pair(np.random.default_rng(8))
    anchor = sl.imaging.fit_anchor(first, second, slope=1.1)
    assert (anchor.slope, anchor.slope_err) == (1.1, 0.0)
    assert abs(anchor.offset - 25.48) < 3 * anchor.offset_err


def test_binned_medians_have_errors_too():
    first, second, _ = pair(np.random.default_rng(9), noise=0.1)
    anchor = sl.imaging.fit_anchor(first, second, method="binned")
    assert 0 < anchor.slope_err < 0.05
    assert abs(anchor.slope - 1.1) < 0.05
    assert anchor.method == "binned"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "guess"}, InputError, "expected one of"),
        ({"slope": -1.0}, InputError, "expected > 0"),
        ({"mask": np.ones((120, 120), bool)}, InputError, "share 0 usable pixels"),
        ({"mask": np.zeros((3, 3), bool)}, ShapeError, "mask has shape"),
    ],
)
def test_bad_requests_get_one_clear_message(change, error, message):
    first, second, _ = pair(np.random.default_rng(10))
    with pytest.raises(error, match=message):
        sl.imaging.fit_anchor(first, second, **change)


def test_images_that_do_not_belong_together():
    first, second, _ = pair(np.random.default_rng(11))
    with pytest.raises(UnitError, match="reference is in Jy"):
        sl.imaging.fit_anchor(first, second.evolve(unit=u.Jy))
    with pytest.raises(InputError, match="lies elsewhere"):
        sl.imaging.fit_anchor(first, second.evolve(wcs=tangent_wcs((120, 120), 0.2, shift=(9, 0))))
    with pytest.raises(InputError, match="do not show the same sky"):
        sl.imaging.fit_anchor(first.evolve(data=-first.data), second)


def test_reference_is_converted_to_the_unit_of_the_image():
    first, second, _ = pair(np.random.default_rng(12))
    anchor = sl.imaging.fit_anchor(first, second)
    other = second.evolve(
        unit=u.Unit("1e-18 erg / (s cm2 AA arcsec2)"), data=second.data / 100, variance=second.variance / 1e4
    )
    np.testing.assert_allclose(sl.imaging.fit_anchor(first, other).offset, anchor.offset, rtol=1e-4)


def test_applied_errors_are_the_whole_covariance():
    first, second, _ = pair(np.random.default_rng(13))
    anchor = sl.imaging.fit_anchor(first, second)
    applied = sl.imaging.apply_anchor(first, anchor)
    np.testing.assert_allclose(
        applied.data, (first.data - anchor.offset) / anchor.slope, rtol=1e-5, atol=1e-4
    )
    rng = np.random.default_rng(0)
    weights = rng.normal(size=first.shape)
    derivative = -np.array([np.sum(weights * applied.data), weights.sum()]) / anchor.slope
    expected = derivative @ anchor.covariance @ derivative
    found = sum((np.sum(weights * mode.map) * mode.sigma) ** 2 for mode in applied.modes)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert np.ndim(applied.modes[1].map) == 0


def test_applying_keeps_what_every_operation_keeps():
    rng = np.random.default_rng(14)
    first, second, _ = pair(rng)
    anchor = sl.imaging.fit_anchor(first, second)
    wide = second.evolve(data=second.data + 300)
    mask = rng.random(first.shape) < 0.02
    data, variance = first.data.copy(), first.variance.copy()
    data[mask], variance[mask] = np.nan, np.nan
    dirty = first.evolve(
        data=data,
        variance=variance,
        mask=mask,
        flags=np.zeros(first.shape, np.uint16),
        modes=(Mode("sky", 1.0, 0.1),),
    )
    check_invariants(lambda item: sl.imaging.apply_anchor(item, anchor), dirty, equivariant=False)
    raised = dirty.evolve(data=dirty.data + 300)
    smooth = wide.evolve(variance=0.1 * wide.variance)
    check_invariants(
        lambda item: sl.imaging.anchor_by_ratio(item, smooth, wide),
        raised,
        changes=("correlation",),
        equivariant=False,
    )
    check_invariants(
        lambda item: sl.imaging.anchor_by_difference(item, smooth, wide),
        raised,
        changes=("correlation",),
        equivariant=False,
    )


def test_ratio_is_masked_where_it_is_undefined_and_never_infinite():
    shape = (60, 60)
    wcs = tangent_wcs(shape, 0.2)
    truth = np.where(np.arange(60) < 30, 50.0, 0.0) * np.ones(shape)
    first = image(truth, 1.0, SMOOTHED, None, wcs)
    smoothed = image(truth, 0.1, SMOOTHED, None, wcs)
    reference = image(2 * truth, 0.5, SMOOTHED, None, wcs)
    anchored = sl.imaging.anchor_by_ratio(first, smoothed, reference)
    np.testing.assert_array_equal(anchored.mask, truth == 0)
    np.testing.assert_allclose(anchored.data[anchored.valid], 100.0)
    assert np.isfinite(anchored.data).all()
    with pytest.raises(InputError, match="no ratio can be taken"):
        sl.imaging.anchor_by_ratio(first, smoothed.evolve(data=0 * smoothed.data), reference)


def test_an_offset_common_to_image_and_smoothed_image_leaves_the_difference():
    first, second, _ = pair(np.random.default_rng(15))
    smoothed = first.evolve(variance=0.1 * first.variance, modes=(Mode("sky", 1.0, 0.5),))
    anchored = sl.imaging.anchor_by_difference(first.evolve(modes=(Mode("sky", 1.0, 0.5),)), smoothed, second)
    assert np.max(np.abs(anchored.modes[0].map)) < 1e-6


def test_an_image_without_anything_of_the_reference_is_refused():
    rng = np.random.default_rng(8)
    shape = (60, 60)
    y, x = np.indices(shape)
    wcs = sky_wcs((24.0, 15.0), shape, 0.2)
    light = 500.0 * np.exp(-np.hypot(y - 30, x - 30) / 10.0)
    reference = sl.Image(light + rng.normal(0, 1, shape), np.ones(shape), None, "electron/s", wcs)
    for data in (np.zeros(shape), rng.normal(0, 1, shape)):
        with pytest.raises(InputError, match="nothing of the reference"):
            sl.imaging.fit_anchor(sl.Image(data, np.ones(shape), None, "electron/s", wcs), reference)


def test_shared_errors_of_the_reference_enter_the_anchor():
    rng = np.random.default_rng(9)
    shape = (60, 60)
    y, x = np.indices(shape)
    wcs = sky_wcs((24.0, 15.0), shape, 0.2)
    light = 500.0 * np.exp(-np.hypot(y - 30, x - 30) / 10.0)
    one, plain = (
        sl.Image(light + rng.normal(0, 1, shape), np.ones(shape), None, "electron/s", wcs) for _ in range(2)
    )
    alone = sl.imaging.fit_anchor(one, plain)
    sky = sl.imaging.fit_anchor(one, plain.evolve(modes=(("sky", 1.0, 3.0),)))
    scale = sl.imaging.fit_anchor(one, plain.evolve(modes=(("calibration", plain.data, 0.05),)))
    assert sky.offset_err == pytest.approx(np.hypot(alone.offset_err, 3.0), rel=0.01)
    assert sky.slope_err == pytest.approx(alone.slope_err, rel=0.01)
    assert scale.slope_err == pytest.approx(np.hypot(alone.slope_err, 0.05), rel=0.01)
    held = sl.imaging.fit_anchor(one, plain.evolve(modes=(("sky", 1.0, 3.0),)), slope=1.0)
    assert held.offset_err == pytest.approx(3.0, rel=0.05)
