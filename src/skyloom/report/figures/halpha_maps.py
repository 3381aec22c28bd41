"""The map of Halpha, and what its errors make of it."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize

from skyloom.core.image import Image
from skyloom.report.figures.axis_text import unit_text
from skyloom.report.figures.maps import colour_bar, draw_marks, masked, robust_range, row_of_maps
from skyloom.report.figures.style import FLUX_MAP, NOISE_MAP, STYLE, asinh_norm, draw_panel, to_png

__all__ = ["halpha_maps"]


def halpha_maps(title: str, image: Image, *, per: str = "pixel", dpi: float = 110.0) -> bytes:
    """Draw a map, its error, and the ratio of both.

    Parameters
    ----------
    title : str
    image : Image
        Per area; a large one as means over blocks of pixels.
    per : str
        What an error is that of: a pixel, or a block.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG. The error is that of single pixels or blocks, errors that they share not in it.
    """
    error = np.ma.masked_array(
        np.sqrt(np.where(image.mask, 1.0, image.variance.astype(np.float64))), image.mask
    )
    known = error.compressed()
    noise = float(np.median(known)) if known.size else 1.0
    peak = max(robust_range(image, 0.0, 99.7)[1], 10.0 * noise)
    low, high = (float(value) for value in np.percentile(known, [1.0, 98.0])) if known.size else (0.0, 1.0)
    ratio = masked(image) / error
    values = ratio.compressed()
    top = max(float(np.percentile(values, 99.7)) if values.size else 1.0, 10.0)
    unit = unit_text(image.unit)
    panels = (
        ("Halpha", masked(image), asinh_norm(2.0 * noise, -3.0 * noise, peak), FLUX_MAP, unit),
        (f"its error, of a {per}", error, Normalize(low, max(high, low + 1e-6 * noise)), NOISE_MAP, unit),
        ("Halpha / error", ratio, asinh_norm(2.0, -3.0, top), NOISE_MAP, ""),
    )
    with mpl.rc_context(STYLE):
        figure, axes = row_of_maps(title, image, len(panels), dpi)
        for axis, (name, plane, norm, colours, label) in zip(axes, panels, strict=True):
            picture = draw_panel(axis, image, plane, None, norm, colours)
            axis.set_title(name, weight="bold")
            colour_bar(figure, axis, picture, label)
            draw_marks(axis, image)
        return to_png(figure)
