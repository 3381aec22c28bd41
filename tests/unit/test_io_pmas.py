"""PMAS/CALIFA cubes and spectra: units, setups, errors, and the extinction that is corrected already."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.core.psf import FWHM_PER_SIGMA
from skyloom.errors import AssumptionWarning, FileFormatError, ShapeError
from skyloom.io.cubes.files import open_cube
from skyloom.io.cubes.pmas import read_pmas
from skyloom.io.cubes.survey_noise import califa_correlation
from skyloom.io.registry import sniff_instrument
from tests.inputs.survey_files import CALIFA_WAVE, write_califa

UNIT = ("BUNIT", "1e-16 erg/s/cm2/Angstrom")


def arrays(n_wave=CALIFA_WAVE.size):
    flux = np.random.default_rng(8).normal(1, 0.1, (n_wave, 6, 7)).astype(np.float32)
    return flux, np.full(flux.shape, 0.1, np.float32), np.zeros(flux.shape, np.int16)


def test_cube(tmp_path):
    flux, error, badpix = arrays()
    badpix[3, 1, 2] = 1
    keys = (UNIT, ("OBJECT", "NGC2691"), ("HIERARCH CALIFA ID", 200), ("MED_VEL", 4030.0))
    cube = sl.read(write_califa(tmp_path / "a.fits", flux, error, badpix, keys=keys))
    np.testing.assert_array_equal(cube.data, flux)
    np.testing.assert_allclose(cube.variance, 0.01, rtol=1e-6)
    assert np.argwhere(cube.mask).tolist() == [[3, 1, 2]]
    assert cube.unit == u.Unit("1e-16 erg/(s cm2 AA)")
    assert cube.medium == "air"
    np.testing.assert_array_equal(cube.wave, CALIFA_WAVE)
    assert cube.lsf * FWHM_PER_SIGMA == pytest.approx(6.0)
    assert cube.psf.fwhm == pytest.approx(2.39)
    assert cube.meta["instrument"] == "CALIFA"
    assert cube.meta["setup"] == "V500"
    assert cube.meta["object"] == "NGC2691"
    assert cube.meta["redshift"] == pytest.approx(4030 / 299792.458)
    np.testing.assert_array_equal(cube.correlation.spatial, califa_correlation())
    ra, dec = cube.wcs.pixel_to_world_values(2.5, 2.5)
    assert (float(ra), float(dec)) == pytest.approx((205.4384, 27.004754))


def test_extinction_by_the_milky_way_is_known_to_be_corrected(tmp_path):
    flux, error, badpix = arrays()
    path = write_califa(
        tmp_path / "a.fits", flux, error, badpix, keys=(UNIT, ("HIERARCH PIPE GALEXT EBV", 0.03))
    )
    cube = sl.read(path)
    assert cube.meta["milky_way_corrected"] is True
    assert cube.meta["ebv"] == 0.03
    assert read_pmas(path, milky_way_corrected=False).meta["milky_way_corrected"] is False


@pytest.mark.parametrize(
    "text",
    ["10^-16 erg/s/cm^2/A", "1e-16 erg/s/cm2/A", "10**-16 erg/s/cm**2/Angstrom", "10(-16) erg/s/cm2/AA"],
)
def test_spellings_of_the_unit(text, tmp_path):
    flux, error, badpix = arrays()
    path = write_califa(tmp_path / "a.fits", flux, error, badpix, keys=(("HIERARCH PIPE UNITS", text),))
    assert sl.read(path).unit == u.Unit("1e-16 erg/(s cm2 AA)")


def test_unit_that_is_not_said_or_cannot_be_read(tmp_path):
    flux, error, badpix = arrays()
    path = write_califa(tmp_path / "a.fits", flux, error, badpix)
    with pytest.warns(AssumptionWarning, match="no unit: taken as 1e-16"):
        assert sl.read(path).unit == u.Unit("1e-16 erg/(s cm2 AA)")
    path = write_califa(tmp_path / "b.fits", flux, error, badpix, keys=(("BUNIT", "flux"),))
    with pytest.warns(AssumptionWarning, match="BUNIT is 'flux', which cannot be read"):
        sl.read(path)
    assert sl.read(path, unit="1e-17 erg/(s cm2 AA)").unit == u.Unit("1e-17 erg/(s cm2 AA)")


@pytest.mark.parametrize(("increment", "setup", "fwhm"), [(0.7, "V1200", 2.3), (2.0, "V500", 6.0)])
def test_setup_by_its_sampling(increment, setup, fwhm, tmp_path):
    flux, error, badpix = arrays()
    keys = (UNIT, ("CDELT3", increment), ("CD3_3", increment))
    path = write_califa(tmp_path / "a.fits", flux, error, badpix, keys=keys)
    cube = sl.read(path)
    assert cube.meta["setup"] == setup
    assert cube.lsf * FWHM_PER_SIGMA == pytest.approx(fwhm)
    assert read_pmas(path, lsf=1.0).lsf == 1.0


def test_axis_without_a_name(tmp_path):
    flux, error, badpix = arrays()
    keys = (UNIT, ("CTYPE3", None), ("CRPIX3", 3.0), ("INSTRUME", "PMAS"))
    cube = sl.read(write_califa(tmp_path / "a.fits", flux, error, badpix, keys=keys))
    np.testing.assert_allclose(cube.wave, CALIFA_WAVE - 4.0)
    assert cube.meta["instrument"] == "PMAS"


def test_parts_of_a_cube(tmp_path):
    flux, error, badpix = arrays()
    opened = open_cube(write_califa(tmp_path / "a.fits", flux, error, badpix, keys=(UNIT,)))
    part = opened.read(slice(4, 9), slice(1, 3))
    np.testing.assert_array_equal(part.data, flux[4:9, 1:3])
    np.testing.assert_array_equal(part.wave, CALIFA_WAVE[4:9])


def test_row_stacked_spectra(tmp_path):
    flux, error, badpix = (array[:, :3, 0].T.copy() for array in arrays())
    error[1, 5], badpix[2] = 1e10, 1
    spectra = sl.read(write_califa(tmp_path / "a.fits", flux, error, badpix, keys=(UNIT,)))
    assert isinstance(spectra, sl.Spectra)
    np.testing.assert_array_equal(spectra.data, flux)
    assert np.argwhere(spectra.mask[:2]).tolist() == [[1, 5]]
    assert spectra.meta["empty"] == [2]
    assert spectra.medium == "air"
    assert spectra.meta["milky_way_corrected"] is True


def test_missing_and_misshapen_errors(tmp_path):
    flux, error, badpix = (array[:, :3, 0].T.copy() for array in arrays())
    path = write_califa(tmp_path / "a.fits", flux, error[:2], badpix, keys=(UNIT,))
    with pytest.raises(ShapeError, match=r"ERROR has shape \(2, 40\); expected \(3, 40\)"):
        sl.read(path)
    path = write_califa(tmp_path / "b.fits", flux, error, badpix, error_name="OTHER", keys=(UNIT,))
    with pytest.raises(FileFormatError, match="no extension ERROR"):
        sl.read(path, instrument="pmas")
    cube, errors, bad = arrays()
    path = write_califa(tmp_path / "c.fits", cube, errors, bad, error_name="OTHER", keys=(UNIT,))
    with pytest.raises(FileFormatError, match="no errors"):
        sl.read(path, instrument="pmas")


def test_truncated_file(tmp_path):
    flux, error, badpix = arrays()
    path = write_califa(tmp_path / "a.fits", flux, error, badpix, keys=(UNIT,))
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(FileFormatError, match="truncated"):
        sl.read(path)


def test_other_files_are_not_taken_for_pmas(tmp_path):
    image = fits.HDUList([fits.PrimaryHDU(np.ones((4, 5))), fits.ImageHDU(np.ones((4, 5)), name="ERROR")])
    image[0].header["BUNIT"] = "electron/s"
    image.writeto(tmp_path / "image.fits")
    assert sniff_instrument(tmp_path / "image.fits") == "image"
