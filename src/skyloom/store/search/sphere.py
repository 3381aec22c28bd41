"""Directions on the sky as unit vectors, and great circles between them: nothing is special about the poles."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["angles", "arc_distances", "arcs_cross", "cross", "dot", "positions", "unit_vectors"]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> Float:
    """Return the (..., 3) unit vectors of positions in deg."""
    alpha, delta = np.radians(ra), np.radians(dec)
    across = np.cos(delta)
    vectors = np.empty((*np.shape(alpha), 3))
    vectors[..., 0] = across * np.cos(alpha)
    vectors[..., 1] = across * np.sin(alpha)
    vectors[..., 2] = np.sin(delta)
    return vectors


def positions(vectors: Float) -> tuple[Float, Float]:
    """Return right ascension and declination in deg of unit vectors (..., 3)."""
    ra = np.degrees(np.arctan2(vectors[..., 1], vectors[..., 0])) % 360.0
    return ra, np.degrees(np.arctan2(vectors[..., 2], np.hypot(vectors[..., 0], vectors[..., 1])))


def dot(first: Float, second: Float) -> Float:
    """Return the scalar products of vectors (..., 3); several times as fast as a sum over so short an axis."""
    return np.asarray(np.einsum("...i,...i->...", first, second))


def cross(first: Float, second: Float) -> Float:
    """Return the vector products of vectors (..., 3), without the preparations of `numpy.cross`."""
    a, b = np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0)
    product = np.empty(np.broadcast_shapes(first.shape, second.shape))
    product[..., 0] = a[1] * b[2] - a[2] * b[1]
    product[..., 1] = a[2] * b[0] - a[0] * b[2]
    product[..., 2] = a[0] * b[1] - a[1] * b[0]
    return product


def angles(first: Float, second: Float) -> Float:
    """Return the angles in radians between unit vectors, exact for the smallest ones too."""
    between = first - second
    chord = np.sqrt(dot(between, between))
    return np.asarray(2.0 * np.arcsin(np.minimum(0.5 * chord, 1.0)))


def arc_distances(points: Float, first: Float, second: Float) -> Float:
    """Return the angles in radians from points to the shorter great-circle arcs between two vectors (all (..., 3))."""
    normal = cross(first, second)
    length = np.sqrt(dot(normal, normal))
    beside = (dot(cross(normal, first), points) >= 0) & (dot(cross(second, normal), points) >= 0)
    across = np.abs(dot(normal, points)) / np.where(length > 0, length, 1.0)
    nearest = np.minimum(angles(points, first), angles(points, second))
    return np.where(beside & (length > 0), np.arcsin(np.minimum(across, 1.0)), nearest)


def arcs_cross(first: Float, second: Float, third: Float, fourth: Float) -> Bool:
    """Tell whether the arcs from first to second and from third to fourth cross (all (..., 3))."""
    normal, other = cross(first, second), cross(third, fourth)
    sides = [
        dot(other, first),
        dot(other, second),
        dot(normal, third),
        dot(normal, fourth),
    ]
    apart = (sides[0] * sides[1] <= 0) & (sides[2] * sides[3] <= 0)
    # Arcs on opposite sides of the sky also have their ends on either side of each other's circles.
    return np.asarray(apart & (np.sum((first + second) * (third + fourth), axis=-1) > 0))
