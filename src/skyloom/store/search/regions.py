"""Regions of the sky: cones, boxes and maps of coverage, and what of them a circle or a polygon touches.

Directions are unit vectors, so that nothing is special about the poles or about right ascension 0. Edges of polygons
are great circles; those of a box are meridians and parallels. A region gives HEALPix ranges that hold every position
closer to it than a padding; whether something really touches it is then tested exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import InputError
from skyloom.store.schema import POSITION_ORDER
from skyloom.store.search.cells import (
    CELL_SIDE,
    N_CELLS,
    ROUNDING,
    covering,
    healpix_of,
    in_ranges,
    order_around,
    order_of,
    ranges_of,
    sorted_ranges,
)
from skyloom.store.search.polygons import Polygons
from skyloom.store.search.sphere import angles, arc_distances, arcs_cross, cross, dot, positions, unit_vectors

if TYPE_CHECKING:
    from mocpy import MOC

__all__ = ["Box", "Cone", "Coverage", "Region", "as_cone", "position"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


class Region(Protocol):
    """What the index asks of a region of the sky."""

    @property
    def extent(self) -> float:
        """Size in deg, compared with which a padding may be small."""
        ...

    def ranges(self, padding: float) -> Int:
        """Return (k, 2) half-open ranges of order-29 cells that hold all positions within ``padding`` (deg)."""
        ...

    def touches_circles(self, vectors: Float, radii: ArrayLike) -> Bool:
        """Tell which circles (centres as unit vectors (n, 3), radii in deg) touch the region."""
        ...

    def touches_polygons(self, polygons: Polygons) -> Bool:
        """Tell which polygons touch the region."""
        ...


@dataclass(frozen=True, slots=True)
class Cone:
    """All within a radius of a position; everything in deg."""

    ra: float
    dec: float
    radius: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.ra) and -90 <= self.dec <= 90):
            raise InputError(
                f"the cone is about ({self.ra}, {self.dec}); expected a position in deg", field="cone"
            )
        if not 0 <= self.radius <= 180:
            raise InputError(f"the cone has a radius of {self.radius} deg; expected 0 to 180", field="cone")

    @property
    def extent(self) -> float:
        """The radius."""
        return self.radius

    @property
    def centre(self) -> Float:
        """As a unit vector."""
        return unit_vectors(self.ra, self.dec)

    def ranges(self, padding: float) -> Int:
        """Return ranges of cells, see `Region`."""
        reach = np.radians(self.radius + padding) + ROUNDING
        if reach >= 0.9 * np.pi:
            return np.array([[0, N_CELLS]])
        from astropy import units as u
        from cdshealpix.nested import cone_search

        # The search itself looks two orders deeper.
        order = order_of(np.degrees(reach) / 2, finest=POSITION_ORDER - 2)
        cells, orders, _ = cone_search(*_angles(self.ra % 360.0, self.dec), u.Quantity(reach, u.rad), order)
        return ranges_of(cells, orders)

    def touches_circles(self, vectors: Float, radii: ArrayLike) -> Bool:
        """Tell which circles touch, see `Region`."""
        reach = np.minimum(np.radians(self.radius + np.asarray(radii)), np.pi)
        between = vectors - self.centre
        return np.asarray(dot(between, between) <= (2.0 * np.sin(0.5 * reach)) ** 2)

    def touches_polygons(self, polygons: Polygons) -> Bool:
        """Tell which polygons touch, see `Region`."""
        first, second = polygons.edges()
        near = arc_distances(self.centre, first, second) <= np.radians(self.radius)
        return polygons.any_edge(near) | polygons.hold(self.centre, (first, second))


@dataclass(frozen=True, slots=True)
class Box:
    """All between two meridians and two parallels, in deg; from ``ra_min`` eastward, across 0 where ra_max is less."""

    ra_min: float
    ra_max: float
    dec_min: float
    dec_max: float

    def __post_init__(self) -> None:
        edges = (self.ra_min, self.ra_max, self.dec_min, self.dec_max)
        if not np.all(np.isfinite(edges)) or not -90 <= self.dec_min <= self.dec_max <= 90:
            raise InputError(
                f"the box is {edges}; expected (ra_min, ra_max, dec_min, dec_max) in deg",
                field="box",
                remedy="give declinations from -90 to 90, the smaller one first",
            )

    @property
    def width(self) -> float:
        """In right ascension, deg."""
        extent = self.ra_max - self.ra_min
        return 360.0 if extent >= 360.0 else extent % 360.0

    def ranges(self, padding: float) -> Int:
        """Return ranges of cells, see `Region`."""
        return covering(self, padding, finest=order_of(0.5 * (padding + self.extent) + 1e-3))

    @property
    def extent(self) -> float:
        """The smaller side in deg, without caring for the meridians that come together."""
        return min(self.width, self.dec_max - self.dec_min)

    def holds(self, vectors: Float) -> Bool:
        """Tell which directions (n, 3) lie in the box."""
        dec = np.degrees(np.arctan2(vectors[..., 2], np.hypot(vectors[..., 0], vectors[..., 1])))
        return self._between(vectors) & (dec >= self.dec_min) & (dec <= self.dec_max)

    def _between(self, vectors: Float) -> Bool:
        """Tell which directions lie between the meridians; a pole lies on all of them."""
        ra = np.degrees(np.arctan2(vectors[..., 1], vectors[..., 0]))
        at_pole = np.hypot(vectors[..., 0], vectors[..., 1]) < ROUNDING
        return np.asarray(((ra - self.ra_min) % 360.0 <= self.width) | (self.width >= 360.0) | at_pole)

    def _meridians(self) -> list[tuple[Float, Float]]:
        """Pieces of the two meridians, each shorter than a half circle."""
        if self.width >= 360.0:
            return []
        middle = 0.5 * (self.dec_min + self.dec_max)
        return [
            (unit_vectors(ra, low), unit_vectors(ra, high))
            for ra in (self.ra_min, self.ra_max)
            for low, high in ((self.dec_min, middle), (middle, self.dec_max))
        ]

    def touches_circles(self, vectors: Float, radii: ArrayLike) -> Bool:
        """Tell which circles touch, see `Region`."""
        reach = np.radians(np.asarray(radii))
        dec = np.arctan2(vectors[..., 2], np.hypot(vectors[..., 0], vectors[..., 1]))
        above = np.maximum(np.radians(self.dec_min) - dec, dec - np.radians(self.dec_max))
        touched = self._between(vectors) & (np.maximum(above, 0.0) <= reach)
        for first, second in self._meridians():
            touched |= arc_distances(vectors, first, second) <= reach
        return np.asarray(touched)

    def touches_polygons(self, polygons: Polygons) -> Bool:
        """Tell which polygons touch, see `Region`."""
        first, second = polygons.edges()
        met = self.holds(first)
        for low, high in self._meridians():
            met |= arcs_cross(first, second, low, high)
        for dec in (self.dec_min, self.dec_max):
            met |= self._crosses_parallel(first, second, dec)
        touched = polygons.any_edge(met)
        for ra in (self.ra_min, self.ra_min + self.width):
            for dec in (self.dec_min, self.dec_max):
                touched |= polygons.hold(unit_vectors(ra, dec), (first, second))
        return touched

    def _crosses_parallel(self, first: Float, second: Float, dec: float) -> Bool:
        """Tell which arcs cross a parallel between the meridians.

        Along an arc ``z(t) = first_z cos t + ahead_z sin t``, solved for ``sin dec``.
        """
        ahead = cross(cross(first, second), first)
        length = np.sqrt(np.sum(ahead**2, axis=-1, keepdims=True))
        ahead = np.divide(ahead, length, out=np.zeros_like(ahead), where=length > 0)
        whole = angles(first, second)
        height = np.hypot(first[..., 2], ahead[..., 2])
        phase = np.arctan2(ahead[..., 2], first[..., 2])
        ratio = np.divide(np.sin(np.radians(dec)), height, out=np.full(height.shape, 2.0), where=height > 0)
        reached = np.abs(ratio) <= 1.0
        half = np.arccos(np.clip(ratio, -1.0, 1.0))
        crossed = np.zeros(height.shape, bool)
        for angle in (phase + half, phase - half):
            along = angle % (2 * np.pi)
            place = first * np.cos(along)[..., None] + ahead * np.sin(along)[..., None]
            crossed |= reached & (along <= whole) & self._between(place)
        return crossed


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """A multi-order coverage map (mocpy.MOC).

    Circles and polygons are compared with it as maps of coverage of their own, with cells of a 32nd of their size or
    as small as the smallest of the map: what lies closer than that to its edge counts as touching.
    """

    moc: MOC

    @property
    def extent(self) -> float:
        """Side of the smallest cells."""
        return CELL_SIDE / float(1 << int(self.moc.max_order))

    def ranges(self, padding: float) -> Int:
        """Return ranges of cells, see `Region`."""
        if self.moc.empty():
            return np.empty((0, 2), np.int64)
        wide = self.moc
        if padding > 0:
            order = order_around(padding)
            wide = (wide.degrade_to_order(order) if order < wide.max_order else wide).extended()
        return sorted_ranges(np.asarray(wide.to_depth29_ranges, dtype=np.int64))

    def touches_circles(self, vectors: Float, radii: ArrayLike) -> Bool:
        """Tell which circles touch, see `Region`."""
        reach = np.broadcast_to(np.asarray(radii, dtype=np.float64), vectors.shape[:-1])
        ra, dec = positions(vectors)
        touched = in_ranges(healpix_of(ra, dec), self.ranges(0.0))
        from astropy import units as u
        from astropy.coordinates import Latitude, Longitude
        from mocpy import MOC

        for row in np.flatnonzero(~touched & (reach > 0)):
            circle = MOC.from_cone(
                Longitude(ra[row], u.deg),
                Latitude(dec[row], u.deg),
                radius=u.Quantity(reach[row], u.deg),
                max_depth=self._order(float(reach[row])),
            )
            touched[row] = not circle.intersection(self.moc).empty()
        return touched

    def touches_polygons(self, polygons: Polygons) -> Bool:
        """Tell which polygons touch, see `Region`."""
        from astropy import units as u
        from astropy.coordinates import Latitude, Longitude
        from mocpy import MOC

        touched = np.zeros(len(polygons.start) - 1, bool)
        first, second = polygons.edges()
        longest = np.maximum.reduceat(angles(first, second), polygons.start[:-1]) if touched.size else first
        for row in range(touched.size):
            members = slice(polygons.start[row], polygons.start[row + 1])
            outline = MOC.from_polygon(
                Longitude(polygons.ra[members] % 360.0, u.deg),
                Latitude(polygons.dec[members], u.deg),
                max_depth=self._order(float(np.degrees(longest[row]))),
            )
            touched[row] = not outline.intersection(self.moc).empty()
        return touched

    def _order(self, size: float) -> int:
        return max(int(self.moc.max_order), order_of(size / 32))


def as_cone(cone: Any) -> Cone:
    """Make a cone of ``(SkyCoord, radius)`` or ``((ra, dec), radius)``; numbers are deg.

    Raises
    ------
    InputError
        When it is neither.
    """
    try:
        centre, radius = cone
        ra, dec = position(centre)
        return Cone(ra, dec, float(radius.to_value("deg")) if hasattr(radius, "unit") else float(radius))
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the cone is {cone!r}",
            field="cone",
            remedy="give (SkyCoord, radius) or ((ra, dec), radius), in deg",
        ) from error


def position(place: Any) -> tuple[float, float]:
    """Return right ascension and declination (ICRS, deg) of a SkyCoord or a pair of numbers or quantities."""
    if hasattr(place, "icrs"):
        return float(place.icrs.ra.deg), float(place.icrs.dec.deg)
    ra, dec = (float(value.to_value("deg")) if hasattr(value, "unit") else float(value) for value in place)
    return ra, dec


@lru_cache(maxsize=16)
def _angles(ra: float, dec: float) -> Any:
    """Return a position as astropy's angles, which cost more to make than a search does."""
    from astropy import units as u
    from astropy.coordinates import Latitude, Longitude

    return Longitude(ra, u.deg), Latitude(dec, u.deg)
