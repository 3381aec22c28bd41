"""The recipe ifs from the command line on mock cubes: products, truth, broken input, interruption, workers."""

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
from astropy.wcs import WCS
from tests.commands import command, half_written, run_here, run_process
from tests.report_pages import check_page

import skyloom as sl
from skyloom.io.fits import read_product
from skyloom.io.products.bin_files import read_map_file
from skyloom.mock.cubes.files import write_cube_mock
from skyloom.spectral.signal.snr import spectra_line_snr

RANGE = (6300.0, 6900.0)
# Fits have tests of their own; `whole` makes them.
QUIET = ("--set", "output.figures=false", "--set", "output.report=false", "--set", "lines=none")
ALL = (
    "--set", "snr.also=[NII6583, Hbeta]", "--set", "resampled_cube={step: 1.0}", "--set",
    "snr.continuum_window=[6400, 6500]", "--set", "starlight.signal_to_noise_window=[6400, 6450]",
)  # fmt: skip


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    return write_cube_mock(
        tmp_path_factory.mktemp("mock"), "muse", seed=3, shape=(24, 26), wave_range=RANGE, name="disc"
    )


@pytest.fixture(scope="module")
def whole(mock, tmp_path_factory):
    """A whole run, with all that can be asked for."""
    out = tmp_path_factory.mktemp("whole")
    return out, run_process("run", mock.config, "--out", out, *ALL)


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of a finished run without figures that a test may break."""
    shutil.copytree(whole[0], tmp_path / "out")
    return tmp_path / "out"


def run(config, *arguments, quiet=True):
    return run_here("run", config, *(QUIET if quiet else ()), *arguments)


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}


# --- products -------------------------------------------------------------------------------------------------------


def test_the_whole_run(whole):
    out, done = whole
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    files = {path.name for path in (out / "disc").iterdir()}
    for name in (
        "disc_noise.fits", "disc_maps.fits", "disc_bins.fits", "disc.map", "disc_spectra.fits", "disc_table.ecsv",
        "disc_table.fits", "disc.resam.fits", "disc_map_Halpha.png", "disc_map_NII6583.png", "disc_bins.png",
        "disc_map_continuum.png", "disc_spectra.png", "disc_noise.png",
    ):  # fmt: skip
        assert name in files
    checked = check_page(out / "report.html")
    assert {"summary.ecsv", "checks.ecsv"} <= {table.source for table in checked.tables}
    page = checked.text
    assert "no map of Hbeta" in page, "a line that is out of range is noted, not fatal"
    assert "measured over claimed standard deviation" in page
    assert "0/1 disc: spectra" in done.stderr
    assert half_written(out) == []


def test_products_read_back(whole):
    folder = whole[0] / "disc"
    spectra, labels = sl.read(folder / "disc_spectra.fits"), sl.read(folder / "disc_bins.fits")
    table = QTable.read(folder / "disc_table.ecsv")
    assert spectra.meta["labels"] == labels.ids.tolist() == table["id"].tolist()
    assert np.all(table["n_pixels"] == np.bincount(labels.labels[labels.labels >= 0]))
    assert spectra.meta["milky_way_corrected"] is True
    assert spectra.meta["redshift"] == 0.01
    assert "target: 10.0" in spectra.meta["config"]
    assert {"read_cube", "extract_spectra", "deredden"} <= {step.name for step in spectra.history}
    again = read_map_file(folder / "disc.map")
    assert np.array_equal(again.labels, labels.labels)
    maps = read_product(folder / "disc_maps.fits")
    assert set(maps) == {
        f"{line}-{kind}" for line in ("Halpha", "NII6583", "continuum") for kind in ("signal", "noise", "snr")
    }
    for kind in ("SCI", "VAR"):
        with fits.open(folder / "disc_maps.fits") as hdus:
            assert "erg" in hdus[f"HALPHA-SIGNAL_{kind}"].header["BUNIT"]


def test_the_wcs_of_the_maps_is_that_of_the_cube(mock, whole):
    with fits.open(mock.cube) as hdus:
        given = WCS(hdus[1].header).celestial
    for image in read_product(whole[0] / "disc" / "disc_maps.fits").values():
        for x, y in ((0, 0), (25, 3), (11, 23)):
            assert image.wcs.pixel_to_world(x, y).separation(given.pixel_to_world(x, y)).arcsec < 1e-3
    table = QTable.read(whole[0] / "disc" / "disc_table.ecsv")
    sky = given.pixel_to_world(table["x"].value, table["y"].value)
    np.testing.assert_allclose(table["ra"].to_value("deg"), sky.ra.deg, atol=1e-6)


def test_line_flux_agrees_with_the_truth(mock, whole):
    """Of the bins, corrected for the Milky Way, against the disc itself measured in the same window."""
    table = QTable.read(whole[0] / "disc" / "disc_table.ecsv")
    labels = sl.read(whole[0] / "disc" / "disc_bins.fits")
    binned = labels.labels >= 0
    rows = QTable.read(mock.table)
    row = rows[rows["line"] == "Halpha"][0]
    dimming = float(row["flux"] / row["flux_corrected"])
    with fits.open(mock.noise_free) as hdus:
        light = hdus["TRUTH"].data[:, binned].sum(axis=1, dtype=float)[None] / dimming
    spectra = sl.read(whole[0] / "disc" / "disc_spectra.fits")
    noise_free = sl.Spectra(
        light, np.ones_like(light), None, spectra.unit, spectra.wave, "air", lsf=spectra.lsf
    )
    true = spectra_line_snr(noise_free, "Halpha", 0.01)["signal"][0]
    for name in ("signal", "spectrum_signal"):
        found, error = table[name].sum(), np.sqrt((table["noise"] ** 2).sum())
        assert abs(found - true) < 3.5 * error
        assert error / found < 0.02, "or the comparison would prove nothing"
    np.testing.assert_allclose(table["signal"].value, table["spectrum_signal"].value, rtol=0.01)
    # Absorption below the line, and light outside the window, are no errors of the recipe.
    emitted = mock.model.line("Halpha").flux[binned].sum() / dimming
    assert 0.9 < true.to_value("erg / (s cm2)") / emitted < 1.0


def test_bins_have_the_noise_that_they_claim(whole):
    table = QTable.read(whole[0] / "disc" / "disc_table.ecsv")
    ratio = (table["noise_measured"] / table["spectrum_noise"]).to_value("")
    assert 0.95 < np.nanmedian(ratio) < 1.05
    target = QTable.read(whole[0] / "summary.ecsv")
    assert target["below_target"][0] == 0
    assert target["bin_noise"][0] == pytest.approx(np.nanmedian(ratio), rel=1e-6)


def test_the_resampled_cube_and_the_starlight_folder(mock, whole):
    folder = whole[0] / "disc"
    with fits.open(folder / "disc.resam.fits") as hdus:
        shapes = [hdu.shape for hdu in hdus if hdu.is_image and len(hdu.shape) == 3]
        assert len(shapes) >= 2
        assert len(set(shapes)) == 1
        assert shapes[0][1:] == (24, 26)
    grids = list((folder / "disc_starlight").glob("grid_*.in"))
    assert len(grids) == 1
    first = grids[0].read_text().splitlines()
    spectrum = np.loadtxt(folder / "disc_starlight" / first[15].split()[0])
    np.testing.assert_allclose(np.diff(spectrum[:, 0]), 1.0, atol=1e-6)
    sky = (spectrum[:, 0] * 1.01 > 6294.5) & (spectrum[:, 0] * 1.01 < 6305.5)
    assert np.all(spectrum[sky, 3] >= 2)


# --- once, and again ------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_done_again(mock, finished):
    before = times(finished / "disc")
    done = run(mock.config, "--out", finished, *ALL, quiet=False)
    assert done.returncode == 0, done.stderr
    assert "(1 item from an earlier run)" in done.stdout
    assert times(finished / "disc") == before
    assert "no map of Hbeta" in (finished / "report.html").read_text(encoding="utf-8")


def test_a_change_redoes_what_depends_on_it(mock, finished):
    before = times(finished / "disc")
    done = run(mock.config, "--out", finished, *ALL, "--set", "binning.target=20")
    assert done.returncode in (0, 3), done.stderr
    after = times(finished / "disc")
    kept = {name for name in before if after.get(name) == before[name]}
    assert {"disc_noise.fits", "disc_maps.fits", "disc.resam.fits"} <= kept
    assert not {"disc_bins.fits", "disc_spectra.fits", "disc_table.ecsv"} & kept
    assert np.median(QTable.read(finished / "disc" / "disc_table.ecsv")["snr"]) > 20


def test_a_corrupt_product_is_made_again(mock, finished):
    reference = sl.read(finished / "disc" / "disc_bins.fits").labels
    for name in ("disc_bins.fits", "disc_spectra.fits"):
        path = finished / "disc" / name
        content = bytearray(path.read_bytes())
        content[-4000:] = bytes(4000)
        path.write_bytes(content)
    before = times(finished / "disc")
    done = run(mock.config, "--out", finished, *ALL)
    assert done.returncode == 0, done.stderr
    after = times(finished / "disc")
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {"disc_bins.fits", "disc.map", "disc_spectra.fits", "bins.json", "spectra.json"}
    assert np.array_equal(sl.read(finished / "disc" / "disc_bins.fits").labels, reference)


def test_a_killed_run_leaves_no_half_file_and_resumes(mock, whole, tmp_path):
    words = command("run", mock.config, "--out", tmp_path, *QUIET)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        first = tmp_path / "disc" / "stages" / "maps.json"
        for _ in range(12000):
            if first.exists() or process.poll() is not None:
                break
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert first.exists()
    for path in (tmp_path / "disc").glob("[!.]*.fits"):
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
    before = times(tmp_path / "disc")
    done = run(mock.config, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert times(tmp_path / "disc")["disc_maps.fits"] == before["disc_maps.fits"]
    assert half_written(tmp_path) == []
    mine, other = (sl.read(folder / "disc" / "disc_spectra.fits") for folder in (tmp_path, whole[0]))
    assert np.array_equal(mine.data, other.data)
    assert np.array_equal(mine.variance, other.variance)


def test_threads_and_slabs_change_nothing(mock, whole, tmp_path):
    """Two threads, and so little memory that the cube is read in many slabs."""
    done = run(mock.config, "--out", tmp_path, "--workers", 2, "--set", "memory=3 MB")
    assert done.returncode == 0, done.stderr
    mine, other = (sl.read(folder / "disc" / "disc_spectra.fits") for folder in (tmp_path, whole[0]))
    assert np.array_equal(mine.data, other.data)
    assert np.array_equal(mine.variance, other.variance)
    assert np.array_equal(mine.wave, other.wave)
    merged = next(step for step in mine.history if step.name == "merge_slabs")
    assert merged.parameters["n_slabs"] > 3


def test_a_product_on_request_that_cannot_be_made_costs_no_other(mock, tmp_path):
    """The window of STARLIGHT's S/N is not in these spectra."""
    wanted = ("--set", "starlight={config: a.config, base: b}", "--set", "lines=none")
    done = run(mock.config, "--out", tmp_path, *wanted)
    assert done.returncode == 4
    assert "failed disc: starlight: signal_to_noise_window" in done.stdout
    assert list(QTable.read(tmp_path / "summary.ecsv")["object"]) == ["disc"]
    assert (tmp_path / "disc" / "disc_table.ecsv").exists()


def test_spectra_beyond_the_memory_are_refused_with_a_remedy(mock, tmp_path):
    done = run(mock.config, "--out", tmp_path, "--set", "memory=0.1 MB", "--set", "binning.method=none")
    assert done.returncode == 4
    assert "allow more, ask for fewer bins" in done.stdout


# --- other ways -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        ("binning.method=quadtree", "snr.method=matched", "extraction.mode=mean"),
        ("binning.method=radius", "binning.radius={width: 0.8}", "snr.method=peak"),
        ("binning.method=regions", "binning.regions.threshold=4", "noise.spatial_correlation={sigma: 0.6}"),
        ("binning.method=none", "binning.minimum_snr=5", "noise.errors=file", "extinction.curve=none"),
    ],
    ids=lambda settings: settings[0],
)
def test_every_way_of_binning(mock, tmp_path, settings):
    changes = [item for setting in settings for item in ("--set", setting)]
    done = run(mock.config, "--out", tmp_path, *changes)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    labels = sl.read(tmp_path / "disc" / "disc_bins.fits")
    spectra = sl.read(tmp_path / "disc" / "disc_spectra.fits")
    maps = read_product(tmp_path / "disc" / "disc_maps.fits")
    assert labels.meta["method"] == settings[0].partition("=")[2]
    assert spectra.shape[0] == labels.ids.size >= 1
    assert not np.any((labels.labels >= 0) & maps["Halpha-signal"].mask), "a masked pixel is in a bin"
    assert ("velocity" in maps) is ("snr.method=matched" in settings)
    table = QTable.read(tmp_path / "disc" / "disc_table.ecsv")
    catalogue = {"peak_x", "peak_y", "peak", "peak_snr", "radius", "background", "touches_border"}
    if settings[0] == "binning.method=regions":
        assert catalogue <= set(table.colnames)
        assert np.all(table["peak_snr"] >= 4)
        here = labels.labels[np.int64(table["peak_y"].value), np.int64(table["peak_x"].value)]
        assert np.array_equal(here, table["id"])
    else:
        assert catalogue.isdisjoint(table.colnames)
    assert ("deredden" in {step.name for step in spectra.history}) is (
        "extinction.curve=none" not in settings
    )


def test_three_instruments_in_processes(tmp_path):
    """MUSE, MaNGA and CALIFA, found by their headers; only where it is due is extinction taken off."""
    values = {"recipe": "ifs", "objects": {}, "cube": "{object}.fits", "binning": {"target": 8}}
    for name in ("muse", "manga", "pmas"):
        mock = write_cube_mock(tmp_path / name, name, seed=4, shape=(20, 20), wave_range=RANGE, name=name)
        own = yaml.safe_load(mock.config.read_text())["objects"][name]
        values["objects"][name] = {**own, "cube": str(mock.cube)}
    values["objects"]["pmas"]["av"] = 0.2
    (tmp_path / "ifs.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    done = run(
        tmp_path / "ifs.yaml", "--out", tmp_path / "out", "--workers", 2, "--set", "output.report=true"
    )
    assert done.returncode in (0, 3), done.stdout + done.stderr
    summary = QTable.read(tmp_path / "out" / "summary.ecsv")
    assert list(summary["object"]) == ["muse", "manga", "pmas"]
    assert list(summary["instrument"]) == ["MUSE", "MaNGA", "PMAS"]
    for name in ("muse", "manga", "pmas"):
        spectra = sl.read(tmp_path / "out" / name / f"{name}_spectra.fits")
        steps = [step.name for step in spectra.history]
        assert steps.count("deredden") == (0 if name == "pmas" else 1)
        assert spectra.medium == ("vacuum" if name == "manga" else "air")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "corrected for the extinction of the Milky Way already; A_V = 0.200 is not taken off again" in page


def test_an_instrument_block_reads_a_cube_that_no_reader_knows(mock, tmp_path):
    with fits.open(mock.cube) as hdus:
        header, data = hdus["DATA"].header, hdus["DATA"].data
        fits.HDUList(
            [
                fits.PrimaryHDU(),
                fits.ImageHDU(data, header, "LIGHT"),
                fits.ImageHDU(np.sqrt(hdus["STAT"].data), header, "SCATTER"),
            ]
        ).writeto(tmp_path / "odd.fits")
    values = yaml.safe_load(mock.config.read_text())
    block = {"data": "LIGHT", "error": "SCATTER", "error_kind": "sigma", "lsf": 1.1, "medium": "air"}
    values["cube"] = {"pattern": str(tmp_path / "odd.fits"), "instrument": block}
    (tmp_path / "ifs.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    done = run(tmp_path / "ifs.yaml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert np.all(sl.read(tmp_path / "out" / "disc" / "disc_spectra.fits").lsf == 1.1)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(mock, tmp_path_factory):
    """One run over a good cube and every kind of bad one."""
    folder = tmp_path_factory.mktemp("broken")
    names = ("good", "nan", "zero", "far", "cut", "absent", "corner")
    for name in names:
        if name != "absent":
            shutil.copy(mock.cube, folder / f"{name}.fits")
    with fits.open(folder / "nan.fits", mode="update") as hdus:
        hdus["DATA"].data[:] = np.nan
    with fits.open(folder / "zero.fits", mode="update") as hdus:
        hdus["STAT"].data[:] = 0.0
    with fits.open(folder / "corner.fits", mode="update") as hdus:
        hdus["DATA"].data[:, :12] = np.nan
    content = (folder / "cut.fits").read_bytes()
    (folder / "cut.fits").write_bytes(content[: len(content) // 2])
    own = yaml.safe_load(mock.config.read_text())["objects"]["disc"]
    objects = {name: {**own, "redshift": 0.5 if name == "far" else 0.01} for name in names}
    values = {"recipe": "ifs", "objects": objects, "cube": "{object}.fits"}
    (folder / "ifs.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder, run(folder / "ifs.yaml", "--out", folder / "out")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "nan.fits: DATA: every voxel is NaN"),
        ("zero", "zero.fits: STAT: no error is positive"),
        ("far", "Halpha at redshift 0.5 needs"),
        ("cut", "cut.fits: the file is truncated"),
        ("absent", "absent.fits: there is no such file"),
    ],
)
def test_a_broken_cube_is_listed_with_one_clear_message(broken, name, message):
    folder, done = broken
    assert done.returncode == 4, done.stdout + done.stderr
    (line,) = [text for text in done.stdout.splitlines() if text.strip().startswith(f"failed {name}:")]
    assert message in line
    assert "internal error" not in line
    assert "Traceback" not in done.stderr
    assert not (folder / "out" / name / f"{name}_spectra.fits").exists()


def test_the_other_cubes_are_finished(broken):
    folder, _ = broken
    summary = QTable.read(folder / "out" / "summary.ecsv")
    assert list(summary["object"]) == ["good", "corner"]
    for name in ("good", "corner"):
        assert sl.read(folder / "out" / name / f"{name}_spectra.fits").shape[0] > 5
    labels = sl.read(folder / "out" / "corner" / "corner_bins.fits").labels
    assert np.all(labels[:12] == -1), "a pixel without data is in a bin"
    assert half_written(folder / "out") == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["snr.continuum_window=[3000, 3100]"], "the window runs from 3030.0 to 3131.0 A as observed; the axis covers"),
        (["snr.continuum=[[7000, 7100]]"], "lie outside the axis"),
        (["binning.minimum_snr=1e6"], "no spaxel reaches binning.minimum_snr 1e+06; the best has"),
        (["binning.method=segmentation", "binning.segmentation=labels.fits"], "has shape (10, 11); expected (24, 26)"),
        (["snr.method=matched", "snr.velocity=labels.fits"], "velocity map has shape (10, 11); expected (24, 26)"),
        (["objects={disc: {}}"], "the redshift is neither in the configuration nor in the header"),
    ],
    ids=lambda value: value[0].partition("=")[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_does_not_fit_is_told(mock, tmp_path, settings, message):
    shutil.copytree(mock.directory, tmp_path / "mock")
    fits.writeto(tmp_path / "mock" / "labels.fits", np.ones((10, 11), np.int32))
    changes = [item for setting in settings for item in ("--set", setting)]
    done = run(tmp_path / "mock" / "ifs.yaml", "--out", tmp_path / "out", *changes)
    assert done.returncode == 4, done.stdout + done.stderr
    (line,) = [text for text in done.stdout.splitlines() if text.strip().startswith("failed disc:")]
    assert message in line
    assert "internal error" not in line


def test_a_segmentation_map_of_the_right_shape(mock, tmp_path):
    shutil.copytree(mock.directory, tmp_path / "mock")
    labels = np.zeros((24, 26), np.int32)
    labels[8:12, 8:14], labels[14:18, 10:16] = 7, 3
    fits.writeto(tmp_path / "mock" / "labels.fits", labels)
    done = run(
        tmp_path / "mock" / "ifs.yaml", "--out", tmp_path / "out", "--set", "binning.method=segmentation",
        "--set", "binning.segmentation=labels.fits",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert sl.read(tmp_path / "out" / "disc" / "disc_bins.fits").ids.tolist() == [3, 7]


def test_a_bad_configuration_is_refused_before_anything_is_written(mock, tmp_path):
    done = run(mock.config, "--out", tmp_path / "out", "--set", "binnning.target=5")
    assert done.returncode == 2
    assert "did you mean 'binning'?" in done.stderr
    assert not (tmp_path / "out").exists()
