"""How objects show themselves in notebooks: cards, and figures that Jupyter draws."""

from __future__ import annotations

import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient

import skyloom as sl
from skyloom.core import display
from skyloom.core.provenance import step
from skyloom.errors import InputError
from skyloom.report import notebook
from skyloom.report.figures.objects.images import block_mean, layer_values
from skyloom.report.figures.objects.line_fits import best_line
from skyloom.report.figures.objects.spectra import line_places, masked_ranges
from tests.inputs.export_stores import make_odd_store
from tests.inputs.io_objects import make_cube, make_image, make_spectra
from tests.inputs.line import simple_fit, six_bins

PNG = b"\x89PNG"


def texts(figure):
    """Return all that is written in a figure."""
    return [item.get_text() for item in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    rng = np.random.default_rng(5)
    labels = six_bins()
    return {
        "image": make_image(rng, (40, 30), full=True),
        "cube": make_cube(rng, (30, 12, 14), full=True),
        "spectra": make_spectra(rng, (3, 60), full=True),
        "fit": simple_fit(labels.ids),
        "labels": labels,
        "store": make_odd_store(tmp_path_factory.mktemp("shown")),
    }


@pytest.mark.parametrize("name", ["image", "cube", "spectra", "fit", "store"])
def test_every_object_has_a_card_and_a_figure(objects, name):
    shown = objects[name]
    html = shown._repr_html_()
    figure = shown.plot()
    assert html.startswith("<div")
    assert html.count("<div") == html.count("</div>")
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(PNG)


def test_the_card_of_an_image_says_what_it_is(objects):
    html = objects["image"]._repr_html_()
    image = objects["image"]
    sigma = np.sqrt(np.median(image.variance[~image.mask]))
    for text in (
        "Image 30 × 40 pixels",
        "electron / s",
        "ACS f814w",
        "0.06&quot;",
        "SampledPSF, FWHM",
        f"median σ {sigma:.4g}",
        "correlated over 5 × 5 pixels; shared: sky, anchor slope",
        f"{100 * image.mask.mean():.3g} %",
        "history: 1 step",
        "read_hst",
    ):
        assert text in html, text
    assert 'src="data:image/png;base64,' in html


def test_cards_of_cubes_and_spectra_say_their_wavelengths(objects):
    cube, spectra = (objects[name]._repr_html_() for name in ("cube", "spectra"))
    assert "Cube 14 × 12 spaxels, 30 channels" in cube
    assert "4750 to 4786.25 Å in air" in cube
    assert "ChromaticPSF, FWHM" in cube
    assert "correlated over 3 × 3 and 5 pixels" in cube
    assert "Spectra: 3 spectra, 60 channels" in spectra
    assert "3600 to 10300 Å in vacuum" in spectra


def test_the_card_of_a_fit_counts_what_was_seen(objects):
    fit = objects["fit"]
    html = fit._repr_html_()
    key = fit.lines.keys[0]
    seen = int(np.sum(np.asarray(fit.table[f"{key}_snr"]) > 3))
    assert f"S/N above 3 in {seen} of {len(fit)}" in html


def test_the_card_of_a_store_reads_no_pixels(objects, monkeypatch):
    store = objects["store"]
    monkeypatch.setattr(type(store), "_reader", lambda *_: pytest.fail("a part was opened"))
    html = store._repr_html_()
    assert f"Store of {len(store)} observations" in html
    assert "spectrum" in html


def test_text_is_escaped():
    rng = np.random.default_rng(0)
    image = make_image(rng).evolve(
        step("<script>alert(1)</script>", path="a&b"), meta={"band": "<b>r</b>", "instrument": '"x"'}
    )
    html = image._repr_html_()
    assert "<script" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert "a&amp;b" in html


def test_a_big_cube_is_sampled():
    class Counted(np.ndarray):
        seen = 0

        def __getitem__(self, key):
            part = super().__getitem__(key)
            Counted.seen += np.size(part)
            return part

    shape = (600, 120, 120)
    data = np.broadcast_to(np.float32(1.0), shape).view(Counted)
    variance = np.broadcast_to(np.float32(4.0), shape)
    mask = np.broadcast_to(np.False_, shape)
    cube = sl.Cube(data, variance, mask, "ct", None, np.arange(1.0, 601.0), "air")
    object.__setattr__(cube, "data", data)
    Counted.seen = 0
    html = cube._repr_html_()
    assert "median σ 2," in html
    assert "of a sample" in html
    assert 0 < Counted.seen < 0.3 * data.size


def test_odd_objects_have_cards_and_figures(rng):
    blank = make_image(rng, (6, 5)).evolve(mask=np.ones((6, 5), bool), wcs=None, psf=None)
    for shown in (
        blank,
        sl.Image(np.ones((1, 1)), np.ones((1, 1)), None, "ct", None),
        make_cube(rng, (1, 2, 2)),
        make_spectra(rng, (1, 2)),
    ):
        assert "<table" in shown._repr_html_()
        assert shown.plot().axes
    assert blank.plot()._repr_png_().startswith(PNG)
    assert "no usable pixel" in blank._repr_html_()


def test_large_images_are_averaged_for_the_picture(rng):
    values, mask = rng.normal(size=(7, 5)), np.zeros((7, 5), bool)
    mask[0:3, 0:3] = True
    mean = block_mean(values, mask, 3)
    assert mean.shape == (3, 2)
    assert mean.mask[0, 0]
    assert mean[2, 1] == pytest.approx(values[6:, 3:].mean())
    big = make_image(rng, (2000, 12), wcs=None)
    figure = big.plot(layer="value")
    assert figure.axes[0].images[0].get_array().shape[0] <= 900
    assert figure.axes[0].get_ylim() == (-0.5, 1999.5)


def test_layers_are_those_of_the_image(objects):
    image = objects["image"]
    good = ~image.mask
    np.testing.assert_array_equal(layer_values(image, "value").data[good], image.data[good].astype(float))
    error = np.sqrt(image.variance[good].astype(float))
    np.testing.assert_allclose(layer_values(image, "error").data[good], error, rtol=1e-6)
    np.testing.assert_allclose(layer_values(image, "snr").data[good], image.data[good] / error, rtol=1e-6)
    np.testing.assert_array_equal(layer_values(image, "mask").data, image.mask)


def test_panels_have_units_and_limits(objects):
    figure = objects["image"].plot(layer=("value", "snr"), limits=(-1.0, 2.0), stretch="linear")
    written = texts(figure)
    assert {"value", "signal / noise", "electron s⁻¹", "S/N", "N", "E"} <= set(written)
    assert figure.axes[0].images[0].get_clim() == (-1.0, 2.0)
    cube = texts(objects["cube"].plot(x=3, y=2, lines="default"))
    assert {"spaxel x=3, y=2", "10⁻²⁰ erg Å⁻¹ s⁻¹ cm⁻²", "wavelength in air (Å)"} <= set(cube)


def test_lines_are_named_where_they_are_seen(objects):
    written = texts(objects["spectra"].plot(rows=[0, 2], lines=["Halpha"], redshift=0.1))
    assert {"row 0", "row 2", "Halpha"} <= set(written)
    ((_, place),) = line_places(["Halpha"], "vacuum", 0.1)
    assert place == pytest.approx(6564.61 * 1.1, abs=0.05)
    assert line_places({"mine": 5000.0}, "air", 0.01) == [("mine", 5050.0)]


def test_masked_ranges_are_whole_channels():
    wave = np.arange(5.0)
    mask = np.array([True, False, True, True, False])
    assert masked_ranges(wave, mask) == [(-0.5, 0.5), (1.5, 3.5)]


def test_a_fit_is_shown_as_maps_or_as_a_spectrum(objects):
    fit, labels = objects["fit"], objects["labels"]
    written = texts(fit.plot(labels=labels, line=fit.lines.keys[0]))
    assert {"flux", "velocity", "dispersion", "signal / noise"} <= set(written)
    assert best_line(fit) in fit.lines.keys
    data = fit.model + 1.0
    spectra = sl.Spectra(data, np.ones_like(data), np.zeros(data.shape, bool), fit.unit, fit.wave, fit.medium)
    figure = fit.plot(spectra=spectra, row=1, continuum=np.ones_like(data))
    residual = figure.axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(residual, -fit.baseline[1], atol=1e-6)


def test_a_store_is_drawn_with_conditions(objects):
    store = objects["store"]
    written = texts(store.plot(kind="image"))
    n = len(store.images())
    assert any(text.endswith(f": {n} observations") for text in written)
    assert "MJD (TAI)" in written


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("image", {"layer": "errors"}, "layer is 'errors'"),
        ("image", {"stretch": "sqrt"}, "stretch is 'sqrt'"),
        ("image", {"limits": (2, 1)}, "limits are"),
        ("image", {"limit": (2, 1)}, "unknown option"),
        ("cube", {"x": 14}, "no spaxel x=14"),
        ("spectra", {"rows": 3}, "no row 3"),
        ("spectra", {"limits": (1.0, 2.0)}, "fewer than two channels"),
        ("fit", {"row": 99}, "no row 99"),
        ("store", {"colour": 1}, "unknown condition"),
    ],
)
def test_wrong_options_are_told(objects, name, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        objects[name].plot(**options)


def test_without_anybody_who_draws_there_is_text(objects, monkeypatch):
    monkeypatch.setattr(display, "_sources", [])
    assert objects["image"]._repr_html_() is None
    with pytest.raises(RuntimeError, match="skyloom"):
        objects["image"].plot()


def test_nothing_is_imported_before_something_is_shown():
    code = (
        "import sys, skyloom as sl; from skyloom.core.image import Image; "
        "assert not {'matplotlib', 'skyloom.report', 'bokeh'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_options_of_the_help_are_those_of_the_figures():
    assert notebook.plot.__doc__ is not None
    for option in ("layer=", "stretch=", "limits=", "lines=", "redshift=", "labels=", "spectra="):
        assert option in notebook.plot.__doc__


def test_a_real_notebook_shows_cards_and_pictures(tmp_path, rng):
    """Executed by Jupyter, without pyplot and without a warning."""
    path = tmp_path / "image.fits"
    sl.write(make_image(rng, (20, 20)), path)
    cells = [
        f"import warnings; warnings.simplefilter('error'); import skyloom as sl; image = sl.read({str(path)!r})",
        "image",
        "image.plot(layer='value')",
    ]
    written = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(written, timeout=120, kernel_name="python3").execute()
    outputs = [cell["outputs"] for cell in written.cells]
    assert outputs[0] == []
    assert "Image 20 × 20 pixels" in outputs[1][0]["data"]["text/html"]
    assert "image/png" in outputs[2][0]["data"]
    assert all(output["output_type"] == "execute_result" for cell in outputs[1:] for output in cell)
