"""What keeps a store of very many observations usable: nothing is read, compared or named that does not have to be."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from skyloom.errors import FileFormatError, InputError
from skyloom.mock.sdss.observations import mock_observations
from skyloom.store.files import master, master_writer
from skyloom.store.files.folder import make_folder
from skyloom.store.files.manifest import MANIFEST_NAME, Manifest, PartEntry, append_drop, append_part
from skyloom.store.files.master_writer import write_master
from skyloom.store.files.parts import OBSERVATIONS
from skyloom.store.ingest import recovery
from skyloom.store.ingest.recovery import recover
from skyloom.store.ingest.run import ingest
from skyloom.store.schema import COLUMNS, SCHEMA_VERSION, StoreSettings
from skyloom.store.search import names as names_module
from skyloom.store.search.catalogue import Catalogue, assembled, piece_of_columns
from skyloom.store.search.index import Coded
from skyloom.store.search.names import NameTable, text_keys
from skyloom.store.search.polygons import Polygons, parse_regions
from skyloom.store.search.sphere import angles, unit_vectors
from tests.inputs.store import write_files


def add_part(store: Path, number: int, columns: dict[str, np.ndarray]) -> PartEntry:
    """Write a part that has a table alone, and enter it into the journal."""
    path = store / f"partitions/5-{number % 7}/{number:016x}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", libver="v110") as file:
        for name, values in columns.items():
            # Parts have texts as wide as they need them.
            kept = values.astype(bytes) if values.dtype.kind == "S" else values
            file[f"{OBSERVATIONS}/{name}"] = kept
        settings = json.dumps(StoreSettings().describe())
        file.attrs.update(schema=SCHEMA_VERSION, settings=settings, digest=f"{number:064x}", complete=True)
    part = PartEntry(
        path.relative_to(store).as_posix(), len(columns["s_ra"]), f"{number:064x}", path.stat().st_size
    )
    append_part(store, part)
    return part


def slices(columns: dict[str, np.ndarray], size: int) -> list[dict[str, np.ndarray]]:
    n = len(columns["s_ra"])
    return [{key: values[i : i + size] for key, values in columns.items()} for i in range(0, n, size)]


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    return mock_observations(600, seed=3, where="sdss")


def contents(catalogue: Catalogue) -> list[tuple]:
    """All columns of all rows, and where they are, in the order of the names."""
    where = [
        (catalogue.names[part], int(row)) for part, row in zip(catalogue.part, catalogue.row, strict=True)
    ]
    table = [catalogue.raw(name).tolist() for name in COLUMNS]
    kinds = [catalogue.index.kind.values[code] for code in catalogue.index.kind.codes]
    bands = [catalogue.index.band.values[code] for code in catalogue.index.band.codes]
    corners = [
        catalogue.index.polygons.take([row]).ra.tolist() + catalogue.index.polygons.take([row]).dec.tolist()
        for row in range(len(catalogue))
    ]
    return sorted(zip(*table, where, kinds, bands, corners, strict=True), key=lambda row: row[0])


def same(first: list[tuple], second: list[tuple]) -> bool:
    return repr(first) == repr(second)  # NaN is equal to itself in this form.


def test_an_index_grown_part_by_part_is_that_of_all_parts(rows, tmp_path, monkeypatch) -> None:
    store, whole = tmp_path / "grown", tmp_path / "whole"
    for folder in (store, whole):
        make_folder(folder)
    pieces = slices(rows, 20)
    read = []
    plain = master._columns_of
    monkeypatch.setattr(master, "_columns_of", lambda table: read.append(table.file.filename) or plain(table))
    for number, piece in enumerate(pieces):
        part = add_part(store, number, piece)
        add_part(whole, number, piece)
        if number % 7 == 3:
            append_drop(store, part.name, [1, 2])
            append_drop(whole, part.name, [1, 2])
        if number in (4, 5, 17):
            write_master(store)
    write_master(store)
    # Each part once: those that the index before knew are not read again.
    assert len(read) == len(set(read)) == len(pieces)
    # Much that is new is taken in by and by.
    monkeypatch.setattr(master_writer, "AT_ONCE", 150)
    before = len(read)
    write_master(whole)
    assert len(read) == before + len(pieces)
    catalogues = []
    for folder in (store, whole):
        catalogue = master.read_catalogue(folder, Manifest.read(folder))
        assert catalogue.file is not None
        catalogues.append(contents(catalogue))
        catalogue.close()
    assert len(catalogues[0]) == 600 - 2 * len(range(3, 30, 7))
    assert same(*catalogues)
    # Rows that vanish later are left out of what is taken over.
    append_drop(store, Manifest.read(store).parts[0].name, [0, 5])
    with_less = master.read_catalogue(store, Manifest.read(store))
    gone = {rows["obs_id"][0], rows["obs_id"][5]}
    assert same(contents(with_less), [row for row in catalogues[0] if row[0] not in gone])
    with_less.close()


def test_an_index_knows_the_journal_it_was_made_of(rows, tmp_path, monkeypatch) -> None:
    make_folder(tmp_path)
    for number, piece in enumerate(slices(rows, 200)):
        add_part(tmp_path, number, piece)
    write_master(tmp_path)

    def refused(*_):
        raise AssertionError("names of parts need not be compared")

    monkeypatch.setattr(master, "covered_parts", refused)
    assert len(master.read_catalogue(tmp_path, Manifest.read(tmp_path))) == 600


def test_an_ingest_reads_no_part_that_the_index_knows(rows, tmp_path, monkeypatch) -> None:
    make_folder(tmp_path)
    pieces = slices(rows, 100)
    parts = [add_part(tmp_path, number, piece) for number, piece in enumerate(pieces[:5])]
    append_drop(tmp_path, parts[1].name, [7])
    write_master(tmp_path)
    append_drop(tmp_path, parts[2].name, [8])
    late = add_part(tmp_path, 5, pieces[5])
    read = []
    plain = recovery._names
    monkeypatch.setattr(recovery, "_names", lambda path: read.append(path.name) or plain(path))
    _, content = recover(tmp_path)
    assert read == [Path(late.name).name]
    texts = {key: np.char.decode(rows[key]) for key in ("obs_id", "source", "source_digest")}
    for number in range(600):
        name, source, digest = (str(texts[key][number]) for key in ("obs_id", "source", "source_digest"))
        found = content.rows.get(name)
        if number in (107, 208):
            assert found is None
            assert name not in content.rows
            assert content.sources.get(digest) is None
            with pytest.raises(KeyError):
                content.rows[name]
        else:
            assert found == ((*parts, late)[number // 100].name, number % 100, source, digest)
            assert content.sources.get(digest) == source
    chosen = [3, 107, 250, 590]
    digests = frozenset(str(texts["source_digest"][number]) for number in chosen)
    assert content.rows_of(digests) == {parts[0].name: [3], parts[2].name: [50], late.name: [90]}
    content.drop(content.rows_of(digests))
    assert content.rows_of(digests) == {}
    assert str(texts["obs_id"][590]) not in content.rows
    assert str(texts["obs_id"][591]) in content.rows


def test_a_part_of_another_size_is_looked_at(rows, tmp_path) -> None:
    make_folder(tmp_path)
    part = add_part(tmp_path, 0, rows)
    write_master(tmp_path)
    path = tmp_path / part.name
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(FileFormatError, match="with replace"):
        recover(tmp_path)
    _, content = recover(tmp_path, give_up=True)
    assert rows["obs_id"][0].decode() not in content.rows
    assert Manifest.read(tmp_path).visible_parts == ()


def test_the_journal_names_only_files_that_had_failed(tmp_path) -> None:
    store = tmp_path / "store"
    make_folder(store)
    paths = write_files(tmp_path / "in", 3)
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[:1000])
    assert len(ingest(store, paths).failures) == 1
    assert "cleared" not in (store / MANIFEST_NAME).read_text()
    paths[0].write_bytes(whole)
    assert ingest(store, paths).failures == ()
    lines = [json.loads(line) for line in (store / MANIFEST_NAME).read_text().splitlines()]
    assert [line["cleared"] for line in lines if "cleared" in line] == [[str(paths[0])]]
    assert Manifest.read(store).failures == ()


def test_a_damaged_line_among_thousands_is_named(tmp_path) -> None:
    lines = [json.dumps({"part": f"p{i}", "n": 1, "digest": "", "bytes": 0}) for i in range(2500)]
    (tmp_path / MANIFEST_NAME).write_text("\n".join(lines) + "\n")
    assert [part.name for part in Manifest.read(tmp_path).parts] == [f"p{i}" for i in range(2500)]
    # Two damaged lines that are one whole object when they are put together.
    lines[1200:1202] = ['{"part": "x", "n": [1', '2], "digest": "", "bytes": 0}']
    (tmp_path / MANIFEST_NAME).write_text("\n".join(lines) + "\n")
    with pytest.raises(FileFormatError, match="line 1201"):
        Manifest.read(tmp_path)


def test_keys_of_texts_do_not_depend_on_the_width_of_their_column() -> None:
    texts = [b"", b"a", b"b", b"12345678", b"123456781", b"x" * 40, b"sdss-1", b"sdss-10"]
    for width in (40, 41, 64, 128):
        assert text_keys(np.array(texts, f"S{width}")).tolist() == text_keys(np.array(texts)).tolist()
    assert len(set(text_keys(np.array(texts)).tolist())) == len(texts)
    # The same word in another place is another text.
    halves = np.array([b"AAAAAAAABBBBBBBB", b"BBBBBBBBAAAAAAAA", b"AAAAAAAAAAAAAAAA"])
    assert len(set(text_keys(halves).tolist())) == 3


@pytest.mark.parametrize("collide", [False, True])
def test_names_are_found_whatever_their_keys(monkeypatch, collide) -> None:
    if collide:
        plain = names_module.text_keys
        monkeypatch.setattr(names_module, "text_keys", lambda texts: plain(texts) % np.uint64(5))
    column = np.array([f"name{i % 60}".encode() for i in range(100)])
    table = NameTable.of(column)
    wanted = np.array([b"name7", b"absent", b"name59", b"name0"])
    assert table.first_of(wanted, lambda rows: column[rows]).tolist() == [7, -1, 59, 0]
    assert table.all_of(wanted, lambda rows: column[rows]).tolist() == [0, 7, 59, 60, 67]
    nothing = NameTable.of(np.empty(0, "S4"))
    assert nothing.first_of(wanted, lambda rows: column[rows]).tolist() == [-1, -1, -1, -1]


def test_columns_of_texts_are_coded_in_the_order_in_which_they_come() -> None:
    texts = np.array([b"r", b"", b"u", b"r", b"g", b"u"])
    fast, slow = Coded.of(texts), Coded.of(texts.tolist())
    assert fast.values == slow.values == ("r", "", "u", "g")
    assert fast.codes.tolist() == slow.codes.tolist() == [0, 1, 2, 0, 3, 2]


def test_outlines_are_read_however_they_are_written() -> None:
    written = ["POLYGON ICRS 1 2 3.5 4 -5 6e-1", "Circle ICRS 1 2 3", "", "polygon 1 2 3.5 4 -5 6e-1"]
    commas = "Polygon ICRS 1,2 3.5,4 -5,6e-1"
    for texts in (written, [*written, commas], np.array(written).astype(bytes)):
        polygons = parse_regions(texts)
        assert polygons.sizes.tolist() == [3, 0, 0, 3, 3][: len(texts)]
        assert polygons.take([0]).ra.tolist() == polygons.take([3]).ra.tolist() == [1.0, 3.5, -5.0]
        assert polygons.dec[:3].tolist() == [2.0, 4.0, 0.6]
    for wrong in ("POLYGON ICRS 1 2 3 4 5", "BOX ICRS 1 2 3 4 5 6", "POLYGON ICRS 1 2 3 4 5 six"):
        with pytest.raises(InputError, match="is no outline"):
            parse_regions([*written, wrong])
    joined = Polygons.joined([parse_regions(written), parse_regions([commas])])
    assert joined.sizes.tolist() == [3, 0, 0, 3, 3]
    assert joined.take([4]).dec.tolist() == [2.0, 4.0, 0.6]


@pytest.mark.parametrize("where", ["sky", "sdss"])
def test_cones_among_many_observations_are_those_of_a_comparison_with_all(where) -> None:
    columns = mock_observations(20_000, seed=5, where=where)
    n = len(columns["s_ra"])
    index = assembled(("",), [piece_of_columns(columns, np.zeros(n), np.arange(n))]).index
    ra, dec, radius = (index.columns[name] for name in ("s_ra", "s_dec", "radius"))
    places = unit_vectors(ra, dec)
    outlined = index.polygons.sizes > 0
    generator = np.random.default_rng(8)
    found = 0
    for row in generator.integers(0, n, 40):
        for reach in (0.0, 0.02, 0.2, 3.0):
            rows = index.search(cone=((ra[row], dec[row]), reach))
            apart = np.degrees(angles(places, unit_vectors(ra[row], dec[row])))
            # What is surely in and surely out, whatever the outline; points decide exactly.
            nearest = np.where(outlined, 0.4 * 0.1638, radius)
            must, may = apart <= reach + nearest - 1e-9, apart <= reach + radius + 1e-9
            assert np.isin(np.flatnonzero(must), rows).all()
            assert may[rows].all()
            exact = rows[~outlined[rows]]
            assert exact.tolist() == np.flatnonzero((apart <= reach + radius) & ~outlined).tolist()
            found += rows.size
    assert found > 5000
