"""The sky under an image: its level, the error of that level, and what tells whether to believe it.

`measure_background` masks sources on a smoothed image, grows the mask, and fits the sky together with the wings of
the detected light, so that outskirts and PSF wings do not count as sky. ``docs/design/background.md`` has the figures.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.image import Image, Mode
from skyloom.core.provenance import step
from skyloom.errors import InputError, ShapeError
from skyloom.imaging.sky.constant import (
    Background,
    Method,
    Settings,
    SkyHistogram,
    Wings,
    measure_constant,
)
from skyloom.imaging.sky.mesh import mesh_levels, rough_mesh
from skyloom.imaging.sky.sources import SCALES, THRESHOLD, as_source_mask

__all__ = [
    "Background",
    "SkyHistogram",
    "empty_sky",
    "measure_background",
    "sky_trend",
    "subtract_background",
]

Array = NDArray[Any]
Mask = NDArray[np.bool_]

TYPICAL_FWHM = 2.5  # Pixels, where the PSF is not known.
DEFAULT_CELL = 64.0  # Pixels.
FEWEST_CELLS = 4  # Along each axis, unless the side of a cell is given.


def measure_background(
    image: Image,
    *,
    method: Method = "constant",
    source_mask: Mask | None = None,
    value: float | None = None,
    value_error: float | None = None,
    threshold: float = THRESHOLD,
    scales: tuple[float, ...] = SCALES,
    grow_arcsec: float | None = None,
    wings: Wings = "fit",
    wing_arcsec: float | None = None,
    clip: float = 3.0,
    mesh_arcsec: float | None = None,
) -> Background:
    """Measure the sky of an image.

    Parameters
    ----------
    image : Image
        Its ``correlation``, if it has one, enters the error; otherwise that of the sky pixels themselves does.
    method : {"constant", "mesh", "value"}
        One level; a smooth map through the levels of cells; or the level given as ``value``, in which case the
        measured one is still made for comparison, and lends its error when ``value_error`` is not given.
    source_mask : (ny, nx) bool array, optional
        Pixels known to be sources. Sources are searched for besides, unless ``threshold`` is infinite.
    value, value_error : float, optional, in ``image.unit``
        For ``method="value"``.
    threshold : float
        Significance on the smoothed image from which on a pixel is a source.
    scales : tuple of float
        Sigma of the smoothing, in pixels.
    grow_arcsec : float, optional
        Sources are grown by this; by default 1.5 FWHM of the PSF, at least 3 pixels.
    wings : {"fit", "none"}
        Whether the light of sources beyond their mask is fitted together with the level.
    wing_arcsec : float, optional
        Core radius of the wing profiles; by default 3 FWHM of the PSF.
    clip : float
        Sky pixels further off than this many times their scatter are left out, on both sides.
    mesh_arcsec : float, optional
        Side of the cells of a mesh; by default 64 pixels, at most a quarter of the image.

    Returns
    -------
    Background

    Raises
    ------
    InputError
        When too few sky pixels are left, or the options contradict each other.
    ShapeError
        When ``source_mask`` has another shape than the image.

    Notes
    -----
    A threshold on noisy pixels removes bright noise with the sources and so lowers the sky; excursions below the
    sky are therefore left out just as those above it, grown by the same radius.
    """
    _check_options(method, value, value_error, wings)
    known = as_source_mask(source_mask, image.shape)
    grow, wing_radius = _lengths(image, grow_arcsec, wing_arcsec)
    settings = Settings(threshold, scales, grow, wing_radius, wings, clip)
    if method == "value":
        assert value is not None
        return _given(image, known, settings, float(value), value_error)
    if method == "mesh":
        return _measure_mesh(image, known, settings, mesh_arcsec)
    return measure_constant(image, known, settings)


def _check_options(method: str, value: float | None, value_error: float | None, wings: str) -> None:
    for name, given, known in (
        ("method", method, ("constant", "mesh", "value")),
        ("wings", wings, ("fit", "none")),
    ):
        if given not in known:
            raise InputError(f"{given!r} is unknown", field=name, remedy=f"use {', '.join(known)}")
    if (method == "value") != (value is not None):
        raise InputError(
            f"method is {method!r} and value is {value}",
            field="value",
            remedy="give a value for method='value' only",
        )
    if value_error is not None and (value is None or not value_error >= 0):
        raise InputError(
            f"value_error is {value_error}", field="value_error", remedy="give value and value_error >= 0"
        )


def _lengths(image: Image, grow_arcsec: float | None, wing_arcsec: float | None) -> tuple[float, float]:
    """Return growth and core radius of the wings in pixels; the defaults are multiples of the PSF's FWHM."""
    scale = (
        image.pixel_scale
        if image.wcs is not None or grow_arcsec is not None or wing_arcsec is not None
        else 1.0
    )
    fwhm = TYPICAL_FWHM
    if image.psf is not None and image.wcs is not None:
        fwhm = float(image.psf.fwhm) / scale
    grow = max(1.5 * fwhm, 3.0) if grow_arcsec is None else grow_arcsec / scale
    return grow, max(3.0 * fwhm, 3.0) if wing_arcsec is None else wing_arcsec / scale


# --- mesh, given value ------------------------------------------------------------------------------------


def _measure_mesh(
    image: Image, known: Mask | None, settings: Settings, mesh_arcsec: float | None
) -> Background:
    """Find the sources on an image flattened by a rough mesh, then measure the mesh on what is left."""
    ny, nx = image.shape
    side = DEFAULT_CELL if mesh_arcsec is None else float(mesh_arcsec) / image.pixel_scale
    cells = (max(1, round(ny / side)), max(1, round(nx / side)))
    if mesh_arcsec is None:
        cells = (max(cells[0], FEWEST_CELLS), max(cells[1], FEWEST_CELLS))
    usable = image.valid if known is None else image.valid & ~known
    rough = rough_mesh(image.data, usable, cells)
    flat = measure_constant(image.evolve(data=image.data - rough), known, settings)
    light = 0.0 if flat.wings is None else flat.wings
    independent = 1.0
    if flat.statistical > 0:
        independent = (flat.scatter / flat.statistical) ** 2 / flat.n_pixels
    levels, errors = mesh_levels(image.data - light, flat.sky_mask, cells, settings.clip, independent)
    error_map = np.hypot(errors, flat.systematic)
    offset = float(levels.mean()) - flat.level
    return replace(
        flat,
        method="mesh",
        level=float(levels.mean()),
        light_level=flat.light_level + offset,
        plain_level=flat.plain_level + offset,
        error=float(np.median(error_map)),
        statistical=float(np.median(errors)),
        histogram=_moved(flat.histogram, offset),
        map=levels,
        error_map=error_map,
        parameters={**flat.parameters, "cells_y": cells[0], "cells_x": cells[1]},
    )


def _moved(histogram: SkyHistogram | None, offset: float) -> SkyHistogram | None:
    """Put the histogram of a flattened image around the mean level of the mesh."""
    return None if histogram is None else histogram._replace(edges=histogram.edges + offset)


def _given(
    image: Image, known: Mask | None, settings: Settings, value: float, value_error: float | None
) -> Background:
    """Take the level from the caller, and the rest from the image as far as it shows any sky."""
    try:
        measured = measure_constant(image, known, settings)
    except InputError as problem:
        if value_error is None:
            raise InputError(
                f"the sky is given as {value} without an error, and none can be measured: {problem.message}",
                field="value_error",
                remedy="give value_error",
            ) from problem
        nothing = np.zeros(image.shape, dtype=bool)
        return Background(
            "value", value, value_error, value_error, 0.0, math.nan, math.nan, math.nan, 0, image.unit, nothing,
            None, None, None, None, {},
        )  # fmt: skip
    parameters = {**measured.parameters, "measured_level": measured.level, "measured_error": measured.error}
    if value_error is None:
        return replace(measured, method="value", level=value, parameters=parameters)
    return replace(
        measured,
        method="value",
        level=value,
        error=value_error,
        statistical=value_error,
        systematic=0.0,
        parameters=parameters,
    )


# --- what is done with it ---------------------------------------------------------------------------------


def subtract_background(image: Image, background: Background | None = None, **options: Any) -> Image:
    """Take the sky off an image.

    Parameters
    ----------
    image : Image
    background : Background, optional
        From `measure_background` of this image; by default it is measured with ``options``.
    **options
        Those of `measure_background`.

    Returns
    -------
    Image
        With the error of the sky as a `Mode` named "sky": all pixels share it, so that a sum over n of them adds
        ``(n error)^2`` to its variance. For a mesh the mode follows the map of errors; it takes them as fully
        shared, which is right within a cell and too large for sums over many.

    Raises
    ------
    InputError, ShapeError
        As `measure_background`; when both a background and options are given; when the background is of an
        image of another shape.
    """
    if background is None:
        background = measure_background(image, **options)
    elif options:
        raise InputError(
            f"a background and options to measure one ({', '.join(options)}) exclude each other",
            field="background",
        )
    if background.sky_mask.shape != image.shape:
        raise ShapeError(
            f"the background has shape {background.sky_mask.shape}; expected {image.shape}, the shape of the image",
            field="background",
        )
    sky = background.level if background.map is None else background.map
    modes = image.modes
    if background.error > 0:
        shape = 1.0 if background.error_map is None else background.error_map / background.error
        modes = (*modes, Mode("sky", shape, background.error))
    return image.evolve(
        step("subtract_background", **background.describe()),
        data=(image.data - sky).astype(image.data.dtype, copy=False),
        modes=modes,
    )


def empty_sky(image: Image, background: Background) -> tuple[Image, Mask]:
    """Return what `skyloom.core.noise.measure_correlation` needs: the image without sky and wings, and a mask.

    Parameters
    ----------
    image : Image
        The image that the background was measured on, sky not subtracted.
    background : Background

    Returns
    -------
    image : Image
        Sky and fitted wings taken off; only the noise of the empty sky is of use in it.
    source_mask : (ny, nx) bool array
        True on all that is not empty sky.
    """
    sky = background.level if background.map is None else background.map
    light = 0.0 if background.wings is None else background.wings
    return image.evolve(data=(image.data - sky - light).astype(image.data.dtype)), ~background.sky_mask


def sky_trend(
    image: Image,
    *,
    source_mask: Mask | None = None,
    thresholds: tuple[float, ...] = (3.5, 5.0, 8.0),
    grow_factors: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 3.0),
    **options: Any,
) -> list[dict[str, float]]:
    """Show how the sky depends on the masking: what rises with lighter masks is light of sources.

    Parameters
    ----------
    image : Image
    source_mask : (ny, nx) bool array, optional
    thresholds : tuple of float
        Of the detection.
    grow_factors : tuple of float
        Growth in units of the default growth.
    **options
        Those of `measure_background`.

    Returns
    -------
    list of dict
        ``threshold``, ``grow_pixels``, ``plain_level`` (wings counted as sky), ``level`` (wings fitted) and
        ``statistical`` error, in ``image.unit``, for each combination that leaves enough sky.
    """
    default, wing_radius = _lengths(image, options.get("grow_arcsec"), options.get("wing_arcsec"))
    known = as_source_mask(source_mask, image.shape)
    rows = []
    for threshold in thresholds:
        for factor in grow_factors:
            settings = Settings(
                threshold,
                options.get("scales", SCALES),
                factor * default,
                wing_radius,
                "fit",
                options.get("clip", 3.0),
            )
            found = measure_constant(image, known, settings)
            if found.parameters["grow_pixels"] == settings.grow:
                rows.append(
                    {
                        "threshold": threshold,
                        "grow_pixels": settings.grow,
                        "plain_level": found.plain_level,
                        "level": found.level,
                        "statistical": found.statistical,
                    }
                )
    return rows
