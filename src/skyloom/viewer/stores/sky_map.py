"""What a map of the sky shows of observations: their outlines, or how many lie in each HEALPix cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyloom.store.contents import Contents
from skyloom.store.schema import POSITION_ORDER
from skyloom.store.search.cells import CELL_SIDE
from skyloom.store.search.index import KINDS
from skyloom.store.search.regions import Cone
from skyloom.viewer.stores.projections import Mollweide, Projection, Window

__all__ = [
    "MOST_OUTLINES",
    "Drawn",
    "Graticule",
    "box_on_sky",
    "box_outline",
    "circle_on_map",
    "drawn",
    "graticule",
]

Float = NDArray[np.float64]
Int = NDArray[np.int64]

MOST_OUTLINES = 4000
"""Observations in view beyond which cells are counted instead."""
_CELLS_ACROSS = 48
_FINEST = 14
_ROUND_CORNERS = 24
_SAME = 1e-4  # deg; outlines that differ by less are drawn once.
_STEPS = (30.0, 15.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
_LINES = 5  # At least, of a graticule across a view.
_POINTS = 61


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is on the map.

    Attributes
    ----------
    outlines : list of (x, y)
        Each once, though several epochs share it.
    outline_kinds : list of str
    outline_counts : list of int
        How many observations have the outline.
    point_rows : (n,) int64 array
        Observations too small to have an outline here.
    points : (x, y)
    cells : list of (x, y)
        HEALPix cells, when there is too much for outlines.
    counts : list of int
    total : int
        Observations in view.
    """

    outlines: list[tuple[Float, Float]]
    outline_kinds: list[str]
    outline_counts: list[int]
    point_rows: Int
    points: tuple[Float, Float]
    cells: list[tuple[Float, Float]]
    counts: list[int]
    total: int


def drawn(store: Contents, rows: Int, projection: Projection, window: Window) -> Drawn:
    """Return what a part of a map shows of some rows (ascending).

    Parameters
    ----------
    store : Contents
    rows : (n,) int64 array
    projection : Projection
    window : (x0, x1, y0, y1)
    """
    inside = _in_view(store, rows, projection, window)
    if inside.size > MOST_OUTLINES:
        cells, counts = _counted(store, inside, projection, window)
        nothing = np.empty(0, np.int64)
        return Drawn([], [], [], nothing, (np.empty(0), np.empty(0)), cells, counts, int(inside.size))
    return _outlined(store, inside, projection, window)


def _in_view(store: Contents, rows: Int, projection: Projection, window: Window) -> Int:
    """Return those of the rows that may be seen."""
    columns = store.index.columns
    rows = rows[columns["healpix"][rows] >= 0]
    x0, x1, y0, y1 = window
    if isinstance(projection, Mollweide):
        if x1 - x0 > 300.0:
            return rows
    else:
        ra, dec = (float(value) for value in projection.backward(0.5 * (x0 + x1), 0.5 * (y0 + y1)))
        # Distances on the tangent plane are never shorter than on the sky.
        reach = 0.5 * float(np.hypot(x1 - x0, y1 - y0))
        near = np.sort(store.index.candidates(Cone(ra, dec, min(reach, 180.0))))
        rows = near[np.isin(near, rows, assume_unique=True)] if rows.size < len(store) else near
    x, y = projection.forward(columns["s_ra"][rows], columns["s_dec"][rows])
    margin = np.nan_to_num(columns["radius"][rows])
    seen = (x > x0 - margin) & (x < x1 + margin) & (y > y0 - margin) & (y < y1 + margin)
    return np.asarray(rows[seen])


def _counted(
    store: Contents, rows: Int, projection: Projection, window: Window
) -> tuple[list[tuple[Float, Float]], list[int]]:
    """Return HEALPix cells and how many of the rows have their centre in each."""
    from cdshealpix.nested import vertices

    across = max(window[1] - window[0], 1e-6)
    order = int(np.clip(np.round(np.log2(CELL_SIDE * _CELLS_ACROSS / min(across, 180.0))), 2, _FINEST))
    cells, counts = np.unique(
        store.index.columns["healpix"][rows] >> (2 * (POSITION_ORDER - order)), return_counts=True
    )
    longitude, latitude = vertices(cells.astype(np.uint64), order)
    corners = _closed(longitude.deg, latitude.deg, projection)
    shown = [number for number, (x, y) in enumerate(corners) if np.isfinite(x).all() and np.isfinite(y).all()]
    return [corners[number] for number in shown], [int(counts[number]) for number in shown]


def _closed(ra: Float, dec: Float, projection: Projection) -> list[tuple[Float, Float]]:
    """Project polygons (n, k), those that cross the edge of a map of the whole sky cut there."""
    if isinstance(projection, Mollweide):
        east = (ra - projection.ra + 180.0) % 360.0 - 180.0
        first = east[:, :1]
        # Unrolled from the first corner on, then cut at the edge on whose side most of it lies.
        east = first + (east - first + 180.0) % 360.0 - 180.0
        middle = east.mean(axis=1, keepdims=True)
        east = np.clip(east - 360.0 * np.round(middle / 360.0), -180.0, 180.0)
        x, y = projection.placed(east, dec)
    else:
        x, y = projection.forward(ra, dec)
    return list(zip(x, y, strict=True))


def _outlined(store: Contents, rows: Int, projection: Projection, window: Window) -> Drawn:
    index = store.index
    columns = index.columns
    kinds = np.array(index.kind.values)[index.kind.codes[rows]] if rows.size else np.empty(0, str)
    # A twentieth of a tenth of the view is a point.
    smallest = (window[1] - window[0]) / 400.0
    radius = np.nan_to_num(columns["radius"][rows])
    is_point = radius < smallest
    spread = rows[~is_point]
    sizes = index.polygons.sizes_of(spread)
    outlines: list[tuple[Float, Float]] = []
    drawn_kinds: list[str] = []
    numbers: list[int] = []
    keys = np.column_stack(
        [np.round(columns[name][spread] / _SAME) for name in ("s_ra", "s_dec", "radius")]
        + [sizes, index.kind.codes[spread]]
    )
    _, first, counts = np.unique(keys, axis=0, return_index=True, return_counts=True)
    polygons = index.polygons.take(spread[first])
    for number, (row, count) in enumerate(zip(spread[first].tolist(), counts.tolist(), strict=True)):
        begin, end = polygons.start[number : number + 2]
        if end > begin:
            ra, dec = polygons.ra[begin:end], polygons.dec[begin:end]
        else:
            place = (columns[name][row] for name in ("s_ra", "s_dec", "radius"))
            ra, dec = _circle(*(float(value) for value in place))
        x, y = _closed(ra[None], dec[None], projection)[0]
        if np.isfinite(x).all() and np.isfinite(y).all():
            outlines.append((x, y))
            drawn_kinds.append(index.kind.values[index.kind.codes[row]])
            numbers.append(count)
    points = rows[is_point]
    # Images beneath, fibres above.
    points = points[np.argsort([KINDS.index(kind) for kind in kinds[is_point]], kind="stable")]
    place_x, place_y = projection.forward(columns["s_ra"][points], columns["s_dec"][points])
    return Drawn(outlines, drawn_kinds, numbers, points, (place_x, place_y), [], [], int(rows.size))


def _circle(ra: float, dec: float, radius: float) -> tuple[Float, Float]:
    """Return points around a position, at a distance in deg."""
    turn = np.linspace(0.0, 2 * np.pi, _ROUND_CORNERS, endpoint=False)
    reach, up = np.radians(radius), np.radians(dec)
    height = np.sin(up) * np.cos(reach) + np.cos(up) * np.sin(reach) * np.cos(turn)
    east = np.arctan2(np.sin(turn) * np.sin(reach) * np.cos(up), np.cos(reach) - np.sin(up) * height)
    return (ra + np.degrees(east)) % 360.0, np.degrees(np.arcsin(np.clip(height, -1, 1)))


def circle_on_map(projection: Projection, ra: float, dec: float, radius: float) -> tuple[Float, Float]:
    """Return the outline of a cone on a map."""
    edge_ra, edge_dec = _circle(ra, dec, radius)
    return _closed(edge_ra[None], edge_dec[None], projection)[0]


# ------------------------------------------------------------------------------------------------- boxes and lines


def box_on_sky(projection: Projection, window: Window) -> tuple[float, float, float, float] | None:
    """Return the box (ra_min, ra_max, dec_min, dec_max) that holds a rectangle of a map; None beyond the sky."""
    along = np.linspace(0.0, 1.0, 33)
    x0, x1, y0, y1 = window
    x, y = np.meshgrid(x0 + along * (x1 - x0), y0 + along * (y1 - y0))
    ra, dec = projection.backward(x.ravel(), y.ravel())
    known = np.isfinite(ra) & np.isfinite(dec)
    if not known.any():
        return None
    ra, dec = ra[known], dec[known]
    low, high = float(dec.min()), float(dec.max())
    for pole in (-90.0, 90.0):
        pole_x, pole_y = (float(value) for value in projection.forward(0.0, pole))
        if x0 <= pole_x <= x1 and y0 <= pole_y <= y1:
            return 0.0, 360.0, min(low, pole), max(high, pole)
    centre = projection.centre[0]
    if isinstance(projection, Mollweide):
        east = (ra - centre + 180.0) % 360.0 - 180.0
    else:
        middle = float(projection.backward(0.5 * (x0 + x1), 0.5 * (y0 + y1))[0])
        east, centre = (ra - middle + 180.0) % 360.0 - 180.0, middle
    first, last = float(east.min()), float(east.max())
    if last - first >= 359.0:
        return 0.0, 360.0, low, high
    return (centre + first) % 360.0, (centre + last) % 360.0, low, high


def box_outline(projection: Projection, box: tuple[float, float, float, float]) -> tuple[Float, Float]:
    """Return the outline of a box (ra_min, ra_max, dec_min, dec_max) on a map."""
    ra_min, ra_max, dec_min, dec_max = box
    width = 360.0 if ra_max - ra_min >= 360.0 else (ra_max - ra_min) % 360.0
    along = np.linspace(0.0, 1.0, 25)
    east = np.concatenate([along * width, np.full(25, width), (1 - along) * width, np.zeros(25)])
    dec = np.concatenate(
        [
            np.full(25, dec_min),
            dec_min + along * (dec_max - dec_min),
            np.full(25, dec_max),
            dec_max + along * (dec_min - dec_max),
        ]
    )
    if isinstance(projection, Mollweide):
        begin = (ra_min - projection.ra + 180.0) % 360.0 - 180.0
        return projection.placed(np.clip(begin + east, -180.0, 180.0), dec)
    return projection.forward(ra_min + east, dec)


@dataclass(frozen=True, slots=True)
class Graticule:
    """Meridians and parallels of a view, and where their numbers stand.

    Attributes
    ----------
    lines : list of (x, y)
    labels : list of (x, y, text)
        Of meridians at the lower edge, of parallels at the left one; on the whole sky along the equator and the limb.
    """

    lines: list[tuple[Float, Float]]
    labels: list[tuple[float, float, str]]


def graticule(projection: Projection, window: Window) -> Graticule:
    """Return meridians and parallels at round numbers."""
    if isinstance(projection, Mollweide):
        return _whole_graticule(projection)
    box = box_on_sky(projection, window)
    if box is None:
        return Graticule([], [])
    ra_min, ra_max, dec_min, dec_max = box
    width = 360.0 if ra_max - ra_min >= 360.0 else (ra_max - ra_min) % 360.0
    step_dec, step_ra = _step(dec_max - dec_min), _step(width)
    x0, x1, y0, y1 = window
    lines, labels = [], []
    for dec in np.arange(np.ceil(dec_min / step_dec), np.floor(dec_max / step_dec) + 1) * step_dec:
        x, y = projection.forward(ra_min + np.linspace(-0.1, 1.1, _POINTS) * width, np.full(_POINTS, dec))
        lines.append((x, y))
        # East is on the left: x falls along the line.
        height = np.interp(x0, x[::-1], y[::-1])
        if y0 < height < y1:
            labels.append((x0, float(height), f"{dec:+.{_digits(step_dec)}f}°"))
    span = dec_max - dec_min
    for ra in np.arange(np.ceil(ra_min / step_ra), np.floor((ra_min + width) / step_ra) + 1) * step_ra:
        heights = np.clip(np.linspace(dec_min - 0.1 * span, dec_max + 0.1 * span, _POINTS), -90, 90)
        x, y = projection.forward(np.full(_POINTS, ra), heights)
        lines.append((x, y))
        place = np.interp(y0, y, x)
        if x0 < place < x1:
            labels.append((float(place), y0, f"{ra % 360.0:.{_digits(step_ra)}f}°"))
    return Graticule(lines, labels)


def _whole_graticule(projection: Mollweide) -> Graticule:
    heights = np.linspace(-90.0, 90.0, 91)
    lines, labels = [], []
    for east in range(-180, 181, 30):
        lines.append(projection.placed(np.full(heights.size, float(east)), heights))
        if abs(east) < 180 and east % 60 == 0:
            x, y = projection.placed(float(east), 0.0)
            labels.append((float(x), float(y), f"{(projection.ra + east) % 360.0:.0f}°"))
    for dec in range(-60, 61, 30):
        around = np.linspace(-180.0, 180.0, 61)
        lines.append(projection.placed(around, np.full(61, float(dec))))
        if dec:
            x, y = projection.placed(180.0, float(dec))
            labels.append((float(x), float(y), f"{dec:+d}°"))
    return Graticule(lines, labels)


def _step(span: float) -> float:
    for step in _STEPS:
        if span / step >= _LINES:
            return step
    return _STEPS[-1]


def _digits(step: float) -> int:
    return max(0, int(np.ceil(-np.log10(step) - 1e-9)))
