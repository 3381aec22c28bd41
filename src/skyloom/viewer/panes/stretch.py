"""From values to colours: limits, stretches, palettes, and where the ticks of the colour bar go."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.viewer.protocols import Float32

__all__ = [
    "LIMITS",
    "PALETTES",
    "STRETCHES",
    "bar_ticks",
    "colour_indices",
    "limits_of",
    "number_text",
    "palette_of",
]

Float = NDArray[np.float64]
UNKNOWN = "#e9ebf1"
"""Colour of pixels of which nothing usable is known."""
COLOURS = 255
SOFT = 0.02
"""Where asinh turns from linear to logarithmic, as a fraction of the limits."""
DECADES = 3.0
"""How far below the upper limit the stretch log reaches."""

PALETTES = ("inferno", "viridis", "magma", "cividis", "gray", "gray inverted", "blue–red")
"""Perceptually uniform; the last one, for velocities, about the middle of the limits."""

LIMITS: dict[str, tuple[float, float] | None] = {
    "99.5 %": (0.25, 99.75),
    "99 %": (0.5, 99.5),
    "98 %": (1.0, 99.0),
    "95 %": (2.5, 97.5),
    "90 %": (5.0, 95.0),
    "all": (0.0, 100.0),
    "symmetric": (-1.0, -1.0),
    "typed": None,
}
"""How limits are chosen: the part of the values that lies between them."""


def _shades(values: NDArray[np.floating[Any]], low: float, high: float, stretch: str) -> Float:
    """Return values between the limits as shades from 0 to 1."""
    part = np.clip((values - low) / (high - low), 0.0, 1.0)
    if stretch == "sqrt":
        return np.asarray(np.sqrt(part))
    if stretch == "log":
        return np.asarray(1.0 + np.log10(np.maximum(part, 10.0**-DECADES)) / DECADES)
    if stretch == "asinh":
        # About zero where that lies between the limits: noise on either side of it looks alike.
        zero = min(max(-low / (high - low), 0.0), 1.0)
        ends = np.arcsinh((np.array([0.0, 1.0]) - zero) / SOFT)
        return np.asarray((np.arcsinh((part - zero) / SOFT) - ends[0]) / (ends[1] - ends[0]))
    return np.asarray(part)


STRETCHES = ("linear", "sqrt", "log", "asinh")


def limits_of(values: Float32, how: str) -> tuple[float, float]:
    """Return the limits that a part of the finite values lies between; (0, 1) where there are none.

    Parameters
    ----------
    values : float32 array
    how : str
        A key of `LIMITS` other than "typed".
    """
    known = values[np.isfinite(values)]
    chosen = LIMITS[how]
    if known.size == 0 or chosen is None:
        return 0.0, 1.0
    if how == "symmetric":
        largest = float(np.percentile(np.abs(known), 98.0))
        return (-largest, largest) if largest > 0 else (-1.0, 1.0)
    low, high = (float(value) for value in np.percentile(known, chosen))
    if not high > low:
        margin = 0.5 * abs(low) or 0.5
        return low - margin, high + margin
    return low, high


def colour_indices(values: Float32, low: float, high: float, stretch: str) -> NDArray[np.uint8]:
    """Return the colour of each value: 0 where unknown, 1 at and below the lower limit, 255 at and above the upper."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN stays NaN, and infinite values end at a limit.
        shade = _shades(values, low, high, stretch)
    known = np.isfinite(shade)
    shade[~known] = 0.0
    indices = (1.5 + shade * (COLOURS - 1)).astype(np.uint8)
    indices[~known] = 0
    return indices


@lru_cache(maxsize=16)
def palette_of(name: str) -> tuple[str, ...]:
    """Return 256 colours, the first for what is unknown."""
    from bokeh import palettes

    if name == "blue–red":
        colours = palettes.interp_palette(palettes.RdBu[11], 256)
    elif name.startswith("gray"):
        colours = palettes.gray(256)
        colours = colours[::-1] if name.endswith("inverted") else colours
    else:
        colours = getattr(palettes, f"{name.capitalize()}256")
    return (UNKNOWN, *colours[1:])


def bar_ticks(low: float, high: float, stretch: str, most: int = 6) -> tuple[list[float], dict[float, str]]:
    """Return where the ticks of a colour bar from 1 to 255 go, and their texts: round values, not too near."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [], {}
    step = _round_step(span / (most - 1))
    wanted = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    if stretch != "linear":
        # Finer ones where the stretch is steep: about zero, or at the lower limit.
        base = 0.0 if stretch == "asinh" and low < 0 < high else low
        for power in range(1, 4):
            fine = _round_step(span / (most - 1) / 4.0**power)
            first = math.ceil(base / fine)
            wanted += [fine * number for number in range(first - 4 if base == 0 else first, first + 5)]
    values = np.unique([value for value in wanted if low <= value <= high])
    places = 1.0 + (COLOURS - 1) * _shades(values, low, high, stretch)
    kept: list[int] = []
    for number in range(len(values) - 1, -1, -1):
        if not kept or places[kept[-1]] - places[number] >= COLOURS / (most + 3):
            kept.append(number)
    ticks = [round(float(places[number]), 3) for number in reversed(kept)]
    texts = [number_text(float(values[number])) for number in reversed(kept)]
    return ticks, dict(zip(ticks, texts, strict=True))


def _round_step(step: float) -> float:
    """The next round number, 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= step * 0.999)


def number_text(value: float) -> str:
    """Write a number shortly."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    text = f"{value:.4g}"
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        return f"{mantissa}e{int(exponent)}"
    return text
