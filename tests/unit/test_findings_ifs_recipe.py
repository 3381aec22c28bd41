"""Defects measured in existing pipelines that a whole run over a cube could repeat, each as a named test."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

import skyloom as sl
from skyloom.mock.cubes.files import write_cube_mock
from skyloom.recipes.config import load_config
from skyloom.recipes.ifs.config import IfsConfig
from skyloom.recipes.ifs.run import ifs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One MUSE cube under a misleading name."""
    folder = tmp_path_factory.mktemp("mock")
    mock = write_cube_mock(
        folder, "muse", seed=6, shape=(20, 22), wave_range=(6400, 6800), name="PMAS", noise_free=False
    )
    settings = [f"output.directory={folder / 'out'}", "output.figures=false", "output.report=false"]
    result = ifs(load_config(mock.config, IfsConfig, [*settings, "extinction.curve=none"]))
    assert not result.failures
    products = folder / "out" / "PMAS"
    return mock, sl.read(products / "PMAS_spectra.fits"), sl.read(products / "PMAS_bins.fits")


def test_the_last_bin_is_there(run):
    """The last bin was dropped."""
    mock, spectra, labels = run
    assert spectra.shape[0] == labels.labels.max() + 1 == labels.meta["n_bins"]
    assert not spectra.mask[-1].all()
    with fits.open(mock.cube) as hdus:
        data = hdus["DATA"].data[:, labels.labels == labels.labels.max()]
    complete = np.isfinite(data).all(axis=1)
    np.testing.assert_allclose(spectra.data[-1][complete], data.sum(axis=1)[complete], rtol=1e-4, atol=1e-3)


def test_pixels_without_data_are_in_no_bin_and_every_good_one_is_in_one(run):
    """NaN became zero signal and zero noise: a quarter of the good pixels shared bins with NaN pixels."""
    mock, _, labels = run
    with fits.open(mock.cube) as hdus:
        near = np.abs(np.asarray(sl.read(mock.cube).wave) - 6628) < 15
        dead = np.isnan(hdus["DATA"].data).all(axis=0)
        good = np.isfinite(hdus["DATA"].data[near]).all(axis=0)
    assert dead.any()
    assert np.all(labels.labels[dead] == -1)
    assert np.all(labels.labels[good] >= 0)


def test_the_wavelengths_are_those_of_the_header(run):
    """linspace with its end included moved the axis by 24 km/s at Halpha and by a channel at the red end."""
    mock, spectra, _ = run
    with fits.open(mock.cube) as hdus:
        header = hdus["DATA"].header
    channels = np.arange(header["NAXIS3"])
    formula = header["CRVAL3"] + (channels + 1 - header["CRPIX3"]) * header["CD3_3"]
    np.testing.assert_allclose(spectra.wave, formula, rtol=0, atol=1e-6)


def test_the_instrument_is_told_by_the_headers(run):
    """``survey in ('PMAS')`` asked for a part of the name."""
    _, spectra, _ = run
    assert spectra.meta["instrument"] == "MUSE"


def test_errors_are_sums_with_the_covariance_of_the_spaxels(run):
    """Bins were given errors as if spaxels were independent."""
    _, spectra, labels = run
    sizes = np.array(spectra.meta["n_pixels"])
    largest = int(np.argmax(sizes))
    assert sizes[largest] > 10
    inside = labels.labels == largest
    with fits.open(run[0].cube) as hdus:
        independent = np.nansum(hdus["STAT"].data[:, inside], axis=1)
    ratio = np.median(spectra.variance[largest] / independent)
    assert 1.2 < ratio < 3.0
