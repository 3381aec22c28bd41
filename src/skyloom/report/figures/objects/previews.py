"""Small pictures for cards: pixels and one curve, without axes."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyloom.report.figures.style import BAD_PIXEL, FLUX_MAP, INK, PAPER, to_png

__all__ = ["curve_preview", "image_preview"]

DPI = 70.0
MOST_POINTS = 500


def image_preview(values: NDArray[Any], mask: NDArray[np.bool_]) -> bytes:
    """Return pixels as a PNG, an arcsinh stretch, unusable ones grey; one picture element per pixel or more."""
    if values.size == 0:
        return b""
    shown = np.ma.masked_array(np.asarray(values, dtype=np.float64), mask)
    known = shown.compressed()
    low, middle, high = np.percentile(known, [5.0, 50.0, 99.5]) if known.size else (0.0, 0.0, 1.0)
    scale = max(float(middle - low), 1e-3 * float(high - low), 1e-300)
    stretched = np.ma.arcsinh((shown - middle) / scale)
    top = float(np.arcsinh((high - middle) / scale)) or 1.0
    ny, nx = values.shape
    figure = Figure(figsize=(max(nx, 8) / DPI, max(ny, 8) / DPI), dpi=DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    colours = mpl.colormaps[FLUX_MAP].with_extremes(bad=BAD_PIXEL)
    axes.imshow(
        stretched, cmap=colours, vmin=-1.5, vmax=top, origin="lower", interpolation="nearest", aspect="auto"
    )
    axes.set_axis_off()
    return to_png(figure)


def curve_preview(wave: NDArray[np.float64], values: NDArray[Any]) -> bytes:
    """Return a curve as a PNG; of many channels every second, third ..."""
    step = max(1, -(-wave.size // MOST_POINTS))
    figure = Figure(figsize=(3.6, 1.3), dpi=DPI, facecolor=PAPER)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.plot(wave[::step], values[::step], color=INK, lw=0.8, drawstyle="steps-mid")
    axes.set_axis_off()
    return to_png(figure)
