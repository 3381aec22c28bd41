"""The web page over results, product files and stores: images, spectra and what is stored, served on this machine.

Nothing here is imported before a page is asked for, so that neither ``import skyloom`` nor ``skyloom --help`` waits for
Bokeh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyloom.viewer.server import serve

__all__ = ["serve"]


def __getattr__(name: str) -> Any:
    if name == "serve":
        from skyloom.viewer.server import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
