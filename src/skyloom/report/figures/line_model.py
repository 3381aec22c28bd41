"""A line map, what a combination of bands predicts for it, and what is left."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize

from skyloom.core.image import Image
from skyloom.core.units import is_per_area
from skyloom.report.figures.axis_text import unit_text
from skyloom.report.figures.maps import colour_bar, draw_marks, masked, row_of_maps
from skyloom.report.figures.style import FAINT, FLUX_MAP, SIGNED_MAP, STYLE, asinh_norm, draw_panel, to_png

__all__ = ["line_model_panels"]

LEAST_RANGE = 5.0  # Sigma; of the residual's colours.


def line_model_panels(
    title: str,
    line_map: Image,
    rebinned: Image,
    residual: Image,
    high_resolution: Image,
    *,
    offset: float = 0.0,
    caption: str = "",
    dpi: float = 110.0,
) -> bytes:
    """Draw the line map, the model on its pixels, the residual in sigma, and the model at high resolution.

    Parameters
    ----------
    title : str
        Name of the object.
    line_map, rebinned, residual : Image
        On one grid.
    high_resolution : Image
        The model on finer pixels. All but the residual is shown as surface brightness.
    offset : float
        Level of the line map, in its unit, added to the model that is shown beside it.
    caption : str
        A line of figures under the maps.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG. Line map and model share a stretch, arcsinh with the noise of the line map as its linear part.
    """
    seen = _brightness(line_map)
    predicted = _brightness(rebinned, offset)
    sharp = _brightness(high_resolution)
    norm = _stretch(seen, _noise(line_map))
    fine = _stretch(sharp, _noise(high_resolution))
    sigma = np.ma.masked_array(
        residual.data / np.sqrt(np.where(residual.mask, 1.0, residual.variance)), residual.mask
    )
    top = max(_typical(np.abs(sigma.compressed()), 99.0), LEAST_RANGE)
    unit = _unit_text(line_map)
    panels = (
        ("line map", line_map, seen, norm, FLUX_MAP, unit),
        ("model", rebinned, predicted, norm, FLUX_MAP, unit),
        ("residual", residual, sigma, Normalize(-top, top), SIGNED_MAP, "σ"),
        ("model at high resolution", high_resolution, sharp, fine, FLUX_MAP, unit),
    )
    with mpl.rc_context(STYLE):
        figure, axes = row_of_maps(title, line_map, len(panels), dpi)
        for axis, (name, image, values, stretch, colours, label) in zip(axes, panels, strict=True):
            picture = draw_panel(axis, image, values, None, stretch, colours)
            axis.set_title(name, weight="bold")
            colour_bar(figure, axis, picture, label)
            draw_marks(axis, image)
        figure.text(0.012, 0.03, caption, size=8.5, color=FAINT, ha="left", va="bottom")
        return to_png(figure)


def _stretch(values: np.ma.MaskedArray[Any, Any], noise: float) -> Normalize:
    return asinh_norm(2 * noise, -3 * noise, max(_typical(values.compressed(), 99.7), 10 * noise))


def _noise(image: Image) -> float:
    return _typical(np.sqrt(image.variance[image.valid]), 50.0) / _area(image)


def _area(image: Image) -> float:
    return 1.0 if is_per_area(image.unit) else image.pixel_area


def _brightness(image: Image, level: float = 0.0) -> np.ma.MaskedArray[Any, Any]:
    return (masked(image) + level) / _area(image)


def _unit_text(image: Image) -> str:
    return unit_text(image.unit if is_per_area(image.unit) else image.unit / u.arcsec**2)


def _typical(values: Any, percentage: float) -> float:
    return float(np.percentile(values, percentage)) if values.size else 1.0
