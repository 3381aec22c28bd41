"""Where strong stellar absorption lines are in a spectrum: tells vacuum from air wavelengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyloom.core.linelist import vacuum_to_air
from skyloom.core.templates import TemplateLibrary

# Vacuum, A (NIST): single lines, and doublets that all sets here resolve.
LINES = {
    "Mgb2": 5174.125,
    "Mgb3": 5185.048,
    "NaD2": 5891.583,
    "NaD1": 5897.558,
    "CaT1": 8500.35,
    "CaT2": 8544.44,
    "CaT3": 8664.52,
}
REACH = 3.0  # A


def line_offsets(library: TemplateLibrary, row: int) -> dict[str, tuple[float, float]]:
    """Distances (A) of the deepest point near each line from where vacuum and air wavelengths would have it."""
    return {
        name: (
            _deepest(library.wave, library.flux[row], rest) - rest,
            _deepest(library.wave, library.flux[row], float(vacuum_to_air(rest)))
            - float(vacuum_to_air(rest)),
        )
        for name, rest in LINES.items()
    }


def _deepest(wave: NDArray[np.float64], flux: NDArray[np.float64], near: float) -> float:
    """The minimum within REACH by a parabola through the three lowest channels."""
    inside = np.flatnonzero(np.abs(wave - near) < REACH)
    lowest = inside[np.argmin(flux[inside])]
    left, middle, right = flux[lowest - 1 : lowest + 2]
    shift = 0.5 * (left - right) / (left - 2 * middle + right)
    return float(wave[lowest] + shift * (wave[lowest + 1] - wave[lowest]))
