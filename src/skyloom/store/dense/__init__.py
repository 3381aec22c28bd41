"""A dense cube for machine learning: of each target its images and its spectrum, averaged, with their errors."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyloom.store.dense.batches import DenseCube
    from skyloom.store.dense.cube import build_dense_cube, rebuild_dense_cube
    from skyloom.store.dense.labels import Join, join_labels

_HOMES = {
    "DenseCube": "skyloom.store.dense.batches",
    "build_dense_cube": "skyloom.store.dense.cube",
    "Join": "skyloom.store.dense.labels",
    "join_labels": "skyloom.store.dense.labels",
    "rebuild_dense_cube": "skyloom.store.dense.cube",
}

__all__ = ["DenseCube", "Join", "build_dense_cube", "join_labels", "rebuild_dense_cube"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'skyloom.store.dense' has no attribute {name!r}")
