"""Pixels of HST against those of MUSE, on arcsinh axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from astropy.table import QTable
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from skyloom.core.image import Image
from skyloom.report.figures.axis_text import plain_number, plain_ticks, round_ticks, unit_text
from skyloom.report.figures.style import ACCENT, FAINT, STYLE, titled_figure, to_png

__all__ = ["PixelPanel", "pixel_figure"]


@dataclass(frozen=True, slots=True)
class PixelPanel:
    """One panel of `pixel_figure`.

    Attributes
    ----------
    title : str
    image, reference : Image
        On one grid, with one PSF.
    line : (float, float, float, float) or None
        Slope, its error, offset, its error (unit of the image).
    running : QTable
        Of `skyloom.imaging.measure.comparison.running_median`.
    note : str
        Written below the fit.
    """

    title: str
    image: Image
    reference: Image
    line: tuple[float, float, float, float] | None
    running: QTable
    note: str = ""


def pixel_figure(title: str, panels: Sequence[PixelPanel], *, dpi: float = 110.0) -> bytes:
    """Draw pixels of HST, at the PSF of MUSE, against those of MUSE: their number, the fitted line, running medians.

    Parameters
    ----------
    title : str
    panels : sequence of PixelPanel
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG. Axes are arcsinh: linear within the noise, logarithmic beyond it.
    """
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    with mpl.rc_context(STYLE):
        figure = titled_figure(title, 6.3 * across, 4.9 * down + 0.4, dpi)
        grid = figure.subplots(down, across, squeeze=False).ravel()
        height = 4.9 * down + 0.4
        figure.subplots_adjust(
            left=0.085 if across == 2 else 0.15, right=0.95, bottom=0.6 / height, top=1 - 0.75 / height,
            wspace=0.32, hspace=0.32,
        )  # fmt: skip
        for axes, panel in zip(grid, panels, strict=False):
            _draw_pixels(axes, panel)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        return to_png(figure)


def _draw_pixels(axes: Axes, panel: PixelPanel) -> None:
    image, reference = panel.image, panel.reference
    used = image.valid & reference.valid
    x = reference.data[used].astype(np.float64) * float(reference.unit.to(image.unit))
    y = image.data[used].astype(np.float64)
    axes.set_title(panel.title, weight="bold")
    axes.set_xlabel(f"MUSE ({unit_text(image.unit)})")
    axes.set_ylabel(f"HST ({unit_text(image.unit)})")
    if x.size == 0:
        return
    noise = float(np.sqrt(np.median(image.variance[used]) + np.median(reference.variance[used])))
    linear = max(3.0 * noise, 0.02 * float(np.percentile(np.abs(x), 90.0)), 1e-30)
    low = float(min(np.percentile(x, 0.3), np.percentile(y, 0.3)))
    high = max(float(np.percentile(x, 99.97)), float(np.percentile(y, 99.97)), low + linear)
    edges = linear * np.sinh(np.linspace(np.arcsinh(low / linear), np.arcsinh(high / linear), 121))
    counts, _, _ = np.histogram2d(x, y, [edges, edges])
    picture = axes.pcolormesh(
        edges, edges, np.ma.masked_equal(counts.T, 0), norm=LogNorm(1, max(2.0, counts.max())), cmap="Greys",
        rasterized=True,
    )  # fmt: skip
    for set_scale in (axes.set_xscale, axes.set_yscale):
        set_scale("asinh", linear_width=linear)
    axes.plot(edges, edges, color=FAINT, lw=0.8, ls=":", label="equal")
    if panel.line is not None:
        slope, slope_err, offset, offset_err = panel.line
        spread = np.hypot(slope_err * edges, offset_err)
        middle = slope * edges + offset
        axes.fill_between(edges, middle - spread, middle + spread, color=ACCENT, alpha=0.25, lw=0)
        axes.plot(
            edges, middle, color=ACCENT, lw=1.1,
            label=f"slope {_with_error(slope, slope_err)}\noffset {_with_error(offset, offset_err)}",
        )  # fmt: skip
    _draw_running(axes, panel.running)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(round_ticks(low, high, linear)))
        axis.set_major_formatter(FuncFormatter(plain_number))
        axis.set_minor_locator(NullLocator())
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(edges[0], edges[-1])
    axes.legend(loc="upper left", title=panel.note or None, title_fontsize=8.0, alignment="left")
    bar = axes.figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.02)
    bar.outline.set_visible(False)  # type: ignore[operator]  # typed as a Spine map
    bar.ax.tick_params(length=2, width=0.6, labelsize=7)
    plain_ticks(bar.ax.yaxis)
    bar.set_label("pixels (number)", size=7.5)


def _with_error(value: float, error: float) -> str:
    """Write a value and its error, both to the second digit of the error."""
    if not (np.isfinite(error) and error > 0 and 1e-6 < error < 1e6):
        return f"{value:.4g} ± {error:.2g}"
    digits = 1 - int(np.floor(np.log10(error)))
    value, error = round(value, digits), round(error, digits)
    return f"{value:.{max(digits, 0)}f} ± {error:.{max(digits, 0)}f}".replace("-", "−")


def _draw_running(axes: Axes, running: QTable) -> None:
    if len(running) == 0:
        return
    place, middle, low, high = (running[name].value for name in ("reference", "median", "low", "high"))
    axes.errorbar(
        place, middle, [middle - low, high - middle], fmt="o", ms=3.0, color="#2563a8", mew=0, elinewidth=0.9,
        label="median, 16–84 %",
    )  # fmt: skip
