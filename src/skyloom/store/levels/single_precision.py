"""Values and variances as float32, in a unit in which they fit."""

from __future__ import annotations

from typing import Any, TypeVar

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.image import Image, Mode
from skyloom.core.provenance import step
from skyloom.core.spectra import Spectra

__all__ = ["in_single_precision"]

Subject = TypeVar("Subject", Image, Cube, Spectra)
SMALLEST_VARIANCE = 1e-30
LARGEST_VARIANCE = 1e30
"""Float32 reaches from 1e-38 to 3e38; a factor of 1e8 is left for sums, and for means over blocks."""


def in_single_precision(subject: Subject) -> Subject:
    """Return an image, a cube or spectra with float32 planes; the same object when it has them and they fit.

    Calibrated fluxes of 1e-20 have variances of 1e-40, which float32 cannot tell from zero. Where a variance is out of
    range, a power of ten is moved from the values into the unit, and the history says so.
    """
    exponent = _exponent(subject)
    if exponent == 0:
        if subject.data.dtype == np.float32 and subject.variance.dtype == np.float32:
            return subject
        return _scaled(subject, 1.0)
    scaled = _scaled(subject, 10.0**-exponent)
    unit = u.Unit(10.0**exponent * subject.unit)
    return scaled.evolve_checked(step("rescale", unit=str(unit), factor=10.0**-exponent), unit=unit)


def _exponent(subject: Image | Cube | Spectra) -> int:
    """Return the power of ten to move into the unit; 0 when the variances fit."""
    valid = ~subject.mask
    if not valid.any():
        return 0
    low = float(np.min(subject.variance, where=valid, initial=np.inf))
    high = float(np.max(subject.variance, where=valid, initial=0.0))
    if low >= SMALLEST_VARIANCE and high <= LARGEST_VARIANCE:
        return 0
    # Half-way between the extremes, in the logarithm.
    return int(np.floor(0.25 * (np.log10(low) + np.log10(high))))


def _scaled(subject: Subject, factor: float) -> Subject:
    valid = ~subject.mask

    def plane(values: NDArray[Any], scale: float) -> NDArray[np.float32]:
        # What lies under the mask may be beyond float32.
        usable = np.where(valid, values, np.nan).astype(np.float64)
        return (usable * scale).astype(np.float32)

    return subject.evolve(
        data=plane(subject.data, factor),
        variance=plane(subject.variance, factor**2),
        modes=tuple(_scaled_mode(mode, factor) for mode in subject.modes),
    )


def _scaled_mode(mode: Mode, factor: float) -> Mode:
    if np.ndim(mode.map) == 0:
        return mode._replace(sigma=mode.sigma * factor)
    return Mode(mode.name, np.asarray(mode.map, dtype=np.float32), mode.sigma * factor)
