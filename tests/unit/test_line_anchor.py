"""The anchor of a line image: slope, offset, a field of the continuum; its modes; smooth fields and ratios."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

import skyloom as sl
from skyloom.core.image import Mode
from skyloom.errors import AssumptionWarning, InputError, UnitError
from skyloom.imaging.anchoring.smooth_field import FieldFrame, SmoothField, n_terms
from skyloom.mock.hubble.noise import draw_noise, kernel_correlation
from tests.grids import tangent_wcs
from tests.inputs.anchor import DRIZZLED, SMOOTHED, image, scene, triple
from tests.invariants import check_invariants
from tests.oracles import anchor as oracles_anchor


@pytest.fixture(scope="module")
def made():
    return scene(np.random.default_rng(1))


@pytest.fixture(scope="module")
def images(made):
    return triple(np.random.default_rng(2), made)


@pytest.fixture(scope="module")
def anchor(images):
    return sl.imaging.fit_line_anchor(*images)


def test_slope_offset_and_field_within_their_errors(made, images, anchor):
    assert abs(anchor.slope - 1.05) < 3 * anchor.slope_err
    assert abs(anchor.offset + 3.0) < 3 * anchor.offset_err
    field = anchor.field.on(images[0].wcs, images[0].shape)
    error = anchor.field.error_on(images[0].wcs, images[0].shape)
    assert np.mean(np.abs(field - made.absorption) < 2 * error) > 0.85
    bright = made.continuum > 500
    assert np.median(np.abs(field / made.absorption - 1)[bright]) < 0.05
    assert field.dtype == np.float32


def test_table_and_names_hold_the_whole_fit(anchor):
    table = anchor.table
    assert list(table["name"][:3]) == ["slope", "offset", "a_00"]
    np.testing.assert_allclose(table["value"], anchor.parameters)
    np.testing.assert_allclose(np.diag(table["covariance"]), table["error"] ** 2)
    np.testing.assert_allclose(anchor.covariance, anchor.covariance.T, rtol=1e-6, atol=1e-12)
    size = table["error"]
    assert np.linalg.eigvalsh(anchor.covariance / np.outer(size, size)).min() > -1e-4


@pytest.mark.parametrize(("field", "terms"), [("none", 0), ("constant", 1), (2, 6)])
def test_degree_of_the_field_can_be_asked_for(images, field, terms):
    anchor = sl.imaging.fit_line_anchor(*images, field=field)
    assert len(anchor.parameters) == 2 + terms
    assert "asked" in anchor.meta["field"]


def test_slope_can_be_held_or_must_be(made, images):
    held = sl.imaging.fit_line_anchor(*images, slope=1.05, field=1)
    assert (held.slope, held.slope_err) == (1.05, 0.0)
    assert held.covariance[0, 0] == 0
    applied = sl.imaging.apply_line_anchor(images[0], images[1], held)
    assert len(applied.modes) >= 1
    dark = made._replace(lines=np.zeros(made.lines.shape))
    with pytest.warns(AssumptionWarning, match="held at 1"):
        anchor = sl.imaging.fit_line_anchor(*triple(np.random.default_rng(3), dark), field=1)
    assert anchor.slope == 1.0


def test_bad_input_gets_one_clear_message(images):
    excess, continuum, lines = images
    with pytest.raises(UnitError, match="lines is in"):
        sl.imaging.fit_line_anchor(excess, continuum, lines.evolve(unit=u.Unit("erg / (s cm2 arcsec2)")))
    with pytest.raises(InputError, match="continuum is zero"):
        sl.imaging.fit_line_anchor(excess, continuum.evolve(data=0 * continuum.data), lines)
    with pytest.raises(InputError, match="expected 'auto'"):
        sl.imaging.fit_line_anchor(excess, continuum, lines, field="spline")
    with pytest.raises(InputError, match="do not show the same sky"):
        sl.imaging.fit_line_anchor(excess.evolve(data=-excess.data), continuum, lines, field=1)
    with pytest.raises(InputError, match="share 0 usable"):
        sl.imaging.fit_line_anchor(excess, continuum, lines.evolve(mask=np.ones(lines.shape, bool)))


def test_modes_are_the_errors_of_the_parameters(images, anchor):
    excess, continuum, _ = images
    applied = sl.imaging.apply_line_anchor(excess, continuum, anchor, max_modes=60)
    basis = [
        SmoothField(anchor.field.frame, anchor.field.degree, row, np.eye(row.size)).on(
            excess.wcs, excess.shape
        )
        for row in np.eye(anchor.field.coefficients.size)
    ]
    maps = [applied.data, np.ones(excess.shape), *(continuum.data * plane for plane in basis)]
    for box in (np.s_[:], np.s_[20:40, 30:50], np.s_[90:95, 90:95]):
        derivative = -np.array([np.sum(plane[box], dtype=float) for plane in maps]) / anchor.slope
        expected = derivative @ anchor.covariance @ derivative
        found = sum((np.sum(mode.map[box], dtype=float) * mode.sigma) ** 2 for mode in applied.modes)
        noise = applied.variance[box].sum() * applied.correlation.sum()
        # 99.5 % over the field; a single region may miss more.
        assert abs(found - expected) < 0.04 * (expected + noise)
    few = sl.imaging.apply_line_anchor(excess, continuum, anchor)
    assert len(few.modes) <= 16
    assert few.history[-1].parameters["mode_variance_left_out"] < 0.05
    assert all(mode.map.dtype == np.float32 for mode in few.modes)


def test_noise_of_the_continuum_is_counted_once(images, anchor):
    """Subtracting a C changes the weight of C's noise from 1 to 1 + a; it does not add a second noise."""
    excess, continuum, _ = images
    applied = sl.imaging.apply_line_anchor(excess, continuum, anchor)
    a = anchor.field.on(excess.wcs, excess.shape)
    expected = ((excess.variance - continuum.variance) + (1 + a) ** 2 * continuum.variance) / anchor.slope**2
    np.testing.assert_allclose(applied.variance, expected, rtol=1e-4)


def test_applying_keeps_what_every_operation_keeps(images, anchor):
    excess, continuum, _ = images
    rng = np.random.default_rng(4)
    mask = rng.random(excess.shape) < 0.02
    data, variance = excess.data.copy(), excess.variance.copy()
    data[mask], variance[mask] = np.nan, np.nan
    dirty = excess.evolve(data=data, variance=variance, mask=mask, flags=np.zeros(excess.shape, np.uint16))
    result = check_invariants(
        lambda item: sl.imaging.apply_line_anchor(item, continuum, anchor),
        dirty,
        changes=("correlation",),
        equivariant=False,
    )
    assert result.mask.sum() == mask.sum()
    level = sl.imaging.apply_line_anchor(excess.evolve(modes=(Mode("sky", 1.0, 5.0),)), continuum, anchor)
    assert "sky" not in [mode.name for mode in level.modes]
    assert level.history[-1].parameters["modes_taken_out"] == ["sky"]


@pytest.mark.parametrize("degree", [0, 3, 8])
def test_field_on_a_large_grid_is_that_of_its_definition(degree):
    rng = np.random.default_rng(5)
    wcs = tangent_wcs((80, 100), 0.2, 15)
    frame = FieldFrame.around(wcs, *np.nonzero(np.ones((80, 100), bool)))
    field = SmoothField(frame, degree, rng.normal(size=n_terms(degree)), np.eye(n_terms(degree)))
    fine = tangent_wcs((360, 380), 0.04, -10)
    plane = field.on(fine, (360, 380))
    scale = np.ptp(plane) + abs(plane).max()
    for y, x in rng.integers(0, 360, (20, 2)):
        longitude, latitude = fine.all_pix2world(x, y, 0)
        expected = oracles_anchor.field_value(field, float(longitude), float(latitude))
        assert abs(plane[y, x] - expected) < 3e-3 * scale


def test_field_stays_at_its_border_value_beyond_the_data():
    wcs = tangent_wcs((80, 100), 0.2)
    frame = FieldFrame.around(wcs, *np.nonzero(np.ones((80, 100), bool)))
    field = SmoothField(frame, 2, np.arange(6.0), np.eye(6))
    beyond = wcs.all_pix2world([99.0, 400.0], [40.0, 40.0], 0)
    values = field.basis_at(*beyond) @ field.coefficients
    np.testing.assert_allclose(values[0], values[1], atol=1e-3)
    with pytest.raises(InputError, match="coefficients for degree"):
        SmoothField(frame, 2, np.zeros(3), np.eye(3))


def _ratio_pair(rng, noise=9.0):
    made = scene(np.random.default_rng(6), (160, 160), 300)
    wcs = tangent_wcs(made.lines.shape, 0.2)
    truth = 0.3 * (1 + np.mgrid[:160, :160][1] / 159)
    below = made.lines
    return (
        image(truth * below, noise, DRIZZLED, rng, wcs),
        image(below, noise, DRIZZLED, rng, wcs),
        truth,
        below,
    )


def test_ratio_is_neither_high_nor_low_at_any_brightness():
    top, bottom, truth, light = _ratio_pair(np.random.default_rng(7), noise=60.0)
    ratio = sl.imaging.smooth_ratio(top, bottom)
    assert not ratio.mask.any()
    assert ratio.unit == u.dimensionless_unscaled
    pull = (ratio.data - truth) / np.sqrt(ratio.variance)
    for low, high in ((5, 20), (20, 60), (60, 200), (200, 1e9)):
        member = (light > low) & (light <= high)
        assert abs(np.median(ratio.data[member] / truth[member]) - 1) < 0.03
        assert 0.6 < np.std(pull[member]) < 1.5
    mean_of_ratios = np.mean((top.data / bottom.data)[light < 20])
    assert abs(mean_of_ratios / np.mean(truth) - 1) > 0.03


def test_ratio_reaches_over_masked_and_empty_sky():
    top, bottom, truth, _ = _ratio_pair(np.random.default_rng(8))
    mask = np.zeros(top.shape, bool)
    mask[:, :50] = True
    data = np.where(mask, np.nan, top.data)
    ratio = sl.imaging.smooth_ratio(top.evolve(data=data, mask=mask), bottom)
    assert np.isfinite(ratio.data).all()
    assert ratio.data[:, :50].min() > 0.2
    assert np.median(np.abs(ratio.data / truth - 1)[:, 60:]) < 0.1


def test_ratio_of_noise_is_refused():
    rng = np.random.default_rng(9)
    wcs = tangent_wcs((80, 80), 0.2)
    empty = [
        image(draw_noise(np.ones((80, 80)), SMOOTHED, rng, 1)[0], 1.0, SMOOTHED, None, wcs) for _ in range(2)
    ]
    with pytest.raises(InputError, match="over the whole field"):
        sl.imaging.smooth_ratio(*empty)
    assert kernel_correlation(SMOOTHED).shape[0] % 2 == 1
