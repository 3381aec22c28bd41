"""What existing pipelines get wrong with the cubes of surveys, one test per defect."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.errors import InputError
from tests.inputs.survey_files import CALIFA_WAVE, manga_arrays, write_califa, write_manga

RESOLUTION = fits.ImageHDU(np.full(30, 2000.0), name="SPECRES")


def test_manga_is_not_linear_in_wavelength(tmp_path):
    wave = 10 ** (3.5589 + 1e-4 * np.arange(4563))
    resolution = fits.ImageHDU(np.full(wave.size, 2000.0), name="SPECRES")
    arrays = manga_arrays(n_wave=wave.size, size=2)
    cube = sl.read(write_manga(tmp_path / "a.fits", *arrays, wave=wave, extra=(resolution,)))
    np.testing.assert_array_equal(cube.wave, wave)
    np.testing.assert_allclose(np.diff(np.log10(cube.wave)), 1e-4, rtol=1e-6)
    assert np.max(np.abs(np.linspace(wave[0], wave[-1], wave.size) - cube.wave)) > 800


def test_inverse_variance_of_zero_never_becomes_infinite(tmp_path):
    flux, ivar, mask = manga_arrays()
    ivar[3] = 0.0
    cube = sl.read(write_manga(tmp_path / "a.fits", flux, ivar, mask, extra=(RESOLUTION,)))
    assert cube.mask[3].all()
    assert np.isfinite(cube.variance).all()
    assert not cube.mask[[2, 4]].any()


def califa_arrays():
    rng = np.random.default_rng(8)
    flux = rng.normal(1, 0.1, (CALIFA_WAVE.size, 6, 7)).astype(np.float32)
    return flux, np.full(flux.shape, 0.1, np.float32), np.zeros(flux.shape, np.int16)


def test_unknown_errors_are_masked_never_tiny(tmp_path):
    """NaN errors set to 1e-22 make a bad voxel outweigh all others."""
    flux, error, badpix = califa_arrays()
    error[5, 2, 3], error[6, 2, 3], error[7, 2, 3] = np.nan, 1e10, 0.0
    cube = sl.read(
        write_califa(tmp_path / "a.fits", flux, error, badpix, keys=(("BUNIT", "1e-16 erg/s/cm2/Angstrom"),))
    )
    assert np.argwhere(cube.mask).tolist() == [[5, 2, 3], [6, 2, 3], [7, 2, 3]]
    assert cube.variance[cube.valid].min() == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["PMA", "P", "", "MAS", "pma s"])
def test_names_of_instruments_are_compared_whole(name, tmp_path):
    """``survey in ('PMAS')`` tests for a part of the text: every piece of the name, and none at all, passed."""
    flux, error, badpix = califa_arrays()
    path = write_califa(tmp_path / "a.fits", flux, error, badpix)
    with pytest.raises(InputError, match="is no known instrument"):
        sl.read(path, instrument=name)


def test_wavelengths_follow_the_header_formula(tmp_path):
    """An axis made with linspace and its end included drifts by a channel: 0.5 A at Halpha, 1.25 A at the red end."""
    flux, error, badpix = califa_arrays()
    cube = sl.read(
        write_califa(tmp_path / "a.fits", flux, error, badpix, keys=(("BUNIT", "1e-16 erg/s/cm2/Angstrom"),))
    )
    np.testing.assert_array_equal(cube.wave, CALIFA_WAVE)
