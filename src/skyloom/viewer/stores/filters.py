"""What a list of observations is narrowed by, as plain values that a saved view can hold."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skyloom.errors import InputError
from skyloom.store.search.index import KINDS

__all__ = ["Filters", "Place", "parse_place"]

MOST_NAMES = 200
LONGEST_NAME = 200
ARCSEC = 3600.0
_SPLIT = re.compile(r"[\s,;]+")
_REMEDY = "write '38.33 -0.09' (deg) or '02:33:19 -00:05:24', or the name of an observation"


@dataclass(frozen=True, slots=True)
class Place:
    """A position on the sky.

    Attributes
    ----------
    ra, dec : float
        deg, ICRS.
    """

    ra: float
    dec: float

    def __str__(self) -> str:
        return f"{self.ra:.6f} {self.dec:+.6f}"


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions that all have to hold; what is empty or None is not asked for.

    Attributes
    ----------
    kinds, bands, instruments : tuple of str
    time : (start, stop) or None
        MJD in TAI.
    wave : (shortest, longest) or None
        A, in vacuum.
    cone : (ra, dec, radius) or None
        deg.
    box : (ra_min, ra_max, dec_min, dec_max) or None
        deg; across 0 where ra_min > ra_max.
    """

    kinds: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    time: tuple[float, float] | None = None
    wave: tuple[float, float] | None = None
    cone: tuple[float, float, float] | None = None
    box: tuple[float, float, float, float] | None = None

    def where(self) -> dict[str, Any]:
        """Return the conditions that the index of a store answers."""
        asked: dict[str, Any] = {}
        if self.kinds:
            asked["kind"] = self.kinds
        if self.bands:
            asked["band"] = self.bands
        if self.time is not None:
            asked["time"] = self.time
        if self.wave is not None:
            asked["wave"] = self.wave
        if self.cone is not None:
            asked["cone"] = (self.cone[:2], self.cone[2])
        if self.box is not None:
            asked["box"] = self.box
        return asked

    def plain(self) -> dict[str, Any]:
        """Return what is asked for as values of JSON."""
        names = ("kinds", "bands", "instruments", "time", "wave", "cone", "box")
        return {name: list(value) for name in names if (value := getattr(self, name))}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Filters:
        """Make filters of values of JSON, which may be anything.

        Raises
        ------
        InputError
            When a name is unknown, or a value is not of its kind.
        """
        if not isinstance(values, Mapping):
            raise InputError("the filters are no mapping", field="filters")
        made: dict[str, Any] = {}
        for name, value in values.items():
            if name in ("kinds", "bands", "instruments"):
                made[name] = _texts(name, value)
            elif name in _LENGTHS:
                made[name] = _numbers(name, value)
            else:
                raise InputError(f"unknown filter {str(name)[:40]!r}", field="filters")
        unknown = set(made.get("kinds", ())) - set(KINDS)
        if unknown:
            raise InputError(f"unknown kind {sorted(unknown)[0][:40]!r}", field="kinds")
        return cls(**made)


_LENGTHS = {"time": 2, "wave": 2, "cone": 3, "box": 4}


def _texts(name: str, value: object) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) > MOST_NAMES
        or not all(isinstance(item, str) and len(item) <= LONGEST_NAME for item in value)
    ):
        raise InputError(f"{name} is no list of names", field=name)
    return tuple(value)


def _numbers(name: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != _LENGTHS[name]:
        raise InputError(f"{name} is not {_LENGTHS[name]} numbers", field=name)
    # True is an int for Python.
    if not all(
        isinstance(item, (int, float)) and not isinstance(item, bool) and math.isfinite(item)
        for item in value
    ):
        raise InputError(f"{name} is not {_LENGTHS[name]} numbers", field=name)
    numbers = tuple(float(item) for item in value)
    if name in ("time", "wave") and numbers[0] > numbers[1]:
        raise InputError(f"{name} runs from {numbers[0]:g} to {numbers[1]:g}", field=name)
    if name == "cone" and not (abs(numbers[1]) <= 90 and 0 <= numbers[2] <= 180):
        raise InputError(f"the cone is {numbers}; expected ra, dec, radius in deg", field=name)
    if name == "box" and not -90 <= numbers[2] <= numbers[3] <= 90:
        raise InputError(
            f"the box is {numbers}; expected ra_min, ra_max, dec_min, dec_max in deg", field=name
        )
    return numbers


def parse_place(text: str) -> Place | None:
    """Read a position: two numbers in deg, or hours and degrees as ``02:33:19 -00:05:24`` or ``02h33m19s -0d5m24s``.

    Returns
    -------
    Place or None
        None when the text is no position at all: it may be a name.

    Raises
    ------
    InputError
        When it is one that is not on the sky.
    """
    words = [word for word in _SPLIT.split(text.strip()) if word]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return _sexagesimal(text, words)
    if len(numbers) == 6:
        return _sexagesimal(text, words)
    if len(numbers) != 2:
        return None
    ra, dec = numbers
    if not (np.isfinite(ra) and -360 <= ra <= 360 and -90 <= dec <= 90):
        raise InputError(f"({ra:g}, {dec:g}) is no position in deg", field="position", remedy=_REMEDY)
    return Place(ra % 360.0, dec)


def _sexagesimal(text: str, words: list[str]) -> Place | None:
    if len(words) not in (2, 6) or not all(word[:1].isdigit() or word[:1] in "+-" for word in words):
        return None
    from astropy.coordinates import SkyCoord

    try:
        place = SkyCoord(" ".join(words), unit=("hourangle", "deg"))
    except ValueError as error:
        raise InputError(f"{text.strip()[:60]!r} is no position", field="position", remedy=_REMEDY) from error
    return Place(float(place.ra.deg), float(place.dec.deg))
