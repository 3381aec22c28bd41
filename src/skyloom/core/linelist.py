"""Spectral lines by name, and wavelengths in air and in vacuum."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import FileFormatError, InputError

__all__ = [
    "Line",
    "LineList",
    "Medium",
    "air_to_vacuum",
    "check_medium",
    "convert_medium",
    "default_lines",
    "vacuum_to_air",
]

Float = NDArray[np.float64]
Medium = Literal["vacuum", "air"]
Kind = Literal["emission", "absorption"]
# By the convention of IUE, HST and SDSS, wavelengths below 2000 A are quoted in vacuum everywhere.
AIR_FROM = 2000.0


def vacuum_to_air(wave: ArrayLike) -> Float:
    """Return the wavelengths in standard dry air (A) of wavelengths in vacuum (A).

    Notes
    -----
    l_air = l / n with n - 1 = 0.05792105 / (238.0185 - s^2) + 0.00167917 / (57.362 - s^2) and s = 1e4 / l, per um
    (Ciddor 1996, 10.1364/AO.35.001566: 15 C, 1013.25 hPa, 450 ppm CO2). Below 2000 A both are equal by
    convention.
    """
    vacuum = np.asarray(wave, dtype=np.float64)
    return np.asarray(np.where(vacuum < AIR_FROM, vacuum, vacuum / _refractive_index(vacuum)))


def air_to_vacuum(wave: ArrayLike) -> Float:
    """Return the wavelengths in vacuum (A) of wavelengths in air (A), the inverse of `vacuum_to_air`."""
    air = np.asarray(wave, dtype=np.float64)
    vacuum = air
    # The index changes by 1e-5 per 1000 A, so each round gains more than four digits.
    for _ in range(4):
        vacuum = air * _refractive_index(vacuum)
    return np.asarray(np.where(vacuum < AIR_FROM, air, vacuum))


def _refractive_index(vacuum: Float) -> Float:
    square = (1e4 / np.maximum(vacuum, AIR_FROM)) ** 2
    return np.asarray(1.0 + 0.05792105 / (238.0185 - square) + 0.00167917 / (57.362 - square))


def convert_medium(wave: ArrayLike, source: Medium, target: Medium) -> Float:
    """Return wavelengths (A) measured in ``source`` as they are in ``target``."""
    check_medium(source, "source")
    check_medium(target, "target")
    if source == target:
        return np.asarray(wave, dtype=np.float64)
    return vacuum_to_air(wave) if target == "air" else air_to_vacuum(wave)


def check_medium(medium: str, where: str) -> None:
    """Raise unless ``medium`` is one of the two that wavelengths are measured in."""
    if medium not in get_args(Medium):
        raise InputError(f"medium is {medium!r}; expected 'vacuum' or 'air'", source=where, field="medium")


@dataclass(frozen=True, slots=True)
class Line:
    """A spectral line.

    Parameters
    ----------
    key : str
        Species and wavelength in air as in ``OIII5007``; Balmer lines by name (``Halpha``).
    rest_vacuum : float
        Rest wavelength in vacuum, A.
    species : str
        Ion in the notation of spectroscopists, e.g. ``[O III]``.
    kind : {"emission", "absorption"}
        How it usually appears in a galaxy.
    group : str
        Lines of one group share their kinematics in a fit; empty: the line has its own.
    tied : (str, float), optional
        Key of another line of the group, and the ratio of this line's flux to that one's, fixed by atomic physics.
    bounds : (str, float, float), optional
        Key of another line of the group, and the range that the ratio of this line's flux to that one's can have.
    """

    key: str
    rest_vacuum: float
    species: str = ""
    kind: Kind = "emission"
    group: str = ""
    tied: tuple[str, float] | None = None
    bounds: tuple[str, float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rest_vacuum < np.inf:
            raise InputError(f"rest wavelength is {self.rest_vacuum} A", source=self.key, field="rest_vacuum")
        if self.kind not in get_args(Kind):
            raise InputError(
                f"kind is {self.kind!r}; expected {get_args(Kind)}", source=self.key, field="kind"
            )
        if self.tied is not None and not self.tied[1] > 0:
            raise InputError(f"the ratio is {self.tied[1]}; expected > 0", source=self.key, field="tied")
        if self.bounds is not None and not 0 < self.bounds[1] < self.bounds[2]:
            raise InputError(
                f"the range is {self.bounds[1:]}; expected 0 < a < b", source=self.key, field="bounds"
            )

    @property
    def rest_air(self) -> float:
        """Rest wavelength in air, A."""
        return float(vacuum_to_air(self.rest_vacuum))

    def rest(self, medium: Medium) -> float:
        """Return the rest wavelength in ``medium``, A."""
        check_medium(medium, self.key)
        return self.rest_vacuum if medium == "vacuum" else self.rest_air


@dataclass(frozen=True, slots=True)
class LineList:
    """Lines in ascending order of wavelength, found by key.

    Parameters
    ----------
    lines : tuple of Line
        In any order; keys must differ.

    Raises
    ------
    InputError
        When a key occurs twice.
    """

    lines: tuple[Line, ...]

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.lines, key=lambda line: line.rest_vacuum))
        keys = [line.key for line in ordered]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise InputError(f"line keys occur more than once: {', '.join(repeated)}", field="lines")
        object.__setattr__(self, "lines", ordered)

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def __contains__(self, key: object) -> bool:
        return key in self.keys

    def __getitem__(self, key: str) -> Line:
        for line in self.lines:
            if line.key == key:
                return line
        near = difflib.get_close_matches(key, self.keys, n=1, cutoff=0.4)
        raise InputError(
            f"{key!r} is not in the line list",
            field="line",
            remedy=f"did you mean {near[0]!r}?" if near else f"known are {', '.join(self.keys)}",
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, in order of wavelength."""
        return tuple(line.key for line in self.lines)

    def wavelengths(self, medium: Medium) -> Float:
        """Return the rest wavelengths in ``medium``, A."""
        return np.array([line.rest(medium) for line in self.lines])

    def select(self, keys: Iterable[str]) -> LineList:
        """Return the list of these lines only."""
        return LineList(tuple(self[key] for key in keys))

    @classmethod
    def from_text(cls, text: str, source: str = "line list") -> LineList:
        """Read a list from text: ``key  vacuum wavelength  kind  species ; options`` per row, ``#`` starts a comment.

        Options, all optional: ``group=NAME``, ``tied=KEY:ratio`` and ``bounds=KEY:low:high``; see `Line`.

        Raises
        ------
        FileFormatError
            When a row cannot be read; the message has its number.
        """
        lines = []
        for number, row in enumerate(text.splitlines(), start=1):
            facts, _, options = row.split("#", 1)[0].partition(";")
            words = facts.split(maxsplit=3)
            if not words:
                continue
            try:
                key, wave, kind = words[0], float(words[1]), words[2]
                more = _options(options)
            except (IndexError, ValueError) as error:
                raise FileFormatError(
                    f"row {number} is {row.strip()!r}; expected: key, vacuum wavelength in A, kind, species, and"
                    " perhaps ; group=NAME tied=KEY:ratio bounds=KEY:low:high",
                    source=source,
                ) from error
            lines.append(Line(key, wave, words[3].strip() if len(words) > 3 else "", kind, **more))  # type: ignore[arg-type]
        return cls(tuple(lines))


def _options(text: str) -> dict[str, Any]:
    """Read what follows the semicolon in a row of a list."""
    options: dict[str, Any] = {}
    for word in text.split():
        name, _, value = word.partition("=")
        key, *numbers = value.split(":")
        if name == "group" and value:
            options["group"] = value
        elif name == "tied" and len(numbers) == 1:
            options["tied"] = (key, float(numbers[0]))
        elif name == "bounds" and len(numbers) == 2:
            options["bounds"] = (key, float(numbers[0]), float(numbers[1]))
        else:
            raise ValueError(word)
    return options


@cache
def default_lines() -> LineList:
    """Return the list of optical lines that ships with Skyloom (``core/default_lines.txt``)."""
    text = (resources.files("skyloom.core") / "default_lines.txt").read_text(encoding="utf-8")
    return LineList.from_text(text, "default_lines.txt")
