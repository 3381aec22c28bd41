"""Noise of real MUSE cubes: what their voxels say, and whether sums of spaxels scatter as the measured model claims."""

from __future__ import annotations

import numpy as np
import pytest

import skyloom
from skyloom.spectral.bins.extract import extract_spectra
from skyloom.spectral.noise.measure import CubeNoise, apply_cube_noise, measure_cube_noise

pytestmark = pytest.mark.data
CORE = "muse/A478_cut_core_20x20.fits"
DEEP = "muse/UDF_mosaic_subcube.fits"


@pytest.fixture(scope="module", params=[CORE, DEEP])
def name(request):
    return request.param


@pytest.fixture
def cube(data_dir, name):
    return skyloom.read(data_dir / name)


def difference_scatter(data, variance, valid, step):
    """Scatter of differences of channels, over their claimed errors: an estimate that knows no continuum."""
    good = valid[step:] & valid[:-step]
    pull = (data[step:] - data[:-step])[good] / np.sqrt((variance[step:] + variance[:-step])[good])
    return 1.4826 * float(np.median(np.abs(pull - np.median(pull))))


def measured(cube) -> CubeNoise:
    return measure_cube_noise(cube.evolve(correlation=None))


def test_the_variance_plane_is_right_to_a_few_per_cent(cube, name):
    noise = measured(cube)
    ratio = np.sqrt(noise.scale)
    assert ratio == pytest.approx({CORE: 0.995, DEEP: 1.015}[name], abs=0.01)
    assert noise.scale_error < 0.005
    # An independent estimate, without any filter, where channels are no longer correlated.
    distant = difference_scatter(cube.data, cube.variance, cube.valid, 4)
    assert ratio == pytest.approx(distant, abs=0.06)


def test_neighbouring_channels_are_correlated_which_hides_scatter(cube, name):
    """The scatter of neighbouring channels, 0.92-0.95 of the claimed error, is no error that is too large."""
    noise = measured(cube)
    lag = noise.spectral[noise.spectral.size // 2 + 1]
    assert lag == pytest.approx({CORE: 0.14, DEEP: 0.18}[name], abs=0.02)
    near = difference_scatter(cube.data, cube.variance, cube.valid, 1)
    assert near < 0.96
    assert near == pytest.approx(np.sqrt(noise.scale * (1 - lag)), abs=0.03)


def test_neighbouring_spaxels_are_correlated(cube, name):
    noise = measured(cube)
    assert noise.spatial.sum() == pytest.approx({CORE: 1.80, DEEP: 1.48}[name], abs=0.12)
    middle = noise.spatial.shape[0] // 2
    assert 0.1 < noise.spatial[middle, middle + 1] < 0.2


def common_spectra_off(pull, light):
    """Take off what all bins have in common and what follows their light (least squares over the bins), per channel;
    scaled for the two degrees of freedom that this costs."""
    basis, _ = np.linalg.qr(light)
    rest = pull - (pull @ basis) @ basis.T
    return rest / np.sqrt(1.0 - np.sum(basis**2, axis=1))


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_sums_of_spaxels_scatter_as_the_measured_noise_claims(cube, side):
    """Differences of channels six apart, in squares of spaxels. The spectrum of the galaxy and residuals of the sky
    would show in large squares; they are what all squares have in common, and what follows their light."""
    quiet = apply_cube_noise(cube, measured(cube))
    ny, nx = (length // side * side for length in cube.shape[1:])
    y, x = np.indices(cube.shape[1:])
    labels = np.where((y < ny) & (x < nx), (y // side) * nx + x // side, -1)
    spectra = extract_spectra(quiet, labels)
    flux, variance, valid = (
        plane.T.astype(float) for plane in (spectra.data, spectra.variance, spectra.valid)
    )
    error = np.sqrt(variance[6:] + variance[:-6])
    pull = ((flux[6:] - flux[:-6]) / error)[np.all(valid[6:] * valid[:-6] > 0, axis=1)]
    typical = np.median(error, axis=0)
    light = np.stack([1 / typical, np.median(flux, axis=0) / typical], axis=1)
    rest = common_spectra_off(pull, light)
    ratio = 1.4826 * float(np.median(np.abs(rest)))
    assert 0.9 < ratio < 1.1, f"{side} x {side}: {ratio:.3f}"
