"""Calling a function when a property of a Bokeh model changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["when_changed"]


def when_changed(model: Any, name: str, action: Callable[[Any], object]) -> None:
    """Call ``action`` with the new value of a property; Bokeh looks at the names of the arguments it gives."""

    def changed(attr: str, old: Any, new: Any) -> None:  # noqa: ARG001  # as Bokeh calls it
        action(new)

    model.on_change(name, changed)
