"""Windows of planes in an HDF5 file, also such as reach beyond its edge."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.store.files.stored_form import WHOLE

__all__ = ["Plane", "Window", "open_plane", "read_rows", "read_window", "window_ranges"]

Array = NDArray[Any]
Window = tuple[slice, slice]
"""(slice of y, slice of x) in pixels of a level; negative numbers are pixels before the first, not from the end."""
FILLS = {"flux": np.nan, "variance": np.nan, "mask": True, "lsf": np.nan}


class Plane(NamedTuple):
    """An open dataset, by what low-level reading needs."""

    identity: Any
    space: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def open_plane(dataset: Any) -> Plane:
    """Return what low-level reading needs of a dataset."""
    return Plane(dataset.id, dataset.id.get_space(), dataset.shape, dataset.dtype)


def window_ranges(
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


def read_window(
    plane: Plane, name: str, ranges: tuple[tuple[int, int], ...], pixels: tuple[int, ...]
) -> Array:
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


def read_rows(plane: Plane, start: int, stop: int) -> Array:
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
