"""What existing pipelines get wrong with STARLIGHT files, one test per defect."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.io.starlight import read_output, read_outputs
from tests.unit.starlight_texts import output_text


@pytest.mark.parametrize("n_base", [1, 2, 45, 150])
def test_output_is_read_by_tags_whatever_the_base_list(n_base, tmp_path):
    """Fixed line numbers (16 for the norm, 235 for the spectrum) broke with every other number of populations."""
    path = tmp_path / "bin.out"
    # Lines that another version, or a person, put in before the sections.
    path.write_text("\n# a remark\n\n" + output_text(n_base))
    output = read_output(path)
    assert output.status == "ok", output.reason
    assert output.values["flux_norm"] == 2e-18
    assert (output.values["velocity"], output.values["dispersion"], output.values["av"]) == (
        -35.5,
        120.25,
        0.4,
    )
    assert len(output.population) == n_base
    np.testing.assert_array_equal(output.wave, 4000.0 + np.arange(40))
    np.testing.assert_allclose(output.synthetic, 2e-18)


def test_asterisks_in_the_spectrum_are_masked_never_zero(tmp_path):
    """``***`` read as zero is an absorption line that is not there."""
    lines = output_text().splitlines(keepends=True)
    lines[-10] = f"{4030:8.2f}{1.3:11.5f}" + "*" * 10 + f"{5:9.3f}\n"
    lines[-9] = f"{4031:8.2f}" + "*" * 21 + f"{5:9.3f}\n"
    path = tmp_path / "bin.out"
    path.write_text("".join(lines))
    output = read_output(path)
    assert output.status == "ok"
    assert np.flatnonzero(output.mask).tolist() == [30, 31]
    assert np.all(np.isnan(output.synthetic[[30, 31]]))
    assert np.isnan(output.observed[31])
    assert output.observed[30] == pytest.approx(1.3 * 2e-18)
    assert not np.any(output.synthetic == 0)
    assert output.n_invalid == 3
    # The rows around them keep their columns.
    np.testing.assert_allclose(output.synthetic[~output.mask], 2e-18)
    np.testing.assert_array_equal(output.weight[[30, 31]], 5.0)


def test_asterisks_in_the_values_are_unknown_and_counted_per_bin(tmp_path):
    for name, text in (("good", output_text()), ("wide", output_text(chi2="************"))):
        (tmp_path / f"{name}.out").write_text(text)
    report = read_outputs([tmp_path / "good.out", tmp_path / "wide.out"])
    assert report["chi2"][0] == 1.25
    assert np.isnan(report["chi2"][1])
    assert report["n_invalid"].tolist() == [0, 1]


def test_unknown_norm_masks_the_whole_spectrum(tmp_path):
    path = tmp_path / "bin.out"
    path.write_text(output_text(fobs_norm="************"))
    output = read_output(path)
    assert output.mask.all()
    assert np.isnan(output.synthetic).all()


def test_aborted_outputs_are_reported_per_bin(tmp_path):
    """149 of 850 results of one run were placeholders: they are named, and the others are read."""
    whole = output_text()
    (tmp_path / "a.out").write_text(whole)
    (tmp_path / "b.out").write_text("This file will be overwritten in a few minutes...\n")
    (tmp_path / "c.out").write_text("")
    (tmp_path / "d.out").write_text(whole[: whole.index("## Synthetic spectrum")])
    (tmp_path / "e.out").write_text(whole[:-100])
    (tmp_path / "f.out").write_bytes(b"\x00\x01\x02")
    report = read_outputs([tmp_path / f"{name}.out" for name in "abcdefg"])
    assert report["status"].tolist() == ["ok", *["aborted"] * 4, "unreadable", "missing"]
    assert report.meta["n_failed"] == 6
    assert report["reason"][0] == ""
    assert "overwritten in a few minutes" in report["reason"][1]
    assert report["reason"][2] == "the file is empty"
    assert report["reason"][3] == "no synthetic spectrum"
    assert "of 40 channels" in report["reason"][4]
    assert np.isnan(report["velocity"][1].value)
    assert not np.any(report["flux_norm"] == 0)
