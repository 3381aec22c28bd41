"""Maps, tables and models of lines as files: readable by astropy, the same when read again."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS

import skyloom as sl
from skyloom.core.continuum import ContinuumFit
from skyloom.core.line_fit import LineFlag
from skyloom.core.line_maps import NOT_BINNED, LineMaps
from skyloom.core.psf import GaussianPSF
from skyloom.core.spectra import Spectra
from skyloom.errors import FileFormatError, InputError, ShapeError
from skyloom.io.products.betis import EXTENSIONS
from skyloom.io.products.line_maps import (
    read_fitted_spectra,
    read_line_maps,
    write_fitted_spectra,
    write_line_maps,
    write_line_table,
)
from skyloom.spectral.gas.bpt import bpt_classes
from skyloom.spectral.gas.derived import balmer_extinction
from skyloom.spectral.gas.maps import add_table, line_maps, sum_bins
from tests.inputs.line import KEYS, UNIT, fit_of, simple_fit, six_bins, spaxels


@pytest.fixture
def maps():
    labels = six_bins()
    fit = simple_fit(labels.ids[::-1], instrument="MUSE", object="NGC 1")
    fit.table["Halpha_flag"][1] = int(LineFlag.UNRESOLVED | LineFlag.FAINT)
    fit.table["NII6583_flux"][2] = np.nan
    found = add_table(line_maps(fit, labels), balmer_extinction(fit), prefix="dust_")
    return add_table(found, bpt_classes(fit), prefix="BPT_NII_")


def test_astropy_opens_every_plane(maps, tmp_path):
    path = write_line_maps(maps, tmp_path / "maps.fits")
    with fits.open(path, checksum=True) as hdus:
        names = [hdu.name for hdu in hdus]
        for name in (
            "HALPHA_FLUX",
            "HALPHA_FLUX_ERR",
            "HALPHA_VELOCITY",
            "HALPHA_SIGMA_ERR",
            "HALPHA_EW",
            "HALPHA_SNR",
        ):
            hdu = hdus[name]
            assert hdu.data.shape == maps.shape
            u.Unit(hdu.header["BUNIT"])
            wcs = WCS(hdu.header)
            np.testing.assert_allclose(
                wcs.all_pix2world(2, 5, 0), maps.wcs.all_pix2world(2, 5, 0), rtol=1e-13
            )
        image = maps["Halpha_flux"]
        np.testing.assert_allclose(
            hdus["HALPHA_FLUX"].data, np.where(image.mask, np.nan, image.data), rtol=1e-6
        )
        np.testing.assert_allclose(
            hdus["HALPHA_FLUX_ERR"].data[image.valid] ** 2, image.variance[image.valid], rtol=1e-6
        )
        assert np.isnan(hdus["HALPHA_FLUX"].data[image.mask]).all()
        assert u.Unit(hdus["HALPHA_FLUX"].header["BUNIT"]) == UNIT * u.AA
        assert hdus[hdus["HALPHA_FLUX"].header["ERRDATA"]].header["SCIDATA"] == "HALPHA_FLUX"
        assert len(set(names)) == len(names)


def test_the_file_says_that_pixels_of_a_bin_share_one_error(maps, tmp_path):
    labels = spaxels()
    alone = line_maps(simple_fit(labels.ids), labels)
    for number, (item, shared) in enumerate(((maps, True), (alone, False))):
        with fits.open(write_line_maps(item, tmp_path / f"{number}.fits")) as hdus:
            assert hdus[0].header["ERRSHARE"] is shared
            assert hdus[0].header["FLUXPER"] == "spaxel_area"
            notes = str(hdus["HALPHA_FLUX_ERR"].header.get("COMMENT", ""))
            assert ("share one error" in notes) is shared


def test_flags_have_their_meaning_in_the_header(maps, tmp_path):
    with fits.open(write_line_maps(maps, tmp_path / "maps.fits")) as hdus:
        flag = hdus["HALPHA_FLAG"]
        assert flag.data.dtype.kind == "i"
        bits = {
            2 ** int(key[3:]): flag.header[key]
            for key in flag.header
            if key.startswith("BIT") and key != "BITPIX"
        }
        assert bits[int(LineFlag.UNRESOLVED)] == "UNRESOLVED"
        assert bits[NOT_BINNED] == "NOT_BINNED"
        assert (flag.data[maps.rows == 1] == int(LineFlag.UNRESOLVED | LineFlag.FAINT)).all()
        assert (flag.data[maps.rows < 0] == NOT_BINNED).all()
        assert hdus["BPT_NII_CLASS"].header["CODE1"] == "star-forming"


@pytest.mark.parametrize("per", ["bin", "spaxel_area", "arcsec2"])
def test_maps_come_back(per, tmp_path):
    labels = six_bins()
    fit = simple_fit(labels.ids[::-1], instrument="MUSE")
    kernel = np.array([[0, 0.2, 0], [0.2, 1, 0.2], [0, 0.2, 0]])
    maps = line_maps(fit, labels, per=per, correlation=kernel, psf=GaussianPSF(0.8))
    path = write_line_maps(maps, tmp_path / "maps.fits")
    again = sl.read(path)
    assert isinstance(again, LineMaps)
    assert list(again) == list(maps)
    assert again.lines.keys == KEYS
    assert again.per == per
    assert again.psf.fwhm == 0.8
    assert again.meta == maps.meta
    assert [step.name for step in again.history] == ["line_maps"]
    for name in maps:
        first, second = maps[name], again[name]
        assert first.unit == second.unit
        np.testing.assert_array_equal(first.mask, second.mask)
        np.testing.assert_allclose(second.data[second.valid], first.data[first.valid], rtol=1e-6)
        np.testing.assert_allclose(second.variance[second.valid], first.variance[first.valid], rtol=1e-6)
    for name in maps.codes:
        np.testing.assert_array_equal(maps.code_plane(name), again.code_plane(name))
    regions = np.zeros(labels.shape, int)
    first, second = (sum_bins(item, "Halpha_flux", regions) for item in (maps, again))
    np.testing.assert_allclose(second["flux_err"].value, first["flux_err"].value, rtol=1e-6)


def test_maps_of_derived_quantities_come_back(maps, tmp_path):
    again = read_line_maps(write_line_maps(maps, tmp_path / "maps.fits"))
    assert again["dust_ebv"].unit == u.mag
    assert again.meanings["BPT_NII_class"][2] == "composite"
    np.testing.assert_array_equal(again.code_plane("BPT_NII_class"), maps.code_plane("BPT_NII_class"))


def test_maps_without_a_wcs(tmp_path):
    labels = six_bins()
    maps = line_maps(simple_fit(labels.ids), labels.evolve(wcs=None))
    assert read_line_maps(write_line_maps(maps, tmp_path / "a.fits")).wcs is None
    write_line_maps(maps, tmp_path / "b.fits", layout="betis")


def test_what_cannot_be_written_is_refused(maps, tmp_path):
    with pytest.raises(InputError, match="layout"):
        write_line_maps(maps, tmp_path / "a.fits", layout="mpdaf")
    twice = maps.evolve(quantities={**maps.quantities, "HALPHA_flux": maps.quantities["Halpha_flux"]})
    with pytest.raises(InputError, match="case"):
        write_line_maps(twice, tmp_path / "a.fits")
    write_line_maps(maps, tmp_path / "a.fits")
    with pytest.raises(InputError):
        write_line_maps(maps, tmp_path / "a.fits")
    fits.PrimaryHDU().writeto(tmp_path / "other.fits")
    with pytest.raises(FileFormatError, match="no maps of lines"):
        read_line_maps(tmp_path / "other.fits")


# --- layout of BETIS -------------------------------------------------------------------------------------


def test_betis_has_seven_extensions_with_a_plane_per_line(maps, tmp_path):
    path = write_line_maps(maps, tmp_path / "betis.fits", layout="betis")
    with fits.open(path, checksum=True) as hdus:
        assert tuple(hdu.name for hdu in hdus) == EXTENSIONS
        for number, hdu in enumerate(hdus):
            planes = len(KEYS) * (3 if number in (4, 5) else 1)
            assert hdu.data.shape == (planes, *maps.shape)
            np.testing.assert_allclose(
                WCS(hdu.header).celestial.all_pix2world(1, 2, 0), maps.wcs.all_pix2world(1, 2, 0)
            )
        plane = KEYS.index("Halpha")
        assert hdus[0].header[f"LINE{plane + 1:03d}"] == "Halpha"
        image = maps["Halpha_flux"]
        inside = image.valid
        np.testing.assert_allclose(hdus[0].data[plane][inside], image.data[inside], rtol=1e-6)
        np.testing.assert_allclose(hdus[1].data[plane][inside], np.sqrt(image.variance[inside]), rtol=1e-6)
        np.testing.assert_allclose(hdus[2].data[plane][inside], maps["Halpha_velocity"].data[inside])
        np.testing.assert_allclose(hdus[3].data[plane][inside], 3.0)
        np.testing.assert_allclose(hdus[6].data[plane][inside], 1.01 * image.data[inside], rtol=1e-6)
        assert np.isnan(hdus[0].data[:, maps.rows < 0]).all()


def test_betis_parameters_of_the_gaussian(maps, tmp_path):
    path = write_line_maps(maps, tmp_path / "betis.fits", layout="betis")
    rest = maps.lines["Halpha"].rest_air
    with fits.open(path) as hdus:
        for number in (4, 5):
            header = hdus[number].header
            first = 3 * KEYS.index("Halpha")
            names = [header[f"LINE{first + step:03d}"] for step in (1, 2, 3)]
            assert names == ["Halpha flux", "Halpha wavelength", "Halpha sigma"]
            assert [header[f"UNIT{first + step:03d}"] for step in (2, 3)] == ["Angstrom", "Angstrom"]
        row = maps.rows[0, 0]
        flux, centre, sigma = hdus[4].data[first : first + 3, 0, 0]
        # Velocities of the scene are 10 + row km/s, observed widths 80 km/s.
        np.testing.assert_allclose(centre, rest * (1 + (10.0 + row) / 299792.458), rtol=1e-7)
        np.testing.assert_allclose(sigma, rest * 80.0 / 299792.458, rtol=1e-6)
        np.testing.assert_allclose(flux, maps["Halpha_flux"].data[0, 0], rtol=1e-6)
        errors = hdus[5].data[first : first + 3, 0, 0]
        np.testing.assert_allclose(errors[1:], rest * np.array([3.0, 2.0]) / 299792.458, rtol=1e-6)


def test_betis_keeps_what_was_not_measured_apart_from_zero(maps, tmp_path):
    with fits.open(write_line_maps(maps, tmp_path / "betis.fits", layout="betis")) as hdus:
        plane = hdus[0].data[KEYS.index("NII6583")]
        assert np.isnan(plane[maps.rows == 2]).all()
        assert not np.any(plane == 0)


# --- tables ----------------------------------------------------------------------------------------------


def test_tables_of_lines_as_fits_and_text(tmp_path):
    fit = simple_fit(np.arange(5))
    paths = write_line_table(fit.table, tmp_path / "lines.fits")
    assert [path.name for path in paths] == ["lines.fits", "lines.ecsv"]
    for path in paths:
        again = QTable.read(path)
        assert again.colnames == fit.table.colnames
        for name in again.colnames:
            assert getattr(again[name], "unit", None) in (None, getattr(fit.table[name], "unit", None))
        np.testing.assert_allclose(again["Halpha_flux"].value, fit.table["Halpha_flux"].value)


def test_more_columns_than_fits_allows_go_on_in_another_extension(tmp_path):
    wide = QTable({"id": [4, 5], **{f"a{number}": [1.0, 2.0] * u.km for number in range(1200)}})
    (path,) = write_line_table(wide, tmp_path / "wide.fits", most_values=1000)
    with fits.open(path, checksum=True) as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ["LINES", "LINES2"]
        assert sum(len(hdu.columns) for hdu in hdus[1:]) == 1202
        assert list(hdus[2].data["id"]) == [4, 5]


def test_long_tables_are_written_block_by_block(tmp_path, rng):
    n = 9001  # more than two blocks of rows, and rows of an odd number of bytes
    table = QTable(
        {
            "id": np.arange(n),
            "name": rng.choice(["a", "bcd", "Å"], n),
            "good": rng.random(n) < 0.5,
            "flux": rng.normal(size=n).astype(np.float32) * UNIT,
            "age": rng.normal(size=n) * u.dex(u.one),
        }
    )
    (path,) = write_line_table(table, tmp_path / "long.fits", most_values=10)
    with fits.open(path, checksum=True) as hdus:
        data = hdus[1].data
        np.testing.assert_array_equal(data["flux"], table["flux"].value)
        np.testing.assert_array_equal(data["good"], table["good"])
        assert set(data["name"]) == {"a", "bcd", "\\xc5"}
        assert hdus[1].columns["age"].unit == "dex"
    with pytest.raises(InputError, match="no column of numbers"):
        write_line_table(QTable({"a": np.zeros((2, 3))}), tmp_path / "x.fits")


# --- spectra and models ----------------------------------------------------------------------------------


@pytest.fixture
def fitted(rng):
    n, n_wave = 3, 50
    wave = 5000 + 1.25 * np.arange(n_wave)
    ids = np.array([3, 7, 9])
    spectra = Spectra(
        rng.normal(5, 1, (n, n_wave)).astype(np.float32), np.ones((n, n_wave), np.float32), None, UNIT, wave, "air",
        lsf=1.1, meta={"labels": ids.tolist()},
    )  # fmt: skip
    zeros = np.zeros(n)
    continuum = ContinuumFit(
        np.full((n, n_wave), 4.0, np.float32), np.full((n, n_wave), 0.1, np.float32), UNIT, wave, "air", zeros,
        np.ones((n, 1)), zeros, zeros, zeros, zeros, zeros, zeros, zeros, zeros, np.zeros(n, np.int64), ("",) * n,
        np.ones(1), zeros[:1], "test", "builtin",
    )  # fmt: skip
    lines = fit_of(simple_fit(ids).table, KEYS, wave)
    return spectra, continuum, lines.evolve(model=lines.model + 0.5, baseline=lines.baseline - 0.25)


def test_spectra_come_back_with_all_that_was_fitted(fitted, tmp_path):
    path = write_fitted_spectra(tmp_path / "spectra.fits", *fitted)
    again = read_fitted_spectra(path)
    spectra = fitted[0]
    for found in (again.spectra, sl.read(path)):
        np.testing.assert_array_equal(found.data, spectra.data)
        np.testing.assert_array_equal(found.wave, spectra.wave)
        assert found.meta == spectra.meta
    np.testing.assert_allclose(again.model, 4.0 + 0.5 - 0.25)
    np.testing.assert_allclose(again.continuum_variance, 0.1, rtol=1e-6)
    with fits.open(path, checksum=True) as hdus:
        assert u.Unit(hdus["CONTINUUM_VAR"].header["BUNIT"]) == UNIT**2
        assert list(hdus["BIN_TABLE"].data["ID"]) == [3, 7, 9]
        assert {"SCI", "VAR", "MASK", "WAVE", "CONTINUUM", "LINES", "BASELINE"} <= {hdu.name for hdu in hdus}


def test_spectra_without_a_continuum(fitted, tmp_path):
    again = read_fitted_spectra(write_fitted_spectra(tmp_path / "a.fits", fitted[0], lines=fitted[2]))
    assert again.continuum is None
    np.testing.assert_allclose(again.model, 0.25)


def test_models_of_other_spectra_are_refused(fitted, tmp_path):
    spectra, continuum, lines = fitted
    fewer = spectra.evolve(data=spectra.data[:2], variance=spectra.variance[:2], mask=spectra.mask[:2])
    with pytest.raises(ShapeError, match="CONTINUUM"):
        write_fitted_spectra(tmp_path / "a.fits", fewer, continuum, lines)
