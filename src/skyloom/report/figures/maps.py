"""What figures of maps have in common: rows of panels, colour bars with their units, marks of the sky."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skyloom.core.image import Image
from skyloom.report.figures.style import SUPERSCRIPTS, draw_beam, draw_compass, draw_scale_bar, titled_figure

POWERS = {raised: digit for digit, raised in zip("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", strict=True)}

__all__ = [
    "NO_UNIT",
    "PANEL",
    "colour_bar",
    "draw_marks",
    "masked",
    "robust_range",
    "row_of_maps",
]

PANEL = 3.05  # inches
NO_UNIT = "no unit"
"""Written where a quantity is a plain number, so that a unit is never just missing."""


def row_of_maps(title: str, image: Image, n: int, dpi: float) -> tuple[Figure, Sequence[Axes]]:
    """Open a figure with n panels side by side, as high as the maps need."""
    ny, nx = image.shape
    height = float(np.clip(PANEL * ny / nx, 1.6, 5.0))
    figure = titled_figure(title, n * (PANEL + 0.9) + 0.2, height + 0.95, dpi)
    axes = figure.subplots(1, n, squeeze=False).ravel()
    figure.subplots_adjust(
        left=0.012, right=0.945, bottom=0.48 / (height + 0.95), top=1 - 0.62 / (height + 0.95), wspace=0.3
    )
    return figure, list(axes)


def colour_bar(figure: Figure, axes: Axes, picture: Any, unit: str) -> None:
    """Draw a colour bar beside a map, with its unit, and with round numbers where the stretch is not linear."""
    bar = figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.02)
    bar.outline.set_visible(False)  # type: ignore[operator]  # typed as a Spine map
    bar.ax.tick_params(length=2, width=0.6, pad=1.5, labelsize=7)
    bar.ax.minorticks_off()
    norm = picture.norm
    low, high = float(norm.vmin), float(norm.vmax)
    if type(norm) is not Normalize:
        ticks = _stretched_ticks(low, high)
    else:
        ticks = [
            float(tick)
            for tick in MaxNLocator(7, steps=[1, 2, 5, 10]).tick_values(low, high)
            if low <= tick <= high
        ]
    power = _power(low, high)
    bar.set_ticks(ticks, labels=[f"{tick / 10.0**power:g}".replace("-", "−") for tick in ticks])
    bar.set_label(_scaled(unit or NO_UNIT, power), size=7.5)


def _power(low: float, high: float) -> int:
    """The power of ten that numbers of a bar are told in: none where they are short without it."""
    largest = max(abs(low), abs(high))
    return 0 if largest == 0 or 0.1 <= largest < 1e4 else int(np.floor(np.log10(largest)))


def _scaled(unit: str, power: int) -> str:
    """Multiply the power of ten that a unit begins with."""
    if power == 0:
        return unit
    found = re.match(f"10([{''.join(POWERS)}]+)(?: |$)", unit)
    if found:
        power += int("".join(POWERS[digit] for digit in found[1]))
        unit = unit[found.end() :]
    scale = "" if power == 0 else "10" + str(power).translate(SUPERSCRIPTS)
    return f"{scale} {unit}".strip()


def _stretched_ticks(low: float, high: float) -> list[float]:
    """Zero and three decades below the top, as round numbers."""
    top = 10.0 ** np.floor(np.log10(high))
    top *= max(step for step in (1.0, 2.0, 5.0) if step * top <= high)
    ticks = [0.0, *(float(f"{top * factor:.0e}") for factor in (0.01, 0.1, 1.0))]
    return [tick for tick in ticks if tick == 0.0 or tick > -low / 3]


def draw_marks(axes: Axes, image: Image) -> None:
    """Draw compass, scale and PSF where the map has world coordinates."""
    if image.wcs is None:
        return
    draw_compass(axes, image)
    draw_scale_bar(axes, image)
    draw_beam(axes, image)


def masked(image: Image) -> np.ma.MaskedArray[Any, Any]:
    """Return the values of an image, masked where it is unusable."""
    return np.ma.masked_array(np.asarray(image.data, dtype=np.float64), image.mask)


def robust_range(image: Image, low: float, high: float) -> tuple[float, float]:
    """Return two percentiles of the usable pixels; (0, 1) where there are none."""
    values = image.data[image.valid]
    if values.size == 0:
        return 0.0, 1.0
    bottom, top = np.percentile(values.astype(np.float64), [low, high])
    return float(bottom), float(max(top, bottom + 1e-12 * max(abs(bottom), 1e-300)))
