"""Extinction by the Milky Way in the mock: independent of the code that corrects for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

__all__ = ["milky_way_factor"]

# Fitzpatrick 1999 (10.1086/316293), Table 3: inverse wavelength in 1/um, A(wave) / E(B-V) for R_V = 3.1.
INVERSE_WAVE = (0.0, 0.377, 0.820, 1.667, 1.828, 2.141, 2.433, 3.704, 3.846)
EXTINCTION = (0.0, 0.265, 0.829, 2.688, 3.055, 3.806, 4.315, 6.265, 6.591)
R_V = 3.1


def milky_way_factor(wave: ArrayLike, a_v: float) -> NDArray[np.float64]:
    """Return the factor by which ``a_v`` magnitudes of extinction dim light at vacuum wavelengths in A.

    Notes
    -----
    The cubic spline of Fitzpatrick (1999, 10.1086/316293) through the points of his Table 3, for R_V = 3.1, valid
    from 2600 A redwards. The points are typed in here although the spectral layer has this curve, so that a mock
    can tell when the curve there is wrong.
    """
    curve = CubicSpline(INVERSE_WAVE, EXTINCTION, bc_type="natural")
    return np.asarray(10 ** (-0.4 * a_v / R_V * curve(1e4 / np.asarray(wave, dtype=np.float64))))
