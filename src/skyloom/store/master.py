"""`master.h5`: the index of a store on disk, and how a reader gets all columns of what is visible.

The journal is the truth. The index knows which parts, in which state, it was made of; where the journal says the same,
the columns a search needs are read as they lie, all others when they are asked for. Where it does not, the rows that
are still right are taken over and the others read from the parts themselves: that is slower, and gives the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom._version import __version__
from skyloom.errors import FileFormatError
from skyloom.io.atomic import atomic_path
from skyloom.store.filters import value_filters, write_attributes
from skyloom.store.index import NUMBERS, Coded, SkyIndex, sky_order
from skyloom.store.links import Links, find_links, order_links
from skyloom.store.manifest import Manifest
from skyloom.store.parts import OBSERVATIONS
from skyloom.store.polygons import Polygons, parse_regions
from skyloom.store.schema import COLUMNS, SCHEMA_VERSION, level_group

__all__ = ["MASTER_NAME", "Catalogue", "catalogue_of_part", "read_catalogue", "write_master"]

Array = NDArray[Any]
MASTER_NAME = "master.h5"
INDEX = "index"
CHUNK = 1 << 15
FEW_RUNS = 32
"""Runs of rows that are read one by one; for more of them the whole column is."""
STACKED = ("flux", "variance", "mask", "n_good")
LARGEST_LEVEL = 8


class _Key(NamedTuple):
    """State of a part that rows were taken from."""

    digest: str
    hidden: frozenset[int]


def _keys(manifest: Manifest) -> dict[str, _Key]:
    nothing: frozenset[int] = frozenset()
    return {part.name: _Key(part.digest, manifest.dropped.get(part.name, nothing)) for part in manifest.parts}


@dataclass(eq=False)
class Catalogue:
    """All visible observations, in the order of the index.

    Attributes
    ----------
    names : tuple of str
        Of the parts.
    part : (n,) int32 array
        Which of the parts each observation is in.
    row : (n,) int64 array
        Its number in the table of the part.
    index : SkyIndex
    columns : mapping
        Name -> array or HDF5 dataset of those that are in no index; texts as bytes.
    stored_links : Links or None
        None where they have not been computed for exactly these observations.
    """

    names: tuple[str, ...]
    part: NDArray[np.int32]
    row: NDArray[np.int64]
    index: SkyIndex
    columns: Mapping[str, Any]
    stored_links: Any = None
    file: Any = None
    _by_name: tuple[Array, Array] | None = None

    def __len__(self) -> int:
        return int(self.part.size)

    def column(self, name: str, rows: ArrayLike | None = None) -> Array:
        """Return a column, or some rows of it; texts as numpy text."""
        values = self.raw(name, rows)
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values

    def raw(self, name: str, rows: ArrayLike | None = None) -> Array:
        """Return a column, or some rows of it; texts as bytes."""
        if name in self.index.columns:
            values = self.index.columns[name]
            return values if rows is None else values[np.asarray(rows)]
        return read_rows(self.columns[name], rows)

    def rows_named(self, obs_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of observations; -1 where there is none of the name."""
        if self._by_name is None:
            names = self.raw("obs_id")
            order = self.columns.get("by_name")
            self._by_name = names, np.argsort(names, kind="stable") if order is None else order[:]
        names, order = self._by_name
        if not names.size:
            return np.full(len(obs_ids), -1)
        wanted = np.array([name.encode() for name in obs_ids], dtype=bytes)
        place = np.minimum(np.searchsorted(names, wanted, sorter=order), names.size - 1)
        rows = order[place].astype(np.int64)
        return np.where(names[rows] == wanted, rows, -1)

    def links(self) -> Links:
        """Return which images cover which spectra."""
        if self.stored_links is None:
            self.stored_links = find_links(self.index)
        return self.stored_links if isinstance(self.stored_links, Links) else self._read_links()

    def _read_links(self) -> Links:
        group = self.stored_links
        self.stored_links = Links(group["spectrum"][:].astype(np.int64), group["image"][:].astype(np.int64))
        return self.stored_links

    def close(self) -> None:
        """Close the index file."""
        if self.file is not None:
            self.file.close()


def read_rows(values: Any, rows: ArrayLike | None) -> Array:
    """Return some rows of an array or an HDF5 dataset: run by run where they lie together."""
    if rows is None:
        return np.asarray(values[:])
    wanted = np.asarray(rows, dtype=np.int64)
    if isinstance(values, np.ndarray):
        return values[wanted]
    if not wanted.size:
        return np.empty(0, values.dtype)
    known, back = np.unique(wanted, return_inverse=True)
    cuts = np.flatnonzero(np.diff(known) > CHUNK // 8) + 1
    if cuts.size >= FEW_RUNS:
        return np.asarray(values[:])[wanted]
    runs = np.split(known, cuts)
    pieces = [values[int(run[0]) : int(run[-1]) + 1][run - run[0]] for run in runs]
    return np.concatenate(pieces)[back]


# ----------------------------------------------------------------------------------------------------- reading


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
    keys = _keys(manifest)
    file = _open_master(store)
    if file is not None:
        try:
            if _covered(file) == keys:
                return _from_index(file)
            return _mixed(store, keys, file)
        except BaseException:
            file.close()
            raise
    return _mixed(store, keys, None)


def catalogue_of_part(reader: Any) -> Catalogue:
    """Return the observations of one part or packed file."""
    pieces = [_piece_of_part(reader.table, 0, frozenset())]
    return _assembled(("",), pieces)


def _open_master(store: Path) -> Any:
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


def _covered(file: Any) -> dict[str, _Key]:
    return {
        name: _Key(digest, frozenset(hidden))
        for name, (digest, hidden) in json.loads(_text(file["parts"])).items()
    }


def _text(dataset: Any) -> str:
    return str(dataset[()].decode() if isinstance(dataset[()], bytes) else dataset[()])


def _from_index(file: Any) -> Catalogue:
    group = file[INDEX]
    numbers = {name: group[name][:] for name in NUMBERS}
    polygons = Polygons(group["outline_start"][:], group["outline_ra"][:], group["outline_dec"][:])
    kind, band = (
        Coded(group[name][:], tuple(json.loads(group[name].attrs["values"]))) for name in ("kind", "band")
    )
    columns = {name: file[OBSERVATIONS][name] for name in COLUMNS if name not in NUMBERS}
    columns["by_name"] = group["by_name"]
    return Catalogue(
        tuple(json.loads(_text(file["parts"]))),
        group["part"][:],
        group["row"][:],
        SkyIndex.build(numbers, kind, band, polygons),
        columns,
        file["links"],
        file,
    )


def _mixed(store: Path, keys: Mapping[str, _Key], file: Any) -> Catalogue:
    """Take rows from the index where they are still right, and from the parts where not."""
    from skyloom.store.part_reader import PartReader

    names = tuple(keys)
    codes = {name: code for code, name in enumerate(names)}
    pieces = []
    covered: dict[str, _Key] = {}
    if file is not None:
        covered = _covered(file)
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
    return _assembled(names, pieces)


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
    file: Any, old_names: Sequence[str], same: set[str], keys: Mapping[str, _Key], codes: Mapping[str, int]
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


def _assembled(names: tuple[str, ...], pieces: Sequence[Mapping[str, Array]]) -> Catalogue:
    columns: dict[str, Array] = {}
    for name in (*COLUMNS, "row", "part"):
        parts = [piece[name] for piece in pieces]
        kind = COLUMNS[name].kind if name in COLUMNS else "i8"
        empty: Array = np.empty(0, "S1" if kind == "str" else kind)
        columns[name] = np.concatenate(parts) if parts else empty
    order = sky_order(columns["radius"], columns["healpix"])
    columns = {name: values[order] for name, values in columns.items()}
    index = SkyIndex.build(
        columns,
        Coded.of(columns["dataproduct_type"].tolist()),
        Coded.of(columns["band"].tolist()),
        parse_regions(columns["s_region"].tolist()),
    )
    part, row = columns.pop("part").astype(np.int32), columns.pop("row").astype(np.int64)
    return Catalogue(names, part, row, index, columns)


# ----------------------------------------------------------------------------------------------------- writing


def write_master(store: str | Path) -> Path:
    """Write the index of a store anew, as its journal stands; the caller holds the lock.

    Links of observations that the old index knew are taken over, those of new ones computed.

    Returns
    -------
    path of the file
    """
    import h5py

    folder = Path(store)
    manifest = Manifest.read(folder)
    keys = _keys(manifest)
    path = folder / MASTER_NAME
    old = _open_master(folder)
    try:
        if old is not None and _covered(old) == keys:
            return path
        known = _old_links(old)
        shapes = {} if old is None else json.loads(_text(old["spectra"]))
    finally:
        if old is not None:
            old.close()
    catalogue = read_catalogue(folder, manifest)
    links = _new_links(catalogue, known)
    with atomic_path(path, overwrite=True) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        write_attributes(
            file, {"NX_class": "NXroot", "default": OBSERVATIONS, "creator": f"skyloom {__version__}"}
        )
        file.attrs["schema"] = SCHEMA_VERSION
        state = {name: [key.digest, sorted(key.hidden)] for name, key in keys.items()}
        file["parts"] = json.dumps(state)
        _write_observations(file, catalogue)
        _write_index(file, catalogue)
        _write_links(file, catalogue, links)
        _write_external(file, folder, keys, shapes)
        file.attrs["complete"] = True
    catalogue.close()
    return path


class _OldLinks(NamedTuple):
    """Links of an index that is to be replaced, by the place of the observations in the parts."""

    spectrum: Array
    image: Array
    known: Array
    """(n, 2): part and row of each observation of that index."""
    names: tuple[str, ...]


def _old_links(old: Any) -> _OldLinks | None:
    if old is None:
        return None
    group = old[INDEX]
    known = np.stack([group["part"][:].astype(np.int64), group["row"][:]], axis=-1)
    links = old["links"]
    return _OldLinks(links["spectrum"][:], links["image"][:], known, tuple(_covered(old)))


def _new_links(catalogue: Catalogue, old: _OldLinks | None) -> Links:
    """Return the links of a catalogue: old ones moved to the new rows, those of new observations found."""
    if old is None or not old.known.size:
        return find_links(catalogue.index)
    codes = {name: code for code, name in enumerate(catalogue.names)}
    translation = np.array([codes.get(name, -1) for name in old.names], np.int64)
    place = _places(catalogue.part, catalogue.row)
    order = np.argsort(place)
    old_place = _places(translation[old.known[:, 0]], old.known[:, 1])
    slot = np.minimum(np.searchsorted(place, old_place, sorter=order), len(catalogue) - 1)
    found = (
        (translation[old.known[:, 0]] >= 0) & (place[order[slot]] == old_place) if len(catalogue) else None
    )
    if found is None:
        return find_links(catalogue.index)
    new_row = np.where(found, order[slot], -1)
    is_new = np.ones(len(catalogue), bool)
    is_new[new_row[found]] = False
    spectrum, image = new_row[old.spectrum.astype(np.int64)], new_row[old.image.astype(np.int64)]
    kept = (spectrum >= 0) & (image >= 0)
    rows, before = np.flatnonzero(is_new), np.flatnonzero(~is_new)
    fresh = find_links(catalogue.index, rows, None)
    late = find_links(catalogue.index, before, rows)
    return order_links(
        np.concatenate([spectrum[kept], fresh.spectrum, late.spectrum]),
        np.concatenate([image[kept], fresh.image, late.image]),
    )


def _places(part: Array, row: Array) -> NDArray[np.int64]:
    """Number of an observation among all that parts can have; parts hold fewer than 2^40."""
    return (part.astype(np.int64) << 40) + row


def _write_observations(file: Any, catalogue: Catalogue) -> None:
    group = file.create_group(OBSERVATIONS)
    index = file.create_group(INDEX)
    write_attributes(group, {"NX_class": "NXcollection"})
    for name, column in COLUMNS.items():
        values = catalogue.raw(name)
        options: dict[str, Any] = {}
        # Names are searched whole: as they are. Others in pieces, for some rows at a time.
        if values.size and name != "obs_id":
            options = {"chunks": (min(CHUNK, values.size),), **value_filters()}
        if name in NUMBERS:
            index[name] = values
            group[name] = index[name]
        else:
            group.create_dataset(name, data=values, **options)
        write_attributes(
            group[name], {"units": column.unit, "ucd": column.ucd, "description": column.description}
        )


def _write_index(file: Any, catalogue: Catalogue) -> None:
    group = file[INDEX]
    index = catalogue.index
    for name, coded in (("kind", index.kind), ("band", index.band)):
        group[name] = coded.codes.astype(np.int16)
        group[name].attrs["values"] = json.dumps(list(coded.values))
    group["part"] = catalogue.part
    group["row"] = catalogue.row
    group["outline_start"], group["outline_ra"], group["outline_dec"] = index.polygons
    group["by_name"] = np.argsort(catalogue.raw("obs_id"), kind="stable").astype(np.int64)


def _write_links(file: Any, catalogue: Catalogue, links: Links) -> None:
    group = file.create_group("links")
    write_attributes(
        group, {"NX_class": "NXcollection", "description": "rows of a spectrum and of an image over it"}
    )
    kind = np.int32 if len(catalogue) < 2**31 else np.int64
    group["spectrum"] = links.spectrum.astype(kind)
    group["image"] = links.image.astype(kind)


def _write_external(file: Any, folder: Path, keys: Mapping[str, _Key], known: Mapping[str, Any]) -> None:
    """Link to every part, and show the spectra of all of them as one (virtual) array per level."""
    import h5py

    shapes = {name: known.get(name) or _spectra_shapes(folder / name) for name in keys}
    file["spectra"] = json.dumps(shapes)
    group = file.create_group("partitions")
    for name in keys:
        path = Path(name)
        group[f"{path.parent.name}-{path.stem}"] = h5py.ExternalLink(name, "/")
    for level in range(LARGEST_LEVEL):
        sized = {name: levels[str(level)] for name, levels in shapes.items() if str(level) in levels}
        widths = {width for _, width in sized.values()}
        if len(widths) != 1:
            continue
        width = widths.pop()
        total = sum(rows for rows, _ in sized.values())
        target = level_group(level, "spectra")
        for plane in STACKED:
            layout = h5py.VirtualLayout(
                (total, width), _plane_type(folder / next(iter(sized)), f"{target}/{plane}")
            )
            start = 0
            for name, (rows, _) in sized.items():
                layout[start : start + rows] = h5py.VirtualSource(name, f"{target}/{plane}", (rows, width))
                start += rows
            file.create_virtual_dataset(f"{target}/{plane}", layout, fillvalue=1 if plane == "mask" else 0)
        file[f"{target}/part"] = np.repeat(
            [list(keys).index(name) for name in sized], [rows for rows, _ in sized.values()]
        ).astype(np.int32)
        write_attributes(file[target], {"NX_class": "NXdata", "signal": "flux"})


def _plane_type(path: Path, name: str) -> Any:
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        return file[name].dtype


def _spectra_shapes(path: Path) -> dict[str, tuple[int, int]]:
    """Return level -> (rows, wavelengths) of the stacked spectra of a part."""
    import h5py

    try:
        file = h5py.File(path, "r", locking=False)
    except OSError:
        # Found by 'verify'; the index of what is whole must not suffer.
        return {}
    with file:
        return {
            str(level): file[f"{level_group(level, 'spectra')}/flux"].shape
            for level in range(LARGEST_LEVEL)
            if f"{level_group(level, 'spectra')}/flux" in file
        }
