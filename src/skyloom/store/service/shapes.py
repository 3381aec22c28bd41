"""Polygons as regions of the sky to search in, and the outlines of all regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.store.search.polygons import Polygons
from skyloom.store.search.regions import Box, Cone
from skyloom.store.search.sphere import angles, arc_distances, arcs_cross, cross, dot, positions, unit_vectors

__all__ = ["SkyPolygon", "outline", "region_holds"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

PER_EDGE = 16
"""Points of an outline along an edge."""


@dataclass(frozen=True, slots=True, eq=False)
class SkyPolygon:
    """A polygon whose edges are great circles; its inside is the smaller side. Make one with `of`.

    Parameters
    ----------
    first, second : (n, 3) arrays
        Unit vectors of both ends of each edge.
    around : Cone
        Holds it.
    """

    first: Float
    second: Float
    around: Cone

    @classmethod
    def of(cls, places: Sequence[tuple[float, float]]) -> SkyPolygon:
        """Make a polygon of (ra, dec) in deg; vertices that are repeated count once.

        Raises
        ------
        ValueError
            When less than three vertices are left, or it does not fit into half the sky.
        """
        vertices = unit_vectors(*np.array(places, dtype=np.float64).T)
        following = np.roll(vertices, -1, axis=0)
        kept = angles(vertices, following) > 1e-12
        vertices = vertices[kept]
        if len(vertices) < 3:
            raise ValueError(f"the polygon has {len(vertices)} different vertices; expected 3 or more")
        middle = vertices.sum(axis=0)
        length = float(np.sqrt(dot(middle, middle)))
        if length < 1e-6:
            raise ValueError("the polygon does not fit into half the sky")
        reach = float(np.degrees(angles(vertices, middle / length).max()))
        if reach >= 89.999:
            raise ValueError("the polygon does not fit into half the sky")
        ra, dec = positions(middle)
        return cls(vertices, np.roll(vertices, -1, axis=0), Cone(float(ra), float(dec), reach + 1e-9))

    @property
    def extent(self) -> float:
        """Radius of the circle around it, in deg."""
        return self.around.radius

    def ranges(self, padding: float) -> Int:
        """Return ranges of cells, see `skyloom.store.search.regions.Region`."""
        return self.around.ranges(padding)

    def holds(self, vectors: Float) -> Bool:
        """Tell which directions (n, 3) lie inside; as `Polygons.hold` does for one point and many polygons."""
        turns, side = np.zeros(len(vectors)), np.zeros(len(vectors))
        for one, other in zip(self.first, self.second, strict=True):
            one_side, other_side = dot(vectors, one), dot(vectors, other)
            normal = cross(one, other)
            turns += np.arctan2(dot(vectors, normal), float(dot(one, other)) - one_side * other_side)
            side += one_side
        return np.asarray((np.abs(turns) > np.pi) & (side > 0))

    def touches_circles(self, vectors: Float, radii: ArrayLike) -> Bool:
        """Tell which circles touch, see `skyloom.store.search.regions.Region`."""
        reach = np.radians(np.broadcast_to(np.asarray(radii, dtype=np.float64), len(vectors)))
        touched = np.zeros(len(vectors), bool)
        near = np.flatnonzero(angles(vectors, self.around.centre) <= np.radians(self.around.radius) + reach)
        touched[near] = self.holds(vectors[near])
        for one, other in zip(self.first, self.second, strict=True):
            near = near[~touched[near]]
            touched[near] = arc_distances(vectors[near], one, other) <= reach[near]
        return touched

    def touches_polygons(self, polygons: Polygons) -> Bool:
        """Tell which polygons touch, see `skyloom.store.search.regions.Region`."""
        first, second = polygons.edges()
        met = self.holds(first)
        for one, other in zip(self.first, self.second, strict=True):
            met |= arcs_cross(first, second, one, other)
        return polygons.any_edge(met) | polygons.hold(self.first[0], (first, second))


def outline(shape: Cone | Box | SkyPolygon) -> Float:
    """Return unit vectors (n, 3) along the border of a region."""
    share = np.arange(PER_EDGE) / PER_EDGE
    if isinstance(shape, SkyPolygon):
        mixed = shape.first[:, None] * (1.0 - share[:, None]) + shape.second[:, None] * share[:, None]
        points = mixed.reshape(-1, 3)
        return np.asarray(points / np.sqrt(dot(points, points))[:, None])
    if isinstance(shape, Box):
        ra = shape.ra_min + shape.width * np.linspace(0.0, 1.0, 4 * PER_EDGE + 1)
        dec = np.linspace(shape.dec_min, shape.dec_max, 4 * PER_EDGE + 1)
        sides = [unit_vectors(ra, np.full(ra.size, edge)) for edge in (shape.dec_min, shape.dec_max)]
        sides += [unit_vectors(np.full(dec.size, edge), dec) for edge in (ra[0], ra[-1])]
        return np.concatenate(sides)
    east = np.array([-np.sin(np.radians(shape.ra)), np.cos(np.radians(shape.ra)), 0.0])
    north = cross(shape.centre, east)
    turn = 2.0 * np.pi * np.arange(4 * PER_EDGE)[:, None] / (4 * PER_EDGE)
    reach = np.radians(shape.radius)
    return np.asarray(
        np.cos(reach) * shape.centre + np.sin(reach) * (np.cos(turn) * east + np.sin(turn) * north)
    )


def region_holds(shape: Cone | Box | SkyPolygon, vectors: Float) -> NDArray[Any]:
    """Tell which directions (n, 3) lie in a region."""
    return shape.holds(vectors) if isinstance(shape, SkyPolygon) else shape.touches_circles(vectors, 0.0)
