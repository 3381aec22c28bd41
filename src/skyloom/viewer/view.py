"""A view as a file: what all panes show, saved and brought back; what comes back may have been written by anybody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from skyloom._version import __version__
from skyloom.errors import InputError, SkyloomError

__all__ = ["Restorable", "read_view", "restore_panes", "view_file"]

VERSION = 1
LARGEST = 1 << 20
"""Bytes of a view."""
DEEPEST = 12
_REMEDY = "save the view again"
_CRAFTED = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError)


class Restorable(Protocol):
    """A pane whose view can be saved."""

    def state(self) -> dict[str, Any]:
        """Return what is seen, as values of JSON."""

    def restore(self, state: dict[str, Any]) -> None:
        """Bring back what was seen."""


def view_file(panes: Mapping[str, Restorable]) -> bytes:
    """Return what all panes show as a file of JSON."""
    states = {name: pane.state() for name, pane in panes.items()}
    whole = {"skyloom_view": VERSION, "version": __version__, "panes": states}
    return json.dumps(whole, indent=1, allow_nan=False, default=float).encode()


def read_view(content: bytes) -> dict[str, dict[str, Any]]:
    """Return the states of the panes that a file holds.

    Raises
    ------
    InputError
        When it is no view of this version.
    """
    if len(content) > LARGEST:
        raise InputError(f"the file has {len(content):,} bytes: no view is so large", field="view")
    try:
        whole = json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(
            "the file is no view: it cannot be read as JSON", field="view", remedy=_REMEDY
        ) from error
    if not isinstance(whole, dict) or "skyloom_view" not in whole:
        raise InputError("the file is no view of Skyloom", field="view", remedy=_REMEDY)
    version = whole["skyloom_view"]
    if version is True or version != VERSION:
        raise InputError(
            f"the view has version {str(version)[:20]!r}; expected {VERSION}", field="view", remedy=_REMEDY
        )
    panes = whole.get("panes")
    if not isinstance(panes, dict) or not all(isinstance(state, dict) for state in panes.values()):
        raise InputError("the view holds no panes", field="view", remedy=_REMEDY)
    if _depth(panes) > DEEPEST:
        raise InputError("the view is nested too deeply", field="view", remedy=_REMEDY)
    return panes


def _no_number(text: str) -> float:
    raise ValueError(text)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(item) for item in value), default=0)
    return 0


def restore_panes(panes: Mapping[str, Restorable], states: Mapping[str, dict[str, Any]]) -> list[str]:
    """Bring back what panes showed.

    Parameters
    ----------
    panes : mapping
        Those of the page.
    states : mapping
        As `read_view` returns them.

    Returns
    -------
    list of str
        What could not be brought back, and why; such a pane shows what it showed before.
    """
    complaints = [f"there is no pane {name[:40]!r} here" for name in states if name not in panes]
    for name, pane in panes.items():
        if name not in states:
            continue
        before = pane.state()
        try:
            pane.restore(states[name])
        except SkyloomError as error:
            complaints.append(f"{name}: {_without_place(error)}")
            _put_back(pane, before)
        except _CRAFTED:
            complaints.append(f"{name}: the view cannot be understood")
            _put_back(pane, before)
    return complaints


def _without_place(error: SkyloomError) -> str:
    """Return what is wrong, without the name of any file."""
    return error.message if isinstance(error, InputError) else "it cannot be shown"


def _put_back(pane: Restorable, before: dict[str, Any]) -> None:
    try:
        pane.restore(before)
    except (SkyloomError, *_CRAFTED):
        # It showed nothing before, which is no state to return to.
        return
