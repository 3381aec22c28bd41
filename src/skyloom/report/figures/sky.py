"""The pixels taken as sky."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from skyloom.report.figures.style import ACCENT, INK, STYLE, SUPERSCRIPTS, Float, titled_figure, to_png

__all__ = ["SkyHistogram", "sky_histograms"]


@dataclass(frozen=True, slots=True)
class SkyHistogram:
    """Pixels taken as sky, and the level found in them.

    Attributes
    ----------
    name : str
        The band, or object and band.
    edges, counts : (n + 1,) and (n,) array
        The histogram, edges in ``unit``.
    level, error : float
        Sky and its uncertainty, in ``unit``.
    scatter : float
        Standard deviation of the sky pixels, in ``unit``.
    unit : str
        Unit of the image.
    light_counts : (n,) array, optional
        The same histogram with the outskirts of the sources left in, and
    light_level : float, optional
        the level that would be found then: the difference is the light that must not count as sky.
    other : float, optional
        A level found by someone else, for comparison.
    other_name : str
        Who found it.
    """

    name: str
    edges: Float
    counts: Float
    level: float
    error: float
    scatter: float
    unit: str
    light_counts: Float | None = None
    light_level: float | None = None
    other: float | None = None
    other_name: str = "given"


def sky_histograms(title: str, histograms: Sequence[SkyHistogram], *, dpi: float = 110.0) -> bytes:
    """Draw the pixels taken as sky with the level found in them, one panel per band.

    Parameters
    ----------
    title : str
        What is shown.
    histograms : sequence of SkyHistogram
        The panels.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    columns = min(3, len(histograms))
    lines = -(-len(histograms) // columns)
    with mpl.rc_context(STYLE):
        figure = titled_figure(title, max(3.5 * columns, 6.0), 2.35 * lines + 0.95, dpi)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, histogram in zip(panels, histograms, strict=False):
            _draw_histogram(axes, histogram)
        for axes in panels[len(histograms) :]:
            axes.set_visible(False)
        handles = {
            label: handle
            for axes in panels
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=3 if columns > 1 else 2)
        figure.tight_layout(rect=(0.01, 0.5 / figure.get_figheight(), 0.99, 0.99), w_pad=2.0)
        return to_png(figure)


def _draw_histogram(axes: Axes, histogram: SkyHistogram) -> None:
    edges, counts = np.asarray(histogram.edges), np.asarray(histogram.counts)
    power = int(np.floor(np.log10(max(abs(histogram.scatter), 1e-300))))
    unit = 10.0**power
    if histogram.light_counts is not None:
        axes.stairs(
            histogram.light_counts, edges / unit, color="#8fa3c8", lw=0.8, label="with outskirts of sources"
        )
    axes.stairs(counts, edges / unit, fill=True, color="#c9d3e6", label="sky pixels")
    x = np.linspace(edges[0], edges[-1], 300)
    if histogram.scatter > 0:
        # Scaled to the pixels near the level, so that a tail of unmasked sources does not raise the bell.
        centres = (0.5 * (edges[1:] + edges[:-1]) - histogram.level) / histogram.scatter
        near = np.abs(centres) < 1.5
        height = counts[near].sum() / max(np.exp(-0.5 * centres[near] ** 2).sum(), 1e-30)
        bell = height * np.exp(-0.5 * ((x - histogram.level) / histogram.scatter) ** 2)
        axes.plot(x / unit, bell, color=INK, lw=1.0, label="normal, with its scatter")
    axes.axvspan(
        (histogram.level - histogram.error) / unit,
        (histogram.level + histogram.error) / unit,
        color=ACCENT,
        alpha=0.25,
        lw=0,
    )
    axes.axvline(histogram.level / unit, color=ACCENT, lw=1.4, label="sky and its error")
    if histogram.light_level is not None:
        axes.axvline(histogram.light_level / unit, color="#8fa3c8", lw=1.0, label="its level")
    if histogram.other is not None:
        axes.axvline(histogram.other / unit, color=INK, lw=1.2, ls="--", label=histogram.other_name)
    axes.set_title(histogram.name, weight="bold")
    scale = f"10{str(power).translate(SUPERSCRIPTS)} " if power else ""
    axes.set_xlabel(f"sky per pixel ({scale}{histogram.unit or 'no unit'})")
    if histogram.scatter > 0:
        # Far outliers are few, and would squeeze everything else into the middle.
        low, high = histogram.level - 5.0 * histogram.scatter, histogram.level + 7.0 * histogram.scatter
        axes.set_xlim(max(edges[0], low) / unit, min(edges[-1], high) / unit)
    axes.set_yticks([])
    axes.set_ylabel("pixels (number)", size=8)
    axes.spines["left"].set_visible(False)
    digits = max(0, -int(np.floor(np.log10(max(histogram.error / unit, 1e-9)))) + 1)
    text = f"{histogram.level / unit:.{digits}f} ± {histogram.error / unit:.{digits}f}"
    axes.text(0.99, 0.97, text, transform=axes.transAxes, ha="right", va="top", color=ACCENT, size=8.5)
