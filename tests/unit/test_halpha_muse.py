"""What MUSE saw, from band images, a cube, maps of lines, and lines fitted; and every way in which files disagree."""

from __future__ import annotations

import re
import shutil

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, Sip

from skyloom.core.bandpass import Bandpass
from skyloom.core.image import Image
from skyloom.core.line_maps import BinValues, LineMaps
from skyloom.core.linelist import default_lines
from skyloom.core.noise import sum_variance
from skyloom.core.psf import GaussianPSF, MoffatPSF
from skyloom.errors import AssumptionWarning, InputError, UnitError
from skyloom.imaging.measure.units import FLUX_DENSITY, LINE_BRIGHTNESS
from skyloom.io.products.line_maps import write_line_maps
from skyloom.mock.halpha.files import write_halpha_mock
from skyloom.mock.halpha.muse import muse_side
from skyloom.recipes.halpha.config import MuseSettings
from skyloom.recipes.halpha.muse import read_muse_side

REDSHIFT = 0.00219


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    """A small field without stars, which would outshine it; MUSE has 20 x 20 spaxels."""
    return write_halpha_mock(tmp_path_factory.mktemp("halpha"), seed=1, size=100, cube=True, n_stars=0)


@pytest.fixture(scope="module")
def curves(mock):
    return {band: curve(path, band) for band, path in mock.filters.items()}


def curve(path, band):
    rows = np.loadtxt(path)
    return Bandpass(rows[:, 0], rows[:, 1], band)


def settings(**changes):
    return MuseSettings(**{"bands": "bands", "lines": {"file": "lines"}, **changes})


def read(mock, curves, *, lines=None, bands=None, **changes):
    chosen = dict(mock.muse_bands) | (bands or {})
    return read_muse_side(settings(**changes), curves, REDSHIFT, bands=chosen, lines=lines or mock.lines)


def changed(path, folder, change, name=None):
    """A copy of a FITS file on which ``change`` was called."""
    copy = folder / (name or path.name)
    shutil.copy(path, copy)
    with fits.open(copy, mode="update") as hdus:
        change(hdus)
    return copy


def test_images_and_maps_come_in_the_units_of_the_recipe(mock, curves):
    side = read(mock, curves)
    assert list(side.bands) == list(mock.filters)
    assert set(side.lines) == {"Halpha", "NII6583", "Hbeta", "OIII5007"}
    assert all(image.unit == FLUX_DENSITY for image in side.bands.values())
    assert all(image.unit == LINE_BRIGHTNESS for image in side.lines.values())
    assert side.meta["notes"] == []
    with fits.open(mock.lines) as hdus:
        stored = hdus["HA6562_FLUX"].data / 0.04  # 0.2 arcsec
        error = hdus["HA6562_FLUX_ERR"].data / 0.04
    np.testing.assert_allclose(side.lines["Halpha"].data, stored, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(side.lines["Halpha"].variance), error, rtol=1e-5)
    with fits.open(mock.muse_bands["f814w"]) as hdus:
        jansky = hdus["DATA"].data.astype(float)
    expected = (jansky * u.Jy).to_value("erg/(s cm2 AA)", u.spectral_density(curves["f814w"].pivot * u.AA))
    np.testing.assert_allclose(side.bands["f814w"].data, expected * 1e20 / 0.04, rtol=1e-5)


def test_bands_of_a_cube_are_those_of_ready_made_images(mock, curves):
    """Both are noisy in their own ways; the mock made its images from the true bands."""
    ready = read(mock, curves)
    made = read_muse_side(
        settings(cube="cube", bands=None), curves, REDSHIFT, cube=mock.cube, lines=mock.lines
    )
    for band, image in made.bands.items():
        # MUSE's noise has its correlation measured, and neighbours share it.
        assert 1.5 < image.correlation.sum() < 4
        other = ready.bands[band]
        ones = np.ones(image.shape)
        error = np.sqrt(
            sum_variance(image.variance, ones, image.correlation)
            + sum_variance(other.variance, ones, image.correlation)
        )
        shared = sum((np.sum(mode.map) * mode.sigma) ** 2 for mode in image.modes) ** 0.5
        bound = 3 * error + 3 * shared + 2e-3 * other.data.sum()
        assert abs(np.sum(image.data - other.data, dtype=float)) < bound
    assert made.bands["f555w"].meta["covered_fraction"] < 0.96
    assert made.psf is not None


def test_lines_fitted_to_the_cube_are_the_true_ones(mock, curves):
    """The stars absorb 2.1 to 2.7 A at Halpha, which only templates take off."""
    truth = muse_side(mock.model).true_lines
    chosen = settings(
        cube="cube", lines="fit", bands=None, continuum={"templates": str(mock.directory / "templates.fits")}
    )
    side = read_muse_side(chosen, curves, REDSHIFT, cube=mock.cube)
    for key in ("Halpha", "NII6583"):
        image = side.lines[key]
        assert image.unit == LINE_BRIGHTNESS
        assert image.valid.all()
        pulls = (image.data - truth[key]) / np.sqrt(image.variance)
        assert abs(np.median(pulls)) < 0.15
        assert 0.85 < pulls.std() < 1.15
        error = np.sqrt(sum_variance(image.variance, np.ones(image.shape), image.correlation))
        assert abs(np.sum(image.data - truth[key], dtype=float)) < 3 * error + 0.01 * truth[key].sum()


def test_fitting_needs_templates(mock, curves):
    chosen = settings(cube="cube", lines="fit", bands=None)
    with pytest.raises(InputError, match="cannot be fitted without templates of the stars") as caught:
        read_muse_side(chosen, curves, REDSHIFT, cube=mock.cube)
    assert caught.value.field == "muse.continuum.templates"


def test_fitting_needs_halpha_on_the_axis(mock, curves):
    chosen = settings(
        cube="cube", lines="fit", continuum={"templates": str(mock.directory / "templates.fits")}
    )
    with pytest.raises(InputError, match=r"does not hold Halpha at redshift 0\.5"):
        read_muse_side(chosen, curves, 0.5, cube=mock.cube, bands=mock.muse_bands)


def test_the_psf_is_the_declared_one(mock, curves):
    assert read(mock, curves, psf={"fwhm": 0.9}).psf == GaussianPSF(0.9)
    assert read(mock, curves, psf={"fwhm": 0.9, "beta": 2.5}).psf == MoffatPSF(0.9, 2.5)


# --- maps that are not what they should be --------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["km/s", "10**(-20)*erg/s/cm**2/Angstrom", ""])
def test_a_map_in_another_unit_is_refused_with_its_name(unit, mock, curves, tmp_path):
    def spoil(hdus):
        hdus["HA6562_FLUX"].header["BUNIT"] = unit

    lines = changed(mock.lines, tmp_path, spoil)
    if unit:
        with pytest.raises(UnitError, match=r"the map of Halpha \(HA6562_FLUX\) is in") as caught:
            read(mock, curves, lines=lines)
        assert str(lines) in str(caught.value)
    else:
        with pytest.warns(AssumptionWarning, match="HA6562_FLUX has no unit"):
            side = read(mock, curves, lines=lines)
        assert side.lines["Halpha"].unit == LINE_BRIGHTNESS


def test_a_lost_power_of_ten_is_noticed(mock, curves, tmp_path):
    def spoil(hdus):
        hdus["HA6562_FLUX"].header["BUNIT"] = "erg/s/cm**2"
        for name in ("HA6562_FLUX", "HA6562_FLUX_ERR"):
            hdus[name].data = hdus[name].data * np.float32(1e-17)

    with pytest.raises(UnitError, match="times the light of the narrow band"):
        read(mock, curves, lines=changed(mock.lines, tmp_path, spoil))
    chosen = settings(lines={"file": "lines", "unit": "1e-17 erg/(s cm2)"})
    with pytest.raises(UnitError, match="times the light"):
        read_muse_side(chosen, curves, REDSHIFT, bands=mock.muse_bands, lines=mock.lines)


def test_maps_are_found_by_the_names_that_the_user_gives(mock, curves, tmp_path):
    def rename(hdus):
        for suffix in ("", "_ERR"):
            hdus[f"HA6562_FLUX{suffix}"].name = f"MY_HA{suffix}"

    lines = changed(mock.lines, tmp_path, rename)
    with pytest.raises(InputError, match="no map HA6562_FLUX with errors") as caught:
        read(mock, curves, lines=lines)
    assert "MY_HA" in caught.value.remedy
    chosen = settings(lines={"file": "lines", "Halpha": "my_ha"})
    side = read_muse_side(chosen, curves, REDSHIFT, bands=mock.muse_bands, lines=lines)
    np.testing.assert_array_equal(side.lines["Halpha"].data, read(mock, curves).lines["Halpha"].data)
    chosen = settings(lines={"file": "lines", "Halpha": "HB_FLUX"})
    with pytest.raises(InputError, match="there is no map 'HB_FLUX'"):
        read_muse_side(chosen, curves, REDSHIFT, bands=mock.muse_bands, lines=lines)


def test_nan_borders_are_masked(mock, curves, tmp_path):
    def border(hdus):
        for hdu in hdus:
            if hdu.data is not None and hdu.data.ndim == 2:
                hdu.data[:3] = np.nan

    lines = changed(mock.lines, tmp_path, border)
    side = read(mock, curves, lines=lines)
    assert side.lines["Halpha"].mask[:3].all()
    assert side.lines["Halpha"].valid[3:].all()
    empty = changed(
        mock.lines, tmp_path, lambda hdus: [hdu.data.fill(np.nan) for hdu in hdus[1:]], "empty.fits"
    )
    with pytest.raises(InputError, match=r"no pixel of .* is usable"):
        read(mock, curves, lines=empty)


def test_maps_on_another_grid_are_resampled_with_a_note(mock, curves, tmp_path):
    """A map that begins two pixels later is moved; its values and errors stay."""

    def shift(hdus):
        for hdu in hdus[1:]:
            hdu.data = hdu.data[:, 2:]
            hdu.header["CRPIX1"] -= 2

    lines = changed(mock.lines, tmp_path, shift)
    with pytest.warns(AssumptionWarning, match="Halpha.* lie on another grid than f658n"):
        side = read(mock, curves, lines=lines)
    whole = read(mock, curves)
    moved = side.lines["Halpha"]
    assert moved.shape == side.bands["f658n"].shape
    assert moved.mask[:, :2].all()
    np.testing.assert_allclose(moved.data[:, 2:], whole.lines["Halpha"].data[:, 2:], rtol=1e-6)
    np.testing.assert_allclose(moved.variance[:, 2:], whole.lines["Halpha"].variance[:, 2:], rtol=1e-6)


def test_maps_of_another_field_are_refused(mock, curves, tmp_path):
    def away(hdus):
        for hdu in hdus[1:]:
            hdu.header["CRVAL2"] += 0.1

    lines = changed(mock.lines, tmp_path, away)
    with pytest.raises(InputError, match="does not lie on the image of MUSE in f658n"):
        read(mock, curves, lines=lines)


def test_band_images_in_another_unit_are_refused(mock, curves, tmp_path):
    def spoil(hdus):
        hdus["DATA"].header["BUNIT"] = "km/s"

    band = changed(mock.muse_bands["f814w"], tmp_path, spoil)
    with pytest.raises(UnitError, match=r"the image in f814w is in km / s"):
        read(mock, curves, bands={"f814w": band})


def test_overlap_with_hubble(mock, curves):
    side = read(mock, curves)
    here = side.bands["f658n"]
    side.require_overlap(here)
    wcs = WCS(here.wcs.to_header())
    wcs.wcs.crval = np.add(wcs.wcs.crval, [0.0, 0.01])
    away = Image(here.data, here.variance, here.mask, here.unit, wcs)
    with pytest.raises(InputError, match=r"MUSE and HST do not overlap: .* 36\.0 arcsec apart"):
        side.require_overlap(away)
    with pytest.raises(InputError, match="do not overlap"):
        side.require_overlap(here.evolve(mask=np.ones(here.shape, bool)))


@pytest.mark.parametrize("distance", [1.0, 20.0, 100.0, 180.0])
@pytest.mark.parametrize("distorted", [False, True])
def test_images_anywhere_on_the_sky_are_said_not_to_overlap(mock, curves, distance, distorted):
    side = read(mock, curves)
    here = side.bands["f658n"]
    wcs = WCS(here.wcs.to_header())
    wcs.wcs.crval = [(wcs.wcs.crval[0] + distance) % 360.0, 0.0]
    if distorted:
        terms = np.zeros((4, 4))
        terms[2, 0] = terms[0, 2] = 8e-6
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
        wcs.sip = Sip(terms, terms.T, None, None, wcs.wcs.crpix)
    with pytest.raises(InputError, match="MUSE and HST in f658n do not overlap"):
        side.require_overlap(here.evolve(wcs=wcs), "HST in f658n")


def test_an_overlap_is_found_by_few_pixels(mock, curves):
    side = read(mock, curves)
    here = side.bands["f658n"]
    y, x = (int(axis[0]) for axis in np.nonzero(here.valid))
    mask = np.ones(here.shape, bool)
    mask[y, x] = False
    side.require_overlap(here.evolve(mask=mask))


# --- maps of the recipe ifs -----------------------------------------------------------------------------------------


def own_maps(mock, curves, path, *, per="spaxel_area"):
    """Maps of bins of 2 x 2 spaxels, as `ifs` writes them: flux and error of a bin over its spaxels."""
    side = read(mock, curves)
    halpha = side.lines["Halpha"]
    nx = halpha.shape[1]
    y, x = np.indices(halpha.shape)
    rows = ((y // 2) * (nx // 2) + x // 2).astype(np.int32)
    n = int(rows.max()) + 1
    spaxel = 0.04  # arcsec2
    flux = np.bincount(rows.ravel(), halpha.data.ravel() * spaxel, n)
    variance = np.bincount(rows.ravel(), halpha.variance.ravel() * spaxel**2, n)
    number = 1 if per == "bin" else 4
    unit = u.Unit("1e-20 erg / (s cm2)")
    maps = LineMaps(
        {"Halpha_flux": BinValues(flux / number, variance / number**2, unit, True, 6578.0)},
        {"Halpha_flag": np.zeros(n, np.int64)}, rows, rows, per, default_lines().select(["Halpha"]), "air",
        np.full(n, REDSHIFT), wcs=halpha.wcs,
    )  # fmt: skip
    return write_line_maps(maps, path, overwrite=True), flux, variance, rows


def test_errors_that_the_pixels_of_a_bin_share_are_kept_in_sums_over_bins(mock, curves, tmp_path):
    path, flux, variance, rows = own_maps(mock, curves, tmp_path / "lines.fits")
    with pytest.warns(AssumptionWarning, match="pixels of a bin share their flux and its error"):
        side = read(mock, curves, lines=path)
    halpha = side.lines["Halpha"]
    assert "errors_shared_within" not in halpha.meta
    area = 0.04
    np.testing.assert_allclose(np.bincount(rows.ravel(), halpha.data.ravel() * area), flux, rtol=1e-5)
    one = (rows == 17).astype(float) * area
    assert sum_variance(halpha.variance, one, halpha.correlation) == pytest.approx(variance[17], rel=1e-5)


def test_fluxes_of_whole_bins_in_every_pixel_are_refused(mock, curves, tmp_path):
    path, *_ = own_maps(mock, curves, tmp_path / "lines.fits", per="bin")
    with pytest.raises(UnitError, match="fluxes are those of whole bins") as caught:
        read(mock, curves, lines=path)
    assert "spaxel_area" in caught.value.remedy


def test_own_maps_without_the_line_are_refused(mock, curves, tmp_path):
    path, *_ = own_maps(mock, curves, tmp_path / "lines.fits")
    chosen = settings(lines={"file": "lines", "NII6583": "NII6583_FLUX"})
    with pytest.raises(InputError, match="there is no map NII6583_FLUX") as caught:
        read_muse_side(chosen, curves, REDSHIFT, bands=mock.muse_bands, lines=path)
    assert re.search("HALPHA_FLUX", caught.value.remedy)
