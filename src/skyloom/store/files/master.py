"""`master.h5`: the index of a store on disk, and how a reader gets all columns of what is visible.

The journal is the truth. The index knows which parts, in which state, it was made of; where the journal says the same,
the columns a search needs are read as they lie, all others when they are asked for. Where it does not, the rows that
are still right are taken over and the others read from the parts themselves: that is slower, and gives the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import FileFormatError
from skyloom.store.files.filters import write_array, write_attributes
from skyloom.store.files.manifest import Manifest
from skyloom.store.files.parts import OBSERVATIONS
from skyloom.store.schema import COLUMNS, SCHEMA_VERSION
from skyloom.store.search.catalogue import Catalogue, assembled
from skyloom.store.search.index import NUMBERS, Coded, SkyIndex
from skyloom.store.search.polygons import Polygons

__all__ = [
    "INDEX",
    "LINKS",
    "MASTER_NAME",
    "PartKey",
    "catalogue_of_part",
    "covered_parts",
    "open_master",
    "part_keys",
    "read_catalogue",
    "text_of",
    "write_index",
]

Array = NDArray[Any]
MASTER_NAME = "master.h5"
INDEX = "index"
LINKS = "links"


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
    keys = part_keys(manifest)
    file = open_master(store)
    if file is not None:
        try:
            if covered_parts(file) == keys:
                return _from_index(file)
            return _mixed(store, keys, file)
        except BaseException:
            file.close()
            raise
    return _mixed(store, keys, None)


def catalogue_of_part(reader: Any) -> Catalogue:
    """Return the observations of one part or packed file: of the index that the latter has, or of the table."""
    n = len(reader)
    if INDEX in reader.file:
        index = _read_index(reader.file[INDEX], reader.table)
        columns = {name: reader.table[name] for name in COLUMNS if name not in NUMBERS}
        columns["by_name"] = reader.file[INDEX]["by_name"]
        row = np.arange(n, dtype=np.int64)
        return Catalogue(("",), np.zeros(n, np.int32), row, index, columns, reader.file[LINKS])
    return assembled(("",), [_piece_of_part(reader.table, 0, frozenset())])


def open_master(store: Path) -> Any:
    """Open the index file; None where there is none that can be used."""
    import h5py
    import hdf5plugin  # noqa: F401  registers the filters

    try:
        # It is replaced, never changed: an open file stays as it was.
        file = h5py.File(store / MASTER_NAME, "r", locking=False)
    except OSError:
        return None
    if file.attrs.get("complete", False) and file.attrs.get("schema") == SCHEMA_VERSION:
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


def _from_index(file: Any) -> Catalogue:
    group = file[INDEX]
    columns = {name: file[OBSERVATIONS][name] for name in COLUMNS if name not in NUMBERS}
    columns["by_name"] = group["by_name"]
    return Catalogue(
        tuple(json.loads(text_of(file["parts"]))),
        group["part"][:],
        group["row"][:],
        _read_index(group, group),
        columns,
        file[LINKS],
        file,
    )


def _read_index(group: Any, table: Any) -> SkyIndex:
    """Return what `write_index` wrote, with the columns of numbers from a table in the same order."""
    numbers = {name: table[name][:] for name in NUMBERS}
    polygons = Polygons(group["outline_start"][:], group["outline_ra"][:], group["outline_dec"][:])
    kind, band = (
        Coded(group[name][:], tuple(json.loads(group[name].attrs["values"]))) for name in ("kind", "band")
    )
    return SkyIndex.build(numbers, kind, band, polygons)


def write_index(group: Any, index: SkyIndex, names: Array, filters: str | None = None) -> None:
    """Write what would take long to find out of the columns: codes of texts, outlines, the order of the names.

    Parameters
    ----------
    group : h5py.Group
    index : SkyIndex
    names : (n,) bytes array
        The column ``obs_id``.
    filters : {"lz4", "gzip"}, optional
        None: as they are, to be read fast.
    """
    arrays = dict(zip(("outline_start", "outline_ra", "outline_dec"), index.polygons, strict=True))
    arrays["by_name"] = np.argsort(names, kind="stable").astype(np.int64)
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


def _mixed(store: Path, keys: Mapping[str, PartKey], file: Any) -> Catalogue:
    """Take rows from the index where they are still right, and from the parts where not."""
    from skyloom.store.files.part_reader import PartReader

    names = tuple(keys)
    codes = {name: code for code, name in enumerate(names)}
    pieces = []
    covered: dict[str, PartKey] = {}
    if file is not None:
        covered = covered_parts(file)
        known = [name for name in covered if name in keys and covered[name].digest == keys[name].digest]
        same = {name for name in known if covered[name].hidden <= keys[name].hidden}
        pieces.append(_piece_of_index(file, tuple(covered), same, keys, codes))
        covered = {name: covered[name] for name in same}
        file.close()
    for name, key in keys.items():
        if name in covered:
            continue
        with PartReader(store / name) as reader:
            pieces.append(_piece_of_part(reader.table, codes[name], key.hidden))
    return assembled(names, pieces)


def _piece_of_part(table: Any, code: int, hidden: frozenset[int]) -> dict[str, Array]:
    try:
        piece = {name: table[name][:] for name in COLUMNS}
    except (OSError, RuntimeError, KeyError) as error:
        raise FileFormatError(
            f"its table cannot be read: {error}",
            source=table.file.filename,
            remedy="ingest its sources again",
        ) from error
    n = len(piece["obs_id"])
    piece["row"] = np.arange(n)
    piece["part"] = np.full(n, code, np.int32)
    kept = np.ones(n, bool)
    kept[[row for row in hidden if row < n]] = False
    return {name: values[kept] for name, values in piece.items()}


def _piece_of_index(
    file: Any, old_names: Sequence[str], same: set[str], keys: Mapping[str, PartKey], codes: Mapping[str, int]
) -> dict[str, Array]:
    group = file[INDEX]
    part, row = group["part"][:], group["row"][:]
    translation = np.array([codes[name] if name in same else -1 for name in old_names] or [-1], np.int32)
    code = translation[part] if part.size else part
    kept = code >= 0
    for name in same:
        hidden = list(keys[name].hidden)
        if hidden:
            kept &= ~((code == codes[name]) & np.isin(row, hidden))
    columns = {name: (group[name] if name in NUMBERS else file[OBSERVATIONS][name])[:] for name in COLUMNS}
    return {name: values[kept] for name, values in {**columns, "row": row, "part": code}.items()}
