"""Outlines of footprints on the sky: polygons whose edges are great circles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import InputError
from skyloom.store.search.sphere import cross, dot, unit_vectors

__all__ = ["Polygons", "parse_regions", "spans"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

_PIECE = 1 << 14
"""Texts that are read at a time."""
_ROUND = frozenset({"CIRCLE", "Circle", b"CIRCLE", b"Circle"})
_OUTLINE = frozenset({"POLYGON", "Polygon", b"POLYGON", b"Polygon"})
_FRAME = frozenset({"ICRS", b"ICRS"})
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


class Polygons(NamedTuple):
    """Outlines on the sky, one after the other; an observation without one has no vertices.

    Parameters
    ----------
    start : (n + 1,) int64 array
        Polygon i has the vertices ``start[i]`` to ``start[i + 1]``, without repeating the first.
    ra, dec : (m,) float64 arrays
        In deg.
    """

    start: Int
    ra: Float
    dec: Float

    @property
    def sizes(self) -> Int:
        """Vertices of each."""
        return np.diff(self.start)

    def sizes_of(self, rows: Int) -> Int:
        """Vertices of some of them."""
        return self.start[rows + 1] - self.start[rows]

    @classmethod
    def joined(cls, parts: Sequence[Polygons]) -> Polygons:
        """Put columns of outlines one behind the other."""
        sizes = np.concatenate([np.empty(0, np.int64), *(part.sizes for part in parts)])
        ra, dec = (
            np.concatenate([np.empty(0), *(getattr(part, name) for part in parts)]) for name in ("ra", "dec")
        )
        return cls(np.concatenate([[0], np.cumsum(sizes)]), ra, dec)

    def take(self, rows: ArrayLike) -> Polygons:
        """Return some of the polygons, in the order of ``rows``."""
        rows = np.asarray(rows, dtype=np.int64)
        sizes = self.sizes_of(rows)
        start = np.concatenate([[0], np.cumsum(sizes)])
        members = spans(self.start[rows], self.start[rows] + sizes)
        return Polygons(start, self.ra[members], self.dec[members])

    def edges(self) -> tuple[Float, Float]:
        """Return where the (m, 3) edges begin and where they end."""
        first = unit_vectors(self.ra, self.dec)
        following = np.arange(1, len(first) + 1)
        used = self.sizes > 0
        following[self.start[1:][used] - 1] = self.start[:-1][used]
        return first, first[following]

    def owners(self) -> Int:
        """Return which polygon each edge belongs to."""
        return np.repeat(np.arange(len(self.start) - 1), self.sizes)

    def any_edge(self, found: Bool) -> Bool:
        """Tell for each polygon whether ``found`` is True for any of its edges."""
        return np.bincount(self.owners(), found, len(self.start) - 1) > 0

    def hold(self, points: Float, edges: tuple[Float, Float] | None = None) -> Bool:
        """Tell whether each polygon holds its point.

        Parameters
        ----------
        points : (3,) or (n, 3) array
            Unit vectors: one for all polygons, or one for each.
        edges : optional
            What `edges` returns, where it is known already.

        Notes
        -----
        The directions from the point to the vertices turn once around where it is inside. The point opposite to it on
        the sky has the same turn, and is told apart by the side on which the vertices lie; polygons are taken to be
        smaller than a hemisphere.
        """
        n = len(self.start) - 1
        owners = self.owners()
        point = np.broadcast_to(points, (n, 3))[owners]
        first, second = edges or self.edges()
        first_side, second_side = dot(point, first), dot(point, second)
        turn = np.arctan2(
            dot(point, cross(first, second)),
            dot(first, second) - first_side * second_side,
        )
        turns = np.bincount(owners, turn, n)
        side = np.bincount(owners, first_side, n)
        return np.asarray((np.abs(turns) > np.pi) & (side > 0))


def spans(starts: ArrayLike, stops: ArrayLike) -> Int:
    """Return the whole numbers of half-open ranges, one range after the other."""
    starts = np.asarray(starts, dtype=np.int64)
    sizes = np.asarray(stops, dtype=np.int64) - starts
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if sizes.size else 0
    return np.arange(total) + np.repeat(starts - (ends - sizes), sizes)


def parse_regions(texts: Sequence[str | bytes] | NDArray[np.bytes_]) -> Polygons:
    """Read the outlines in a column of STC-S texts such as ``Polygon ICRS 10 0 10.2 0 10.2 0.1``.

    Circles and empty texts give no vertices: such an observation is the circle of its column ``radius``.

    Raises
    ------
    InputError
        When a text is neither, or its numbers are no positions.
    """
    sizes = np.zeros(len(texts), np.int64)
    pieces = [np.empty(0)]
    for first in range(0, len(texts), _PIECE):
        piece = texts[first : first + _PIECE]
        plain: list[str | bytes] = piece.tolist() if isinstance(piece, np.ndarray) else list(piece)
        found = [_numbers(text) for text in plain]
        try:
            values = np.array([float(number) for own in found for number in own])
        except ValueError:
            # Written in another way than by this program: commas, brackets.
            found = [_searched_numbers(text) for text in plain]
            values = np.array([float(number) for own in found for number in own])
        sizes[first : first + len(plain)] = [len(own) // 2 for own in found]
        pieces.append(values)
    flat = np.concatenate(pieces).reshape(-1, 2)
    return Polygons(np.concatenate([[0], np.cumsum(sizes)]), flat[:, 0].copy(), flat[:, 1].copy())


def _numbers(text: str | bytes) -> Sequence[str | bytes]:
    """Return the numbers of an outline as texts; none of a circle or an empty text."""
    words = text.split()
    if not words or words[0][:6] in _ROUND:
        return ()
    if words[0] in _OUTLINE and words[1:2] and words[1] in _FRAME and len(words) >= 8 and len(words) % 2 == 0:
        return words[2:]
    return _searched_numbers(text)


def _searched_numbers(text: str | bytes) -> Sequence[str]:
    """Return the numbers of an outline, whatever stands between them."""
    plain = text.decode() if isinstance(text, bytes) else text
    kind = plain.split(None, 1)[0].upper() if plain.strip() else ""
    if kind in ("", "CIRCLE", "POSITION"):
        return ()
    frame = plain.split(None, 2)[1:2]
    numbers = _NUMBER.findall(plain.split(frame[0], 1)[1]) if frame else []
    if frame and _NUMBER.fullmatch(frame[0]):
        numbers.insert(0, frame[0])
    if kind != "POLYGON" or len(numbers) < 6 or len(numbers) % 2:
        raise InputError(
            f"{plain[:80]!r} is no outline",
            field="s_region",
            remedy="write 'Polygon ICRS ra dec ra dec ra dec ...' or 'Circle ICRS ra dec radius', in deg",
        )
    return numbers
