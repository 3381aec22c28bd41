"""Labels on another grid, regions in two images, running medians, empty regions, power spectra."""

from __future__ import annotations

import dataclasses

import astropy.units as u
import numpy as np
import pytest
from scipy import ndimage

from skyloom.core.image import Image, Mode
from skyloom.core.labels import UNKNOWN, LabelMap
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.grids.label_grids import beyond_grid, move_labels
from skyloom.imaging.measure.comparison import (
    RegionFlag,
    compare_regions,
    region_statistics,
    running_median,
    scatter_of,
)
from skyloom.imaging.measure.empty_regions import empty_regions
from skyloom.imaging.measure.power_spectrum import power_spectrum
from tests.inputs.quality import UNIT, quality_scene, turned_wcs
from tests.oracles.regions_halpha import labels_by_sky


@pytest.fixture(scope="module")
def scene():
    return quality_scene(n_nebulae=16, size=240)


def flat(shape, wcs, **changes):
    plane = np.ones(shape)
    return Image(plane, plane, np.zeros(shape, bool), UNIT, wcs, **changes)


# --- labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, 25.0, 90.0, 137.0])
def test_labels_go_to_the_pixel_in_which_a_centre_lies(angle, rng):
    labels = LabelMap(rng.integers(-1, 50, (40, 50)).astype(np.int32), turned_wcs((40, 50), 0.2, -8.0))
    wcs, shape = turned_wcs((230, 210), 0.04, angle), (230, 210)
    moved = move_labels(labels, (wcs, shape))
    expected = labels_by_sky(labels, wcs, shape)
    # Centres within 1e-6 of a border may fall on either side.
    assert np.count_nonzero(moved.labels != expected) <= 2
    assert moved.wcs is wcs
    assert moved.history[-1].name == "move_labels"


def test_labels_follow_distortions_that_no_spline_does(rng):
    from astropy.wcs import DistortionLookupTable

    shape = (60, 64)
    table = rng.uniform(-0.4, 0.4, (60, 64)).astype(np.float32)
    wcs = turned_wcs(shape, 0.2, 10.0)
    wcs.cpdis1 = DistortionLookupTable(table, (1, 1), (1, 1), (1, 1))
    labels = LabelMap(np.arange(60 * 64, dtype=np.int32).reshape(shape), turned_wcs(shape, 0.2, 0.0))
    moved = move_labels(labels, (wcs, shape)).labels
    expected = labels_by_sky(labels, wcs, shape)
    assert np.count_nonzero(moved != expected) <= 2
    assert np.count_nonzero(expected >= 0) > 1000


def test_beyond_the_map_labels_are_unknown_not_none():
    labels = LabelMap(np.zeros((10, 10), np.int32), turned_wcs((10, 10), 0.2, 0.0))
    moved = move_labels(labels, (turned_wcs((100, 100), 0.04, 0.0), (100, 100))).labels
    assert moved[50, 50] == 0
    assert moved[0, 0] == UNKNOWN
    outside = beyond_grid(labels, (turned_wcs((40, 30), 0.04, 0.0), (40, 30)))
    assert outside[0, 0]
    assert not outside[5, 5]
    assert 0 < outside.sum() < outside.size


def test_a_map_of_another_field_is_told_so():
    labels = LabelMap(np.zeros((10, 10), np.int32), turned_wcs((10, 10), 0.2, 0.0))
    far = turned_wcs((20, 20), 0.04, 0.0)
    far.wcs.crval = [24.5, 15.78]
    with pytest.raises(InputError, match="overlap"):
        move_labels(labels, (far, (20, 20)))


# --- regions ----------------------------------------------------------------------------------------


def test_flags_tell_what_is_cut_or_masked(scene):
    mask = scene.sharp.mask.copy()
    labels = scene.labels
    moved = move_labels(labels, scene.sharp).labels
    rows, columns = np.nonzero(moved == 6)
    mask[rows[: rows.size // 2], columns[: rows.size // 2]] = True
    mask[moved == 7] = True
    reference_mask = scene.blurred.mask.copy()
    reference_mask[labels.labels == 11] = True
    small = Image(
        scene.sharp.data[40:], scene.sharp.variance[40:], mask[40:], UNIT, scene.sharp.wcs[40:, :],
        correlation=scene.sharp.correlation,
    )  # fmt: skip
    table = compare_regions(small, scene.blurred.evolve(mask=reference_mask), labels)
    flag = dict(zip(table["label"], table["flag"], strict=True))
    assert flag[6] == RegionFlag.MASKED
    assert flag[7] == RegionFlag.MASKED | RegionFlag.NOT_SEEN
    assert flag[11] == RegionFlag.MASKED_IN_REFERENCE
    cut = [label for label, bits in flag.items() if bits & RegionFlag.BORDER]
    below = np.unique(moved[:40])
    assert set(below[below >= 0]) <= set(cut)
    assert set(cut) <= {1, 2, 3, 4, *np.unique(moved[:50])}
    assert 0 < len(cut) < len(table)
    assert list(table["whole"]) == [bits == 0 for bits in table["flag"]]
    row = table[list(table["label"]).index(7)]
    assert np.isnan(row["flux"])
    assert row["lost_share"] == 1.0


def test_every_column_has_its_unit_and_meaning(scene):
    table = compare_regions(scene.sharp, scene.blurred, scene.labels)
    flux = "1e-20 erg / (s cm2)"
    for name in ("flux", "flux_err", "reference_flux", "reference_flux_err", "difference", "difference_err"):
        assert table[name].unit.is_equivalent(flux)
        assert table[name].unit.to(flux) == 1.0
    assert table["ra"].unit == "deg"
    assert table["area"].unit == "arcsec2"
    for name in table.colnames:
        assert table[name].info.description or name.endswith("_err")


def test_without_a_reference_there_are_fluxes_alone(scene):
    table = compare_regions(scene.sharp, None, scene.labels)
    assert "pull" not in table.colnames
    assert np.all(np.isfinite(table["flux"]))


def test_statistics_are_of_whole_regions(scene):
    table = compare_regions(scene.sharp, scene.blurred, scene.labels)
    table["ratio"] = np.linspace(0.5, 1.5, len(table))
    table["whole"] = table["ratio"] < 1.0
    found = region_statistics(table)
    assert found.n_regions == 16
    assert found.n_whole == 8
    assert found.ratio == pytest.approx(np.median(table["ratio"][:8]))
    table["whole"] = False
    assert np.isnan(region_statistics(table).ratio)


def test_no_labels_is_an_error(scene):
    nothing = scene.labels.evolve(labels=np.full(scene.labels.shape, -1, np.int32))
    with pytest.raises(InputError, match="no labels"):
        compare_regions(scene.sharp, scene.blurred, nothing)


# --- pixels -----------------------------------------------------------------------------------------


def test_running_medians_follow_a_line(rng):
    shape = (80, 80)
    wcs = turned_wcs(shape, 0.2, 0.0)
    reference = flat(shape, wcs).evolve(data=rng.exponential(100.0, shape))
    image = reference.evolve(data=1.5 * reference.data + 7 + rng.normal(size=shape))
    table = running_median(image, reference)
    assert len(table) > 15
    assert table["n_pixels"].sum() > 0.95 * 80 * 80
    inner = table[2:-6]
    expected = 1.5 * inner["reference"].value + 7
    width = np.gradient(inner["reference"].value)
    assert np.all(np.abs(inner["median"].value - expected) < 0.3 + 0.2 * np.abs(width))
    with pytest.raises(ShapeError):
        running_median(image, flat((3, 3), wcs))


# --- empty regions ----------------------------------------------------------------------------------


def noise_image(rng, shape=(700, 720), sigma=3.0, correlated=True, gradient=0.0):
    kernel = np.array([0.25, 0.5, 0.25]) if correlated else np.array([0.0, 1.0, 0.0])
    grain = rng.normal(size=shape)
    for axis in (0, 1):
        grain = ndimage.convolve1d(grain, kernel, axis=axis, mode="wrap")
    rho = np.convolve(kernel, kernel[::-1]) / (kernel**2).sum()
    data = sigma * grain / (kernel**2).sum() + gradient * np.arange(shape[1])
    variance = np.full(shape, sigma**2)
    wcs = turned_wcs(shape, 0.04, 0.0)
    return Image(data, variance, np.zeros(shape, bool), UNIT, wcs, correlation=np.outer(rho, rho))


def test_empty_boxes_scatter_as_claimed_with_correlation_and_gradient(rng):
    found = empty_regions(noise_image(rng, gradient=0.5))
    assert list(found.table["size"].value) == [1, 5, 20]
    pull = (np.asarray(found.table["ratio"]) - 1.0) / np.asarray(found.table["ratio_err"])
    assert np.all(np.abs(pull) < 3.0)
    assert found.table["scatter"].unit.is_equivalent(UNIT)
    # Without the correlation the sums over 5 and 20 pixels are noisier than claimed by its integral.
    blind = empty_regions(noise_image(rng).evolve(correlation=None))
    assert np.all(np.asarray(blind.table["ratio"])[1:] > 1.5)


def test_a_wrong_variance_shows_in_empty_boxes(rng):
    image = noise_image(rng, correlated=False)
    found = empty_regions(image.evolve(variance=4.0 * image.variance))
    assert np.all(np.abs(np.asarray(found.table["ratio"]) - 0.5) < 3 * np.asarray(found.table["ratio_err"]))


def test_sources_and_masks_are_left_out(rng):
    image = noise_image(rng, shape=(300, 300))
    data = image.data.copy()
    sources = np.zeros(image.shape, bool)
    sources[100:200, 50:250] = True
    data[sources] += rng.normal(0, 1000, sources.sum())
    mask = np.zeros(image.shape, bool)
    mask[:50] = True
    data[:50] = np.nan
    dirty = image.evolve(data=data, mask=mask)
    found = empty_regions(dirty, sources, sizes=(1, 5))
    assert np.all(np.abs(np.asarray(found.table["ratio"]) - 1) < 4 * np.asarray(found.table["ratio_err"]))
    assert max(abs(found.pulls[1]).max(), abs(found.pulls[5]).max()) < 7
    with pytest.raises(ShapeError):
        empty_regions(dirty, sources[:5])
    nothing = empty_regions(dirty, np.ones(image.shape, bool))
    assert np.all(nothing.table["n_boxes"] == 0)


def test_scatter_is_that_of_gaussian_values(rng):
    assert scatter_of(rng.normal(0, 3, 20000)) == pytest.approx(3.0, rel=0.03)
    assert np.isnan(scatter_of(np.zeros(0)))


# --- power spectra ----------------------------------------------------------------------------------


def test_white_noise_has_the_power_of_its_variance(rng):
    image = noise_image(rng, shape=(256, 200), correlated=False)
    table = power_spectrum(image).table
    expected = 9.0 * 0.04**2
    assert np.allclose(table["noise"].value, expected, rtol=1e-3)
    pull = (table["power"].value - expected) / table["power_err"].value
    assert np.all(np.abs(pull[table["n_modes"] > 20]) < 5)
    assert np.average(table["power"].value, weights=table["n_modes"]) == pytest.approx(expected, rel=0.02)
    assert table["power"].unit == u.Unit(UNIT) ** 2 * u.arcsec**2


def test_noise_floor_follows_the_correlation(rng):
    table = power_spectrum(noise_image(rng, shape=(400, 400))).table
    many = table["n_modes"] > 2000
    ratio = (table["power"] / table["noise"]).value[many]
    assert table["noise"].value[many].max() > 5 * table["noise"].value[many].min()
    assert np.all(np.abs(ratio[:-2] - 1) < 0.15)


def test_a_wave_shows_at_its_frequency_in_a_turned_field(rng):
    shape = (300, 300)
    rows, columns = np.mgrid[:300, :300]
    mask = np.abs(rows - 150) + np.abs(columns - 150) > 145
    data = 5 * np.sin(2 * np.pi * (columns * 0.6 + rows * 0.8) * 0.1) + rng.normal(size=shape)
    image = flat(shape, turned_wcs(shape, 0.2, 30.0)).evolve(data=np.where(mask, np.nan, data), mask=mask)
    table = power_spectrum(image).table
    peak = table["frequency"].value[np.argmax(table["power"].value)]
    assert peak == pytest.approx(0.1 / 0.2, rel=0.06)


def test_large_images_are_averaged_in_pieces(rng, monkeypatch):
    import skyloom.imaging.measure.power_spectrum as module

    image = noise_image(rng, shape=(256, 256), correlated=False)
    monkeypatch.setattr(module, "SEGMENT", 128)
    table = power_spectrum(image).table
    assert np.average(table["power"].value, weights=table["n_modes"]) == pytest.approx(9 * 0.04**2, rel=0.03)
    nothing = dataclasses.replace(image, mask=np.ones(image.shape, bool))
    with pytest.raises(InputError, match="usable"):
        power_spectrum(nothing)


def test_shared_errors_enter_the_errors_of_regions(scene):
    plain = compare_regions(scene.sharp, scene.blurred, scene.labels)
    shared = scene.sharp.evolve(modes=(Mode("sky", 1.0, 50.0),))
    table = compare_regions(shared, scene.blurred, scene.labels)
    added = np.sqrt(table["flux_err"] ** 2 - plain["flux_err"] ** 2).value
    assert added == pytest.approx(50.0 * table["n_pixels"] * 0.04**2, rel=1e-5)
