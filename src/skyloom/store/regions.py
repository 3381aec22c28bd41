"""Regions of the sky: cones, boxes and maps of coverage, and what of them a circle or a polygon touches.

Directions are unit vectors, so that nothing is special about the poles or about right ascension 0. Edges of polygons
are great circles; those of a box are meridians and parallels. A region gives HEALPix ranges that hold every position
closer to it than a padding; whether something really touches it is then tested exactly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import InputError
from skyloom.store.schema import POSITION_ORDER

if TYPE_CHECKING:
    from mocpy import MOC

__all__ = [
    "Box",
    "Cone",
    "Coverage",
    "Polygons",
    "Region",
    "as_cone",
    "healpix_of",
    "parse_regions",
    "unit_vectors",
]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

N_CELLS = 12 << (2 * POSITION_ORDER)
CELL_SIDE = float(np.degrees(np.sqrt(np.pi / 3)))
"""Square root of the area of a HEALPix cell of order 0, in deg."""
CELL_REACH = 1.1
"""No corner of a cell is farther from its centre than this, times the root of its area."""
ROUNDING = 1e-9
"""Radians (0.2 mas) by which candidates are searched farther, so that rounding loses none."""
MANY_CELLS = 1000
"""Cells beyond which a covering is not made finer."""
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


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


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> Float:
    """Return the (..., 3) unit vectors of positions in deg."""
    alpha, delta = np.radians(ra), np.radians(dec)
    across = np.cos(delta)
    vectors = np.empty((*np.shape(alpha), 3))
    vectors[..., 0] = across * np.cos(alpha)
    vectors[..., 1] = across * np.sin(alpha)
    vectors[..., 2] = np.sin(delta)
    return vectors


def healpix_of(ra: ArrayLike, dec: ArrayLike, order: int = POSITION_ORDER) -> Int:
    """Return the nested HEALPix cells of positions in deg; -1 where one is not finite."""
    from astropy import units as u
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix.nested import lonlat_to_healpix

    longitude, latitude = np.broadcast_arrays(
        np.atleast_1d(ra).astype(float), np.atleast_1d(dec).astype(float)
    )
    known = np.isfinite(longitude) & np.isfinite(latitude)
    cells = np.full(longitude.shape, -1, np.int64)
    if known.any():
        # Starting threads takes longer than a few positions.
        cells[known] = lonlat_to_healpix(
            Longitude(longitude[known] % 360.0, u.deg),
            Latitude(latitude[known], u.deg),
            order,
            num_threads=0 if longitude.size > 1000 else 1,
        ).astype(np.int64)
    return cells


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


def parse_regions(texts: Sequence[str | bytes]) -> Polygons:
    """Read the outlines in a column of STC-S texts such as ``Polygon ICRS 10 0 10.2 0 10.2 0.1``.

    Circles and empty texts give no vertices: such an observation is the circle of its column ``radius``.

    Raises
    ------
    InputError
        When a text is neither, or its numbers are no positions.
    """
    sizes = np.zeros(len(texts), np.int64)
    values: list[float] = []
    for row, text in enumerate(texts):
        plain = text.decode() if isinstance(text, bytes) else text
        kind = plain.split(None, 1)[0].upper() if plain.strip() else ""
        if kind in ("", "CIRCLE", "POSITION"):
            continue
        frame = plain.split(None, 2)[1:2]
        numbers = [float(number) for number in _NUMBER.findall(plain.split(frame[0], 1)[1])] if frame else []
        if frame and _NUMBER.fullmatch(frame[0]):
            numbers.insert(0, float(frame[0]))
        if kind != "POLYGON" or len(numbers) < 6 or len(numbers) % 2:
            raise InputError(
                f"{plain[:80]!r} is no outline",
                field="s_region",
                remedy="write 'Polygon ICRS ra dec ra dec ra dec ...' or 'Circle ICRS ra dec radius', in deg",
            )
        sizes[row] = len(numbers) // 2
        values += numbers
    flat = np.array(values, dtype=np.float64).reshape(-1, 2)
    return Polygons(np.concatenate([[0], np.cumsum(sizes)]), flat[:, 0].copy(), flat[:, 1].copy())


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
        return _ranges_of(cells, orders)

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
        return _covering(self, padding, finest=order_of(0.5 * (padding + self.extent) + 1e-3))

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
        return _sorted(np.asarray(wide.to_depth29_ranges, dtype=np.int64))

    def touches_circles(self, vectors: Float, radii: ArrayLike) -> Bool:
        """Tell which circles touch, see `Region`."""
        reach = np.broadcast_to(np.asarray(radii, dtype=np.float64), vectors.shape[:-1])
        ra, dec = _positions(vectors)
        touched = _in_ranges(healpix_of(ra, dec), self.ranges(0.0))
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


def _positions(vectors: Float) -> tuple[Float, Float]:
    ra = np.degrees(np.arctan2(vectors[..., 1], vectors[..., 0])) % 360.0
    return ra, np.degrees(np.arctan2(vectors[..., 2], np.hypot(vectors[..., 0], vectors[..., 1])))


def order_of(side: float, finest: int = POSITION_ORDER) -> int:
    """Return the finest order whose cells are not smaller than ``side`` in deg."""
    return min(max(math.floor(math.log2(CELL_SIDE / side)), 0), finest)


def order_around(radius: float) -> int:
    """Return the finest order at which a cell with its neighbours holds all within ``radius`` (deg) of it.

    No cell is narrower than 0.7 times the root of its area.
    """
    return order_of(2.0 * radius + 1e-6)


def _covering(region: Region, padding: float, finest: int) -> Int:
    """Return the ranges of all cells that may hold a position within ``padding`` (deg) of a region.

    From large cells to small ones: those whose circle about the centre does not touch the region are left out, the
    others divided, as long as there are not too many.
    """
    from cdshealpix.nested import healpix_to_lonlat

    order = 1
    cells = np.arange(48, dtype=np.int64)
    while cells.size:
        longitude, latitude = healpix_to_lonlat(cells, order)
        vectors = unit_vectors(longitude.deg, latitude.deg)
        reach = CELL_REACH * CELL_SIDE / (1 << order) + padding + np.degrees(ROUNDING)
        cells = cells[region.touches_circles(vectors, np.full(cells.size, reach))]
        if order >= finest or cells.size > MANY_CELLS:
            break
        order += 1
        cells = (4 * cells[:, None] + np.arange(4)).ravel()
    return _as_ranges(cells, np.full(cells.size, order))


@lru_cache(maxsize=16)
def _angles(ra: float, dec: float) -> Any:
    """Return a position as astropy's angles, which cost more to make than a search does."""
    from astropy import units as u
    from astropy.coordinates import Latitude, Longitude

    return Longitude(ra, u.deg), Latitude(dec, u.deg)


def _as_ranges(cells: ArrayLike, orders: ArrayLike) -> Int:
    return _merged(_ranges_of(cells, orders))


def _ranges_of(cells: ArrayLike, orders: ArrayLike) -> Int:
    """Return the range of each cell."""
    shift = 2 * (POSITION_ORDER - np.asarray(orders, dtype=np.int64))
    first = np.asarray(cells).astype(np.int64) << shift
    return np.stack([first, first + (np.int64(1) << shift)], axis=-1)


def _sorted(ranges: Int) -> Int:
    return ranges[np.argsort(ranges[:, 0])]


def _merged(ranges: Int) -> Int:
    """Sort ranges and join those that touch."""
    ranges = _sorted(ranges)
    if len(ranges) < 2:
        return ranges
    ends = np.maximum.accumulate(ranges[:, 1])
    begins = np.concatenate([[True], ranges[1:, 0] > ends[:-1]])
    first = np.flatnonzero(begins)
    return np.stack([ranges[first, 0], np.maximum.reduceat(ranges[:, 1], first)], axis=-1)


def _in_ranges(cells: Int, ranges: Int) -> Bool:
    if not len(ranges):
        return np.zeros(cells.shape, bool)
    place = np.searchsorted(ranges[:, 0], cells, side="right") - 1
    return (place >= 0) & (cells < ranges[np.maximum(place, 0), 1])
