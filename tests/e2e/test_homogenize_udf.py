"""The first recipe from the command line on real stamps of the Hubble Ultra Deep Field."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS

import skyloom as sl

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "bench_homogenize.py"
OBJECTS = ("3", "15", "37", "912", "919", "m3")
BANDS = ("f435w", "f606w", "f775w", "f814w", "f850lp", "f105w", "f125w", "f140w", "f160w")


def configuration(data, fine):
    # The script finds what stands beside it, as when it is called.
    sys.path.insert(0, str(BENCHMARK.parent))
    specification = importlib.util.spec_from_file_location("bench_homogenize", BENCHMARK)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.configuration(data, fine=fine)


def run(*arguments):
    command = [
        sys.executable,
        "-W",
        "error::RuntimeWarning",
        "-m",
        "skyloom.cli",
        "run",
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory):
    """Both runs: all files at 60 mas, with pictures; and four bands from the 30 mas files, without."""
    folders = {}
    for fine in (False, True):
        folder = folders[fine] = tmp_path_factory.mktemp("udf")
        config = folder / "homogenize.yaml"
        config.write_text(configuration(data_dir.resolve(), fine), encoding="utf-8")
        plain = ["--set", "output.contact_sheet=false", "--set", "output.report=false"] if fine else []
        done = run(config, "--out", folder / "out", *plain)
        assert done.returncode == 0, done.stdout + done.stderr
    return folders


@pytest.fixture(params=[False, True], ids=["60mas", "30mas-mixed"])
def finished(request, runs):
    return runs[request.param] / "out"


def test_every_product_is_there_and_valid(finished):
    for name in OBJECTS:
        path = finished / "objects" / f"{name}.fits"
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
            names = [hdu.name for hdu in hdus]
            assert {"OBJECT_MASK", "HISTORY", "CONFIG"} <= set(names)
            inside = hdus["OBJECT_MASK"].data == 1
            assert 20 < inside.sum() < inside.size / 2
            for band in BANDS:
                planes = {key: hdus[f"{band}_{key}".upper()] for key in ("SCI", "VAR", "WHT", "MASK", "CORR")}
                usable = planes["MASK"].data == 0
                # The merger reaches the rim of its stamp, where kernels are incomplete and pixels masked.
                least = {"m3": 0.8, "3": 0.9}.get(name, 0.95)
                assert usable.sum() > least * inside.sum()
                assert np.all(usable <= inside)
                assert np.all(planes["VAR"].data[usable] > 0)
                np.testing.assert_allclose(
                    planes["WHT"].data[usable], 1 / planes["VAR"].data[usable], rtol=1e-5
                )
                assert np.all(planes["WHT"].data[~usable] == 0)
                assert planes["SCI"].header["BUNIT"] == "electron s-1"
                scale = WCS(planes["SCI"].header).proj_plane_pixel_scales()[0].to_value("arcsec")
                assert scale == pytest.approx(0.06, rel=1e-4)


def test_a_band_reads_back_as_an_image(finished):
    image = sl.read(finished / "objects" / "37.fits", band="f606w")
    assert image.correlation.sum() > 10
    assert [mode.name for mode in image.modes] == ["sky"]
    names = [item.name for item in image.history]
    assert names.index("match_psf") < names.index("apply_object_mask")


def test_photometry_is_complete(finished):
    table = QTable.read(finished / "photometry.ecsv")
    assert len(table) == len(OBJECTS) * len(BANDS)
    assert str(table["flux"].unit) == "electron / s"
    for column in ("flux", "flux_err", "sky", "sky_err", "kernel_residual", "lost_flux", "noise_gain"):
        assert np.all(np.isfinite(table[column]))
    assert np.all(table["flux_err"] > 0)
    assert np.all(table["flux"] > 5 * table["flux_err"])
    with fits.open(finished / "photometry.fits", checksum=True) as hdus:
        rows = hdus["PHOTOMETRY"]
        assert len(rows.data) == len(table)
        np.testing.assert_array_equal(rows.data["flux"], table["flux"].value)
        assert rows.columns["flux"].unit == "electron s-1"


def test_the_merger_holds_both_galaxies(finished):
    table = QTable.read(finished / "photometry.ecsv")
    both, one = (table[table["object"] == name] for name in ("m3", "3"))
    assert np.all(both["n_pixels"] > one["n_pixels"])
    assert np.all(both["flux"] > one["flux"])


def test_the_reference_band_is_a_product_like_the_others(finished):
    table = QTable.read(finished / "photometry.ecsv")
    reference = table[table["band"] == "f160w"]
    assert len(reference) == len(OBJECTS)
    assert np.all(reference["noise_gain"] == 1.0)
    assert np.all(reference["kernel_residual"] == 0.0)
    assert np.all(reference["lost_flux"] == 0.0)


def test_the_outlier_star_is_named(finished):
    stars = QTable.read(finished / "stars.ecsv")
    rejected = {(row["band"], str(row["name"])) for row in stars if not row["used"]}
    assert rejected, "no star was rejected, though one is an outlier in several bands"


def test_contact_sheets_and_report(runs):
    for name in OBJECTS:
        assert (runs[False] / "out" / "objects" / f"{name}_sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert "homogenize: 6 objects in 9 bands" in (runs[False] / "out" / "report.html").read_text(
        encoding="utf-8"
    )


def test_mixed_pixel_scales_conserve_flux(runs):
    """Both runs see the same galaxies; only the input pixels differ."""
    coarse, fine = (QTable.read(runs[key] / "out" / "photometry.ecsv") for key in (False, True))
    used = np.isin(coarse["band"], ["f606w", "f775w", "f814w", "f850lp"])
    ratio = (fine["flux"] / coarse["flux"]).to_value("")
    assert np.all(np.abs(ratio[used] - 1) < 0.03)
    np.testing.assert_allclose(ratio[~used], 1.0)


def test_running_again_resumes_and_changes_nothing(runs):
    finished = runs[True] / "out"
    config = finished / "config.yaml"
    before = {path: path.stat().st_mtime_ns for path in (finished / "objects").iterdir()}
    done = run(config, "--out", finished)
    assert done.returncode == 0, done.stderr
    assert "6 items from an earlier run" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (finished / "objects").iterdir()} == before
