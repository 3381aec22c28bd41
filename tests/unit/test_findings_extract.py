"""Defects of existing pipelines that sum spectra over bins (BETIS, 10.1051/0004-6361/202348453), by name."""

from __future__ import annotations

import numpy as np

from skyloom.core.cube import Cube
from skyloom.spectral.bins.extract import extract_spectra

SHAPE = (6, 4, 5)


def plain_cube(data=None, mask=None):
    values = np.ones(SHAPE, np.float32) if data is None else data
    clear = np.zeros(SHAPE, bool) if mask is None else mask
    return Cube(
        values, np.ones(SHAPE, np.float32), clear, "1e-20 erg/(s cm2 AA)", None, np.arange(6.0) + 5000, "air"
    )


def test_the_last_bin_is_not_dropped():
    labels = np.arange(20).reshape(4, 5)
    spectra = extract_spectra(plain_cube(), labels)
    assert spectra.meta["labels"] == list(range(20))
    assert spectra.shape == (20, 6)
    assert not spectra.mask.any()
    assert extract_spectra(plain_cube(), np.zeros((4, 5), int)).shape == (1, 6)


def test_bins_of_equal_signal_stay_apart():
    """Bins are their labels: four bins, two of them with the same signal, and numbers with gaps."""
    labels = np.repeat([[40], [7], [90], [3]], 5, axis=1)
    data = np.ones(SHAPE, np.float32) * np.array([0.7, 2.0, 0.7, 2.0], np.float32)[None, :, None]
    spectra = extract_spectra(plain_cube(data), labels)
    assert spectra.meta["labels"] == [3, 7, 40, 90]
    np.testing.assert_allclose(spectra.data[:, 0], [10.0, 10.0, 3.5, 3.5], rtol=1e-6)
    assert spectra.meta["n_pixels"] == [5, 5, 5, 5]


def test_unknown_errors_are_neither_tiny_nor_infinite():
    """A voxel without an error is masked: its bin does not inherit an error of 1e-22, nor one of 1 / 0."""
    mask = np.zeros(SHAPE, bool)
    mask[2, 0, 0] = mask[3, 0, :] = True
    cube = plain_cube(mask=mask)
    broken = cube.variance.copy()
    broken[mask] = np.nan
    labels = np.full((4, 5), -1)
    labels[0] = 0
    spectra = extract_spectra(cube.evolve(variance=broken), labels)
    np.testing.assert_allclose(spectra.variance[0, 2], 4 * (5 / 4) ** 2, rtol=1e-6)
    assert spectra.mask[0].tolist() == [False, False, False, True, False, False]
    assert np.isfinite(spectra.variance).all()
    assert (spectra.variance > 0.5).all()


def test_missing_voxels_are_not_zero_flux():
    mask = np.zeros(SHAPE, bool)
    mask[2, 0, 0] = True
    data = np.where(mask, np.nan, 1.0).astype(np.float32)
    labels = np.full((4, 5), -1)
    labels[0] = 0
    spectra = extract_spectra(plain_cube(data, mask), labels)
    np.testing.assert_allclose(spectra.data[0], 5.0, rtol=1e-6)


def test_masked_spaxels_give_nothing_to_a_bin():
    """Corners of a circular field that share a label with good spaxels, left out on request."""
    mask = np.zeros(SHAPE, bool)
    mask[:, :2, :2] = True
    data = np.where(mask, np.nan, 1.0).astype(np.float32)
    cube, labels = plain_cube(data, mask), np.zeros((4, 5), int)
    spectra = extract_spectra(cube, labels, usable=~mask.all(axis=0))
    assert spectra.meta["n_pixels"] == [16]
    np.testing.assert_allclose(spectra.data[0], 16.0, rtol=1e-6)
    np.testing.assert_allclose(spectra.variance[0], 16.0, rtol=1e-6)


def test_wavelengths_of_spectra_are_those_of_the_cube():
    cube = plain_cube()
    np.testing.assert_array_equal(extract_spectra(cube, np.zeros((4, 5), int)).wave, cube.wave)
