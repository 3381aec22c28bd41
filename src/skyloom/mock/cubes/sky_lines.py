"""Emission of the night sky: what brightens the noise of a spectrograph and is left over by its subtraction."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.core.linelist import convert_medium
from skyloom.mock.scenes.spectral_axis import SpectralAxis

__all__ = ["SKY_LINES", "sky_continuum", "sky_line_spectrum"]

Float = NDArray[np.float64]

# Air wavelength in A, brightness in Rayleigh, rounded: the lines of mercury lamps, [O I], Na and the strongest ones
# of the OH bands (wavelengths after Osterbrock et al. 1996, 10.1086/133722; brightness typical of dark sites).
SKY_LINES = (
    (4358.34, 15.0), (5460.75, 20.0), (5577.34, 250.0), (5889.95, 40.0), (5895.92, 20.0), (6300.30, 150.0),
    (6363.78, 50.0), (6498.73, 15.0), (6533.04, 15.0), (6553.62, 10.0), (6863.96, 40.0), (6923.22, 40.0),
    (7276.41, 60.0), (7316.28, 80.0), (7340.89, 70.0), (7750.64, 70.0), (7794.11, 90.0), (7821.50, 80.0),
    (7913.71, 100.0), (7964.65, 110.0), (7993.33, 110.0), (8025.67, 60.0), (8344.60, 120.0), (8399.17, 140.0),
    (8430.17, 130.0), (8465.36, 80.0), (8493.39, 60.0), (8778.33, 150.0), (8827.10, 160.0), (8885.85, 170.0),
    (8919.64, 130.0), (8943.40, 90.0), (8988.37, 80.0), (9375.96, 150.0), (9439.65, 160.0), (9502.82, 130.0),
    (9719.84, 120.0), (9791.27, 140.0), (9872.14, 150.0), (9914.71, 110.0), (10013.99, 120.0), (10124.10, 120.0),
)  # fmt: skip

# One Rayleigh is 1e6 / 4 pi photons s-1 cm-2 sr-1; an arcsec2 is 2.3504e-11 sr; a photon has h c / wave.
RAYLEIGH = 1e6 / (4 * np.pi) * 2.35044e-11 * 1.98645e-8  # erg A s-1 cm-2 arcsec-2


def sky_continuum(wave: ArrayLike) -> Float:
    """Return a dark sky's continuum at wavelengths in A: about 21.5 mag arcsec-2, in erg s-1 cm-2 A-1 arcsec-2."""
    axis = np.asarray(wave, dtype=np.float64)
    return np.asarray(1.2e-17 * (axis / 5500.0) ** -0.5 * (1 + 0.15 * np.tanh((axis - 7000.0) / 800.0)))


def sky_line_spectrum(axis: SpectralAxis, strength: ArrayLike = 1.0, *, shift: float = 0.0) -> Float:
    """Return the lines of the night sky, averaged over channels.

    Parameters
    ----------
    axis : SpectralAxis
    strength : float or (n_lines,) array
        Factor of each line of `SKY_LINES`.
    shift : float
        Added to the wavelengths of all lines, A.

    Returns
    -------
    (n_wave,) float64 array, erg s-1 cm-2 A-1 arcsec-2, per A of the medium of the axis
    """
    air, rayleigh = np.array(SKY_LINES).T
    vacuum = convert_medium(air, "air", "vacuum")
    flux = RAYLEIGH * rayleigh / vacuum * np.broadcast_to(np.asarray(strength, np.float64), air.shape)
    total = np.zeros((1, axis.size))
    for wave, light in zip(vacuum, flux, strict=True):
        axis.add_lines(total, np.array([light]), np.array([wave + shift]), np.zeros(1))
    return np.asarray(total[0])
