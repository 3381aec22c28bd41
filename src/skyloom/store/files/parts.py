"""Writing one part of a store: the observations of a partition in one HDF5 file that can stand for itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom._version import __version__
from skyloom.errors import InputError
from skyloom.io.formats.atomic import atomic_path
from skyloom.io.formats.cards import parse_header
from skyloom.io.formats.plain_json import to_json
from skyloom.store.files.digests import column_value, digest_of_part, observation_digest
from skyloom.store.files.filters import table_filters, text_filters, write_array, write_attributes
from skyloom.store.files.stored_form import StoredLevel, apart, join_notes
from skyloom.store.levels.spectrum_rows import RaggedRows, StackedRows
from skyloom.store.observation import Observation
from skyloom.store.schema import COLUMNS, SCHEMA_VERSION, Column, StoreSettings, level_group

__all__ = ["GROUPS", "NATIVE", "OBSERVATIONS", "PartSummary", "PartWriter", "write_part"]

OBSERVATIONS = "observations"
NATIVE = "native"
ROW = Column("row", "i8", "", "meta.number", "row among the spectra; -1 for images and cubes")
GROUPS = {"image": "images", "cube": "cubes"}
_OBS_ID = re.compile(r"[A-Za-z0-9+\-._]+")
_CARD = re.compile(r"CTYPE\d|CUNIT\d|CR(?:PIX|VAL)\d|CD(?:ELT\d|\d_\d)|PC\d_\d|RADESYS")
WRITE_CACHE = 1 << 20
"""Bytes of chunks that HDF5 keeps per plane: chunks are written whole, and fresh memory costs more than it saves."""
Array = NDArray[Any]


class PartSummary(NamedTuple):
    """What has been written."""

    n: int
    """Observations."""
    digest: str
    """Of the logical content of all of them."""
    bytes: int
    """Size of the file."""


def write_part(
    path: str | Path,
    observations: Iterable[Observation],
    settings: StoreSettings,
    *,
    filters: str = "lz4",
    overwrite: bool = False,
) -> PartSummary:
    """Write observations into one file, one after the other, so that one is in memory at a time.

    Parameters
    ----------
    path : str or path
        Of the file, which appears when it is complete; its folder is made where there is none.
    observations : iterable of Observation
        The column ``digest`` is computed here, whatever it holds.
    settings : StoreSettings
    filters : {"lz4", "gzip"}
        How planes are compressed, without loss in both cases: what is to be rounded comes here rounded.
    overwrite : bool
        Whether a file of that name is replaced, in the moment in which the new one is complete.

    Raises
    ------
    InputError
        When the file exists, there are no observations, or one cannot be stored; nothing is left behind then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, overwrite=overwrite) as temporary:
        with PartWriter(temporary, settings, filters=filters) as writer:
            for observation in observations:
                writer.add(observation)
            digest = writer.finish()
        size = temporary.stat().st_size
    return PartSummary(writer.n, digest, size)


class PartWriter:
    """A part that is being written.

    Parameters
    ----------
    path : path
        Of the file, which is made; see `write_part` for one that appears when it is complete.
    settings : StoreSettings
    filters : {"lz4", "gzip"}
    packed : bool
        Whether a whole store is put together: the cards of a WCS are then attributes one by one, for those who read
        the file without Skyloom.
    """

    def __init__(
        self, path: Path, settings: StoreSettings, *, filters: str = "lz4", packed: bool = False
    ) -> None:
        import h5py

        self.packed = packed

        self.path = path
        self.settings = settings
        self.filters = filters
        # The newer format of groups and chunks is faster, and has checksums of its own.
        self.file = h5py.File(path, "w", libver=("v110", "v110"), rdcc_nbytes=WRITE_CACHE)
        self.columns: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, ROW.name)}
        self.headers: list[bytes] = []
        self.extras: list[bytes] = []
        self.known: set[str] = set()
        self.stacks: dict[str, StackedRows | RaggedRows] = {}
        self.n_spectra = 0

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def n(self) -> int:
        """Observations written so far."""
        return len(self.headers)

    def add(self, observation: Observation) -> str:
        """Write one observation and return its digest.

        Raises
        ------
        InputError
            When its name is taken or has other letters than ``A-Za-z0-9+-._``, a column is missing, its kind is
            unknown, or it holds something that cannot be stored.
        """
        self._check(observation)
        values = {name: column_value(name, observation.columns[name]) for name in COLUMNS}
        levels = self._levels(observation)
        values["digest"] = observation_digest(values, observation.header, levels)
        values["version"] = values["version"] or __version__
        row = -1
        if observation.kind == "spectrum":
            row = self.n_spectra
            self.n_spectra += 1
            for name, level in levels.items():
                self._stack(name, level).add(row, level)
        else:
            for name, level in levels.items():
                self._write_planes(observation, name, level)
        self._note(observation, values | {ROW.name: row}, levels)
        return str(values["digest"])

    def _check(self, observation: Observation) -> None:
        name = observation.obs_id
        if not _OBS_ID.fullmatch(name) or name in (".", ".."):
            raise InputError(
                f"{name!r} cannot name an observation",
                field="obs_id",
                remedy="use letters, digits and + - . _",
            )
        if name in self.known:
            raise InputError(f"{name} is in this part already", field="obs_id")
        if observation.columns.get("obs_id") != name:
            raise InputError(f"the column obs_id is {observation.columns.get('obs_id')!r}, not {name!r}")
        missing = sorted(COLUMNS.keys() - observation.columns.keys())
        if missing:
            raise InputError(f"{name} has no value for {', '.join(missing)}", field="columns")
        if observation.kind not in (*GROUPS, "spectrum"):
            raise InputError(f"kind is {observation.kind!r}; expected image, cube or spectrum", field="kind")
        if observation.kind == "spectrum" and observation.native is None:
            raise InputError(f"the spectrum {name} has no native level", field="native")

    def _levels(self, observation: Observation) -> dict[str, StoredLevel]:
        is_spectrum = observation.kind == "spectrum"
        levels = {str(z): apart(level, common=is_spectrum) for z, level in enumerate(observation.levels)}
        if observation.native is not None:
            levels[NATIVE] = apart(observation.native)
        return levels

    def _stack(self, name: str, level: StoredLevel) -> StackedRows | RaggedRows:
        if name not in self.stacks:
            where = level_group(0, "spectra/native") if name == NATIVE else level_group(int(name), "spectra")
            group = self.file.require_group(where)
            kind = RaggedRows if name == NATIVE else StackedRows
            self.stacks[name] = kind(group, level, self.filters)
        return self.stacks[name]

    def _write_planes(self, observation: Observation, name: str, level: StoredLevel) -> None:
        group = self.file.create_group(
            f"{level_group(int(name), GROUPS[observation.kind])}/{observation.obs_id}"
        )
        for plane, values in level.planes.items():
            write_array(group, plane, values, self.filters)
        attributes: dict[str, Any] = {"NX_class": "NXdata", "signal": "flux", "unit": level.note["unit"]}
        attributes["axes"] = ["wave", ".", "."] if "wave" in level.planes else [".", "."]
        if level.note["wcs"]:
            cards = level.note["wcs"]
            attributes["wcs"] = "\n".join(cards[at : at + 80].rstrip() for at in range(0, len(cards), 80))
            if self.packed:
                # Each is as dear as a chunk of pixels, and in a part nobody looks for it.
                header = parse_header(cards.encode("ascii"))
                attributes |= {key: value for key, value in header.items() if _CARD.fullmatch(key)}
        scale = observation.columns["pixel_scale"]
        if scale is not None:
            attributes["pixel_scale"] = float(scale) * 2 ** int(name)
        write_attributes(group, attributes)
        write_attributes(group["flux"], {"units": level.note["unit"]})
        if "wave" in level.planes:
            write_attributes(group["wave"], {"units": "Angstrom", "medium": level.note["medium"]})

    def _note(
        self, observation: Observation, values: Mapping[str, Any], levels: Mapping[str, StoredLevel]
    ) -> None:
        for name, column in self.columns.items():
            column.append(values[name])
        self.known.add(observation.obs_id)
        self.headers.append(observation.header.encode())
        extra = {
            "kind": observation.kind,
            "names": list(levels),
            "notes": join_notes([level.note for level in levels.values()]),
        }
        self.extras.append(to_json(extra, "extra").encode())

    # ------------------------------------------------------------------------------------------ the end

    def finish(self) -> str:
        """Write what all observations share, mark the file as complete, and return the digest of the part.

        Raises
        ------
        InputError
            When nothing has been added.
        """
        if not self.n:
            raise InputError("there is no observation to write", source=self.path)
        for stack in self.stacks.values():
            stack.finish(self.n_spectra)
        table = self.file.create_group(OBSERVATIONS)
        for column in (*COLUMNS.values(), ROW):
            _write_column(table, column, self.columns[column.name])
        _write_texts(table, "header", self.headers, self.filters)
        _write_texts(table, "extra", self.extras, self.filters)
        write_attributes(table, {"NX_class": "NXcollection", "n": self.n})
        self._write_classes()
        digest = digest_of_part(zip(self.columns["obs_id"], self.columns["digest"], strict=True))
        write_attributes(
            self.file,
            {
                "NX_class": "NXroot",
                "creator": "Skyloom",
                "version": __version__,
                "schema": SCHEMA_VERSION,
                "settings": json.dumps(self.settings.describe(), sort_keys=True),
                "digest": digest,
            },
        )
        # Last of all: a file without it is none.
        self.file.attrs["complete"] = True
        return digest

    def _write_classes(self) -> None:
        """Give each group its NeXus class and the way to the data that is shown first."""

        def default_of(group: Any) -> str:
            names = list(group)
            return "images" if "images" in names else "cubes" if "cubes" in names else names[0]

        cube = self.file[level_group(0, "").split("/")[0]]
        write_attributes(self.file, {"default": cube.name.strip("/")})
        write_attributes(cube, {"NX_class": "NXentry", "default": "0", "title": "semi-sparse cube"})
        for level in cube.values():
            write_attributes(level, {"NX_class": "NXsubentry", "default": default_of(level)})
            for kind, group in level.items():
                if kind != "spectra" or "flux" not in group:
                    write_attributes(group, {"NX_class": "NXcollection", "default": next(iter(group))})


def _write_column(table: Any, column: Column, values: list[Any]) -> None:
    import h5py

    if column.kind == "str":
        encoded = [value.encode() for value in values]
        width = max(1, *(len(value) for value in encoded))
        array: Array = np.array(encoded, dtype=h5py.string_dtype("utf-8", width))
    else:
        array = np.array(values, dtype=column.kind)
    dataset = table.create_dataset(
        column.name, data=array, chunks=(min(len(values), 1 << 14),), **table_filters()
    )
    attributes = {"ucd": column.ucd, "description": column.description}
    write_attributes(dataset, {"units": column.unit, **attributes} if column.unit else attributes)


def _write_texts(table: Any, name: str, texts: list[bytes], filters: str) -> None:
    """Write texts of any length end to end, and where each begins."""
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    # HDF5 has no chunks of length 0.
    content = np.frombuffer(b"".join(texts) or b"\n", dtype=np.uint8)
    table.create_dataset(name, data=content, chunks=(min(content.size, 1 << 16),), **text_filters(filters))
    table.create_dataset(
        f"{name}_start", data=offsets, chunks=(min(offsets.size, 1 << 14),), **table_filters()
    )
