"""What a path offers to look at, by keys: no name that a browser sends is ever opened.

The files below a folder are listed once, from their headers; what an entry holds is read when it is looked at. Links
are followed as far as they stay below the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skyloom.errors import FileFormatError, InputError, SkyloomError
from skyloom.io.formats.files import FitsFile, open_fits
from skyloom.viewer.planes.cubes import CubePlanes
from skyloom.viewer.planes.files import SMALLEST, HduPlane, bins_in, plane_groups
from skyloom.viewer.planes.images import ArrayReader, Plane, Planes
from skyloom.viewer.planes.sky import Sky
from skyloom.viewer.protocols import Kind

__all__ = ["Entry", "Shelf"]

FITS = (".fits", ".fit", ".fts")
PACKED = (".gz", ".bz2", ".fz")
STORES = (".h5", ".hdf5")
MOST = 3000
"""Entries of a folder; more than that nobody chooses from."""
AT_FIRST = 1 << 16
"""What is decompressed of a packed file to see what it is."""
NO_PRODUCTS = ("stages", "truth")
"""Folders of notes that a run makes for itself."""
MOST_LABELS = 1 << 26
_ORDER: dict[Kind, int] = {"image": 0, "cube": 1, "spectra": 2, "store": 3, "table": 4}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to look at.

    Attributes
    ----------
    key : str
        What the page knows it by.
    title : str
    kind : {"image", "cube", "spectra", "store", "table"}
    path : path
        Below the path of the shelf, links resolved.
    detail : str
        Its size, or how many planes it has.
    group : int
        Which of the grids of a file whose planes have several.
    """

    key: str
    title: str
    kind: Kind
    path: Path
    detail: str = ""
    group: int = 0


class Shelf:
    """What a path offers.

    Parameters
    ----------
    path : str or path
        A folder of results, a FITS file, a store, or a packed one.

    Attributes
    ----------
    path : path
        Links resolved.
    entries : tuple of Entry
    left_out : tuple of str
        What was found and is not shown, and why.

    Raises
    ------
    InputError
        When there is no such path, or nothing in it can be looked at.
    """

    def __init__(self, path: str | Path) -> None:
        given = Path(path)
        if not given.exists():
            raise InputError(
                "there is no such file or folder",
                source=path,
                remedy="give a folder of results, a FITS file, or a store",
            )
        self.path = given.resolve()
        self._left_out: list[str] = []
        entries = list(self._found())
        entries.sort(key=lambda entry: _ORDER[entry.kind])
        self.entries: tuple[Entry, ...] = tuple(entries)
        self._by_key = {entry.key: entry for entry in self.entries}
        self._stores: dict[str, Any] = {}
        others = [entry.title for entry in self.entries if entry.kind == "store"][1:]
        more = [f"{title}: a page shows one store; name this one to 'skyloom view'" for title in others]
        self.left_out = (*more, *self._left_out)
        if not self.entries:
            reason = f" ({self._left_out[0]})" if self._left_out else ""
            raise InputError(
                f"there is nothing to look at{reason}",
                source=path,
                remedy="give a folder of results, a FITS file, or a store",
            )

    def entry(self, key: str) -> Entry:
        """Return an entry by its key.

        Raises
        ------
        InputError
            When there is none, or its file no longer lies below the path.
        """
        found = self._by_key.get(key) if isinstance(key, str) else None
        if found is None:
            raise InputError(f"there is no entry {str(key)[:80]!r}", field="entry")
        if found.path.resolve() != found.path or not self._is_inside(found.path):
            raise InputError("the file is now a link to another one", source=found.path, field="entry")
        return found

    def may_read(self, path: Path) -> bool:
        """Tell whether there is such a file, and whether it, wherever links lead, lies below the path."""
        return path.is_file() and self._is_inside(path.resolve())

    def open(self, key: str) -> Any:
        """Return what an entry holds: a `PlaneSource` of an image or a cube, else the entry itself.

        Raises
        ------
        InputError
            As `entry`, and when the file cannot be read.
        """
        entry = self.entry(key)
        if entry.kind == "cube":
            return CubePlanes(entry.path, entry.title)
        if entry.kind == "image":
            return self._open_image(entry)
        return entry

    def open_store(self, entry: Entry) -> Any:
        """Return a store, opened once for all pages: its index is in memory, a gigabyte of that of a survey."""
        if entry.key not in self._stores:
            import skyloom.store

            self._stores[entry.key] = skyloom.store.open(entry.path)
        return self._stores[entry.key]

    def close(self) -> None:
        """Close the stores that are open."""
        while self._stores:
            self._stores.popitem()[1].close()

    def first(self, *kinds: Kind) -> Entry | None:
        """Return the first entry of one of these kinds."""
        return next((entry for kind in kinds for entry in self.entries if entry.kind == kind), None)

    # --- finding ----------------------------------------------------------------------------------------

    def _found(self) -> Iterator[Entry]:
        if self.path.is_file():
            yield from self._entries_of(self.path, self.path.name)
            return
        if _is_store(self.path):
            yield Entry("store", self.path.name, "store", self.path)
            return
        count = 0
        for place in self._files():
            name = place.relative_to(self.path).as_posix()
            real = place.resolve()
            if not self._is_inside(real):
                self._left_out.append(f"{name} leads out of the folder")
                continue
            for entry in self._entries_of(real, name):
                count += 1
                if count > MOST:
                    self._left_out.append(f"more than {MOST} entries")
                    return
                yield entry

    def _files(self) -> Iterator[Path]:
        """Files and stores below the folder, in the order of their names; links to folders are not followed."""
        for folder, folders, files in os.walk(self.path):
            here = Path(folder)
            stores = [name for name in sorted(folders) if _is_store(here / name)]
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith((".", "_")) and name not in (*stores, *NO_PRODUCTS)
            )
            for name in [*stores, *sorted(files)]:
                if not name.startswith("."):
                    yield here / name

    def _is_inside(self, path: Path) -> bool:
        return path == self.path or path.is_relative_to(self.path)

    def _entries_of(self, path: Path, name: str) -> Iterator[Entry]:
        stem = name.lower()
        for ending in PACKED:
            stem = stem.removesuffix(ending)
        if path.is_dir():
            yield Entry(name, name, "store", path)
        elif stem.endswith(STORES):
            if _is_packed_store(path):
                yield Entry(name, name, "store", path)
        elif stem.endswith(FITS) or path == self.path:
            try:
                yield from _fits_entries(path, name)
            except SkyloomError as error:
                self._left_out.append(f"{name}: {error}")
            except OSError as error:
                self._left_out.append(f"{name}: {error.strerror or error}")

    # --- opening ----------------------------------------------------------------------------------------

    def _open_image(self, entry: Entry) -> Planes:
        if entry.path.name.lower().endswith(".bz2") or _is_sdss_frame(entry.path):
            read = _read_whole(entry)
            if read is not None:
                return read
        groups = plane_groups(entry.path, self._weight_of(entry.path))
        if entry.group >= len(groups):
            raise FileFormatError("the file has changed", source=entry.path)
        planes = groups[entry.group]
        first = planes[0]
        return Planes(
            entry.title,
            [Plane(plane.name, plane, plane.unit, plane.is_code) for plane in planes],
            first.shape,
            Sky(first.wcs()),
            has_errors=any(plane.error is not None for plane in planes),
            labels=self._labels(entry.path, first),
        )

    def _weight_of(self, path: Path) -> Path | None:
        """The weights beside an image of the HST, where they lie below the path of the shelf too."""
        for ending in ("_wht", "_ivm", "_weight"):
            beside = path.with_name(path.name.replace("_sci", ending).replace("_drz", ending))
            if beside != path and self.may_read(beside):
                return beside.resolve()
        return None

    def _labels(self, path: Path, plane: HduPlane) -> Any:
        """The bins of the pixels: those of the file, or of the run that it belongs to."""
        from skyloom.viewer.spectra.bin_files import bins_prefix

        candidates = [path]
        prefix = bins_prefix(path, self.may_read)
        if prefix is not None:
            candidates.append(Path(f"{prefix}_bins.fits"))
        for candidate in filter(self.may_read, candidates):
            hdu = bins_in(candidate)
            if (
                hdu is not None
                and hdu.shape == plane.shape
                and plane.shape[0] * plane.shape[1] <= MOST_LABELS
            ):
                return np.asarray(hdu.section(slice(None)), np.int32)
        return None


def _is_store(path: Path) -> bool:
    from skyloom.store.files.folder import is_store

    return path.is_dir() and is_store(path)


def _is_packed_store(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return "links" in file or "observations" in file or "index" in file
    except OSError:
        return False


def _is_sdss_frame(path: Path) -> bool:
    from skyloom.io.registry import sniff_instrument

    try:
        return sniff_instrument(path) == "sdss-frame"
    except SkyloomError:
        return False


def _read_whole(entry: Entry) -> Planes | None:
    """Read an image whose errors are derived rather than stored, or whose file is compressed as a whole."""
    from skyloom.core.image import Image
    from skyloom.io.registry import read
    from skyloom.viewer.planes.blocks import Pixels

    try:
        image = read(entry.path)
    except SkyloomError:
        return None
    if not isinstance(image, Image):
        return None
    reader = ArrayReader(Pixels(image.data, image.variance, image.mask))
    unit = str(image.unit.to_string("unicode"))
    name = str(image.meta.get("band") or entry.title)
    return Planes(entry.title, [Plane(name, reader, unit)], image.shape, Sky(image.wcs), has_errors=True)


def _fits_entries(path: Path, name: str) -> Iterator[Entry]:
    packed = path.name.lower().endswith(PACKED[:2])
    with open_fits(path, whole=False, at_first=AT_FIRST if packed else None) as file:
        kind = _kind_of(file)
        if kind == "cube":
            shape = next(hdu.shape for hdu in file if hdu.is_image and len(hdu.shape) == 3)
            yield Entry(name, _title(name), kind, path, " × ".join(map(str, shape)))
            return
        if kind != "image" or packed:
            yield Entry(name, _title(name), kind, path)
            return
    for number, group in enumerate(plane_groups(path)):
        ny, nx = group[0].shape
        key = name if number == 0 else f"{name}#{number}"
        title = _title(name) if number == 0 else f"{_title(name)}, {group[0].name}"
        yield Entry(key, title, "image", path, f"{nx} × {ny}", number)


def _title(name: str) -> str:
    """A name without its endings."""
    for ending in (*PACKED, *FITS):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name


def _kind_of(file: FitsFile) -> Kind:
    """Tell what a file is from its headers."""
    own = str(file[0].header.get("SKYTYPE") or "")
    if own == "Spectra":
        return "spectra"
    shapes = [hdu.shape for hdu in file if hdu.is_image and hdu.shape and min(hdu.shape) > 0]
    if any(len(shape) == 3 for shape in shapes):
        return "cube"
    if any(len(shape) == 2 and min(shape) >= SMALLEST for shape in shapes):
        return "image" if not _has_one_wave_per_column(file) else "spectra"
    names = {hdu.name for hdu in file}
    if names & {"COADD", "SPECOBJ", "SPALL"}:
        return "spectra"
    if all(hdu.is_image for hdu in file):
        raise FileFormatError("it holds no image, cube, spectrum or table", source=file.path)
    return "table"


def _has_one_wave_per_column(file: FitsFile) -> bool:
    waves = [
        hdu.shape for hdu in file if hdu.name in ("WAVE", "LOGLAM", "WAVELENGTH") and len(hdu.shape) == 1
    ]
    return any(len(hdu.shape) == 2 and hdu.shape[-1:] in waves for hdu in file if hdu.is_image)
