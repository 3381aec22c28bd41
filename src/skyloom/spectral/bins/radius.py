"""Bins by radius along the ellipse of a galaxy."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from numpy.typing import ArrayLike, NDArray

from skyloom.core.geometry import celestial, local_matrix
from skyloom.core.image import Image
from skyloom.core.labels import NO_REGION, LabelMap
from skyloom.core.provenance import step
from skyloom.errors import InputError, ShapeError

__all__ = ["bin_by_radius", "elliptical_radius"]

Float = NDArray[np.float64]


def elliptical_radius(
    frame: Image | LabelMap | tuple[int, int],
    centre: SkyCoord | tuple[float, float],
    *,
    position_angle: float = 0.0,
    axis_ratio: float = 1.0,
) -> Float:
    """Measure the distance of every pixel from a centre, along the major axis of an ellipse.

    Parameters
    ----------
    frame : Image, LabelMap or (ny, nx)
        The grid. Without a WCS the radii are in pixels and the angle counts from the y axis, counter-clockwise.
    centre : SkyCoord or (x, y)
        On the sky, or in pixels with 0 the centre of the first one.
    position_angle : float
        Of the major axis, degrees east of north.
    axis_ratio : float
        Minor over major axis; for a thin disc the cosine of its inclination.

    Returns
    -------
    (ny, nx) float64 array
        Semi-major axis of the ellipse through each pixel, arcsec (pixels without a WCS).

    Raises
    ------
    InputError
        When the axis ratio is not in (0, 1], or the centre is on the sky and the grid is not.
    """
    if not 0 < axis_ratio <= 1:
        raise InputError(f"axis_ratio is {axis_ratio}; expected > 0 and <= 1", field="axis_ratio")
    shape, wcs = (frame, None) if isinstance(frame, tuple) else (frame.shape, frame.wcs)
    if isinstance(centre, SkyCoord):
        sky = celestial(wcs, "a centre on the sky")
        x0, y0 = (float(value) for value in sky.world_to_pixel(centre))
    else:
        x0, y0 = (float(value) for value in centre)
    if not np.isfinite([x0, y0]).all():
        raise InputError(f"the centre lies at pixel ({x0}, {y0})", field="centre")
    y, x = np.indices(shape, dtype=np.float64)
    offset = np.stack([x - x0, y - y0])
    # Without a WCS "east" is to the left and "north" up, as on the sky.
    matrix = np.diag([-1.0, 1.0]) if wcs is None else local_matrix(celestial(wcs, "a radius"), x0, y0)
    east, north = np.tensordot(matrix, offset, axes=1)
    angle = np.radians(position_angle)
    along = east * np.sin(angle) + north * np.cos(angle)
    across = east * np.cos(angle) - north * np.sin(angle)
    return np.asarray(np.hypot(along, across / axis_ratio))


def bin_by_radius(
    frame: Image | LabelMap | tuple[int, int],
    centre: SkyCoord | tuple[float, float],
    *,
    edges: ArrayLike | u.Quantity | None = None,
    width: float | u.Quantity | None = None,
    position_angle: float = 0.0,
    axis_ratio: float = 1.0,
    mask: ArrayLike | None = None,
) -> LabelMap:
    """Bin a map in elliptical rings.

    Parameters
    ----------
    frame : Image, LabelMap or (ny, nx)
        The grid; masked pixels of an Image are in no bin.
    centre : SkyCoord or (x, y)
        See `elliptical_radius`.
    edges : (n + 1,) array, optional
        Semi-major axes between the rings, ascending, in arcsec (pixels without a WCS), or angles with a unit. A pixel
        belongs to a ring when ``edges[i] <= radius < edges[i + 1]``.
    width : float, optional
        Instead of edges: rings of this width out to the last usable pixel.
    position_angle, axis_ratio
        See `elliptical_radius`.
    mask : (ny, nx) bool array, optional
        More pixels that are in no bin.

    Returns
    -------
    LabelMap
        0 for the innermost ring. Rings without a usable pixel leave a gap in the numbers, so that a label always
        stands for the same radii; ``meta["edges"]`` has them.

    Raises
    ------
    InputError
        When not exactly one of ``edges`` and ``width`` is given, or they are not positive and ascending.
    ShapeError
        When the mask has another shape.
    """
    radius = elliptical_radius(frame, centre, position_angle=position_angle, axis_ratio=axis_ratio)
    unusable = _unusable(frame, mask, radius.shape)
    borders = _borders(edges, width, float(radius[~unusable].max(initial=0.0)))
    labels = np.searchsorted(borders, radius, side="right").astype(np.int32) - 1
    labels[(labels >= borders.size - 1) | (labels < 0) | unusable] = NO_REGION
    wcs = None if isinstance(frame, tuple) else frame.wcs
    done = step("bin_by_radius", position_angle=position_angle, axis_ratio=axis_ratio, edges=borders.tolist())
    meta = {"method": "radius", "edges": borders.tolist(), "n_bins": int(np.unique(labels[labels >= 0]).size)}
    history = () if isinstance(frame, tuple) else frame.history
    return LabelMap(labels, wcs, meta, (*history, done))


def _unusable(
    frame: Image | LabelMap | tuple[int, int], mask: ArrayLike | None, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    unusable = frame.mask.copy() if isinstance(frame, Image) else np.zeros(shape, dtype=bool)
    if mask is not None:
        more = np.asarray(mask, dtype=bool)
        if more.shape != shape:
            raise ShapeError(
                f"mask has shape {more.shape}; expected {shape}, the shape of the map", field="mask"
            )
        unusable |= more
    return unusable


def _borders(edges: ArrayLike | u.Quantity | None, width: float | u.Quantity | None, reach: float) -> Float:
    if (edges is None) == (width is None):
        raise InputError("give either edges or width", field="edges")
    if edges is not None:
        values = np.atleast_1d(_arcsec(edges))
        if values.size < 2 or values[0] < 0 or np.any(np.diff(values) <= 0):
            raise InputError(
                f"edges are {values.tolist()}; expected at least two radii from 0, ascending", field="edges"
            )
        return values
    step_width = float(_arcsec(width))
    if not step_width > 0:
        raise InputError(f"width is {step_width}; expected > 0", field="width")
    return np.asarray(step_width * np.arange(int(reach / step_width) + 2))


def _arcsec(value: ArrayLike | u.Quantity | None) -> Float:
    if isinstance(value, u.Quantity):
        return np.asarray(value.to_value(u.arcsec), dtype=np.float64)
    return np.asarray(value, dtype=np.float64)
