"""`DenseCube`: a dense cube as a sequence of samples, or in batches, without any framework for machine learning."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.core.image import Image
from skyloom.core.spectra import Spectra
from skyloom.errors import InputError
from skyloom.store.dense.layout import level_names, open_dense, read_column, read_options
from skyloom.store.dense.stacks import target_grid

__all__ = ["DenseCube"]

Array = NDArray[Any]
PLANES = ("flux", "ivar", "valid")


class DenseCube:
    """A dense cube, opened for reading.

    It has a length and gives samples by number, so that ``torch.utils.data.DataLoader(cube, batch_size=32)`` takes it
    as it is. The file is opened when it is read for the first time, anew in each process: it can be pickled, and used
    in worker processes however these are started.

    Parameters
    ----------
    path : str or path
    images, spectra : int or sequence of int, optional
        Levels that a sample holds; None: all; ``()``: none.
    columns : sequence of str, optional
        Of the targets; None: all numbers.
    fill : float
        What stands in ``flux`` where nothing is known. In the file it is NaN.
    select : int or bool array, optional
        Targets; None: all. Numbers of samples count these.

    Raises
    ------
    InputError, FileFormatError
        When the file is none, or has no such level or column.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        images: int | Sequence[int] | None = None,
        spectra: int | Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
        fill: float = 0.0,
        select: Any = None,
    ) -> None:
        self.path = Path(path)
        self.fill = float(fill)
        self._file: Any = None
        self._owner = -1
        with open_dense(self.path) as file:
            n_all = int(file["targets/name"].shape[0])
            self.bands = tuple(read_column(file["bands/name"]).tolist())
            self.units = tuple(read_column(file["bands/unit"]).tolist())
            self.image_levels = _chosen(images, level_names(file, "images"), "images")
            self.spectrum_levels = _chosen(spectra, level_names(file, "spectra"), "spectra")
            self.columns = self._columns(file, columns)
        self.select = _selected(select, n_all)

    @staticmethod
    def _columns(file: Any, wanted: Sequence[str] | None) -> dict[str, Array]:
        group = file["targets"]
        if wanted is None:
            wanted = [name for name in group if group[name].dtype.kind in "iuf"]
        missing = [name for name in wanted if name not in group]
        if missing:
            raise InputError(
                f"the targets have no column {', '.join(missing)}",
                field="columns",
                remedy=f"use some of {', '.join(group)}",
            )
        return {name: read_column(group[name]) for name in wanted}

    # --- the file ---------------------------------------------------------------------------------------------------

    def _opened(self) -> Any:
        # A file that was opened before a fork must not be used after it.
        if self._file is None or self._owner != os.getpid():
            self._file, self._owner = open_dense(self.path), os.getpid()
        return self._file

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        if self._file is not None and self._owner == os.getpid():
            self._file.close()
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_owner": -1}

    def __repr__(self) -> str:
        return f"<DenseCube {self.path}: {len(self)} targets, bands {', '.join(self.bands)}>"

    # --- samples ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.select.size)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return one sample; see `batches` for its arrays, here without their first axis."""
        index = int(number)
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        batch = self._read(self.select[[index]])
        return {name: values[0] for name, values in batch.items()}

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return several samples, read in one go; PyTorch asks for batches in this way."""
        batch = self._read(self.select[np.asarray(numbers, dtype=np.int64)])
        return [{name: values[i] for name, values in batch.items()} for i in range(len(numbers))]

    def batches(
        self,
        size: int = 32,
        *,
        shuffle: int | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[dict[str, Array]]:
        """Yield all samples once, several at a time.

        Parameters
        ----------
        size : int
            Samples in a batch; the last may have fewer.
        shuffle : int, optional
            Seed of the order; another one for each epoch. None: as they are in the file.
        drop_last : bool
            Leave out samples at the end, so that all batches have ``size`` samples and all ranks as many batches.
        rank, world : int
            This process, counted from 0, and how many there are: each sample is given to one of them. All must be
            given the same seed.

        Yields
        ------
        dict of arrays
            ``index`` (of the target in the file); ``image_{level}``, ``image_{level}_ivar``, ``image_{level}_valid``
            of shape (n, n_band, ny, nx); ``spectrum_{level}`` and so on, (n, n_wave); and the columns of targets.
            Fluxes and inverse variances are float32; where ``valid`` is False, ``ivar`` is 0 and the flux is ``fill``.

        Raises
        ------
        InputError
            When the size, the rank or the number of ranks has no meaning.
        """
        if size < 1 or not 0 <= rank < world:
            raise InputError(
                f"size {size}, rank {rank} of {world}: expected size >= 1 and 0 <= rank < world",
                field="size" if size < 1 else "rank",
            )
        return self._batches(size, shuffle, drop_last, rank, world)

    def _batches(
        self, size: int, shuffle: int | None, drop_last: bool, rank: int, world: int
    ) -> Iterator[dict[str, Array]]:
        order = np.arange(len(self))
        if shuffle is not None:
            order = np.random.default_rng(shuffle).permutation(order)
        mine = order[rank::world]
        stop = len(self) // world // size * size if drop_last else mine.size
        for first in range(0, stop, size):
            yield self._read(self.select[mine[first : min(first + size, stop)]])

    def _read(self, targets: NDArray[np.int64]) -> dict[str, Array]:
        file = self._opened()
        batch: dict[str, Array] = {"index": targets.copy()}
        for kind, name, levels in (
            ("images", "image", self.image_levels),
            ("spectra", "spectrum", self.spectrum_levels),
        ):
            for level in levels:
                flux, ivar, valid = (_rows(file[f"{kind}/{level}/{plane}"], targets) for plane in PLANES)
                valid = valid.view(np.bool_)
                np.copyto(flux, np.float32(self.fill), where=~valid)
                key = f"{name}_{level}"
                batch |= {key: flux, f"{key}_ivar": ivar, f"{key}_valid": valid}
        return batch | {name: values[targets] for name, values in self.columns.items()}

    # --- what there is ----------------------------------------------------------------------------------------------

    @property
    def targets(self) -> QTable:
        """The table of all selected targets, with units."""
        import astropy.units as u

        group = self._opened()["targets"]
        table = QTable()
        for name in group:
            values, unit = read_column(group[name])[self.select], group[name].attrs.get("units", "")
            # Units that astropy does not know stay text in the file.
            table[name] = values << u.Unit(unit) if unit and _is_unit(unit) else values
            table[name].info.description = group[name].attrs.get("description", "")
        return table

    @property
    def provenance(self) -> dict[str, Any]:
        """How the cube was made."""
        return read_options(self.path)

    def wave(self, level: int = 0) -> NDArray[np.float64]:
        """Return the wavelengths of the spectra at a level, A in vacuum."""
        return np.asarray(self._group("spectra", level)["wave"][:])

    def sources(self, number: int) -> QTable:
        """Return the observations that went into a target: ``obs_id``, ``band`` (empty: the spectrum), digests."""
        file = self._opened()
        rows = np.flatnonzero(file["sources/target"][:] == self.select[number])
        which = file["sources/observation"][:][rows]
        group = file["observations"]
        return QTable({name: read_column(group[name])[which] for name in group})

    def image(self, number: int, band: str, level: int = 0) -> Image:
        """Return one image with variance, mask, coordinates and the correlation of its noise.

        Sums over its pixels have the right error, which ``ivar`` alone does not give.
        """
        if band not in self.bands:
            raise InputError(
                f"there is no band {band!r}", field="band", remedy=f"use one of {', '.join(self.bands)}"
            )
        group, target = self._group("images", level), int(self.select[number])
        place = self.bands.index(band)
        flux, variance, mask = _core_planes(group, (target, place))
        ra, dec = (float(self._opened()[f"targets/{name}"][target]) for name in ("ra", "dec"))
        return Image(
            flux,
            variance,
            mask,
            self.units[place],
            target_grid(ra, dec, flux.shape[0], float(group.attrs["pixel_scale"])),
            correlation=group["correlation"][target, place].astype(np.float64),
            meta={"band": band, "target": str(self._opened()["targets/name"].asstr()[target])},
        )

    def spectrum(self, number: int, level: int = 0) -> Spectra:
        """Return the spectrum of a target with variance, mask and the covariance of its pixels."""
        group, target = self._group("spectra", level), int(self.select[number])
        flux, variance, mask = _core_planes(group, (target,))
        upper = group["lags"][target].astype(np.float64)
        n_wave, reach = upper.shape
        band = np.zeros((n_wave, 2 * reach + 1))
        band[:, reach], band[:, reach + 1 :] = 1.0, upper
        for lag in range(1, min(reach, n_wave - 1) + 1):
            band[lag:, reach - lag] = upper[:-lag, lag - 1]
        unit = group["flux"].attrs["units"]
        meta = {"target": str(self._opened()["targets/name"].asstr()[target])}
        return Spectra(
            flux[None],
            variance[None],
            mask[None],
            unit,
            self.wave(level),
            "vacuum",
            correlation=band,
            meta=meta,
        )

    def _group(self, kind: str, level: int) -> Any:
        file = self._opened()
        levels = level_names(file, kind)
        if level not in levels:
            raise InputError(
                f"there is no level {level} of {kind}", field="level", remedy=f"use one of {levels}"
            )
        return file[f"{kind}/{level}"]


def _core_planes(group: Any, place: tuple[int, ...]) -> tuple[Array, Array, Array]:
    flux, ivar, valid = (group[name][place] for name in PLANES)
    mask = valid == 0
    variance = np.full(flux.shape, np.nan, np.float32)
    variance[~mask] = 1.0 / ivar[~mask].astype(np.float64)
    return flux, variance, mask


def _rows(dataset: Any, targets: NDArray[np.int64]) -> Array:
    """Return some rows of a dataset: neighbours in one go, each once, without h5py's costly selections."""
    import h5py

    out = np.empty((targets.size, *dataset.shape[1:]), dataset.dtype)
    order = np.argsort(targets, kind="stable")
    ordered = targets[order]
    space = dataset.id.get_space()
    begin = 0
    while begin < ordered.size:
        end = begin + 1
        while end < ordered.size and ordered[end] == ordered[end - 1] + 1:
            end += 1
        shape = (end - begin, *dataset.shape[1:])
        block = np.empty(shape, dataset.dtype)
        space.select_hyperslab((int(ordered[begin]), *([0] * (len(shape) - 1))), shape)
        dataset.id.read(h5py.h5s.create_simple(shape), space, block)
        out[order[begin:end]] = block
        begin = end
    return out


def _chosen(wanted: int | Sequence[int] | None, known: tuple[int, ...], what: str) -> tuple[int, ...]:
    if wanted is None:
        return known
    levels = tuple(int(level) for level in np.atleast_1d(np.asarray(wanted, dtype=np.int64)))
    missing = [level for level in levels if level not in known]
    if missing:
        raise InputError(
            f"there is no level {missing[0]} of {what}",
            field=what,
            remedy=f"use some of {json.dumps(known)}",
        )
    return levels


def _selected(select: Any, n_all: int) -> NDArray[np.int64]:
    if select is None:
        return np.arange(n_all)
    chosen = np.asarray(select)
    if chosen.dtype == bool:
        if chosen.shape != (n_all,):
            raise InputError(f"select has shape {chosen.shape}; expected ({n_all},)", field="select")
        return np.flatnonzero(chosen)
    numbers = np.atleast_1d(chosen).astype(np.int64)
    if numbers.size and (numbers.min() < 0 or numbers.max() >= n_all):
        raise InputError(
            f"select has numbers from {numbers.min()} to {numbers.max()}; there are {n_all} targets",
            field="select",
        )
    return numbers


def _is_unit(text: str) -> bool:
    import astropy.units as u

    try:
        u.Unit(text)
    except (ValueError, TypeError):
        return False
    return True
