"""Tables of a store as VOTable and FITS: what other readers find in them."""

from __future__ import annotations

import binascii
import warnings
from xml.etree import ElementTree as ET

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits, votable
from astropy.table import Table
from astropy.units import UnitsWarning

from skyloom.errors import InputError
from skyloom.io.fits import write
from skyloom.store import create
from skyloom.store.export.fields import Field, TableStream
from skyloom.store.export.fits import write_fits_stream
from skyloom.store.export.observations import observation_table
from skyloom.store.export.votable import unit_for_votable, write_votable
from skyloom.store.export.voxels import voxel_table
from tests.inputs.export_stores import gathered, image, make_odd_store
from tests.inputs.store import small_wcs


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return make_odd_store(tmp_path_factory.mktemp("tables"))


def stream_of(store, what):
    rows = store.search()
    return voxel_table(store, rows) if what == "voxels" else observation_table(store, rows)


def parsed(path):
    with warnings.catch_warnings():
        # Angstrom is what everybody writes; the newest standard of units would rather have 0.1nm.
        warnings.simplefilter("ignore", UnitsWarning)
        return votable.parse(path, verify="exception").get_first_table()


def same(found, expected):
    """Compare a column that astropy has read; text of other types, missing values as NaN or -1."""
    found = np.ma.filled(found, -1) if found.dtype.kind in "iu" else np.ma.getdata(found)
    if expected.dtype.kind in "SU":
        np.testing.assert_array_equal(found.astype(str), np.asarray(expected).astype(str))
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("what", ["observations", "voxels"])
def test_a_votable_is_valid_and_reads_back_exactly(odd, tmp_path, what):
    path = tmp_path / "table.vot"
    expected = gathered(stream_of(odd, what))
    assert write_votable(stream_of(odd, what), path) == expected.size
    report = votable.validate(str(path), output=None, xmllint=False)
    assert "found no violations" in report, report
    table = parsed(path)
    assert table.nrows == expected.size
    for name in expected.dtype.names:
        same(table.array[name], expected[name])
    assert np.ma.getmaskarray(table.array["healpix"]).sum() == (expected["healpix"] == -1).sum() > 0


@pytest.mark.parametrize("what", ["observations", "voxels"])
def test_elements_are_in_the_order_of_the_schema(odd, tmp_path, what):
    # astropy's validator does not look at it; other readers do.
    write_votable(stream_of(odd, what), tmp_path / "table.vot")
    resource = ET.parse(tmp_path / "table.vot").getroot()[0]
    kinds = [element.tag.partition("}")[2] for element in resource]
    order = ["INFO", "COOSYS", "TIMESYS", "TABLE"]
    assert list(dict.fromkeys(kinds)) == order
    assert [order.index(kind) for kind in kinds] == sorted(order.index(kind) for kind in kinds)
    fields = [element.tag.partition("}")[2] for element in resource[-1]]
    assert fields == ["DESCRIPTION", *["FIELD"] * (len(fields) - 2), "DATA"]
    for field in resource[-1][1:-1]:
        assert [element.tag.partition("}")[2] for element in field] in (
            ["DESCRIPTION"],
            ["DESCRIPTION", "VALUES"],
        )


@pytest.mark.parametrize("what", ["observations", "voxels"])
def test_fields_are_described(odd, tmp_path, what):
    write_votable(stream_of(odd, what), tmp_path / "table.vot")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitsWarning)  # as in `parsed`
        document = votable.parse(tmp_path / "table.vot")
    table = document.get_first_table()
    for field in table.fields:
        assert field.ucd, field.name
        assert field.description, field.name
    by_name = {field.name: field for field in table.fields}
    place, time = ("ra", "time") if what == "voxels" else ("s_ra", "t_start")
    assert (by_name[place].ref, by_name[time].ref) == ("ICRS", "TAI")
    resource = document.resources[0]
    assert resource.coordinate_systems[0].system == "ICRS"
    assert {system.timescale for system in resource.time_systems} == (
        {"TAI"} if what == "voxels" else {"TAI", "UTC"}
    )
    assert {system.timeorigin for system in resource.time_systems} == {"MJD-origin"}


@pytest.mark.parametrize("what", ["observations", "voxels"])
def test_a_fits_table_has_units_and_good_sums(odd, tmp_path, what):
    expected = gathered(stream_of(odd, what))
    assert write_fits_stream(stream_of(odd, what), tmp_path / "t.fits") == expected.size
    with fits.open(tmp_path / "t.fits", checksum=True) as file:
        # A wrong sum is a warning, which is an error here.
        file.verify("exception")
        rows, header = file[1].data, file[1].header
        assert header["NAXIS2"] == expected.size
        for number, name in enumerate(expected.dtype.names, start=1):
            assert header[f"TTYPE{number}"] == name
            assert header[f"TUCD{number}"]
            same(np.asarray(rows[name]), expected[name])
        place = expected.dtype.names.index("ra" if what == "voxels" else "s_ra") + 1
        assert header[f"TUNIT{place}"] == "deg"
    table = Table.read(tmp_path / "t.fits")
    assert np.ma.getmaskarray(table["healpix"]).sum() == (expected["healpix"] == -1).sum()


@pytest.mark.parametrize(
    ("what", "scales"), [("voxels", {"time": "tai"}), ("observations", {"t_min": "utc", "t_start": "tai"})]
)
def test_times_of_a_fits_table_have_their_scale(odd, tmp_path, what, scales):
    path = tmp_path / "table.fits"
    expected = gathered(stream_of(odd, what))
    write_fits_stream(stream_of(odd, what), path)
    with warnings.catch_warnings():
        # astropy notes that no position of an observatory is given.
        warnings.simplefilter("ignore")
        table = Table.read(path, astropy_native=True)
    assert fits.getval(path, "TIMESYS", 1) == "TAI"
    for name, scale in scales.items():
        assert table[name].scale == scale
        known = np.isfinite(expected[name])
        assert known.any()
        np.testing.assert_allclose(table[name].mjd[known], expected[name][known], rtol=0, atol=1e-9)


def test_a_long_description_stays_whole(tmp_path):
    stream = TableStream("t", "word " * 40, (Field("x", "f8"),), iter([np.zeros(1, [("x", "f8")])]))
    write_fits_stream(stream, tmp_path / "t.fits")
    assert " ".join(fits.getheader(tmp_path / "t.fits", 1)["COMMENT"]).split() == ["word"] * 40


def test_text_beyond_ascii(tmp_path):
    (tmp_path / "files").mkdir()
    for name, target in (("one", "Größe 2 𝛼"), ("two", "NGC 1")):
        write(image(1, small_wcs(10.0, -5.0), object=target), tmp_path / "files" / f"{name}.fits")
    store = create(tmp_path / "sky", levels=1)
    assert not store.ingest([tmp_path / "files"]).failures
    rows = store.search()
    names = list(store.table(rows)["target_name"])
    write_votable(observation_table(store, rows), tmp_path / "t.vot")
    assert "no violations" in votable.validate(str(tmp_path / "t.vot"), output=None, xmllint=False)
    # Two bytes per letter do not reach mathematical letters.
    found = [str(name) for name in parsed(tmp_path / "t.vot").array["target_name"]]
    assert found == [str(name).replace("𝛼", "\ufffd") for name in names]
    write_fits_stream(observation_table(store, rows), tmp_path / "t.fits")
    text = fits.getdata(tmp_path / "t.fits")["target_name"]
    assert [value.encode().decode("unicode_escape") for value in text] == names


def test_rows_of_any_length_and_number(tmp_path):
    # Base64 makes groups of three bytes: all remainders at the border of blocks.
    for n in (1, 2, 3, 64, 65):
        for width in (1, 2, 3):
            rows = np.zeros(n, [("text", f"S{width}")])
            rows["text"] = b"x" * width
            blocks = iter([rows[:64], rows[64:]])
            stream = TableStream("t", "", (Field("text", f"S{width}", ucd="meta.id"),), blocks)
            path = tmp_path / f"{n}_{width}.vot"
            assert write_votable(stream, path) == n
            assert list(parsed(path).array["text"]) == ["x" * width] * n
            assert len(binascii.a2b_base64(path.read_bytes().split(b'base64">')[1].split(b"</")[0])) == n * (
                width + 1
            )


@pytest.mark.parametrize("unit", ["deg", "1e-17 erg/(s cm2 AA)", "nmgy", "electron/s", "MJy/sr", "kbyte"])
def test_units_are_written_for_the_virtual_observatory(unit):
    written = unit_for_votable(unit)
    assert " " not in written
    with warnings.catch_warnings():
        # Names beyond the standard are read as they are.
        warnings.simplefilter("ignore", UnitsWarning)
        assert u.Unit(written) == u.Unit(unit)


def test_nothing_is_left_of_a_table_that_fails(odd, tmp_path):
    def broken():
        yield next(iter(stream_of(odd, "voxels").blocks)).copy()
        raise InputError("the part cannot be read")

    for writer, name in ((write_votable, "t.vot"), (write_fits_stream, "t.fits")):
        fields = stream_of(odd, "voxels").fields
        with pytest.raises(InputError, match="cannot be read"):
            writer(TableStream("voxels", "", fields, broken()), tmp_path / name)
        (tmp_path / name).write_text("old")
        with pytest.raises(InputError, match="exists already"):
            writer(stream_of(odd, "voxels"), tmp_path / name)
        assert (tmp_path / name).read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.fits", "t.vot"]
