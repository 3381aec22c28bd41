"""Stores: where on the sky observations lie, and when they were made."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skyloom.report.figures.coverage import COLOURS, Outlines, draw_coverage
from skyloom.report.figures.objects.figure import open_figure
from skyloom.report.figures.style import FAINT, STYLE, Float

__all__ = ["store_figure"]

MOST_BANDS = 24


def store_figure(
    title: str,
    place: tuple[Float, Float, Float],
    kind: Any,
    outlines: Outlines | None,
    time: tuple[Float, Float],
    band: Any,
) -> Figure:
    """Draw footprints, and below them a time line of every band.

    Parameters
    ----------
    title : str
    place : (ra, dec, radius)
        (n,) arrays in deg; NaN where the place is unknown.
    kind, band : (n,) arrays of str
    outlines : (start, ra, dec), optional
        Of all n; see `skyloom.report.figures.coverage.sky_coverage`.
    time : (start, stop)
        (n,) arrays, MJD (TAI); NaN where the time is unknown.

    Returns
    -------
    matplotlib.figure.Figure
    """
    kinds, bands = np.asarray(kind).astype(str), np.asarray(band).astype(str)
    shown = np.flatnonzero(np.isfinite(place[0]))
    with mpl.rc_context(STYLE):
        figure = open_figure(8.2, 5.8)
        grid = figure.add_gridspec(2, 1, height_ratios=[2.6, 1.0])
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        if shown.size:
            ra, dec, radius = (np.asarray(values, dtype=np.float64)[shown] for values in place)
            # Without all their places outlines would be those of other rows.
            whole = outlines if shown.size == kinds.size else None
            draw_coverage(figure, grid[0], ra, dec, np.nan_to_num(radius), kinds[shown], whole)
        else:
            _say(figure.add_subplot(grid[0]), "no observation has a place on the sky")
        _draw_times(figure.add_subplot(grid[1]), time, kinds, bands)
    return figure


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=FAINT)
    axes.set_axis_off()


def _draw_times(axes: Axes, time: tuple[Float, Float], kinds: Any, bands: Any) -> None:
    """Draw a bar from start to stop of each observation, one line per kind and band."""
    start, stop = (np.asarray(values, dtype=np.float64) for values in time)
    known = np.isfinite(start) & np.isfinite(stop)
    if not known.any():
        _say(axes, "no observation tells its time")
        return
    names = sorted(set(zip(kinds[known].tolist(), bands[known].tolist(), strict=True)))[:MOST_BANDS]
    for number, (kind, band) in enumerate(names):
        rows = known & (kinds == kind) & (bands == band)
        axes.hlines(
            np.full(int(rows.sum()), number), start[rows], stop[rows], color=COLOURS.get(kind, FAINT), lw=4
        )
        # Exposures of minutes among years are no longer than a hair.
        middle = 0.5 * (start[rows] + stop[rows])
        axes.plot(middle, np.full(middle.size, number), "|", color=COLOURS.get(kind, FAINT), ms=7)
    axes.set_yticks(range(len(names)), [f"{kind} {band}".strip() for kind, band in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.10g}")
    axes.set_xlabel("MJD (TAI)")
    axes.grid(axis="x", color=FAINT, linewidth=0.3, alpha=0.5)
