"""Spectra of a scene: sampled or averaged over channels, and the axes they stand on."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.core.linelist import convert_medium
from skyloom.errors import InputError, ShapeError
from skyloom.mock.scenes.galaxies import rotating_disc
from skyloom.mock.scenes.scene import Scene
from skyloom.mock.scenes.spectral_axis import SpectralAxis, channel_edges
from tests.oracles.mock import sampled_spectra


@pytest.fixture(scope="module")
def disc() -> Scene:
    # Velocities of 400 km/s against features of 75 km/s: interpolation in velocity has something to do.
    return rotating_disc(350.0, scale_length=3.0, n_nebulae=40)


def test_interpolated_velocities_change_nothing(disc: Scene) -> None:
    wave = np.linspace(4800.0, 6800.0, 700)
    lsf = np.linspace(1.3, 1.0, 700)
    expected = sampled_spectra(disc, wave, lsf)
    np.testing.assert_allclose(disc.spectra(wave, lsf=lsf), expected, rtol=1e-9)


@pytest.mark.parametrize("medium", ["air", "vacuum"])
def test_channels_hold_the_mean_of_the_spectrum(disc: Scene, medium: str) -> None:
    wave = np.arange(6560.0, 6720.0, 1.25)
    edges = channel_edges(wave)
    few = Scene(disc.name, disc.centre, disc.components[:1] + disc.components[-1:])
    averaged = few.spectra(wave, medium, 1.1, edges=edges)
    fine = (edges[:-1, None] + 1.25 * (np.arange(50) + 0.5) / 50).ravel()
    # Sampled densities are per A in vacuum, and so is their LSF.
    stretch = np.gradient(convert_medium(fine, medium, "vacuum"), fine)
    expected = (few.spectra(fine, medium, 1.1 * stretch) * stretch).reshape(len(few), -1, 50).mean(axis=2)
    np.testing.assert_allclose(averaged, expected, rtol=3e-4)
    sampled = few.spectra(wave, medium, 1.1)
    assert np.abs(sampled / expected - 1).max() > 0.02


@pytest.mark.parametrize("medium", ["air", "vacuum"])
@pytest.mark.parametrize("step", [0.3, 1.25, 6.0])
def test_lines_lose_no_light_to_channels(disc: Scene, medium: str, step: float) -> None:
    wave = np.arange(6540.0, 6760.0, step)
    edges = channel_edges(wave)
    lines = disc.spectra(wave, medium, 0.9, edges=edges, light=("lines",))
    expected = sum(disc.line_fluxes(key) for key in ("NII6548", "Halpha", "NII6583"))
    np.testing.assert_allclose(lines @ np.diff(edges), expected, rtol=1e-10)


def test_stars_and_lines_add_up(disc: Scene) -> None:
    wave = np.linspace(6500.0, 6700.0, 80)
    stars, lines = (disc.spectra(wave, lsf=1.0, light=(light,)) for light in ("stars", "lines"))
    np.testing.assert_allclose(stars + lines, disc.spectra(wave, lsf=1.0), rtol=1e-12)


def test_edges_of_channels() -> None:
    np.testing.assert_allclose(channel_edges([1.0, 2.0, 4.0]), [0.5, 1.5, 3.0, 5.0])
    with pytest.raises(ShapeError, match="two or more"):
        channel_edges([5000.0])
    with pytest.raises(ShapeError, match=r"expected \(4,\)"):
        SpectralAxis.build([1.0, 2.0, 3.0], edges=[0.5, 1.5, 2.5])
    with pytest.raises(InputError, match="between the edges"):
        SpectralAxis.build([1.0, 2.0], edges=[0.5, 1.5, 1.7])
