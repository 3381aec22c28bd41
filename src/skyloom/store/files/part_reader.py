"""Reading one part of a store: whole observations, windows of their planes, spectra, the table of columns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.store.files.part_table import PartTable, reason_of
from skyloom.store.files.parts import GROUPS, NATIVE
from skyloom.store.files.stored_form import (
    StoredLevel,
    cube_from,
    image_from,
    moved_wcs,
    spectra_from,
    wcs_from_cards,
)
from skyloom.store.files.windows import Plane, Window, open_plane, read_rows, read_window, window_ranges
from skyloom.store.observation import Level, Observation
from skyloom.store.schema import level_group

__all__ = ["PartReader"]

Array = NDArray[Any]
OPEN_LEVELS = 64
"""Levels whose planes are kept open."""


class _OpenLevel(NamedTuple):
    """A level of an image or a cube with its planes open."""

    planes: dict[str, Plane]
    note: dict[str, Any]
    shape: tuple[int, ...]


class PartReader(PartTable):
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
        super().__init__(path)
        self._levels: OrderedDict[tuple[int, int], _OpenLevel] = OrderedDict()
        self._rows: dict[tuple[str, str], Plane] = {}
        self._shared: dict[tuple[str, str], Array] = {}

    def close(self) -> None:
        """Close the file."""
        self._levels.clear()
        self._rows.clear()
        super().close()

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
            planes = {plane: open_plane(group[plane]) for plane in note["planes"]}
        except (OSError, RuntimeError, KeyError) as error:
            raise self._damaged(f"{name}: {reason_of(error)}") from error
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
        ranges = window_ranges(opened.shape, window, channels)
        try:
            return {
                name: read_window(opened.planes[name], name, ranges, opened.shape)
                for name in (opened.planes if names is None else names)
            }
        except (OSError, RuntimeError) as error:
            raise self._damaged(f"{obs}, level {level}: {reason_of(error)}") from error
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
        ranges = window_ranges(opened.shape, window, channels)
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
        first_row = window_ranges(opened.shape, window, None)[0][0]
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
        start, stop = window_ranges(opened.shape, window, channels)[0]
        planes["wave"] = planes["wave"][start:stop]
        if "lsf" in planes and planes["lsf"].shape == opened.shape[:1]:
            planes["lsf"] = planes["lsf"][start:stop]
        spectral = planes.get("correlation_spectral")
        if spectral is not None and spectral.ndim == 2:
            planes["correlation_spectral"] = _cut_lags(spectral, start, stop)
        return cube_from(planes, opened.note, self.wcs(obs, level, window, channels))

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

    def spectrum_planes(
        self,
        obs: str | int,
        level: int = 0,
        names: Sequence[str] = ("flux", "variance", "mask", "wave"),
    ) -> StoredLevel:
        """Return planes of a spectrum and its note as they lie in the file: a fifth of the time of `spectrum`."""
        number = self.number(obs)
        return self._spectrum_level(number, NATIVE if level == 0 else str(level), names)

    def _spectrum_level(self, number: int, name: str, names: Sequence[str] | None = None) -> StoredLevel:
        if self.kind(number) != "spectrum":
            raise InputError(f"{self.obs_ids[number]} is no spectrum", field="obs_id")
        note = self._note(number, name)
        row = int(self.column("row")[number])
        wanted = [plane for plane in note["planes"] if names is None or plane in names]
        try:
            if name == NATIVE:
                start, stop = (int(edge) for edge in self._row_array(name, "start")[row : row + 2])
            else:
                start, stop = row, row + 1
            planes = {
                plane: read_rows(self._row_plane(name, plane), start, stop)
                for plane in wanted
                if name == NATIVE or plane != "wave"
            }
            if name != NATIVE:
                planes = {plane: values[0] for plane, values in planes.items()}
                planes["wave"] = self._row_array(name, "wave").copy()
        except (OSError, RuntimeError, KeyError, IndexError, ValueError) as error:
            raise self._damaged(f"{self.obs_ids[number]}, level {name}: {reason_of(error)}") from error
        if "lags" in planes:
            upper = note["lags"].size // 2 if isinstance(note["lags"], np.ndarray) else note["lags"]
            planes["lags"] = np.ascontiguousarray(planes["lags"][:, :upper])
        return StoredLevel(planes, note)

    def _row_plane(self, name: str, plane: str) -> Plane:
        """Return an open dataset of rows; opened once."""
        key = (name, plane)
        if key not in self._rows:
            self._rows[key] = open_plane(self.file[f"{_rows_group(name)}/{plane}"])
        return self._rows[key]

    def _row_array(self, name: str, plane: str) -> Array:
        """Return what the rows share; read once."""
        key = (name, plane)
        if key not in self._shared:
            self._shared[key] = self.file[f"{_rows_group(name)}/{plane}"][:]
        return self._shared[key]

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
        """Return a whole observation, as it was given to `skyloom.store.files.parts.write_part`."""
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


def _without_counts(opened: _OpenLevel) -> list[str]:
    return [name for name in opened.planes if name != "n_good"]


def _rows_group(name: str) -> str:
    return level_group(0, "spectra/native") if name == NATIVE else level_group(int(name), "spectra")


def _cut_lags(lags: Array, start: int, stop: int) -> Array:
    """Return the band of lags of some channels, without what reaches beyond them."""
    cut: Array = lags[start:stop].copy()
    middle = cut.shape[1] // 2
    channel = np.arange(stop - start)[:, None] + np.arange(-middle, middle + 1)
    cut[(channel < 0) | (channel >= stop - start)] = 0.0
    return cut
