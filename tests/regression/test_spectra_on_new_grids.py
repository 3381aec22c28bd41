"""Real cubes and spectra on new grids: nothing is lost, nothing gained, and sums keep their errors."""

from __future__ import annotations

import numpy as np
import pytest

import skyloom as sl
from skyloom.core.spectral_noise import lag_bands, weighted_sum_variance
from skyloom.errors import AssumptionWarning, RepairWarning
from skyloom.spectral.axes.grids import pixel_edges
from skyloom.spectral.axes.prepare import prepare_cube
from skyloom.spectral.axes.resample import resample
from skyloom.spectral.axes.rest_frame import to_rest_frame

pytestmark = pytest.mark.data


def native_weights(native, low, high):
    """Share of each native pixel between two wavelengths, times its width."""
    edges = pixel_edges(native.wave)
    return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None)


def test_sums_over_a_real_cube_keep_value_and_error(data_dir):
    cube = sl.read(data_dir / "muse" / "A478_cut_core_20x20.fits")
    rest = prepare_cube(cube, redshift=0.0885, av=1.0)
    result = resample(rest, step=1.0)
    assert np.array_equal(np.diff(result.wave), np.ones(result.wave.size - 1))
    # A masked pixel of 1.15 A touches two or three new ones, none where the new axis does not reach it.
    assert 0 < result.mask.sum() <= 3 * cube.mask.sum()
    bands = lag_bands(result.correlation.spectral, result.wave.size)
    y, x = 10, 10
    checked = 0
    # Sky lines make the variance jump by factors within two pixels; windows of 1, 5, 20 and 100 A, all along the axis.
    for width in (1, 5, 20, 100):
        for start in range(40, result.wave.size - 140, 97):
            part = slice(start, start + width)
            low, high = result.wave[start] - 0.5, result.wave[start + width - 1] + 0.5
            weights = native_weights(rest, low, high)
            if result.mask[part, y, x].any() or rest.mask[weights > 0, y, x].any():
                continue
            value = np.sum(result.data[part, y, x], dtype=float)
            error = weighted_sum_variance(result.variance[part, y, x], np.ones(width), bands[part])
            used = weights > 0
            expected = np.sum(weights[used] * rest.data[used, y, x].astype(float))
            claimed = weighted_sum_variance(
                rest.variance[:, y, x],
                weights,
                None if rest.correlation is None else rest.correlation.spectral,
            )
            scale = np.sum(weights[used] * np.abs(rest.data[used, y, x]))
            assert abs(value - expected) <= 2e-6 * scale
            assert np.sqrt(error / claimed) == pytest.approx(1.0, abs=0.01), (low, high)
            checked += 1
    assert checked > 100


def test_real_log_spectra_become_linear(data_dir):
    with pytest.warns(RepairWarning, match="no usable channel"), pytest.warns(AssumptionWarning):
        spectra = sl.read(data_dir / "manga" / "MaNGA_test_spectra.fits.gz")
    rest = to_rest_frame(spectra, 0.02)
    result = resample(rest, step=1.0)
    assert result.medium == "vacuum"
    assert np.array_equal(np.diff(result.wave), np.ones(result.wave.size - 1))
    empty = spectra.mask.all(axis=1)
    np.testing.assert_array_equal(result.mask.all(axis=1), empty)
    assert empty.any()
    for row in np.flatnonzero(~empty):
        start = 800
        part = slice(start, start + 300)
        weights = native_weights(rest, result.wave[start] - 0.5, result.wave[start + 299] + 0.5)
        if result.mask[row, part].any() or rest.mask[row, weights > 0].any():
            continue
        used = weights > 0
        expected = np.sum(weights[used] * rest.data[row, used].astype(float))
        assert np.sum(result.data[row, part], dtype=float) == pytest.approx(expected, rel=2e-6)
