"""Parquet and HATS: sorted by place, described, complete."""

from __future__ import annotations

import sys
import warnings
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from astropy.io import votable
from astropy.units import UnitsWarning

from skyloom.errors import InputError
from skyloom.store.export import partitions as partitions_module
from skyloom.store.export.observations import observation_table
from skyloom.store.export.parquet import write_hats, write_parquet
from skyloom.store.export.partitions import partitions
from skyloom.store.export.voxels import voxel_table
from skyloom.store.search.cells import healpix_of
from tests.inputs.export_stores import gathered, make_odd_store

TABLES = ("observations", "voxels")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return make_odd_store(tmp_path_factory.mktemp("parquet"))


def stream_of(store, what):
    rows = store.search()
    return voxel_table(store, rows) if what == "voxels" else observation_table(store, rows)


def in_order(rows, names):
    """Rows in an order that does not depend on how they came, and as what compares."""
    plain = np.empty(rows.size, [(name, rows[name].dtype) for name in names])
    for name in names:
        plain[name] = rows[name]
        if plain[name].dtype.kind == "f":
            plain[name] = np.nan_to_num(plain[name], nan=-999.0)
    return np.sort(plain, order=list(names))


def as_rows(table, like):
    """Rows of a table of Arrow as they were exported."""
    out = np.empty(table.num_rows, like)
    for name in like.names:
        column = table.column("_healpix_29" if name == "healpix" else name).to_numpy()
        out[name] = np.char.encode(column.astype(str)) if like[name].kind == "S" else column
    return out


@pytest.mark.parametrize("what", TABLES)
def test_a_parquet_file_is_sorted_complete_and_described(odd, tmp_path, what):
    expected = gathered(stream_of(odd, what))
    assert write_parquet(stream_of(odd, what), tmp_path / "t.parquet") == expected.size
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.schema.names[0] == "_healpix_29"
    assert table.schema.field("_healpix_29").type == pa.int64()
    assert np.all(np.diff(table.column("_healpix_29").to_numpy()) >= 0)
    names = expected.dtype.names
    np.testing.assert_array_equal(in_order(as_rows(table, expected.dtype), names), in_order(expected, names))
    place = table.schema.field("ra" if what == "voxels" else "s_ra")
    assert place.metadata[b"unit"] == b"deg"
    assert place.metadata[b"ucd"] == b"pos.eq.ra;meta.main"
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_the_votable_inside_describes_the_columns(odd, tmp_path):
    write_parquet(stream_of(odd, "voxels"), tmp_path / "t.parquet")
    metadata = pq.read_schema(tmp_path / "t.parquet").metadata
    assert metadata[b"IVOA.VOTable-Parquet.version"] == b"1.0"
    (tmp_path / "head.xml").write_bytes(metadata[b"IVOA.VOTable-Parquet.content"])
    assert "no violations" in votable.validate(str(tmp_path / "head.xml"), output=None, xmllint=False)
    with warnings.catch_warnings():
        # Of Angstrom, which everybody writes.
        warnings.simplefilter("ignore", UnitsWarning)
        table = votable.parse(tmp_path / "head.xml").get_first_table()
    assert [field.name for field in table.fields] == pq.read_schema(tmp_path / "t.parquet").names


@pytest.mark.parametrize("what", TABLES)
def test_a_catalogue_of_hats(odd, tmp_path, what):
    expected = gathered(stream_of(odd, what))
    placed = expected[expected["healpix"] >= 0]
    n = write_hats(stream_of(odd, what), tmp_path / "sky.hats", max_rows=200)
    assert n == placed.size < expected.size
    root = tmp_path / "sky.hats"
    lines = (root / "hats.properties").read_text().splitlines()[1:]
    told = dict(line.split("=", 1) for line in lines)
    assert told["hats_col_healpix"] == "_healpix_29"
    assert int(told["hats_nrows"]) == n
    assert int(told["skyloom_rows_without_place"]) == expected.size - n
    assert told["hats_col_ra"] in expected.dtype.names
    # The list, the files and the summary of their metadata agree, and each row lies in the cell of its file.
    listed = np.loadtxt(root / "partition_info.csv", delimiter=",", skiprows=1, dtype=int, ndmin=2)
    assert (root / "partition_info.csv").read_text().startswith("Norder,Npix\n")
    rows = []
    for order, pixel in listed:
        path = root / f"dataset/Norder={order}/Dir={pixel // 10000 * 10000}/Npix={pixel}.parquet"
        table = pq.ParquetFile(path).read()
        cells = table.column("_healpix_29").to_numpy()
        assert np.all(cells >> (2 * (29 - order)) == pixel)
        assert np.all(np.diff(cells) >= 0)
        ra, dec = (table.column(told[f"hats_col_{axis}"]).to_numpy() for axis in ("ra", "dec"))
        np.testing.assert_array_equal(healpix_of(ra, dec), cells)
        rows.append(as_rows(table, expected.dtype))
    assert len(list(root.rglob("Npix=*"))) == len(listed)
    names = expected.dtype.names
    np.testing.assert_array_equal(in_order(np.concatenate(rows), names), in_order(placed, names))
    assert pq.read_metadata(root / "dataset/_metadata").num_rows == n
    found = pyarrow.dataset.parquet_dataset(root / "dataset/_metadata", partitioning="hive")
    assert found.count_rows() == n
    assert pq.read_schema(root / "dataset/_common_metadata").names == table.schema.names
    assert [path.name for path in tmp_path.iterdir()] == ["sky.hats"]


def test_a_catalogue_is_replaced_only_by_request_and_only_if_it_is_one(odd, tmp_path):
    write_hats(stream_of(odd, "observations"), tmp_path / "sky.hats")
    with pytest.raises(InputError, match="exists already"):
        write_hats(stream_of(odd, "observations"), tmp_path / "sky.hats")
    write_hats(stream_of(odd, "observations"), tmp_path / "sky.hats", overwrite=True)
    (tmp_path / "precious").mkdir()
    with pytest.raises(InputError, match="no catalogue of HATS"):
        write_hats(stream_of(odd, "observations"), tmp_path / "precious", overwrite=True)
    with pytest.raises(InputError, match="nothing that is selected has a place"):
        write_hats(observation_table(odd, [odd.row("lost")]), tmp_path / "none.hats")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "sky.hats"]


@pytest.mark.parametrize("what", ["parquet", "hats"])
def test_without_pyarrow_the_remedy_is_told(odd, tmp_path, monkeypatch, what):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'skyloom\[parquet\]'"):
        odd.export(tmp_path / f"t.{what}")


# ------------------------------------------------------------------------------------------- cells and their rows


def random_rows(n, seed=0):
    generator = np.random.default_rng(seed)
    rows = np.zeros(n, [("healpix", "i8"), ("number", "i8")])
    ra, dec = generator.uniform(0, 360, n), np.degrees(np.arcsin(generator.uniform(-1, 1, n)))
    # Half of them crowded, a tenth on one spot, some nowhere.
    ra[: n // 2], dec[: n // 2] = generator.normal(10, 0.01, n // 2), generator.normal(-5, 0.01, n // 2)
    ra[: n // 10], dec[: n // 10] = 10.0, -5.0
    rows["healpix"] = healpix_of(ra, dec)
    rows["healpix"][-5:] = -1
    rows["number"] = np.arange(n)
    return generator.permutation(rows)


@pytest.mark.parametrize("max_rows", [20, 300, 10**6])
def test_cells_hold_all_rows_once_in_order(tmp_path, max_rows, monkeypatch):
    rows = random_rows(3000)
    blocks = (rows[start : start + 128] for start in range(0, rows.size, 128))
    found = list(partitions(blocks, rows.dtype, tmp_path, max_rows=max_rows))
    joined = np.concatenate([part.rows for part in found])
    assert np.all(np.diff(joined["healpix"]) >= 0)
    np.testing.assert_array_equal(np.sort(joined["number"]), np.arange(rows.size))
    spans = {}
    for part in found:
        if part.pixel >= 0:
            assert np.all(part.rows["healpix"] >> (2 * (29 - part.order)) == part.pixel)
            spans[part.pixel << (2 * (29 - part.order))] = (part.pixel + 1) << (2 * (29 - part.order))
            if part.order < 29:
                assert len(part.rows) <= max_rows
    first = sorted(spans)
    assert all(spans[one] <= other for one, other in pairwise(first))
    assert not list(tmp_path.iterdir())


def test_cells_are_joined_as_far_as_rows_allow(tmp_path):
    rows = random_rows(3000)
    found = list(partitions(iter([rows]), rows.dtype, tmp_path, max_rows=500))
    counts = {(part.order, part.pixel): len(part.rows) for part in found if part.pixel >= 0}
    crowd = [order for order, _ in counts if order >= partitions_module.FIRST_ORDER]
    assert crowd
    assert min(order for order, _ in counts) <= 1
    assert len(counts) < 60
