"""Sums over regions and apertures: every pixel once, every pair in the error, every shared error."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.image import Image, Mode
from skyloom.core.labels import LabelMap
from skyloom.core.noise import autocorrelate
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.measure.regions import sum_apertures, sum_regions
from tests.inputs.sky import sky_image, tangent_wcs
from tests.oracles import sky as oracles_sky


@pytest.fixture
def correlation():
    rho = autocorrelate(np.outer([0.4, 1.0, 0.4], [0.3, 1.0, 0.3]))
    return rho / rho.max()


@pytest.fixture
def image(rng, correlation):
    shape = (17, 19)
    pattern = rng.normal(size=shape)
    mask = rng.random(shape) < 0.1
    data, variance = rng.normal(5, 2, shape), rng.uniform(0.5, 2, shape)
    data[mask] = variance[mask] = np.nan
    return Image(
        data,
        variance,
        mask,
        "electron/s",
        tangent_wcs(shape),
        correlation=correlation,
        modes=(Mode("sky", 1.0, 0.05), Mode("slope", pattern, 0.1)),
    )


@pytest.fixture
def labels(rng):
    regions = rng.integers(-2, 4, (17, 19)).astype(np.int32)
    regions[:8, :8] = 7
    return regions


@pytest.mark.parametrize("white", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_sums_equal_pixel_by_pixel_pair_by_pair(image, labels, white, shared):
    image = image.evolve(
        correlation=None if white else image.correlation, modes=image.modes if shared else ()
    )
    table = sum_regions(image, labels)
    expected = oracles_sky.region_sums(image, labels, np.ones(image.shape))
    assert list(table["label"]) == sorted(expected)
    for row in table:
        n_pixels, n_masked, flux, error = expected[int(row["label"])]
        assert (row["n_pixels"], row["n_masked"]) == (n_pixels, n_masked)
        assert row["flux"].value == pytest.approx(flux)
        assert row["flux_err"].value == pytest.approx(error, rel=3e-7)
        assert row["flux"].unit == u.electron / u.s


def test_float32_sums_do_not_lose_digits(rng):
    data = (1e4 + rng.normal(size=(300, 300))).astype(np.float32)
    image = sky_image(data, dtype=np.float32)
    (row,) = sum_regions(image, np.zeros(data.shape, np.int32))
    assert row["flux"].value == pytest.approx(data.astype(np.float64).sum(), rel=1e-12)


def test_a_label_map_serves_as_labels(image, labels):
    first, second = sum_regions(image, labels), sum_regions(image, LabelMap(labels))
    np.testing.assert_array_equal(first["flux"].value, second["flux"].value)


def test_large_label_numbers_cost_no_memory(image, labels):
    far = np.where(labels >= 0, labels + 2_000_000_000, labels)
    table = sum_regions(image, far)
    np.testing.assert_array_equal(table["label"] - 2_000_000_000, sum_regions(image, labels)["label"])
    np.testing.assert_array_equal(table["flux"].value, sum_regions(image, labels)["flux"].value)


def test_negative_labels_are_no_region(image):
    table = sum_regions(image, np.full(image.shape, -1, np.int32))
    assert len(table) == 0
    assert table.colnames == ["label", "n_pixels", "n_masked", "flux", "flux_err"]
    assert table["flux"].unit == u.electron / u.s


def test_a_region_without_usable_pixels_is_unknown_not_zero(image, labels):
    covered = image.evolve(mask=image.mask | (labels == 2))
    table = sum_regions(covered, labels)
    row = table[table["label"] == 2][0]
    assert row["n_pixels"] == 0
    assert row["n_masked"] == np.count_nonzero(labels == 2)
    assert np.isnan(row["flux"])
    assert np.isnan(row["flux_err"])
    others = table["label"] != 2
    assert np.all(np.isfinite(table["flux"][others]))


def test_inputs_stay_as_they_are(image, labels):
    before = labels.copy(), image.data.copy()
    sum_regions(image, labels)
    np.testing.assert_array_equal(labels, before[0])
    np.testing.assert_array_equal(image.data, before[1])


def test_labels_must_fit(image, labels):
    with pytest.raises(ShapeError, match=r"\(3, 3\); expected \(17, 19\)"):
        sum_regions(image, np.zeros((3, 3), np.int32))
    with pytest.raises(InputError, match="expected integers"):
        sum_regions(image, labels.astype(float))


# --- surface brightness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["1e-20 erg / (s cm2 AA arcsec2)", "MJy / sr"])
def test_surface_brightness_is_multiplied_with_the_area_of_each_pixel(image, labels, unit):
    surface = image.evolve(unit=u.Unit(unit))
    areas = np.full(image.shape, 0.06**2)
    per = u.arcsec**2 if "arcsec" in unit else u.sr
    table = sum_regions(surface, labels)
    expected = oracles_sky.region_sums(surface, labels, (areas * u.arcsec**2).to_value(per))
    assert table["flux"].unit == u.Unit(unit) * per
    for row in table:
        _, _, flux, error = expected[int(row["label"])]
        assert row["flux"].value == pytest.approx(flux, rel=1e-6)
        assert row["flux_err"].value == pytest.approx(error, rel=1e-6)


def test_distortions_change_the_area_of_pixels():
    from astropy.wcs import Sip

    shape = (60, 60)
    wcs = tangent_wcs(shape)
    quadratic = np.zeros((3, 3))
    quadratic[2, 0] = 2e-3
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.sip = Sip(quadratic, np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((3, 3)), wcs.wcs.crpix)
    wcs.wcs.set()
    image = Image(np.ones(shape), np.ones(shape), None, "electron / (s arcsec2)", wcs)
    labels = np.full(shape, -1, np.int32)
    labels[:, 0], labels[:, -1] = 0, 1
    flux = sum_regions(image, labels)["flux"].value
    assert flux[0] == pytest.approx(60 * 0.06**2 * (1 - 2 * 2e-3 * 29.5), rel=1e-4)
    assert flux[1] == pytest.approx(60 * 0.06**2 * (1 + 2 * 2e-3 * 29.5), rel=1e-4)


def test_surface_brightness_without_a_wcs_is_an_error(image, labels):
    with pytest.raises(InputError, match="WCS"):
        sum_regions(image.evolve(unit=u.Unit("MJy / sr"), wcs=None), labels)


# --- apertures -------------------------------------------------------------------------------------------


def test_apertures_have_the_exact_area_and_flux(rng, correlation):
    flat = sky_image(np.full((41, 43), 2.0), correlation=correlation)
    table = sum_apertures(flat, [20.0, 15.3, 25.9], [20.0, 22.7, 18.1], [5.0, 0.4, 7.3])
    np.testing.assert_allclose(table["area"], np.pi * table["radius"] ** 2, rtol=1e-8)
    np.testing.assert_allclose(table["masked_area"], 0.0, atol=1e-6)
    np.testing.assert_allclose(table["flux"].value, 2.0 * np.pi * table["radius"] ** 2, rtol=1e-8)


def test_error_of_an_aperture_equals_all_pairs(image):
    from skyloom.core.apertures import circle_overlap

    weights = np.where(image.mask, 0.0, circle_overlap(image.shape, 8.2, 9.1, 3.3))
    variance = oracles_sky.weighted_sum_variance(
        weights, image.correlation, np.where(image.mask, 0.0, image.variance)
    )
    for mode in image.modes:
        variance += (np.sum(weights * mode.map) * mode.sigma) ** 2
    (row,) = sum_apertures(image, 8.2, 9.1, 3.3)
    assert row["flux_err"].value == pytest.approx(np.sqrt(variance), rel=1e-6)
    data = np.where(image.mask, 0.0, image.data)
    assert row["flux"].value == pytest.approx(np.sum(weights * data))
    assert row["masked_area"] == pytest.approx(np.pi * 3.3**2 - weights.sum())


def test_apertures_beyond_the_border_say_so():
    image = sky_image(np.ones((20, 20)))
    table = sum_apertures(image, [0.0, 60.0, -40.0], [-0.5, 10.0, 5.0], 4.0)
    assert table["area"][0] == pytest.approx(np.pi * 16 * 0.25 + 0.5 * 4.0, rel=0.01)
    assert list(table["area"][1:]) == [0.0, 0.0]
    assert np.all(np.isnan(table["flux"][1:]))


def test_apertures_of_surface_brightness(image):
    surface = image.evolve(unit=u.Unit("electron / (s arcsec2)"))
    plain, areas = sum_apertures(image, 8.0, 9.0, 3.0), sum_apertures(surface, 8.0, 9.0, 3.0)
    assert areas["flux"][0].value == pytest.approx(plain["flux"][0].value * 0.06**2, rel=1e-6)
    assert areas["flux"].unit == u.electron / u.s


def test_bad_apertures_are_refused(image):
    with pytest.raises(InputError, match="radius is -1"):
        sum_apertures(image, 3.0, 3.0, -1.0)
    with pytest.raises(ShapeError, match="expected n positions"):
        sum_apertures(image, [3.0, 4.0], [3.0], 1.0)
    assert len(sum_apertures(image, [], [], 1.0)) == 0
