"""The index: which observations lie where on the sky, when, and at which wavelengths.

The columns that searches need are kept in memory, sorted by the HEALPix cell (order 29) of the centre within classes of
size: each class holds what is at most twice as large as the one before. A region, padded by the largest radius of a
class, is a few ranges of cells; binary search turns those into candidates, and the candidates are tested exactly: as
circles, and where an outline is known as polygons. ``docs/design/store.md`` has the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import InputError, ShapeError
from skyloom.kernels.tables.sky_regions import rows_in_cone
from skyloom.store.search.polygons import Polygons, spans
from skyloom.store.search.regions import Box, Cone, Coverage, Region, as_cone
from skyloom.store.search.sphere import unit_vectors

__all__ = ["KINDS", "NUMBERS", "Coded", "SkyIndex", "sky_order"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

KINDS = ("image", "cube", "spectrum")
NUMBERS = (
    "s_ra",
    "s_dec",
    "radius",
    "healpix",
    "t_start",
    "t_stop",
    "em_min",
    "em_max",
    "s_resolution",
    "pixel_scale",
    "n_levels",
)
"""Columns of numbers that the index needs."""
SMALLEST = 1.0 / 3600.0
"""Radius of the first class of size, in deg."""
SHARED = 0.8
"""Regions that reach this far of a larger one use its cells."""
FEW = 2000
"""Candidates that cost less than to find out which cells are near."""
NOWHERE = 127
"""Class of what has no position."""


class Coded(NamedTuple):
    """A column of texts of which few differ.

    Parameters
    ----------
    codes : (n,) integer array
        Into ``values``.
    values : tuple of str
    """

    codes: NDArray[np.integer[Any]]
    values: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str | bytes] | NDArray[np.bytes_]) -> Coded:
        """Code a column of texts."""
        if isinstance(texts, np.ndarray):
            values, first, codes = np.unique(texts, return_index=True, return_inverse=True)
            # In the order in which they come.
            order = np.argsort(first)
            return cls(np.argsort(order)[codes], tuple(value.decode() for value in values[order].tolist()))
        known: dict[str, int] = {}
        plain = (text.decode() if isinstance(text, bytes) else str(text) for text in texts)
        codes = np.fromiter((known.setdefault(text, len(known)) for text in plain), np.int32)
        return cls(codes, tuple(known))

    def equals(self, wanted: Iterable[str]) -> Bool:
        """Tell which rows have one of the wanted texts."""
        return self.table(wanted)[self.codes] if self.values else np.zeros(self.codes.shape, bool)

    def table(self, wanted: Iterable[str]) -> Bool:
        """Tell which of the values are wanted."""
        names = set(wanted)
        return np.array([value in names for value in self.values], dtype=bool)

    def take(self, rows: ArrayLike) -> Coded:
        """Return some of the rows."""
        return Coded(self.codes[np.asarray(rows)], self.values)


class SizeClass(NamedTuple):
    """Rows of observations of like size."""

    first: int
    last: int
    largest: float
    """Largest radius in deg."""
    kinds: frozenset[str]


def size_classes(radius: ArrayLike, healpix: ArrayLike) -> NDArray[np.int8]:
    """Return the class of size of each observation: 0 up to 1 arcsec, each further one twice that; 127 nowhere."""
    sizes = np.maximum(np.nan_to_num(np.asarray(radius, dtype=np.float64)), SMALLEST) / SMALLEST
    # The exponent of the number itself: a logarithm could round to the wrong side of a power of two.
    mantissa, exponent = np.frexp(sizes)
    classes = np.where(mantissa == 0.5, exponent - 1, exponent)
    return np.where(np.asarray(healpix) < 0, NOWHERE, classes).astype(np.int8)


def sky_order(radius: ArrayLike, healpix: ArrayLike) -> Int:
    """Return the order in which an index keeps its rows: by class of size, then by cell."""
    return np.lexsort((np.asarray(healpix), size_classes(radius, healpix)))


@dataclass(frozen=True, slots=True, eq=False)
class SkyIndex:
    """Observations, findable; make one with `build`.

    Parameters
    ----------
    columns : mapping
        The arrays `NUMBERS`, in the order of `sky_order`.
    kind, band : Coded
    polygons : Polygons
        Outlines; none: the circle of the column ``radius``.
    classes : tuple of SizeClass
        Those that have a position.
    """

    columns: Mapping[str, NDArray[Any]]
    kind: Coded
    band: Coded
    polygons: Polygons
    classes: tuple[SizeClass, ...]

    @classmethod
    def build(
        cls, columns: Mapping[str, ArrayLike], kind: Coded, band: Coded, polygons: Polygons
    ) -> SkyIndex:
        """Make an index of columns that are in the order of `sky_order` already.

        Raises
        ------
        ShapeError, InputError
            When columns are missing, differ in length, or are not in that order.
        """
        missing = [name for name in NUMBERS if name not in columns]
        if missing:
            raise InputError(f"the columns {missing} are missing", field="columns")
        arrays = {name: np.asarray(columns[name]) for name in NUMBERS}
        # As the kernel wants them; nothing is copied where they are so already.
        for name in ("s_ra", "s_dec", "radius"):
            arrays[name] = np.ascontiguousarray(arrays[name], dtype=np.float64)
        arrays["healpix"] = np.ascontiguousarray(arrays["healpix"], dtype=np.int64)
        n = arrays["healpix"].size
        lengths = {name: len(array) for name, array in arrays.items()}
        lengths |= {"kind": len(kind.codes), "band": len(band.codes), "polygons": len(polygons.start) - 1}
        for name, length in lengths.items():
            if length != n:
                raise ShapeError(f"{name} has {length} rows; expected {n}", field=name)
        sizes = size_classes(arrays["radius"], arrays["healpix"])
        borders = (
            np.flatnonzero(np.concatenate([[True], sizes[1:] != sizes[:-1], [True]]))
            if n
            else np.zeros(1, int)
        )
        classes = []
        for first, last in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            if sizes[first] < NOWHERE:
                largest = float(np.nanmax(arrays["radius"][first:last], initial=0.0))
                kinds = {kind.values[code] for code in np.unique(kind.codes[first:last])}
                classes.append(SizeClass(first, last, largest, frozenset(kinds)))
                if np.any(arrays["healpix"][first + 1 : last] < arrays["healpix"][first : last - 1]):
                    raise InputError("the rows are not in the order of the sky", field="healpix")
        if np.any(sizes[1:] < sizes[:-1]):
            raise InputError("the rows are not in the order of the sky", field="radius")
        return cls(arrays, kind, band, polygons, tuple(classes))

    def __len__(self) -> int:
        return int(self.columns["healpix"].size)

    def search(
        self,
        *,
        cone: Any = None,
        box: Sequence[float] | None = None,
        moc: Any = None,
        time: Sequence[Any] | None = None,
        wave: Sequence[Any] | None = None,
        band: str | Iterable[str] | None = None,
        resolution: Any = None,
        level: int | None = None,
        kind: str | Iterable[str] | None = None,
    ) -> Int:
        """Return the rows that fulfil all conditions, ascending.

        Parameters
        ----------
        cone : (SkyCoord or (ra, dec), radius), optional
            The footprint touches this circle. Numbers are deg.
        box : (ra_min, ra_max, dec_min, dec_max), optional
            The footprint touches this box, deg; ``ra_min > ra_max`` goes across 0.
        moc : mocpy.MOC, optional
            The footprint touches this coverage.
        time : (start, stop), optional
            The observation overlaps with this time: astropy Time, or MJD in TAI; None: open. What has no time does not.
        wave : (shortest, longest), optional
            The observation reaches into these wavelengths (quantities, also frequencies or energies; numbers are A),
            in vacuum. What has no known range does not.
        band : str or list of str, optional
        resolution : angle, optional
            The PSF is at most this wide (FWHM; numbers are arcsec). Where none is known, the pixels are at most this
            wide.
        level : int, optional
            The observation has this level.
        kind : {"image", "cube", "spectrum"} or list of them, optional

        Raises
        ------
        InputError
            When a condition cannot be understood, or names a band or a kind that is not there.
        """
        places: list[Region] = []
        if cone is not None:
            places.append(as_cone(cone))
        if box is not None:
            places.append(_as_box(box))
        if moc is not None:
            places.append(Coverage(moc))
        kinds = None if kind is None else _names(kind)
        rows: Int | None = None
        for place in places:
            rows = self.touching(place, kinds) if rows is None else rows[self._touches(rows, place)]
        for test in (
            self._time_test(time),
            self._wave_test(wave),
            self._coded_test(self.band, band, "band"),
            self._coded_test(self.kind, kind, "kind", KINDS),
            self._resolution_test(resolution),
            self._level_test(level),
        ):
            if test is not None:
                rows = np.flatnonzero(test(slice(None))) if rows is None else rows[test(rows)]
        return np.arange(len(self)) if rows is None else rows

    def touching(self, place: Region, kinds: Iterable[str] | None = None) -> Int:
        """Return the rows whose footprint touches a region, ascending; classes of size without ``kinds`` left out."""
        borders, ranges = self._near(place, kinds)
        if isinstance(place, Cone):
            return self._touching_cone(place, borders, ranges)
        candidates = self._in_ranges(borders, ranges)
        return candidates[self._touches(candidates, place)] if candidates.size else candidates

    def candidates(self, place: Region, kinds: Iterable[str] | None = None) -> Int:
        """Return the rows that `touching` compares with a region: those whose centres lie in the cells about it."""
        return self._in_ranges(*self._near(place, kinds))

    def _near(self, place: Region, kinds: Iterable[str] | None) -> tuple[Int, Int]:
        """Return ranges of cells (k, 2), and the rows (k, 2) between which each is to be looked for."""
        wanted = None if kinds is None else set(kinds)
        classes = [own for own in self.classes if wanted is None or not own.kinds.isdisjoint(wanted)]
        ranges = self._ranges_of(place, classes)
        rows = np.array([own[:2] for own in classes], np.int64).reshape(-1, 2)
        borders = np.repeat(rows, [len(own) for own in ranges], axis=0)
        return borders, np.concatenate([np.empty((0, 2), np.int64), *ranges])

    def _ranges_of(self, place: Region, classes: Sequence[SizeClass]) -> list[Int]:
        """Return ranges of cells for each class: those of a larger one where they will do, as a search takes time."""
        ranges: list[Int] = []
        padded = 0.0
        for own in reversed(classes):
            is_shared = bool(ranges) and own.largest + place.extent >= SHARED * (padded + place.extent)
            if not is_shared and ranges:
                cells = self.columns["healpix"][own.first : own.last]
                is_shared = int(np.diff(np.searchsorted(cells, ranges[-1])).sum()) < FEW
            if is_shared:
                ranges.append(ranges[-1])
            else:
                ranges.append(place.ranges(own.largest))
                padded = own.largest
        return ranges[::-1]

    def _touching_cone(self, cone: Cone, borders: Int, ranges: Int) -> Int:
        """Return the rows that touch a cone, out of ranges of cells of classes of size."""
        columns = self.columns
        rows: Int = rows_in_cone(
            columns["healpix"],
            borders,
            ranges,
            (columns["s_ra"], columns["s_dec"], columns["radius"]),
            (self.polygons.start, self.polygons.ra, self.polygons.dec),
            (cone.ra, cone.dec, cone.radius),
        )
        return rows

    def _in_ranges(self, borders: Int, ranges: Int) -> Int:
        """Return the rows between ``borders`` (k, 2) whose cells are in ``ranges`` (k, 2)."""
        cells = self.columns["healpix"]
        edges = np.empty(ranges.shape, np.int64)
        for first, last in np.unique(borders, axis=0).tolist():
            own = (borders[:, 0] == first) & (borders[:, 1] == last)
            edges[own] = first + np.searchsorted(cells[first:last], ranges[own], side="left")
        return spans(edges[:, 0], edges[:, 1])

    def _touches(self, rows: Int, place: Region) -> Bool:
        """Tell which rows touch a region: first as circles, then as polygons."""
        placed = self.columns["healpix"][rows] >= 0
        if not placed.all():
            near = np.zeros(rows.size, bool)
            near[placed] = self._touches(rows[placed], place)
            return near
        vectors = unit_vectors(self.columns["s_ra"][rows], self.columns["s_dec"][rows])
        radii = self.columns["radius"][rows]
        near = place.touches_circles(vectors, np.where(radii > 0, radii, 0.0))
        outlined = np.flatnonzero(near & (self.polygons.sizes_of(rows) > 0))
        if outlined.size:
            # A centre in the region decides; only footprints at its border need their outline.
            centred = place.touches_circles(vectors[outlined], 0.0)
            border = outlined[~centred]
            if border.size:
                near[border] = place.touches_polygons(self.polygons.take(rows[border]))
        return near

    def _time_test(self, time: Sequence[Any] | None) -> Any:
        if time is None:
            return None
        start, stop = _pair(time, "time", _as_tai)
        begin, end = self.columns["t_start"], self.columns["t_stop"]
        return lambda rows: (end[rows] >= start) & (begin[rows] <= stop)

    def _wave_test(self, wave: Sequence[Any] | None) -> Any:
        if wave is None:
            return None
        # A frequency or an energy falls with wavelength.
        shortest, longest = sorted(_pair(wave, "wave", _as_metres, ordered=False))
        low, high = self.columns["em_min"], self.columns["em_max"]
        return lambda rows: (high[rows] >= shortest) & (low[rows] <= longest)

    @staticmethod
    def _coded_test(column: Coded, wanted: Any, name: str, known: Sequence[str] = ()) -> Any:
        if wanted is None:
            return None
        names = _names(wanted)
        possible = set(known) | set(column.values)
        unknown = [item for item in names if item not in possible]
        if unknown and possible:
            shown = ", ".join(sorted(item for item in possible if item))
            raise InputError(f"there is no {name} {unknown[0]!r}", field=name, remedy=f"use one of {shown}")
        table = column.table(names)
        return lambda rows: table[column.codes[rows]] if table.size else np.zeros(0, bool)

    def _resolution_test(self, resolution: Any) -> Any:
        if resolution is None:
            return None
        limit = _number(resolution, "arcsec", "resolution")
        width, scale = self.columns["s_resolution"], self.columns["pixel_scale"]
        return lambda rows: np.where(np.isfinite(width[rows]), width[rows], scale[rows]) <= limit

    def _level_test(self, level: int | None) -> Any:
        if level is None:
            return None
        if int(level) != level or level < 0:
            raise InputError(f"level is {level}; expected 0 or more", field="level")
        n_levels = self.columns["n_levels"]
        return lambda rows: n_levels[rows] > level


def _names(wanted: str | Iterable[str]) -> list[str]:
    return [wanted] if isinstance(wanted, str) else [str(item) for item in wanted]


def _as_box(box: Sequence[float]) -> Box:
    try:
        return Box(*(_number(edge, "deg", "box") for edge in box))
    except TypeError as error:
        raise InputError(
            f"the box is {box!r}", field="box", remedy="give (ra_min, ra_max, dec_min, dec_max) in deg"
        ) from error


def _pair(pair: Sequence[Any], name: str, convert: Any, ordered: bool = True) -> tuple[float, float]:
    """Return both ends of an interval as numbers; None is open."""
    try:
        low, high = pair
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {pair!r}; expected (start, stop)", field=name) from error
    start = -np.inf if low is None else convert(low, name)
    stop = np.inf if high is None else convert(high, name)
    if np.isnan(start) or np.isnan(stop) or (ordered and start > stop):
        raise InputError(f"{name} runs from {low} to {high}; expected start <= stop", field=name)
    return start, stop


def _as_tai(value: Any, name: str) -> float:
    return float(value.tai.mjd) if hasattr(value, "tai") else _number(value, "d", name)


def _as_metres(value: Any, name: str) -> float:
    if not hasattr(value, "unit"):
        return _number(value, "Angstrom", name) * 1e-10
    import astropy.units as u

    try:
        return float(value.to_value("m", equivalencies=u.spectral()))
    except u.UnitConversionError as error:
        raise InputError(f"{name} has the limit {value}; expected a wavelength", field=name) from error


def _number(value: Any, unit: str, name: str) -> float:
    if hasattr(value, "unit"):
        import astropy.units as u

        try:
            return float(value.to_value(unit))
        except u.UnitConversionError as error:
            raise InputError(f"{name} is {value}; expected {unit}", field=name) from error
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {value!r}; expected a number in {unit}", field=name) from error
