"""Naive twins of the index: every observation is compared with every region, one after the other, in plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = tuple[float, float, float]


def vector(ra: float, dec: float) -> Vector:
    a, d = math.radians(ra), math.radians(dec)
    return math.cos(d) * math.cos(a), math.cos(d) * math.sin(a), math.sin(d)


def dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def separation(a: Vector, b: Vector) -> float:
    """In deg (Vincenty: exact at all distances)."""
    c = cross(a, b)
    return math.degrees(math.atan2(math.sqrt(dot(c, c)), dot(a, b)))


def along(a: Vector, b: Vector, t: float) -> Vector:
    """A point of the arc from a to b, by slerp."""
    whole = math.radians(separation(a, b))
    if whole == 0:
        return a
    p, q = math.sin((1 - t) * whole) / math.sin(whole), math.sin(t * whole) / math.sin(whole)
    return p * a[0] + q * b[0], p * a[1] + q * b[1], p * a[2] + q * b[2]


def arc_distance(point: Vector, a: Vector, b: Vector) -> float:
    """Smallest distance in deg from a point to an arc: the distance has one minimum along a short arc; ternary search
    between its samples."""
    samples = 64
    best = min(range(samples + 1), key=lambda i: separation(point, along(a, b, i / samples)))
    low, high = max(best - 1, 0) / samples, min(best + 1, samples) / samples
    for _ in range(100):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        if separation(point, along(a, b, first)) < separation(point, along(a, b, second)):
            high = second
        else:
            low = first
    return separation(point, along(a, b, 0.5 * (low + high)))


def inside_convex(point: Vector, corners: Sequence[Vector]) -> bool:
    """Whether a convex polygon holds a point: it lies on the same side of all edges."""
    sides = [dot(cross(a, b), point) for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)]
    return all(side > 0 for side in sides) or all(side < 0 for side in sides)


def edges(corners: Sequence[Vector]) -> list[tuple[Vector, Vector]]:
    return list(zip(corners, [*corners[1:], corners[0]], strict=True))


def cone_margin(ra: float, dec: float, radius: float, corners: Sequence[Vector]) -> float:
    """How many deg the polygon reaches into the cone; negative: how far it stays outside."""
    centre = vector(ra, dec)
    if inside_convex(centre, corners):
        return radius + 1.0
    return radius - min(arc_distance(centre, a, b) for a, b in edges(corners))


def in_box(point: Vector, box: Sequence[float], slack: float = 0.0) -> bool:
    dec = math.degrees(math.asin(max(-1.0, min(1.0, point[2]))))
    ra = math.degrees(math.atan2(point[1], point[0]))
    width = box[1] - box[0]
    width = 360.0 if width >= 360 else width % 360.0
    turn = (ra - box[0]) % 360.0
    stretch = slack / max(math.cos(math.radians(dec)), 1e-9)
    between = turn <= width + stretch or turn >= 360.0 - stretch or width >= 360.0
    return between and box[2] - slack <= dec <= box[3] + slack


def box_points(box: Sequence[float], n: int = 60) -> list[Vector]:
    """Points all over a box, its edges included."""
    width = box[1] - box[0]
    width = 360.0 if width >= 360 else width % 360.0
    return [
        vector(box[0] + width * i / n, box[2] + (box[3] - box[2]) * j / n)
        for i in range(n + 1)
        for j in range(n + 1)
    ]


def polygon_points(corners: Sequence[Vector], n: int = 60) -> list[Vector]:
    """Points all over a convex polygon: on lines from its middle to its edges."""
    total = [sum(corner[axis] for corner in corners) for axis in range(3)]
    norm = math.sqrt(sum(value * value for value in total))
    middle = (total[0] / norm, total[1] / norm, total[2] / norm)
    found = [middle]
    for a, b in edges(corners):
        for i in range(n + 1):
            edge = along(a, b, i / n)
            found += [along(middle, edge, j / 8) for j in range(1, 9)]
    return found
