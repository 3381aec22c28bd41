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
        self.waiting: list[tuple[int, StoredLevel]] = []
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
        """Take the row of one spectrum.

        Raises
        ------
        InputError
            When its wavelengths are not those of the others.
        """
        if not np.array_equal(level.planes["wave"], self.wave):
            raise InputError(
                "the wavelengths of a level differ from those of the other spectra",
                field="wave",
                remedy="bring all spectra to the common grid of the store",
            )
        self.waiting.append((row, level))
        if len(self.waiting) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        if not self.waiting:
            return
        first = self.waiting[0][0]
        self.n = self.waiting[-1][0] + 1
        names = {name for _, level in self.waiting for name in level.planes} & STACKED.keys()
        for name in sorted(names | (self.group.keys() & STACKED.keys())):
            dataset = self.group[name] if name in self.group else self._make(name)
            if name == "lags":
                self._write_lags(dataset, first)
            else:
                dataset.resize(self.n, axis=0)
                dataset[first:] = self._rows(name, first)
        self.waiting.clear()

    def _rows(self, name: str, first: int) -> Array:
        kind = STACKED[name]
        rows = np.full((self.n - first, self.wave.size), kind.fill, dtype=kind.dtype)
        for row, level in self.waiting:
            if name in level.planes:
                rows[row - first] = level.planes[name]
        return rows

    def _write_lags(self, dataset: Any, first: int) -> None:
        found = [(row, level.planes["lags"]) for row, level in self.waiting if "lags" in level.planes]
        k = max([dataset.shape[2], *(lags.shape[1] for _, lags in found)])
        dataset.resize((self.n, self.wave.size, k))
        for lag in range(k):
            # One lag after the other: what is one chunk in the file is then one piece in memory.
            rows = np.zeros((self.n - first, self.wave.size), dtype=np.float32)
            for row, lags in found:
                if lag < lags.shape[1]:
                    rows[row - first] = lags[:, lag]
            dataset[first:, :, lag] = rows

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
            pieces.append(np.full(level.planes["flux"].size, kind.fill) if plane is None else plane)
        return np.concatenate(pieces).astype(kind.dtype)

    def finish(self, n: int) -> None:
        """Write what waits, and where each of the ``n`` spectra begins."""
        self.flush()
        if n != len(self.starts) - 1:
            raise InputError(f"{len(self.starts) - 1} of {n} spectra were added", field="row")
        self.group.create_dataset("start", data=np.array(self.starts, dtype=np.int64))
