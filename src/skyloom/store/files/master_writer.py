"""Writing `master.h5`: anew at the end of each ingest, of the index before and of the parts that are new."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from skyloom._version import __version__
from skyloom.io.formats.atomic import atomic_path
from skyloom.store.files.filters import value_filters, write_attributes
from skyloom.store.files.manifest import Manifest
from skyloom.store.files.master import (
    INDEX,
    INDEX_VERSION,
    MASTER_NAME,
    PartKey,
    catalogue_of,
    covered_parts,
    covers,
    open_master,
    part_keys,
    still_right,
    text_of,
    write_index,
)
from skyloom.store.files.parts import OBSERVATIONS
from skyloom.store.schema import COLUMNS, SCHEMA_VERSION, level_group
from skyloom.store.search.catalogue import CHUNK, Catalogue
from skyloom.store.search.index import NUMBERS

__all__ = ["write_master"]

STACKED = ("flux", "variance", "mask", "n_good")
LARGEST_LEVEL = 8
AT_ONCE = 2_000_000
"""New observations whose tables are in memory."""
ASKED_FOR = ("obs_id", "source", "source_digest")


def write_master(store: str | Path) -> Path:
    """Write the index of a store anew, as its journal stands; the caller holds the lock.

    Column by column: what the old index knew is taken over from it, what is new read from the parts. Where very much
    is new, some of it is taken in after the other, so that its tables need not be in memory at once.

    Returns
    -------
    path of the file
    """
    folder = Path(store)
    manifest = Manifest.read(folder)
    old = open_master(folder)
    is_done = False
    if old is not None:
        with old:
            is_done = covers(old, manifest)
    while not is_done:
        is_done = _write_next(folder, manifest)
    return folder / MASTER_NAME


def _write_next(folder: Path, manifest: Manifest) -> bool:
    """Write an index that knows some more of the parts; tell whether it knows all."""
    old = open_master(folder)
    shapes = {} if old is None else json.loads(text_of(old["spectra"]))
    keys = part_keys(manifest)
    fresh = keys.keys() - ({} if old is None else still_right(covered_parts(old), keys)).keys()
    rows, late = 0, set()
    for part in manifest.visible_parts:
        if part.name in fresh:
            # At least one, however large it is.
            if rows and rows + part.n > AT_ONCE:
                late.add(part.name)
            rows += part.n
    chosen = {name: key for name, key in keys.items() if name not in late}
    with closing(catalogue_of(folder, chosen, old)) as catalogue:
        _write(folder, catalogue, chosen, shapes, "" if late else manifest.sha256)
    return not late


def _write(
    folder: Path,
    catalogue: Catalogue,
    keys: Mapping[str, PartKey],
    shapes: Mapping[str, Any],
    journal: str,
) -> None:
    import h5py

    path = folder / MASTER_NAME
    with atomic_path(path, overwrite=True) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        write_attributes(
            file, {"NX_class": "NXroot", "default": OBSERVATIONS, "creator": f"skyloom {__version__}"}
        )
        file.attrs["schema"], file.attrs["index"] = SCHEMA_VERSION, INDEX_VERSION
        file["parts"] = json.dumps({name: [key.digest, sorted(key.hidden)] for name, key in keys.items()})
        file.attrs["journal"] = journal
        _write_observations(file, catalogue)
        group = file[INDEX]
        group["part"], group["row"] = catalogue.part, catalogue.row
        write_index(group, catalogue.index, catalogue.raw)
        _write_external(file, folder, keys, shapes)
        file.attrs["complete"] = True


def _write_observations(file: Any, catalogue: Catalogue) -> None:
    group = file.create_group(OBSERVATIONS)
    index = file.create_group(INDEX)
    write_attributes(group, {"NX_class": "NXcollection"})
    for name, column in COLUMNS.items():
        values = catalogue.raw(name)
        options: dict[str, Any] = {}
        # Names are asked for one by one: as they are. Others in pieces, for some rows at a time.
        if values.size and name not in ASKED_FOR:
            options = {"chunks": (min(CHUNK, values.size),), **value_filters()}
        if name in NUMBERS:
            index[name] = values
            group[name] = index[name]
        else:
            group.create_dataset(name, data=values, **options)
        write_attributes(
            group[name], {"units": column.unit, "ucd": column.ucd, "description": column.description}
        )


def _write_external(file: Any, folder: Path, keys: Mapping[str, PartKey], known: Mapping[str, Any]) -> None:
    """Link to every part, and show the spectra of all of them as one (virtual) array per level."""
    import h5py

    shapes = {name: known.get(name) or _spectra_shapes(folder / name) for name in keys}
    file["spectra"] = json.dumps(shapes)
    codes = {name: code for code, name in enumerate(keys)}
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
        numbers = [codes[name] for name in sized]
        file[f"{target}/part"] = np.repeat(numbers, [rows for rows, _ in sized.values()]).astype(np.int32)
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
