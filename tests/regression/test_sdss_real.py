"""Frames and spectra of SDSS as the survey distributes them: do the errors say what the scatter says?"""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

import skyloom as sl
from skyloom.cli import app
from skyloom.io.inspection.claimed_scatter import image_pull, spectrum_scatter
from skyloom.io.registry import sniff_instrument

pytestmark = pytest.mark.data


@pytest.mark.slow
@pytest.mark.parametrize("band", "ugriz")
def test_errors_of_a_frame_are_the_scatter_of_its_empty_sky(data_dir, band):
    path = data_dir / "sdss_frames" / f"frame-{band}-002820-3-0122.fits.bz2"
    image = sl.read(path)
    assert image.shape == (1489, 2048)
    assert image.meta["field"] == 122
    pull = image_pull(image)
    # Faint sources below the clipping add a per cent or two; the published gains are good to a few per cent.
    assert 0.97 < pull < 1.04
    # Noise that is independent from pixel to pixel: neighbours scatter as distant pixels do.
    assert abs(image_pull(image, lag=1) / pull - 1) < 0.025


def test_rows_of_the_bands_follow_each_other_in_time(data_dir):
    times = [
        sl.read(data_dir / "sdss_frames" / f"frame-{band}-002820-3-0122.fits.bz2").meta["row_time"][0]
        for band in "ri"
    ]
    # The CCD of i sees a field two frames of 1361 rows after that of r.
    assert (times[1] - times[0]) * 86400 == pytest.approx(2 * 1361 * 0.026322, abs=0.05)


def test_every_spectrum_is_read(data_dir):
    paths = sorted((data_dir / "sdss_spectra").glob("**/*.fits"))
    assert len(paths) == 15
    for path in paths:
        assert sniff_instrument(path) == "sdss-spec"
        spectrum = sl.read(path)
        meta = spectrum.meta
        places = np.log10(spectrum.wave) * 1e4
        assert np.abs(places - np.rint(places)).max() < 1e-6  # the grid that all spectra share
        assert meta["fibre_diameter"] == (2.0 if meta["plate"] >= 3510 else 3.0)
        assert meta["time_from"] == ("exposures" if "ppxf" in str(path) else "nights")
        assert 0.5 < np.median(spectrum.lsf) < 2.5
        scatter = spectrum_scatter(spectrum)
        assert 0.9 < scatter.pull < 1.15
        assert 0.1 < scatter.neighbour < 0.5


def test_spectra_of_other_surveys_are_not_taken_for_sdss(data_dir):
    assert sniff_instrument(data_dir / "manga" / "MaNGA_test_spectra.fits.gz") == "manga"


def test_errors_of_a_spectrum_are_shown_at_every_resolution(data_dir, tmp_path):
    path = data_dir / "sdss_spectra" / "spec-4238-55455-0037.fits"
    picture = tmp_path / "errors.png"
    result = CliRunner().invoke(app, ["inspect", "--errors", str(path), "--out", str(picture)])
    assert result.exit_code == 0, result.output
    assert "common grid, level 4" in result.output
    assert picture.read_bytes().startswith(b"\x89PNG")
