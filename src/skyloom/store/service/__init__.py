"""A store on the network of the Virtual Observatory: discovery by SIA2, cut-outs by SODA, in ObsCore's words.

A request flows like this: `server` takes it from HTTP, `parameters` and `shapes` turn its texts into numbers and
regions, `sia2` (what is there), `soda` (give me a part of it) or `links` answers it from the `snapshot` of the store,
and `documents` writes the VOTable; `obscore` says what each column is called there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyloom.store.service.server import StoreServer

__all__ = ["StoreServer"]


def __getattr__(name: str) -> Any:
    # Tornado is imported when a store is served, not before.
    if name in __all__:
        return getattr(importlib.import_module("skyloom.store.service.server"), name)
    raise AttributeError(f"module 'skyloom.store.service' has no attribute {name!r}")
