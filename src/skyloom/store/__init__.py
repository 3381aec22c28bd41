"""The cube database: images, spectra and cubes at every resolution, with their errors, in HDF5 by place on the sky.

One observation flows like this: `ingest` finds a file, places it on the sky, reads it and makes an `Observation` of it
(columns, original header, `levels`); `files` writes the observations of one HEALPix partition into one file and makes
it visible; `search` finds them; `query` gives them back as core types.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyloom.store.query import Store, create, open  # noqa: A004  # as in sl.store.open(path)

_HOMES = {
    "Store": "skyloom.store.query",
    "create": "skyloom.store.query",
    "open": "skyloom.store.query",
}

__all__ = ["Store", "create", "open"]


def __getattr__(name: str) -> Any:
    # h5py and its filters are imported when a store is opened, not before.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'skyloom.store' has no attribute {name!r}")
