"""What a saved view says of an image, checked: it comes from a file that anybody may have written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skyloom.errors import InputError
from skyloom.viewer.panes.stretch import LIMITS, PALETTES, STRETCHES
from skyloom.viewer.protocols import Box

__all__ = ["ImageState", "checked"]

LONGEST = 400
"""Characters of a text."""


@dataclass(frozen=True, slots=True)
class ImageState:
    """All that decides what an image pane shows; see `skyloom.viewer.panes.image.ImagePane.state`."""

    entry: str
    plane: int
    layer: int
    stretch: str
    limits: str
    low: str
    high: str
    colours: str
    channel: int
    range: tuple[int, int]
    box: Box | None


def checked(state: Mapping[str, Any]) -> ImageState:
    """Return the state that a saved view describes.

    Raises
    ------
    InputError
        When a value is of the wrong kind; it names it.
    """
    if not isinstance(state, Mapping):
        raise InputError("the view of an image is no mapping", field="view")
    ends = state.get("range", [0, 0])
    if not (isinstance(ends, (list, tuple)) and len(ends) == 2):
        raise _wrong("range", ends)
    return ImageState(
        entry=_text(state, "entry", ""),
        plane=_count("plane", state.get("plane", 0)),
        layer=_count("layer", state.get("layer", 0)),
        stretch=_choice(state, "stretch", STRETCHES),
        limits=_choice(state, "limits", tuple(LIMITS)),
        low=_text(state, "low", ""),
        high=_text(state, "high", ""),
        colours=_choice(state, "colours", PALETTES),
        channel=_count("channel", state.get("channel", 0)),
        range=(_count("range", ends[0]), _count("range", ends[1])),
        box=_box(state.get("box")),
    )


def _wrong(key: str, value: object) -> InputError:
    return InputError(f"{str(value)[:80]!r} cannot be", field=key, remedy="save the view again")


def _text(state: Mapping[str, Any], key: str, default: str) -> str:
    value = state.get(key, default)
    if not isinstance(value, str) or len(value) > LONGEST:
        raise _wrong(key, value)
    return value


def _choice(state: Mapping[str, Any], key: str, known: tuple[str, ...]) -> str:
    value = state.get(key, known[0])
    if not isinstance(value, str) or value not in known:
        raise _wrong(key, value)
    return value


def _count(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise _wrong(key, value)
    return int(value)


def _box(value: object) -> Box | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise _wrong("box", value)
    numbers = []
    for number in value:
        is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
        if not is_number or not math.isfinite(number) or abs(number) > 1e9:
            raise _wrong("box", value)
        numbers.append(float(number))
    x0, x1, y0, y1 = numbers
    if not (x1 > x0 and y1 > y0):
        raise _wrong("box", value)
    return x0, x1, y0, y1
