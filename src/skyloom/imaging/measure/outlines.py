"""Outlines of labels as polygons, along the edges of pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core import geometry
from skyloom.core.drawn_regions import DrawnRegion, Frame
from skyloom.core.labels import LabelMap
from skyloom.errors import InputError

__all__ = ["aperture_regions", "outline_regions"]

Float = NDArray[np.float64]
Corner = tuple[int, int]


def outline_regions(labels: LabelMap, *, frame: Frame = "icrs") -> list[DrawnRegion]:
    """Return polygons around the regions of a map.

    Parameters
    ----------
    labels : LabelMap
        With a WCS, unless the frame is "image".
    frame : {"icrs", "fk5", "galactic", "image"}

    Returns
    -------
    list of DrawnRegion
        With the label as text; a region of several pieces is several polygons of one text. The way into a hole and out
        of it is a line that the polygon goes twice, so that the hole is not inside.
        `skyloom.imaging.measure.drawn.label_regions` gives the same map back.

    Raises
    ------
    InputError
        When there is no label, or no WCS.
    """
    found: list[DrawnRegion] = []
    ids = labels.ids
    # 1, 2 ... in the order of the labels, as ndimage wants them.
    dense = np.where(labels.labels >= 0, np.searchsorted(ids, labels.labels) + 1, 0)
    for label, box in zip(ids.tolist(), ndimage.find_objects(dense), strict=True):
        pieces, n_pieces = ndimage.label(dense[box] == np.searchsorted(ids, label) + 1)
        for piece in range(1, n_pieces + 1):
            corners = _polygon(pieces == piece) + np.array([box[1].start, box[0].start]) - 0.5
            found.append(DrawnRegion("polygon", "image", corners, text=str(label)))
    if not found:
        raise InputError("there is no label to draw", field="labels")
    return found if frame == "image" else _on_sky(found, labels, frame)


def _on_sky(regions: list[DrawnRegion], labels: LabelMap, frame: Frame) -> list[DrawnRegion]:
    """Return polygons in pixels as polygons on the sky."""
    from astropy.wcs.utils import pixel_to_skycoord

    wcs = geometry.celestial(labels.wcs, "a region on the sky")
    sizes = [len(region.points) for region in regions]
    x, y = np.concatenate([region.points for region in regions]).T
    places = pixel_to_skycoord(x, y, wcs, origin=0, mode="all").transform_to(frame)
    longitude, latitude = places.spherical.lon.deg % 360.0, places.spherical.lat.deg
    vertices = np.split(np.column_stack([longitude, latitude]), np.cumsum(sizes)[:-1])
    return [
        DrawnRegion("polygon", frame, points, text=region.text)
        for region, points in zip(regions, vertices, strict=True)
    ]


def aperture_regions(table: QTable, radius: float | None = None) -> list[DrawnRegion]:
    """Return circles at the places of a catalogue.

    Parameters
    ----------
    table : QTable
        ``ra`` and ``dec`` (deg), or ``x`` and ``y`` (pixels from 0, as `skyloom.imaging.sum_apertures` returns them),
        by any case; perhaps ``radius`` (arcsec with ra and dec, else pixels) and ``name``, ``id`` or ``label``.
    radius : float, optional
        Of all circles, instead of the column.

    Raises
    ------
    InputError
        When there are no places or no radius.
    """
    columns = {name.lower(): name for name in table.colnames}
    sky = {"ra", "dec"} <= set(columns)
    names = ("ra", "dec") if sky else ("x", "y")
    if not set(names) <= set(columns):
        raise InputError(
            f"the table has no places (its columns: {', '.join(table.colnames[:12])})",
            field="columns",
            remedy="name them ra and dec, or x and y",
        )
    if radius is None and "radius" not in columns:
        raise InputError("the table has no radius", field="radius", remedy="give one for all")
    first, second = (_numbers(table, columns[name], "deg" if sky else "") for name in names)
    if radius is None:
        radii = _numbers(table, columns["radius"], "arcsec" if sky else "")
    else:
        radii = np.full(len(table), float(radius))
    text = next((columns[name] for name in ("name", "id", "label") if name in columns), None)
    frame: Frame = "icrs" if sky else "image"
    return [
        DrawnRegion(
            "circle",
            frame,
            np.array([place[:2]]),
            (place[2],),
            "arcsec" if sky else "pixel",
            text="" if text is None else str(table[text][number]),
        )
        for number, place in enumerate(zip(first, second, radii, strict=True))
    ]


def _numbers(table: QTable, name: str, unit: str) -> Float:
    """Return a column as plain numbers in a unit; one without a unit is in it already."""
    column = table[name]
    known = getattr(column, "unit", None)
    values = column.to_value(unit) if known is not None and unit and hasattr(column, "to_value") else column
    return np.asarray(getattr(values, "value", values), dtype=np.float64)


# --- along the edges of pixels ---------------------------------------------------------------------------


def _polygon(inside: NDArray[np.bool_]) -> Float:
    """Return the corners (x, y) of a connected piece, counted from the lower left; holes are joined to the outline."""
    loops = list(_loops(inside))
    # The outline goes round counterclockwise, holes clockwise.
    areas = [_area(loop) for loop in loops]
    outer = loops.pop(int(np.argmax(areas)))
    path = [*outer, outer[0]]
    for hole in loops:
        path += [*hole, hole[0], outer[0]]
    return np.array(path if loops else path[:-1], dtype=np.float64)


def _area(loop: list[Corner]) -> float:
    x, y = np.array(loop, dtype=np.float64).T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def _loops(inside: NDArray[np.bool_]) -> Iterator[list[Corner]]:
    """Yield closed paths along the edges, what is inside on the left; only corners at which they turn."""
    edges = _edges(inside)
    while edges:
        start = next(iter(edges))
        place, direction = start, edges[start][0]
        path: list[Corner] = []
        heading: Corner | None = None
        while True:
            choices = edges[place]
            if heading is not None and len(choices) > 1:
                # Two pixels touch at this corner: a turn to the left stays at the same one.
                left = (-heading[1], heading[0])
                direction = left if left in choices else choices[0]
            else:
                direction = choices[0]
            choices.remove(direction)
            if not choices:
                del edges[place]
            if direction != heading:
                path.append(place)
            heading = direction
            place = (place[0] + direction[0], place[1] + direction[1])
            if place == start:
                break
        yield path


def _edges(inside: NDArray[np.bool_]) -> dict[Corner, list[Corner]]:
    """Return the directions in which edges leave each corner."""
    framed = np.pad(inside, 1)
    core = framed[1:-1, 1:-1]
    found: dict[Corner, list[Corner]] = {}
    sides: tuple[tuple[NDArray[np.bool_], Corner, Corner], ...] = (
        (framed[:-2, 1:-1], (0, 0), (1, 0)),  # below: to the right
        (framed[1:-1, 2:], (1, 0), (0, 1)),  # right: upwards
        (framed[2:, 1:-1], (1, 1), (-1, 0)),  # above: to the left
        (framed[1:-1, :-2], (0, 1), (0, -1)),  # left: downwards
    )
    for neighbour, (dx, dy), direction in sides:
        rows, columns = np.nonzero(core & ~neighbour)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            found.setdefault((column + dx, row + dy), []).append(direction)
    return found
