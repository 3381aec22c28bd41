"""Figures of cubes: drawn whatever the numbers are, with readable units."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from skyloom.core.image import Image
from skyloom.core.labels import LabelMap
from skyloom.core.psf import GaussianPSF
from skyloom.core.spectra import Spectra
from skyloom.report.figures import ifs
from skyloom.report.figures.axis_text import unit_text
from tests.unit.test_report import make_image, make_wcs, size_of

pytestmark = pytest.mark.usefixtures("audited_figures")


def masked_image(rng, unit="1e-20 erg/(s cm2)", shape=(30, 24), share=0.3):
    mask = rng.random(shape) < share
    data = np.where(mask, np.nan, rng.normal(3, 1, shape))
    return Image(data, np.where(mask, np.nan, 1.0), mask, unit, make_wcs(0.2, 20.0), GaussianPSF(0.8))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_maps_of_signal_noise_and_their_ratio(rng, share):
    signal = masked_image(rng, share=share)
    png = ifs.line_maps("NGC 1: $Halpha_{", signal, signal.evolve(data=signal.variance), signal, dpi=40)
    height, width = size_of(png)
    assert width > 2 * height


def test_maps_without_a_wcs_have_no_compass(rng):
    image = make_image(rng, wcs=None, psf=None)
    size_of(ifs.line_maps("x", image, image, image, dpi=40))


def test_a_velocity_map_shows_its_error(rng):
    size_of(ifs.velocity_map("NGC 1", masked_image(rng, "km / s"), dpi=40))
    size_of(ifs.velocity_map("flat", masked_image(rng, "km / s").evolve(data=np.zeros((30, 24))), dpi=40))


@pytest.mark.parametrize("side", [40, 260])
def test_bins_with_gaps_in_their_numbers(side):
    labels = np.full((side, side), -1, dtype=np.int32)
    labels[:20, :20], labels[:20, 20:30], labels[30, 30] = 4, 17, 9
    table = QTable({"id": [4, 9, 17], "snr": [12.0, np.nan, 9.0], "n_pixels": [400, 1, 200]})
    size_of(ifs.bin_maps("bins", LabelMap(labels, make_wcs(0.2)), table, 10.0, dpi=40))
    # Regions and rings have no target.
    size_of(ifs.bin_maps("rings", LabelMap(labels, make_wcs(0.2)), table, None, dpi=40))


def test_spectra_with_masked_channels_marks_and_shades(rng):
    wave = 5000 + 1.25 * np.arange(300)
    data = rng.normal(1, 0.1, (3, 300))
    mask = np.zeros(data.shape, bool)
    mask[0, 20:40], mask[2] = True, True
    data[mask] = np.nan
    spectra = Spectra(data, np.where(mask, np.nan, 0.01), mask, "1e-20 erg/(s cm2 AA)", wave, "air")
    png = ifs.bin_spectra(
        "x", spectra, [0, 2], ["bin 1", "bin 3"], marks={"a": 5100.0, "b": 9e9}, shaded=[(5010, 5020)], dpi=40
    )
    assert size_of(png)[1] > 300


def test_noise_of_a_cube_with_and_without_correlation():
    wave = np.linspace(5000, 6000, 50)
    kernel = np.array([[0, 0.2, 0], [0.2, 1, 0.2], [0, 0.2, 0]])
    size_of(ifs.cube_noise("x", wave, 1.3, kernel, np.array([0.2, 1, 0.2]), dpi=40))
    size_of(ifs.cube_noise("x", wave, np.linspace(1, 2, 50), None, None, dpi=40))


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("1e-20 erg/(s cm2)", "10⁻²⁰ erg s⁻¹ cm⁻²"),
        ("km/s", "km s⁻¹"),
        ("", ""),
        ("1e-16 erg/(s cm2 AA)", "10⁻¹⁶ erg Å⁻¹ s⁻¹ cm⁻²"),
    ],
)
def test_units_are_written_for_people(unit, text):
    assert unit_text(u.Unit(unit)) == text
