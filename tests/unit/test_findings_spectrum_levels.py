"""Defects that existing cube databases have in their spectra; none may come back."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import weighted_sum_variance
from skyloom.store.levels.common_grid import rows
from skyloom.store.levels.spectra import spectrum_levels
from skyloom.store.schema import CommonGrid, StoreSettings

UNIT = "1e-17 erg/(s cm2 AA)"
N_DRAWS = 600


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_coarser_spectra_scatter_as_they_claim(shift):
    """Smoothed, interpolated, sigma halved per level: true over claimed scatter of 0.74 to 1.95."""
    settings = StoreSettings(common_grid=CommonGrid(5000.0, 5200.0), levels=5)
    wave = 10 ** (1e-4 * (36985 + shift + np.arange(195)))
    variance = np.linspace(0.5, 2.0, wave.size)
    noise = np.random.default_rng(5).normal(0, 1, (N_DRAWS, wave.size)) * np.sqrt(variance)
    spectra = Spectra(noise, np.broadcast_to(variance, noise.shape), None, UNIT, wave, "vacuum")
    made = [spectrum_levels(row, settings)[1] for row in rows(spectra)]
    for level in range(5):
        subject = made[0][level].subject
        good = subject.valid[0]
        values = np.vstack([levels[level].subject.data[0, good] for levels in made])
        # The same for single pixels and for the sum of all, which sees whatever correlation is left.
        claimed = np.sqrt(subject.variance[0, good])
        ratio = values.std(axis=0) / claimed
        assert abs(ratio.mean() - 1) < 3 / np.sqrt(2 * N_DRAWS * 2)
        whole = weighted_sum_variance(subject.variance[0], good.astype(float), subject.correlation)
        assert abs(values.sum(axis=1).std() / np.sqrt(whole) - 1) < 3 / np.sqrt(2 * N_DRAWS)


def test_wavelengths_are_all_different_and_exact():
    """Wavelengths rounded with the fluxes: 622 distinct values of 4620."""
    wave = 10 ** (3.5793 + 1e-4 * np.arange(4620))
    data = np.ones((1, wave.size), np.float32)
    native, levels = spectrum_levels(Spectra(data, data, None, UNIT, wave, "vacuum"))
    assert native.subject.wave.dtype == np.float64
    np.testing.assert_array_equal(native.subject.wave, wave)
    grid = CommonGrid()
    for number, level in enumerate(levels):
        stored = level.subject.wave
        assert stored.dtype == np.float64
        assert np.unique(stored).size == stored.size
        block = 2**number
        index = np.log10(stored) / grid.step - (0.5 * block - 0.5)
        np.testing.assert_allclose(index, np.round(index), atol=1e-8)
        np.testing.assert_allclose(np.diff(np.log10(stored)), block * grid.step, rtol=1e-9)


def test_errors_are_no_copies_of_the_data():
    """The sigma of the dense cube was the flux again: wrong by a factor of 0.3 to 10."""
    wave = 10 ** (3.6 + 1e-4 * np.arange(500))
    data = np.linspace(50.0, 100.0, wave.size)[None]
    spectrum = Spectra(data, np.full(data.shape, 4.0), None, UNIT, wave, "vacuum")
    _, levels = spectrum_levels(spectrum)
    for number, level in enumerate(levels):
        full = level.n_good[0] == 2**number
        np.testing.assert_allclose(level.subject.variance[0, full], 4.0 / 2**number, rtol=1e-3)
