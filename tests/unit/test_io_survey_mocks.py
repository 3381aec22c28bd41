"""Mock cubes in the survey's own layout, through the survey's own reader: the truth comes back within its errors."""

from __future__ import annotations

import numpy as np
import pytest

import skyloom as sl
from skyloom.core.noise import autocorrelate
from skyloom.mock.cubes.files import write_cube_mock


@pytest.mark.parametrize("instrument", ["manga", "pmas"])
def test_mock_cubes(instrument, tmp_path):
    made = write_cube_mock(
        tmp_path, instrument=instrument, seed=6, shape=(20, 20), wave_range=(6550.0, 6750.0)
    )
    cube = sl.read(made.cube)
    true = made.model.spectrograph
    np.testing.assert_allclose(cube.wave, true.wave, rtol=1e-12)
    assert cube.medium == true.medium
    assert cube.unit == true.unit
    widths = np.asarray(cube.lsf)
    np.testing.assert_allclose(np.median(widths[widths > 0]), np.median(true.lsf), rtol=0.01)
    assert cube.psf.at(6650.0).fwhm == pytest.approx(true.psf.at(6650.0).fwhm, rel=0.07)
    assert cube.meta["milky_way_corrected"] is true.corrected
    # Both readers give the published correlation, which is what the mock noise was made with.
    kernel = autocorrelate(np.outer(true.spatial_kernel, true.spatial_kernel))
    found = cube.correlation.spatial
    middle, other = kernel.shape[0] // 2, found.shape[0] // 2
    expected = kernel[middle : middle + 4, middle : middle + 4] / kernel[middle, middle]
    np.testing.assert_allclose(found[other : other + 4, other : other + 4], expected, atol=0.03)
    pulls = ((cube.data - made.model.truth()) / np.sqrt(np.where(cube.mask, 1.0, cube.variance)))[cube.valid]
    # Neighbours are correlated, so far fewer than pulls.size are independent; left-over sky widens them a little.
    assert abs(np.mean(pulls)) < 0.1
    assert 0.95 < np.std(pulls) < 1.1
