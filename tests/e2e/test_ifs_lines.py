"""The second half of the recipe ifs from the command line: continua, lines, maps; truth, broken input, interruption."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS
from tests.commands import command, run_here, run_process
from tests.report_pages import check_page

import skyloom as sl
from skyloom.core.line_fit import LineFlag
from skyloom.io.products.betis import EXTENSIONS
from skyloom.io.products.line_maps import read_fitted_spectra
from skyloom.io.templates.library import write_templates
from skyloom.io.templates.sets import load_templates
from skyloom.mock.cubes.files import write_cube_mock
from skyloom.spectral.lines.linefit import fit_lines

RANGE = (6300.0, 6900.0)
QUIET = ("--set", "output.figures=false", "--set", "output.report=false")
KMS = u.km / u.s
PRODUCTS = (
    "line_maps.fits", "lines.fits", "lines.ecsv", "derived.fits", "derived.ecsv", "stars.fits", "stars.ecsv",
    "populations.fits", "templates.fits", "fits.fits",
)  # fmt: skip


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    return write_cube_mock(
        tmp_path_factory.mktemp("mock"), "muse", seed=3, shape=(24, 24), wave_range=RANGE, name="disc"
    )


@pytest.fixture(scope="module")
def whole(mock, tmp_path_factory):
    """A whole run of the configuration that the mock wrote, in a process of its own."""
    out = tmp_path_factory.mktemp("whole")
    return out, run_process("run", mock.config, "--out", out, "--set", "maps.layout=betis")


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of a finished run that a test may break."""
    shutil.copytree(whole[0], tmp_path / "out")
    return tmp_path / "out"


def run(config, *arguments):
    return run_here("run", config, *QUIET, *arguments)


def changes(*settings):
    return [item for setting in settings for item in ("--set", setting)]


def same_products(one, other):
    """Every number of two folders is the same; only what files say of when and from where may differ."""
    for name in ("fits", "line_maps"):
        with fits.open(one / f"disc_{name}.fits") as mine, fits.open(other / f"disc_{name}.fits") as yours:
            assert [hdu.name for hdu in mine] == [hdu.name for hdu in yours]
            for left, right in zip(mine, yours, strict=True):
                if left.is_image and left.data is not None:
                    np.testing.assert_array_equal(left.data, right.data, err_msg=f"{name}: {left.name}")
    mine, yours = (QTable.read(folder / "disc_lines.fits") for folder in (one, other))
    assert mine.colnames == yours.colnames
    for name in mine.colnames:
        np.testing.assert_array_equal(np.asarray(mine[name]), np.asarray(yours[name]), err_msg=name)


# --- products -------------------------------------------------------------------------------------------------------


def test_the_whole_run(whole):
    out, done = whole
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    files = {path.name for path in (out / "disc").iterdir()}
    assert {f"disc_{name}" for name in PRODUCTS} <= files
    assert {
        "disc_fit_Halpha.png",
        "disc_line_fits.png",
        "disc_EW_classes.png",
        "disc_stars_velocity.png",
    } <= files
    assert "disc_betis.fits" in files
    checked = check_page(out / "report.html")
    (lines,) = [table for table in checked.tables if ("line", "") in table.columns]
    fitted = QTable.read(out / "disc" / "disc_lines.ecsv")
    for line, bins, seen, snr, flux, velocity, sigma in (
        [value or text for text, value in row] for row in lines.rows
    ):
        column = fitted[f"{line}_snr"]
        used = np.isfinite(column) & (column >= 3.0)
        assert float(seen) == used.sum()
        assert float(bins) >= used.sum()
        assert float(flux) == pytest.approx(np.nansum(fitted[f"{line}_flux"].value), rel=1e-6)
        assert float(snr) == pytest.approx(np.nanmedian(column), rel=1e-6)
        for told, kind in ((velocity, "velocity"), (sigma, "sigma")):
            if used.any():
                assert float(told) == pytest.approx(
                    np.nanmedian(fitted[f"{line}_{kind}"].value[used]), rel=1e-6
                )
    page = checked.text
    for text in (
        "chi2 of lines",
        "unfitted spectra",
        "lines were fitted to",
        "Continuum: builtin, 8 templates",
    ):
        assert text in page, text
    summary = QTable.read(out / "summary.ecsv")
    assert 0.8 < summary["line_chi2"][0] < 1.2
    assert summary["unfitted"][0] == 0
    for stage in ("continuum", "lines", "fits", "fit_figures"):
        assert f"0/1 disc: {stage}\n" in done.stderr


def test_line_fluxes_and_velocities_agree_with_the_truth(mock, whole):
    """Against the same fit to the light of the gas without noise: a rotating disc has no Gaussian lines."""
    folder = whole[0] / "disc"
    spectra, labels = sl.read(folder / "disc_spectra.fits"), sl.read(folder / "disc_bins.fits").labels
    table = QTable.read(folder / "disc_lines.fits")
    with fits.open(mock.noise_free) as light, fits.open(mock.lines) as truth:
        gas = (light["TRUTH"].data - light["CONTINUUM"].data) / truth["EXTINCTION"].data[:, None, None]
        flux, dimming = truth["HALPHA_FLUX"].data, truth["EXTINCTION"].data
    clean = spectra.evolve(data=np.array([gas[:, labels == number].sum(axis=1) for number in table["id"]]))
    true = fit_lines(clean, ["Halpha", "NII6548", "NII6583"], 0.01).table
    for key in ("Halpha", "NII6583"):
        pulls = (table[f"{key}_flux"] - true[f"{key}_flux"]) / table[f"{key}_flux_err"]
        assert abs(np.mean(pulls)) < 0.5
        assert 0.7 < np.std(pulls) < 1.3
    bright = np.asarray(table["Halpha_snr"]) > 10
    assert bright.sum() > 20
    found = (table["Halpha_velocity"] - true["Halpha_velocity"])[bright] / table["Halpha_velocity_err"][
        bright
    ]
    assert 0.7 < np.std(found) < 1.3
    assert abs(np.mean(found)) < 0.6
    emitted = np.array([flux[labels == number].sum() for number in table["id"]])
    emitted /= np.interp(6562.8 * 1.01, spectra.wave, dimming)
    ratio = table["Halpha_flux"].to_value("erg / (s cm2)")[bright].sum() / emitted[bright].sum()
    assert 0.9 < ratio < 1.1


def test_the_velocity_map_is_that_of_the_disc(mock, whole):
    maps = sl.read(whole[0] / "disc" / "disc_line_maps.fits")
    velocity = maps["Halpha_velocity"]
    with fits.open(mock.lines) as truth:
        true = truth["HALPHA_VELOCITY"].data
    seen = velocity.valid & ((maps.code_plane("Halpha_flag") & int(LineFlag.FAINT | LineFlag.BORROWED)) == 0)
    assert seen.sum() > 200
    difference = velocity.data[seen] - true[seen]
    assert abs(np.median(difference)) < 10
    assert np.corrcoef(velocity.data[seen], true[seen])[0, 1] > 0.9, (
        "bins of many spaxels hold a part of the rotation"
    )
    assert velocity.unit == KMS


def test_products_open_with_astropy(mock, whole):
    folder = whole[0] / "disc"
    with fits.open(mock.cube) as hdus:
        sky = WCS(hdus[1].header).celestial
    with fits.open(folder / "disc_line_maps.fits", checksum=True) as hdus:
        names = {hdu.name for hdu in hdus}
        kinds = (
            "FLUX",
            "FLUX_ERR",
            "VELOCITY",
            "VELOCITY_ERR",
            "SIGMA",
            "SIGMA_ERR",
            "EW",
            "EW_ERR",
            "SNR",
            "FLAG",
        )
        assert {f"HALPHA_{kind}" for kind in kinds} <= names
        assert {"STARS_VELOCITY", "STARS_AV", "EW_CLASS"} <= names
        header = hdus["HALPHA_FLUX"].header
        assert u.Unit(header["BUNIT"]).is_equivalent("erg / (s cm2)")
        assert WCS(header).celestial.pixel_to_world(3, 7).separation(sky.pixel_to_world(3, 7)).arcsec < 1e-3
        for hdu in hdus:
            hdu.verify("exception")
    with fits.open(folder / "disc_betis.fits", checksum=True) as hdus:
        assert [hdu.name for hdu in hdus if hdu.data is not None] == [name.upper() for name in EXTENSIONS]
        assert hdus[-1].data.ndim == 3
    fitted = read_fitted_spectra(folder / "disc_fits.fits")
    chi = ((fitted.spectra.data - fitted.model) ** 2 / fitted.spectra.variance)[fitted.spectra.valid]
    assert 0.8 < np.median(chi) / 0.4549 < 1.3, "the median of chi square with one degree of freedom"
    shares = QTable.read(folder / "disc_populations.fits")
    light = np.sum([np.asarray(shares[f"light_{number:03d}"]) for number in range(8)], axis=0)
    np.testing.assert_allclose(light[np.isfinite(light)], 1.0, atol=1e-5)
    assert len(QTable.read(folder / "disc_stars.ecsv")) == len(shares)


@pytest.mark.parametrize("per", ["bin", "arcsec2"])
def test_fluxes_per_bin_and_per_area(finished, mock, per):
    before = sl.read(finished / "disc" / "disc_line_maps.fits")
    done = run(mock.config, "--out", finished, *changes(f"maps.per={per}"))
    assert done.returncode == 0, done.stdout
    maps = sl.read(finished / "disc" / "disc_line_maps.fits")
    sizes = before.n_pixels[before.rows]
    old, new = before["Halpha_flux"], maps["Halpha_flux"]
    factor = sizes[new.valid] if per == "bin" else 1 / 0.2**2
    np.testing.assert_allclose(new.data[new.valid], old.data[new.valid] * factor, rtol=1e-4)
    assert not (finished / "disc" / "disc_betis.fits").exists(), "a product of another configuration stays"


# --- once, and again ------------------------------------------------------------------------------------------------


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}


def test_a_finished_run_is_not_done_again(finished, mock):
    before = times(finished / "disc")
    done = run_here("run", mock.config, "--out", finished, "--set", "maps.layout=betis")
    assert done.returncode == 0, done.stdout
    assert "(1 item from an earlier run)" in done.stdout
    assert times(finished / "disc") == before


def test_other_lines_need_no_other_continuum(finished, mock):
    before = times(finished / "disc")
    done = run(mock.config, "--out", finished, *changes("lines.list=balmer", "chunk=7"))
    assert done.returncode in (0, 3), done.stdout
    after = times(finished / "disc")
    assert after["continuum.json"] == before["continuum.json"]
    assert after["lines.json"] != before["lines.json"]
    keys = [
        name for name in QTable.read(finished / "disc" / "disc_lines.fits").colnames if name.endswith("_flux")
    ]
    assert keys == ["NII6548_flux", "Halpha_flux", "NII6583_flux"]
    assert len(list((finished / "disc" / "stages").glob("lines_*.npz"))) == 1, "chunks of before are removed"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.long)])
def test_killed_at_random_moments_and_resumed(mock, whole, tmp_path, rng, kills):
    """Small chunks, so that there are many; killed in the middle of continua and lines."""
    words = command("run", mock.config, "--out", tmp_path, *changes("chunk=4"), *QUIET)
    stages = tmp_path / "disc" / "stages"
    kept = set()
    for round_ in range(kills):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            target = len(list(stages.glob("*.npz"))) + 1 + int(rng.integers(0, 10))
            until = time.monotonic() + 120
            while time.monotonic() < until and process.poll() is None:
                if len(list(stages.glob("*.npz"))) >= target:
                    break
                time.sleep(0.002)
            time.sleep(float(rng.uniform(0, 0.05)))
            process.send_signal(signal.SIGKILL)
        found = {path.name: path.stat().st_mtime_ns for path in stages.glob("[!.]*.npz")}
        assert len(found) >= round_ + 1
        assert kept <= set(found.items()), "a finished chunk was done again"
        kept = set(found.items())
    done = run(mock.config, "--out", tmp_path, *changes("chunk=4"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept <= {(path.name, path.stat().st_mtime_ns) for path in stages.glob("*.npz")}
    same_products(tmp_path / "disc", whole[0] / "disc")
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_threads_change_nothing(mock, whole, finished):
    for name in ("continuum", "lines", "fits"):
        (finished / "disc" / "stages" / f"{name}.json").unlink()
    for path in (finished / "disc" / "stages").glob("*.npz"):
        path.unlink()
    done = run(mock.config, "--out", finished, "--workers", 2)
    assert done.returncode == 0, done.stdout
    same_products(finished / "disc", whole[0] / "disc")


def test_a_damaged_chunk_is_done_again(finished, mock, whole):
    stages = finished / "disc" / "stages"
    path = next(stages.glob("lines_*.npz"))
    content = bytearray(path.read_bytes())
    content[2000:4000] = bytes(2000)
    path.write_bytes(content)
    done = run(mock.config, "--out", finished)
    assert done.returncode == 0, done.stdout
    same_products(finished / "disc", whole[0] / "disc")


@pytest.mark.slow
def test_chunks_on_a_dask_scheduler(mock, whole, finished):
    distributed = pytest.importorskip("distributed")
    for name in ("continuum", "lines", "fits"):
        (finished / "disc" / "stages" / f"{name}.json").unlink()
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        done = run(
            mock.config, "--out", finished, "--scheduler", cluster.scheduler_address, *changes("chunk=20")
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((finished / "disc" / "stages").glob("lines_*.npz"))) > 2
    same_products(finished / "disc", whole[0] / "disc")


# --- other ways -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half(mock, tmp_path_factory):
    """A run that ends with the spectra; copies of it need only the fits."""
    out = tmp_path_factory.mktemp("half")
    done = run(mock.config, "--out", out, *changes("lines=none"))
    assert done.returncode == 0, done.stdout
    return out


@pytest.fixture
def started(half, tmp_path):
    shutil.copytree(half, tmp_path / "started")
    return tmp_path / "started"


def test_no_lines_are_wanted(half):
    assert not list((half / "disc").glob("*line_maps*"))
    assert not list((half / "disc" / "stages").glob("*.npz"))


def test_without_templates_lines_stand_on_polynomials(mock, started):
    done = run(
        mock.config, "--out", started, *changes("continuum.backend=none", "output.report=true"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    page = (started / "report.html").read_text(encoding="utf-8")
    assert "stellar absorption is not corrected for" in page
    assert not (started / "disc" / "disc_stars.fits").exists()
    assert read_fitted_spectra(started / "disc" / "disc_fits.fits").continuum is None


def test_components_by_bic_and_a_list_of_ones_own(mock, started, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text(
        "Mine 6564.632 emission H I\nNitrogen 6585.27 emission [N II] ; group=n\n", encoding="utf-8"
    )
    done = run(mock.config, "--out", started, *changes(f"lines.list={own}", "lines.components=bic"))
    assert done.returncode in (0, 3), done.stdout
    table = QTable.read(started / "disc" / "disc_lines.fits")
    assert {"Mine_flux", "Nitrogen_flux", "n_components", "bic_1", "bic_2"} <= set(table.colnames)
    assert set(np.unique(table["n_components"])) <= {1, 2, 3}


def test_spaxel_by_spaxel_with_the_nebular_cube(mock, tmp_path):
    done = run(
        mock.config, "--out", tmp_path,
        *changes("binning.method=none", "binning.minimum_snr=8", "lines.list=[Halpha, NII6548, NII6583]"),
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stdout + done.stderr
    labels = sl.read(tmp_path / "disc" / "disc_bins.fits").labels
    cube = sl.read(tmp_path / "disc" / "disc_nebular.fits")
    fitted = read_fitted_spectra(tmp_path / "disc" / "disc_fits.fits")
    y, x = np.argwhere(labels == 3)[0]
    seen = ~cube.mask[:, y, x]
    gas = (fitted.spectra.data - fitted.continuum)[3]
    np.testing.assert_allclose(cube.data[seen, y, x], gas[seen], rtol=1e-4, atol=1e-3 * np.nanstd(gas))
    assert cube.mask[:, labels < 0].all()
    maps = sl.read(tmp_path / "disc" / "disc_line_maps.fits")
    assert maps["Halpha_flux"].valid.sum() == (labels >= 0).sum()
    assert "errors_shared_within" not in maps["Halpha_flux"].meta


# --- bad input ------------------------------------------------------------------------------------------------------


def test_a_bin_without_data_is_listed_and_the_others_are_finished(mock, tmp_path):
    """A segment of spaxels that are usable at Halpha only in part of the axis, and one that is whole."""
    folder = tmp_path / "mock"
    shutil.copytree(mock.directory, folder)
    labels = np.zeros((24, 24), dtype=np.int32)
    labels[10:14, 10:14], labels[5:7, 5:7], labels[16:18, 12:14] = 1, 2, 3
    fits.PrimaryHDU(labels).writeto(folder / "labels.fits")
    with fits.open(folder / "cubes" / "disc.fits", mode="update", memmap=False) as hdus:
        # The S/N of the bins is measured in the continuum, which is left in label 2; at all lines there is nothing.
        blue = hdus["DATA"].data.shape[0] // 6
        hdus["DATA"].data[blue:, 5:7, 5:7] = np.nan
    done = run(
        folder / "ifs.yaml", "--out", tmp_path / "out",
        *changes("binning.method=segmentation", "binning.segmentation=labels.fits", "snr.method=continuum",
                 "snr.continuum_window=[6245, 6270]", "lines.list=[Halpha, NII6548, NII6583, SII6716, SII6730]"),
    )  # fmt: skip
    assert done.returncode == 4, done.stdout + done.stderr
    assert "disc: bin 2: no usable channel at any line" in done.stdout
    table = QTable.read(tmp_path / "out" / "disc" / "disc_lines.fits")
    assert table["id"].tolist() == [1, 2, 3]
    assert np.isfinite(np.asarray(table["Halpha_flux"])).tolist() == [True, False, True]
    assert int(table["Halpha_flag"][1]) == int(LineFlag.NOT_COVERED)
    again = run(
        folder / "ifs.yaml", "--out", tmp_path / "out",
        *changes("binning.method=segmentation", "binning.segmentation=labels.fits", "snr.method=continuum",
                 "snr.continuum_window=[6245, 6270]", "lines.list=[Halpha, NII6548, NII6583, SII6716, SII6730]"),
    )  # fmt: skip
    assert again.returncode == 4, "found done, it is told again"
    record = json.loads((tmp_path / "out" / "disc" / "stages" / "fits.record.json").read_text())
    assert record["unfitted"] == [[2, "no usable channel at any line"]]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lines.list=[Halfa]", "did you mean 'Halpha'"),
        ("lines.list=Halfa", "did you mean 'Halpha'"),
        ("lines.list=missing.txt", "no such file"),
        ("lines.components=4", "lines.components"),
        ("lines.broad=[Halfa]", "did you mean 'Halpha'"),
        ("continuum.backend=fast", "continuum.backend"),
        ("continuum={backend: builtin}", "needs templates"),
        ("continuum={backend: starlight}", "needs results"),
        ("continuum.sigma_range=[300, 100]", "is no range"),
        ("continuum.template=x", "did you mean 'templates'"),
        ("maps.per=spaxel", "maps.per"),
    ],
)
def test_mistakes_in_the_configuration_end_with_one_message(mock, tmp_path, setting, message):
    done = run(mock.config, "--out", tmp_path, *changes(setting))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_templates_that_do_not_cover_the_spectra(mock, started, tmp_path):
    library = load_templates(mock.templates)
    blue = library.evolve(wave=library.wave - 3000.0)
    write_templates(blue, tmp_path / "blue.fits")
    done = run(mock.config, "--out", started, *changes(f"continuum.templates={tmp_path / 'blue.fits'}"))
    assert done.returncode == 4
    assert done.stdout.count("the templates") == 1
    assert "take other templates" in done.stdout
    assert (started / "disc" / "disc_spectra.fits").exists()


def test_templates_that_cover_a_part_leave_the_rest_to_polynomials(mock, started, tmp_path):
    library = load_templates(mock.templates)
    part = library.wave < 6640.0
    short = library.evolve(wave=library.wave[part], flux=library.flux[:, part], fwhm=library.fwhm[part])
    write_templates(short, tmp_path / "short.fits")
    done = run(
        mock.config, "--out", started,
        *changes(f"continuum.templates={tmp_path / 'short.fits'}", "output.report=true"),
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stdout
    table = QTable.read(started / "disc" / "disc_lines.fits")
    assert np.isfinite(np.asarray(table["SII6716_flux"])).all(), "lines beyond the templates are fitted, too"
    assert "reach beyond the templates" in (started / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("continuum.templates=nowhere.fits", "nowhere.fits"),
        ("continuum.templates=mastar-ssp", "skyloom templates install"),
        ("continuum={backend: starlight, results: results}", "run STARLIGHT on the grids"),
    ],
)
def test_templates_that_are_not_there(mock, started, monkeypatch, tmp_path, setting, message):
    monkeypatch.setenv("SKYLOOM_CACHE", str(tmp_path / "empty"))
    done = run(mock.config, "--out", started, *changes(setting))
    assert done.returncode in (2, 4)
    assert message in done.stdout + done.stderr


def test_an_absurd_redshift_is_one_message(mock, tmp_path):
    done = run(mock.config, "--out", tmp_path, *changes("objects.disc.redshift=4.9"))
    assert done.returncode == 4
    assert done.stdout.count("failed") == 1
    assert "redshift" in done.stdout or "axis" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_cube_without_a_line_spread_function_says_where_to_give_it(mock, tmp_path):
    with fits.open(mock.cube) as hdus:
        header, data, variance = hdus["DATA"].header, hdus["DATA"].data, hdus["STAT"].data
        planes = [fits.ImageHDU(data, header, "LIGHT"), fits.ImageHDU(np.sqrt(variance), header, "SCATTER")]
        fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(tmp_path / "odd.fits")
    block = "{data: LIGHT, error: SCATTER, error_kind: sigma, medium: air}"
    settings = changes(f"cube.pattern={tmp_path / 'odd.fits'}", f"cube.instrument={block}")
    done = run(mock.config, "--out", tmp_path / "out", *settings)
    assert done.returncode == 4
    assert "cube.instrument" in done.stdout
    assert "lsf: 1.1" in done.stdout
    assert (tmp_path / "out" / "disc" / "disc_spectra.fits").exists()
