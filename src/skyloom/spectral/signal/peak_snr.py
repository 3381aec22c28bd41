"""The S/N of a line by its highest channel, as BETIS defines it: kept for comparison, with its warning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skyloom.core.cube import Cube
from skyloom.core.linelist import LineList
from skyloom.core.threads import blocks, run_blocks
from skyloom.errors import AssumptionWarning, InputError
from skyloom.kernels.signal.scatter import measure_peak
from skyloom.spectral.axes.widths import Width, width_in_channels
from skyloom.spectral.signal.functional import BLOCK, cut_channels, spaxel_values
from skyloom.spectral.signal.line_maps import LineSNR, snr_images
from skyloom.spectral.signal.line_setup import typical
from skyloom.spectral.signal.windows import (
    PEAK_CONTINUUM,
    PEAK_HALF,
    Continuum,
    Lines,
    LineWindows,
    measured_lines,
)

__all__ = ["PEAK_WARNING", "peak_snr"]

PEAK_WARNING = (
    "the S/N of a peak is that of the highest of many channels: pure noise has a mean S/N of about 2.3 in it, and a "
    "bin of N spaxels claims about 2.3 sqrt(N); use method='window' or 'matched' for an S/N that noise leaves at 0"
)


def peak_snr(
    cube: Cube,
    line: Lines,
    redshift: Any,
    *,
    half_width: Width | None,
    continuum: Continuum,
    exclude: ArrayLike | None,
    limits: tuple[float, float],
    lines: LineList | None,
    workers: int | None,
) -> LineSNR:
    """Maximum within ``half_width`` of the line minus the mean beside it, over the standard deviation there.

    Signal and noise are in ``cube.unit``. Pure noise has a mean S/N of about 2.3 for windows of 51 channels; an
    `AssumptionWarning` says so at every call. See `skyloom.spectral.signal.snr.line_snr`.

    Notes
    -----
    Gonzalez-Diaz et al. 2024, 10.1051/0004-6361/202348453, equation 1. Noise is the sample standard deviation of the
    continuum channels; the errors of the cube are not used.
    """
    keys, centres = measured_lines(line, cube.medium, lines)  # type: ignore[arg-type]
    if len(keys) > 1:
        raise InputError(
            f"a set of {len(keys)} lines has no single peak", field="line", remedy="name one, or use 'window'"
        )
    stretch = 1.0 + spaxel_values(redshift, cube.shape[1:], "redshift")
    middle = typical(stretch, "redshift")
    at = float(centres[0]) * middle
    half = width_in_channels(PEAK_HALF if half_width is None else half_width, cube.wave, at, "half_width")
    inner, outer = _distances(continuum, cube, at)
    if not half < inner < outer:
        raise InputError(
            f"the maximum is taken within {half} px and the continuum from {inner} to {outer} px",
            field="continuum",
            remedy="the continuum begins beyond the half width and ends farther out",
        )
    position = np.interp(centres[0] * stretch, cube.wave, np.arange(cube.wave.size), -1e9, -1e9)
    centre = np.where(np.isfinite(stretch), np.rint(np.where(np.isfinite(stretch), position, 0)), -1)
    centre = np.maximum(centre, -1).astype(np.int64)
    inside = (centre >= half) & (centre + half < cube.wave.size)
    if not inside.any():
        raise InputError(
            f"{keys[0]} at redshift {middle - 1.0:.5g} falls on {at:.1f} A; its window of {half} px must lie within "
            f"the axis, {cube.wave[0]:.1f} to {cube.wave[-1]:.1f} A",
            field="redshift",
            remedy="check the redshift (0 for a cube in the rest frame) or choose another line",
        )
    first, last = int(centre[inside].min()), int(centre[inside].max())
    channels = slice(max(0, first - outer), min(cube.wave.size, last + outer + 1))
    return _measure(
        cube, keys, middle, (half, inner, outer), centre, channels, exclude, limits, workers, centres
    )


def _distances(continuum: Continuum, cube: Cube, at: float) -> tuple[int, int]:
    if continuum is None:
        continuum = PEAK_CONTINUUM
    if isinstance(continuum, np.ndarray) or len(continuum) != 2 or np.ndim(continuum[0]) != 0:  # type: ignore[arg-type,index]
        raise InputError(
            "the continuum of a peak is given by two distances",
            field="continuum",
            remedy="as in ('35 px', '100 px')",
        )
    inner, outer = (width_in_channels(width, cube.wave, at, "continuum") for width in continuum)  # type: ignore[union-attr,arg-type]
    return inner, outer


def _measure(
    cube: Cube,
    keys: tuple[str, ...],
    middle: float,
    widths: tuple[int, int, int],
    centre: Any,
    channels: slice,
    exclude: ArrayLike | None,
    limits: tuple[float, float],
    workers: int | None,
    centres: Any,
) -> LineSNR:
    warnings.warn(PEAK_WARNING, AssumptionWarning, stacklevel=4)
    half, inner, outer = widths
    cut = cut_channels(cube, channels, scale=None, exclude=exclude)
    m = cut.data.shape[1]
    signal, noise, count = np.empty(m), np.empty(m), np.empty(m)
    here = np.where(centre >= 0, centre - channels.start, -(10**6))

    def run(part: slice) -> None:
        measure_peak(
            cut.data, cut.mask, cut.opened, here, half, inner, outer, np.array(limits), part.start,
            part.stop, signal, noise, count,
        )  # fmt: skip

    run_blocks(run, blocks(m, BLOCK), workers)
    good = count > 0
    if not good.any():
        raise InputError(
            f"{keys[0]} cannot be measured in any spaxel: too few usable channels in its windows",
            field="line",
            remedy="check the mask, narrow the continuum, or lower continuum_coverage",
        )
    at = float(centres[0]) * middle
    pixel = float(np.interp(at, cube.wave[1:], np.diff(cube.wave))) / middle
    reach = np.array([[-outer, -inner], [inner, outer]]) * pixel + centres[0]
    window = np.array([[centres[0] - half * pixel, centres[0] + half * pixel]])
    windows = LineWindows(keys, np.array(centres), np.ones(1), window, reach)
    parameters = {
        "method": "peak",
        "line": list(keys),
        "redshift": middle - 1.0,
        "half_width_px": half,
        "continuum_px": [inner, outer],
        "warning": PEAK_WARNING,
    }
    return snr_images(
        cube, signal, noise, good, cube.unit, parameters, count=count, wavelength=at, windows=windows
    )
