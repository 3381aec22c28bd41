"""The recipe from the command line on mock files: broken input, interruption, workers, truth."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import QTable
from tests.commands import command, half_written, run_here, run_process
from tests.report_pages import check_page

from skyloom.mock.hubble.files import write_hst_mock

BANDS = ("f606w", "f814w", "f160w")
QUIET = ("--set", "output.contact_sheet=false", "--set", "output.report=false")


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    return write_hst_mock(tmp_path_factory.mktemp("mock"), seed=5, n_objects=2, bands=BANDS, fine=False)


@pytest.fixture(scope="module")
def reference(field, tmp_path_factory):
    """A run without pictures, that others are compared with."""
    out = tmp_path_factory.mktemp("reference")
    assert run(field.config, "--out", out).returncode == 0
    return out


@pytest.fixture
def files(field, tmp_path):
    """A copy of the mock files that a test may break."""
    shutil.copytree(field.directory, tmp_path / "mock")
    return tmp_path / "mock"


def run(config, *arguments):
    return run_here("run", config, *QUIET, *arguments)


def edit(config, change):
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    change(values)
    config.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def test_the_whole_run(field, tmp_path):
    done = run_process("run", field.config, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    for name in ("photometry.ecsv", "photometry.fits", "stars.ecsv", "config.yaml", "report.html"):
        assert (tmp_path / name).stat().st_size > 0
    page = check_page(tmp_path / "report.html")
    sources = {table.source for table in page.tables}
    assert {"photometry.ecsv", "stars.ecsv", "noise.ecsv", "checks.ecsv"} <= sources
    table = QTable.read(tmp_path / "photometry.ecsv")
    assert f"{table['flux'][0].value:.4g}" in page.text
    for step in ("preparation", "sky and noise", "grid", "PSF matching", "photometry", "writing"):
        assert f"<td>{step}</td>" in page.text
    assert "weight" in page.text, "inputs are told as they were inspected"
    stars = QTable.read(tmp_path / "stars.ecsv")
    assert field.outlier_star in {str(name) for name in stars["name"][~stars["used"]]}


def test_flux_agrees_with_the_truth(field, reference):
    table = QTable.read(reference / "photometry.ecsv")
    for row in table:
        stamp = field.stamp(str(row["object"]), str(row["band"]))
        # The mask leaves out the faintest outskirts, and neighbours shine into it.
        assert row["flux"].value == pytest.approx(stamp.object_flux, rel=0.08)


def test_workers_give_the_same_products(field, reference, tmp_path):
    assert run(field.config, "--out", tmp_path, "--workers", 2).returncode == 0
    one, two = (QTable.read(folder / "photometry.ecsv") for folder in (reference, tmp_path))
    for column in one.colnames:
        assert np.all(one[column] == two[column]), column


def test_a_killed_run_leaves_no_half_file_and_resumes(field, reference, tmp_path):
    out = tmp_path / "killed"
    words = command("run", field.config, "--out", out, *QUIET)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        first = out / "objects" / "1.fits"
        for _ in range(6000):
            if first.exists() or process.poll() is not None:
                break
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert first.exists()
    for path in (out / "objects").glob("[!.]*.fits"):
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
    before = first.stat().st_mtime_ns
    done = run(field.config, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "from an earlier run" in done.stdout
    assert first.stat().st_mtime_ns == before
    assert half_written(out) == []
    again, whole = (QTable.read(folder / "photometry.ecsv") for folder in (out, reference))
    assert np.all(again["flux"] == whole["flux"])


def test_another_configuration_does_not_overwrite_unasked(field, reference, tmp_path):
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    done = run(field.config, "--out", tmp_path, "--set", "sky.method=none")
    assert done.returncode == 2
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == before
    assert "--overwrite" in done.stderr
    assert run(field.config, "--out", tmp_path, "--set", "sky.method=none", "--overwrite").returncode == 0


def truncate(folder):
    path = folder / "stamps" / "2_60mas_f814w_sci.fits"
    path.write_bytes(path.read_bytes()[:20000])


def wrong_shape(folder):
    path = folder / "stamps" / "2_60mas_f814w_wht.fits"
    with fits.open(path) as hdus:
        fits.writeto(path, hdus[0].data[:90], hdus[0].header, overwrite=True)


def zero_weight(folder):
    path = folder / "stamps" / "2_60mas_f814w_wht.fits"
    with fits.open(path) as hdus:
        fits.writeto(path, np.zeros_like(hdus[0].data), hdus[0].header, overwrite=True)


def only_nan(folder):
    path = folder / "stamps" / "2_60mas_f814w_sci.fits"
    with fits.open(path) as hdus:
        fits.writeto(path, np.full_like(hdus[0].data, np.nan), hdus[0].header, overwrite=True)


def no_wcs(folder):
    path = folder / "stamps" / "2_60mas_f160w_sci.fits"
    with fits.open(path) as hdus:
        header = hdus[0].header.copy()
        for keyword in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CD1_1", "CD2_2", "CRPIX1", "CRPIX2"):
            header.remove(keyword, ignore_missing=True)
        fits.writeto(path, hdus[0].data, header, overwrite=True)


def missing_file(folder):
    (folder / "stamps" / "2_60mas_f814w_sci.fits").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "2_60mas_f814w_sci.fits"),
        (wrong_shape, r"(90, 100)"),
        (zero_weight, "2_60mas_f814w_wht.fits"),
        (only_nan, "2_60mas_f814w_sci.fits"),
        (no_wcs, "WCS"),
        (missing_file, "2_60mas_f814w_sci.fits"),
    ],
)
def test_a_broken_object_is_listed_and_the_others_are_finished(files, tmp_path, damage, message):
    damage(files)
    done = run(files / "homogenize.yaml", "--out", tmp_path / "out")
    assert done.returncode == 4, done.stdout + done.stderr
    (line,) = [text for text in done.stdout.splitlines() if text.strip().startswith("failed 2")]
    assert message in line
    assert "internal error" not in line
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "objects" / "1.fits").exists()
    assert not (tmp_path / "out" / "objects" / "2.fits").exists()
    assert half_written(tmp_path / "out") == []
    table = QTable.read(tmp_path / "out" / "photometry.ecsv")
    assert set(table["object"]) == {"1"}


def test_an_absent_label_is_listed_with_those_that_exist(files, tmp_path):
    config = files / "homogenize.yaml"
    edit(config, lambda values: values.update(objects={"1": {}, "2": {"labels": ["centre", 987654]}}))
    done = run(config, "--out", tmp_path / "out")
    assert done.returncode == 4
    assert "987654" in done.stdout
    assert "_SEGMAP" in done.stdout or "segment" in done.stdout


def test_an_empty_list_of_stars_is_bad_input(files, tmp_path):
    config = files / "homogenize.yaml"
    edit(config, lambda values: values["psf"]["stars"].update(names=[]))
    done = run(config, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "psf.stars.names" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "objects").exists()


def test_an_unknown_key_is_refused_and_the_nearest_suggested(files, tmp_path):
    config = files / "homogenize.yaml"
    edit(config, lambda values: values.update(segmentaton=values.pop("segmentation")))
    done = run(config, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "did you mean 'segmentation'?" in done.stderr


def test_a_target_sharper_than_the_source_names_both_widths(files, tmp_path):
    config = files / "homogenize.yaml"
    done = run(config, "--out", tmp_path / "out", "--set", "target.psf=f606w")
    assert done.returncode == 4
    assert "sharper than the source PSF (FWHM" in done.stdout


def test_a_sky_file_can_be_used_and_a_bad_one_is_named(files, tmp_path):
    config = files / "homogenize.yaml"
    for path in (files / "sky").glob("sky_2_*"):
        path.write_text("not a number\n", encoding="utf-8")
    edit(
        config,
        lambda values: values.update(sky={"method": "file", "pattern": "sky/sky_{object}_{number}.txt"}),
    )
    done = run(config, "--out", tmp_path / "out")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "sky_2_" in done.stdout
    table = QTable.read(tmp_path / "out" / "photometry.ecsv")
    given = {path.stem: float(path.read_text().split()[0]) for path in (files / "sky").glob("sky_1_*")}
    for row in table:
        number = "".join(character for character in str(row["band"]) if character.isdigit())
        assert row["sky"].value == pytest.approx(given[f"sky_1_{number}"])


def test_a_grid_of_ones_own(field, reference, tmp_path):
    done = run(
        field.config,
        "--out",
        tmp_path / "out",
        "--set",
        "target.grid={pixel_scale: 0.1, size_arcsec: [4, 5]}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with fits.open(tmp_path / "out" / "objects" / "1.fits") as hdus:
        assert hdus["F606W_SCI"].data.shape == (40, 50)
    own = QTable.read(tmp_path / "out" / "photometry.ecsv")
    native = QTable.read(reference / "photometry.ecsv")
    np.testing.assert_allclose(own["flux"].value, native["flux"].value, rtol=0.05)
