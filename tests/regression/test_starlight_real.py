"""Genuine files of STARLIGHT v04: every one is read, and what is written has their form."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from skyloom.core.spectra import Spectra
from skyloom.errors import RepairWarning
from skyloom.io.starlight import (
    read_base,
    read_config,
    read_grid,
    read_masks,
    read_output,
    read_outputs,
    read_spectrum,
    spaxel_names,
    write_base,
    write_grid,
    write_masks,
    write_spectrum,
    write_starlight_set,
)

pytestmark = pytest.mark.data


@pytest.fixture
def folder(data_dir):
    return data_dir / "starlight"


def outputs_of(folder):
    found = [*folder.glob("KUG0210_PMAS/KUG*.BN"), *folder.glob("ESO208_XSHOOTER/*.out")]
    assert len(found) == 13
    return sorted(found)


def test_every_output_is_complete(folder):
    for path in outputs_of(folder):
        output = read_output(path)
        assert output.ok, (path, output.reason)
        assert output.n_invalid == 0
        assert len(output.population) == int(output.tags["N_base"])
        assert output.wave.size == int(output.tags["Nl_obs"])
        # What the file says about itself: the number of channels fitted and clipped, the sum of light.
        assert np.count_nonzero(output.weight > 0) == int(output.tags["Nl_eff"])
        assert np.count_nonzero(output.weight == -1) == int(
            output.tags["Ntot_cliped & clip_method"].split()[0]
        )
        assert output.population["light"].sum().value == pytest.approx(output.values["light_sum"], abs=0.01)
        # STARLIGHT's own measures of the fit, from the arrays that were read.
        used = output.weight > 0
        deviation = (output.observed - output.synthetic)[used]
        assert 100 * np.mean(np.abs(deviation / output.observed[used])) == pytest.approx(
            output.values["adev"], rel=2e-4
        )
        crashed = next(text for tag, text in output.tags.items() if "RC-Crash" in tag).split()[1] == "1"
        if crashed:
            # STARLIGHT says that its running counts went wrong in this fit; its chi2 is then approximate.
            continue
        scaled = deviation / output.values["flux_norm"] * output.weight[used]
        # The weights are printed with three decimals.
        tolerance = 2 * 0.0005 / np.median(output.weight[used]) + 1e-3
        assert np.mean(scaled**2) == pytest.approx(output.values["chi2"], rel=tolerance)


def test_values_agree_with_the_published_summary(folder):
    with open(folder / "KUG0210_PMAS" / "summary_all_fits.csv") as stream:
        rows = {(int(row["# i"]), int(row["j"])): row for row in csv.DictReader(stream)}
    compared = 0
    for path in outputs_of(folder):
        if not path.name.startswith("KUG"):
            continue
        x, y = (int(word) for word in path.name.split(".")[1].split("_")[1:3])
        row, values = rows[x, y], read_output(path).values
        for column, name in (
            ("v0_kms", "velocity"),
            ("vd_kms", "dispersion"),
            ("AV", "av"),
            ("SN_norm", "signal_to_noise_norm"),
            ("adev_pct", "adev"),
            ("sum_x_pct", "light_sum"),
        ):
            assert values[name] == pytest.approx(float(row[column]), rel=1e-5, abs=1e-6), (path, name)
        compared += 1
    assert compared == 10


def test_spectra_of_outputs_are_those_that_were_fitted(folder):
    for path in outputs_of(folder):
        if not path.name.startswith("KUG"):
            continue
        given = read_spectrum(path.with_name(path.name.replace(".C11.gm.CCM.BN", ".txt")))
        output = read_output(path)
        start = int(np.flatnonzero(given.wave == output.wave[0])[0])
        part = slice(start, start + output.wave.size)
        np.testing.assert_array_equal(given.wave[part], output.wave)
        tolerance = 1e-5 * output.values["flux_norm"]
        np.testing.assert_allclose(output.observed, given.flux[part], atol=tolerance)
        np.testing.assert_array_equal(output.weight == -2, given.flag[part] >= 2)


def test_truncated_output_is_reported(folder):
    paths = [*folder.glob("KUG0210_PMAS/TRUNCATED*.BN"), *outputs_of(folder)]
    report = read_outputs(paths)
    assert report["status"].tolist() == ["aborted", *["ok"] * 13]
    assert "overwritten in a few minutes" in report["reason"][0]
    assert np.isnan(report["av"][0].value)


def test_grids_masks_bases_round_trip(folder, tmp_path):
    grids = sorted(folder.glob("*/*.in"))
    assert len(grids) == 6
    short = {"XSHOO.in": (2, 1), "grid_KUG0210-078.in": (865, 860), "grid_local_sp.in": (272, 271)}
    for number, path in enumerate(grids):
        if path.name in short:
            with pytest.warns(
                RepairWarning, match="{} fits are promised, {} are there".format(*short[path.name])
            ):
                grid = read_grid(path)
        else:
            grid = read_grid(path)
        written = write_grid(tmp_path / f"{number}.in", grid)
        assert read_grid(written) == grid
        # The same settings on the same lines, the same words in each fit.
        theirs, ours = path.read_text().splitlines(), written.read_text().splitlines()
        for line, other in zip(theirs[1:15], ours[1:15], strict=True):
            tag = line[line.index("[") : line.index("]") + 1]
            assert tag in other
            assert line.split("[")[0].split() == other.split("[")[0].split()
        fits = [line for line in theirs[15:] if line.strip()][: len(grid.fits)]
        assert [len(fit.split()) for fit in fits] == [len(line.split()) for line in ours[15:]]
    for number, path in enumerate(sorted([*folder.glob("*/Mask*"), *folder.glob("*/mask*")])):
        windows = read_masks(path)
        assert read_masks(write_masks(tmp_path / f"{number}.masks", windows)) == windows
    for number, path in enumerate(sorted(folder.glob("*/Base*"))):
        entries = read_base(path)
        assert read_base(write_base(tmp_path / f"{number}.base", entries)) == entries


def test_spectra_round_trip(folder, tmp_path):
    paths = [
        *folder.glob("KUG*/*.txt"),
        *folder.glob("*/*.cxt"),
        *folder.glob("ESO*/*.spec"),
        *folder.glob("ESO*/*1.txt"),
    ]
    assert len(paths) == 14
    for number, path in enumerate(paths):
        one = read_spectrum(path)
        assert bool(one.header) == path.name.startswith("KUG")
        written = write_spectrum(
            tmp_path / f"{number}.txt", one.wave, one.flux, one.error, one.flag, header=one.header
        )
        other = read_spectrum(written)
        np.testing.assert_array_equal(other.wave, one.wave)
        np.testing.assert_array_equal(other.flag, one.flag)
        np.testing.assert_allclose(other.flux, one.flux, rtol=1e-8)
        np.testing.assert_allclose(other.error, one.error, rtol=1e-8)


def test_a_written_set_has_the_form_of_the_genuine_one(folder, tmp_path):
    """The spectra of a genuine run, written again with its own configuration, base and masks."""
    source = folder / "KUG0210_PMAS"
    files = sorted(source.glob("*.txt"))
    genuine = [read_spectrum(path) for path in files]
    pixels = [tuple(int(word) for word in path.stem.split("_")[1:]) for path in files]
    spectra = Spectra(
        np.array([one.flux for one in genuine]) * 1e18,
        (np.array([one.error for one in genuine]) * 1e18) ** 2,
        np.zeros((len(files), genuine[0].wave.size), bool),
        "1e-18 erg/(s cm2 AA)",
        genuine[0].wave,
        "air",
        meta={"redshift_applied": 0.0165},
    )
    names = spaxel_names("KUG0210-078.", *zip(*pixels, strict=True))
    done = write_starlight_set(
        tmp_path,
        spectra,
        names,
        flags=genuine[0].flag,
        config=source / "StCv04.C11.config",
        base=source / "Base.CB07.vall.4m",
        masks=source / "Masks.EmLines.NEW.gm",
        fit_range=(3741.0, 7218.0),
        signal_to_noise_window=(4580.0, 4640.0),
        output_suffix=".C11.gm.CCM.BN",
    )
    assert [path.name for path in done.spectra] == [path.name for path in files]
    with pytest.warns(RepairWarning):
        theirs = {fit.spectrum: fit for fit in read_grid(source / "grid_KUG0210-078.in").fits}
    for fit in read_grid(done.grids[0]).fits:
        assert fit == theirs[fit.spectrum]
    settings = read_config(source / "StCv04.C11.config")
    for path, one in zip(done.spectra, genuine, strict=True):
        written = read_spectrum(path)
        assert bool(written.header) == (settings["Is1stLineHeader"] == "1")
        np.testing.assert_array_equal(written.flag, one.flag)
        np.testing.assert_allclose(written.flux, one.flux * 1e18, rtol=1e-7)
