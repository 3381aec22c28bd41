"""A whole store as one HDF5 file, which stands for itself: no external links, no virtual datasets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import FileFormatError, InputError
from skyloom.io.formats.atomic import atomic_path
from skyloom.store.files.filters import value_filters, write_array, write_attributes
from skyloom.store.files.folder import read_settings
from skyloom.store.files.manifest import Manifest
from skyloom.store.files.master import INDEX, write_index
from skyloom.store.files.part_reader import PartReader
from skyloom.store.files.parts import PartSummary, PartWriter
from skyloom.store.search.index import NUMBERS, Coded, SkyIndex, sky_order
from skyloom.store.search.links import find_links
from skyloom.store.search.polygons import parse_regions

__all__ = ["pack"]

LINKS = "links"
OPEN_PARTS = 16
"""Files kept open while their observations are copied."""


def pack(
    store: str | Path,
    out: str | Path,
    *,
    compression: str = "lz4",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PartSummary:
    """Write everything that is visible in a store into one file.

    The file has the groups of a part, with all observations, in the order in which an index keeps them, and in addition
    ``links/spectrum`` and ``links/image``: pairs of rows of ``observations``, a spectrum and an image that covers it;
    and ``index``, with which it is opened fast.
    Every digest is compared on the way: what is damaged is not packed.

    Parameters
    ----------
    store : str or path
        Folder.
    out : str or path
        Of the file, which appears when it is complete.
    compression : {"lz4", "gzip"}
        ``gzip`` is read by every HDF5, ``lz4`` (with bitshuffle) needs a plugin, which h5web and hdf5plugin have.
    overwrite : bool
        Whether an existing file may be replaced.
    progress : callable, optional
        Called with the observations done, and all of them.

    Raises
    ------
    InputError
        When the store is empty or ``out`` exists.
    FileFormatError
        When a part is damaged.
    """
    store, out = Path(store), Path(out)
    value_filters(compression)
    settings = read_settings(store)
    parts = _Parts(store)
    if not parts.rows:
        raise InputError("the store is empty", source=store, remedy="ingest something into it first")
    with parts, atomic_path(out, overwrite=overwrite) as temporary:
        with PartWriter(temporary, settings, filters=compression, packed=True) as writer:
            order = sky_order(parts.column("radius"), parts.column("healpix"))
            for done, (reader, row) in enumerate(parts.in_order(order), start=1):
                written = writer.add(reader.observation(row))
                if written != reader.column("digest")[row]:
                    raise FileFormatError(
                        f"the content of {reader.obs_ids[row]} is not what was written",
                        source=reader.path,
                        remedy="run `skyloom store verify`",
                    )
                if progress is not None:
                    progress(done, len(order))
            _write_index(writer, parts, order)
            digest = writer.finish()
        size = temporary.stat().st_size
    return PartSummary(writer.n, digest, size)


class _Parts:
    """The visible rows of all parts of a store."""

    def __init__(self, store: Path) -> None:
        self.store = store
        manifest = Manifest.read(store)
        self.open: OrderedDict[str, PartReader] = OrderedDict()
        self.rows: list[tuple[str, int]] = []
        for part in manifest.parts:
            hidden = manifest.dropped.get(part.name, frozenset())
            self.rows += [(part.name, row) for row in range(part.n) if row not in hidden]

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self.open.values():
            reader.close()

    def reader(self, name: str) -> PartReader:
        """Return an open part; those that were used last stay open."""
        if name not in self.open:
            if len(self.open) >= OPEN_PARTS:
                self.open.popitem(last=False)[1].close()
            self.open[name] = PartReader(self.store / name)
        self.open.move_to_end(name)
        return self.open[name]

    def column(self, name: str) -> NDArray[np.generic]:
        """Return a column over all visible rows."""
        return np.array([self.reader(part).column(name)[row] for part, row in self.rows])

    def in_order(self, order: Sequence[int] | NDArray[np.int64]) -> Iterator[tuple[PartReader, int]]:
        """Yield the rows in another order."""
        for number in order:
            part, row = self.rows[number]
            yield self.reader(part), row


def _write_index(writer: PartWriter, parts: _Parts, order: NDArray[np.int64]) -> None:
    """Write the index, without which opening the file would mean to read every text of the table, and the links."""
    columns = {name: parts.column(name)[order] for name in NUMBERS}
    kind, band, outline = (
        parts.column(name)[order].tolist() for name in ("dataproduct_type", "band", "s_region")
    )
    index = SkyIndex.build(columns, Coded.of(kind), Coded.of(band), parse_regions(outline))

    def texts(name: str) -> NDArray[np.bytes_]:
        return np.array([text.encode() for text in parts.column(name)[order].tolist()], dtype=bytes)

    write_index(writer.file.create_group(INDEX), index, texts, writer.filters)
    links = find_links(index)
    group = writer.file.create_group(LINKS)
    write_attributes(group, {"NX_class": "NXcollection", "description": "images that cover spectra, as rows"})
    for name, rows in links._asdict().items():
        write_array(group, name, rows, writer.filters)
        write_attributes(group[name], {"description": f"row of the {name} among the observations"})
