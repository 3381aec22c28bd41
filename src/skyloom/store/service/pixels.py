"""Which pixels and channels a region of the sky and a range of wavelengths ask for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.core.geometry import celestial, pixel_scale
from skyloom.core.linelist import air_to_vacuum
from skyloom.errors import InputError
from skyloom.store.cutouts import pixel_of
from skyloom.store.files.windows import Window
from skyloom.store.search.regions import Cone
from skyloom.store.search.sphere import angles, unit_vectors
from skyloom.store.service.parameters import Interval, Shape
from skyloom.store.service.shapes import outline, region_holds

__all__ = ["channels_in", "pixels_of"]

Float = NDArray[np.float64]
NEAR = math.radians(45.0)
"""How far from an image its projection is trusted."""
SAMPLES = 64
"""Pixels along a side that are looked at where the projection does not reach all of a region."""


def pixels_of(shape: Shape, wcs: WCS | None, size: tuple[int, int], centre: Float) -> Window | None:
    """Return the window of pixels that holds a region; parts may lie outside the image.

    Parameters
    ----------
    shape : Cone, Box or SkyPolygon
    wcs : WCS
        Of the image.
    size : (ny, nx)
        Of the image.
    centre : (3,) array
        Where about the image is, as a unit vector.

    Returns
    -------
    (slice y, slice x) or None
        None: no pixel. Of a circle as many pixels as `skyloom.store.Store.cutout` gives for its diameter. A window
        that holds the whole image is the image, for there is nothing beyond it to ask for.
    """
    sky = celestial(wcs, "a region of the sky")
    window = None
    if isinstance(shape, Cone):
        if float(angles(shape.centre, centre)) + math.radians(shape.radius) < NEAR:
            window = _of_cone(shape, sky, size)
    else:
        border = outline(shape)
        if float(angles(border, centre).max()) < NEAR:
            window = _of_border(border, sky)
    if window is None:
        window = _of_samples(shape, sky, size)
    if window is None or any(
        part.stop <= 0 or part.start >= length for part, length in zip(window, size, strict=True)
    ):
        return None
    if all(part.start <= 0 and part.stop >= length for part, length in zip(window, size, strict=True)):
        return slice(0, size[0]), slice(0, size[1])
    return window


def _of_cone(cone: Cone, sky: WCS, size: tuple[int, int]) -> Window | None:
    try:
        x, y = pixel_of(sky, (cone.ra, cone.dec))
    except InputError:
        return None
    side = max(1, round(2.0 * cone.radius * 3600.0 / pixel_scale(sky, size)))
    # As `cutout_window` places it.
    left, top = (int(np.floor(middle - (side - 1) / 2 + 0.5)) for middle in (x, y))
    return slice(top, top + side), slice(left, left + side)


def _of_border(border: Float, sky: WCS) -> Window | None:
    from astropy.coordinates import SkyCoord
    from astropy.wcs import NoConvergence, WcsError

    try:
        x, y = sky.world_to_pixel(SkyCoord(*border.T, representation_type="cartesian", frame="icrs"))
    except (NoConvergence, WcsError, ValueError):
        return None
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    low, high = np.floor([y.min() + 0.5, x.min() + 0.5]), np.floor([y.max() + 0.5, x.max() + 0.5])
    return slice(int(low[0]), int(high[0]) + 1), slice(int(low[1]), int(high[1]) + 1)


def _of_samples(shape: Shape, sky: WCS, size: tuple[int, int]) -> Window | None:
    """Return the part of an image whose pixels lie in a region, as far as a coarse grid of them tells."""
    steps = [max(1, -(-length // SAMPLES)) for length in size]
    y, x = (
        np.unique(np.append(np.arange(0, length, step), length - 1))
        for length, step in zip(size, steps, strict=True)
    )
    grid_x, grid_y = np.meshgrid(x, y)
    places = sky.pixel_to_world(grid_x.ravel(), grid_y.ravel()).icrs
    vectors = unit_vectors(places.ra.deg, places.dec.deg)
    known = np.isfinite(vectors).all(axis=-1)
    inside = np.zeros(known.size, bool)
    inside[known] = region_holds(shape, vectors[known])
    found = inside.reshape(grid_x.shape)
    if not found.any():
        return None
    window = []
    for values, own, step, length in (
        (y, found.any(axis=1), steps[0], size[0]),
        (x, found.any(axis=0), steps[1], size[1]),
    ):
        used = values[own]
        window.append(slice(max(0, int(used[0]) - step), min(length, int(used[-1]) + step + 1)))
    return window[0], window[1]


def channels_in(wave: Any, medium: str, band: Interval) -> slice | None:
    """Return the channels that reach into a range of wavelengths.

    Parameters
    ----------
    wave : (n_wave,) array
        Centres of the channels in A, ascending.
    medium : {"air", "vacuum"}
    band : Interval
        In m, in vacuum.

    Returns
    -------
    slice or None
        None: no channel does.
    """
    centres = np.asarray(air_to_vacuum(wave) if medium == "air" else wave, dtype=np.float64)
    if centres.size > 1:
        between = 0.5 * (centres[1:] + centres[:-1])
        edges = np.concatenate([[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]])
    else:
        edges = np.array([centres[0], centres[0]])
    low, high = band.low * 1e10, band.high * 1e10
    # Half-open, so that a single wavelength is one channel.
    first = int(np.searchsorted(edges[1:-1], low, side="right"))
    last = int(np.searchsorted(edges[1:-1], high, side="right"))
    if high < edges[0] or low > edges[-1]:
        return None
    return slice(first, last + 1)
