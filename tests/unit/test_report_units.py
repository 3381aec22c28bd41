"""Every axis of every figure has a unit, every map its bar and marks, and the colours are even."""

from __future__ import annotations

import ast
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from skyloom.core.psf import GaussianPSF
from skyloom.report import figures
from skyloom.report.figures.halpha_maps import halpha_maps
from skyloom.report.figures.ifs import line_maps
from skyloom.report.figures.line_model import line_model_panels
from skyloom.report.figures.style import FLUX_MAP, NOISE_MAP, SIGNED_MAP, new_figure, to_png
from tests.figure_audit import AuditedCanvas, has_unit, is_unit
from tests.unit.test_report import make_image

pytestmark = pytest.mark.usefixtures("audited_figures")
FOLDER = Path(figures.__file__).parent
AUDITED = (
    "test_report_units",
    "test_figures_coverage",
    "test_figures_halpha",
    "test_figures_ifs",
    "test_figures_lines",
    "test_report",
)


@pytest.mark.parametrize(
    "label",
    [
        "wavelength in air (Å)", "flux (10⁻²⁰ erg s⁻¹ cm⁻² Å⁻¹)", "S/N (no unit)", "EW(Hα), at 0.3 all below (Å)",
        "sky per pixel (10⁻³ electron / s)", "bins (number)", "log [O III] 5007 / Hβ (dex)",
    ],
)  # fmt: skip
def test_labels_with_units_are_known(label):
    assert has_unit(label)


@pytest.mark.parametrize("label", ["", "flux", "S/N", "flux ()", "flux (mean)", "wavelength, Å"])
def test_labels_without_units_are_found(label):
    assert not has_unit(label)


@pytest.mark.parametrize(
    "text", ["10⁻²⁰ erg s⁻¹ cm⁻² per spaxel", "km s⁻¹", "no unit", "log10, of cm⁻³", "mag"]
)
def test_units_of_bars_are_known(text):
    assert is_unit(text)


def test_an_axis_without_unit_is_found():
    figure = new_figure(3, 3, 40)
    axes = figure.subplots()
    axes.set_xlabel("time (s)")
    with pytest.raises(AssertionError, match="y axis"):
        to_png(figure)
    axes.set_ylabel("counts (number)")
    to_png(figure)


def test_a_map_has_its_marks_and_its_bar(rng):
    image = make_image(rng, psf=GaussianPSF(0.3))
    line_maps("disc: Halpha", image, image, image, dpi=40)
    drawn = AuditedCanvas.audited[-1]
    maps = [axes for axes in drawn.axes if axes.get_gid() == "map"]
    assert len(maps) == 3
    for axes in maps:
        marks = [child.get_gid() for child in axes.get_children()]
        assert marks.count("scale bar") == marks.count("beam") == 1
        assert marks.count("compass") == 2
    bars = [axes.get_ylabel() for axes in drawn.axes if hasattr(axes, "_colorbar")]
    assert bars == ["electron s⁻¹"] * 3


def test_large_numbers_of_a_bar_go_into_its_unit(rng):
    image = make_image(rng, unit="1e-20 erg / (s cm2)")
    bright = image.evolve(data=image.data * 3e6, variance=image.variance * 9e12)
    line_maps("disc: Halpha", bright, bright, bright, dpi=40)
    drawn = AuditedCanvas.audited[-1]
    bar = next(axes for axes in drawn.axes if hasattr(axes, "_colorbar"))
    assert bar.get_ylabel() == "10⁻¹² erg s⁻¹ cm⁻²"
    assert max(float(tick.get_text().replace("−", "-")) for tick in bar.get_yticklabels()) < 10


def test_a_map_of_halpha_tells_its_error(rng):
    image = make_image(rng, unit="1e-20 erg / (s cm2 arcsec2)")
    halpha_maps("spiral: Halpha", image, per="block of 2 x 2 pixels", dpi=40)
    titles = [axes.get_title("left") for axes in AuditedCanvas.audited[-1].axes]
    assert "its error, of a block of 2 x 2 pixels" in titles
    halpha_maps("nothing", image.evolve(mask=np.ones(image.shape, bool)), dpi=40)


def test_a_line_model_is_drawn_with_units(rng):
    image = make_image(rng, unit="1e-20 erg / (s cm2)")
    line_model_panels("disc", image, image, image, image, caption="weights", dpi=40)
    bars = [axes.get_ylabel() for axes in AuditedCanvas.audited[-1].axes if hasattr(axes, "_colorbar")]
    assert bars[2] == "σ"


def test_every_figure_of_a_report_is_looked_at():
    """The modules of tests that draw with the audited canvas know every function that returns a PNG."""
    drawing = {
        node.name
        for path in FOLDER.glob("*.py")
        # Steps of the errors of a file are for ``skyloom inspect --errors``, whose panels carry units in their titles.
        if path.stem not in ("style", "errors", "demo")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and node.returns is not None
        and ast.unparse(node.returns) == "bytes"
    }
    assert len(drawing) >= 15
    here = Path(__file__).parent
    tests = {name: (here / f"{name}.py").read_text() for name in AUDITED}
    assert all("audited_figures" in text for text in tests.values())
    together = " ".join(tests.values())
    assert {name for name in drawing if name not in together} == set()


@pytest.mark.parametrize("name", [FLUX_MAP, NOISE_MAP, SIGNED_MAP, "cividis"])
def test_colours_change_evenly(name):
    """In Oklab no step is far from the mean one; of the map of signed values, each half by itself."""
    steps = np.linalg.norm(np.diff(oklab(mpl.colormaps[name](np.linspace(0, 1, 257))[:, :3]), axis=0), axis=1)
    halves = np.split(steps, 2) if name == SIGNED_MAP else [steps]
    for half in halves:
        assert half.std() / half.mean() < 0.3
    if name == SIGNED_MAP:
        assert halves[0].sum() == pytest.approx(halves[1].sum(), rel=0.02)


def test_the_signed_map_would_have_been_found_uneven():
    steps = np.linalg.norm(
        np.diff(oklab(mpl.colormaps["RdBu_r"](np.linspace(0, 1, 257))[:, :3]), axis=0), axis=1
    )
    assert max(half.std() / half.mean() for half in np.split(steps, 2)) > 0.3


def oklab(colours):
    """Colours of sRGB in Oklab (Ottosson 2020)."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
