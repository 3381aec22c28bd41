"""Doors to CCDData, specutils and HDUList."""

from __future__ import annotations

import sys
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)

import skyloom as sl
from skyloom.errors import InputError
from skyloom.io.adapters import from_ccddata, from_spectrum, to_ccddata, to_hdulist, to_spectrum
from tests.inputs.io_objects import assert_same, make_cube, make_image, make_spectra


def test_hdulist_is_what_would_be_written(tmp_path, rng):
    for obj in (make_image(rng, full=True), make_cube(rng, full=True), make_spectra(rng, full=True)):
        hdus = to_hdulist(obj)
        assert isinstance(hdus, fits.HDUList)
        path = tmp_path / f"{type(obj).__name__}.fits"
        hdus.writeto(path)
        assert_same(sl.read(path), obj)


def test_image_through_ccddata(rng):
    image = make_image(rng, full=True)
    ccd = to_ccddata(image)
    assert isinstance(ccd, CCDData)
    assert isinstance(ccd.uncertainty, VarianceUncertainty)
    assert ccd.unit == image.unit
    back = from_ccddata(ccd)
    assert_same(back, image, only=("data", "variance", "mask", "unit", "wcs", "flags", "meta"))
    np.testing.assert_array_equal(back.psf.array, image.psf.array)
    assert back.history[0].name == "from_ccddata"


def test_the_copy_is_independent(rng):
    image = make_image(rng)
    ccd = to_ccddata(image)
    ccd.data[:] = 0
    ccd.mask[:] = True
    assert image.data.any()
    assert not image.mask.all()


def test_standard_deviations(rng):
    image = make_image(rng)
    ccd = to_ccddata(image, uncertainty="std")
    assert isinstance(ccd.uncertainty, StdDevUncertainty)
    np.testing.assert_allclose(from_ccddata(ccd).variance, image.variance, rtol=1e-6)
    with pytest.raises(InputError, match="use one of variance, std"):
        to_ccddata(image, uncertainty="ivar")


def test_ccddata_arithmetic_propagates_our_variance(rng):
    image = make_image(rng, psf=None)
    double = to_ccddata(image).add(to_ccddata(image))
    np.testing.assert_allclose(
        from_ccddata(double).variance[image.valid], 2 * image.variance[image.valid], rtol=1e-6
    )


def test_inverse_variance_and_what_must_be_masked():
    data = np.array([[1.0, np.nan, 3.0, 4.0]])
    ccd = CCDData(data, uncertainty=InverseVariance(np.array([[4.0, 1.0, 0.0, 1.0]])), unit="adu")
    ccd.mask = np.array([[False, False, False, True]])
    image = from_ccddata(ccd)
    np.testing.assert_array_equal(image.mask, [[False, True, True, True]])
    assert image.variance[0, 0] == 0.25


@pytest.mark.parametrize("uncertainty", [None, UnknownUncertainty(np.ones((2, 2)))])
def test_no_uncertainty_is_said(uncertainty):
    with pytest.raises(InputError, match=r"CCDData has no usable uncertainty \(found: "):
        from_ccddata(CCDData(np.ones((2, 2)), uncertainty=uncertainty, unit="adu"))


@pytest.fixture
def specutils():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what specutils says of its own dependencies while it is imported
        return pytest.importorskip("specutils")


def test_spectra_through_specutils(specutils, rng):
    spectra = make_spectra(rng, full=True)
    spectrum = to_spectrum(spectra)
    assert isinstance(spectrum, specutils.Spectrum)
    assert spectrum.flux.unit == spectra.unit
    back = from_spectrum(spectrum)
    assert_same(back, spectra, only=("data", "variance", "mask", "unit", "wave", "medium", "meta"))


def test_one_spectrum_in_other_units(specutils):
    frequency = np.linspace(4e14, 6e14, 11) * u.Hz
    flux = np.arange(11.0) * u.Jy
    spectrum = specutils.Spectrum(
        flux=flux, spectral_axis=frequency, uncertainty=StdDevUncertainty(np.full(11, 0.5))
    )
    with pytest.raises(InputError, match="does not say air or vacuum"):
        from_spectrum(spectrum)
    spectra = from_spectrum(spectrum, medium="vacuum")
    assert spectra.shape == (1, 11)
    np.testing.assert_array_equal(spectra.data[0], np.arange(11.0)[::-1])
    np.testing.assert_allclose(spectra.wave, (299792458e10 / frequency.value)[::-1])
    np.testing.assert_array_equal(spectra.variance, 0.25)


def test_missing_specutils_says_how_to_get_it(monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "specutils", None)
    with pytest.raises(InputError, match=r"specutils is not installed; install it with: pip install"):
        to_spectrum(make_spectra(rng))
