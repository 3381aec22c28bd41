"""Figures of the quality of Halpha: drawn whatever the data, with units on their axes."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from skyloom.imaging.measure.comparison import compare_regions, running_median
from skyloom.imaging.measure.empty_regions import empty_regions
from skyloom.imaging.measure.power_spectrum import power_spectrum
from skyloom.report.figures import halpha as figures
from skyloom.report.figures import halpha_pixels
from skyloom.report.figures.axis_text import unit_text
from skyloom.report.figures.halpha_pixels import PixelPanel, pixel_figure
from tests.inputs.quality import quality_scene

pytestmark = pytest.mark.usefixtures("audited_figures")

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def scene():
    return quality_scene(n_nebulae=9, size=200)


@pytest.fixture(autouse=True)
def written(monkeypatch):
    """All text of the figures that are drawn."""
    texts: list[str] = []
    plain = figures.to_png

    def to_png(figure):
        for axes in figure.axes:
            texts.extend([axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")])
            texts.extend(item.get_text() for item in axes.get_xticklabels() + axes.get_yticklabels())
            legend = axes.get_legend()
            texts.extend(item.get_text() for item in (legend.get_texts() if legend else ()))
        return plain(figure)

    for module in (figures, halpha_pixels):
        monkeypatch.setattr(module, "to_png", to_png)
    return texts


def test_units_are_written_as_on_an_axis():
    assert unit_text(u.Unit("1e-20 erg / (s cm2)")) == "10⁻²⁰ erg s⁻¹ cm⁻²"
    assert unit_text(u.Unit("1e-40 erg2 / (s2 AA)")) == "10⁻⁴⁰ erg² Å⁻¹ s⁻²"
    assert unit_text(u.Unit("Jy")) == "Jy"


def test_nebulae(scene, written):
    table = compare_regions(scene.sharp, scene.blurred, scene.labels)
    table["whole"][3] = False
    assert figures.nebula_figure("a $galaxy_1$", table).startswith(PNG)
    assert any("10⁻²⁰ erg s⁻¹ cm⁻²" in text for text in written)
    assert "whole (8)" in written
    assert not any("mathdefault" in text for text in written)


def test_no_nebula_is_whole_or_bright(scene):
    table = compare_regions(scene.sharp, scene.blurred, scene.labels)
    for name in ("flux", "reference_flux"):
        table[name] = -table[name]
    table["ratio"] = np.nan
    table["whole"] = False
    assert figures.nebula_figure("x", table).startswith(PNG)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_pixels(scene, n, written):
    image = scene.blurred
    line = (1.0, 0.01, 3.0, 2.0)
    panel = PixelPanel("Halpha", image, image, line, running_median(image, image), "a note")
    assert pixel_figure("x", [panel] * n).startswith(PNG)
    assert any("slope 1.000 ± 0.010" in text for text in written)
    assert any("arcsec⁻²" in text for text in written)
    assert not any("mathdefault" in text for text in written)


def test_pixels_without_light_or_line(scene):
    image = scene.blurred.evolve(mask=np.ones(scene.blurred.shape, bool))
    panel = PixelPanel("x", image, image, None, running_median(image, image))
    assert pixel_figure("x", [panel]).startswith(PNG)
    dark = scene.blurred.evolve(data=np.zeros(scene.blurred.shape))
    panel = PixelPanel("x", dark, dark, None, running_median(dark, dark))
    assert pixel_figure("x", [panel]).startswith(PNG)


def test_maps(scene):
    assert figures.comparison_maps("x", scene.blurred, scene.blurred).startswith(PNG)
    nothing = scene.blurred.evolve(mask=np.ones(scene.blurred.shape, bool))
    assert figures.comparison_maps("x", nothing, nothing).startswith(PNG)


def test_noise(scene, written):
    found = empty_regions(scene.sharp)
    assert figures.noise_figure("x", found.pulls, found.table).startswith(PNG)
    assert any(text.startswith("5×5 px") for text in written)
    nothing = empty_regions(scene.sharp, np.ones(scene.sharp.shape, bool))
    assert figures.noise_figure("x", nothing.pulls, nothing.table).startswith(PNG)


def test_power(scene, written):
    spectra = {name: power_spectrum(image) for name, image in (("HST", scene.sharp), ("MUSE", scene.blurred))}
    drawn = figures.power_figure("x", {name: (item.table, item.fwhm) for name, item in spectra.items()})
    assert drawn.startswith(PNG)
    assert any("cycles per arcsec" in text for text in written)
    assert figures.power_figure("x", {"HST": (spectra["HST"].table, float("nan"))}).startswith(PNG)
    assert figures.power_figure("x", dict[str, tuple[QTable, float]]()).startswith(PNG)
