"""Attenuation of starlight by the dust of its own galaxy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import InputError
from skyloom.spectral.axes.extinction import CURVES, extinction_curve

__all__ = ["attenuation_curve"]

CALZETTI = "calzetti00"
CALZETTI_RANGE = (1200.0, 22000.0)  # A
CALZETTI_RV = 4.05


def attenuation_curve(wave_vacuum: ArrayLike, curve: str = CALZETTI) -> NDArray[np.float64]:
    """Return A(wavelength) / A_V.

    Parameters
    ----------
    wave_vacuum : (...) array
        Rest wavelengths in vacuum, A.
    curve : {"calzetti00", "ccm89", "odonnell94", "fitzpatrick99"}
        The last three are those of the Milky Way with R_V = 3.1.

    Returns
    -------
    (...) float64 array

    Raises
    ------
    InputError
        When the curve is unknown, or a wavelength is outside its range.

    Notes
    -----
    Calzetti et al. (2000, 10.1086/308692), equation 4, with R_V = 4.05; the others as in
    `skyloom.spectral.axes.extinction.extinction_curve`.
    """
    if curve != CALZETTI:
        if curve not in CURVES:
            raise InputError(
                f"curve is {curve!r}; expected one of {', '.join((CALZETTI, *CURVES))}", field="attenuation"
            )
        return extinction_curve(wave_vacuum, curve)
    wave = np.asarray(wave_vacuum, dtype=np.float64)
    # Written so that a wavelength that is not a number is outside, too.
    if wave.size and not (wave.min() >= CALZETTI_RANGE[0] and wave.max() <= CALZETTI_RANGE[1]):
        raise InputError(
            f"rest wavelengths run from {wave.min():.1f} to {wave.max():.1f} A; the curve of Calzetti et al. is "
            f"defined from {CALZETTI_RANGE[0]:.0f} to {CALZETTI_RANGE[1]:.0f} A",
            field="attenuation",
            remedy="check the redshift, or choose another curve",
        )
    inverse = 1e4 / wave
    blue = -2.156 + 1.509 * inverse - 0.198 * inverse**2 + 0.011 * inverse**3
    red = -1.857 + 1.040 * inverse
    return np.asarray(2.659 * np.where(wave < 6300.0, blue, red) / CALZETTI_RV + 1.0)
