"""The sky of an image: what is taken for sky, the level, its error, and what is done with it."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.image import Mode
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.sky import background as sky
from skyloom.imaging.sky import wings
from skyloom.imaging.sky.level_error import level_error
from skyloom.imaging.sky.sources import detect_sources, find_excursions, grow_mask, lower_envelope
from skyloom.imaging.sky.wings import WingFit, fit_wings, unbinned, wing_templates
from tests.inputs.sky import filtered_noise, galaxy_field, sky_image
from tests.invariants import check_invariants
from tests.oracles import sky as oracles_sky

FIGURES = ("level", "error", "statistical", "systematic", "light_level", "plain_level", "scatter")


@pytest.fixture
def field(rng):
    return galaxy_field(rng, "ir") + filtered_noise(rng, 1.3) + 5.0


@pytest.fixture
def image(field):
    return sky_image(field, fwhm=3.0)


def blob(shape=(100, 100), centre=(50, 50), sigma=5.0, peak=100.0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return peak * np.exp(-0.5 * ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / sigma**2)


# --- pieces, against naive twins -----------------------------------------------------------------------


def test_lower_envelope_equals_its_naive_twin(rng):
    values = np.concatenate([rng.normal(3.0, 2.0, 3000), 3.0 + rng.exponential(20.0, 1500)])
    assert lower_envelope(values) == pytest.approx(oracles_sky.lower_envelope(values))


def test_lower_envelope_finds_the_sky_below_as_many_pixels_of_sources(rng):
    values = np.concatenate([rng.normal(0.0, 1.0, 5000), rng.exponential(10.0, 5000)])
    level, scatter = lower_envelope(values)
    assert abs(level) < 0.5
    assert scatter == pytest.approx(1.0, abs=0.3)
    assert np.median(values) > 1.0


def test_lower_envelope_of_equal_values_is_that_value():
    assert lower_envelope(np.full(100, 7.0)) == (7.0, 0.0)


@pytest.mark.parametrize("shape", [(30, 41), (31, 40)])
def test_templates_are_detected_light_spread_pixel_by_pixel(shape):
    light = np.zeros(shape)
    light[5, 7], light[20, 30], light[21, 30] = 3.0, 1.0, 2.0
    factor, templates = wing_templates(light, 4.0, (1.25, 2.0))
    assert factor == 1
    for slope, template in zip((1.25, 2.0), templates, strict=True):
        expected = oracles_sky.spread_light(light, 4.0, slope)
        np.testing.assert_allclose(template / template.sum(), expected / expected.sum(), rtol=2e-4)


def test_binned_templates_of_large_images_stay_close(monkeypatch):
    light = blob((120, 120), sigma=6.0)
    exact = oracles_sky.spread_light(np.where(light > 1, light, 0.0), 20.0, 1.5)
    monkeypatch.setattr(wings, "LARGEST_SIDE", 40)
    factor, (template,) = wing_templates(np.where(light > 1, light, 0.0), 20.0, (1.5,))
    assert factor == 3
    ratio = unbinned(template, factor, light.shape) / exact
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.15
    assert np.std(ratio) / np.mean(ratio) < 0.06


def test_wing_fit_is_least_squares_with_its_weights(rng):
    template = rng.exponential(1.0, 400)
    values = 2.0 + 0.7 * template + rng.normal(0, 0.1, 400)
    fit = fit_wings(values, template, 2.0, 0.5, clip=np.inf)
    matrix = np.stack([np.ones(400), template], axis=1)
    level, amplitude = np.linalg.lstsq(matrix, values, rcond=None)[0]
    assert fit.level == pytest.approx(level)
    assert fit.amplitude == pytest.approx(amplitude)
    assert fit.weights @ values == pytest.approx(level)
    assert fit.weights.sum() == pytest.approx(1.0)


def test_sources_take_no_light_away(rng):
    template = rng.exponential(1.0, 400)
    fit = fit_wings(2.0 - 0.7 * template, template, 1.3, 1.0, clip=np.inf)
    assert fit.amplitude == 0.0
    assert fit.level == pytest.approx(np.mean(2.0 - 0.7 * template))


def test_error_of_the_level_equals_all_pairs(rng):
    shape = (14, 15)
    correlation = np.outer([0.3, 1, 0.3], [0.3, 1, 0.3])
    picked = rng.random(shape) < 0.7
    rows, columns = np.nonzero(picked)
    used = rng.random(rows.size) < 0.9
    weights = rng.uniform(0.5, 1.5, np.count_nonzero(used))
    weights /= weights.sum()
    fit = WingFit(0.0, 1.0, weights, used, np.zeros(rows.size), 1.0)
    plane = np.zeros(shape)
    plane[rows[used], columns[used]] = weights
    expected = oracles_sky.weighted_sum_variance(plane, correlation, np.full(shape, 4.0))
    image = sky_image(np.zeros(shape), correlation=correlation)
    assert level_error(image, (rows, columns), fit, 2.0) == pytest.approx(np.sqrt(expected), rel=1e-5)


def test_sky_that_differs_between_blocks_enlarges_the_error(rng):
    flat = sky_image(rng.normal(size=(100, 100)))
    ripple = flat.evolve(data=flat.data + np.repeat(rng.normal(0, 0.2, (100, 5)), 20, axis=1))
    uneven = flat.evolve(data=flat.data + np.kron(rng.normal(0, 0.2, (5, 5)), np.ones((20, 20))))
    options = {"threshold": np.inf, "wings": "none"}
    quiet = sky.measure_background(flat, **options).statistical
    assert quiet == pytest.approx(0.01, rel=0.4)
    assert sky.measure_background(uneven, **options).statistical > 3 * quiet
    assert sky.measure_background(ripple, **options).statistical > quiet


# --- sources ---------------------------------------------------------------------------------------------


def test_sources_are_found_whatever_the_claimed_variance(rng):
    data = rng.normal(size=(100, 100)) + blob(sigma=2.0, peak=10.0)
    image = sky_image(data)
    found = detect_sources(image)
    assert found[50, 50]
    assert found.mean() < 0.05
    # Weights of drizzled images understate the noise by any factor: the scatter that is seen decides.
    again = detect_sources(image.evolve(variance=np.full(data.shape, 100.0)))
    np.testing.assert_array_equal(again, found)


def test_uneven_noise_is_no_source(rng):
    noise = np.where(np.arange(100) < 50, 1.0, 5.0) * np.ones((100, 1))
    image = sky_image(rng.normal(size=(100, 100)) * noise)
    found = detect_sources(image.evolve(variance=noise**2))
    assert found.mean() < 0.01
    assert detect_sources(image).mean() > found.mean()


def test_masked_pixels_are_no_sources_and_hide_none(rng):
    data = rng.normal(size=(60, 60)) + blob((60, 60), (30, 30), 3.0, 20.0)
    mask = np.zeros(data.shape, bool)
    mask[:, 28] = True
    data[mask] = np.nan
    found = detect_sources(sky_image(data, mask=mask))
    assert not found[mask].any()
    assert found[30, 27]
    assert found[30, 30]


def test_excursions_below_the_sky_are_seen(rng):
    data = rng.normal(size=(100, 100)) - blob(sigma=3.0, peak=5.0)
    excursions = find_excursions(sky_image(data))
    assert excursions.lowest[50, 50] < -8
    assert excursions.highest[50, 50] < 3


@pytest.mark.parametrize("radius", [0.35, 0.9, 2.0])
def test_growth_is_euclidean(rng, radius):
    mask = rng.random((40, 43)) < 0.01
    found = grow_mask(mask, radius, (0.1, 0.14))
    np.testing.assert_array_equal(found, oracles_sky.grown(mask, radius / 0.1, radius / 0.14))
    np.testing.assert_array_equal(grow_mask(mask, 0.0), mask)


# --- the level -------------------------------------------------------------------------------------------


def test_given_pixels_alone_give_their_clipped_mean(rng):
    data = rng.normal(size=(80, 90))
    data[:, :40] += 50.0
    outside = np.ones(data.shape, bool)
    outside[:, 40:] = False
    found = sky.measure_background(
        sky_image(data), source_mask=outside, threshold=np.inf, grow_arcsec=0.0, wings="none", clip=np.inf
    )
    np.testing.assert_array_equal(found.sky_mask, ~outside)
    assert found.level == pytest.approx(data[~outside].mean())
    assert found.scatter == pytest.approx(data[~outside].std())
    assert found.n_pixels == np.count_nonzero(~outside)


def test_scaling_and_shifting_the_image_scales_and_shifts_the_sky(image):
    first = sky.measure_background(image)
    second = sky.measure_background(image.evolve(data=4.0 * image.data - 3.0, variance=16.0 * image.variance))
    assert second.level == pytest.approx(4.0 * first.level - 3.0, abs=2e-3 * first.scatter)
    assert second.error == pytest.approx(4.0 * first.error, rel=1e-2)


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_images_have_the_same_sky(image, axis):
    first = sky.measure_background(image)
    second = sky.measure_background(image.evolve(data=np.flip(image.data, axis).copy()))
    assert second.level == pytest.approx(first.level, abs=0.3 * first.error)


def test_what_lies_under_the_mask_changes_nothing(image, rng):
    mask = rng.random(image.shape) < 0.05
    results = []
    for garbage in (0.0, np.nan, np.inf, 1e30):
        data, variance = image.data.copy(), image.variance.copy()
        data[mask] = variance[mask] = garbage
        found = sky.measure_background(image.evolve(data=data, variance=variance, mask=mask))
        assert not (found.sky_mask & mask).any()
        results.append([getattr(found, figure) for figure in FIGURES])
    np.testing.assert_array_equal(results, [results[0]] * 4)


def test_float32_and_float64_agree(image):
    single = image.evolve(data=image.data.astype(np.float32), variance=image.variance.astype(np.float32))
    found, expected = sky.measure_background(single), sky.measure_background(image)
    assert found.level == pytest.approx(expected.level, abs=0.02 * expected.error)


def test_error_has_its_two_parts_and_uses_the_correlation_of_the_image(image, field):
    found = sky.measure_background(image)
    assert found.error == pytest.approx(np.hypot(found.statistical, found.systematic))
    assert found.plain_level > found.level
    assert found.light_level > found.plain_level
    half = 0.5 * (found.light_level - found.level)
    assert found.systematic == pytest.approx(np.hypot(half, found.parameters["wing_spread"]))
    wide = np.full((21, 21), 0.2)
    wide[10, 10] = 1.0
    correlated = sky.measure_background(image.evolve(correlation=wide))
    assert correlated.statistical > found.statistical
    assert correlated.level == found.level


def test_histogram_counts_the_sky_pixels(image):
    found = sky.measure_background(image)
    assert found.histogram.edges.size == found.histogram.counts.size + 1
    values = image.data[found.sky_mask]
    expected, _ = np.histogram(values, found.histogram.edges)
    np.testing.assert_allclose(found.histogram.counts, expected, atol=2)
    # The pixels that a single median would have been taken from hold more light.
    surplus = found.histogram.light_counts - found.histogram.counts
    assert surplus[found.histogram.edges[1:] > found.level + 2 * found.scatter].sum() > 0
    assert found.histogram.light_counts.sum() > found.histogram.counts.sum()


def test_a_source_mask_joins_the_detections(rng):
    data = rng.normal(size=(100, 100)) + blob(peak=30.0)
    known = np.zeros(data.shape, bool)
    known[:20] = True
    found = sky.measure_background(sky_image(data), source_mask=known)
    assert not found.sky_mask[:22].any()
    assert not found.sky_mask[50, 50]


def test_description_is_plain(image):
    described = sky.measure_background(image).describe()
    assert described["method"] == "constant"
    assert described["unit"] == "electron / s"
    assert all(isinstance(value, (str, int, float)) for value in described.values())


def test_crowded_image_relaxes_the_growth_before_it_gives_up(rng):
    data = rng.normal(size=(40, 40))
    crowded = np.zeros(data.shape, bool)
    crowded[::5, ::5] = True
    found = sky.measure_background(sky_image(data), source_mask=crowded, grow_arcsec=0.4, threshold=np.inf)
    assert found.parameters["grow_pixels"] < 0.4 / 0.06


# --- bad input ---------------------------------------------------------------------------------------------


def test_no_sky_left_is_an_error_with_a_remedy(rng):
    with pytest.raises(InputError, match="usable pixels outside the source mask"):
        sky.measure_background(sky_image(rng.normal(size=(50, 50))), source_mask=np.ones((50, 50), bool))
    covered = np.ones((50, 50), bool)
    covered[:6, :10] = False
    with pytest.raises(InputError, match=r"\d\d sky pixels are left.*give the sky as a value"):
        sky.measure_background(sky_image(rng.normal(size=(50, 50))), source_mask=covered)


def test_source_mask_must_fit(image):
    with pytest.raises(ShapeError, match=r"source_mask has shape \(3, 3\); expected \(100, 100\)"):
        sky.measure_background(image, source_mask=np.zeros((3, 3), bool))
    with pytest.raises(InputError, match="source_mask has type int"):
        sky.measure_background(image, source_mask=np.zeros(image.shape, int))


@pytest.mark.parametrize(
    "options",
    [
        {"method": "median"},
        {"wings": "maybe"},
        {"method": "value"},
        {"value": 3.0},
        {"method": "value", "value": 3.0, "value_error": -1.0},
        {"value_error": 1.0},
    ],
)
def test_contradictory_options_are_refused(image, options):
    with pytest.raises(InputError):
        sky.measure_background(image, **options)


def test_growth_in_arcsec_needs_a_wcs(rng):
    image = sky_image(rng.normal(size=(50, 50))).evolve(wcs=None)
    with pytest.raises(InputError, match="WCS"):
        sky.measure_background(image, grow_arcsec=0.2)
    assert sky.measure_background(image).n_pixels > 1000


# --- given value, mesh ---------------------------------------------------------------------------------------


def test_a_given_value_is_taken_and_the_measured_one_kept_beside(image):
    measured = sky.measure_background(image)
    found = sky.measure_background(image, method="value", value=4.2, value_error=0.1)
    assert (found.level, found.error, found.method) == (4.2, 0.1, "value")
    assert found.parameters["measured_level"] == measured.level
    assert found.parameters["measured_error"] == measured.error
    assert found.histogram is not None
    borrowed = sky.measure_background(image, method="value", value=4.2)
    assert borrowed.error == measured.error


def test_a_given_value_needs_an_error_where_none_can_be_measured(rng):
    image = sky_image(rng.normal(size=(9, 9)))
    found = sky.measure_background(image, method="value", value=1.0, value_error=0.2)
    assert (found.level, found.error, found.histogram) == (1.0, 0.2, None)
    assert sky.subtract_background(image, found).data.mean() == pytest.approx(image.data.mean() - 1.0)
    with pytest.raises(InputError, match="give value_error"):
        sky.measure_background(image, method="value", value=1.0)


def test_mesh_follows_a_gradient(rng):
    y, x = np.mgrid[:200, :200] / 200
    truth = 10.0 + 3.0 * x - 2.0 * y + 1.5 * x * y
    data = truth + rng.normal(0, 0.5, truth.shape) + blob(truth.shape, (70, 120), 4.0, 60.0)
    found = sky.measure_background(sky_image(data), method="mesh", mesh_arcsec=40 * 0.06)
    assert found.map.shape == data.shape
    difference = found.map - truth
    assert np.abs(difference).max() < 0.25
    assert abs(difference.mean()) < 0.02
    assert found.level == pytest.approx(found.map.mean())
    assert found.parameters["cells_x"] == 5
    assert np.all(found.error_map > 0)


def test_mesh_cells_without_sky_borrow_from_their_neighbours(rng):
    data = rng.normal(size=(128, 128))
    hidden = np.zeros(data.shape, bool)
    hidden[:32, :32] = True
    found = sky.measure_background(sky_image(data), source_mask=hidden, method="mesh", mesh_arcsec=32 * 0.06)
    assert np.abs(found.map[:32, :32]).max() < 1.0
    assert found.error_map[10, 10] > 1.5 * found.error_map[80, 80]
    hidden[:, :90] = True
    with pytest.raises(InputError, match="cells hold too little sky"):
        sky.measure_background(sky_image(data), source_mask=hidden, method="mesh", mesh_arcsec=32 * 0.06)


# --- subtraction -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["constant", "mesh"])
def test_subtraction_keeps_what_an_operation_must_keep(image, rng, method):
    mask = rng.random(image.shape) < 0.02
    kernel = np.outer([0.3, 1, 0.3], [0.3, 1, 0.3])
    full = image.evolve(
        mask=mask,
        correlation=kernel,
        flags=np.zeros(image.shape, np.uint16),
        modes=(Mode("slope", 1.0, 0.1),),
        meta={"band": "f160w"},
    )
    result = check_invariants(
        lambda given: sky.subtract_background(given, method=method), full, tolerance=5e-3
    )
    assert [mode.name for mode in result.modes] == ["slope", "sky"]
    assert result.history[-1].name == "subtract_background"
    assert result.history[-1].parameters["level"] == pytest.approx(5.0, abs=1.0)


def test_subtraction_records_the_error_as_a_shared_mode(image):
    measured = sky.measure_background(image)
    result = sky.subtract_background(image, measured)
    np.testing.assert_allclose(result.data, image.data - measured.level)
    assert result.modes[-1] == Mode("sky", 1.0, measured.error)
    mesh = sky.measure_background(image, method="mesh")
    shared = sky.subtract_background(image, mesh).modes[-1]
    np.testing.assert_allclose(shared.map * shared.sigma, mesh.error_map)


def test_subtraction_of_nothing_adds_no_mode(image):
    found = sky.subtract_background(image, method="value", value=0.0, value_error=0.0)
    assert found.modes == ()
    np.testing.assert_array_equal(found.data, image.data)


def test_subtraction_refuses_what_does_not_fit(image):
    measured = sky.measure_background(image)
    with pytest.raises(InputError, match="exclude each other"):
        sky.subtract_background(image, measured, method="mesh")
    with pytest.raises(ShapeError, match=r"the background has shape \(100, 100\)"):
        sky.subtract_background(sky_image(np.ones((90, 90))), measured)


@pytest.fixture
def winged(rng):
    """Three galaxies with wings well above the noise."""
    light = np.zeros((100, 100))
    for centre, flux in (((50, 48), 6e3), ((20, 80), 1e3), ((85, 15), 5e2)):
        y, x = np.mgrid[:100, :100] - np.asarray(centre)[:, None, None]
        profile = (1 + (x**2 + y**2) / 4.0**2) ** -1.5
        light += flux * profile / profile.sum()
    return sky_image(light + 0.1 * rng.normal(size=light.shape) + 5.0, fwhm=3.0)


def test_empty_sky_has_neither_pedestal_nor_wings(winged):
    measured = sky.measure_background(winged)
    bare, sources = sky.empty_sky(winged, measured)
    np.testing.assert_array_equal(sources, ~measured.sky_mask)
    wings_left = np.mean(winged.data[~sources]) - measured.level
    assert wings_left > 3 * measured.statistical
    assert abs(np.mean(bare.data[~sources])) < 0.2 * wings_left


def test_trend_shows_wings_and_that_the_fitted_level_does_not_follow_them(winged):
    rows = sky.sky_trend(winged)
    plain = np.array([row["plain_level"] for row in rows])
    level = np.array([row["level"] for row in rows])
    assert len(rows) >= 6
    assert np.ptp(level) < 0.5 * np.ptp(plain)
    assert np.abs(level - 5.0).max() < 0.5 * (plain - 5.0).min() + 0.1
    bare = np.array([row["grow_pixels"] == 0.0 for row in rows])
    assert plain.max() == plain[bare].max()
