"""Genuine files of MaNGA and CALIFA."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.core.psf import FWHM_PER_SIGMA
from skyloom.errors import AssumptionWarning, RepairWarning
from skyloom.io.cubes.files import open_cube
from skyloom.io.cubes.manga import CUBE_BAD_BITS, RSS_BAD_BITS
from skyloom.io.cubes.pmas import SETUPS

pytestmark = pytest.mark.data


def test_manga_spectra(data_dir):
    path = data_dir / "manga" / "MaNGA_test_spectra.fits.gz"
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        spectra = sl.read(path)
    assert sorted(str(warning.category.__name__) for warning in given) == [
        "AssumptionWarning",
        "RepairWarning",
    ]
    text = " ".join(str(warning.message) for warning in given)
    assert "1901 resolutions that are not positive, in spectrum 5" in text
    assert "no usable channel in spectrum 5" in text
    assert spectra.shape == (8, 4563)
    assert spectra.medium == "vacuum"
    assert spectra.unit == u.Unit("1e-17 erg/(s cm2 AA)")
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(spectra.wave, hdus["WAVE"].data)
        np.testing.assert_array_equal(spectra.data, hdus["FLUX"].data)
        ivar, codes, resolution = hdus["IVAR"].data, hdus["MASK"].data, hdus["SRES"].data
        assert spectra.meta["redshift"] == hdus["Z"].data.tolist()
        np.testing.assert_array_equal(spectra.mask, (ivar <= 0) | ((codes & CUBE_BAD_BITS) != 0))
        valid = spectra.valid
        np.testing.assert_allclose(spectra.variance[valid] * ivar[valid], 1.0, rtol=1e-6)
        good = np.delete(np.arange(8), 5)
        np.testing.assert_allclose(spectra.lsf[good], (hdus["WAVE"].data / resolution / FWHM_PER_SIGMA)[good])
    assert spectra.meta["empty"] == [5]
    assert np.isfinite(spectra.variance).all()
    np.testing.assert_allclose(np.diff(np.log(spectra.wave)), np.log(10) * 1e-4, rtol=1e-6)


def test_halpha_lies_at_the_redshift_that_the_file_lists(data_dir):
    """Vacuum wavelengths: with air ones all lines would be 83 km/s off."""
    with pytest.warns((AssumptionWarning, RepairWarning)):
        spectra = sl.read(data_dir / "manga" / "MaNGA_test_spectra.fits.gz")
    offsets = []
    for row, redshift in enumerate(spectra.meta["redshift"]):
        if row in spectra.meta["empty"]:
            continue
        rest = spectra.wave / (1 + redshift)
        window = np.abs(rest - 6564.61) < 8
        excess = spectra.data[row, window] - np.median(spectra.data[row, np.abs(rest - 6620) < 25])
        if excess.max() < 10 * np.sqrt(np.median(spectra.variance[row, window])):
            continue
        weight = np.clip(excess, 0, None)
        offsets.append(299792.458 * (np.sum(weight * rest[window]) / np.sum(weight) / 6564.61 - 1))
    assert len(offsets) >= 3
    # The listed redshifts are those of the galaxies; each spaxel rotates about them.
    assert abs(np.median(offsets)) < 60


def test_structure_of_a_log_cube(data_dir):
    """Every extension and header of a LOGCUBE is genuine; the numbers are random, the list of wavelengths too."""
    path = data_dir / "manga" / "STRUCTURE_ONLY_manga-7495-12704-LOGCUBE.fits"
    with pytest.warns(AssumptionWarning) as given:
        opened = open_cube(path)
    cube = opened.read()
    notes = " ".join(str(warning.message) for warning in given)
    assert "WAVE holds no ascending wavelengths" in notes
    assert "no resolving power of the instrument" in notes
    assert cube.shape == (10, 10, 10)
    assert cube.unit == u.Unit("1e-17 erg/(s cm2 AA)")
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(cube.data, hdus["FLUX"].data)
        np.testing.assert_allclose(cube.variance * hdus["IVAR"].data, 1.0, rtol=1e-6)
        assert cube.psf.at(4686.0).fwhm == hdus[0].header["GFWHM"]
    assert cube.wave[0] == 3621.59598486
    np.testing.assert_allclose(np.diff(np.log10(cube.wave)), 1e-4, rtol=1e-7)
    assert cube.meta["plateifu"] == "7495-12704"
    assert cube.meta["ebv"] == 0.0122922
    assert cube.meta["milky_way_corrected"] is False
    ra, dec = cube.wcs.pixel_to_world_values(37.0, 37.0)
    assert (float(ra), float(dec)) == pytest.approx((205.4384, 27.004754))


def test_mask_bits_are_those_of_the_survey(data_dir):
    meanings = {}
    for line in (data_dir / "manga" / "sdssMaskbits.par").read_text().splitlines():
        words = line.split()
        if len(words) > 3 and words[0] == "maskbits":
            meanings[words[1], words[3]] = 1 << int(words[2])
    cube = ("NOCOV", "LOWCOV", "DEADFIBER", "FORESTAR", "DONOTUSE")
    assert sum(meanings["MANGA_DRP3PIXMASK", name] for name in cube) == CUBE_BAD_BITS
    stacked = ("DEADFIBER", "FULLREJECT", "NOSKY", "NODATA", "3DREJECT")
    assert sum(meanings["MANGA_DRP2PIXMASK", name] for name in stacked) == RSS_BAD_BITS


def test_califa_stacked_spectra(data_dir):
    path = data_dir / "pmas_califa" / "NGC2691.COMB.RSS.fits"
    with pytest.warns(AssumptionWarning, match="no unit: taken as 1e-16"):
        spectra = sl.read(path)
    assert spectra.shape == (3, 1901)
    np.testing.assert_array_equal(spectra.wave, 3701.0 + 2.0 * np.arange(1901))
    assert spectra.wave[-1] == 7501.0
    assert spectra.meta["milky_way_corrected"] is True
    with fits.open(path) as hdus:
        bad = (hdus["BADPIX"].data != 0) | (hdus["ERROR"].data >= 1e10)
        np.testing.assert_array_equal(spectra.mask, bad)
        np.testing.assert_allclose(spectra.data, hdus[0].data, rtol=1e-6)
        np.testing.assert_allclose(spectra.variance[~bad], hdus["ERROR"].data[~bad] ** 2, rtol=1e-6)
    # The errors are about what neighbouring channels scatter by (medians: lines and steep features do not count).
    for row in range(3):
        bends = np.diff(spectra.data[row].astype(float), n=2)[200:1600]
        sigma = np.sqrt(spectra.variance[row, 201:1601].astype(float))
        ratio = 1.4826 * np.median(np.abs(bends)) / np.sqrt(6.0) / np.median(sigma)
        assert 0.2 < ratio < 2.0, row


def test_resolution_of_the_setups_against_the_tabulated_ones(data_dir):
    for setup in SETUPS:
        rows = np.loadtxt(data_dir / "lsf" / f"lsf_CALIFA-{setup.name}")
        np.testing.assert_allclose(rows[:, 1], setup.fwhm, rtol=0.01)
