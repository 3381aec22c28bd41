"""Holds figures as they become PNGs against the rules of reports: units on all axes, marks and bars on all maps."""

from __future__ import annotations

import re
from typing import Any

import astropy.units as u
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PLAIN = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
# What stands for a unit where a quantity is a plain number, or is counted.
WORDS = {
    "no unit", "number", "fraction", "σ", "per σ", "dex", "px", "channels", "cycles per arcsec", "% of the light", "%",
}  # fmt: skip


class AuditedCanvas(FigureCanvasAgg):
    """The canvas on which figures become PNGs, with a look at each of them."""

    audited: list[Figure] = []  # noqa: RUF012  of all instances together

    def print_png(self, *arguments: Any, **options: Any) -> None:
        super().print_png(*arguments, **options)
        audit(self.figure)
        self.audited.append(self.figure)


def audit(figure: Figure) -> None:
    """Assert that every axis has a unit, and that every map has a bar (or a legend) and the marks of the others."""
    bars = [axes for axes in figure.axes if hasattr(axes, "_colorbar") and axes.get_visible()]
    for axes in bars:
        label = axes.get_ylabel() or axes.get_xlabel()
        assert is_unit(label) or has_unit(label), f"colour bar {label!r}"
    for axes in figure.axes:
        if axes.get_visible() and axes.axison and axes not in bars:
            _audit_axis(figure, axes, "x")
            _audit_axis(figure, axes, "y")
    maps = [axes for axes in figure.axes if axes.get_gid() == "map"]
    marks = [{child.get_gid() for child in axes.get_children()} & {"scale bar", "compass"} for axes in maps]
    assert all(found == marks[0] for found in marks), "panels differ in their marks"
    norms = [id(axes._colorbar.mappable.norm) for axes in bars]
    for axes in maps:
        assert axes.get_legend() is not None or id(axes.images[0].norm) in norms, (
            f"no bar: {axes.get_title('left')}"
        )


def _audit_axis(figure: Figure, axes: Any, which: str) -> None:
    axis = getattr(axes, f"{which}axis")
    numbers = [tick for tick in axis.get_majorticklabels() if tick.get_visible() and tick.get_text()]
    if not axis.get_visible() or not numbers:
        return
    label = axis.get_label_text() or _shared_label(figure, axes, which)
    assert has_unit(label), f"{which} axis {label!r} of {axes.get_title('left')!r}"


def _shared_label(figure: Figure, axes: Any, which: str) -> str:
    """A label of the whole figure, or of the panel below (or beside) that has the same extent."""
    own = axes.get_position()
    side = 0 if which == "x" else 1
    for other in figure.axes:
        place = other.get_position()
        if np.allclose(np.array(place.get_points())[:, side], np.array(own.get_points())[:, side]):
            text = getattr(other, f"get_{which}label")()
            if text:
                return str(text)
    return str(figure.get_supxlabel() if which == "x" else figure.get_supylabel())


def has_unit(label: str) -> bool:
    """Whether a label ends with a unit in parentheses; its own may have parentheses, too."""
    return (
        any(is_unit(label[place + 1 : -1]) for place, sign in enumerate(label) if sign == "(")
        and label[-1] == ")"
    )


def is_unit(text: str) -> bool:
    """Whether a text is a unit as figures write it, or says that there is none."""
    text = re.sub(r"^log10, of | per (spaxel|arcsec²)$", "", text)
    if text in WORDS:
        return True
    parts = text.split()
    return bool(parts) and all(_is_part(part) for part in parts)


def _is_part(text: str) -> bool:
    base = re.sub("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹.]+$", "", text)
    if base == "10" or re.fullmatch(r"[\d.e+-]+|/", base):
        return True
    try:
        u.Unit(base.translate(PLAIN).replace("Å", "Angstrom"))
    except ValueError:
        return False
    return True
