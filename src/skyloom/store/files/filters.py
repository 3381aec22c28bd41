"""How arrays are laid out and compressed in the HDF5 files of a store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError

__all__ = [
    "COMPRESSIONS",
    "image_chunks",
    "row_chunks",
    "table_filters",
    "text_filters",
    "value_filters",
    "write_array",
    "write_attributes",
]

COMPRESSIONS = ("lz4", "gzip")
"""``lz4``: bitshuffle and LZ4, fast; ``gzip``: readable by every HDF5 without a plugin."""
CHUNK_BYTES = 1 << 16
"""Uncompressed: a 64x64 cut-out touches few chunks, and reads little that it does not need."""
CUBE_CHUNK = (32, 32, 32)
"""Cut-outs, spectra and channel maps of a cube all cost about the same."""
SMALL = 2048
"""Bytes up to which an array is stored as it is, in one piece."""
RAGGED_CHUNK = 4096


def value_filters(compression: str = "lz4") -> dict[str, Any]:
    """Return the options of `h5py.Group.create_dataset` for planes of numbers: lossless, with a checksum of each chunk.

    The checksum comes after the compression, so that a damaged chunk is refused before it is decompressed: bitshuffle
    believes the size that stands in the chunk, and a flipped bit there would let HDF5 read beyond its memory.

    Raises
    ------
    InputError
        When the compression is none of `COMPRESSIONS`.
    """
    if compression == "lz4":
        import hdf5plugin

        return {**hdf5plugin.Bitshuffle(cname="lz4"), "fletcher32": True}
    if compression == "gzip":
        return {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
    raise InputError(
        f"compression is {compression!r}", field="compression", remedy=f"use one of {', '.join(COMPRESSIONS)}"
    )


def text_filters(compression: str = "lz4") -> dict[str, Any]:
    """Return the options for text (headers, JSON), with a checksum of each chunk."""
    if compression == "gzip":
        return {"compression": "gzip", "compression_opts": 4, "fletcher32": True}
    import hdf5plugin

    return {**hdf5plugin.Zstd(clevel=3), "fletcher32": True}


def table_filters() -> dict[str, Any]:
    """Return the options for columns of a table: a checksum alone, which needs no plugin."""
    return {"fletcher32": True}


def image_chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the chunks of a plane of an image or a cube."""
    if len(shape) == 3:
        return tuple(min(size, side) for size, side in zip(shape, CUBE_CHUNK, strict=True))
    side = int(np.sqrt(CHUNK_BYTES // itemsize))
    return tuple(min(size, side) for size in shape)


def row_chunks(n_wave: int, itemsize: int) -> tuple[int, int]:
    """Return the chunks of stacked spectra: one row, or several (a power of 2) where rows are short."""
    fitting = max(1, 16384 // (n_wave * itemsize))
    # So many are written at a time, or a multiple: no chunk is begun twice.
    return min(1 << (fitting.bit_length() - 1), 64), n_wave


def write_array(group: Any, name: str, values: NDArray[Any], compression: str) -> None:
    """Write one complete array into a group, in chunks and compressed unless it is small."""
    if values.nbytes <= SMALL or values.ndim == 0:
        group.create_dataset(name, data=values)
        return
    chunks = image_chunks(values.shape, values.itemsize) if values.ndim in (2, 3) else None
    dataset = group.create_dataset(
        name, values.shape, values.dtype, chunks=chunks or values.shape, **value_filters(compression)
    )
    dataset.write_direct(np.ascontiguousarray(values))


@cache
def _attribute_kinds() -> tuple[Any, Any, Any, Any]:
    """Return the space of one value, numpy's type of text, and the types of text and of numbers in the file."""
    import h5py

    text = h5py.string_dtype()
    numbers = {kind: h5py.h5t.py_create(np.dtype(kind)) for kind in (np.int64, np.float64)}
    return h5py.h5s.create(h5py.h5s.SCALAR), text, h5py.h5t.py_create(text, logical=True), numbers


def write_attributes(target: Any, values: Mapping[str, str | float | list[str]]) -> None:
    """Write attributes of a group or dataset, several times as fast as one by one through h5py."""
    import h5py

    scalar, text, text_kind, numbers = _attribute_kinds()
    for name, value in values.items():
        space, kind = scalar, text_kind
        if isinstance(value, str):
            array = np.array(value, dtype=text)
        elif isinstance(value, list):
            array, space = np.array(value, dtype=text), h5py.h5s.create_simple((len(value),))
        else:
            number = np.int64 if isinstance(value, int) else np.float64
            array, kind = np.array(value, dtype=number), numbers[number]
        h5py.h5a.create(target.id, name.encode(), kind, space).write(array)
