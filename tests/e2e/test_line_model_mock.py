"""Line models of the recipe homogenize from the command line: products, resume, broken input."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import QTable
from tests.commands import run_here

import skyloom as sl
from skyloom.core.psf import GaussianPSF
from skyloom.mock.hubble.files import write_hst_mock
from skyloom.mock.scenes.images import sky_wcs, truth_image

pytestmark = pytest.mark.slow
BANDS = ("f606w", "f814w", "f160w")
PLANES = ("high-resolution", "smoothed", "rebinned", "residual")
MUSE_FWHM = 0.65
SHARES = {"f606w": 150.0, "f814w": 250.0}  # of the bands in the line, 1e-20 erg / (electron cm2)


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Mock stamps, and line maps like those of MUSE whose light is a known combination of two bands."""
    folder = tmp_path_factory.mktemp("mock")
    field = write_hst_mock(folder, seed=5, n_objects=2, bands=BANDS, fine=False, n_stars=0)
    (folder / "muse").mkdir()
    for item in field.objects:
        wcs = sky_wcs(item.target.scene.centre, (26, 26), 0.2, angle=30.0)
        rng = np.random.default_rng([1, int(item.name)])
        light = np.zeros((26, 26))
        for band in field.bands:
            seen = truth_image(
                item.target.scene,
                band.bandpass,
                wcs,
                (26, 26),
                GaussianPSF(MUSE_FWHM),
                photflam=band.photflam,
            )
            light += SHARES.get(band.name, 0.0) * seen.data
        error = np.full(light.shape, 0.02 * light.max())
        for number in (1, 2):  # a doublet
            noisy = light / 2 + rng.normal(size=light.shape) * error
            noisy[:2] = np.nan
            write(folder / "muse" / f"{item.name}_line{number}.fits", noisy, wcs)
            write(folder / "muse" / f"{item.name}_error{number}.fits", error, wcs)
    values = yaml.safe_load(field.config.read_text(encoding="utf-8"))
    # The PSFs are declared as they are, so that the stars need not be measured in every test.
    values["psf"] = {"fwhm": 0.2}
    values["bands"] = {
        band.name: {"psf": {"fwhm": band.psf.fwhm, "beta": band.psf.beta, "model": "moffat"}}
        for band in field.bands
    }
    values["line_model"] = {
        "maps": ["muse/{object}_line1.fits", "muse/{object}_line2.fits"],
        "errors": ["muse/{object}_error1.fits", "muse/{object}_error2.fits"],
    }
    field.config.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return field


def write(path, data, wcs, unit="1e-20 erg s-1 cm-2"):
    header = wcs.to_header()
    header["BUNIT"] = unit
    fits.writeto(path, data.astype(np.float32), header, overwrite=True)


def run(config, *arguments):
    return run_here("run", config, "--set", "output.contact_sheet=false", *arguments)


@pytest.fixture(scope="module")
def finished(field, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    done = run(field.config, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return out


def test_products_are_written_and_read_back(finished):
    for name in ("1", "2"):
        path = finished / "objects" / f"{name}_line_model.fits"
        planes = {plane: sl.read(path, band=plane) for plane in PLANES}
        assert planes["high-resolution"].shape == planes["smoothed"].shape == (104, 104)
        assert planes["rebinned"].shape == planes["residual"].shape == (26, 26)
        for plane in planes.values():
            assert plane.unit == sl.read(path, band="residual").unit
            assert plane.correlation is not None
            assert any(mode.name.startswith("weights of the bands") for mode in plane.modes)
            assert plane.wcs is not None
            assert "fit_line_model" in {step.name for step in plane.history} or plane is planes["residual"]
        assert not planes["residual"].valid[:2].any()  # NaN in the line map
        picture = finished / "objects" / f"{name}_line_model.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Line models" in (finished / "report.html").read_text(encoding="utf-8")


def test_the_table_tells_the_truth(finished):
    table = QTable.read(finished / "line_models.ecsv")
    assert set(table["object"]) == {"1", "2"}
    assert table["weight"].unit == "1e-20 erg / (electron cm2)"
    assert table["shift_x"].unit == "arcsec"
    assert np.all(table["left_out_rms"] < 1.1 * table["single_band_rms"])
    assert np.all(np.abs(table["shift_x"].to_value("arcsec")) < 5 * table["shift_x_err"].to_value("arcsec"))
    assert np.all(table["psf_fwhm"].to_value("arcsec") == pytest.approx(MUSE_FWHM, rel=0.15))
    assert len(fits.getdata(finished / "line_models.fits")) == len(table)


def test_a_finished_run_is_found_and_a_lost_figure_made_again(field, finished):
    before = (finished / "objects" / "1_line_model.fits").stat().st_mtime_ns
    (finished / "objects" / "2_line_model.png").unlink()
    done = run(field.config, "--out", finished)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 item from an earlier run" in done.stdout
    assert (finished / "objects" / "1_line_model.fits").stat().st_mtime_ns == before
    assert (finished / "objects" / "2_line_model.png").exists()


def test_other_settings_of_the_model_are_another_configuration(field, finished):
    done = run(field.config, "--out", finished, "--set", "line_model.max_bands=1")
    assert done.returncode == 2
    assert "--overwrite" in done.stderr


def velocity(folder):
    path = folder / "muse" / "2_line1.fits"
    with fits.open(path) as hdus:
        fits.setval(path, "BUNIT", value="km/s")
        assert hdus[0].data is not None


def missing(folder):
    (folder / "muse" / "2_error2.fits").unlink()


def elsewhere(folder):
    for name in ("line1", "line2", "error1", "error2"):
        fits.setval(folder / "muse" / f"2_{name}.fits", "CRVAL2", value=-10.0)


def nothing_but_nan(folder):
    path = folder / "muse" / "2_line1.fits"
    fits.writeto(path, np.full((26, 26), np.nan, np.float32), fits.getheader(path), overwrite=True)


def other_pixels(folder):
    for name in ("line2", "error2"):
        fits.setval(folder / "muse" / f"2_{name}.fits", "CRPIX1", value=15.0)


def no_wcs(folder):
    for name in ("line1", "error1"):
        path = folder / "muse" / f"2_{name}.fits"
        fits.writeto(path, fits.getdata(path), overwrite=True)
        fits.setval(path, "BUNIT", value="1e-20 erg s-1 cm-2")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (velocity, "2_line1.fits: line_model.maps: is in km / s; expected the flux of a line"),
        (missing, "2_error2.fits: line_model.errors: there is no such file"),
        (elsewhere, "2_line1.fits"),
        (nothing_but_nan, "every pixel is NaN"),
        (other_pixels, "lies on other pixels than the first line map"),
        (no_wcs, "the line map has no WCS"),
    ],
)
def test_a_broken_line_map_is_named_and_nothing_is_half_written(field, tmp_path, damage, message):
    shutil.copytree(field.directory, tmp_path / "mock")
    damage(tmp_path / "mock")
    done = run(tmp_path / "mock" / field.config.name, "--out", tmp_path / "out", "--set", "objects=[2]")
    assert done.returncode == 4, done.stdout + done.stderr
    (line,) = [text for text in done.stdout.splitlines() if text.strip().startswith("failed 2")]
    assert message in line
    assert "internal error" not in line
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out" / "objects").iterdir()) == []
