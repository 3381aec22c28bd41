"""Masks of objects from label maps, moved between grids by their WCS and never by pixel index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import ndimage

from skyloom.core import geometry
from skyloom.core.image import Flag, Image
from skyloom.core.labels import NO_REGION, UNKNOWN, LabelMap
from skyloom.core.provenance import step
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.sky.sources import grow_mask

__all__ = ["ObjectMask", "apply_object_mask", "mask_from_labels", "move_labels", "source_mask"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Grid = Image | tuple[WCS, tuple[int, int]]
Keep = Literal["centre", "center"] | int | Sequence[int | str]

SEARCH_ARCSEC = 0.3  # How far from the centre of the map the labelled pixel of the object may lie.
KNOT_STEP = 32  # Pixels between exact evaluations of the WCS.
LARGEST_UNSAMPLED = 1.25  # Map pixels per target pixel up to which the label under its centre will do.


@dataclass(frozen=True, slots=True, eq=False)
class ObjectMask:
    """Which pixels of a grid belong to an object.

    Parameters
    ----------
    inside : (ny, nx) bool array
        True on the object.
    unknown : (ny, nx) bool array
        True where the label map says nothing: outside its footprint, or where a label could not be recovered. Never
        true on the object.
    ids : tuple of int
        Labels that make up the object.
    dilation_arcsec : float
        By how much the object was grown.
    """

    inside: Mask
    unknown: Mask
    ids: tuple[int, ...] = ()
    dilation_arcsec: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        ny, nx = self.inside.shape
        return ny, nx


def mask_from_labels(
    labels: LabelMap, target: Grid, *, keep: Keep = "centre", dilation_arcsec: float = 0.0
) -> ObjectMask:
    """Make the mask of an object on the grid of an image.

    Parameters
    ----------
    labels : LabelMap
        With a WCS.
    target : Image or (WCS, (ny, nx))
        The grid.
    keep : "centre" or int or list of these
        Labels of the object; several for a merger. "centre" is the label at the centre of the label map, or the
        nearest one within 0.3 arcsec.
    dilation_arcsec : float
        The object is grown by this, but never over pixels that belong to another object.

    Returns
    -------
    ObjectMask

    Raises
    ------
    InputError
        When a label does not exist (the message lists those that do), the object lies outside of the grid, or a
        WCS is missing.
    """
    if not dilation_arcsec >= 0:
        raise InputError(f"dilation_arcsec is {dilation_arcsec}; expected >= 0", field="dilation_arcsec")
    ids = _resolve(labels, keep)
    moved = move_labels(labels, target).labels
    inside = np.logical_or.reduce([moved == label for label in ids])
    if not inside.any():
        raise InputError(
            f"the labels {list(ids)} have no pixel on the target grid of shape {moved.shape}",
            field="keep",
            remedy="check that the label map and the image show the same field",
        )
    other = (moved >= 0) & ~inside
    if dilation_arcsec > 0:
        inside = grow_mask(inside, dilation_arcsec, _pixel_sides(target)) & ~other
    return ObjectMask(inside, (moved == UNKNOWN) & ~inside, ids, float(dilation_arcsec))


def apply_object_mask(image: Image, object_mask: ObjectMask) -> Image:
    """Mask all that does not belong to the object.

    Parameters
    ----------
    image : Image
        Already matched and resampled: a mask applied before a convolution loses flux at its rim.
    object_mask : ObjectMask
        On the grid of the image.

    Returns
    -------
    Image
        ``mask`` is True outside the object, so that its weight there is 0 while data and variance stay as they
        are; pixels outside for lack of knowledge carry `Flag.UNKNOWN_FOOTPRINT`.

    Raises
    ------
    ShapeError
        When mask and image have different shapes.
    """
    if object_mask.shape != image.shape:
        raise ShapeError(
            f"the object mask has shape {object_mask.shape}; expected {image.shape}, the shape of the image",
            field="object_mask",
        )
    flags = np.zeros(image.shape, dtype=np.uint16) if image.flags is None else image.flags.copy()
    flags[object_mask.unknown] |= np.uint16(Flag.UNKNOWN_FOOTPRINT)
    return image.evolve(
        step(
            "apply_object_mask",
            labels=list(object_mask.ids),
            dilation_arcsec=object_mask.dilation_arcsec,
            object_pixels=np.count_nonzero(object_mask.inside),
            unknown_pixels=np.count_nonzero(object_mask.unknown),
        ),
        mask=image.mask | ~object_mask.inside,
        flags=flags,
    )


def source_mask(labels: LabelMap, target: Grid, *, dilation_arcsec: float = 0.0) -> Mask:
    """Return True on all labelled objects of a map, on the grid of an image: what the sky measurement leaves out.

    Parameters
    ----------
    labels : LabelMap
    target : Image or (WCS, (ny, nx))
    dilation_arcsec : float
        All objects are grown by this.

    Returns
    -------
    (ny, nx) bool array
        Where the map says nothing it is False: sources there are left to `detect_sources`.
    """
    return grow_mask(move_labels(labels, target).labels >= 0, dilation_arcsec, _pixel_sides(target))


# --- labels on another grid ----------------------------------------------------------------------------


def move_labels(labels: LabelMap, target: Grid) -> LabelMap:
    """Move a label map to another grid, one label per pixel.

    Parameters
    ----------
    labels : LabelMap
        With a WCS.
    target : Image or (WCS, (ny, nx))
        The grid.

    Returns
    -------
    LabelMap
        On the target's grid; `UNKNOWN` outside the footprint of ``labels``.

    Raises
    ------
    InputError
        When a WCS is missing.

    Notes
    -----
    Labels are names, not numbers: they are never interpolated. A target pixel not larger than the map's takes the
    label under its centre; a larger one is sampled on n x n points, n odd, one for each pixel of the map, and takes
    the commonest label.
    """
    target_wcs, shape = _grid(target)
    source_wcs = geometry.celestial(labels.wcs, "moving a label map")
    history = (*labels.history, step("move_labels", shape=list(shape)))
    if geometry.same_grid(source_wcs, labels.shape, target_wcs, shape):
        return LabelMap(labels.labels, target_wcs, labels.meta, history)
    x, y = _map_positions(target_wcs, shape, source_wcs)
    if not np.any(np.isfinite(x) & np.isfinite(y)):
        return LabelMap(np.full(shape, UNKNOWN, dtype=np.int32), target_wcs, labels.meta, history)
    steps = np.array([[_step(x, 1), _step(x, 0)], [_step(y, 1), _step(y, 0)]])
    padded, x, y = _cut_out(labels.labels, x, y, margin=int(np.ceil(np.abs(steps).sum())) + 1)
    moved = _look_up(padded, x, y)
    side = float(np.hypot(steps[0], steps[1]).max())
    if side > LARGEST_UNSAMPLED:
        _take_commonest(moved, padded, x, y, steps, int(np.ceil(side)) // 2 * 2 + 1)
    return LabelMap(moved, target_wcs, labels.meta, history)


def _grid(target: Grid) -> tuple[WCS, tuple[int, int]]:
    if isinstance(target, Image):
        return geometry.celestial(target.wcs, "moving a label map"), target.shape
    wcs, (ny, nx) = target
    return geometry.celestial(wcs, "moving a label map"), (int(ny), int(nx))


def _pixel_sides(target: Grid) -> tuple[float, float]:
    """Sides of a pixel of the target along y and x, in arcsec."""
    matrix = geometry.pixel_matrix(*_grid(target))
    return float(np.hypot(*matrix[:, 1])), float(np.hypot(*matrix[:, 0]))


def _map_positions(target_wcs: WCS, shape: tuple[int, int], source_wcs: WCS) -> tuple[Array, Array]:
    """Return the position of each target pixel in the label map: exact on a coarse grid, cubic splines between."""
    knots = [np.linspace(0.0, size - 1.0, max(4, -(-size // KNOT_STEP) + 1)) for size in shape]
    if min(shape) < 8:
        knots = [np.arange(float(size)) for size in shape]
    grid_x, grid_y = np.meshgrid(knots[1], knots[0])
    sky = target_wcs.all_pix2world(grid_x.ravel(), grid_y.ravel(), 0)
    with np.errstate(
        invalid="ignore"
    ):  # Points beyond the horizon of a projection come back as NaN: unknown.
        found = source_wcs.all_world2pix(*sky, 0)
    planes = [np.asarray(plane).reshape(grid_x.shape) for plane in found]
    if min(shape) < 8 or not all(np.isfinite(plane).all() for plane in planes):
        return _exact_positions(target_wcs, shape, source_wcs) if min(shape) >= 8 else (planes[0], planes[1])
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    from scipy.interpolate import RectBivariateSpline  # It takes long to load, and grids alike do without.

    x, y = (RectBivariateSpline(knots[0], knots[1], plane)(rows, columns) for plane in planes)
    return x, y


def _exact_positions(target_wcs: WCS, shape: tuple[int, int], source_wcs: WCS) -> tuple[Array, Array]:
    columns, rows = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    sky = target_wcs.all_pix2world(columns.ravel(), rows.ravel(), 0)
    x, y = source_wcs.all_world2pix(*sky, 0)
    return x.reshape(shape), y.reshape(shape)


def _step(plane: Array, axis: int) -> float:
    """Typical change of a position from one pixel to the next."""
    if plane.shape[axis] < 2:
        return 0.0
    row, column = ((size - 1) // 2 for size in plane.shape)
    central = float(plane[row + (axis == 0), column + (axis == 1)] - plane[row, column])
    if np.isfinite(central):
        return central
    steps = np.diff(plane, axis=axis)
    steps = steps[np.isfinite(steps)]
    return float(steps.mean()) if steps.size else 0.0


def _cut_out(
    labels: NDArray[np.int32], x: Array, y: Array, margin: int
) -> tuple[NDArray[np.int32], Array, Array]:
    """Return the part of a map that the positions see, and the positions in it.

    One row and column of `UNKNOWN` all around stands for everything outside.
    """
    bounds = []
    for positions, size in ((y, labels.shape[0]), (x, labels.shape[1])):
        low, high = np.nanmin(positions) - margin, np.nanmax(positions) + margin
        first = int(np.clip(np.floor(low), 0, size - 1))
        bounds.append((first, int(np.clip(np.ceil(high) + 1, first + 1, size))))
    (top, bottom), (left, right) = bounds
    padded = np.full((bottom - top + 2, right - left + 2), UNKNOWN, dtype=np.int32)
    padded[1:-1, 1:-1] = np.maximum(labels[top:bottom, left:right], UNKNOWN)
    return padded, x - left, y - top


def _look_up(padded: NDArray[np.int32], x: Array, y: Array) -> NDArray[np.int32]:
    """Label under each position; positions outside, or undefined, fall on the border of ``padded``."""
    rows, columns = _indices(padded, x, y)
    return padded[rows, columns]


def _indices(padded: NDArray[np.int32], x: Array, y: Array) -> tuple[Array, Array]:
    last_row, last_column = padded.shape[0] - 1, padded.shape[1] - 1
    # fmin and fmax turn NaN into the bound.
    columns = np.fmax(np.fmin(x + 1.5, last_column), 0.0).astype(np.int32)
    rows = np.fmax(np.fmin(y + 1.5, last_row), 0.0).astype(np.int32)
    return rows, columns


def _take_commonest(
    moved: NDArray[np.int32], padded: NDArray[np.int32], x: Array, y: Array, steps: Array, n_samples: int
) -> None:
    """Give the pixels of ``moved`` near a change of label the commonest label of n x n points."""
    reach = int(np.ceil(0.5 * np.abs(steps).sum(axis=1).max() + 0.5))
    varied = _near_changes(padded, reach)[_indices(padded, x, y)]
    offsets = (np.arange(n_samples) + 0.5) / n_samples - 0.5
    x_near, y_near = x[varied], y[varied]
    samples = np.stack(
        [
            _look_up(
                padded, x_near + a * steps[0, 0] + b * steps[0, 1], y_near + a * steps[1, 0] + b * steps[1, 1]
            )
            for b in offsets
            for a in offsets
        ]
    )
    moved[varied] = _commonest(samples)


def _near_changes(labels: NDArray[np.int32], reach: int) -> Mask:
    """Return True where a pixel within ``reach`` has another label."""
    changes = np.zeros(labels.shape, dtype=np.uint8)
    changes[:, 1:] = labels[:, 1:] != labels[:, :-1]
    changes[1:] |= labels[1:] != labels[:-1]
    for axis in (0, 1):
        changes = ndimage.maximum_filter1d(changes, 2 * reach + 1, axis=axis)
    return changes.astype(bool)


def _commonest(samples: NDArray[np.int32]) -> NDArray[np.int32]:
    """Commonest label along the first axis; of equally common ones the lowest, so that no object is favoured."""
    commonest = samples[0].copy()
    mixed = np.any(samples[1:] != samples[0], axis=0)
    ordered = np.sort(samples[:, mixed], axis=0)
    count = np.zeros(ordered.shape, dtype=np.int16)
    for row in ordered:
        count += ordered == row
    commonest[mixed] = np.take_along_axis(ordered, count.argmax(axis=0)[None], axis=0)[0]
    return commonest


# --- which labels ----------------------------------------------------------------------------------------


def _resolve(labels: LabelMap, keep: Keep) -> tuple[int, ...]:
    """Turn ``keep`` into labels that exist."""
    wanted = [keep] if isinstance(keep, (str, int, np.integer)) else list(keep)
    if not wanted:
        raise InputError(
            "no label is given", field="keep", remedy="give 'centre' or the labels of the object"
        )
    ids: list[int] = []
    for item in wanted:
        if isinstance(item, str):
            if item not in ("centre", "center"):
                raise InputError(
                    f"{item!r} is no label", field="keep", remedy="give 'centre' or whole numbers"
                )
            ids.append(_central_label(labels))
        elif isinstance(item, bool) or item != int(item):
            raise InputError(f"{item!r} is no label", field="keep", remedy="give 'centre' or whole numbers")
        else:
            ids.append(int(item))
    absent = [label for label in ids if label < 0 or not np.any(labels.labels == label)]
    if absent:
        raise InputError(
            f"no pixel has the label {', '.join(map(str, absent))}", field="keep", remedy=_existing(labels)
        )
    return tuple(dict.fromkeys(ids))


def _central_label(labels: LabelMap) -> int:
    """Label of the central pixel of the map, or of the nearest labelled pixel around it."""
    ny, nx = labels.shape
    central = int(labels.labels[ny // 2, nx // 2])
    if central >= 0:
        return central
    rows, columns = np.nonzero(labels.labels >= 0)
    if rows.size:
        sides = _pixel_sides((geometry.celestial(labels.wcs, "a label at the centre"), labels.shape))
        distance = np.hypot((rows - (ny - 1) / 2) * sides[0], (columns - (nx - 1) / 2) * sides[1])
        nearest = int(np.argmin(distance))
        if distance[nearest] <= SEARCH_ARCSEC:
            return int(labels.labels[rows[nearest], columns[nearest]])
    named = {NO_REGION: "background", UNKNOWN: "unknown"}.get(central, str(central))
    raise InputError(
        f"the centre of the label map is {named}, and no object lies within {SEARCH_ARCSEC} arcsec of it",
        field="keep",
        remedy=_existing(labels),
    )


def _existing(labels: LabelMap, most: int = 20) -> str:
    """Say which labels there are, the largest objects first."""
    found, number = np.unique(labels.labels[labels.labels >= 0], return_counts=True)
    if not found.size:
        return "the map holds no labels at all"
    order = np.argsort(-number, kind="stable")[:most]
    listed = ", ".join(f"{found[index]} ({number[index]} px)" for index in order)
    more = f" and {found.size - most} more" if found.size > most else ""
    return f"labels that exist: {listed}{more}"
