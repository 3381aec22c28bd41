"""Drawn regions on a grid of pixels: masks and labels from them, and outlines of labels as polygons.

A pixel belongs to a region when its centre lies inside. Regions that share an edge share no pixel and leave none out.
"""

from __future__ import annotations

from collections.abc import Sequence

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import skycoord_to_pixel
from numpy.typing import NDArray

from skyloom.core import geometry
from skyloom.core.drawn_regions import DrawnRegion
from skyloom.core.image import Image
from skyloom.core.labels import NO_REGION, LabelMap
from skyloom.core.provenance import step
from skyloom.errors import InputError

__all__ = ["label_regions", "region_mask"]

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
Grid = Image | tuple[WCS | None, tuple[int, int]]
OFFSET = 1.0  # arcsec, over which directions on the sky are measured
LARGEST_LABEL = 2**31 - 1


def region_mask(regions: Sequence[DrawnRegion], target: Grid) -> Mask:
    """Return True inside regions.

    Parameters
    ----------
    regions : sequence of DrawnRegion
        Inside is what any of them includes and none of them excludes; where all of them exclude, all the rest. A point
        is the pixel it lies in.
    target : Image or (WCS, (ny, nx))
        The grid; its WCS may be None when all regions are in pixels.

    Returns
    -------
    (ny, nx) bool array

    Raises
    ------
    InputError
        When regions on the sky meet a grid without a WCS.
    """
    wcs, shape = _grid(target)
    inside, outside = (np.zeros(shape, dtype=bool) for _ in range(2))
    if regions and not any(region.include for region in regions):
        inside[:] = True
    for region, place in zip(regions, _places(regions, wcs, shape), strict=True):
        box, part = _pixels(region, place, shape)
        (inside if region.include else outside)[box] |= part
    return inside & ~outside


def label_regions(regions: Sequence[DrawnRegion], target: Grid) -> LabelMap:
    """Return a map of labels, one per region.

    Parameters
    ----------
    regions : sequence of DrawnRegion
        Where the texts of all included regions are whole numbers >= 0, these are the labels, and regions of one number
        are one; else they count from 1 in the order of the list. Where regions overlap the later one has the pixels;
        what any of them excludes belongs to none.
    target : Image or (WCS, (ny, nx))
        The grid.

    Returns
    -------
    LabelMap
        On the grid; ``meta`` has ``n_regions``, ``n_overlapping`` (pixels that two different ones claimed), ``empty``
        (labels without a pixel) and ``texts`` by label. What `skyloom.imaging.sum_regions` takes.

    Raises
    ------
    InputError
        When there is no included region, or regions on the sky meet a grid without a WCS.
    """
    wcs, shape = _grid(target)
    included = [region for region in regions if region.include]
    if not included:
        raise InputError("there is no region to label", field="regions", remedy="draw one, without '-'")
    numbers = _numbers(included)
    waiting = iter(numbers)
    labels = np.full(shape, NO_REGION, dtype=np.int32)
    outside = np.zeros(shape, dtype=bool)
    n_overlapping = 0
    for region, place in zip(regions, _places(regions, wcs, shape), strict=True):
        box, part = _pixels(region, place, shape)
        if not region.include:
            outside[box] |= part
            continue
        view, number = labels[box], next(waiting)
        n_overlapping += int(np.count_nonzero(part & (view >= 0) & (view != number)))
        view[part] = number
    labels[outside] = NO_REGION
    empty = sorted(set(numbers) - set(np.unique(labels).tolist()))
    texts = {
        str(number): region.text for region, number in zip(included, numbers, strict=True) if region.text
    }
    counted = {"n_regions": len(set(numbers)), "n_overlapping": n_overlapping, "empty": empty}
    return LabelMap(
        labels, wcs, meta={**counted, "texts": texts}, history=(step("label_regions", **counted),)
    )


def _numbers(regions: Sequence[DrawnRegion]) -> list[int]:
    """Return the label of each region: what their texts say, where they all do, else 1, 2 ..."""
    texts = [region.text.strip() for region in regions]
    if all(text.isascii() and text.isdigit() for text in texts):
        numbers = [int(text) for text in texts]
        if max(numbers) <= LARGEST_LABEL:
            return numbers
    return list(range(1, len(regions) + 1))


def _grid(target: Grid) -> tuple[WCS | None, tuple[int, int]]:
    return (target.wcs, target.shape) if isinstance(target, Image) else target


# --- all regions at once: a transformation of coordinates costs as much for one point as for a thousand ----


def _places(
    regions: Sequence[DrawnRegion], wcs: WCS | None, shape: tuple[int, int]
) -> list[tuple[Float, Float]]:
    """Return of each region its points in pixels, and the matrix from pixels to sizes (west and north on the sky)."""
    found: list[tuple[Float, Float]] = []
    for region in regions:
        scale = 1.0
        if region.frame == "image" and region.size_unit == "arcsec" and region.sizes:
            scale = geometry.pixel_scale(wcs, shape)
        found.append((region.points, np.eye(2) * scale))
    for frame in {region.frame for region in regions} - {"image"}:
        sky = geometry.celestial(wcs, "a region on the sky")
        chosen = [number for number, region in enumerate(regions) if region.frame == frame]
        corners = [regions[number].points for number in chosen]
        pixels = _to_pixels(SkyCoord(*np.concatenate(corners).T, unit=u.deg, frame=frame), sky)
        parts = np.split(pixels, np.cumsum([len(points) for points in corners])[:-1])
        for number, points in zip(chosen, parts, strict=True):
            found[number] = (points, np.eye(2))
        sized = [number for number in chosen if regions[number].sizes]
        if sized:
            _turn(regions, sized, frame, sky, found)
    return found


def _turn(
    regions: Sequence[DrawnRegion], sized: list[int], frame: str, wcs: WCS, found: list[tuple[Float, Float]]
) -> None:
    """Put in the matrices of regions on the sky, from the pixels an arcsec west and north of their centres."""
    centres = SkyCoord(*np.concatenate([regions[n].points for n in sized]).T, unit=u.deg, frame=frame)
    west, north = (
        _to_pixels(centres.directional_offset_by(angle * u.deg, OFFSET * u.arcsec), wcs)
        for angle in (270.0, 0.0)
    )
    for row, number in enumerate(sized):
        points, _ = found[number]
        ends = np.column_stack([west[row] - points[0], north[row] - points[0]]) / OFFSET
        turn: Float = np.full((2, 2), np.nan)
        if np.isfinite(ends).all():
            turn = np.asarray(np.linalg.inv(ends), dtype=np.float64)
        if regions[number].size_unit == "pixel":
            turn = turn / float(np.sqrt(abs(np.linalg.det(turn))))
        found[number] = (points, turn)


def _to_pixels(places: SkyCoord, wcs: WCS) -> Float:
    """Return (n, 2) pixels of places; NaN where the projection does not reach or a distortion runs away."""
    try:
        return np.column_stack(skycoord_to_pixel(places, wcs, origin=0, mode="all"))
    except NoConvergence as error:
        pixels = np.array(error.best_solution, dtype=np.float64)
        for lost in (error.divergent, error.slow_conv):
            if lost is not None:
                pixels[lost] = np.nan
        return pixels


# --- one region ----------------------------------------------------------------------------------------


def _pixels(
    region: DrawnRegion, place: tuple[Float, Float], shape: tuple[int, int]
) -> tuple[tuple[slice, slice], Mask]:
    """Return the rectangle of pixels around a region, and which of them lie inside."""
    points, turn = place
    if region.shape == "polygon":
        return _inside_polygon(points, shape)
    x, y = points[0]
    if not (np.isfinite(points).all() and np.isfinite(turn).all()):
        # On the other side of the sky, where the projection shows nothing.
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), dtype=bool)
    if region.shape == "point":
        column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        box = _box(column, column, row, row, shape)
        return box, np.ones(_size(box), dtype=bool)
    # As far as the largest size reaches in any direction, in pixels.
    reach = float(np.linalg.norm(region.sizes)) * float(np.linalg.norm(np.linalg.inv(turn), 2))
    box = _box(x - reach, x + reach, y - reach, y + reach, shape)
    rows, columns = np.mgrid[box].astype(np.float64)
    right, up = np.tensordot(turn, np.stack([columns - x, rows - y]), axes=1)
    return box, _inside(region, right, up)


def _inside(region: DrawnRegion, right: Float, up: Float) -> Mask:
    """Tell which offsets from the centre lie inside."""
    angle = np.radians(region.angle)
    along = right * np.cos(angle) + up * np.sin(angle)
    across = up * np.cos(angle) - right * np.sin(angle)
    if region.shape == "box":
        width, height = region.sizes
        return np.asarray((np.abs(along) < width / 2) & (np.abs(across) < height / 2))
    if region.shape == "ellipse":
        a, b = region.sizes
        return np.asarray((along / a) ** 2 + (across / b) ** 2 < 1.0)
    distance = np.hypot(right, up)
    if region.shape == "annulus":
        inner, outer = region.sizes
        return np.asarray((distance >= inner) & (distance < outer))
    return np.asarray(distance < region.sizes[0])


def _inside_polygon(points: Float, shape: tuple[int, int]) -> tuple[tuple[slice, slice], Mask]:
    """Tell which pixel centres lie inside a polygon: those with an odd number of edges on their left."""
    if not np.isfinite(points).all():
        # A vertex beyond what the projection shows; nothing of such a polygon can be told.
        raise InputError(
            "a polygon reaches beyond the part of the sky that the image's projection shows", field="regions"
        )
    (x_low, y_low), (x_high, y_high) = points.min(axis=0), points.max(axis=0)
    box = _box(x_low, x_high, y_low, y_high, shape)
    n_rows, n_columns = _size(box)
    crossings = np.zeros((n_rows, n_columns + 1), dtype=np.int64)
    first_row, first_column = box[0].start, box[1].start
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        # From the lower end to the upper one, so that an edge that is met twice cancels exactly.
        low, high = (start, end) if tuple(start[::-1]) <= tuple(end[::-1]) else (end, start)
        rows = np.arange(max(int(np.ceil(low[1])), first_row), min(int(np.ceil(high[1])), first_row + n_rows))
        if rows.size:
            x = low[0] + (rows - low[1]) * ((high[0] - low[0]) / (high[1] - low[1]))
            columns = np.clip(np.ceil(x).astype(np.int64) - first_column, 0, n_columns)
            crossings[rows - first_row, columns] += 1
    return box, np.cumsum(crossings[:, :-1], axis=1) % 2 == 1


def _box(
    x_low: float, x_high: float, y_low: float, y_high: float, shape: tuple[int, int]
) -> tuple[slice, slice]:
    """Return the rectangle of pixels between two corners that lies on the grid; empty where there is none."""
    ends = []
    for low, high, size in ((y_low, y_high, shape[0]), (x_low, x_high, shape[1])):
        start = int(np.clip(np.floor(low), 0, size))
        ends.append(slice(start, max(start, int(np.clip(np.ceil(high) + 1, 0, size)))))
    return ends[0], ends[1]


def _size(box: tuple[slice, slice]) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start
