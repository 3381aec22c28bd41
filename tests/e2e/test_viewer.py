"""The viewer as its user has it: ``skyloom view`` in a process, its page in Chromium."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from tests.browser import open_browser, open_page, serve_in_process
from tests.conftest import ROOT
from tests.inputs.viewer_cubes import write_cube

import skyloom as sl
from skyloom.core.labels import LabelMap
from skyloom.spectral.bins.extract import extract_spectra

SIDE = 1500
BINS = 6


def tan(scale, turn, centre, shape):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = centre
    wcs.wcs.crpix = [shape[1] / 2, shape[0] / 2]
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.cd = scale / 3600.0 * np.array([[-c, s], [s, c]])
    wcs.wcs.set()
    return wcs


def make_image(path, shape, scale, turn, centre):
    wcs = tan(scale, turn, centre, shape)
    data = np.add.outer(np.arange(shape[0]), 0.001 * np.arange(shape[1])).astype(np.float32)
    header = wcs.to_header()
    header["BUNIT"] = "Jy"
    hdus = [
        fits.ImageHDU(data, header, name="SCI"),
        fits.ImageHDU(np.full(shape, 4, np.float32), header, name="VAR"),
    ]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return data, wcs


def make_run(folder, rng):
    """Bins, their spectra and the cube they are of."""
    wave = 6500.0 + 1.25 * np.arange(40)
    level = np.arange(1.0, 145.0).reshape(12, 12)
    data = (level + rng.normal(0, 0.1, (40, 12, 12))).astype(np.float32)
    variance, mask = np.full(data.shape, 0.01, np.float32), np.zeros(data.shape, bool)
    wcs = tan(0.2, 0.0, (150.0, 2.0), (12, 12))
    cube = sl.Cube(data, variance, mask, "1e-20 erg / (s cm2 AA)", wcs, wave, "air")
    labels = LabelMap(np.repeat(np.arange(BINS, dtype=np.int32), 24).reshape(12, 12), wcs=wcs)
    spectra = extract_spectra(cube, labels)
    sl.write(cube, folder / "it_cube.fits")
    sl.write(labels, folder / "it_bins.fits")
    sl.write(spectra, folder / "it_spectra.fits")
    return spectra


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("view")
    rng = np.random.default_rng(3)
    shelf = folder / "results"
    shelf.mkdir()
    wide = make_image(shelf / "a_wide.fits", (SIDE, SIDE), 0.1, 20.0, (150.0, 2.0))
    deep = make_image(shelf / "b_deep.fits", (400, 500), 0.05, -40.0, (150.001, 2.001))
    spectra = make_run(shelf, rng)
    make_image(folder / "secret.fits", (20, 20), 0.1, 0.0, (1.0, 1.0))
    (shelf / "link.fits").symlink_to(folder / "secret.fits")
    return {"folder": shelf, "wide": wide, "deep": deep, "spectra": spectra}


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(made, browser):
    with serve_in_process(made["folder"]) as served:
        yield served


@pytest.fixture(scope="module")
def opened(browser, served):
    """One page for all tests: drawing it takes longer than all that they do with it."""
    with open_page(browser, served) as page:
        page.wait_for("image-data-1", "model.data.image.length == 1 && model.data.image[0].length > 0")
        yield page


@pytest.fixture
def page(opened):
    """The page, which asks nobody else for anything and complains of nothing."""
    opened.set_value("modes", 0, "active")
    yield opened
    assert opened.strange_requests == []
    assert opened.complaints == []


def show(page, key, pane=1):
    page.set_value(f"entry-select-{pane}", key)
    page.wait_for(f"probe-{pane}", f"model.data.entry != null && model.data.entry[0] == {key!r}")
    page.settle()


def probe(page, key, pane=1):
    return page.model(f"probe-{pane}", f"model.data.{key}[0]")


def settle(page, condition, pane=1):
    page.wait_for(f"probe-{pane}", condition)


# --- pictures -------------------------------------------------------------------------------------------------------


def test_picture_level_and_read_out(page, made):
    data, wcs = made["wide"]
    show(page, "a_wide.fits")
    settle(page, "model.data.frame[0][2] == 2")
    x0, y0, step, nx, ny = probe(page, "frame")
    assert (x0, y0, nx * step, ny * step) == (-0.5, -0.5, SIDE, SIDE)
    whole = 8 * SIDE**2
    assert "level 1/2" in page.model("read-out-1", "model.text")
    assert "mean of 2 × 2 pixels" in page.model("read-out-1", "model.text")
    left, top = page.screen_place("image-1", 700.0, 900.0)
    page.page.mouse.move(left, top)
    for _ in range(6):
        page.page.mouse.wheel(0, -240)
    settle(page, "model.data.frame[0][2] == 1")
    # Pixels of the view only, of values and of variances.
    _, _, _, nx, ny = probe(page, "frame")
    page.page.wait_for_timeout(300)
    _, _, _, nx, ny = probe(page, "frame")
    assert nx * ny < SIDE * SIDE / 4
    assert 0 < probe(page, "read_bytes") < whole / 4
    page.hover_at("image-1", 700.0, 900.0)
    page.wait_for("read-out-1", "model.text.includes('°')")
    text = page.model("read-out-1", "model.text")
    assert float(re.search(r"<b>([-+.\de]+)</b>", text)[1]) == pytest.approx(data[900, 700], rel=1e-4)
    assert "± 2 " in text
    assert "Jy" in text
    x, y = (float(found) for found in re.findall(r"</span> ([\d.]+)", text)[-2:])
    right, up = (float(found) for found in re.search(r"\(([\d.]+)°, ([-\d.]+)°\)", text).groups())
    expected = wcs.pixel_to_world_values(x, y)
    # The read-out shows a tenth of a pixel of 0.1 arcsec.
    np.testing.assert_allclose((right, up), expected, atol=0.1 * 0.1 / 3600)
    assert f"{expected[0] / 15:02.0f}:" in text


def test_layers_limits_and_colours(page):
    show(page, "b_deep.fits")
    assert page.model("layer-1", "model.labels") == ["value", "error", "S/N", "mask"]
    page.set_value("layer-1", 2, "active")
    settle(page, "model.data.shown[0] != null")
    values, shown = (
        page.model("probe-1", f"Array.from(model.data.{key}[0].slice(0, 50))") for key in ("values", "shown")
    )
    np.testing.assert_allclose(shown, np.array(values) / 2.0, rtol=1e-5)
    page.set_value("layer-1", 0, "active")
    settle(page, "model.data.shown[0] == null")
    page.set_value("stretch-select-1", "linear")
    page.set_value("low-1", "100")
    page.set_value("high-1", "200")
    page.wait_for("limits-select-1", "model.value == 'typed'")
    page.wait_for("image-data-1", "Math.max(...model.data.image[0].slice(0, 500)) == 1")
    # The first row has values below 100, the last one above 200.
    assert page.model("image-data-1", "Math.min(...model.data.image[0].slice(-500))") == 255
    page.set_value("high-1", "nonsense")
    page.wait_for("message-1", "model.visible && model.text.includes('nonsense')")
    page.set_value("high-1", "200")
    page.wait_for("message-1", "!model.visible")
    page.set_value("colours-1", "viridis")
    page.wait_for("image-1", "model.renderers[1].glyph.color_mapper.palette[255] != null")


def test_a_click_on_a_bin_shows_its_outline_and_its_spectrum(page, made):
    show(page, "it_bins.fits")
    page.click_at("image-1", 5.0, 7.0)
    page.wait_for("spectrum-title", "model.text.includes('bin 3')")
    page.wait_for("outline-1", "model.data.xs.length > 0")
    xs, ys = (
        page.model("outline-1", f"model.data.{key}.map((line) => Array.from(line)).flat()")
        for key in ("xs", "ys")
    )
    assert (min(xs), max(xs), min(ys), max(ys)) == (-0.5, 11.5, 5.5, 7.5)


def test_two_images_are_linked_on_the_sky(page, made):
    show(page, "a_wide.fits")
    page.set_value("modes", 1, "active")
    page.wait_for("probe-2", "model.data.values.length == 1")
    show(page, "b_deep.fits", pane=2)
    page.wait_for("link-1", "model.data.matrix.length == 6")
    middle = "[(model.x_range.start + model.x_range.end) / 2, (model.y_range.start + model.y_range.end) / 2]"
    first, second = made["wide"][1], made["deep"][1]
    expected = np.array(second.world_to_pixel_values(*first.pixel_to_world_values(800.0, 800.0)))
    # The pane that was changed last leads, and on a busy machine the second may still be showing its picture.
    for _ in range(30):
        page.settle()
        page.page.evaluate("""() => {
            const [x, y] = ["x_range", "y_range"].map((key) => Bokeh.documents[0].get_model_by_name("image-1")[key]);
            const height = (y.end - y.start) / (x.end - x.start) * 300;
            x.setv({start: 650, end: 950});
            y.setv({start: 800 - height / 2, end: 800 + height / 2});
        }""")
        page.settle()
        found = page.model("image-2", middle)
        if np.hypot(*(np.array(found) - expected)) < 0.2:
            break
    assert found == pytest.approx(expected, abs=0.2)
    widths = [
        page.model(f"image-{n}", "(model.x_range.end - model.x_range.start) / model.inner_width")
        for n in (1, 2)
    ]
    assert widths[0] * 0.1 == pytest.approx(widths[1] * 0.05, rel=1e-3)
    # Blinking shows one at a time; the key changes them.
    page.set_value("modes", 2, "active")
    page.wait_for("image-pane-1", "model.visible")
    page.wait_for("image-pane-2", "!model.visible")
    page.page.keyboard.press("b")
    page.wait_for("image-pane-2", "model.visible")
    page.wait_for("image-pane-1", "!model.visible")


def test_channels_and_ranges_of_a_cube(page):
    show(page, "it_cube.fits")
    page.set_value("plane-select-1", "1")
    page.wait_for("channel-1", "model.visible && model.title.includes('Å')")
    before = page.model("channel-1", "model.title")
    page.set_value("channel-1", 3)
    page.wait_for("channel-1", f"model.title != {before!r}")
    assert page.model("channel-1", "model.title").startswith("6503.75")
    page.set_value("plane-select-1", "2")
    page.wait_for("range-1", "model.visible")
    settle(page, "!model.data.unit[0].includes('Å')")


@pytest.mark.slow
def test_of_a_gigabyte_little_is_read(browser, tmp_path):
    path = tmp_path / "cube.fits"
    shape = write_cube(path, 1e9)
    assert path.stat().st_size > 0.99e9
    with serve_in_process(path) as served, open_page(browser, served) as page:
        page.wait_for("image-data-1", "model.data.image.length == 1 && model.data.image[0].length > 0")
        page.wait_for("probe-1", "model.data.total_bytes != null")
        assert page.model("probe-1", "model.data.total_bytes[0]") < 0.05 * path.stat().st_size
        for channel in (0, 8, 720, shape[0] - 1):
            page.set_value("plane-select-1", "1")
            page.set_value("channel-1", channel)
        # All channels, and then the picture of their sum, the only one without a unit per wavelength.
        page.set_value("range-1", [0, shape[0] - 1])
        page.set_value("plane-select-1", "2")
        page.wait_for("probe-1", "!model.data.unit[0].includes('Å')")
        assert served.peak_memory() < 500e6
        assert page.strange_requests == []


# --- what must not be -----------------------------------------------------------------------------------------------


def test_no_name_from_the_browser_is_opened(page):
    for key in ("../secret.fits", "link.fits", "/etc/passwd", "store::../x", "it_bins.fits#7"):
        page.set_value("message-1", "", "text")
        page.set_value("entry-select-1", key)
        page.wait_for("message-1", "model.visible && model.text.includes('no entry')")
    assert "secret" not in str(page.model("entry-select-1", "JSON.stringify(model.options)"))


def request(served, path, **headers):
    """Send a request as no browser would; return the status and the headers."""
    host, port = served.host.split(":")
    lines = [f"GET {path} HTTP/1.1", *(f"{key.replace('_', '-')}: {value}" for key, value in headers.items())]
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := connection.recv(4096)):
            answer += piece
    return int(answer.split()[1]), answer.decode("latin-1")


def test_only_who_knows_the_token_is_answered(served):
    token = served.address.split("/")[3]
    upgrade = {
        "Upgrade": "websocket", "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Protocol": "bokeh, x",
    }  # fmt: skip
    own = {"Host": served.host}
    assert len(token) >= 32
    status, answer = request(served, f"/{token}/", **own)
    assert status == 200
    assert "default-src 'none'" in answer
    for path in (
        "/",
        "/x/",
        f"/{token[:-1]}/",
        f"/{token}x/",
        "/static/js/bokeh.min.js",
        "/favicon.ico",
        f"//{token}/",
    ):
        assert request(served, path, **own)[0] == 404, path
        assert request(served, f"{path}ws", **own, **upgrade)[0] == 404, path
    assert request(served, f"/{token}/static/js/bokeh.min.js", **own)[0] == 200
    assert request(served, f"/{token}/static/../../../../etc/passwd", **own)[0] in (403, 404)
    # A name that somebody else has made to point to this machine, and pages of others.
    port = served.host.split(":")[1]
    for host in (f"evil.example:{port}", "127.0.0.1", f"127.0.0.1.evil.example:{port}", ""):
        assert request(served, f"/{token}/", Host=host)[0] in (400, 404), host
    for origin in ("http://evil.example", "null", f"https://{served.host}", "http://127.0.0.1:1"):
        assert request(served, f"/{token}/ws", **own, **upgrade, Origin=origin)[0] in (403, 404), origin
        assert request(served, f"/{token}/", **own, Origin=origin)[0] == 404, origin


def test_nobody_else_can_reach_it(served):
    port = int(served.host.split(":")[1])
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    listening = [words[1] for words in sockets if words[3] == "0A"]
    assert [f"0100007F:{port:04X}"] == [place for place in listening if place.endswith(f":{port:04X}")]


def command(*arguments, wait=True):
    code = "import sys; from skyloom.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "view", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=ROOT / "src",
    )  # fmt: skip


def test_what_cannot_be_viewed_is_told(made, tmp_path):
    (tmp_path / "text.fits").write_text("nothing")
    process = command(tmp_path / "text.fits", "--no-browser")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "text.fits" in err
    assert "Traceback" not in err
    assert out == ""


def test_an_interruption_ends_it(made):
    process = command(made["folder"] / "it_bins.fits", "--no-browser")
    line = process.stdout.readline()
    assert "http://127.0.0.1:" in line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "ended" in out
