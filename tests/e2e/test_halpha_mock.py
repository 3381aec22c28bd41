"""The recipe halpha from the command line on a mock: products, truth, ways to anchor, broken input, interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time

import astropy.units as u
import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import QTable, Table
from dust_extinction.parameter_averages import F99
from tests.commands import command, half_written, run_here, run_process
from tests.report_pages import check_page

import skyloom as sl
from skyloom.core.image import Flag
from skyloom.core.linelist import default_lines
from skyloom.io.fits import read_product
from skyloom.mock.halpha.files import MAP_NAMES, write_halpha_mock
from skyloom.recipes.config import load_config
from skyloom.recipes.halpha.cleaning import Hst, find_stars
from skyloom.recipes.halpha.config import HalphaConfig
from skyloom.recipes.halpha.inputs import open_source
from skyloom.recipes.halpha.products import DESCRIPTIONS

NAME = "spiral"
# Figures have tests of their own; `whole` makes them. Cosmic rays take as long as all the rest.
QUIET = tuple(
    part
    for item in ("output.figures=false", "output.report=false", "cosmic_rays=none", "nebulae=none")
    for part in ("--set", item)
)
WHOLE = ("--set", "white_noise={sigma: 5.0, seed: 3}")
IMAGES = (
    "halpha_raw", "cont_raw", "halpha", "musehalpha", "musehalpha_regrid", "halpha_smoothed", "hstmuseratio",
    "hstmusediff", "anchored", "anchored_intnegs", "hst_ha", "hst_ha_err", "hst_ha_as2", "nii_ratio", "luminosity",
    "sfr",
)  # fmt: skip


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    return write_halpha_mock(tmp_path_factory.mktemp("mock"), seed=5, size=240, n_nebulae=40, n_stars=1)


@pytest.fixture(scope="module")
def whole(mock, tmp_path_factory):
    """A whole run, in a process of its own."""
    out = tmp_path_factory.mktemp("whole")
    return out, run_process("run", mock.config, "--out", out, *WHOLE)


@pytest.fixture(scope="module")
def plain(mock, tmp_path_factory):
    """A run without figures, cosmic rays and nebulae."""
    out = tmp_path_factory.mktemp("plain")
    return out, run(mock.config, "--out", out)


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of a finished run that a test may break."""
    shutil.copytree(whole[0], tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def files(mock, tmp_path):
    """A copy of the input that a test may break."""
    folder = tmp_path / "input"
    shutil.copytree(mock.directory, folder, ignore=shutil.ignore_patterns("truth"))
    return folder


def run(config, *arguments, quiet=True):
    return run_here("run", config, *(QUIET if quiet else ()), *arguments)


def product(folder, kind):
    return sl.read(folder / NAME / f"{NAME}_{kind}.fits")


def truth_of(mock):
    with fits.open(mock.truth["halpha"]) as hdus:
        return next(hdu.data for hdu in hdus if hdu.data is not None).astype(np.float64)


# --- products -------------------------------------------------------------------------------------------------------


def test_the_whole_run(whole):
    out, done = whole
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    names = {path.name for path in (out / NAME).iterdir()}
    for kind in (*IMAGES, "anchored_wnoise", "anchored_intnegs_wnoise", "starmask"):
        assert f"{NAME}_{kind}.fits" in names
    for kind in ("alignment", "bandfit", "linefit", "products"):
        assert {f"{NAME}_{kind}.fits", f"{NAME}_{kind}.ecsv"} <= names
    assert {f"{NAME}_{band}_cosmicrays.fits" for band in ("f658n", "f555w", "f814w")} <= names
    checked = check_page(out / "report.html")
    tables = {
        f"{NAME}/{NAME}_{kind}.ecsv"
        for kind in ("alignment", "bandfit", "linefit", "products", "qa", "nebulae")
    }
    assert {"checks.ecsv", *tables} <= {table.source for table in checked.tables}
    page = checked.text
    assert f"{NAME}: map of Halpha" in page
    assert "slopes and offsets were applied" in page
    assert "of MUSE in" in page
    assert f"0/1 {NAME}: images" in done.stderr
    assert half_written(out) == []


def test_every_image_carries_what_is_known_of_it(whole):
    units = {
        "hst_ha": "1e-20 erg / (s cm2)",
        "hst_ha_as2": "1e-20 erg / (s cm2 arcsec2)",
        "halpha_raw": "electron/s",
    }
    for kind in IMAGES:
        image = product(whole[0], kind)
        assert image.meta["product"] == kind
        assert image.meta["description"] == DESCRIPTIONS[kind]
        assert "recipe: halpha" in image.meta["config"]
        assert all(step.version for step in image.history)
        assert image.wcs is not None
        if kind in units:
            assert image.unit == sl.core.units.parse_unit(units[kind])
    anchored = product(whole[0], "anchored")
    assert anchored.correlation is not None
    assert 1 <= len(anchored.modes) <= 8
    assert anchored.flags is not None
    assert np.any(anchored.flags & Flag.REPAIRED_COSMIC_RAY)
    steps = {step.name for step in anchored.history}
    assert {
        "remove_cosmic_rays",
        "apply_noise",
        "convert_unit",
        "apply_anchor",
        "subtract_continuum",
    } <= steps
    assert {"apply_line_anchor", "line_flux", "mask_stars"} <= steps


def test_white_noise_comes_on_request_only(whole, plain):
    quiet, noisy = product(whole[0], "anchored"), product(whole[0], "anchored_wnoise")
    usable = quiet.valid & noisy.valid
    assert np.std(noisy.data[usable] - quiet.data[usable]) == pytest.approx(5.0, rel=0.05)
    assert plain[1].returncode == 0, plain[1].stdout + plain[1].stderr
    assert not (plain[0] / NAME / f"{NAME}_anchored_wnoise.fits").exists()


def test_images_of_the_line_agree_with_each_other(whole):
    area = product(whole[0], "hst_ha").pixel_area
    pixels, bright = product(whole[0], "hst_ha"), product(whole[0], "hst_ha_as2")
    usable = pixels.valid
    np.testing.assert_allclose(pixels.data[usable], bright.data[usable] * area, rtol=1e-5)
    sigma = product(whole[0], "hst_ha_err")
    assert np.all(sigma.data[usable] >= np.sqrt(pixels.variance[usable]) * (1 - 1e-5))
    raw, continuum = product(whole[0], "halpha_raw"), product(whole[0], "cont_raw")
    assert raw.unit == continuum.unit
    ratio, smooth = product(whole[0], "hstmuseratio"), product(whole[0], "halpha_smoothed")
    regrid, lack = product(whole[0], "musehalpha_regrid"), product(whole[0], "hstmusediff")
    both = ratio.valid & lack.valid
    np.testing.assert_allclose(
        ratio.data[both] * smooth.data[both],
        regrid.data[both],
        rtol=1e-4,
        atol=1e-3 * regrid.data[both].max(),
    )
    np.testing.assert_allclose(
        lack.data[both], regrid.data[both] - smooth.data[both], atol=1e-4 * regrid.data[both].max()
    )


def test_luminosity_and_star_formation(whole):
    """By hand for one pixel: 4 pi d^2 F, and Kennicutt & Evans 2012 per area."""
    flux, bright = product(whole[0], "hst_ha"), product(whole[0], "hst_ha_as2")
    place = np.unravel_index(np.argmax(np.where(flux.mask, -1, flux.data)), flux.shape)
    megaparsec = 3.0856775814913673e24
    luminosity = 4 * np.pi * (9.84 * megaparsec) ** 2 * float(flux.data[place]) * 1e-20
    assert product(whole[0], "luminosity").data[place] * 1e30 == pytest.approx(luminosity, rel=1e-5)
    area = (9.84e3 * np.pi / 180 / 3600) ** 2  # kpc2 per arcsec2
    rate = 4 * np.pi * (9.84 * megaparsec) ** 2 * float(bright.data[place]) * 1e-20 * 10**-41.27 / area
    assert product(whole[0], "sfr").data[place] == pytest.approx(rate, rel=1e-5)


def test_light_agrees_with_the_truth(mock, whole):
    image = product(whole[0], "hst_ha")
    truth = truth_of(mock) * image.pixel_area
    usable = image.valid
    assert image.data[usable].sum(dtype=float) / truth[usable].sum() == pytest.approx(1.0, abs=0.03)
    side, (ny, nx) = 20, image.shape
    rows = np.arange(ny)[:, None] // side * (nx // side) + np.arange(nx) // side
    labels = np.where(usable, rows, -1).astype(np.int32)
    table = sl.imaging.sum_regions(image, labels)
    whole_block = np.asarray(table["n_pixels"]) == side**2
    true = np.bincount(labels[usable], truth[usable])[np.asarray(table["label"])]
    pulls = ((table["flux"].value - true) / table["flux_err"].value)[whole_block]
    # A hundred blocks that share the errors of the anchors: no more can be told from one field.
    assert abs(np.median(pulls)) < 1.0
    assert 0.6 < np.std(pulls) < 1.4


def test_wings_of_saturated_stars_are_given_back(whole):
    with fits.open(whole[0] / NAME / f"{NAME}_matched.fits") as hdus:
        history = hdus["HISTORY"].data
        completed = {row["ITEM"] for row in history if row["NAME"].strip('"') == "add_lost_light"}
    assert {"own-f555w", "own-f814w"} <= completed


def test_sky_offsets_are_those_put_in(mock, whole):
    table = QTable.read(whole[0] / NAME / f"{NAME}_bandfit.ecsv")
    known = QTable.read(mock.table).meta["sky"]
    assert set(table["band"]) == {"f658n", "f555w", "f814w"}
    for row in table:
        header = fits.getheader(mock.science[row["band"]])
        area = (
            abs(np.linalg.det([[header["CD1_1"], header["CD1_2"]], [header["CD2_1"], header["CD2_2"]]]))
            * 3600**2
        )
        true = known[row["band"]] * header["PHOTFLAM"] * 1e20 / area
        # Cosmic rays that are not found, and the PSF of MUSE that is fitted, go beyond the error of the fit; a small
        # field has no dark corner.
        allowed = max(5 * row["offset_err"].value, 0.02 * abs(true))
        assert row["offset"].value == pytest.approx(true, abs=allowed)


# --- resuming -------------------------------------------------------------------------------------------------------


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / NAME).glob("*.fits")}


def test_nothing_is_done_twice(mock, finished):
    settings = ("--out", finished, *WHOLE)
    before = stamps(finished)
    done = run(mock.config, *settings, quiet=False)
    assert done.returncode == 0, done.stderr
    assert "1 item from an earlier run" in done.stdout
    assert stamps(finished) == before


def test_a_change_repeats_only_what_it_concerns(mock, finished):
    before = stamps(finished)
    settings = ("--out", finished, *WHOLE[2:], "--set", "negatives.thresholds=[4, 6]")
    assert run(mock.config, *settings, quiet=False).returncode == 0
    after = stamps(finished)
    for kind in ("alignment", "bandfit", "linefit", "matched", "muse", "f658n_cosmicrays", "starmask"):
        assert after[f"{NAME}_{kind}.fits"] == before[f"{NAME}_{kind}.fits"]
    assert after[f"{NAME}_anchored_intnegs.fits"] != before[f"{NAME}_anchored_intnegs.fits"]
    assert f"{NAME}_anchored_wnoise.fits" not in after, (
        "what was not asked for again is no product of this run"
    )


def test_a_resumed_run_ends_as_one_that_was_not_killed(mock, finished):
    """All images are made again from the files of the stages before them: the same to the last bit."""
    before = {kind: product(finished, kind) for kind in ("halpha", "anchored", "hst_ha")}
    (finished / NAME / "stages" / "images.json").unlink()
    (finished / NAME / "stages" / "anchors.json").unlink()
    settings = ("--out", finished, *WHOLE)
    # In a process of its own, as the first: libraries add up in another order where other threads are at work.
    assert run_process("run", mock.config, *settings).returncode == 0
    for kind, image in before.items():
        again = product(finished, kind)
        assert np.array_equal(again.data, image.data, equal_nan=True)
        assert np.array_equal(again.variance, image.variance, equal_nan=True)


@pytest.mark.slow
def test_killed_and_resumed(mock, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command("run", mock.config, "--out", out, *QUIET), stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if ": images" in line:
            time.sleep(0.2)
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stderr.close()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    done = run(mock.config, "--out", out)
    assert done.returncode == 0, done.stderr
    assert half_written(out) == []
    for path in out.rglob("*.fits"):
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
    records = {path.stem for path in (out / NAME / "stages").glob("*.json")}
    assert {"muse", "alignment", "anchors", "images"} <= records


# --- stars ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stars.fits", "stars.csv", "stars.reg"])
def test_stars_come_in_any_list(files, whole, name):
    """The same stars as a table of FITS, as text without units, and as circles of DS9."""
    table = QTable.read(files / f"{NAME}_stars.ecsv")["ra", "dec", "radius"]
    path = files / name
    if path.suffix == ".reg":
        rows = [f'circle({row["ra"].value},{row["dec"].value},{row["radius"].value}")' for row in table]
        path.write_text("\n".join(["fk5", *rows]))
    elif path.suffix == ".csv":
        plain = {key: table[key].value for key in table.colnames} | {"flux": np.full(len(table), np.nan)}
        Table(plain).write(path)
    else:
        table.write(path)
    config = load_config(files / "halpha.yaml", HalphaConfig, [f"stars.catalogue={name}"])
    source = open_source(config, NAME)
    found = find_stars(source, Hst(source))
    with fits.open(whole[0] / NAME / f"{NAME}_starmask.fits") as hdus:
        expected = hdus["MASK"].data.astype(bool)
    assert expected.any()
    # Radii of the catalogue are written with limited digits.
    assert np.count_nonzero(found.mask != expected) < 0.01 * np.count_nonzero(expected)


# --- ways to anchor -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ratio", "difference"])
def test_anchored_pixel_by_pixel(mock, method, tmp_path):
    done = run(mock.config, "--out", tmp_path, "--set", f"anchor.method={method}", quiet=True)
    assert done.returncode == 0, done.stdout + done.stderr
    judged = QTable.read(tmp_path / NAME / f"{NAME}_qa.ecsv")
    assert any("no part of the image is usable" in text for text in judged["meaning"]), (
        "what is masked all over is not judged, and that is said"
    )
    image = product(tmp_path, "anchored")
    assert image.history[-1].parameters["method"] == method
    truth = truth_of(mock)
    usable = image.valid
    assert image.data[usable].sum(dtype=float) / truth[usable].sum() == pytest.approx(1.0, abs=0.15)


def test_what_is_not_applied_is_said(mock, tmp_path):
    done = run(mock.config, "--out", tmp_path, "--set", "anchor.line=false", "--set", "anchor.bands=false")
    assert done.returncode in (0, 3), done.stdout + done.stderr
    said = product(tmp_path, "anchored").history[-1].parameters
    assert said["applied"] == []
    assert set(said["not_applied"]) == {"bands", "line"}


def test_without_muse(mock, tmp_path):
    done = run(mock.config, "--out", tmp_path, "--set", "muse=none")
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in (tmp_path / NAME).iterdir()}
    assert f"{NAME}_hst_ha.fits" in names
    assert f"{NAME}_anchored.fits" not in names
    judged = QTable.read(tmp_path / NAME / f"{NAME}_qa.ecsv")
    small = judged[judged["quantity"] == "empty 5x5"]
    # The whole field holds faint light: boxes are looked for where the image shows sky.
    assert small["verdict"][0] in ("passed", ""), small
    with fits.open(tmp_path / NAME / f"{NAME}_hst_ha.fits") as hdus:
        assert "there is no MUSE data" in str(hdus[0].header["HISTORY"])
    image = product(tmp_path, "halpha")
    truth = truth_of(mock)
    bright = image.valid & (truth > np.percentile(truth, 90))
    assert image.data[bright].sum(dtype=float) / truth[bright].sum() == pytest.approx(1.0, abs=0.5)


def test_borders_without_values_cost_nothing(files, tmp_path):
    for band in ("f658n", "f555w", "f814w"):
        with fits.open(files / f"{NAME}_{band}_sci.fits", mode="update") as hdus:
            hdus[0].data[:12] = np.nan
            hdus[0].data[:, -9:] = np.nan
    done = run(files / "halpha.yaml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    image = product(tmp_path / "out", "hst_ha")
    assert image.mask[:12].all()
    assert image.mask[:, -9:].all()
    assert image.mask.mean() < 0.4


# --- the dust of the Milky Way ---------------------------------------------------------------------------------------


A_V = 0.5
CORRECTED = "muse.milky_way_corrected=true"
# Photons that were never counted make the noise another one; lines in the broad bands are dimmed with the band here.
DIMMED = (
    *("--set", f"objects.{NAME}.a_v={A_V}", "--set", "noise.source_poisson=false"),
    *("--set", "continuum.contamination=none"),
)


def dim(path, wave):
    """Let the dust of the Milky Way dim all images of a file, by the curve of Fitzpatrick (1999)."""
    power = float(F99(Rv=3.1)(1e4 / wave / u.micron))
    with fits.open(path, mode="update") as hdus:
        for hdu in hdus:
            if hdu.data is not None:
                square = 2 if hdu.name == "STAT" else 1
                hdu.data = (hdu.data * 10 ** (-0.4 * A_V * power * square)).astype(np.float32)


@pytest.fixture(scope="module")
def dustless(mock, tmp_path_factory):
    out = tmp_path_factory.mktemp("dustless")
    run(mock.config, "--out", out, *DIMMED[2:])
    return {kind: product(out, kind) for kind in ("musehalpha", "anchored")}


@pytest.mark.parametrize("corrected", [False, True])
def test_light_behind_dust_is_that_without(mock, dustless, files, corrected, tmp_path):
    for band, curve in mock.model.bands.items():
        path = files / f"{NAME}_{band}_sci.fits"
        pivot = fits.getheader(path)["PHOTPLAM"]
        assert pivot == pytest.approx(curve.bandpass.pivot)
        dim(path, pivot)
        weight = files / f"{NAME}_{band}_wht.fits"
        factor = fits.getdata(path)[100, 100] / fits.getdata(mock.science[band])[100, 100]
        with fits.open(weight, mode="update") as hdus:
            hdus[0].data = (hdus[0].data / factor**2).astype(np.float32)
        if not corrected:
            dim(files / f"{NAME}_muse_{band}.fits", pivot)
    if not corrected:
        with fits.open(files / f"{NAME}_MAPS.fits", mode="update") as hdus:
            for hdu in hdus[1:]:
                line = next(key for key, name in MAP_NAMES.items() if hdu.name.startswith(name))
                wave = default_lines()[line].rest("vacuum") * (1 + mock.model.source.redshift)
                hdu.data = (hdu.data * 10 ** (-0.4 * A_V * float(F99(Rv=3.1)(1e4 / wave / u.micron)))).astype(
                    np.float32
                )
    setting = ("--set", CORRECTED) if corrected else ()
    done = run(files / "halpha.yaml", "--out", tmp_path / "out", *DIMMED, *setting)
    assert done.returncode == 0, done.stdout + done.stderr
    for kind, image in dustless.items():
        again = product(tmp_path / "out", kind)
        usable = image.valid & again.valid
        assert usable.sum() == image.valid.sum()
        total = image.data[usable].sum(dtype=float)
        assert again.data[usable].sum(dtype=float) == pytest.approx(total, rel=1e-3)
        bright = usable & (image.data > np.percentile(image.data[usable], 80))
        assert np.median(again.data[bright] / image.data[bright]) == pytest.approx(1.0, abs=1e-3)
        assert again.meta["milky_way_corrected"]
    steps = {step.name for step in product(tmp_path / "out", "musehalpha").history}
    assert ("deredden" in steps) is not corrected
    bands = read_product(tmp_path / "out" / NAME / f"{NAME}_muse.fits")
    redden = [step.parameters["a_v"] for step in bands["band-f555w"].history if step.name == "redden"]
    assert redden == ([A_V] if corrected else [])


# --- broken input ---------------------------------------------------------------------------------------------------


def edit_header(path, **changes):
    with fits.open(path, mode="update") as hdus:
        for hdu in hdus:
            for key, value in changes.items():
                if key in hdu.header and value is None:
                    del hdu.header[key]
                elif key in hdu.header:
                    hdu.header[key] = value


def swap_files(folder):
    first, second = (folder / f"{NAME}_{band}_sci.fits" for band in ("f555w", "f814w"))
    first.rename(folder / "kept")
    second.rename(first)
    (folder / "kept").rename(second)


def zero_band(folder):
    with fits.open(folder / f"{NAME}_f555w_sci.fits", mode="update") as hdus:
        hdus[0].data[:] = 0.0


def truncate(folder):
    path = folder / f"{NAME}_f814w_sci.fits"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def move_muse(folder):
    for path in (*folder.glob(f"{NAME}_muse_*.fits"), folder / f"{NAME}_MAPS.fits"):
        edit_header(path, CRVAL2=16.9)


BROKEN = {
    "two bands are swapped": (swap_files, (), "PHOTPLAM"),
    "narrow and broad are swapped": (
        lambda _: None,
        ("narrow={band: f555w, filter: filters/f555w.dat}", "continua={f658n: {filter: filters/f658n.dat}}"),
        "narrow",
    ),
    "the map is no flux": (
        lambda folder: edit_header(folder / f"{NAME}_MAPS.fits", BUNIT="km/s"),
        (),
        "flux of a line",
    ),
    "MUSE lies elsewhere": (move_muse, (), "overlap"),
    "a continuum is zero": (zero_band, (), "zero"),
    "PHOTFLAM is missing": (
        lambda folder: edit_header(folder / f"{NAME}_f658n_sci.fits", PHOTFLAM=None),
        (),
        "PHOTFLAM",
    ),
    "a file is cut off": (truncate, (), "f814w_sci"),
    "an image is missing": (lambda folder: (folder / f"{NAME}_f555w_wht.fits").unlink(), (), "no such file"),
    "the catalogue is missing": (lambda folder: (folder / f"{NAME}_stars.ecsv").unlink(), (), "stars.ecsv"),
    "a throughput is missing": (lambda folder: (folder / "filters" / "f814w.dat").unlink(), (), "f814w.dat"),
    "the line is not in the band": (lambda _: None, (f"objects={{{NAME}: {{redshift: 0.2}}}}",), "f658n"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_input_is_one_message(files, what, tmp_path):
    damage, settings, said = BROKEN[what]
    damage(files)
    out = tmp_path / "out"
    options = [part for item in settings for part in ("--set", item)]
    done = run(files / "halpha.yaml", "--out", out, *options)
    assert done.returncode == 2, done.stdout + done.stderr
    messages = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, done.stderr
    assert said in messages[0]
    assert "Traceback" not in done.stderr
    assert half_written(out) == [] if out.exists() else True
    assert not list(out.rglob("*_halpha*.fits")), "no image of the line is left behind"


def test_other_galaxies_go_on(files, tmp_path):
    config = yaml.safe_load((files / "halpha.yaml").read_text())
    config["objects"] = {NAME: config["objects"][NAME], "gone": {"redshift": 0.002}}
    (files / "two.yaml").write_text(yaml.safe_dump(config))
    done = run(files / "two.yaml", "--out", tmp_path / "out")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "gone" in done.stdout
    assert "no such file" in done.stdout
    assert (tmp_path / "out" / NAME / f"{NAME}_hst_ha.fits").exists()


def test_a_failed_check_is_exit_code_3(mock, finished):
    settings = (*WHOLE, "--set", "checks.kernel_correlation=0.99999999")
    done = run(mock.config, "--out", finished, *settings, quiet=False)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "kernel correlation" in done.stdout
    assert (finished / NAME / f"{NAME}_hst_ha.fits").exists()


def test_records_of_stages_name_their_files(whole):
    for path in (whole[0] / NAME / "stages").glob("*.json"):
        record = json.loads(path.read_text())
        for name in record["files"]:
            assert (whole[0] / NAME / name).exists()
