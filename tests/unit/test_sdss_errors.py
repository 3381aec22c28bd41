"""What `inspect --errors` measures, prints and draws."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from skyloom.cli import app
from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.io.inspection.claimed_scatter import image_pull, spectrum_scatter
from tests.inputs.sdss_files import frame_hdus, spectrum_hdus, write

PNG = b"\x89PNG"


def noisy_image(claimed, *, integers=False, seed=1):
    random = np.random.default_rng(seed)
    data = random.normal(100.0, 2.5, (300, 300))
    data[40:60, 40:60] += 5000.0
    data = np.rint(data) if integers else data
    variance = np.full(data.shape, claimed**2)
    mask = np.zeros(data.shape, bool)
    mask[100] = True
    data[100] = np.nan
    return Image(data, variance, mask, "nmgy", None)


@pytest.mark.parametrize("claimed", [2.5, 5.0])
def test_pull_of_an_image_is_scatter_over_error(claimed):
    # The differences share pixels: sum over both axes of 9e4 each, effectively more than 1e5 independent ones.
    assert image_pull(noisy_image(claimed)) == pytest.approx(2.5 / claimed, rel=0.01)


def test_pull_of_whole_data_numbers_is_not_rounded_to_one_of_them():
    expected = np.sqrt(2.5**2 + 1 / 12) / 2.5
    assert image_pull(noisy_image(2.5, integers=True)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("neighbour", [0.0, 0.3])
def test_correlation_of_neighbours_is_found(neighbour):
    random = np.random.default_rng(4)
    # A moving average of two with weights a and b: a b / (a^2 + b^2) = neighbour.
    b = 0.0 if neighbour == 0 else (1 - np.sqrt(1 - 4 * neighbour**2)) / (2 * neighbour)
    white = random.normal(size=40_001)
    value = 50 + (white[1:] + b * white[:-1]) / np.hypot(1, b)
    size = value.size
    spectrum = Spectra(
        value[None], np.ones((1, size)), None, "erg/(s cm2 AA)", 4000 + np.arange(size) * 0.1, "vacuum"
    )
    found = spectrum_scatter(spectrum)
    assert found.neighbour == pytest.approx(neighbour, abs=0.02)
    assert found.pull == pytest.approx(1.0, abs=0.02)


def test_steps_of_a_frame_are_printed_and_drawn(tmp_path):
    path, picture = write(tmp_path / "frame.fits", frame_hdus(96, 128)), tmp_path / "steps.png"
    result = CliRunner().invoke(app, ["inspect", "--errors", str(path), "--out", str(picture)])
    assert result.exit_code == 0, result.output
    for words in ("2820-3-122", "4.72 electrons", "1.3225 counts^2", "3 sky", "scatter of the empty sky"):
        assert words in result.output
    assert picture.read_bytes().startswith(PNG)


def test_errors_of_a_spectrum_are_printed_and_drawn(tmp_path, monkeypatch):
    path = write(tmp_path / "spec.fits", spectrum_hdus(800))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["inspect", "--errors", str(path)])
    assert result.exit_code == 0, result.output
    assert "3126-54804-0211" in result.output
    assert (tmp_path / "spec-errors.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--errors", "frame.fits", "--out", "frame.fits"], "the figure is a PNG"),
        (["frame.fits", "--out", "steps.png"], "--out names the figure"),
        (["--errors", "image.fits"], "no SDSS frame and no spectrum"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, monkeypatch, arguments, words):
    from astropy.io import fits

    hdus = frame_hdus(32, 48)
    write(tmp_path / "frame.fits", hdus)
    science = fits.ImageHDU(np.ones((8, 8)), fits.Header({"BUNIT": "electron/s"}), name="SCI")
    write(tmp_path / "image.fits", [fits.PrimaryHDU(), science, fits.ImageHDU(np.ones((8, 8)), name="WHT")])
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "frame.fits").read_bytes()
    result = CliRunner().invoke(app, ["inspect", *arguments])
    assert result.exit_code == 2
    assert words in result.output
    assert (tmp_path / "frame.fits").read_bytes() == before


@pytest.mark.parametrize(("hdus", "source"), [(frame_hdus, "the calibration"), (spectrum_hdus, "ivar")])
def test_plain_inspect_says_where_the_errors_come_from_and_how_to_see_them(tmp_path, hdus, source):
    path = write(tmp_path / "one.fits", hdus())
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert result.exit_code == 0, result.output
    assert f"skyloom inspect --errors {path}" in result.output
    assert source in result.output
    assert "no plane of errors" not in result.output
