"""Spectra and cubes opened by specutils, without being told what they are."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import VarianceUncertainty
from tests.inputs.ecosystem_products import needs

from skyloom.io.adapters import from_spectrum


@pytest.fixture(autouse=True)
def _there():
    needs("specutils")


@pytest.mark.parametrize("name", ["one", "spectra", "cube", "log_cube"])
def test_they_open_with_errors_masks_units_and_wavelengths(made, name):
    from specutils import Spectrum

    ours = getattr(made, name)
    spectrum = Spectrum.read(made.folder / f"{name}.fits")
    assert spectrum.flux.shape == ours.shape
    assert spectrum.flux.unit == ours.unit
    good = ~ours.mask
    np.testing.assert_array_equal(spectrum.flux.value[good], ours.data[good])
    assert isinstance(spectrum.uncertainty, VarianceUncertainty)
    assert spectrum.uncertainty.unit == ours.unit**2
    np.testing.assert_array_equal(spectrum.uncertainty.array[good], ours.variance[good])
    np.testing.assert_array_equal(spectrum.mask, ours.mask)
    step = np.diff(ours.wave).min()
    np.testing.assert_allclose(spectrum.spectral_axis.to_value(u.AA), ours.wave, rtol=0, atol=1e-4 * step)


def test_the_resampled_cube_opens_when_the_errors_are_named(made):
    from specutils import Spectrum

    spectrum = Spectrum.read(
        made.folder / "resam.fits", format="wcs1d-fits", uncertainty_hdu="ERROR", uncertainty_type="std"
    )
    good = ~made.cube.mask
    np.testing.assert_array_equal(spectrum.flux.value[good], made.cube.data[good])
    np.testing.assert_allclose(spectrum.uncertainty.array[good] ** 2, made.cube.variance[good], rtol=1e-6)


def test_fitted_spectra_open_too(made):
    from specutils import Spectrum

    spectrum = Spectrum.read(made.folder / "fits.fits")
    assert spectrum.flux.shape[0] == len(made.bins.ids)


def test_what_specutils_has_read_comes_back(made):
    from specutils import Spectrum

    back = from_spectrum(Spectrum.read(made.folder / "spectra.fits"), medium="vacuum")
    good = ~made.spectra.mask
    np.testing.assert_array_equal(back.data[good], made.spectra.data[good])
    np.testing.assert_array_equal(back.variance[good], made.spectra.variance[good])
