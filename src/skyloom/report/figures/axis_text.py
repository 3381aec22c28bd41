"""What stands beside an axis: units with raised exponents, numbers without mathematical markup, round ticks."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, NullFormatter

from skyloom.report.figures.style import SUPERSCRIPTS

__all__ = ["plain_number", "plain_ticks", "round_ticks", "unit_text"]


def unit_text(unit: u.UnitBase) -> str:
    """Write a unit with raised exponents, as on an axis: powers of ten for its scale."""
    scale, bases = unit.scale, []
    power = round(float(np.log10(scale)), 6)
    if power != 0:
        whole = power == int(power)
        bases.append("10" + f"{int(power)}".translate(SUPERSCRIPTS) if whole else f"{scale:g}")
    for base, exponent in sorted(zip(unit.bases, unit.powers, strict=True), key=lambda item: -float(item[1])):
        raised = "" if exponent == 1 else f"{float(exponent):g}".translate(SUPERSCRIPTS)
        bases.append(f"{'Å' if base == u.AA else base.to_string()}{raised}")
    return " ".join(bases)


def round_ticks(low: float, high: float, linear: float) -> list[float]:
    """Zero and powers of ten beyond the linear part of an arcsinh axis, on the side of negative numbers too."""
    first = int(np.ceil(np.log10(linear)))
    powers = [10.0**power for power in range(first, int(np.floor(np.log10(max(high, linear)))) + 1)]
    return [*(-power for power in reversed(powers) if -power >= low), 0.0, *powers]


def plain_ticks(axis: Axis) -> None:
    """Write the numbers of a logarithmic axis without mathematical markup, which figures do not parse."""
    axis.set_major_formatter(FuncFormatter(plain_number))
    axis.set_minor_formatter(NullFormatter())


def plain_number(value: float, _: object = None) -> str:
    """Write 0.01 to 9999 in full, and other powers of ten raised."""
    if value == 0 or 0.01 <= abs(value) < 1e4:
        return f"{value:g}".replace("-", "−")
    power = round(np.log10(abs(value)))
    return ("−" if value < 0 else "") + "10" + str(power).translate(SUPERSCRIPTS)
