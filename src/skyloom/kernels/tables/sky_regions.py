"""Which rows of an index a cone touches: from ranges of cells to rows, candidate by candidate in one pass.

Nothing is stored for a candidate that fails: first the declinations are compared, then the circle about its centre,
and only footprints at the border of the cone need their outline. Positions are in deg; directions become unit vectors,
so that nothing is special about the poles or about right ascension 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["rows_in_cone"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Vector = tuple[float, float, float]
ROUNDING = 1e-9
"""Deg by which declinations may differ more than the radii say; the exact test decides."""


@njit(cache=True, nogil=True, error_model="numpy")
def _first_not_below(cells: Int, value: int, first: int, last: int) -> int:
    """Return the first row of ``cells[first:last]``, which ascend, that is not less than a value."""
    while first < last:
        middle = (first + last) // 2
        if cells[middle] < value:
            first = middle + 1
        else:
            last = middle
    return first


@njit(cache=True, nogil=True, error_model="numpy")
def _vector(ra: float, dec: float) -> Vector:
    alpha, delta = math.radians(ra), math.radians(dec)
    across = math.cos(delta)
    return across * math.cos(alpha), across * math.sin(alpha), math.sin(delta)


@njit(cache=True, nogil=True, error_model="numpy")
def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True, error_model="numpy")
def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(cache=True, nogil=True, error_model="numpy")
def _chord(a: Vector, b: Vector) -> float:
    """Return the square of the straight distance: exact for the smallest angles too."""
    x, y, z = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return x * x + y * y + z * z


@njit(cache=True, nogil=True, error_model="numpy")
def _chord_of(angle: float) -> float:
    half = math.sin(0.5 * min(angle, math.pi))
    return 4.0 * half * half


@njit(cache=True, nogil=True, error_model="numpy")
def _outline_touches(
    start: int,
    stop: int,
    corner_ra: Float,
    corner_dec: Float,
    point: Vector,
    radius: float,
    may_hold: bool,
) -> bool:
    """Tell whether a polygon comes within ``radius`` (rad) of a point, or (where it may) holds it.

    The directions from the point to the corners turn once around where it is inside; so they do around the opposite
    point of the sky, from which the corners lie on the other side.
    """
    reach = _chord_of(radius)
    turns, sides = 0.0, 0.0
    second = _vector(corner_ra[stop - 1], corner_dec[stop - 1])
    for corner in range(start, stop):
        first = second
        second = _vector(corner_ra[corner], corner_dec[corner])
        if _chord(first, point) <= reach:
            return True
        normal = _cross(first, second)
        length = math.sqrt(_dot(normal, normal))
        if length > 0.0 and _dot(_cross(normal, first), point) >= 0.0:
            beside = _dot(_cross(second, normal), point) >= 0.0
            if beside and math.asin(min(abs(_dot(normal, point)) / length, 1.0)) <= radius:
                return True
        if not may_hold:
            continue
        first_side = _dot(point, first)
        turns += math.atan2(_dot(point, normal), _dot(first, second) - first_side * _dot(point, second))
        sides += first_side
    return abs(turns) > math.pi and sides > 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def rows_in_cone(
    cells: Int,
    borders: Int,
    ranges: Int,
    positions: tuple[Float, Float, Float],
    outlines: tuple[Int, Float, Float],
    cone: tuple[float, float, float],
) -> Any:
    """Return the rows whose footprint touches a cone.

    Parameters
    ----------
    cells : (n,) int64 array
        HEALPix cells of the centres, ascending within each class of size.
    borders : (k, 2) int64 array
        First and last row (half-open) of the class that each range belongs to.
    ranges : (k, 2) int64 array
        Half-open ranges of cells, which ascend within a class and do not overlap.
    positions : ra, dec, radius, each (n,)
        Of the circle about each footprint, deg; a radius that is not positive is none.
    outlines : start (n + 1,), ra (m,), dec (m,)
        Corners of the footprints; who has none is the circle.
    cone : ra, dec, radius
        In deg.

    Returns
    -------
    (found,) int64 array
        Ascending, where the classes are.
    """
    ra, dec, radii = positions
    start, corner_ra, corner_dec = outlines
    centre, reach = _vector(cone[0], cone[1]), math.radians(cone[2])
    edges = np.empty((len(ranges), 2), np.int64)
    candidates = 0
    for number in range(len(ranges)):
        first, last = borders[number]
        low = _first_not_below(cells, ranges[number, 0], first, last)
        high = _first_not_below(cells, ranges[number, 1], low, last)
        edges[number, 0], edges[number, 1] = low, high
        candidates += high - low
    found = np.empty(candidates, np.int64)
    n_found = 0
    whole = _chord_of(reach)
    for number in range(len(ranges)):
        for row in range(edges[number, 0], edges[number, 1]):
            radius = radii[row] if radii[row] > 0.0 else 0.0
            if abs(dec[row] - cone[1]) > cone[2] + radius + ROUNDING:
                continue
            chord = _chord(_vector(ra[row], dec[row]), centre)
            near = chord <= _chord_of(math.radians(cone[2] + radius))
            # A centre in the cone decides; others with an outline need it.
            if near and chord > whole and start[row + 1] > start[row]:
                # The outline is within the circle about its centre: from outside of that it holds nothing.
                may_hold = chord <= _chord_of(math.radians(radius + ROUNDING))
                near = _outline_touches(
                    start[row], start[row + 1], corner_ra, corner_dec, centre, reach, may_hold
                )
            if near:
                found[n_found] = row
                n_found += 1
    return found[:n_found].copy()
