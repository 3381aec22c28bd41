"""The extinction curve of the Milky Way."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import InputError

__all__ = ["CURVES", "extinction_curve"]

CURVES = {"fitzpatrick99": "F99", "ccm89": "CCM89", "odonnell94": "O94"}
WAVE_RANGE = (1000.0, 33333.0)  # A, in vacuum, where all three curves are defined
R_V_RANGE = (2.0, 6.0)


def extinction_curve(
    wave_vacuum: ArrayLike, curve: str = "fitzpatrick99", r_v: float = 3.1
) -> NDArray[np.float64]:
    """Return A(wavelength) / A_V of the mean extinction of the Milky Way.

    Parameters
    ----------
    wave_vacuum : (...) array
        Wavelengths in vacuum, A, from 1000 to 33,333.
    curve : {"fitzpatrick99", "ccm89", "odonnell94"}
    r_v : float
        A_V / E(B-V), from 2 to 6.

    Returns
    -------
    (...) float64 array

    Raises
    ------
    InputError
        When the curve is unknown, or a wavelength or R_V is outside its range.

    Notes
    -----
    Fitzpatrick (1999, 10.1086/316293), Cardelli, Clayton & Mathis (1989, 10.1086/167900), O'Donnell (1994,
    10.1086/173713); evaluated by the package ``dust_extinction`` (10.21105/joss.07023).
    """
    if curve not in CURVES:
        raise InputError(f"curve is {curve!r}; expected one of {', '.join(CURVES)}", field="curve")
    if not R_V_RANGE[0] <= r_v <= R_V_RANGE[1]:
        raise InputError(
            f"r_v is {r_v}; the curves are defined from {R_V_RANGE[0]:g} to {R_V_RANGE[1]:g}", field="r_v"
        )
    wave = np.asarray(wave_vacuum, dtype=np.float64)
    low, high = (float(np.min(wave)), float(np.max(wave))) if wave.size else WAVE_RANGE
    # Written so that a wavelength that is not a number is outside, too.
    if not (low >= WAVE_RANGE[0] and high <= WAVE_RANGE[1]):
        raise InputError(
            f"wavelengths run from {low:.1f} to {high:.1f} A; the extinction curves are defined from "
            f"{WAVE_RANGE[0]:.0f} to {WAVE_RANGE[1]:.0f} A",
            field="wave",
        )
    # Imported here: astropy.modeling comes with it, and most of what reads a cube never reddens one.
    from dust_extinction import parameter_averages

    model = getattr(parameter_averages, CURVES[curve])(Rv=r_v)
    return np.asarray(model(1e4 / wave.ravel() / u.micron), dtype=np.float64).reshape(wave.shape)
