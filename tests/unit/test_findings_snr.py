"""Defects of existing pipelines that S/N maps must not repeat, by name."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.linelist import default_lines
from skyloom.errors import AssumptionWarning
from skyloom.spectral.axes.widths import LIGHT
from skyloom.spectral.bins.binning import bin_to_snr
from skyloom.spectral.bins.contents import measure_bins
from skyloom.spectral.signal.snr import first_velocity_map, line_snr
from tests.inputs.snr import axis, cube_of, line_profile, noise_cube

HALPHA = default_lines()["Halpha"].rest("air")


def claimed_by_blocks(result, side):
    """S/N that bins of side x side spaxels claim, as signal over noise of independent spaxels."""
    ny, nx = result.signal.shape
    blocks = (ny // side, side, nx // side, side)
    signal = result.signal.data.reshape(blocks).sum(axis=(1, 3))
    return signal / np.sqrt(result.signal.variance.reshape(blocks).sum(axis=(1, 3)))


def test_maximum_of_fifty_channels_makes_signal_out_of_noise(rng):
    """The peak claims S/N > 1.5 per spaxel of pure noise and 18 per bin of 64; window and matched claim none."""
    cube = noise_cube(rng, (230, 64, 64), uneven=False)
    with pytest.warns(AssumptionWarning, match="pure noise"):
        peak = line_snr(cube, "Halpha", 0.0, "peak")
    assert peak.snr.data.mean() > 1.5
    assert (claimed_by_blocks(peak, 8) > 15).all()
    velocity = first_velocity_map(cube, "Halpha", 0.0)
    for result in (
        line_snr(cube, "Halpha", 0.0),
        line_snr(cube, "Halpha", 0.0, "matched", velocity=velocity),
    ):
        assert abs(result.snr.data.mean()) < 0.06  # 4096 spaxels: 3 / 64 and a little
        assert np.abs(claimed_by_blocks(result, 8)).max() < 5.0


def test_nan_becomes_neither_zero_signal_nor_zero_noise(rng):
    """A corner of NaN, spaxels with NaN errors, and single NaN channels: masked or made up for, never 0."""
    cube = noise_cube(rng, (120, 20, 20), uneven=False)
    data = cube.data + 10 * line_profile(cube.wave, np.full((20, 20), HALPHA), 1.4).astype(np.float32)
    variance = cube.variance.copy()
    data[:, :6, :6] = np.nan
    variance[:, 10, 10] = np.nan
    data[40, 15, 15] = np.nan
    mask = ~(np.isfinite(data) & (variance > 0))
    for method in ("window", "matched"):
        result = line_snr(cube_of(data, variance, cube.wave, mask=mask), "Halpha", 0.0, method, velocity=0.0)
        for image in (result.signal, result.noise, result.snr):
            assert image.mask[:6, :6].all()
            assert image.mask[10, 10]
            assert image.mask.sum() == 37
            assert np.isnan(image.data[image.mask]).all()
            assert (image.data[image.valid] != 0).all()
        assert (result.noise.data[result.noise.valid] > 0.5).all()


def test_wavelengths_are_those_of_the_axis(rng):
    """A line is looked for at the wavelength of the axis, not of a linspace with its end: 24 km/s at Halpha."""
    wave = axis(HALPHA)
    data = 100 * line_profile(wave, np.full((3, 3), HALPHA * (1 + 24 / LIGHT)), 1.1)
    cube = cube_of(data, np.ones(data.shape), wave)
    right = line_snr(cube, "Halpha", 0.0, "matched", velocity=24.0, sigma=0.0)
    wrong = line_snr(cube, "Halpha", 0.0, "matched", velocity=0.0, sigma=0.0)
    np.testing.assert_allclose(right.signal.data, 100.0, rtol=1e-3)
    assert (wrong.signal.data < 97).all()


def test_logarithmic_channels_are_not_taken_as_linear(rng):
    """The flux is the same on a logarithmic axis: every channel counts with its own width."""
    wave = HALPHA * np.exp(2.3e-4 * (np.arange(120) - 60.3))
    data = 100 * line_profile(wave, np.full((3, 3), HALPHA), 1.6) + 2.0
    cube = cube_of(data, np.ones(data.shape), wave, lsf=1.5)
    np.testing.assert_allclose(line_snr(cube, "Halpha", 0.0).signal.data, 100.0, rtol=0.01)


@pytest.mark.parametrize("binning", ["voronoi", "quadtree"])
def test_a_noise_cube_gives_no_bins(binning, rng):
    """Binned to a target of 10, noise claims dozens of bins with the peak (squares of 64 spaxels: 18), none without."""
    cube = noise_cube(rng, (230, 64, 64), uneven=False)
    with pytest.warns(AssumptionWarning, match="pure noise"):
        peak = line_snr(cube, "Halpha", 0.0, "peak")
    velocity = first_velocity_map(cube, "Halpha", 0.0)
    found = {
        "peak": peak,
        "window": line_snr(cube, "Halpha", 0.0),
        "matched": line_snr(cube, "Halpha", 0.0, "matched", velocity=velocity),
    }
    claimed = {}
    for method, maps in found.items():
        labels = bin_to_snr(maps.signal, None, 10.0, binning)
        claimed[method] = np.asarray(measure_bins(maps.signal, labels)["snr"])
    assert (claimed["peak"] >= 10).sum() >= 60
    if binning == "quadtree":
        assert np.median(claimed["peak"]) == pytest.approx(18, abs=1)
    assert (claimed["window"] < 10).all()
    assert (claimed["matched"] < 10).all()
