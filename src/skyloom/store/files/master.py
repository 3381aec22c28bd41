"""`master.h5`: the index of a store on disk, and how a reader gets all columns of what is visible.

The journal is the truth. The index knows which parts, in which state, it was made of; where the journal says the same,
the columns a search needs are read as they lie, all others when they are asked for. Where it does not, the rows that
are still right are taken over, also only when they are asked for, and the others read from the parts themselves: that
is slower, and gives the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import FileFormatError
from skyloom.store.files.filters import write_array, write_attributes
from skyloom.store.files.manifest import Manifest
from skyloom.store.files.parts import OBSERVATIONS
from skyloom.store.schema import COLUMNS, SCHEMA_VERSION
from skyloom.store.search.catalogue import NAMED, Catalogue, Piece, assembled, piece_of_columns
from skyloom.store.search.index import NUMBERS, Coded, SkyIndex
from skyloom.store.search.names import NameTable
from skyloom.store.search.polygons import Polygons

__all__ = [
    "INDEX",
    "INDEX_VERSION",
    "MASTER_NAME",
    "PartKey",
    "catalogue_of",
    "catalogue_of_part",
    "covered_parts",
    "covers",
    "open_master",
    "part_keys",
    "read_catalogue",
    "still_right",
    "stored_table",
    "text_of",
    "visible_rows",
    "write_index",
]

Array = NDArray[Any]
MASTER_NAME = "master.h5"
INDEX = "index"
INDEX_VERSION = 2
"""An index of another version is made anew."""


class PartKey(NamedTuple):
    """State of a part that rows were taken from."""

    digest: str
    hidden: frozenset[int]


def part_keys(manifest: Manifest) -> dict[str, PartKey]:
    """Return the state of each part that a journal makes visible."""
    nothing: frozenset[int] = frozenset()
    return {
        part.name: PartKey(part.digest, manifest.dropped.get(part.name, nothing))
        for part in manifest.visible_parts
    }


def read_catalogue(store: Path, manifest: Manifest) -> Catalogue:
    """Return all that a journal makes visible.

    Parameters
    ----------
    store : path
    manifest : Manifest

    Raises
    ------
    FileFormatError
        When a part that the index does not cover is missing or damaged.
    """
    file = open_master(store)
    if file is None:
        return catalogue_of(store, part_keys(manifest), None)
    try:
        if covers(file, manifest):
            return _from_index(file, tuple(part.name for part in manifest.visible_parts))
        return catalogue_of(store, part_keys(manifest), file)
    except BaseException:
        file.close()
        raise


def covers(file: Any, manifest: Manifest) -> bool:
    """Tell whether an index file was made of exactly what a journal makes visible."""
    # Comparing the names of very many parts takes longer than reading the index.
    if file.attrs["journal"] == manifest.sha256:
        return True
    return list(covered_parts(file).items()) == list(part_keys(manifest).items())


def catalogue_of_part(reader: Any) -> Catalogue:
    """Return the observations of one part or packed file: of the index that the latter has, or of the table."""
    n = len(reader)
    part, row = np.zeros(n, np.int32), np.arange(n, dtype=np.int64)
    tables = _stored_tables(reader.file[INDEX]) if INDEX in reader.file else None
    if tables is None:
        return assembled(("",), [piece_of_columns(_columns_of(reader.table), part, row)])
    columns = {name: reader.table[name] for name in COLUMNS if name not in NUMBERS}
    return Catalogue(("",), part, row, _read_index(reader.file[INDEX], reader.table), columns, tables)


def open_master(store: Path) -> Any:
    """Open the index file; None where there is none that can be used."""
    import h5py
    import hdf5plugin  # noqa: F401  registers the filters

    try:
        # It is replaced, never changed: an open file stays as it was.
        file = h5py.File(store / MASTER_NAME, "r", locking=False)
    except OSError:
        return None
    versions = file.attrs.get("schema"), file.attrs.get("index")
    if file.attrs.get("complete", False) and versions == (SCHEMA_VERSION, INDEX_VERSION):
        return file
    file.close()
    return None


def covered_parts(file: Any) -> dict[str, PartKey]:
    """Return the parts, and their states, that an index file was made of."""
    return {
        name: PartKey(digest, frozenset(hidden))
        for name, (digest, hidden) in json.loads(text_of(file["parts"])).items()
    }


def text_of(dataset: Any) -> str:
    """Return the text of a dataset of a single one."""
    return str(dataset[()].decode() if isinstance(dataset[()], bytes) else dataset[()])


def still_right(before: Mapping[str, PartKey], keys: Mapping[str, PartKey]) -> dict[str, PartKey]:
    """Return the parts whose rows an index that knows others ``before`` has, less those that are hidden since."""
    known = [name for name in before if name in keys and before[name].digest == keys[name].digest]
    return {name: before[name] for name in known if before[name].hidden <= keys[name].hidden}


def _from_index(file: Any, names: tuple[str, ...]) -> Catalogue:
    group = file[INDEX]
    columns = {name: file[OBSERVATIONS][name] for name in COLUMNS if name not in NUMBERS}
    return Catalogue(
        names,
        group["part"][:],
        group["row"][:],
        _read_index(group, group),
        columns,
        _stored_tables(group),
        file,
    )


def stored_table(file: Any, name: str) -> NameTable:
    """Return the table of one of the columns `NAMED` of an open index."""
    group = file[INDEX]
    return NameTable(group[f"{name}_keys"][:], group[f"{name}_rows"][:])


def _stored_tables(group: Any) -> dict[str, tuple[Any, Any]] | None:
    """Return the datasets of the tables of names; None for a file of an older form."""
    names = {name: (f"{name}_keys", f"{name}_rows") for name in NAMED}
    return {name: (group[keys], group[rows]) for name, (keys, rows) in names.items() if keys in group} or None


def _read_index(group: Any, table: Any) -> SkyIndex:
    """Return what `write_index` wrote, with the columns of numbers from a table in the same order."""
    numbers = {name: table[name][:] for name in NUMBERS}
    return SkyIndex.build(
        numbers, _read_codes(group, "kind"), _read_codes(group, "band"), _read_outlines(group)
    )


def _read_outlines(group: Any) -> Polygons:
    return Polygons(*(group[f"outline_{name}"][:] for name in ("start", "ra", "dec")))


def _read_codes(group: Any, name: str) -> Coded:
    return Coded(group[name][:], tuple(json.loads(group[name].attrs["values"])))


def write_index(
    group: Any, index: SkyIndex, texts: Callable[[str], Array], filters: str | None = None
) -> None:
    """Write what would take long to find out of the columns: codes of texts, outlines, tables of names.

    Parameters
    ----------
    group : h5py.Group
    index : SkyIndex
    texts : callable
        Gives a column of texts (n,), as bytes.
    filters : {"lz4", "gzip"}, optional
        None: as they are, to be read fast.
    """
    arrays = dict(zip(("outline_start", "outline_ra", "outline_dec"), index.polygons, strict=True))
    for name in NAMED:
        for key, values in NameTable.of(texts(name))._asdict().items():
            arrays[f"{name}_{key}"] = values
    for name, coded in (("kind", index.kind), ("band", index.band)):
        arrays[name] = coded.codes.astype(np.int16)
    for name, values in arrays.items():
        if filters is None:
            group[name] = values
        else:
            write_array(group, name, values, filters)
    for name, coded in (("kind", index.kind), ("band", index.band)):
        group[name].attrs["values"] = json.dumps(list(coded.values))
    write_attributes(group, {"NX_class": "NXcollection", "description": "what searches need, as it is read"})


def catalogue_of(store: Path, keys: Mapping[str, PartKey], file: Any) -> Catalogue:
    """Take rows from an open index (or None) where they are still right, and from the parts where not."""
    names = tuple(keys)
    pieces = []
    covered: dict[str, PartKey] = {}
    if file is not None:
        covered, code, row, visible = visible_rows(file, keys)
        pieces.append(_piece_of_index(file, code, row, np.flatnonzero(visible)))
    fresh = {name: key for name, key in keys.items() if name not in covered}
    if fresh:
        pieces.append(_piece_of_parts(store, fresh, names))
    return assembled(names, pieces, file)


def _piece_of_parts(store: Path, keys: Mapping[str, PartKey], names: Sequence[str]) -> Piece:
    """Read parts that the index does not know."""
    from skyloom.store.files.part_reader import PartReader

    codes = {name: code for code, name in enumerate(names)}
    tables = []
    for name, key in keys.items():
        with PartReader(store / name) as reader:
            table = _columns_of(reader.table)
        n = len(table["obs_id"])
        table |= {"part": np.full(n, codes[name], np.int32), "row": np.arange(n)}
        if key.hidden:
            kept = np.setdiff1d(table["row"], list(key.hidden))
            table = {column: values[kept] for column, values in table.items()}
        tables.append(table)
    joined = {}
    for name in list(tables[0]):
        # One after the other, and gone when it is done: there may be millions of rows.
        joined[name] = np.concatenate([table.pop(name) for table in tables])
    return piece_of_columns(joined, joined.pop("part"), joined.pop("row"))


def _columns_of(table: Any) -> dict[str, Array]:
    try:
        return {name: table[name][:] for name in COLUMNS}
    except (OSError, RuntimeError, KeyError) as error:
        raise FileFormatError(
            f"its table cannot be read: {error}",
            source=table.file.filename,
            remedy="ingest its sources again",
        ) from error


def visible_rows(
    file: Any, keys: Mapping[str, PartKey]
) -> tuple[dict[str, PartKey], NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
    """Return what of an open index is still right.

    Parameters
    ----------
    file : h5py.File
    keys : mapping
        State of each part that is visible.

    Returns
    -------
    covered : dict
        Parts whose rows the index has, with the state in which it knows them.
    part, row : (n,) arrays
        Of each row of the index, the number of its part among ``keys`` (-1: it is none of them) and its row there.
    visible : (n,) bool array
    """
    before = covered_parts(file)
    covered = still_right(before, keys)
    part, row = file[INDEX]["part"][:], file[INDEX]["row"][:]
    codes = {name: code for code, name in enumerate(keys)}
    translation = np.array([codes[name] if name in covered else -1 for name in before] or [-1], np.int32)
    code = translation[part] if part.size else part
    visible = code >= 0
    hidden = [
        (codes[name], number) for name, old in covered.items() for number in keys[name].hidden - old.hidden
    ]
    if hidden:
        places = np.array(hidden, np.int64)
        visible &= ~np.isin(_places(code, row), _places(places[:, 0], places[:, 1]))
    return covered, code, row, visible


def _piece_of_index(file: Any, part: Array, row: Array, kept: NDArray[np.int64]) -> Piece:
    """Take over rows of an index."""
    group = file[INDEX]
    columns = {name: (group if name in NUMBERS else file[OBSERVATIONS])[name] for name in COLUMNS}
    kind, band, outlines = _read_codes(group, "kind"), _read_codes(group, "band"), _read_outlines(group)
    if kept.size < part.size:
        part, row = part[kept], row[kept]
        kind, band, outlines = kind.take(kept), band.take(kept), outlines.take(kept)
    return Piece(columns, kept, part, row, kind, band, outlines)


def _places(part: Array, row: Array) -> NDArray[np.int64]:
    """Number of an observation among all that parts can have; parts hold fewer than 2^40."""
    return (part.astype(np.int64) << 40) + row
