"""The report and its figures: complete, self-contained, and drawn whatever the numbers are."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from astropy.wcs import WCS
from matplotlib import image as mpl_image

from skyloom.core.image import Image
from skyloom.core.psf import GaussianPSF
from skyloom.report import figures
from skyloom.report.figures import sheet
from skyloom.report.html import format_cell, render_report, write_report
from skyloom.report.model import (
    Check,
    DataTable,
    InputSummary,
    Product,
    ReportFigure,
    RunReport,
    Section,
)

pytestmark = pytest.mark.usefixtures("audited_figures")


def make_wcs(scale=0.06, angle=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [53.1, -27.8]
    wcs.wcs.crpix = [10.0, 10.0]
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = scale / 3600 * np.array([[-cosine, sine], [sine, cosine]])
    return wcs


def make_image(rng, n=20, **changes):
    y, x = np.indices((n, n)) - n / 2
    data = (100 * np.exp(-(x**2 + y**2) / 20) + rng.normal(0, 1, (n, n))).astype(np.float32)
    fields = {
        "variance": np.ones_like(data),
        "mask": np.zeros(data.shape, bool),
        "unit": "electron / s",
        "wcs": make_wcs(angle=30.0),
        "psf": GaussianPSF(0.2),
    }
    return Image(data, **{**fields, **changes})


def size_of(png):
    pixels = mpl_image.imread(io.BytesIO(png))
    assert np.ptp(pixels[..., :3]) > 0.5  # something is drawn
    return pixels.shape[:2]


# --- data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "minimum", "maximum", "passed", "bounds"),
    [
        (0.04, None, 0.05, True, "at most 0.05"),
        (0.05, None, 0.05, True, "at most 0.05"),
        (0.06, None, 0.05, False, "at most 0.05"),
        (0.4, 0.5, 3.0, False, "0.5 to 3"),
        (0.6, 0.5, None, True, "at least 0.5"),
        (float("nan"), None, None, False, "none"),
    ],
)
def test_a_check_keeps_its_bounds(value, minimum, maximum, passed, bounds):
    check = Check("noise", "3 f435w", value, minimum, maximum)
    assert check.passed is passed
    assert check.bounds == bounds


def test_a_table_of_quantities_becomes_plain_values():
    table = QTable({"band": ["a", "b"], "flux": [1.5, np.nan] * u.Jy, "n": [1, 2], "map": np.ones((2, 3))})
    shown = DataTable.from_astropy("photometry", table)
    assert shown.columns == ("band", "flux", "n")
    assert shown.units == {"flux": "Jy"}
    assert shown.rows[0] == ("a", 1.5, 1)
    assert np.isnan(shown.rows[1][1])


def test_masked_values_are_unknown():
    from astropy.table import Table

    table = Table({"x": np.ma.masked_array([1.0, 2.0], [False, True])}, masked=True)
    assert DataTable.from_astropy("t", table).rows == ((1.0,), (None,))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5678, "1235"),
        (-0.00012345, "−0.0001234"),
        (3, "3"),
        (-3, "−3"),
        (True, "yes"),
        (None, "–"),
        (float("nan"), "–"),
        ("f435w-a", "f435w-a"),
    ],
)
def test_values_are_written_to_be_read(value, text):
    assert format_cell(value) == text


# --- page --------------------------------------------------------------------------------------------


@pytest.fixture
def report(tmp_path):
    png = figures.correlation_maps("c", {"a": None})
    return RunReport(
        title="homogenize: 1 object <b>in</b> 2 bands",
        summary="Done & told.",
        config_yaml="recipe: homogenize\nobjects: ['<3']\n",
        sections=(
            Section(
                "PSF",
                "Star 1 was rejected.",
                (ReportFigure("correlation", png, "of the noise"),),
                (DataTable("Fluxes", ("band", "flux"), (("a", 1.0), ("b", None)), {"flux": "Jy"}),),
            ),
        ),
        checks=(
            Check("residual", "a", 0.01, None, 0.05),
            Check("residual", "b", 0.07, None, 0.05, "after matching"),
        ),
        inputs=(InputSummary("a.fits", {"unit": "Jy"}, ("no PHOTFLAM",)),),
        products=(Product(tmp_path / "products" / "3.fits", "all bands"),),
        failures={"912": "truncated file"},
        timings={"matching": 1.25},
    )


def test_the_page_holds_everything_and_needs_no_network(report, tmp_path):
    page = render_report(report, tmp_path, datetime(2026, 11, 21, tzinfo=UTC))
    for text in (
        "Star 1 was rejected.",
        "truncated file",
        "no PHOTFLAM",
        "2026-11-21",
        "Done &amp; told.",
        "1.25",
    ):
        assert text in page
    assert "<b>in</b>" not in page
    assert "&lt;3" in page
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,|#|products/3\.fits")', page) == []
    assert page.index("failed</span>") < page.index("passed</span>")
    assert "<b>1</b> of 2 checks passed" in page


def test_the_page_is_well_formed(report, tmp_path):
    page = render_report(report, tmp_path).replace("<!doctype html>", "")
    page = re.sub(r"<(meta|img)([^>]*)>", r"<\1\2/>", page)
    page = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)
    root = ET.fromstring(page)
    assert len(root.findall(".//section")) == 7


def test_a_report_without_anything_is_still_a_page(tmp_path):
    page = render_report(RunReport("empty", "", ""), tmp_path)
    assert "<h2>Configuration</h2>" in page
    assert 'id="checks"' not in page


def test_a_report_is_written_whole_and_replaces_the_old_one(report, tmp_path):
    path = tmp_path / "deep" / "report.html"
    assert write_report(report, path) == path
    first = path.read_text(encoding="utf-8")
    write_report(report, path)
    assert path.read_text(encoding="utf-8").endswith("</html>\n") == first.endswith("</html>\n")
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    assert 'href="../products/3.fits"' in first


# --- figures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bands", [1, 5, 6, 13])
def test_a_contact_sheet_grows_with_its_bands(rng, n_bands):
    image = make_image(rng)
    region = np.hypot(*(np.indices(image.shape) - 9.5)) < 6
    rows = [figures.BandRow(f"f{i}w", image, image, region, region) for i in range(n_bands)]
    height, width = size_of(figures.contact_sheet("object", rows, dpi=40))
    lines = {1: 1, 5: 5, 6: 3, 13: 5}[n_bands]
    blocks = {1: 1, 5: 1, 6: 2, 13: 3}[n_bands]
    assert 60 * lines < height < 80 * lines + 50
    assert 250 * blocks < width < 300 * blocks + 30


def test_a_contact_sheet_survives_what_images_can_hold(rng):
    plain = make_image(rng)
    nothing = plain.evolve(mask=np.ones(plain.shape, bool))
    constant = plain.evolve(data=np.zeros_like(plain.data))
    garbage = plain.data.copy()
    garbage[:5] = np.nan
    holes = plain.evolve(
        data=garbage, mask=~np.isfinite(garbage), variance=np.where(np.isnan(garbage), np.nan, 1.0)
    )
    no_psf = make_image(rng, n=31, psf=None, unit="1e-20 erg / (s cm2 AA arcsec2)", wcs=make_wcs(0.2))
    everywhere = np.ones(plain.shape, bool)
    rows = [
        figures.BandRow("nothing", nothing, nothing, everywhere, everywhere),
        figures.BandRow("constant", constant, constant, ~everywhere),
        figures.BandRow("holes", no_psf, holes, everywhere),
    ]
    size_of(figures.contact_sheet("difficult [object] $x_{y$", rows, dpi=40))


def test_equal_surface_brightness_looks_equal_on_fine_and_coarse_pixels(rng):
    """Panels of one band share a stretch, in flux per area, whatever the pixel size."""
    coarse = make_image(rng)
    fine = coarse.evolve(wcs=make_wcs(0.03))
    ratio = sheet._surface_brightness(fine) / sheet._surface_brightness(coarse)
    np.testing.assert_allclose(np.asarray(ratio), 4.0, rtol=1e-6)


def test_sky_histograms(rng):
    counts, edges = np.histogram(rng.normal(0.001, 0.002, 4000), 40)
    one = figures.SkyHistogram(
        "f435w", edges, counts, 0.001, 0.0001, 0.002, "electron / s", counts + 3, 0.0011, 0.0012
    )
    empty = figures.SkyHistogram("nothing", np.array([0.0, 1.0]), np.array([0]), 0.0, 0.0, 0.0, "Jy")
    single = size_of(figures.sky_histograms("Sky", [one], dpi=40))
    several = size_of(figures.sky_histograms("Sky", [one, empty, one, one], dpi=40))
    assert several[0] > 1.5 * single[0]


def test_growth_curves():
    radii = np.linspace(0, 1, 20)
    target = figures.GrowthCurve("f160w", radii, 1 - np.exp(-(radii**2) / 0.05))
    curve = figures.GrowthCurve(
        "f435w", radii[:10], 1 - np.exp(-(radii[:10] ** 2) / 0.02), target.before[:10]
    )
    size_of(figures.growth_curves("PSF", [curve, target], target, limit=0.05, dpi=40))
    size_of(figures.growth_curves("PSF", [], target, dpi=40))


def test_correlation_maps():
    kernel = np.zeros((5, 5))
    kernel[2, 1:4] = [-0.2, 1.0, -0.2]
    one_line = size_of(figures.correlation_maps("Noise", {"a": kernel, "b": None}, dpi=40))
    two_lines = size_of(figures.correlation_maps("Noise", {f"b{i}": kernel for i in range(11)}, dpi=40))
    assert two_lines[0] > 1.5 * one_line[0]


def test_figures_leave_no_global_state_behind(rng):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figures.contact_sheet("object", [figures.BandRow("a", make_image(rng), make_image(rng))], dpi=40)
    assert dict(mpl.rcParams) == before


def test_only_the_figures_import_matplotlib():
    package = Path(figures.__file__).parent.parent.parent
    users = [
        path
        for path in package.rglob("*.py")
        if re.search(r"^(import|from) matplotlib", path.read_text(), re.M)
    ]
    assert users
    assert all(path.is_relative_to(package / "report" / "figures") for path in users)
