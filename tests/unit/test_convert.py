"""``skyloom convert``: tables in every format and back, with units and descriptions."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, QTable
from typer.testing import CliRunner

from skyloom.cli import app
from skyloom.errors import FileFormatError, InputError
from skyloom.io.table_files import SUFFIXES, read_table, table_format, write_table

FLUX = u.Unit("1e-17 erg/(s cm2)")


def make_table():
    table = QTable(
        {
            "id": np.arange(3),
            "name": ["a", "NGC 1", "ü"],
            "flux": [1.0, np.nan, 1 / 3] * FLUX,
            "counts": np.array([1.5, 2.5, 3.5], np.float32) * (u.electron / u.s),
            "velocity": [10.0, 20.0, -5.5] * (u.km / u.s),
            "good": [True, False, True],
        }
    )
    table["flux"].info.description = "of the line"
    table["id"].info.description = "number of the bin"
    return table


def run(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


@pytest.mark.parametrize("form", [form for form in SUFFIXES if form != "csv"])
def test_values_units_and_descriptions_come_back(tmp_path, form):
    table = make_table()
    if form == "fits":
        table["name"] = ["a", "NGC 1", "u"]  # FITS is ASCII
    path = write_table(table, tmp_path / f"t{SUFFIXES[form]}")
    back = read_table(path)
    assert back.colnames == table.colnames
    for name in table.colnames:
        first, second = table[name], back[name]
        unit = getattr(first, "unit", None)
        assert (getattr(second, "unit", None) or u.one) == (unit or u.one), name
        values = np.asarray(getattr(second, "value", second))
        np.testing.assert_array_equal(values, np.asarray(getattr(first, "value", first)), err_msg=name)
    if form != "fits":
        assert back["flux"].info.description == "of the line"
    else:
        assert fits.getheader(path, 1).comments["TTYPE3"] == "of the line"


def test_csv_keeps_the_values(tmp_path):
    back = read_table(write_table(make_table(), tmp_path / "t.csv"))
    assert back.colnames == make_table().colnames
    assert back["velocity"].tolist() == [10.0, 20.0, -5.5]


def test_others_find_units_in_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    schema = parquet.read_schema(write_table(make_table(), tmp_path / "t.parquet"))
    assert schema.field("flux").metadata == {b"unit": str(FLUX).encode(), b"description": b"of the line"}
    assert schema.field("id").metadata == {b"description": b"number of the bin"}


def test_missing_values_stay_missing(tmp_path):
    table = QTable({"n": MaskedColumn([1, 2, 3], mask=[False, True, False])})
    for form in ("ecsv", "votable", "parquet", "fits"):
        back = read_table(write_table(table, tmp_path / f"t{SUFFIXES[form]}"))
        assert list(np.ma.getmaskarray(back["n"])) == [False, True, False], form


def test_the_command_converts_several_and_keeps_what_is_there(tmp_path):
    first, second = (write_table(make_table(), tmp_path / f"{name}.ecsv") for name in "ab")
    out = tmp_path / "out"
    result = run(first, second, "--to", "votable", "--out", out)
    assert result.exit_code == 0, result.output
    assert "3 rows, 6 columns" in result.output
    assert read_table(out / "b.vot")["flux"].unit == FLUX
    again = run(first, "--to", "votable", "--out", out)
    assert again.exit_code == 2
    assert "--overwrite" in again.output
    assert run(first, "--to", "votable", "--out", out, "--overwrite").exit_code == 0
    assert run(first, "--out", tmp_path / "named.parquet").exit_code == 0
    assert len(read_table(tmp_path / "named.parquet")) == 3
    assert run(first, tmp_path / "no.ecsv", "--to", "csv").exit_code == 4
    assert (tmp_path / "a.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no format is given"),
        (("--to", "excel"), "no format of tables"),
        (("--to", "csv", "--out", "x.csv", "second.ecsv"), "name a folder"),
        (("--out", "x.txt"), "does not tell the format"),
    ],
)
def test_wrong_usage_is_told(tmp_path, arguments, message):
    path = write_table(make_table(), tmp_path / "t.ecsv")
    result = run(path, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_of_a_product_the_table_of_results_is_taken(tmp_path):
    path = tmp_path / "p.fits"
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.ones((2, 2)), name="SCI")]
    hdus += [
        fits.BinTableHDU.from_columns([fits.Column("X", "D", array=np.arange(n))], name=name)
        for name, n in (("META", 1), ("BINS", 2), ("LINES", 3))
    ]
    fits.HDUList(hdus).writeto(path)
    assert len(read_table(path)) == 2
    assert len(read_table(path, "lines")) == 3
    with pytest.raises(InputError, match="it has META, BINS, LINES"):
        read_table(path, "FIT")
    fits.HDUList(hdus[:3]).writeto(path, overwrite=True)
    with pytest.raises(InputError, match="no table of results"):
        read_table(path)


def test_broken_files_and_names(tmp_path):
    (tmp_path / "t.vot").write_text("no table")
    with pytest.raises(FileFormatError, match="cannot be read as votable"):
        read_table(tmp_path / "t.vot")
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "none.ecsv")
    with pytest.raises(InputError, match="does not tell"):
        table_format("a.txt")
    with pytest.raises(InputError, match="no format"):
        write_table(make_table(), tmp_path / "x.fits", "xls")
