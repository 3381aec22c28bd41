"""A figure that notebooks show without pyplot, and that looks the same wherever it is drawn."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skyloom.report.figures.axis_text import unit_text
from skyloom.report.figures.style import PAPER, STYLE, to_png

__all__ = ["NotebookFigure", "open_figure", "unit_label"]

DPI = 110.0


class NotebookFigure(Figure):
    """A figure drawn in the style of Skyloom's reports, whatever the settings of matplotlib are by then."""

    def draw(self, renderer: Any) -> None:
        """Draw on a canvas; ticks, which are made only now, take the style of the rest."""
        with mpl.rc_context(STYLE):
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        """Return what Jupyter shows when the figure is the result of a cell."""
        return to_png(self)


def open_figure(width: float, height: float) -> NotebookFigure:
    """Open a figure of this size in inches."""
    return NotebookFigure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout="constrained")


def unit_label(unit: Any) -> str:
    """Return a unit as it stands beside an axis; "no unit" where there is none, so that nobody has to guess."""
    return unit_text(unit) or "no unit"


def bare(axes: Axes) -> None:
    """Take ticks and spines off a map."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_anchor("C")
    for spine in axes.spines.values():
        spine.set_visible(False)
