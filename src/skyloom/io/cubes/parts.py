"""Parts of a cube: what a range of channels and rows makes of its axes."""

from __future__ import annotations

from astropy.wcs import WCS

from skyloom.core.cube import CubeCorrelation
from skyloom.errors import InputError

__all__ = ["axis_range", "correlation_of_channels", "wcs_of_rows"]


def axis_range(part: slice, size: int, name: str) -> tuple[int, int]:
    """Return first and last (excluded) index of a range of an axis.

    Raises
    ------
    InputError
        When it is empty or has a step.
    """
    start, stop, stride = part.indices(size)
    if stride != 1 or stop <= start:
        raise InputError(
            f"{name} is {part}; expected a range without step within 0 to {size}",
            field=name,
            remedy="ask for a range that lies on the cube",
        )
    return start, stop


def wcs_of_rows(wcs: WCS | None, rows: int) -> WCS | None:
    """Return the WCS of an array that begins ``rows`` rows higher."""
    if wcs is None or rows == 0:
        return wcs
    return wcs.slice((slice(rows, None), slice(None)))


def correlation_of_channels(correlation: CubeCorrelation | None, channels: slice) -> CubeCorrelation | None:
    """Return the correlation of a range of channels; a band of lags has a row for each."""
    if correlation is None or correlation.spectral is None or correlation.spectral.ndim != 2:
        return correlation
    return CubeCorrelation(correlation.spatial, correlation.spectral[channels])
