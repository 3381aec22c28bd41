"""Figures of the demonstration: the galaxy in every recipe, products beside their truth, and all pulls at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from skyloom.core.image import Image
from skyloom.report.figures.maps import colour_bar, draw_marks, masked
from skyloom.report.figures.style import (
    ACCENT,
    BAD_PIXEL,
    FAINT,
    FLUX_MAP,
    INK,
    SIGNED_MAP,
    STYLE,
    Float,
    asinh_norm,
    clean_frame,
    new_figure,
    titled_figure,
    to_png,
)

__all__ = ["PortraitPanel", "PullRow", "portrait", "pull_overview", "truth_maps"]

Kind = Literal["colours", "flux", "signed"]
GOOD, BAD, BAND = "#15703c", "#b42318", "#e5f4ea"
PANEL = 3.0  # inches
PULL_LIMIT = 4.0
DARK = "#0f1117"
# Factor of the differences between colours, which are small in galaxies.
VIVID = 1.7


class PortraitPanel(NamedTuple):
    """One view of the galaxy.

    Parameters
    ----------
    title, subtitle : str
    image : Image
        What is shown, and how it lies on the sky.
    kind : {"colours", "flux", "signed"}
    colours : tuple of three (ny, nx) arrays, optional
        Red, green, blue, in units in which white light is the same in all; for "colours".
    """

    title: str
    subtitle: str
    image: Image
    kind: Kind
    colours: tuple[Float, Float, Float] | None = None


class PullRow(NamedTuple):
    """A row of the overview of pulls; limits are of the absolute mean, and of the spread less 1."""

    group: str
    name: str
    mean: float
    spread: float
    mean_limit: float | None
    spread_limit: float | None


def portrait(panels: Sequence[PortraitPanel], *, dpi: float = 130.0) -> bytes:
    """Draw views of one galaxy side by side on a dark ground.

    Parameters
    ----------
    panels : sequence of PortraitPanel
    dpi : float

    Returns
    -------
    bytes
        A PNG.
    """
    gap, head, foot = 0.10, 0.62, 0.10
    width = len(panels) * PANEL + (len(panels) + 1) * gap
    height = PANEL + head + foot
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=dpi, facecolor=DARK)
        for number, panel in enumerate(panels):
            left = gap + number * (PANEL + gap)
            axes = figure.add_axes((left / width, foot / height, PANEL / width, PANEL / height))
            axes.set_facecolor(DARK)
            _draw_view(axes, panel)
            draw_marks(axes, panel.image)
            common: dict[str, Any] = {"ha": "left", "va": "baseline"}
            figure.text(
                left / width,
                1 - 0.27 / height,
                panel.title,
                color="white",
                size=10.5,
                weight="bold",
                **common,
            )
            figure.text(left / width, 1 - 0.49 / height, panel.subtitle, color="#b5bac8", size=8.0, **common)
        return to_png(figure)


def _draw_view(axes: Axes, panel: PortraitPanel) -> None:
    if panel.kind == "colours":
        assert panel.colours is not None
        axes.imshow(_true_colours(panel.colours), aspect="equal")
    else:
        norm = _flux_norm(panel.image) if panel.kind == "flux" else _signed_norm(panel.image)
        name = FLUX_MAP if panel.kind == "flux" else "RdBu_r"
        axes.imshow(
            masked(panel.image), norm=norm, cmap=mpl.colormaps[name].with_extremes(bad=DARK), aspect="equal"
        )
    clean_frame(axes, panel.image)


def _true_colours(planes: tuple[Float, Float, Float]) -> Float:
    """Colours that do not change with brightness (Lupton et al. 2004, 10.1086/382245), and none in noise."""
    stack = np.nan_to_num(np.stack(planes, axis=-1))
    mean = stack.mean(axis=-1)
    noise = 1.48 * float(np.median(np.abs(mean - np.median(mean)))) or 1e-30
    top = float(np.percentile(mean, 99.7))
    linear = max(2.0 * noise, 0.02 * top)
    stretched = np.arcsinh(np.maximum(mean, 0.0) / linear) / np.arcsinh(top / linear)
    sure = np.clip(mean / noise / 4.0 - 0.5, 0.0, 1.0)[..., np.newaxis]
    level = mean[..., np.newaxis]
    picture = level + VIVID * sure * (stack - level)
    picture *= (stretched / np.maximum(mean, 1e-30))[..., np.newaxis]
    peak = picture.max(axis=-1, keepdims=True)
    return np.asarray(np.clip(np.where(peak > 1.0, picture / np.maximum(peak, 1.0), picture), 0.0, 1.0))


def _flux_norm(image: Image) -> Normalize:
    values = image.data[image.valid].astype(np.float64)
    if values.size == 0:
        return asinh_norm(1.0, -1.0, 10.0)
    low, middle = np.percentile(values, [16.0, 50.0])
    noise = max(float(middle - low), 1e-30)
    high = max(float(np.percentile(values, 99.7)), 10.0 * noise)
    # The stretch shows faint light and the centre, whether it is noise or the galaxy that fills most of the map.
    return asinh_norm(min(max(2.0 * noise, 0.02 * high), 0.1 * high), -min(3.0 * noise, 0.02 * high), high)


def _signed_norm(image: Image) -> Normalize:
    values = np.abs(image.data[image.valid].astype(np.float64))
    limit = float(np.percentile(values, 98.0)) if values.size else 1.0
    return Normalize(-limit, limit)


def truth_maps(
    title: str,
    measured: Image,
    truth: Image,
    pull: Image,
    pulls: Float,
    *,
    unit: str,
    kind: Kind = "flux",
    counted: str = "pixels",
    dpi: float = 110.0,
) -> bytes:
    """Draw a product, its truth in the same stretch, their difference in errors, and how the pulls are spread.

    Parameters
    ----------
    title : str
    measured, truth, pull : Image
        On one grid; ``pull`` is (measured - truth) / error.
    pulls : (n,) array
        Of independent parts.
    unit : str
        Of ``measured``, as it is written.
    kind : {"flux", "signed"}
    counted : str
        What the pulls are of.
    dpi : float

    Returns
    -------
    bytes
        A PNG.
    """
    ny, nx = measured.shape
    panel = float(np.clip(PANEL * ny / nx, 1.6, 4.0))
    width, height = 4 * (PANEL + 0.62) + 0.1, panel + 0.95
    with mpl.rc_context(STYLE):
        figure = titled_figure(title, width, height, dpi)
        axes = figure.subplots(1, 4)
        figure.subplots_adjust(
            left=0.006, right=0.985, bottom=0.42 / height, top=1 - 0.62 / height, wspace=0.26
        )
        norm = _flux_norm(truth) if kind == "flux" else _signed_norm(truth)
        colours = FLUX_MAP if kind == "flux" else SIGNED_MAP
        parts = ((measured, "measured", norm, colours, unit), (truth, "truth", norm, colours, unit))
        limits = Normalize(-PULL_LIMIT, PULL_LIMIT)
        for place, (image, name, scale, cmap, text) in zip(
            axes, (*parts, (pull, "(measured − truth) / error", limits, SIGNED_MAP, "σ")), strict=False
        ):
            picture = place.imshow(
                masked(image),
                norm=scale,
                cmap=mpl.colormaps[cmap].with_extremes(bad=BAD_PIXEL),
                aspect="equal",
            )
            clean_frame(place, image)
            place.set_title(name)
            colour_bar(figure, place, picture, text)
        draw_marks(axes[0], measured)
        _draw_histogram(axes[3], pulls, counted)
        return to_png(figure)


def _draw_histogram(axes: Axes, pulls: Float, counted: str) -> None:
    """Pulls as a histogram, with the Gaussian of unit width that they should follow."""
    edges = np.linspace(-5.0, 5.0, int(np.clip(2 * np.cbrt(pulls.size) + 1, 11, 61)))
    density, _ = np.histogram(np.clip(pulls, -4.999, 4.999), edges, density=True)
    axes.stairs(density, edges, fill=True, color="#d9dde8")
    axes.stairs(density, edges, color=FAINT, lw=0.8)
    x = np.linspace(-5.0, 5.0, 201)
    axes.plot(x, np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi), color=ACCENT, lw=1.5)
    axes.set_xlim(-5.0, 5.0)
    axes.set_ylim(0.0, 1.32 * max(float(density.max(initial=0.0)), 0.4))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("pull / σ")
    axes.set_title(f"pulls of {pulls.size} {counted}")
    spread = float(np.std(pulls, ddof=1)) if pulls.size > 1 else float("nan")
    text = f"mean {np.mean(pulls):+.2f}\nstd {spread:.2f}".replace("-", "−")
    axes.text(0.03, 0.96, text, transform=axes.transAxes, va="top", size=8.5)
    axes.text(
        0.97, 0.96, "unit\nGaussian", transform=axes.transAxes, va="top", ha="right", size=8, color=ACCENT
    )


def pull_overview(rows: Sequence[PullRow], *, dpi: float = 110.0) -> bytes:
    """Draw the mean and the spread of the pulls of all quantities, with what is allowed of them.

    Parameters
    ----------
    rows : sequence of PullRow
        Those of one group follow one another.
    dpi : float

    Returns
    -------
    bytes
        A PNG.
    """
    step, head, foot, names = 0.235, 0.42, 0.5, 3.35
    lines: list[PullRow | str] = []
    for group in dict.fromkeys(row.group for row in rows):
        lines += [group, *(row for row in rows if row.group == group)]
    height, width = head + foot + step * len(lines), 10.6
    side, bottom, tall = (width - names - 0.5) / 2, foot / height, step * len(lines) / height
    with mpl.rc_context(STYLE):
        figure = new_figure(width, height, dpi)
        left = figure.add_axes((names / width, bottom, side / width, tall))
        right = figure.add_axes(((names + side + 0.35) / width, bottom, side / width, tall))
        _pull_axes(left, len(lines), 0.0, 1.6, "mean of the pulls / σ")
        _pull_axes(right, len(lines), 1.0, 1.2, "standard deviation of the pulls / σ")
        for y, line in enumerate(lines):
            place = bottom + tall * (1 - (y + 0.5) / len(lines))
            if isinstance(line, str):
                figure.text(0.12 / width, place, line, weight="bold", va="center", size=9.5)
                continue
            figure.text(0.30 / width, place, line.name, va="center", size=8.5)
            _draw_range(left, y, line.mean, 0.0, line.mean_limit)
            _draw_range(right, y, line.spread, 1.0, line.spread_limit)
        legend = "bars: what is allowed    dots: what was found"
        figure.text(0.12 / width, 1 - 0.2 / height, legend, color=FAINT, size=8.5, va="center")
        return to_png(figure)


def _pull_axes(axes: Axes, n_lines: int, centre: float, reach: float, label: str) -> None:
    axes.set_ylim(n_lines - 0.5, -0.5)
    axes.set_xlim(centre - reach, centre + reach)
    axes.axvline(centre, color=INK, lw=0.8, zorder=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MultipleLocator(0.5))
    axes.set_xlabel(label)


def _draw_range(axes: Axes, y: float, value: float, centre: float, limit: float | None) -> None:
    """A bar of what is allowed, and a dot, at the edge where it is off the axes."""
    if not np.isfinite(value):
        axes.text(centre, y, "  –", va="center", ha="left", color=FAINT, size=8)
        return
    if limit is not None:
        low, high = axes.get_xlim()
        ends = np.clip([centre - limit, centre + limit], low, high)
        axes.barh(y, np.diff(ends), left=ends[0], height=0.62, color=BAND, edgecolor="#b9dcc6", linewidth=0.5)
    passed = limit is None or abs(value - centre) <= limit
    shown = float(np.clip(value, *axes.get_xlim()))
    axes.plot([shown], [y], "o", ms=5.0, color=GOOD if passed else BAD, clip_on=False, zorder=3)
