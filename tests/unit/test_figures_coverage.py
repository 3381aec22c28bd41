"""Where observations lie: outlines and circles, across 0h, on a field or the whole sky."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from skyloom.report.figures import coverage

pytestmark = pytest.mark.usefixtures("audited_figures")

PNG = b"\x89PNG"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn."""
    figures = []
    plain = coverage.to_png

    def to_png(figure):
        figures.append(figure)
        return plain(figure)

    monkeypatch.setattr(coverage, "to_png", to_png)
    return figures


def test_outlines_are_drawn_as_they_are_also_across_0h(drawn):
    corners_ra, corners_dec = np.array([359.9, 0.1, 0.1, 359.9]), np.array([-0.1, -0.1, 0.1, 0.1])
    outlines = (np.array([0, 4, 4]), corners_ra, corners_dec)
    ra, dec, radius = np.array([0.0, 0.05]), np.zeros(2), np.array([0.15, 0.0])
    png = coverage.sky_coverage("x", ra, dec, radius, ["image", "spectrum"], outlines)
    assert png.startswith(PNG)
    (axes,) = drawn[0].axes
    paths = [
        path for item in axes.collections if isinstance(item, PolyCollection) for path in item.get_paths()
    ]
    (path,) = paths
    east = path.vertices[:, 0]
    assert np.ptp(east) == pytest.approx(0.2)
    assert axes.get_xlim()[0] > 0.1 > -0.1 > axes.get_xlim()[1]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1 image", "1 spectrum"]


def test_without_outlines_circles_are_drawn_and_wide_surveys_on_the_whole_sky(drawn):
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 50), rng.uniform(-80, 80, 50)
    kinds = np.array(["cube"] * 50)
    assert coverage.sky_coverage("x", ra, dec, np.full(50, 0.1), kinds).startswith(PNG)
    assert drawn[0].axes[0].name == "mollweide"
    assert coverage.sky_coverage("x", ra[:1], dec[:1], np.array([0.1]), kinds[:1]).startswith(PNG)
    assert drawn[1].axes[0].name == "rectilinear"
