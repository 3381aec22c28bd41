"""The quality analysis on a folder of products: its tables, verdicts, messages, and ``skyloom qa``."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from typer.testing import CliRunner

from skyloom.cli import app
from skyloom.errors import ConfigError, FileFormatError, InputError
from skyloom.io.products.nebulae import read_nebula_catalogue, read_nebula_map
from skyloom.recipes.halpha.qa import quality, read_checks
from skyloom.recipes.halpha.qa_report import judge_run, quality_sections
from skyloom.recipes.result import ExitCode
from tests.inputs.quality import quality_scene, write_products

QUIET = ["output.figures=false"]


@pytest.fixture(scope="module")
def scene():
    return quality_scene(n_nebulae=25, size=400)


@pytest.fixture(scope="module")
def run(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config, own = write_products(folder, scene)
    return folder, config, own, quality(own, config, "spiral")


def figures_of(own):
    table = QTable.read(own / "spiral_qa.ecsv", format="ascii.ecsv")
    return {str(row["quantity"]): row for row in table}


def test_all_that_is_promised_is_there(run):
    _, _, own, found = run
    names = {path.name for path in found.files}
    tables = {f"spiral_{kind}.{suffix}" for kind in ("nebulae", "qa", "power") for suffix in ("ecsv", "fits")}
    drawn = {f"spiral_qa_{kind}.png" for kind in ("nebulae", "pixels", "maps", "noise", "power")}
    assert names == tables | drawn | {"spiral_qa_matched.fits"}
    assert all(path.is_file() for path in found.files)
    assert not [path for path in own.iterdir() if path.name.startswith(".")]


def test_figures_are_those_of_the_truth(run):
    _, _, own, found = run
    rows = figures_of(own)
    assert rows["nebulae"]["value"] == 25
    ratio = rows["nebula ratio"]
    assert abs(ratio["value"] - 1) < 3 * ratio["error"]
    pulls = rows["nebula pulls"]
    assert abs(pulls["value"] - 1) < 3 * pulls["error"]
    assert rows["catalogue ratio"]["value"] == pytest.approx(1.0, abs=1e-6)
    assert rows["final slope"]["value"] == pytest.approx(1.0, abs=0.03)
    assert rows["field ratio"]["value"] == pytest.approx(1.0, abs=0.02)
    assert rows["large-scale power"]["value"] == pytest.approx(1.0, abs=0.05)
    assert abs(rows["empty 1x1"]["value"] - 1) < 4 * rows["empty 1x1"]["error"]
    assert rows["empty 1x1 scatter"]["unit"]
    assert all(check.passed for check in found.checks)


def test_tables_of_fits_have_units(run):
    _, _, own, _ = run
    with fits.open(own / "spiral_nebulae.fits") as file:
        header = file[1].header
        units = {header[f"TTYPE{n}"]: header.get(f"TUNIT{n}") for n in range(1, header["TFIELDS"] + 1)}
    without = {
        "label",
        "n_pixels",
        "reference_pixels",
        "lost_share",
        "flag",
        "whole",
        "ratio",
        "ratio_err",
        "pull",
    }
    assert {name for name, unit in units.items() if unit is None} == without
    table = QTable.read(own / "spiral_nebulae.ecsv", format="ascii.ecsv")
    assert table["catalogue_flux"].unit == table["reference_flux"].unit


def test_verdicts_are_read_back(run):
    _, _, own, found = run
    again = read_checks(own, "spiral")
    assert [(item.name, item.passed, item.bounds) for item in again] == [
        (item.name, item.passed, item.bounds) for item in found.checks
    ]


def test_a_folder_is_judged_again_with_other_bounds(run):
    folder, _, own, _ = run
    (own / "stages").mkdir(exist_ok=True)
    record = own / "stages" / "qa.json"
    record.write_text("{}", encoding="utf-8")
    before = (own / "spiral_hst_ha_as2.fits").stat().st_mtime_ns
    result = judge_run(folder / "halpha", [*QUIET, "checks.nebula_ratio=[1.5, 1.6]"])
    assert result.exit_code == ExitCode.CHECK_FAILED
    assert [check.name for check in result.checks if not check.passed] == ["nebula ratio"]
    assert figures_of(own)["nebula ratio"]["verdict"] == "failed"
    assert not record.exists()
    assert (own / "spiral_hst_ha_as2.fits").stat().st_mtime_ns == before
    assert not list(own.glob("*.png")), "figures of an earlier analysis would be taken for this one's"
    page = (folder / "halpha" / "qa.html").read_text(encoding="utf-8")
    assert "nebula ratio" in page
    assert "failed" in page


def test_the_command_ends_with_the_exit_code_of_the_checks(run):
    folder = run[0]
    arguments = ["qa", str(folder / "halpha"), "--set", "output.figures=false"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "0 failed" in done.output
    done = CliRunner().invoke(app, [*arguments, "--set", "checks.empty_scatter=[3, 4]"])
    assert done.exit_code == 3
    assert "check failed" in done.output
    done = CliRunner().invoke(app, ["qa", str(folder)])
    assert done.exit_code == 2
    assert "config.yaml" in done.output


def test_settings_of_the_products_are_refused(run):
    with pytest.raises(ConfigError, match="not made anew"):
        judge_run(run[0] / "halpha", ["anchor.method=ratio"])


def test_sections_show_the_figures(run):
    folder, config, own, _ = run
    quality(own, config, "spiral")
    (section,) = quality_sections(own, "spiral")
    assert [figure.title for figure in section.figures] == [
        "spiral: nebulae",
        "spiral: pixels",
        "spiral: maps",
        "spiral: noise",
        "spiral: power spectra",
    ]
    assert [table.title for table in section.tables] == ["spiral: figures and verdicts", "Nebulae"]
    assert len(section.tables[1].rows) == 12
    assert quality_sections(folder, "nothing") == ()


# --- what may be missing ----------------------------------------------------------------------------


def test_a_configured_catalogue_that_is_missing_is_one_clear_message(scene, tmp_path):
    config, own = write_products(tmp_path, scene)
    (tmp_path / "spiral_catalogue.fits").unlink()
    with pytest.raises(InputError, match=r"spiral_catalogue\.fits.*no such file"):
        quality(own, config, "spiral")
    assert not (own / "spiral_qa.ecsv").exists()


def test_without_a_catalogue_the_label_map_alone(scene, tmp_path):
    config, own = write_products(tmp_path, scene, catalogue=False)
    quality(
        own,
        config.model_copy(update={"output": config.output.model_copy(update={"figures": False})}),
        "spiral",
    )
    rows = figures_of(own)
    assert rows["nebulae"]["value"] == 25
    assert "catalogue ratio" not in rows


def test_without_labels_regions_are_skipped_and_it_is_said(scene, tmp_path):
    config, own = write_products(tmp_path, scene, labels=False, catalogue=False)
    quality(own, config, "spiral")
    assert not (own / "spiral_nebulae.ecsv").exists()
    assert "no label map" in str(figures_of(own)["nebulae"]["meaning"])
    (section,) = quality_sections(own, "spiral")
    assert "regions were not compared" in section.text


def test_without_muse_hst_is_judged_alone(scene, tmp_path):
    config, own = write_products(tmp_path, scene, muse=False)
    found = quality(own, config, "spiral")
    assert {check.name for check in found.checks} == {"empty 1x1", "empty 5x5", "empty 20x20"} & {
        check.name for check in found.checks
    }
    table = QTable.read(own / "spiral_nebulae.ecsv", format="ascii.ecsv")
    assert np.all(np.isfinite(table["flux"]))
    assert "pull" not in table.colnames


def test_without_products_it_says_what_to_run(scene, tmp_path):
    config, own = write_products(tmp_path, scene)
    (own / "spiral_hst_ha_as2.fits").unlink()
    with pytest.raises(InputError, match="skyloom run"):
        quality(own, config, "spiral")


# --- maps and catalogues of nebulae -----------------------------------------------------------------


def map_file(path, values, wcs=None):
    header = None if wcs is None else wcs.to_header()
    fits.PrimaryHDU(np.asarray(values), header).writeto(path)
    return path


def test_zero_is_a_nebula_only_where_others_are_negative(scene, tmp_path):
    wcs = scene.labels.wcs
    first = read_nebula_map(map_file(tmp_path / "a.fits", np.array([[-1, 0], [1, 7]], np.int16), wcs))
    assert first.labels.tolist() == [[-1, 0], [1, 7]]
    second = read_nebula_map(map_file(tmp_path / "b.fits", np.array([[0, 0], [1, 7]], np.int32), wcs))
    assert second.labels.tolist() == [[-1, -1], [1, 7]]
    third = read_nebula_map(map_file(tmp_path / "c.fits", np.array([[np.nan, 0.0], [1, 7]]), wcs))
    assert third.labels.tolist() == [[-1, 0], [1, 7]]


def test_maps_that_cannot_be_used_are_refused(scene, tmp_path):
    with pytest.raises(FileFormatError, match="interpolated"):
        read_nebula_map(map_file(tmp_path / "a.fits", np.array([[0.5, 1.0]]), scene.labels.wcs))
    with pytest.raises(FileFormatError, match="WCS"):
        read_nebula_map(map_file(tmp_path / "b.fits", np.array([[0, 1]], np.int32)))


def test_a_catalogue_of_many_galaxies_gives_those_of_one(tmp_path):
    table = Table({"gal_name": ["NGC0628", "NGC1365"], "region_ID": [3, 4], "cen_ra": [24.1, 53.4]})
    table["cen_dec"], table["HA6562_FLUX"] = [15.8, -36.1], [1e3, 2e3]
    path = tmp_path / "all.fits"
    table.write(path)
    found = read_nebula_catalogue(path, "ngc0628")
    assert found["label"].tolist() == [3]
    assert found["flux"].unit.to("erg / (s cm2)") == pytest.approx(1e-20)
    assert found["ra"].unit == "deg"
    with pytest.raises(FileFormatError, match="no nebulae of m83"):
        read_nebula_catalogue(path, "m83")


def test_catalogues_that_cannot_be_used_are_refused(tmp_path):
    path = tmp_path / "a.ecsv"
    QTable({"flux": [1.0]}).write(path, format="ascii.ecsv")
    with pytest.raises(FileFormatError, match="region_ID"):
        read_nebula_catalogue(path)
    other = Table({"label": [1], "flux": [1.0]})
    other["flux"].unit = "km"
    other.write(tmp_path / "b.ecsv", format="ascii.ecsv")
    with pytest.raises(FileFormatError, match="km"):
        read_nebula_catalogue(tmp_path / "b.ecsv")
    (tmp_path / "c.fits").write_text("nothing")
    with pytest.raises(FileFormatError, match="no table"):
        read_nebula_catalogue(tmp_path / "c.fits")
    with pytest.raises(FileFormatError, match="no such"):
        read_nebula_catalogue(tmp_path / "d.fits")
