"""Reading one part of a store: whole observations, windows of their planes, spectra, the table of columns."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.errors import FileFormatError, InputError
from skyloom.io.plain_json import from_json
from skyloom.store.observation import Level, Observation
from skyloom.store.parts import GROUPS, NATIVE, OBSERVATIONS
from skyloom.store.schema import SCHEMA_VERSION, level_group
from skyloom.store.stored_form import (
    WHOLE,
    StoredLevel,
    cube_from,
    image_from,
    moved_wcs,
    spectra_from,
    split_notes,
    wcs_from_cards,
)

__all__ = ["PartReader", "Window"]

Array = NDArray[Any]
Window = tuple[slice, slice]
"""(slice of y, slice of x) in pixels of a level; negative numbers are pixels before the first, not from the end."""
CHUNK_CACHE = 1 << 19
"""Bytes of decompressed chunks kept per open plane."""
OPEN_LEVELS = 64
"""Levels whose planes are kept open."""
FILLS = {"flux": np.nan, "variance": np.nan, "mask": True, "lsf": np.nan}


class _Plane(NamedTuple):
    """An open dataset, by what low-level reading needs."""

    identity: Any
    space: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _OpenLevel(NamedTuple):
    """A level of an image or a cube with its planes open."""

    planes: dict[str, _Plane]
    note: dict[str, Any]
    shape: tuple[int, ...]


class PartReader:
    """An open file of a store, of one partition or packed.

    Observations are named by their ``obs_id``, or by their number in the table of observations.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    FileFormatError
        When the file is missing, damaged, incomplete, or of another schema.
    """

    def __init__(self, path: str | Path) -> None:
        import h5py
        import hdf5plugin  # noqa: F401  registers the filters

        self.path = Path(path)
        try:
            # Parts never change, and HDF5 opens a file twice in one process only with equal settings of its locks.
            self.file = h5py.File(self.path, "r", rdcc_nbytes=CHUNK_CACHE, locking=False)
        except OSError as error:
            raise self._damaged(_reason(error)) from error
        try:
            self._open()
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            self.file.close()
            raise self._damaged(_reason(error)) from error
        except BaseException:
            self.file.close()
            raise
        # Several threads may read from one part; what is remembered changes under them.
        self._lock = Lock()
        self._levels: OrderedDict[tuple[int, int], _OpenLevel] = OrderedDict()
        self._extras: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._columns: dict[str, Array] = {}
        self._rows: dict[tuple[str, str], _Plane] = {}
        self._shared: dict[tuple[str, str], Array] = {}

    def _open(self) -> None:
        attributes = self.file.attrs
        if not attributes.get("complete", False):
            raise self._damaged("it was never finished")
        if attributes["schema"] != SCHEMA_VERSION:
            raise FileFormatError(
                f"the file has schema {attributes['schema']}; this version of Skyloom reads {SCHEMA_VERSION}",
                source=self.path,
                remedy="install the version of Skyloom that wrote it",
            )
        self.settings: dict[str, Any] = json.loads(attributes["settings"])
        self.digest = str(attributes["digest"])
        self.table = self.file[OBSERVATIONS]
        self.obs_ids: list[str] = [value.decode() for value in self.table["obs_id"][:].tolist()]
        self.numbers = {name: number for number, name in enumerate(self.obs_ids)}

    def _damaged(self, reason: str) -> FileFormatError:
        return FileFormatError(
            f"the part cannot be read: {reason}",
            source=self.path,
            remedy="restore the file from a copy, or ingest its sources again",
        )

    def close(self) -> None:
        """Close the file."""
        self._levels.clear()
        self._rows.clear()
        self.file.close()

    def __enter__(self) -> PartReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.obs_ids)

    # -------------------------------------------------------------------------------------------- the table

    def number(self, obs: str | int) -> int:
        """Return the number of an observation in the table.

        Raises
        ------
        InputError
            When there is none of this name or number.
        """
        if isinstance(obs, str):
            number = self.numbers.get(obs, -1)
        else:
            number = int(obs)
        if not 0 <= number < len(self.obs_ids):
            raise InputError(f"there is no observation {obs!r}", source=self.path, field="obs_id")
        return number

    def column(self, name: str) -> Array:
        """Return one column of the table, text as numpy text."""
        if name not in self._columns:
            try:
                values = self.table[name][:]
            except (OSError, RuntimeError, KeyError) as error:
                raise self._damaged(f"column {name}: {_reason(error)}") from error
            self._columns[name] = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
        return self._columns[name]

    def columns(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Return columns of the table; all of them unless ``names`` are given."""
        from skyloom.store.schema import COLUMNS

        return {name: self.column(name) for name in (names if names is not None else (*COLUMNS, "row"))}

    def header(self, obs: str | int) -> str:
        """Return the original header of an observation."""
        return self._text("header", self.number(obs)).decode()

    def _text(self, name: str, number: int) -> bytes:
        try:
            start, stop = self.table[f"{name}_start"][number : number + 2]
            return bytes(self.table[name][start:stop].tobytes())
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise self._damaged(f"{name} of {self.obs_ids[number]}: {_reason(error)}") from error

    def _extra(self, number: int) -> dict[str, Any]:
        found = self._extras.get(number)
        if found is not None:
            return found
        try:
            extra: dict[str, Any] = from_json(self._text("extra", number).decode())
            extra["notes"] = dict(zip(extra["names"], split_notes(extra["notes"]), strict=True))
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"notes of {self.obs_ids[number]}: {_reason(error)}") from error
        with self._lock:
            self._extras[number] = extra
            if len(self._extras) > 4 * OPEN_LEVELS:
                self._extras.popitem(last=False)
        return extra

    def kind(self, obs: str | int) -> str:
        """Return ``image``, ``cube`` or ``spectrum``."""
        return str(self._extra(self.number(obs))["kind"])

    def level_names(self, obs: str | int) -> list[str]:
        """Return the levels of an observation: ``"0"``, ``"1"`` ..., of a spectrum also ``"native"``."""
        return list(self._extra(self.number(obs))["names"])

    def _note(self, number: int, name: str) -> dict[str, Any]:
        notes = self._extra(number)["notes"]
        if name not in notes:
            raise InputError(
                f"{self.obs_ids[number]} has no level {name}",
                source=self.path,
                field="level",
                remedy=f"use one of {', '.join(notes)}",
            )
        note: dict[str, Any] = notes[name]
        return note

    # --------------------------------------------------------------------------------------- images and cubes

    def _level(self, obs: str | int, level: int) -> _OpenLevel:
        number = self.number(obs)
        key = (number, level)
        with self._lock:
            found = self._levels.get(key)
            if found is not None:
                self._levels.move_to_end(key)
                return found
        kind = self.kind(number)
        if kind not in GROUPS:
            raise InputError(
                f"{self.obs_ids[number]} is a {kind}: it has no pixels on the sky", field="obs_id"
            )
        note = self._note(number, str(level))
        name = f"{level_group(level, GROUPS[kind])}/{self.obs_ids[number]}"
        try:
            group = self.file[name]
            planes = {plane: _plane(group[plane]) for plane in note["planes"]}
        except (OSError, RuntimeError, KeyError) as error:
            raise self._damaged(f"{name}: {_reason(error)}") from error
        found = _OpenLevel(planes, note, planes["flux"].shape)
        with self._lock:
            self._levels[key] = found
            if len(self._levels) > OPEN_LEVELS:
                self._levels.popitem(last=False)
        return found

    def shape(self, obs: str | int, level: int = 0) -> tuple[int, ...]:
        """Return the shape of an image or a cube at a level."""
        return self._level(obs, level).shape

    def planes(
        self,
        obs: str | int,
        level: int = 0,
        window: Window | None = None,
        names: Sequence[str] | None = ("flux", "variance", "mask"),
        channels: slice | None = None,
    ) -> dict[str, Array]:
        """Return planes of an image or a cube, or a window of them.

        Parameters
        ----------
        obs : str or int
        level : int
        window : (slice y, slice x), optional
            Pixels of the level; they may lie partly or wholly outside, where values are NaN and the mask is True. A
            negative number is a pixel before the first.
        names : sequence of str, optional
            Which planes; None: all.
        channels : slice, optional
            Of a cube; inside of it.

        Returns
        -------
        dict
            Name -> array; the mask is bool. Planes that have no pixels (``psf``, ``correlation``, ``wave``) are whole.
        """
        opened = self._level(obs, level)
        ranges = _ranges(opened.shape, window, channels)
        try:
            return {
                name: _read(opened.planes[name], name, ranges, opened.shape)
                for name in (opened.planes if names is None else names)
            }
        except (OSError, RuntimeError) as error:
            raise self._damaged(f"{obs}, level {level}: {_reason(error)}") from error
        except KeyError as error:
            raise InputError(
                f"{obs} has no plane {error}", field="names", remedy=f"use {', '.join(opened.planes)}"
            ) from error

    def wcs(
        self, obs: str | int, level: int = 0, window: Window | None = None, channels: slice | None = None
    ) -> WCS | None:
        """Return the WCS of a level, or of a window of it."""
        opened = self._level(obs, level)
        whole = wcs_from_cards(opened.note["wcs"], opened.shape)
        ranges = _ranges(opened.shape, window, channels)
        origin = [start for start, _ in ranges][::-1]
        return moved_wcs(
            whole, origin[0], origin[1], tuple(stop - start for start, stop in ranges), *origin[2:]
        )

    def image(self, obs: str | int, level: int = 0, window: Window | None = None) -> Image:
        """Return an image, or a window of it, with everything that was known of it.

        Parameters
        ----------
        obs, level, window
            As for `planes`.

        Raises
        ------
        InputError
            When it is no image, or has no such level.
        FileFormatError
            When its planes are damaged.
        """
        opened = self._level(obs, level)
        if len(opened.shape) != 2:
            raise InputError(f"{obs} is a cube", field="obs_id", remedy="ask for a cube")
        image = image_from(
            self.planes(obs, level, window, _without_counts(opened)),
            opened.note,
            self.wcs(obs, level, window),
        )
        first_row = _ranges(opened.shape, window, None)[0][0]
        if first_row and "row_time" in image.meta:
            begin, step = image.meta["row_time"]
            image.meta["row_time"] = [begin + first_row * step, step]
        return image

    def cube(
        self,
        obs: str | int,
        level: int = 0,
        window: Window | None = None,
        channels: slice | None = None,
    ) -> Cube:
        """Return a cube, or a window of it, with everything that was known of it; see `image`."""
        opened = self._level(obs, level)
        if len(opened.shape) != 3:
            raise InputError(f"{obs} is an image", field="obs_id", remedy="ask for an image")
        planes = self.planes(obs, level, window, _without_counts(opened), channels)
        start, stop = _ranges(opened.shape, window, channels)[0]
        planes["wave"] = planes["wave"][start:stop]
        if "lsf" in planes and planes["lsf"].shape == opened.shape[:1]:
            planes["lsf"] = planes["lsf"][start:stop]
        spectral = planes.get("correlation_spectral")
        if spectral is not None and spectral.ndim == 2:
            planes["correlation_spectral"] = _cut_lags(spectral, start, stop)
        return cube_from(planes, opened.note, self.wcs(obs, level, window, channels))

    # ----------------------------------------------------------------------------------------------- spectra

    def spectrum(self, obs: str | int, level: int = 0, grid: str | None = None) -> Spectra:
        """Return a spectrum (as `Spectra` of one row) with everything that was known of it.

        Parameters
        ----------
        obs : str or int
        level : int
        grid : {"native", "common"}, optional
            As it was observed, which there is at level 0 alone, or on the wavelengths that all share. None: native at
            level 0, common above.

        Raises
        ------
        InputError
            When it is no spectrum, or has no such level.
        FileFormatError
            When it is damaged.
        """
        grid = grid or (NATIVE if level == 0 else "common")
        if grid not in (NATIVE, "common") or (grid == NATIVE and level != 0):
            raise InputError(
                f"there is no level {level} of the grid {grid!r}",
                field="grid",
                remedy="use 'native' (level 0 only) or 'common'",
            )
        number = self.number(obs)
        stored = self._spectrum_level(number, NATIVE if grid == NATIVE else str(level))
        return spectra_from(stored.planes | {"mask": stored.planes["mask"] != 0}, stored.note)

    def _spectrum_level(self, number: int, name: str) -> StoredLevel:
        if self.kind(number) != "spectrum":
            raise InputError(f"{self.obs_ids[number]} is no spectrum", field="obs_id")
        note = self._note(number, name)
        row = int(self.column("row")[number])
        try:
            if name == NATIVE:
                start, stop = (int(edge) for edge in self._row_array(name, "start")[row : row + 2])
            else:
                start, stop = row, row + 1
            planes = {
                plane: _read_rows(self._row_plane(name, plane), start, stop)
                for plane in note["planes"]
                if name == NATIVE or plane != "wave"
            }
            if name != NATIVE:
                planes = {plane: values[0] for plane, values in planes.items()}
                planes["wave"] = self._row_array(name, "wave").copy()
        except (OSError, RuntimeError, KeyError, IndexError, ValueError) as error:
            raise self._damaged(f"{self.obs_ids[number]}, level {name}: {_reason(error)}") from error
        if "lags" in planes:
            upper = note["lags"].size // 2 if isinstance(note["lags"], np.ndarray) else note["lags"]
            planes["lags"] = np.ascontiguousarray(planes["lags"][:, :upper])
        return StoredLevel(planes, note)

    def _row_plane(self, name: str, plane: str) -> _Plane:
        """Return an open dataset of rows; opened once."""
        key = (name, plane)
        if key not in self._rows:
            self._rows[key] = _plane(self.file[f"{_rows_group(name)}/{plane}"])
        return self._rows[key]

    def _row_array(self, name: str, plane: str) -> Array:
        """Return what the rows share; read once."""
        key = (name, plane)
        if key not in self._shared:
            self._shared[key] = self.file[f"{_rows_group(name)}/{plane}"][:]
        return self._shared[key]

    # ------------------------------------------------------------------------------------ whole observations

    def stored_levels(self, obs: str | int) -> Iterator[tuple[str, StoredLevel]]:
        """Yield each level as it lies in the file, by name, one at a time."""
        number = self.number(obs)
        for name in self.level_names(number):
            if self.kind(number) == "spectrum":
                yield name, self._spectrum_level(number, name)
            else:
                planes = self.planes(number, int(name), None, None)
                planes["mask"] = planes["mask"].view(np.uint8)
                yield name, StoredLevel(planes, self._level(number, int(name)).note)

    def level(self, obs: str | int, level: int = 0, grid: str | None = None) -> Level[Any]:
        """Return one level of an observation, with the counts of good pixels."""
        number = self.number(obs)
        kind = self.kind(number)
        if kind == "spectrum":
            name = NATIVE if (grid or (NATIVE if level == 0 else "common")) == NATIVE else str(level)
            counts = self._spectrum_level(number, name).planes["n_good"][None]
            return Level(self.spectrum(number, level, grid), counts)
        counts = self.planes(number, level, None, ("n_good",))["n_good"]
        return Level(self.image(number, level) if kind == "image" else self.cube(number, level), counts)

    def observation(self, obs: str | int) -> Observation:
        """Return a whole observation, as it was given to `skyloom.store.parts.write_part`."""
        number = self.number(obs)
        levels = [name for name in self.level_names(number) if name != NATIVE]
        columns = {name: values[number].item() for name, values in self.columns().items() if name != "row"}
        is_spectrum = self.kind(number) == "spectrum"
        return Observation(
            obs_id=self.obs_ids[number],
            kind=self.kind(number),
            columns=columns,
            header=self.header(number),
            levels=tuple(self.level(number, int(name), "common") for name in levels),
            native=self.level(number, 0, NATIVE) if is_spectrum else None,
        )


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _without_counts(opened: _OpenLevel) -> list[str]:
    return [name for name in opened.planes if name != "n_good"]


def _plane(dataset: Any) -> _Plane:
    return _Plane(dataset.id, dataset.id.get_space(), dataset.shape, dataset.dtype)


def _ranges(
    shape: tuple[int, ...], window: Window | None, channels: slice | None
) -> tuple[tuple[int, int], ...]:
    """Return (start, stop) along each axis; those of the window may lie outside."""
    slices: tuple[slice, ...] = window if window is not None else (slice(None), slice(None))
    sky = tuple(
        _edges(part, size, axis) for part, size, axis in zip(slices, shape[-2:], ("y", "x"), strict=True)
    )
    if len(shape) == 2:
        return sky
    start, stop, step = (channels or slice(None)).indices(shape[0])
    if step != 1 or start >= stop:
        raise InputError(f"channels are {channels}; expected some of {shape[0]}, in order", field="channels")
    return ((start, stop), *sky)


def _edges(part: slice, size: int, axis: str) -> tuple[int, int]:
    start = 0 if part.start is None else int(part.start)
    stop = size if part.stop is None else int(part.stop)
    if part.step not in (None, 1) or stop <= start:
        raise InputError(f"the window is {part} along {axis}; expected start < stop, step 1", field="window")
    return start, stop


def _read(plane: _Plane, name: str, ranges: tuple[tuple[int, int], ...], pixels: tuple[int, ...]) -> Array:
    """Read a window of a plane without going through h5py's selections, which cost more than the pixels."""
    import h5py

    if name in WHOLE or plane.shape != pixels:
        values = np.empty(plane.shape, plane.dtype)
        plane.identity.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        return values
    size = tuple(stop - start for start, stop in ranges)
    inside = [
        (max(start, 0), min(stop, length)) for (start, stop), length in zip(ranges, plane.shape, strict=True)
    ]
    complete = all(edge == wanted for edge, wanted in zip(inside, ranges, strict=True))
    values = np.empty(size, plane.dtype) if complete else np.full(size, FILLS.get(name, 0), plane.dtype)
    if all(start < stop for start, stop in inside):
        count = tuple(stop - start for start, stop in inside)
        offset = tuple(start - edge[0] for (start, _), edge in zip(inside, ranges, strict=True))
        memory = h5py.h5s.create_simple(size)
        memory.select_hyperslab(offset, count)
        # A space of its own: readers in several threads share the plane.
        space = plane.space.copy()
        space.select_hyperslab(tuple(start for start, _ in inside), count)
        plane.identity.read(memory, space, values)
    return values != 0 if name == "mask" else values


def _rows_group(name: str) -> str:
    return level_group(0, "spectra/native") if name == NATIVE else level_group(int(name), "spectra")


def _read_rows(plane: _Plane, start: int, stop: int) -> Array:
    """Read entries along the first axis."""
    import h5py

    if not 0 <= start <= stop <= plane.shape[0]:
        raise IndexError(f"rows {start} to {stop} of {plane.shape[0]}")
    values = np.empty((stop - start, *plane.shape[1:]), plane.dtype)
    if values.size:
        space = plane.space.copy()
        space.select_hyperslab((start, *(0,) * (values.ndim - 1)), values.shape)
        plane.identity.read(h5py.h5s.create_simple(values.shape), space, values)
    return values


def _cut_lags(lags: Array, start: int, stop: int) -> Array:
    """Return the band of lags of some channels, without what reaches beyond them."""
    cut: Array = lags[start:stop].copy()
    middle = cut.shape[1] // 2
    channel = np.arange(stop - start)[:, None] + np.arange(-middle, middle + 1)
    cut[(channel < 0) | (channel >= stop - start)] = 0.0
    return cut
