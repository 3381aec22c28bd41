"""Where the viewer's spectra come from: bins of a run with their fits, spaxels and regions of a cube, lists."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

import skyloom as sl
from skyloom.core.labels import LabelMap
from skyloom.core.linelist import default_lines
from skyloom.core.noise import sum_variance
from skyloom.core.spectra import Spectra
from skyloom.errors import FileFormatError
from skyloom.io.formats.tables import write_columns
from skyloom.io.products.line_maps import (
    read_fitted_spectra,
    write_fitted_spectra,
    write_line_table,
)
from skyloom.spectral.bins.extract import extract_spectra
from skyloom.spectral.gas.maps import sum_bins
from skyloom.spectral.lines.linefit import fit_lines
from skyloom.viewer.protocols import Region
from skyloom.viewer.shelf import Shelf
from skyloom.viewer.spectra import open_spectra
from skyloom.viewer.spectra.bins import POLYNOMIAL
from skyloom.viewer.spectra.names import lines_at, merged_ranges, pretty_name, unit_name, with_error
from skyloom.viewer.spectra.regions import bin_correlation, pixels_inside, rows_region
from skyloom.viewer.spectra.sampling import thinned
from tests.inputs.viewer_runs import KERNEL, LABELS, SHAPE, UNIT, Z, tiny_cube, write_tiny_run


def click(x, y):
    return Region(np.array([float(x)]), np.array([float(y)]), "it")


def lasso(*corners):
    x, y = np.array(corners, dtype=float).T
    return Region(x, y, "it")


EVERYTHING = lasso((-0.6, -0.6), (12.6, -0.6), (12.6, 12.6), (-0.6, 12.6))


@pytest.fixture(scope="module")
def cube():
    return tiny_cube()


@pytest.fixture(scope="module")
def products(cube, tmp_path_factory):
    return write_tiny_run(cube, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def bins(products):
    return open_spectra(products[0] / "it_line_maps.fits", "image")


# --- what was picked ------------------------------------------------------------------------------------------------


def test_a_click_means_the_pixel_it_lies_in():
    assert np.argwhere(pixels_inside(click(2.4, 0.6), (3, 4))).tolist() == [[1, 2]]
    assert not pixels_inside(click(4.0, 1.0), (3, 4)).any()


def test_a_lasso_means_the_pixels_whose_centres_are_inside():
    triangle = lasso((-0.2, -0.2), (2.3, -0.2), (-0.2, 2.3))
    expected = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [2, 0]]
    assert np.argwhere(pixels_inside(triangle, (5, 5))).tolist() == expected
    ring = lasso((0, 0), (4, 0), (4, 4), (0, 4), (0, 0.1), (1, 1), (1, 3), (3, 3), (3, 1), (1, 1))
    assert not pixels_inside(ring, (5, 5))[2, 2]
    tiny = lasso((1.1, 1.1), (1.2, 1.1), (1.2, 1.2))
    assert np.argwhere(pixels_inside(tiny, (5, 5))).tolist() == [[1, 1]]


# --- bins of a run --------------------------------------------------------------------------------------------------


def test_a_click_gives_the_bin_of_the_product(bins, products):
    _, spectra, _fit, _ = products
    view = bins.spectrum(click(4, 4))
    assert view.title == "bin 2 (27 spaxels)"
    good = ~spectra.mask[2]
    np.testing.assert_array_equal(view.mask, spectra.mask[2])
    np.testing.assert_allclose(view.flux[good], spectra.data[2][good], rtol=1e-6)
    np.testing.assert_allclose(view.error[good], np.sqrt(spectra.variance[2][good]), rtol=1e-6)
    assert np.isnan(view.flux[~good]).all()
    assert (view.medium, view.redshift, u.Unit(view.unit)) == ("air", Z, spectra.unit)
    fitted = read_fitted_spectra(products[0] / "it_fits.fits")
    seen = view.model[np.isfinite(view.model)]
    np.testing.assert_allclose(seen, fitted.model[2][np.isfinite(view.model)], rtol=1e-5)
    np.testing.assert_allclose(view.residual[good], (view.flux - view.model)[good])
    halpha = dict(view.lines)["Halpha"]
    assert halpha == pytest.approx(default_lines()["Halpha"].rest("air") * (1 + Z))
    assert bins.spectrum(click(7, 7)) is None  # in no bin
    assert bins.spectrum(click(-8, 7)) is None


def test_the_lines_and_the_polynomials_add_up_to_the_model(bins, products):
    fit = products[2]
    for row, region in enumerate((click(1, 1), click(10, 1), click(4, 4), click(1, 10))):
        view = bins.spectrum(region)
        lines = {key: curve for key, curve in view.components.items() if key != POLYNOMIAL}
        np.testing.assert_allclose(sum(lines.values()), fit.model[row], atol=1e-5 * fit.model[row].max())
        whole = sum(view.components.values())
        known = np.isfinite(view.model)
        np.testing.assert_allclose(whole[known], view.model[known], rtol=1e-5)
        # Summed over channels, the curve of a line is its flux in the table within a fraction of the error.
        flux = float(np.sum(lines["Halpha"]) * 1.25)
        expected, error = (fit.table[name][row].value for name in ("Halpha_flux", "Halpha_flux_err"))
        assert abs(flux - expected) < 0.2 * error


def test_the_numbers_are_those_of_the_table(bins, products):
    table = products[2].table
    numbers = dict(bins.spectrum(click(10, 1)).numbers)
    flux, error = (table[name][1].value for name in ("Halpha_flux", "Halpha_flux_err"))
    assert numbers[f"Halpha · flux ({unit_name(u.Unit(UNIT) * u.AA)})"] == with_error(flux, error)
    velocity, error = (table[name][1].value for name in ("Halpha_velocity", "Halpha_velocity_err"))
    assert numbers["Halpha · velocity (km/s)"] == with_error(velocity, error)
    assert numbers["NII6548 · flag"] == "tied"


def test_masked_channels_and_residuals_of_the_sky_are_shaded(bins):
    ranges = bins.spectrum(click(1, 1)).masked_ranges
    assert (6600.0, 6604.0) in ranges
    masked = 6560.0 + 1.25 * 20
    assert any(
        low == pytest.approx(masked - 0.625) and high == pytest.approx(masked + 0.625) for low, high in ranges
    )
    assert all(high < 6800 for _, high in ranges)


def test_the_sum_of_bins_is_that_of_their_spaxels_with_its_covariance(bins, cube):
    """The variance within a channel is the same for all spaxels, so that the bins tell all that the cube knows."""
    view = bins.spectrum(EVERYTHING)
    whole = extract_spectra(cube, np.where(LABELS >= 0, 0, -1))
    complete = ~cube.mask.any(axis=(1, 2))
    np.testing.assert_allclose(view.flux[complete], whole.data[0][complete], rtol=1e-6)
    np.testing.assert_allclose(view.error[complete], np.sqrt(whole.variance[0][complete]), rtol=1e-5)
    np.testing.assert_array_equal(view.mask, whole.mask[0])
    alone = np.sqrt(sum(sum_variance(cube.variance[0], number == LABELS, KERNEL) for number in range(4)))
    assert view.title == (
        f"sum of 4 bins (126 spaxels), errors with covariance ({view.error[0] / alone:.2f}× larger than without)"
    )
    assert view.error[0] / alone > 1.01
    complete &= np.isfinite(view.model)
    np.testing.assert_allclose(sum(view.components.values())[complete], view.model[complete], rtol=1e-5)


def test_summed_line_fluxes_are_those_of_the_maps(bins, products):
    numbers = dict(bins.spectrum(EVERYTHING).numbers)
    summed = sum_bins(products[3], "Halpha_flux", np.where(LABELS >= 0, 0, -1))
    text = with_error(summed["flux"][0].value, summed["flux_err"][0].value)
    assert next(value for name, value in numbers.items() if name.startswith("Halpha · flux")) == text
    assert numbers["Halpha · bins"] == "4 of 4"


def test_rows_of_the_list_are_bins(bins):
    assert bins.names[1] == "bin 1 (36 spaxels)"
    np.testing.assert_array_equal(
        bins.spectrum(rows_region([1], "it")).flux, bins.spectrum(click(10, 1)).flux
    )
    assert bins.spectrum(rows_region([9], "it")) is None


def test_means_of_bins_are_averaged_over_their_spaxels(cube, tmp_path):
    labels = LabelMap(LABELS, wcs=cube.wcs)
    sl.write(extract_spectra(cube, labels, mode="mean"), tmp_path / "it_spectra.fits")
    sl.write(labels, tmp_path / "it_bins.fits")
    view = open_spectra(tmp_path / "it_bins.fits", "image").spectrum(EVERYTHING)
    expected = extract_spectra(cube, np.where(LABELS >= 0, 0, -1), mode="mean")
    complete = ~cube.mask.any(axis=(1, 2))
    np.testing.assert_allclose(view.flux[complete], expected.data[0][complete], rtol=1e-6)
    assert view.title.startswith("mean of 4 bins")
    assert view.model is None
    assert view.residual is None
    assert view.components == {}


def test_bins_hang_together_as_their_spaxels_do():
    found = bin_correlation(LABELS, np.arange(4), KERNEL).toarray()
    shares = np.zeros((4, 4))
    places = [np.argwhere(number == LABELS) for number in range(4)]
    for one in range(4):
        for other in range(4):
            for y, x in places[one]:
                for v, w in places[other]:
                    if max(abs(y - v), abs(x - w)) <= 1:
                        shares[one, other] += KERNEL[1 + v - y, 1 + w - x]
    np.testing.assert_allclose(found, shares / np.sqrt(np.outer(shares.diagonal(), shares.diagonal())))
    np.testing.assert_array_equal(bin_correlation(LABELS, np.arange(4), None).toarray(), np.eye(4))


def test_several_components_are_drawn_one_by_one(cube, tmp_path):
    wave, rest = cube.wave, default_lines()["Halpha"].rest("air") * (1 + Z)
    data = 100.0 + sum(
        peak * np.exp(-0.5 * ((wave - rest - shift) / width) ** 2)
        for peak, shift, width in ((500.0, 0.0, 1.5), (400.0, 9.0, 3.0))
    )
    spectra = Spectra(
        np.array([data]), np.ones((1, wave.size)), np.zeros((1, wave.size), bool), UNIT, wave, "air", lsf=1.1,
        meta={"redshift": Z, "labels": [7], "n_pixels": [1]},
    )  # fmt: skip
    fit = fit_lines(spectra, ["Halpha"], Z, components=2, threads=1)
    write_fitted_spectra(tmp_path / "it_fits.fits", spectra, None, fit)
    write_line_table(fit.table, tmp_path / "it_lines.fits")
    view = open_spectra(tmp_path / "it_fits.fits", "spectra").spectrum(rows_region([0], "it"))
    assert {"Halpha 1", "Halpha 2"} <= set(view.components)
    np.testing.assert_allclose(
        view.components["Halpha 1"] + view.components["Halpha 2"],
        fit.model[0],
        atol=1e-3 * fit.model[0].max(),
    )
    peaks = sorted(wave[np.argmax(view.components[f"Halpha {number}"])] for number in (1, 2))
    np.testing.assert_allclose(peaks, [rest, rest + 9.0], atol=1.5)


# --- cubes ----------------------------------------------------------------------------------------------------------


def test_a_spaxel_of_a_cube_is_read_as_it_is(cube, products):
    source = open_spectra(products[0] / "it_nebular.fits", "cube")
    view = source.spectrum(click(7, 4))
    good = ~cube.mask[:, 4, 7]
    np.testing.assert_allclose(view.flux[good], cube.data[good, 4, 7], rtol=1e-6)
    np.testing.assert_allclose(view.error[good], np.sqrt(cube.variance[good, 4, 7]), rtol=1e-6)
    assert (view.title, u.Unit(view.unit)) == ("spaxel x = 7, y = 4", cube.unit)
    assert dict(view.lines)["Halpha"] == pytest.approx(default_lines()["Halpha"].rest("air") * (1 + Z))
    assert source.spectrum(click(28, 4)) is None


def test_a_region_of_a_cube_is_summed_with_its_covariance(cube, products, monkeypatch):
    monkeypatch.setattr("skyloom.viewer.spectra.cubes.SLAB_BYTES", 5000)  # several slabs
    source = open_spectra(products[0] / "it_nebular.fits", "cube")
    region = lasso((0.6, -0.4), (3.4, -0.4), (3.4, 2.4), (0.6, 2.4))
    view = source.spectrum(region)
    inside = np.full(SHAPE, -1)
    inside[:3, 1:4] = 0
    expected = extract_spectra(cube, inside)
    np.testing.assert_array_equal(view.mask, expected.mask[0])
    good = ~view.mask
    np.testing.assert_allclose(view.flux[good], expected.data[0][good], rtol=1e-6)
    np.testing.assert_allclose(view.error[good], np.sqrt(expected.variance[0][good]), rtol=1e-6)
    growth = np.sqrt(sum_variance(np.ones(SHAPE), inside + 1, KERNEL) / 9)
    assert view.title == f"sum of 9 spaxels, errors with covariance ({growth:.2f}× larger than without)"


def test_only_the_rows_of_a_region_are_read(products, monkeypatch):
    source = open_spectra(products[0] / "it_nebular.fits", "cube")
    asked = []
    read = type(source.file).read
    monkeypatch.setattr(
        type(source.file),
        "read",
        lambda self, channels=slice(None), rows=slice(None): asked.append(rows) or read(self, channels, rows),
    )
    source.spectrum(click(7, 4))
    assert asked
    assert all((rows.start, rows.stop) == (4, 5) for rows in asked)


# --- lists ----------------------------------------------------------------------------------------------------------


def test_spectra_of_a_file_are_chosen_by_row(tmp_path):
    wave = np.linspace(4000.0, 7000.0, 40)
    spectra = Spectra(
        np.arange(80.0).reshape(2, 40), np.full((2, 40), 4.0), np.zeros((2, 40), bool), UNIT, wave, "vacuum",
        meta={"names": ["north", "south"], "redshift": [0.02, 0.3], "ra": [10.0, 11.0]},
    )  # fmt: skip
    sl.write(spectra, tmp_path / "two.fits")
    source = open_spectra(tmp_path / "two.fits", "spectra")
    assert source.names == ("north", "south")
    view = source.spectrum(rows_region([1], "two"))
    np.testing.assert_array_equal(view.flux, spectra.data[1])
    assert (view.title, view.redshift, view.medium) == ("south", 0.3, "vacuum")
    assert dict(view.lines)["Hbeta"] == pytest.approx(4862.691 * 1.3)
    assert dict(view.numbers)["right ascension"] == "11.000000°"
    assert source.spectrum(click(1, 1)) is None
    sl.write(LabelMap(LABELS), tmp_path / "labels.fits")
    with pytest.raises(FileFormatError, match="no spectra"):
        open_spectra(tmp_path / "labels.fits", "spectra")
    assert open_spectra(tmp_path / "labels.fits", "image") is None


def test_a_table_that_goes_on_is_read_as_one(tmp_path):
    from skyloom.viewer.spectra.bin_files import TableColumns

    table = QTable({"id": np.array([3, 8]), "a_flux": [1.0, 2.0] * u.mJy, "b_flag": np.array([0, 4])})
    with open(tmp_path / "table.fits", "wb") as stream:
        from skyloom.io.formats.blocks import Extension
        from skyloom.io.products.line_maps import _write

        _write(stream, [Extension("", None)])
        write_columns(stream, table, "LINES", ["id", "a_flux"])
        write_columns(stream, table, "LINES2", ["id", "b_flag"])
    columns = TableColumns(tmp_path / "table.fits")
    assert columns.row(8) == {"id": 8, "a_flux": 2.0, "b_flag": 4}
    assert columns.units["a_flux"] == "mJy"
    assert columns.row(5) == {}


# --- names, ranges, numbers -----------------------------------------------------------------------------------------


def test_lines_stand_where_the_medium_says():
    wave = np.array([6000.0, 7000.0])
    air, vacuum = (dict(lines_at(wave, medium, 0.01)) for medium in ("air", "vacuum"))
    assert vacuum["Halpha"] - air["Halpha"] == pytest.approx(1.83, abs=0.01)
    assert "Hbeta" not in air


def test_ranges_of_the_sky_are_in_air_and_join_others():
    wave = np.array([5000.0, 6000.0])
    assert merged_ranges([(5570.0, 5580.0)], [(5575.0, 5590.0), (7000.0, 7100.0)], wave, "air") == (
        (5570.0, 5590.0),
    )
    low, high = merged_ranges([], [(5570.0, 5580.0)], wave, "vacuum")[0]
    assert low == pytest.approx(5571.55, abs=0.01)
    assert high == pytest.approx(5581.55, abs=0.01)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (123.456, 1.23, "123.5 ± 1.2"),
        (1.234e-16, 5e-18, "(1.234 ± 0.050)·10⁻¹⁶"),
        (-0.5, 12.0, "-0 ± 12"),
        (np.nan, 1.0, "–"),
        (2.5, np.nan, "2.5"),
        (3.0e9, np.nan, "3·10⁹"),
    ],
)
def test_numbers_have_two_digits_of_their_error(value, error, text):
    assert with_error(value, error) == text


def test_names_are_those_of_spectroscopists():
    keys = ("Halpha", "NII6583", "Bl_Halpha", "OIII5007 2", "CaII3933", "mine")
    assert [pretty_name(key) for key in keys] == [
        "Hα", "[N II] 6583", "broad Hα", "[O III] 5007 (2)", "Ca II K 3933", "mine",
    ]  # fmt: skip
    assert unit_name("1e-17 erg / (s cm2 Angstrom)") == "10⁻¹⁷ erg Å⁻¹ s⁻¹ cm⁻²"


def test_thinning_keeps_the_narrowest_line():
    wave = np.linspace(4000.0, 9000.0, 100_000)
    flux = np.sin(wave / 300.0)
    flux[61_234], flux[70_000], flux[5] = 50.0, -40.0, np.nan
    kept = thinned(wave, flux, 4000.0, 9000.0, 1000)
    assert {0, 61_234, 70_000, wave.size - 1} <= set(kept.tolist())
    assert kept.size < 2100
    assert np.all(np.diff(kept) > 0)
    near = thinned(wave, flux, 5000.0, 5010.0, 1000)
    np.testing.assert_array_equal(near, np.arange(near[0], near[-1] + 1))
    assert wave[near[0]] < 5000.0 < wave[near[1]]
    assert wave[near[-2]] <= 5010.0 < wave[near[-1]]


def test_one_file_of_a_run_does_not_open_those_beside_it(tmp_path):
    """Who shows one map shows that map; who shows the folder shows its spectra, too, but none that a link leads to."""
    (tmp_path / "run").mkdir()
    write_tiny_run(tiny_cube(), tmp_path / "run")
    maps = tmp_path / "run" / "it_line_maps.fits"
    assert open_spectra(maps, "image", Shelf(tmp_path / "run").may_read) is not None
    assert open_spectra(maps, "image", Shelf(maps).may_read) is None
    (tmp_path / "run" / "it_fits.fits").rename(tmp_path / "elsewhere.fits")
    (tmp_path / "run" / "it_fits.fits").symlink_to(tmp_path / "elsewhere.fits")
    assert open_spectra(maps, "image", Shelf(tmp_path / "run").may_read) is None
