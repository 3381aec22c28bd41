"""Figures of fitted lines: drawn whatever the numbers are."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from skyloom.core.continuum import ContinuumFit
from skyloom.core.line_fit import LineFlag
from skyloom.core.spectra import Spectra
from skyloom.report.figures import bpt_diagram, ew_class_maps, fit_gallery, fitted_line_maps, quantity_maps
from skyloom.spectral.gas.bpt import bpt_classes
from skyloom.spectral.gas.density import electron_density
from skyloom.spectral.gas.derived import balmer_extinction, ew_classes
from skyloom.spectral.gas.maps import add_table, line_maps
from tests.inputs.line import KEYS, UNIT, fit_of, simple_fit, six_bins
from tests.unit.test_report import size_of

pytestmark = pytest.mark.usefixtures("audited_figures")


@pytest.fixture(params=["measured", "unknown", "no WCS"])
def scene(request):
    labels = six_bins()
    fit = simple_fit(labels.ids)
    fit.table["Halpha_flag"][:3] = [
        int(LineFlag.FAINT),
        int(LineFlag.UNRESOLVED),
        int(LineFlag.NOT_CONVERGED),
    ]
    if request.param == "unknown":
        for name in fit.table.colnames:
            if name.partition("_")[0] in KEYS and not name.endswith("flag"):
                fit.table[name] *= np.nan
    if request.param == "no WCS":
        labels = labels.evolve(wcs=None)
    return fit, labels


def test_maps_of_a_line(scene):
    fit, labels = scene
    height, width = size_of(fitted_line_maps("NGC 1: $Ha_{", line_maps(fit, labels), "Halpha", dpi=40))
    assert width > height


@pytest.mark.parametrize("diagram", ["NII", "SII", "OI"])
def test_diagrams_with_their_map(scene, diagram):
    fit, labels = scene
    table = bpt_classes(fit, diagram)
    maps = add_table(line_maps(fit, labels), table, prefix=f"BPT_{diagram}_")
    size_of(bpt_diagram("NGC 1", maps, table, dpi=40))


def test_dust_density_and_classes_of_diffuse_gas(scene):
    fit, labels = scene
    classes = ew_classes(fit)
    maps = add_table(line_maps(fit, labels), balmer_extinction(fit), prefix="dust_")
    maps = add_table(add_table(maps, electron_density(fit), prefix="SII_"), classes, prefix="EW_")
    size_of(quantity_maps("NGC 1", maps["dust_ebv"], "E(B-V)", signed=True, dpi=40))
    size_of(quantity_maps("NGC 1", maps["SII_density"], "density", logarithm=True, dpi=40))
    size_of(ew_class_maps("NGC 1", maps, classes, dpi=40))


@pytest.mark.parametrize("with_stars", [True, False])
@pytest.mark.parametrize("masked", [0.0, 0.2, 1.0])
def test_a_gallery_of_fits(rng, with_stars, masked):
    wave = np.arange(4800.0, 6800.0, 1.25)
    shape = (3, wave.size)
    mask = rng.random(shape) < masked
    data = np.where(mask, np.nan, rng.normal(5, 1, shape))
    spectra = Spectra(data, np.where(mask, np.nan, 1.0), mask, UNIT, wave, "air", lsf=1.1)
    fit = fit_of(simple_fit(np.arange(3)).table, KEYS, wave)
    zeros = np.zeros(3)
    stars = ContinuumFit(
        np.full(shape, 5.0), np.full(shape, 0.1), UNIT, wave, "air", zeros, np.ones((3, 1)), zeros, zeros, zeros,
        zeros, zeros, zeros, zeros, zeros, np.zeros(3, np.int64), ("",) * 3, np.ones(1), zeros[:1], "test", "builtin",
    )  # fmt: skip
    png = fit_gallery(
        "NGC 1", spectra, fit, [0, 2], ["bin 0", "bin $2"], continuum=stars if with_stars else None, dpi=40
    )
    assert size_of(png)[1] > 300


def test_a_gallery_of_lines_without_a_family(rng):
    wave = np.arange(5700.0, 5900.0, 1.25)
    spectra = Spectra(
        rng.normal(size=(1, wave.size)), np.ones((1, wave.size)), None, UNIT, wave, "air", lsf=1.1
    )
    fit = fit_of(simple_fit(np.arange(1), ("NII5754",)).table, ("NII5754",), wave)
    size_of(fit_gallery("x", spectra, fit, [0], ["a"], dpi=40))


def test_a_map_without_an_error_is_drawn_alone(scene):
    fit, labels = scene
    maps = line_maps(fit, labels)
    one = maps.paint(np.ones(maps.n_bins) * u.mag)
    assert not one.meta["variance_known"]
    size_of(quantity_maps("x", one, "a", dpi=40))
