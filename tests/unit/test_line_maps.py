"""Fitted lines as maps: every bin where it lies, per bin, per spaxel or per area; sums with the errors of bins."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core import geometry
from skyloom.core.labels import LabelMap
from skyloom.core.line_fit import LineFlag
from skyloom.core.line_maps import NOT_BINNED
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.measure.regions import sum_apertures, sum_regions
from skyloom.spectral.bins.contents import paint
from skyloom.spectral.gas.derived import balmer_extinction
from skyloom.spectral.gas.maps import add_table, line_maps, sum_bins
from tests.inputs.line import KEYS, UNIT, fit_of, simple_fit, six_bins, spaxels

FLUX = UNIT * u.AA


@pytest.fixture
def labels():
    return six_bins()


@pytest.fixture
def fit(labels):
    # Rows in another order than the numbers on the map.
    return simple_fit(labels.ids[[3, 0, 5, 1, 4, 2]])


def expected_flux(fit, labels, per):
    """Pixel by pixel, the naive way."""
    plane = np.full(labels.shape, np.nan)
    areas = geometry.pixel_area_map(labels.wcs, labels.shape)
    flux = {int(i): f for i, f in zip(fit.table["id"], fit.table["Halpha_flux"].value, strict=True)}
    for y, x in np.ndindex(*labels.shape):
        number = int(labels.labels[y, x])
        if number >= 0:
            whole = labels.labels == number
            divide = {"bin": 1.0, "spaxel_area": whole.sum(), "arcsec2": areas[whole].sum()}[per]
            plane[y, x] = flux[number] / divide
    return plane


@pytest.mark.parametrize(
    ("per", "unit"), [("bin", FLUX / u.bin), ("spaxel_area", FLUX), ("arcsec2", FLUX / u.arcsec**2)]
)
def test_each_pixel_has_the_flux_of_its_bin(fit, labels, per, unit):
    image = line_maps(fit, labels, per=per)["Halpha_flux"]
    expected = expected_flux(fit, labels, per)
    assert image.unit == unit
    assert image.meta["per"] == per
    np.testing.assert_array_equal(image.mask, labels.labels < 0)
    np.testing.assert_allclose(image.data, expected, rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(image.variance[image.valid]), 0.1 * expected[image.valid], rtol=1e-9)
    assert image.wcs is labels.wcs


def test_kinematics_do_not_depend_on_what_fluxes_are_given_per(fit, labels):
    first, second = (line_maps(fit, labels, per=per)["Halpha_velocity"] for per in ("bin", "spaxel_area"))
    np.testing.assert_array_equal(first.data, second.data)
    assert first.unit == u.km / u.s
    assert set(np.sqrt(first.variance[first.valid]).round(12)) == {3.0}


@pytest.mark.parametrize("extraction", ["sum", "mean"])
def test_spectra_that_were_means_give_the_same_maps(labels, extraction):
    ids = labels.ids
    n_pixels = np.array([np.sum(labels.labels == number) for number in ids], dtype=float)
    fit = simple_fit(ids, extraction="sum")
    if extraction == "mean":
        table = fit.table.copy()
        for name in ("Halpha_flux", "Halpha_flux_err"):
            table[name] = table[name] / n_pixels
        fit = fit_of(table, KEYS, extraction="mean")
    np.testing.assert_allclose(
        line_maps(fit, labels, per="bin")["Halpha_flux"].data,
        expected_flux(simple_fit(ids), labels, "bin"),
        rtol=1e-12,
    )


def test_surface_brightness_of_the_spectra_becomes_flux(labels):
    fit = simple_fit(labels.ids)
    table = fit.table.copy()
    areas = geometry.pixel_area_map(labels.wcs, labels.shape)
    whole = np.array([areas[labels.labels == number].sum() for number in labels.ids]) * u.arcsec**2
    for name in ("Halpha_flux", "Halpha_flux_err"):
        table[name] = table[name] / whole
    bright = fit.evolve(table=table, unit=UNIT / u.arcsec**2)
    for per in ("bin", "spaxel_area", "arcsec2"):
        image = line_maps(bright, labels, per=per)["Halpha_flux"]
        expected = line_maps(fit, labels, per=per)["Halpha_flux"]
        assert image.unit == expected.unit
        np.testing.assert_allclose(image.data, expected.data, rtol=1e-10)


def test_unknown_values_are_masked_and_their_flag_is_kept(fit, labels):
    fit.table["Halpha_flux"][0] = np.nan
    fit.table["Halpha_flag"][0] = int(LineFlag.NOT_COVERED)
    maps = line_maps(fit, labels)
    number = int(fit.table["id"][0])
    assert maps["Halpha_flux"].mask[labels.labels == number].all()
    flags = maps.code_plane("Halpha_flag")
    assert flags.dtype == np.int32
    assert set(flags[labels.labels == number]) == {int(LineFlag.NOT_COVERED)}
    assert set(flags[labels.labels < 0]) == {NOT_BINNED}


def test_bins_that_were_not_fitted_are_masked(fit, labels):
    part = fit.evolve(
        table=fit.table[:4], model=fit.model[:4], baseline=fit.baseline[:4], redshift=fit.redshift[:4]
    )
    image = line_maps(part, labels)["Halpha_flux"]
    fitted = np.isin(labels.labels, np.asarray(part.table["id"]))
    np.testing.assert_array_equal(image.valid, fitted)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"per": "pixel"}, "per is 'pixel'"), ({"labels": LabelMap(np.full((4, 4), 99))}, "none of the 6")],
)
def test_what_cannot_be_painted_is_refused(fit, labels, change, message):
    with pytest.raises(InputError, match=message):
        line_maps(fit, change.get("labels", labels), per=change.get("per", "bin"))


def test_a_bin_twice_in_the_table_is_refused(labels):
    with pytest.raises(InputError, match="twice"):
        line_maps(simple_fit(np.array([3, 3, 7])), labels)


def test_a_name_that_is_not_there_is_answered_with_the_nearest(fit, labels):
    maps = line_maps(fit, labels)
    assert "Halpha_flux" in maps
    assert "Halpha_flx" not in maps
    with pytest.raises(KeyError, match="Halpha_flux"):
        maps["Halpha_flx"]


def test_columns_of_derived_tables_become_maps(fit, labels):
    table = balmer_extinction(fit)
    shuffled = table[[2, 0, 1, 5, 4]]  # another order, one bin missing
    maps = add_table(line_maps(fit, labels), shuffled, prefix="dust_")
    ebv = maps["dust_ebv"]
    ids = np.asarray(table["id"])
    for row, number in enumerate(ids):
        inside = labels.labels == number
        if row == 3:
            assert ebv.mask[inside].all()
        else:
            np.testing.assert_allclose(ebv.data[inside], table["ebv"][row].value)
            np.testing.assert_allclose(ebv.variance[inside], table["ebv_err"][row].value ** 2)
    assert "NEGATIVE" in maps.meanings["dust_flag"].values()
    with pytest.raises(InputError, match="already"):
        add_table(maps, shuffled, prefix="dust_")


# --- sums ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["bin", "spaxel_area", "arcsec2"])
def test_sums_of_whole_bins_have_the_flux_and_the_error_of_the_bins(fit, labels, per):
    maps = line_maps(fit, labels, per=per)
    regions = np.where(np.isin(labels.labels, [3, 20, 12]), 5, -1)
    row = sum_bins(maps, "Halpha_flux", regions)[0]
    chosen = np.isin(np.asarray(fit.table["id"]), [3, 20, 12])
    assert row["flux"].unit.is_equivalent(FLUX)
    np.testing.assert_allclose(row["flux"].to_value(FLUX), fit.table["Halpha_flux"][chosen].value.sum())
    error = np.sqrt((fit.table["Halpha_flux_err"][chosen].value ** 2).sum())
    np.testing.assert_allclose(row["flux_err"].to_value(FLUX), error)
    assert row["n_pixels"] == 22


def test_part_of_a_bin_gives_its_share_with_the_same_relative_error(fit, labels):
    maps = line_maps(fit, labels)
    regions = np.full(labels.shape, -1)
    regions[3, 0:5] = 0  # a third of bin 8
    row = sum_bins(maps, "Halpha_flux", regions)[0]
    of_bin = fit.table[np.asarray(fit.table["id"]) == 8][0]
    np.testing.assert_allclose(row["flux"].value, of_bin["Halpha_flux"].value / 3)
    np.testing.assert_allclose(row["flux_err"].value, of_bin["Halpha_flux_err"].value / 3)


def test_a_region_without_a_value_is_unknown(fit, labels):
    fit.table["Halpha_flux"][fit.table["id"] == 31] = np.nan
    table = sum_bins(line_maps(fit, labels), "Halpha_flux", np.where(labels.labels == 31, 0, -1))
    assert np.isnan(table["flux"][0])
    assert table["n_masked"][0] == 4


def test_only_fluxes_are_added(fit, labels):
    maps = line_maps(fit, labels)
    with pytest.raises(InputError, match="is not a flux"):
        sum_bins(maps, "Halpha_velocity", labels)
    with pytest.raises(ShapeError):
        sum_bins(maps, "Halpha_flux", np.zeros((3, 3), int))


def test_sums_of_pixels_that_share_errors_are_refused(fit, labels):
    image = line_maps(fit, labels)["Halpha_flux"]
    with pytest.raises(InputError, match="share errors within bins"):
        sum_regions(image, np.zeros(image.shape, int))
    with pytest.raises(InputError, match="sum_bins"):
        sum_apertures(image, [3.0], [3.0], 2.0)


def test_single_spaxels_are_added_like_any_image():
    labels = spaxels()
    kernel = np.array([[0.1, 0.3, 0.1], [0.3, 1.0, 0.3], [0.1, 0.3, 0.1]])
    maps = line_maps(simple_fit(labels.ids), labels, correlation=kernel)
    regions = np.zeros(labels.shape, int)
    regions[3:] = 1
    image = sum_regions(maps["Halpha_flux"], regions)
    own = sum_bins(maps, "Halpha_flux", regions)
    np.testing.assert_allclose(own["flux"].value, image["flux"].value)
    np.testing.assert_allclose(own["flux_err"].value, image["flux_err"].value)


def test_errors_of_sums_over_bins_hold_for_correlated_noise(labels, rng):
    """Noise with a known correlation between spaxels, summed in bins: the scatter of sums over bins."""
    kernel = np.array([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])
    n_draws = 4000
    white = rng.normal(size=(n_draws, labels.shape[0] + 1, labels.shape[1] + 1))
    # A box of 2 x 2 has this correlation.
    noise = (white[:, 1:, 1:] + white[:, :-1, 1:] + white[:, 1:, :-1] + white[:, :-1, :-1]) / 2
    ids = labels.ids
    fluxes = np.stack([noise[:, labels.labels == number].sum(axis=1) for number in ids])
    fit = simple_fit(ids)
    fit.table["Halpha_flux_err"] = fluxes.std(axis=1) * FLUX
    regions = np.where(np.isin(labels.labels, [3, 20, 8]), 0, -1)
    true = fluxes[np.isin(ids, [3, 20, 8])].sum(axis=0).std()
    claimed = sum_bins(line_maps(fit, labels, correlation=kernel), "Halpha_flux", regions)["flux_err"][0]
    independent = sum_bins(line_maps(fit, labels), "Halpha_flux", regions)["flux_err"][0]
    # The scatter of the sum and those of the bins are known to 1/sqrt(2 N), 1.1 %.
    np.testing.assert_allclose(claimed.value, true, rtol=0.035)
    assert independent.value < 0.95 * true


def test_painted_values_of_bins_are_not_added_as_if_independent(labels):
    values = np.arange(1.0, 7.0)
    with pytest.raises(InputError, match="share errors"):
        sum_regions(paint(values, labels, variance=values), np.zeros(labels.shape, int))
    alone = spaxels()
    ones = np.ones(alone.ids.size)
    assert sum_regions(paint(ones, alone, variance=ones), np.zeros(alone.shape, int))["flux"][0] == ones.size
