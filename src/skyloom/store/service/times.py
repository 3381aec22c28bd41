"""What discovery and cut-outs share: times of requests, and words for polarisation."""

from __future__ import annotations

import erfa
import numpy as np

from skyloom.store.service.parameters import Interval

__all__ = ["POLARISATIONS", "as_tai"]

POLARISATIONS = ("I", "Q", "U", "V", "RR", "LL", "RL", "LR", "XX", "YY", "XY", "YX", "POLI", "POLA")
MJD_ZERO = 2400000.5
DAYS = 1e6
"""MJD beyond which there is no calendar; such limits are as good as none."""
LAST_DIGIT = 2e-11
"""Days: two units in the last place of an MJD, which the way from UTC to TAI and back may cost."""


def as_tai(limits: Interval) -> Interval:
    """Return an interval of MJD in UTC as one in TAI, wide enough for the rounding of times that were copied."""
    return Interval(_tai(limits.low) - LAST_DIGIT, _tai(limits.high) + LAST_DIGIT)


def _tai(limit: float) -> float:
    if abs(limit) > DAYS:
        return float(np.copysign(np.inf, limit))
    # Without the warning of years far from now: any limit of a query is all right.
    first, second, _ = erfa.ufunc.utctai(MJD_ZERO, limit)
    return float((first - MJD_ZERO) + second)
