"""The spectrum pane in Chromium: what is clicked, lassoed, pinned and typed is what the product says."""

from __future__ import annotations

import numpy as np
import pytest
from tests.browser import open_browser, open_page, serve_in_process
from tests.inputs.viewer_runs import LABELS, SHAPE, Z, tiny_cube, write_tiny_run

from skyloom.core.linelist import default_lines
from skyloom.spectral.bins.extract import extract_spectra
from skyloom.viewer.spectra.names import with_error


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_tiny_run(tiny_cube(), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def viewer(run):
    with (
        open_browser() as browser,
        serve_in_process(run.folder) as served,
        open_page(browser, served) as viewer,
    ):
        viewer.wait_for("entry-select-1", "model.value !== ''")
        viewer.set_value("entry-select-1", key_of(viewer, "it_line_maps"))
        viewer.wait_for("image-1", "model.x_range.end > 8 && model.x_range.end < 60")
        yield viewer


def key_of(viewer, name):
    """The key by which the page knows a file."""
    listed = """(model.options instanceof Map ? [...model.options.values()]
        : Array.isArray(model.options) ? [model.options] : Object.values(model.options)).flat()"""
    return next(key for key, _ in viewer.model("entry-select-1", listed) if name in key)


def column(viewer, name, source="spectrum-data"):
    """A column of a data source as the browser has it; NaN where it is not finite."""
    values = viewer.model(source, f"Array.from(model.data[{name!r}], v => Number.isFinite(v) ? v : null)")
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def wait_for_title(viewer, text):
    viewer.wait_for("spectrum-title", f"model.text.includes({text!r})")


def pick(viewer, bin_number):
    y, x = np.argwhere(bin_number == LABELS)[7]
    viewer.click_at("image-1", float(x), float(y))
    wait_for_title(viewer, f">bin {bin_number} (")
    viewer.wait_for("spectrum-data", "model.data.wave.length > 1")


def test_a_click_on_a_bin_shows_its_spectrum_and_fit(viewer, run):
    pick(viewer, 2)
    good = ~run.spectra.mask[2]
    flux, error = column(viewer, "flux"), column(viewer, "error")
    np.testing.assert_allclose(column(viewer, "wave"), run.spectra.wave, rtol=1e-12)
    np.testing.assert_allclose(flux[good], run.spectra.data[2][good], rtol=1e-6)
    np.testing.assert_allclose(error[good], np.sqrt(run.spectra.variance[2][good]), rtol=1e-6)
    assert np.isnan(flux[~good]).all()
    model = run.fit.model[2] + run.fit.baseline[2]
    known = np.isfinite(column(viewer, "model"))
    np.testing.assert_allclose(column(viewer, "model")[known], model[known], rtol=1e-5)
    pull = ((run.spectra.data[2] - model) / np.sqrt(run.spectra.variance[2]))[good & known]
    np.testing.assert_allclose(column(viewer, "pull")[good & known], pull, atol=1e-3)
    assert viewer.model("spectrum-components", "model.data.name") == ["[N II] 6548", "Hα", "[N II] 6583"]
    assert [6600.0, 6604.0] in viewer.model(
        "spectrum-masked", "model.data.left.map((low, i) => [low, model.data.right[i]])"
    )
    place = dict(
        zip(
            viewer.model("spectrum-lines", "model.data.key"),
            column(viewer, "x", "spectrum-lines"),
            strict=True,
        )
    )
    assert place["Halpha"] == pytest.approx(default_lines()["Halpha"].rest("air") * (1 + Z))
    assert "Hα" in viewer.model("spectrum-lines", "model.data.shown")  # there is room for its name
    assert viewer.model("spectrum", "model.below[0].axis_label") == "observed wavelength (Å, air)"
    assert "10⁻²⁰ erg" in viewer.model("spectrum", "model.left[0].axis_label")


def test_the_numbers_beside_it_are_those_of_the_table(viewer, run):
    pick(viewer, 1)
    viewer.wait_for("spectrum-numbers", "model.text.includes('data-line')")
    text = viewer.model("spectrum-numbers", "model.text")
    for name in ("flux", "velocity", "sigma", "ew"):
        value, error = (run.fit.table[f"Halpha_{name}{end}"][1].value for end in ("", "_err"))
        assert f">{with_error(value, error)}<" in text, name
    assert viewer.page.locator("td", has_text="[N II] 6583").first.is_visible()


def test_pins_stay_for_comparison_and_go(viewer, run):
    pick(viewer, 0)
    viewer.press("spectrum-pin")
    viewer.wait_for("spectrum-pin-1", "model.data.flux.length > 0")
    pick(viewer, 3)
    np.testing.assert_allclose(
        column(viewer, "flux", "spectrum-pin-1")[60:], run.spectra.data[0][60:], rtol=1e-6
    )
    assert viewer.model("spectrum-pins", "model.text").count("bin 0 (") == 1
    viewer.press("spectrum-clear")
    viewer.wait_for("spectrum-pin-1", "model.data.flux.length === 0")


def test_wavelengths_at_rest_and_a_redshift_that_is_typed(viewer):
    pick(viewer, 1)
    observed = column(viewer, "wave")
    viewer.page.evaluate("() => { Bokeh.documents[0].get_model_by_name('spectrum-frame').active = 1 }")
    viewer.wait_for("spectrum", "model.below[0].axis_label.startsWith('rest')")
    np.testing.assert_allclose(column(viewer, "wave"), observed / (1 + Z), rtol=1e-12)
    viewer.page.evaluate("() => { Bokeh.documents[0].get_model_by_name('spectrum-frame').active = 0 }")
    viewer.wait_for("spectrum", "model.below[0].axis_label.startsWith('observed')")
    viewer.set_value("spectrum-redshift", "0.35")
    viewer.wait_for(
        "spectrum-lines", "model.data.key.includes('OIII4959') || model.data.key.includes('Hbeta')"
    )
    viewer.set_value("spectrum-redshift", "far away")
    wait_for_title(viewer, "is no redshift")
    viewer.set_value("spectrum-redshift", f"{Z}")
    viewer.wait_for("spectrum-lines", "model.data.key.includes('Halpha')")


def test_a_lasso_adds_up_with_covariance(viewer, run):
    """Over a cube: spaxels; the polygon is drawn with the mouse."""
    viewer.set_value("entry-select-1", key_of(viewer, "it_nebular"))
    viewer.wait_for("plane-select-1", "JSON.stringify(model.options).includes('white light')")
    viewer.page.evaluate(
        """() => {
            const figure = Bokeh.documents[0].get_model_by_name('image-1');
            figure.toolbar.tools.find((tool) => tool.type.startsWith('Lasso')).active = true;
        }"""
    )
    viewer.wait_for("image-1", "model.toolbar.tools.some(t => t.type === 'PanTool' && !t.active)")
    viewer.page.wait_for_timeout(
        500
    )  # Until the view of the tool listens to the pointer; nothing tells when.
    corners = [(0.6, -0.4), (3.4, -0.4), (3.4, 2.4), (0.6, 2.4), (0.6, -0.2)]
    places = [viewer.screen_place("image-1", x, y) for x, y in corners]
    viewer.page.mouse.move(*places[0])
    viewer.page.mouse.down()
    for place in places[1:]:
        viewer.page.mouse.move(*place, steps=3)
    viewer.page.mouse.up()
    wait_for_title(viewer, "sum of 9 spaxels, errors with covariance (")
    inside = np.full(SHAPE, -1)
    inside[:3, 1:4] = 0
    expected = extract_spectra(tiny_cube(), inside)
    good = ~expected.mask[0]
    np.testing.assert_allclose(column(viewer, "flux")[good], expected.data[0][good], rtol=1e-6)
    np.testing.assert_allclose(column(viewer, "error")[good], np.sqrt(expected.variance[0][good]), rtol=1e-6)
    assert viewer.complaints == []
    assert viewer.strange_requests == []
