"""Spectra of a part as rows: stacked on the grid that all share, or end to end, each with its own wavelengths."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.store.files.filters import RAGGED_CHUNK, row_chunks, value_filters, write_attributes
from skyloom.store.files.stored_form import StoredLevel

__all__ = ["RaggedRows", "StackedRows"]

Array = NDArray[Any]
BATCH = 64
"""Rows that are collected before they are written."""


class _Kind(NamedTuple):
    dtype: Any
    fill: Any


STACKED = {
    "flux": _Kind(np.float32, np.nan),
    "variance": _Kind(np.float32, np.nan),
    "mask": _Kind(np.uint8, 1),
    "n_good": _Kind(np.uint16, 0),
    "flags": _Kind(np.uint16, 0),
    "lsf": _Kind(np.float32, np.nan),
    "lags": _Kind(np.float32, 0),
}
RAGGED = STACKED | {
    "wave": _Kind(np.float64, np.nan),
    "lsf": _Kind(np.float64, np.nan),
    "lags": _Kind(np.float64, 0),
}


class StackedRows:
    """Rows on common wavelengths: ``flux (n, n_wave)`` and so on, ``lags (n, n_wave, k)``, one ``wave (n_wave,)``.

    Rows that are never added stay masked. Planes that no row has are not made.
    """

    def __init__(self, group: Any, first: StoredLevel, filters: str) -> None:
        self.group = group
        self.filters = filters
        self.wave = first.planes["wave"]
        # Rows wait as rows: hundreds of small arrays of other spectra would be in the way of those to come.
        self.waiting: dict[str, Array] = {}
        self.first = self.next = 0
        self.n = 0
        group.create_dataset("wave", data=self.wave)
        write_attributes(group["wave"], {"units": "Angstrom", "medium": first.note["medium"]})
        write_attributes(group, {"NX_class": "NXdata", "signal": "flux", "axes": [".", "wave"]})
        for name in ("flux", "variance", "mask", "n_good"):
            self._make(name)

    def _make(self, name: str) -> Any:
        kind = STACKED[name]
        n_wave = self.wave.size
        shape: tuple[int, ...] = (self.n, n_wave)
        limits: tuple[int | None, ...] = (None, n_wave)
        chunks: tuple[int, ...] = row_chunks(n_wave, np.dtype(kind.dtype).itemsize)
        if name == "lags":
            shape, limits, chunks = (*shape, 0), (*limits, None), (*chunks, 1)
        dataset = self.group.create_dataset(
            name, shape, kind.dtype, maxshape=limits, chunks=chunks, fillvalue=kind.fill,
            **value_filters(self.filters),
        )  # fmt: skip
        if name == "lsf":
            write_attributes(dataset, {"units": "Angstrom", "description": "standard deviation"})
        return dataset

    def add(self, row: int, level: StoredLevel) -> None:
        """Take the row of one spectrum, which follows those before.

        Raises
        ------
        InputError
            When its wavelengths are not those of the others.
        """
        wave = level.planes["wave"]
        if wave is not self.wave and not np.array_equal(wave, self.wave):
            raise InputError(
                "the wavelengths of a level differ from those of the other spectra",
                field="wave",
                remedy="bring all spectra to the common grid of the store",
            )
        if row >= self.first + BATCH:
            self.flush()
            # Whole chunks are written.
            self.first = self.next = row - row % BATCH
        place = row - self.first
        for name in level.planes.keys() & STACKED.keys():
            self._make_room(name, level.planes[name])
        for name, rows in self.waiting.items():
            fill = STACKED[name].fill
            if row > self.next:
                rows[..., self.next - self.first : place, :] = fill
            plane = level.planes.get(name, fill)
            if name == "lags":
                # One lag after the other: what is one chunk in the file is then one piece in memory.
                n_lags = 0 if plane is fill else plane.shape[1]
                rows[n_lags:, place] = fill
                if n_lags:
                    rows[:n_lags, place] = plane.T
            else:
                rows[place] = plane
        self.next = row + 1

    def _make_room(self, name: str, plane: Array) -> None:
        """See to it that there are rows, and lags, for a plane."""
        kind, rows = STACKED[name], self.waiting.get(name)
        if rows is not None and (name != "lags" or plane.shape[1] <= rows.shape[0]):
            return
        shape = (*plane.shape[1:], BATCH, self.wave.size)
        self.waiting[name] = np.full(shape, kind.fill, dtype=kind.dtype)
        if rows is not None:
            self.waiting[name][: rows.shape[0]] = rows

    def flush(self) -> None:
        """Write the rows that wait."""
        if self.next == self.first:
            return
        begin, self.n = self.first, self.next
        for name in sorted(self.waiting):
            dataset = self.group[name] if name in self.group else self._make(name)
            rows = self.waiting[name][..., : self.n - begin, :]
            if name == "lags":
                dataset.resize((self.n, self.wave.size, max(dataset.shape[2], rows.shape[0])))
                for lag, plane in enumerate(rows):
                    dataset[begin:, :, lag] = plane
            else:
                dataset.resize(self.n, axis=0)
                dataset[begin:] = rows
        self.first = self.next

    def finish(self, n: int) -> None:
        """Write what waits, and masked rows for the spectra up to ``n`` that do not reach these wavelengths."""
        self.flush()
        self.n = n
        for name in self.group.keys() & STACKED.keys():
            self.group[name].resize(n, axis=0)


class RaggedRows:
    """Spectra end to end: ``flux``, ``wave`` and so on of all wavelengths; row i is ``start[i]:start[i + 1]``."""

    def __init__(self, group: Any, first: StoredLevel, filters: str) -> None:
        self.group = group
        self.filters = filters
        self.waiting: list[StoredLevel] = []
        self.starts = [0]
        self.n = 0
        write_attributes(group, {"NX_class": "NXdata", "signal": "flux", "axes": ["wave"]})
        for name in sorted(first.planes):
            self._make(name)

    def _make(self, name: str) -> Any:
        kind = RAGGED[name]
        shape: tuple[int, ...] = (self.n,)
        limits: tuple[int | None, ...] = (None,)
        chunks: tuple[int, ...] = (RAGGED_CHUNK,)
        if name == "lags":
            shape, limits, chunks = (*shape, 0), (*limits, None), (*chunks, 1)
        dataset = self.group.create_dataset(
            name, shape, kind.dtype, maxshape=limits, chunks=chunks, fillvalue=kind.fill,
            **value_filters(self.filters),
        )  # fmt: skip
        if name in ("wave", "lsf"):
            write_attributes(dataset, {"units": "Angstrom"})
        return dataset

    def add(self, row: int, level: StoredLevel) -> None:
        """Take one spectrum; ``row`` is the number of those before."""
        if row != len(self.starts) - 1:
            raise InputError(f"row {row} follows {len(self.starts) - 1} rows", field="row")
        self.starts.append(self.starts[-1] + level.planes["flux"].size)
        self.waiting.append(level)
        if len(self.waiting) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the spectra that wait."""
        if not self.waiting:
            return
        begin, self.n = self.n, self.starts[-1]
        names = {name for level in self.waiting for name in level.planes}
        for name in sorted(names | (self.group.keys() & RAGGED.keys())):
            dataset = self.group[name] if name in self.group else self._make(name)
            if name == "lags":
                widths = [level.planes["lags"].shape[1] for level in self.waiting if "lags" in level.planes]
                dataset.resize((self.n, max([dataset.shape[1], *widths])))
                for lag in range(dataset.shape[1]):
                    dataset[begin:, lag] = self._joined(name, lag)
            else:
                dataset.resize(self.n, axis=0)
                dataset[begin:] = self._joined(name, None)
        self.waiting.clear()

    def _joined(self, name: str, lag: int | None) -> Array:
        kind = RAGGED[name]
        pieces: list[Array] = []
        for level in self.waiting:
            plane = level.planes.get(name)
            if plane is not None and lag is not None:
                plane = plane[:, lag] if lag < plane.shape[1] else None
            if plane is None:
                plane = np.full(level.planes["flux"].size, kind.fill, dtype=kind.dtype)
            pieces.append(plane)
        return np.concatenate(pieces).astype(kind.dtype, copy=False)

    def finish(self, n: int) -> None:
        """Write what waits, and where each of the ``n`` spectra begins."""
        self.flush()
        if n != len(self.starts) - 1:
            raise InputError(f"{len(self.starts) - 1} of {n} spectra were added", field="row")
        self.group.create_dataset("start", data=np.array(self.starts, dtype=np.int64))
