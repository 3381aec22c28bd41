"""Parameters of requests: from texts that anybody may have sent to numbers, intervals and regions of the sky.

The rules are those of the IVOA's DALI 1.1, SIA 2.0 and SODA 1.0: names of parameters are in any case, values may be
repeated, intervals are two numbers of which either may be infinite, regions are a word and numbers in deg (ICRS).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from skyloom.errors import SkyloomError
from skyloom.store.search.regions import Box, Cone
from skyloom.store.service.shapes import SkyPolygon

__all__ = [
    "Interval",
    "Parameters",
    "ServiceError",
    "Shape",
    "circle",
    "interval",
    "polygon",
    "region",
    "whole_number",
]

Shape = Cone | Box | SkyPolygon
MOST_VALUES = 2000
"""Values in one request."""
MOST_NAMES = 200
LONGEST = 1 << 14
"""Characters of one value."""
MOST_VERTICES = 500
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_INFINITE = re.compile(r"([-+]?)inf(?:inity)?", re.IGNORECASE)


class ServiceError(SkyloomError):
    """What a client has asked for cannot be done.

    Parameters
    ----------
    message : str
        For the client: it tells nothing about the machine.
    kind : str
        One of the words of SODA 1.0: ``UsageError``, ``MultiValuedParamNotSupported``, ``ServiceUnavailable``,
        ``Error``.
    status : int
        Of HTTP.
    """

    def __init__(self, message: str, kind: str = "UsageError", status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.status = status

    @property
    def text(self) -> str:
        """As SODA writes it."""
        return f"{self.kind}: {self.message}"

    @property
    def fault(self) -> str:
        """As SIA writes it."""
        names = {"UsageError": "UsageFault", "MultiValuedParamNotSupported": "UsageFault"}
        names["ServiceUnavailable"] = "TransientFault"
        return f"{names.get(self.kind, 'DefaultFault')}: {self.message}"


class Interval(NamedTuple):
    """All numbers from ``low`` to ``high``, both included; either may be infinite."""

    low: float
    high: float


class Parameters:
    """The parameters of one request; names in any case, empty values as if they were not there.

    Parameters
    ----------
    given : mapping of str to sequence of bytes or str

    Raises
    ------
    ServiceError
        When there are too many, or one is too long or no text.
    """

    def __init__(self, given: Mapping[str, Sequence[bytes | str]]) -> None:
        if len(given) > MOST_NAMES or sum(map(len, given.values())) > MOST_VALUES:
            raise ServiceError(f"more than {MOST_NAMES} parameters or {MOST_VALUES} values in one request")
        self._values: dict[str, list[str]] = {}
        for name, values in given.items():
            texts = [_text(value, name) for value in values]
            self._values.setdefault(name.upper(), []).extend(text for text in texts if text)

    def all(self, name: str) -> list[str]:
        """Return the values of a parameter; none where it is absent."""
        return self._values.get(name, [])

    def one(self, name: str, *, several: str = "UsageError") -> str | None:
        """Return the only value of a parameter; None where it is absent.

        Raises
        ------
        ServiceError
            Of the kind ``several``, when there are more.
        """
        values = self.all(name)
        if len(values) > 1:
            raise ServiceError(f"{name} is given {len(values)} times; this service takes one", several)
        return values[0] if values else None


def _text(value: bytes | str, name: str) -> str:
    if len(value) > LONGEST:
        raise ServiceError(
            f"a value of {_short(name)} has {len(value)} characters; at most {LONGEST} are read"
        )
    try:
        text = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise ServiceError(f"a value of {_short(name)} is no text in UTF-8") from error
    return text.strip()


def _short(text: str) -> str:
    """Return a text as an error message may repeat it."""
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return repr(shown)


def number(text: str, name: str, *, infinite: bool = False) -> float:
    """Read one number, in decimal notation."""
    if _NUMBER.fullmatch(text):
        value = float(text)
        if math.isfinite(value):
            return value
        raise ServiceError(f"{name}: {_short(text)} is beyond all numbers")
    endless = _INFINITE.fullmatch(text)
    if endless and infinite:
        return -math.inf if endless[1] == "-" else math.inf
    raise ServiceError(f"{name}: {_short(text)} is no number")


def whole_number(text: str, name: str, low: int = 0, high: int = 1 << 31) -> int:
    """Read a whole number between two limits."""
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        raise ServiceError(f"{name}: {_short(text)} is no whole number")
    value = int(text)
    if not low <= value <= high:
        raise ServiceError(f"{name} is {value}; expected {low} to {high}")
    return value


def interval(text: str, name: str) -> Interval:
    """Read one number, or two of which the first is not larger.

    Raises
    ------
    ServiceError
        When it is neither, or holds NaN.
    """
    values = [number(part, name, infinite=True) for part in text.split()]
    if len(values) == 1 and math.isfinite(values[0]):
        return Interval(values[0], values[0])
    if len(values) != 2 or values[0] == math.inf or values[1] == -math.inf:
        raise ServiceError(f"{name}: {_short(text)} is no interval; expected one or two numbers")
    if values[0] > values[1]:
        raise ServiceError(f"{name}: the interval {_short(text)} ends before it begins")
    return Interval(*values)


def circle(text: str, name: str = "CIRCLE") -> Cone:
    """Read right ascension, declination and radius of a circle, in deg."""
    values = [number(part, name) for part in text.split()]
    if len(values) != 3:
        raise ServiceError(f"{name}: a circle has 3 numbers (ra, dec, radius), not {len(values)}")
    ra, dec = _place(values[0], values[1], name)
    if not 0.0 <= values[2] <= 180.0:
        raise ServiceError(f"{name}: the radius is {values[2]:g} deg; expected 0 to 180")
    return Cone(ra, dec, values[2])


def polygon(text: str, name: str = "POLYGON") -> SkyPolygon:
    """Read the vertices of a polygon, in deg; its inside is the smaller side."""
    parts = text.split()
    if len(parts) < 6 or len(parts) % 2:
        raise ServiceError(f"{name}: a polygon has 3 or more pairs (ra, dec), not {len(parts)} numbers")
    if len(parts) > 2 * MOST_VERTICES:
        raise ServiceError(f"{name}: the polygon has {len(parts) // 2} vertices; at most {MOST_VERTICES}")
    values = [number(part, name) for part in parts]
    places = [_place(ra, dec, name) for ra, dec in zip(values[::2], values[1::2], strict=True)]
    try:
        return SkyPolygon.of(places)
    except ValueError as error:
        raise ServiceError(f"{name}: {error}") from error


def box(text: str, name: str = "RANGE") -> Box:
    """Read two right ascensions and two declinations, in deg; eastward from the first right ascension."""
    values = [number(part, name, infinite=True) for part in text.split()]
    if len(values) != 4:
        raise ServiceError(f"{name}: a range has 4 numbers (ra, ra, dec, dec), not {len(values)}")
    west, east, south, north = values
    ends = (max(west, 0.0), min(east, 360.0), max(south, -90.0), min(north, 90.0))
    if any(
        math.isfinite(given) and given != used for given, used in zip(values, ends, strict=True)
    ) or not all(map(math.isfinite, ends)):
        raise ServiceError(f"{name}: {_short(text)} is not within 0 to 360 and -90 to 90")
    if ends[2] > ends[3] or not (0.0 <= ends[0] <= 360.0 and 0.0 <= ends[1] <= 360.0):
        raise ServiceError(f"{name}: {_short(text)} ends before it begins")
    _place(ends[0], ends[2], name)
    _place(ends[1], ends[3], name)
    return Box(*ends)


def region(text: str, name: str = "POS") -> Shape:
    """Read a region such as ``CIRCLE 12 34 0.5``, ``RANGE 12 14 34 36`` or ``POLYGON 12 34 14 34 14 36``."""
    word, _, rest = text.partition(" ")
    readers: dict[str, Callable[[str, str], Shape]] = {"CIRCLE": circle, "RANGE": box, "POLYGON": polygon}
    reader = readers.get(word.upper())
    if reader is None:
        raise ServiceError(f"{name}: {_short(word)} is no shape; expected CIRCLE, RANGE or POLYGON")
    return reader(rest, f"{name}={word.upper()}")


def _place(ra: float, dec: float, name: str) -> tuple[float, float]:
    if not (0.0 <= ra <= 360.0 and -90.0 <= dec <= 90.0):
        raise ServiceError(
            f"{name}: ({ra:g}, {dec:g}) is not on the sky; expected 0 to 360 and -90 to 90 deg"
        )
    return ra, dec
