"""Defects found in existing pipelines that prepare spectra: each is shown to be real, and not to happen here."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.linelist import default_lines
from skyloom.core.spectra import Spectra
from skyloom.core.spectral_noise import lag_bands, weighted_sum_variance
from skyloom.spectral.axes.grids import pixel_edges, regular_grid
from skyloom.spectral.axes.resample import resample
from skyloom.spectral.axes.rest_frame import to_rest_frame
from tests.oracles import spectral as oracles_spectral

N = 4000
WAVE = 6450.0 + 1.25 * np.arange(160)
UNIT = "1e-20 erg/(s cm2 AA)"


def noise(rng):
    return Spectra(rng.normal(0, 2, (N, WAVE.size)), np.full((N, WAVE.size), 4.0), None, UNIT, WAVE, "air")


def covariance_of_sum(spectra, part):
    bands = lag_bands(spectra.correlation, spectra.wave.size)[part]
    width = bands.shape[0]
    return weighted_sum_variance(spectra.variance[:, part], np.ones(width), bands)


def chi_square(spectra, part):
    """chi2 per degree of freedom with the full covariance of the channels in ``part``."""
    bands = lag_bands(spectra.correlation, spectra.wave.size)[part]
    sigma = np.sqrt(spectra.variance[0, part])
    covariance = sigma[:, None] * oracles_spectral.lag_matrix(bands, sigma.size) * sigma
    data = spectra.data[:, part]
    return float(np.mean(np.sum(data * np.linalg.solve(covariance, data.T).T, axis=1)) / sigma.size)


def test_flux_and_sigma_interpolated_to_1_angstrom(rng):
    native = noise(rng)
    grid = regular_grid(pixel_edges(WAVE), 1.0, "linear")[1:-1]
    part = slice(20, 120)
    # The defect: values and errors interpolated alike. chi2 is far too small, and sums have errors too small.
    flux = np.array([np.interp(grid, WAVE, row) for row in native.data[:1000]])
    sigma = np.interp(grid, WAVE, np.full(WAVE.size, 2.0))
    assert np.mean((flux / sigma) ** 2) == pytest.approx(0.68, abs=0.06)
    pull = flux[:, part].sum(axis=1).std() / np.sqrt(np.sum(sigma[part] ** 2))
    assert pull > 1.1
    # The right variance without its covariance is no better for sums.
    resampled = resample(native, grid)
    alone = np.sqrt(resampled.variance[:, part].sum(axis=1))
    assert (resampled.data[:, part].sum(axis=1) / alone).std() == pytest.approx(1.33, abs=0.06)
    # With it both hold. A mean of N chi2 with 100 degrees of freedom scatters by sqrt(2 / 100 / N).
    right = np.sqrt(covariance_of_sum(resampled, part))
    assert abs((resampled.data[:, part].sum(axis=1) / right).std() - 1) < 3 / np.sqrt(2 * N)
    pixels = resampled.data / np.sqrt(resampled.variance)
    assert np.mean(pixels**2) == pytest.approx(1.0, abs=0.01)


def test_chi_square_with_the_carried_covariance_is_1(rng):
    # 1.25 A to 2 A, where the covariance of the new pixels can be inverted; on a finer grid than the native one it
    # cannot (there are more pixels than measurements), which is why fits are made on native pixels.
    resampled = resample(noise(rng), step=2.0)
    part = slice(10, 70)
    assert chi_square(resampled, part) == pytest.approx(1.0, abs=3 * np.sqrt(2 / 60 / N) + 0.005)


def test_a_line_is_not_broadened_in_secret():
    sigma, centre = 1.4, WAVE[80] + 0.3
    data = np.exp(-0.5 * ((WAVE - centre) / sigma) ** 2)[None]
    resampled = resample(Spectra(data, np.ones_like(data), None, UNIT, WAVE, "air", lsf=sigma), step=1.0)
    width = np.sqrt(np.average((resampled.wave - centre) ** 2, weights=resampled.data[0]))
    assert width > 1.04 * sigma
    claimed = float(np.interp(centre, resampled.wave, resampled.lsf))
    assert claimed == pytest.approx(width, rel=0.01)


@pytest.mark.parametrize("redshift", [0.0, 0.00546, 0.0885])
def test_wavelength_axis_by_linspace_with_its_endpoint(redshift):
    """A 1 A axis has steps of exactly 1 A, on whole angstroms, and no line is displaced by its length."""
    wave = 4750.0 + 1.25 * np.arange(3681)
    halpha = default_lines()["Halpha"].rest_air
    data = np.exp(-0.5 * ((wave - halpha * (1 + redshift)) / 2.5) ** 2)[None]
    rest = to_rest_frame(Spectra(data, np.ones_like(data), None, UNIT, wave, "air"), redshift)
    result = resample(rest, step=1.0)
    assert np.array_equal(np.diff(result.wave), np.ones(result.wave.size - 1))
    assert np.array_equal(result.wave, np.rint(result.wave))
    # Where a line falls on its pixels moves its centroid by a few thousandths of an angstrom (0.2 km/s).
    assert np.average(result.wave, weights=result.data[0]) == pytest.approx(halpha, abs=0.01)
    # The defect: the end of the last pixel's step taken for its centre stretches the whole axis.
    wrong = np.linspace(wave[0], wave[0] + 1.25 * wave.size, wave.size)
    assert wrong[-1] - wave[-1] == pytest.approx(1.25)
    assert np.interp(halpha, wave, wrong) - halpha == pytest.approx(0.49, abs=0.01)
    assert result.wave[0] - rest.wave[0] < 1.5
    assert rest.wave[-1] - result.wave[-1] < 1.5


def test_a_masked_pixel_does_not_become_a_zero(rng):
    spectra = noise(rng)
    data, mask = spectra.data[:2] + 10.0, np.zeros((2, WAVE.size), bool)
    data[0, 50], mask[0, 50] = np.nan, True
    result = resample(Spectra(data, spectra.variance[:2], mask, UNIT, WAVE, "air"), step=1.0)
    assert 2 <= result.mask[0].sum() <= 3
    assert result.mask[1].sum() == 0
    assert result.data[0][result.valid[0]].min() > 0


def test_a_log_axis_is_not_taken_as_linear():
    wave = 10 ** (3.8 + 1e-4 * np.arange(300))
    line = 6700.0
    data = np.exp(-0.5 * ((wave - line) / 2.5) ** 2)[None]
    result = resample(Spectra(data, np.ones_like(data), None, UNIT, wave, "vacuum"), step=1.0)
    assert np.average(result.wave, weights=result.data[0]) == pytest.approx(line, abs=0.01)
    as_if_linear = np.average(np.linspace(wave[0], wave[-1], 300), weights=data[0])
    assert abs(as_if_linear - line) > 1.0
