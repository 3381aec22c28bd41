"""Cubes from files: the headers first, then any part of the voxels.

Every reader of an integral-field instrument says where things stand (`CubeLayout`); what becomes of them is decided
here, once. A voxel is usable when its value is finite, its variance is positive and finite, and the mask of the file
does not object.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube, check_wave
from skyloom.core.provenance import step
from skyloom.errors import (
    AssumptionWarning,
    FileFormatError,
    InputError,
    RepairWarning,
    ShapeError,
)
from skyloom.io.cubes.layout import CubeLayout, GenericLayout, error_kind_of
from skyloom.io.cubes.parts import axis_range, correlation_of_channels, wcs_of_rows
from skyloom.io.formats.files import FitsFile, Hdu, open_fits
from skyloom.io.registry import check_options, layout_function, read, sniff_instrument
from skyloom.kernels.tables.voxels import KINDS, decode_voxels, finish_voxels

__all__ = [
    "CubeFile",
    "CubeLayout",
    "GenericLayout",
    "LoadedCube",
    "missing_errors",
    "open_cube",
    "read_whole",
]

Array = NDArray[Any]
ALL = slice(None)
# How the file of the errors is named after that of the data.
_SIBLINGS = (("_cube", "_var"), ("_cube", "_stat"), ("_cube", "_err"), ("_data", "_var"), ("_sci", "_var"))
_BLOCK_BYTES = 2**21  # What one pass works on; data, errors and mask of a block stay in the cache.


class CubeFile:
    """A cube in a file: its headers are known, its voxels are read on demand.

    Attributes
    ----------
    path : path
    layout : CubeLayout
    shape : (n_wave, ny, nx)
    wave, medium, unit, wcs, psf, correlation, lsf, meta
        As those of the `Cube` that `read` gives; ``lsf`` is None when it is an array per voxel.
    """

    def __init__(self, file: FitsFile, layout: CubeLayout) -> None:
        self.path = file.path
        self.layout = layout
        self._data = file[layout.data]
        self._mask = None if layout.mask is None else file[layout.mask]
        self._lsf = file[layout.lsf] if isinstance(layout.lsf, int) else None
        if len(self._data.shape) != 3:
            raise ShapeError(
                f"extension {_label(self._data)} has shape {self._data.shape}; a cube has three axes",
                source=file.path,
            )
        n_wave, ny, nx = self._data.shape
        self.shape = (n_wave, ny, nx)
        self._error = self._open_errors(file)
        self._check_shapes()
        # What most cubes are; then one pass turns bytes into voxels.
        self._is_direct = (
            self._data.is_plain_float32
            and self._error.is_plain_float32
            and (layout.error_kind, layout.error_floor, layout.factor) == ("variance", None, 1.0)
            and sys.byteorder == "little"
        )
        self.wave = check_wave(layout.wave, n_wave, layout.medium)
        self.medium = layout.medium
        self.unit = layout.unit
        self.wcs = layout.wcs
        self.psf = layout.psf
        self.correlation = layout.correlation
        self.lsf = None if self._lsf is not None else layout.lsf
        self.meta = {**layout.meta, "path": str(file.path)}
        if layout.error_path is not None:
            self.meta["weight_path"] = str(layout.error_path)

    def _open_errors(self, file: FitsFile) -> Hdu:
        layout = self.layout
        if layout.error is None:
            raise missing_errors(file.path)
        if layout.error_path is None:
            return file[layout.error]
        with open_fits(layout.error_path) as other:
            return other[layout.error]

    @property
    def error_notes(self) -> tuple[str, ...]:
        """What the name of the extension in a file of errors says against what they are read as."""
        claimed, kind = error_kind_of(self._error.name), self.layout.error_kind
        if self.layout.error_path is None or claimed in ("", kind):
            return ()
        shown = [text.replace("_", " ") for text in (claimed, kind)]
        return (
            f"the extension {_label(self._error)} has the name of a {shown[0]}; read as {shown[1]}, as asked",
        )

    def _check_shapes(self) -> None:
        planes = [("errors", self._error), ("mask", self._mask), ("line-spread function", self._lsf)]
        for name, hdu in planes:
            flat = name == "mask" and hdu is not None and hdu.shape == self.shape[1:]
            if hdu is not None and hdu.shape != self.shape and not flat:
                raise ShapeError(
                    f"the {name} ({_label(hdu)}) have shape {hdu.shape}; expected {self.shape}, that of"
                    f" {_label(self._data)}",
                    source=hdu.file.path,
                    remedy=f"give the {name} of this cube",
                )

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file as it is on the disk; `read` does without, because it takes as long as reading."""
        with open_fits(self.path) as file:
            return file.sha256

    def slabs(self, max_bytes: int) -> Iterator[slice]:
        """Cut the wavelengths into contiguous ranges whose cubes take at most ``max_bytes`` each.

        Parameters
        ----------
        max_bytes : int
            Of data, variance and mask (and the line-spread function where it has a value per voxel); a single
            channel may take more.

        Yields
        ------
        slice
            Of channels; together they cover the cube.
        """
        n_wave, ny, nx = self.shape
        per_channel = ny * nx * (9 if self._lsf is None else 13)
        count = int(max(1, max_bytes // max(1, per_channel)))
        for start in range(0, n_wave, count):
            yield slice(start, min(start + count, n_wave))

    def read(self, channels: slice = ALL, rows: slice = ALL) -> Cube:
        """Read voxels; of a plain file, the bytes of these only.

        Parameters
        ----------
        channels, rows : slice
            Ranges of the first two axes, contiguous.

        Returns
        -------
        Cube
            float32, in native byte order; the WCS and the wavelengths are those of the part. All voxels may be masked:
            `require_usable` tells whether the file has any that are not.

        Raises
        ------
        InputError
            When a range is empty or has a step.
        FileFormatError
            When the file has been cut off since it was opened.
        """
        first, last = axis_range(channels, self.shape[0], "channels")
        bottom, top = axis_range(rows, self.shape[1], "rows")
        shape = (last - first, top - bottom, self.shape[2])
        data, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
        mask = np.empty(shape, bool)
        negative = 0
        count = max(1, _BLOCK_BYTES // max(1, 4 * shape[1] * shape[2]))
        # One piece of memory for the bytes of every block: fresh pages would cost more than the reading.
        buffers = np.empty((2, 8 * count * shape[1] * shape[2]), np.uint8)
        for start in range(0, shape[0], count):
            part = slice(start, min(start + count, shape[0]))
            source = (slice(first + part.start, first + part.stop), slice(bottom, top))
            planes = data[part], variance[part], mask[part]
            if self._is_direct:
                negative += self._decode(source, *planes, buffers)
            else:
                negative += self._fill(source, *planes, buffers)[0]
        if negative:
            warnings.warn(
                f"{self._error.file.path}: {negative} voxels have a negative {self.layout.error_kind.replace('_', ' ')}"
                f" ({_label(self._error)}); masked",
                RepairWarning,
                stacklevel=2,
            )
        return self._cube(data, variance, mask, slice(first, last), slice(bottom, top))

    def _cube(
        self, data: Array, variance: Array, mask: NDArray[np.bool_], channels: slice, rows: slice
    ) -> Cube:
        done = step(
            "read_cube",
            path=str(self.path),
            instrument=str(self.meta.get("instrument", "")),
            channels=[channels.start, channels.stop],
            rows=[rows.start, rows.stop],
            error_kind=self.layout.error_kind,
            masked=int(np.count_nonzero(mask)),
            **{key: value for key, value in self.meta.items() if key in ("sha256", "weight_path")},
        )
        first = Cube(data[:1], variance[:1], mask[:1], self.unit, None, self.wave[:1], self.medium)
        # The kernels have tested every voxel already.
        return first.evolve_checked(
            data=data,
            variance=variance,
            mask=mask,
            wcs=wcs_of_rows(self.wcs, rows.start),
            wave=self.wave[channels],
            lsf=self._lsf_part(channels, rows),
            psf=self.psf,
            correlation=correlation_of_channels(self.correlation, channels),
            meta=dict(self.meta),
            history=(done,),
        )

    def _lsf_part(self, channels: slice, rows: slice) -> Any:
        if self._lsf is not None:
            part = self._lsf.section(channels, rows).astype(np.float32, copy=False)
            part *= np.float32(self.layout.lsf_scale)
            return part
        return self.lsf[channels] if isinstance(self.lsf, np.ndarray) else self.lsf

    def _fill(
        self,
        source: tuple[slice, slice],
        data: Array,
        variance: Array,
        mask: NDArray[np.bool_],
        buffers: NDArray[np.uint8],
    ) -> tuple[int, int, int]:
        """Read a block into contiguous arrays, through ``buffers``; return the counts of `finish_voxels`."""
        layout = self.layout
        self._read_mask(source, mask)
        power = {"variance": 2, "sigma": 1, "inverse_variance": -2}[layout.error_kind]
        data[:] = _times(self._data.section(*source, buffer=buffers[0]), layout.factor, 1)
        variance[:] = _times(self._error.section(*source, buffer=buffers[1]), layout.factor, power)
        floor = np.inf if layout.error_floor is None else layout.error_floor * layout.factor
        kind = KINDS.index(layout.error_kind)
        counts = finish_voxels(data.reshape(-1), variance.reshape(-1), mask.reshape(-1), kind, float(floor))
        return int(counts[0]), int(counts[1]), int(counts[2])

    def _decode(
        self,
        source: tuple[slice, slice],
        data: Array,
        variance: Array,
        mask: NDArray[np.bool_],
        buffers: NDArray[np.uint8],
    ) -> int:
        """Do what `_fill` does, for plain variances; return how many are negative."""
        self._read_mask(source, mask)
        stored = [
            hdu.stored_section(*source, buffer=buffer).reshape(-1).view(np.uint32)
            for hdu, buffer in zip((self._data, self._error), buffers, strict=True)
        ]
        targets = [plane.reshape(-1).view(np.uint32) for plane in (data, variance)]
        suspicious = decode_voxels(stored[0], stored[1], targets[0], targets[1], mask.reshape(-1))
        return int(np.count_nonzero(variance < 0)) if suspicious else 0

    def _read_mask(self, source: tuple[slice, slice], mask: NDArray[np.bool_]) -> None:
        if self._mask is None:
            mask[:] = False
        else:
            mask[:] = self._bad(self._mask.section(*source[len(source) - len(self._mask.shape) + 1 :]))

    def _bad(self, codes: Array) -> NDArray[np.bool_]:
        if self.layout.bad_bits is None:
            return np.asarray(codes != self.layout.good_value)
        whole = codes.astype(np.int64) if codes.dtype.kind == "f" else codes
        bits = whole.view(np.dtype(f"u{whole.dtype.itemsize}"))
        asked = self.layout.bad_bits & int(np.iinfo(bits.dtype).max)
        return np.asarray((bits & bits.dtype.type(asked)) != 0)

    def require_usable(self) -> None:
        """Raise unless the file has a usable voxel; it looks at few channels where most are good.

        Raises
        ------
        InputError
            When every value is NaN, no error is positive, or everything is masked; it says which.
        """
        n_wave, ny, nx = self.shape
        data, variance = np.empty((1, ny, nx), np.float32), np.empty((1, ny, nx), np.float32)
        mask, buffers = np.empty((1, ny, nx), bool), np.empty((2, 8 * ny * nx), np.uint8)
        valued = known = 0
        # From the middle outwards: the ends of an axis are often empty.
        for channel in sorted(range(n_wave), key=lambda number: abs(number - n_wave // 2)):
            counts = self._fill((slice(channel, channel + 1), ALL), data, variance, mask, buffers)
            if not mask.all():
                return
            valued, known = valued + counts[1], known + counts[2]
        if not valued:
            message, field = "every voxel is NaN or infinite", _label(self._data)
        elif not known:
            message, field = "no error is positive and finite", _label(self._error)
        else:
            message, field = "every voxel with a value and an error is masked", "mask"
        raise InputError(message, source=self.path, field=field, remedy="check how the cube was made")


class LoadedCube(CubeFile):
    """A cube that its reader gives whole, with the same way to take parts of it.

    Parameters
    ----------
    path : path
    cube : Cube
    """

    def __init__(self, path: Path, cube: Cube) -> None:  # super() would look for extensions
        self.path = path
        self._whole = cube
        self.shape = cube.shape
        self.wave, self.medium, self.unit, self.wcs = cube.wave, cube.medium, cube.unit, cube.wcs
        self.psf, self.correlation, self.meta = cube.psf, cube.correlation, cube.meta
        self.lsf = None if isinstance(cube.lsf, np.ndarray) and cube.lsf.ndim == 3 else cube.lsf
        self._lsf = None

    def read(self, channels: slice = ALL, rows: slice = ALL) -> Cube:
        """Return a part of the cube; see `CubeFile.read`."""
        first, last = axis_range(channels, self.shape[0], "channels")
        bottom, top = axis_range(rows, self.shape[1], "rows")
        part, lines = slice(first, last), slice(bottom, top)
        cube = self._whole
        if (first, bottom) == (0, 0) and (last, top) == self.shape[:2]:
            return cube
        lsf = cube.lsf
        if isinstance(lsf, np.ndarray) and lsf.ndim:
            lsf = lsf[part, lines] if lsf.ndim == 3 else lsf[part]
        return cube.evolve(
            data=cube.data[part, lines],
            variance=cube.variance[part, lines],
            mask=cube.mask[part, lines],
            flags=None if cube.flags is None else cube.flags[part, lines],
            modes=tuple(
                mode._replace(map=mode.map[part, lines]) if isinstance(mode.map, np.ndarray) else mode
                for mode in cube.modes
            ),
            wave=cube.wave[part],
            lsf=lsf,
            wcs=wcs_of_rows(cube.wcs, bottom),
            correlation=correlation_of_channels(cube.correlation, part),
        )

    def require_usable(self) -> None:
        """Raise unless the cube has a usable voxel."""
        if self._whole.mask.all():
            raise InputError("every voxel is masked", source=self.path)


def open_cube(
    path: str | Path, *, instrument: str | None = None, layout: GenericLayout | None = None, **options: Any
) -> CubeFile:
    """Open a cube: its headers are read and checked, its voxels are not.

    Parameters
    ----------
    path : str or path
        FITS file. A compressed one is decompressed into memory.
    instrument : str, optional
        Name of the reader; by default found from the headers.
    layout : GenericLayout, optional
        What the user says about a cube that no reader knows; then ``instrument`` is not asked.
    **options
        Of the reader, e.g. ``medium="air"``, ``weight=path`` with ``weight_kind="variance"``.

    Raises
    ------
    FileFormatError
        When the file is missing, damaged, no cube, or lacks wavelengths or errors.
    ShapeError, UnitError, InputError
        When data, errors and mask differ in shape, the unit cannot be read, or an option is unknown.
    """
    place = Path(path)
    if layout is not None:
        name, options = "cube", {**options, "layout": layout}
    else:
        name = instrument if instrument is not None else sniff_instrument(place)
    function = layout_function(name, place)
    if function is None:
        found = read(place, instrument=name, **options)
        if not isinstance(found, Cube):
            raise FileFormatError(f"this is no cube but {type(found).__name__}", source=path)
        return LoadedCube(place, found)
    check_options(function, options, name, place)
    with open_fits(place) as file:
        try:
            cube = CubeFile(file, function(file, **options))
        except InputError as error:
            raise error.located(place) from None
    for note in (*cube.layout.notes, *cube.error_notes):
        warnings.warn(f"{path}: {note}", AssumptionWarning, stacklevel=2)
    return cube


def read_whole(path: str | Path, **options: Any) -> Cube:
    """Open a cube, make sure that it has a usable voxel, and read all of it; see `open_cube`.

    Raises
    ------
    InputError
        As `open_cube`, and when no voxel is usable.
    """
    cube = open_cube(path, **options)
    cube.require_usable()
    cube.meta["sha256"] = cube.sha256
    return cube.read()


def _label(hdu: Hdu) -> str:
    return hdu.name or "PRIMARY"


def missing_errors(path: Path) -> FileFormatError:
    """Return the error that says that a cube comes without errors, and what to do."""
    siblings = [path.with_name(path.name.replace(*pair)) for pair in _SIBLINGS]
    found = next((sibling for sibling in siblings if sibling != path and sibling.exists()), None)
    hint = "" if found is None else f" (perhaps {found.name})"
    return FileFormatError(
        "the file has no errors for its data",
        source=path,
        field="error",
        remedy=f"pass weight=<file>{hint} with weight_kind, or name the extension that holds them as error",
    )


def _times(values: Array, factor: float, power: int) -> Array:
    """Return values times a power of the factor, step by step: its square may be beyond the range of float32."""
    if factor != 1.0:
        for _ in range(abs(power)):
            values = values * factor if power > 0 else values / factor
    return values
