"""Writing `master.h5`: anew at the end of each ingest, with the links of what is new."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom._version import __version__
from skyloom.io.atomic import atomic_path
from skyloom.store.files.filters import value_filters, write_attributes
from skyloom.store.files.manifest import Manifest
from skyloom.store.files.master import (
    INDEX,
    LINKS,
    MASTER_NAME,
    PartKey,
    covered_parts,
    open_master,
    part_keys,
    read_catalogue,
    text_of,
    write_index,
)
from skyloom.store.files.parts import OBSERVATIONS
from skyloom.store.schema import COLUMNS, SCHEMA_VERSION, level_group
from skyloom.store.search.catalogue import CHUNK, Catalogue
from skyloom.store.search.index import NUMBERS
from skyloom.store.search.links import Links, find_links, order_links

__all__ = ["write_master"]

Array = NDArray[Any]
STACKED = ("flux", "variance", "mask", "n_good")
LARGEST_LEVEL = 8


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
    keys = part_keys(manifest)
    path = folder / MASTER_NAME
    old = open_master(folder)
    try:
        if old is not None and covered_parts(old) == keys:
            return path
        known = _old_links(old)
        shapes = {} if old is None else json.loads(text_of(old["spectra"]))
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
        group = file[INDEX]
        group["part"], group["row"] = catalogue.part, catalogue.row
        write_index(group, catalogue.index, catalogue.raw("obs_id"))
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
    links = old[LINKS]
    return _OldLinks(links["spectrum"][:], links["image"][:], known, tuple(covered_parts(old)))


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


def _write_links(file: Any, catalogue: Catalogue, links: Links) -> None:
    group = file.create_group(LINKS)
    write_attributes(
        group, {"NX_class": "NXcollection", "description": "rows of a spectrum and of an image over it"}
    )
    kind = np.int32 if len(catalogue) < 2**31 else np.int64
    group["spectrum"] = links.spectrum.astype(kind)
    group["image"] = links.image.astype(kind)


def _write_external(file: Any, folder: Path, keys: Mapping[str, PartKey], known: Mapping[str, Any]) -> None:
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
