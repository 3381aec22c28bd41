"""Encircled energy before and after matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np

from skyloom.report.figures.style import ACCENT, FAINT, STYLE, Float, titled_figure, to_png

__all__ = ["GrowthCurve", "growth_curves"]


@dataclass(frozen=True, slots=True)
class GrowthCurve:
    """Encircled energy of one band, before and after matching.

    Attributes
    ----------
    name : str
        The band.
    radii : (n,) array
        Arcsec.
    before, after : (n,) array
        Fraction of the light within each radius; ``after`` None where nothing was matched.
    """

    name: str
    radii: Float
    before: Float
    after: Float | None = None


def growth_curves(
    title: str,
    curves: Sequence[GrowthCurve],
    target: GrowthCurve,
    *,
    limit: float | None = None,
    dpi: float = 110.0,
) -> bytes:
    """Draw encircled energy before and after matching, and what is left of the difference to the target.

    Parameters
    ----------
    title : str
        What is shown.
    curves : sequence of GrowthCurve
        The bands; colours run in their order.
    target : GrowthCurve
        The PSF that all are matched to (``before``).
    limit : float, optional
        The largest residual that is accepted, drawn as a band.
    dpi : float
        Pixels per inch.

    Returns
    -------
    bytes
        A PNG.
    """
    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.92, max(len(curves), 2)))
    with mpl.rc_context(STYLE):
        figure = titled_figure(title, 9.6, 3.7, dpi)
        left, right = figure.subplots(1, 2)
        for curve, colour in zip(curves, colours, strict=False):
            left.plot(curve.radii, curve.before, color=colour, lw=1.1)
            wanted = np.interp(curve.radii, target.radii, target.before)
            right.plot(curve.radii, 100 * (curve.before - wanted), color=colour, lw=0.8, ls=":")
            after = curve.before if curve.after is None else curve.after
            right.plot(curve.radii, 100 * (after - wanted), color=colour, lw=1.5, label=curve.name)
        left.plot(target.radii, target.before, color=ACCENT, lw=2.0, label=f"target: {target.name}")
        left.legend(loc="lower right")
        left.set(xlabel="radius (arcsec)", ylabel="encircled energy (fraction)", ylim=(0, 1.02))
        left.set_title("before matching")
        if limit is not None:
            right.axhspan(-100 * limit, 100 * limit, color="#e9f2e9", zorder=0)
        right.axhline(0, color=FAINT, lw=0.7)
        right.set_title("minus target: before (dotted) and after (solid)")
        right.set(xlabel="radius (arcsec)", ylabel="difference (% of the light)")
        if curves:
            right.legend(ncols=2, loc="upper right")
        for axes in (left, right):
            axes.set_xlim(0, float(np.max(target.radii)))
        figure.tight_layout(rect=(0, 0, 1, 0.99))
        return to_png(figure)
