"""Where on the sky observations lie: their outlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from skyloom.report.figures.style import ACCENT, FAINT, INK, STYLE, Float, new_figure, to_png

__all__ = ["COLOURS", "draw_coverage", "sky_coverage"]

Outlines = tuple[NDArray[np.int64], Float, Float]
COLOURS = {"image": "#2563a8", "cube": ACCENT, "spectrum": INK}
PLURALS = {"image": "images", "cube": "cubes", "spectrum": "spectra"}
MOST_SHOWN = 20_000  # of a kind; more would only darken the same places
WIDE = 60.0  # deg; wider fields are shown on the whole sky


def sky_coverage(
    title: str,
    ra: Float,
    dec: Float,
    radius: Float,
    kind: Any,
    outlines: Outlines | None = None,
    *,
    dpi: float = 110.0,
) -> bytes:
    """Draw what observations cover: their outlines on a map of their field, or points on the whole sky.

    Parameters
    ----------
    title : str
    ra, dec, radius : (n,) float arrays
        deg.
    kind : (n,) array of str
        "image", "cube" or "spectrum".
    outlines : (start, ra, dec), optional
        Vertices ``start[i]`` to ``start[i + 1]`` of the outline of observation i, deg; one without vertices is a circle
        of its radius. None: circles all.
    dpi : float

    Returns
    -------
    bytes
        PNG.
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(7.0, 4.2, dpi)
        draw_coverage(figure, 111, ra, dec, radius, kind, outlines).set_title(title, pad=14)
        figure.subplots_adjust(left=0.11, right=0.80, bottom=0.13, top=0.88)  # room for the legend
        return to_png(figure)


def draw_coverage(
    figure: Figure, place: Any, ra: Float, dec: Float, radius: Float, kind: Any, outlines: Outlines | None
) -> Axes:
    """Draw what `sky_coverage` does into one place of a figure, and return its axes."""
    kinds = np.asarray(kind).astype(str)
    # Whole degrees, so that the axis counts in round numbers.
    centre = float(round(_centre(ra, dec)))
    east = (ra - centre + 180.0) % 360.0 - 180.0
    whole = bool(np.ptp(east) > WIDE or np.ptp(dec) > WIDE)
    axes = figure.add_subplot(place, projection="mollweide" if whole else None)
    for name in ("image", "cube", "spectrum"):
        chosen = np.flatnonzero(kinds == name)
        if chosen.size:
            label = f"{chosen.size} {name if chosen.size == 1 else PLURALS[name]}"
            shown = chosen[:: -(-chosen.size // MOST_SHOWN)]
            where = (east[shown], dec[shown], radius[shown])
            if whole:
                _draw_whole(axes, where, COLOURS[name], label, centre)
            else:
                _draw_field(axes, where, COLOURS[name], label, _corners(outlines, shown, centre))
    axes.grid(color=FAINT, linewidth=0.3, alpha=0.5)
    if not whole:
        _finish_field(axes, dec, radius, east, centre)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8, markerscale=3)
    return axes


def _centre(ra: Float, dec: Float) -> float:
    """Return the mean right ascension, also of fields that lie on both sides of 0."""
    angle, weight = np.radians(ra), np.cos(np.radians(dec))
    return float(
        np.degrees(np.arctan2(np.sum(weight * np.sin(angle)), np.sum(weight * np.cos(angle)))) % 360.0
    )


def _draw_whole(
    axes: Axes, place: tuple[Float, Float, Float], colour: str, label: str, centre: float
) -> None:
    east, dec, _ = place
    around = (east + centre + 180.0) % 360.0 - 180.0
    axes.plot(np.radians(-around), np.radians(dec), ".", color=colour, markersize=2, alpha=0.5, label=label)
    axes.set_xticklabels([f"{(-angle) % 360}°" for angle in range(-150, 151, 30)], color=FAINT, fontsize=7)
    axes.set_xlabel("right ascension (deg)")
    axes.set_ylabel("declination (deg)")


def _corners(outlines: Outlines | None, rows: NDArray[np.int64], centre: float) -> list[Float]:
    """Return the vertices of some outlines as (east of the centre, declination); empty ones of what is round."""
    if outlines is None:
        return [np.empty((0, 2))] * len(rows)
    start, ra, dec = outlines
    east = (ra - centre + 180.0) % 360.0 - 180.0
    return [
        np.column_stack([east[start[row] : start[row + 1]], dec[start[row] : start[row + 1]]]) for row in rows
    ]


def _draw_field(
    axes: Axes, place: tuple[Float, Float, Float], colour: str, label: str, corners: Sequence[Float]
) -> None:
    is_round = np.array([len(outline) == 0 for outline in corners])
    drawn = PolyCollection(
        [outline for outline in corners if len(outline)],
        facecolors="none",
        edgecolors=colour,
        linewidths=0.6,
        alpha=0.5,
    )
    axes.add_collection(drawn)
    east, dec, radius = (values[is_round] for values in place)
    size = 2.0 * radius
    circles = EllipseCollection(
        size / np.cos(np.radians(dec)),
        size,
        np.zeros_like(size),
        units="xy",
        offsets=np.column_stack([east, dec]),
        offset_transform=axes.transData,
        facecolors="none",
        edgecolors=colour,
        linewidths=0.6,
        alpha=0.5,
    )
    axes.add_collection(circles)
    axes.plot(place[0], place[1], ".", color=colour, markersize=3, alpha=0.6, label=label)


def _finish_field(axes: Axes, dec: Float, radius: Float, east: Float, centre: float) -> None:
    across = np.cos(np.radians(float(np.mean(dec))))
    reach = 1.05 * radius + 0.02
    # East is on the left.
    axes.set_xlim(float(np.max(east + reach / across)), float(np.min(east - reach / across)))
    axes.set_ylim(float(np.min(dec - reach)), float(np.max(dec + reach)))
    axes.set_aspect(1.0 / across, adjustable="box")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{(value + centre) % 360.0:.4g}°")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}°")
    axes.set_xlabel("right ascension (deg)")
    axes.set_ylabel("declination (deg)")
