"""What every measurement of a line needs to know first: where the line is, how wide, and which windows follow."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.linelist import LineList
from skyloom.errors import AssumptionWarning, InputError
from skyloom.spectral.axes.widths import LIGHT, Width
from skyloom.spectral.signal.functional import lsf_sigma, spaxel_values
from skyloom.spectral.signal.windows import (
    DISPERSION,
    FREE_ALLOWANCE,
    MAP_ALLOWANCE,
    Continuum,
    Lines,
    LineWindows,
    measured_lines,
    plan_windows,
)

__all__ = ["LineSetup", "set_up_line", "typical"]

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LineSetup:
    """Windows, channels, and for all spaxels together or for each: observed over rest wavelength and line widths."""

    windows: LineWindows
    channels: slice
    stretch: Float
    sigma: Float


def typical(values: Float, field: str) -> float:
    """Return the median of what is finite."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise InputError(
            "the map has no finite value", field=field, remedy="check its mask, or give one number"
        )
    return float(np.median(finite))


def set_up_line(
    cube: Cube,
    line: Lines,
    redshift: Any,
    method: str,
    *,
    half_width: Width | None,
    continuum: Continuum,
    velocity: Any,
    sigma: Any,
    lines: LineList | None,
    allowance: float | None = None,
    quiet: bool = False,
) -> LineSetup:
    """Return where and how a line is measured; see `skyloom.spectral.signal.snr.line_snr` for the parameters.

    ``allowance`` is the velocity (km/s) that windows make room for; ``quiet`` leaves out the warning about the LSF.
    """
    shape = cube.shape[1:]
    stretch = 1.0 + spaxel_values(redshift, shape, "redshift")
    if velocity is not None:
        stretch = stretch * (1.0 + spaxel_values(velocity, shape, "velocity", "km / s") / LIGHT)
    middle = typical(stretch, "redshift")
    if not middle > 0:
        raise InputError(f"the redshift is {middle - 1.0:.5g}; expected more than -1", field="redshift")
    dispersion = spaxel_values(DISPERSION if sigma is None else sigma, shape, "sigma", "km / s")
    if stretch.size > 1 and dispersion.size > 1:
        stretch = np.where(dispersion >= 0, stretch, np.nan)
    elif dispersion.size > 1:
        stretch = np.where(dispersion >= 0, stretch[0], np.nan)
    _, centres = measured_lines(line, cube.medium, lines)  # type: ignore[arg-type]
    at = centres.mean() * middle
    instrument, known = lsf_sigma(cube, np.array([[at]]))
    if not known and not quiet and (half_width is None or method == "matched"):
        warnings.warn(
            f"the cube has no line-spread function; its standard deviation is taken as one channel, "
            f"{instrument[0, 0]:.2f} A",
            AssumptionWarning,
            stacklevel=3,
        )
    if allowance is None:
        allowance = FREE_ALLOWANCE if stretch.size == 1 else MAP_ALLOWANCE
    width = np.hypot(np.median(instrument), at * typical(dispersion, "sigma") / LIGHT)
    windows = plan_windows(
        cube.wave,
        cube.medium,  # type: ignore[arg-type]
        line,
        middle,
        line_sigma=float(width),
        half_width=half_width,
        continuum=continuum,
        allowance=allowance,
        lines=lines,
    )
    finite = stretch[np.isfinite(stretch)]
    channels = windows.channels(cube.wave, float(finite.min()), float(finite.max()))
    observed = np.where(np.isfinite(stretch), stretch, middle)[:, np.newaxis] * windows.centres
    instrument, _ = lsf_sigma(cube, observed)
    if method == "window":
        # Only the share of a line that is in sight depends on its width here: one value serves all.
        instrument = np.median(instrument, axis=0, keepdims=True)
        observed, dispersion = np.median(observed, axis=0, keepdims=True), dispersion[:1]
    else:
        dispersion = np.where(np.isfinite(dispersion), dispersion, 0.0)
    spreads = np.hypot(instrument, observed * dispersion[:, np.newaxis] / LIGHT)
    return LineSetup(windows, channels, stretch, spreads)
