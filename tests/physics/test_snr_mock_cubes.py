"""Line S/N on mock cubes of three instruments, with PSF, LSF, correlated spaxels and channels, and sky lines."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.mock.cubes.cubes import observe_cube
from skyloom.mock.cubes.spectrographs import manga, muse, pmas
from skyloom.mock.scenes.galaxies import rotating_disc
from skyloom.spectral.signal.snr import first_velocity_map, line_snr, spectra_line_snr

INSTRUMENTS = {"muse": (muse, 2.0, (50, 50)), "manga": (manga, 5.0, (50, 50)), "pmas": (pmas, 8.0, (50, 50))}


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_first_pass_on_a_disc_that_turns_with_200_km_s(name):
    tool, size, shape = INSTRUMENTS[name]
    scene = rotating_disc(200.0, scale_length=size, n_nebulae=20)
    observed = observe_cube(scene, tool((6480.0, 6780.0)), shape, seed=3, dead=3)
    cube, line, redshift = observed.cube, observed.lines["Halpha"], observed.model.redshift
    assert np.nanmax(line.velocity) > 150
    gas = np.where(cube.mask, np.nan, observed.truth - observed.continuum)
    light = cube.evolve(data=gas.astype(np.float32))
    velocity = first_velocity_map(cube, "Halpha", redshift)
    ideal = line_snr(
        light, "Halpha", redshift, "matched", velocity=line.velocity, sigma=line.dispersion
    ).snr.data
    reached = line_snr(light, "Halpha", redshift, "matched", velocity=velocity).snr.data
    shown = ideal > 0.5
    ratio = reached[shown] / ideal[shown]
    assert shown.sum() > 1000
    assert np.median(ratio) > 0.98
    assert np.percentile(ratio, 5) > 0.9
    # the flux of the mock, where its width is the assumed one to 15 %
    signal = line_snr(
        light, "Halpha", redshift, "matched", velocity=line.velocity, sigma=line.dispersion
    ).signal
    expected = line.flux / cube.unit.to("erg/(s cm2 AA)")
    bright = shown & (expected > np.nanpercentile(expected, 80))
    assert np.median(signal.data[bright] / expected[bright]) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("name", ["muse", "pmas"])
def test_noise_of_the_mock_has_standard_snr(name):
    """The noise of correlated spaxels: sd 1 in each; their mean is only as good as the number of independent ones."""
    tool, _, _ = INSTRUMENTS[name]
    cube = observe_cube(
        None, tool((6480.0, 6660.0)), (60, 60), seed=5, field="square", sky_residuals=False
    ).cube
    for method, velocity in (("window", None), ("matched", first_velocity_map(cube, "Halpha", 0.0))):
        snr = line_snr(cube, "Halpha", 0.0, method, velocity=velocity).snr.data
        area = cube.correlation.spatial.sum()  # spaxels per independent one
        assert abs(np.nanmean(snr)) < 3 * np.sqrt(area / snr.size)
        assert abs(np.nanstd(snr) - 1.0) < 3 * np.sqrt(area / (2 * snr.size)) + 0.01


def test_bins_keep_their_signal_to_noise_as_spectra():
    """The S/N of a sum of spaxels in the map is that of the line in the summed spectrum, and shows in its scatter."""
    from skyloom.core.labels import LabelMap
    from skyloom.spectral.bins.contents import measure_bins
    from skyloom.spectral.bins.extract import extract_spectra

    cube = observe_cube(
        None, muse((6480.0, 6660.0)), (60, 60), seed=6, field="square", sky_residuals=False
    ).cube
    y, x = np.indices((60, 60))
    labels = LabelMap((y // 4 * 15 + x // 4).astype(np.int32))
    spectra = extract_spectra(cube, labels)
    table = spectra_line_snr(spectra, "Halpha", 0.0)
    maps = line_snr(cube, "Halpha", 0.0)
    bins = measure_bins(maps.signal, labels)
    np.testing.assert_allclose(table["signal"].value, bins["signal"].value, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(table["noise"].value, bins["noise"].value, rtol=0.02)
    # 225 bins: 0.067 for the mean, 0.047 for the standard deviation
    assert abs(np.mean(table["snr"])) < 0.2
    assert abs(np.std(table["snr"]) - 1.0) < 0.14
    ratio = np.sqrt(np.mean(table["noise_measured"] ** 2) / np.mean(table["noise"] ** 2)).value
    assert ratio == pytest.approx(1.0, abs=0.03)
