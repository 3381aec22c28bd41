"""What pipelines for Halpha got wrong about MUSE, each as a test."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from skyloom.core.bandpass import Bandpass
from skyloom.core.noise import sum_variance
from skyloom.core.psf import GaussianPSF
from skyloom.errors import AssumptionWarning
from skyloom.recipes.halpha.config import MuseSettings
from skyloom.recipes.halpha.muse import read_muse_side
from tests.inputs.snr import celestial

CURVES = {"f658n": Bandpass.tophat(6584.0, 90.0, name="f658n")}


def write_band(path, wcs, shape, rng, sigma=1e-9):
    image = 1e-6 + sigma * rng.standard_normal(shape)
    header = wcs.to_header()
    header["BUNIT"] = "Jy"
    primary = fits.PrimaryHDU(header=fits.Header({"INSTRUME": "MUSE"}))
    planes = [
        fits.ImageHDU(image, header, name="DATA"),
        fits.ImageHDU(np.full(shape, sigma**2), header, name="STAT"),
    ]
    fits.HDUList([primary, *planes]).writeto(path)
    return path


def write_lines(path, wcs, shape, rng, sigma=50.0):
    noise = sigma * rng.standard_normal(shape)
    header = wcs.to_header()
    header["BUNIT"] = "10**(-20)*erg/s/cm**2"
    planes = [
        fits.ImageHDU(1000.0 + noise, header, name="HA6562_FLUX"),
        fits.ImageHDU(np.full(shape, sigma), header, name="HA6562_FLUX_ERR"),
    ]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(path)
    return path


def settings(**changes):
    return MuseSettings(**{"bands": "bands", "lines": {"file": "lines"}, **changes})


def read(band, lines, **changes):
    return read_muse_side(settings(**changes), CURVES, 0.002, bands={"f658n": band}, lines=lines)


def test_the_muse_psf_parsed_from_a_file_name(tmp_path, rng):
    """A file called ..._0.92asec told a program its PSF; here only the configuration does, or the cube's header."""
    wcs = celestial()
    lines = write_lines(tmp_path / "ngc_MAPS.fits", wcs, (20, 20), rng)
    plain = write_band(tmp_path / "ngc.fits", wcs, (20, 20), rng)
    named = tmp_path / "ngc_f658n_0.92asec.fits"
    shutil.copy(plain, named)
    assert read(named, lines).psf is None
    assert read(plain, lines).psf is None
    assert read(named, lines, psf={"fwhm": 0.7}).psf == GaussianPSF(0.7)


def test_sigma_not_variance_interpolated(tmp_path, rng):
    """A map half a pixel off: errors interpolated like data claim 1.5 times the noise that is left, and no correlation.

    Sums over 5 x 5 pixels, which neighbours share noise in, need that correlation.
    """
    wcs = celestial()
    shifted = WCS(wcs.to_header())
    shifted.wcs.crpix = np.add(shifted.wcs.crpix, 0.5)
    band = write_band(tmp_path / "band.fits", wcs, (100, 100), rng)
    lines = write_lines(tmp_path / "lines.fits", shifted, (100, 100), rng)
    with pytest.warns(AssumptionWarning, match="another grid"):
        halpha = read(band, lines).lines["Halpha"]
    inside = (slice(5, 95), slice(5, 95))
    noise = (halpha.data - 1000.0 / 0.04)[inside]
    claimed = np.sqrt(halpha.variance[inside])
    # 8100 pixels, of which fewer than half are independent.
    assert noise.std() / np.sqrt(np.mean(claimed**2)) == pytest.approx(1.0, abs=3 / np.sqrt(8100))
    sums = noise.reshape(18, 5, 18, 5).sum(axis=(1, 3))
    patch = halpha.variance[5:10, 5:10]
    expected = np.sqrt(sum_variance(patch, np.ones((5, 5)), halpha.correlation))
    assert sums.std() / expected == pytest.approx(1.0, abs=3 / np.sqrt(2 * 324))
