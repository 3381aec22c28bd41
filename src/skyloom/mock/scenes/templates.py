"""Stellar populations in closed form, at any wavelength and any velocity dispersion.

A population is a sum of Gaussian humps in the logarithm of wavelength, dimmed bluewards of the Balmer limit and of
4000 A by smoothed steps, minus Gaussian absorption lines. All of these stay closed forms when they are convolved
with a Gaussian in ln(wavelength), so the broadening of stars' velocities and of a spectrograph is exact. Humps and
strengths imitate simple stellar populations from 10 Myr to 12 Gyr; they are no stellar physics.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from skyloom.core.linelist import Medium, convert_medium
from skyloom.core.templates import FWHM_PER_SIGMA, TemplateLibrary
from skyloom.errors import InputError

__all__ = ["REFERENCE_WAVE", "SPEED_OF_LIGHT", "Populations", "populations"]

Float = NDArray[np.float64]
SPEED_OF_LIGHT = 299792.458  # km/s
REFERENCE_WAVE = 5500.0  # A, in vacuum: where every population has flux density 1

HUMPS = np.array([1100.0, 1700.0, 2600.0, 4000.0, 6200.0, 9600.0, 15000.0, 23000.0])
HUMP_WIDTH = 0.30
BREAKS = np.array([3700.0, 4000.0])
BREAK_WIDTH = 0.012

# age/Gyr, [M/H], strengths of the humps, depths of the breaks at 3700 A and 4000 A
_CONTINUA = (
    (0.01, 0.0, (40.0, 6.0, 4.5, 0.50, 0.55, 0.25, 0.15, 0.02), (0.10, 0.05)),
    (0.1, 0.0, (0.5, 5.0, 1.0, 1.20, 0.32, 0.19, 0.07, 0.01), (0.30, 0.08)),
    (0.5, 0.0, (0.0, 0.3, 0.45, 1.00, 0.45, 0.23, 0.11, 0.02), (0.35, 0.15)),
    (1.4, 0.0, (0.0, 0.02, 0.06, 0.62, 0.65, 0.28, 0.18, 0.02), (0.20, 0.20)),
    (5.0, 0.0, (0.0, 0.01, 0.03, 0.24, 0.90, 0.29, 0.30, 0.02), (0.05, 0.28)),
    (12.0, 0.0, (0.05, 0.01, 0.01, 0.15, 0.93, 0.37, 0.38, 0.02), (0.00, 0.33)),
    (5.0, -0.7, (0.02, 0.01, 0.04, 0.50, 0.72, 0.28, 0.19, 0.01), (0.12, 0.15)),
    (12.0, -0.7, (0.05, 0.01, 0.02, 0.28, 0.88, 0.28, 0.24, 0.01), (0.05, 0.20)),
)

# feature: (vacuum wavelength/A, share of the strength) per line, standard deviation in ln l, strength in A of
# equivalent width for each population of _CONTINUA
_BALMER = (
    (6564.63, 0.50),
    (4862.69, 0.80),
    (4341.69, 0.90),
    (4102.90, 1.0),
    (3971.20, 0.85),
    (3890.17, 0.75),
)
_FEATURES = (
    (_BALMER, 1.8e-3, (1.5, 4.5, 7.0, 3.5, 0.6, 0.2, 1.0, 0.4)),
    (_BALMER, 7.0e-4, (1.5, 1.5, 2.0, 2.5, 1.6, 1.0, 2.0, 1.4)),
    (((3934.78, 1.0), (3969.59, 0.8)), 1.2e-3, (0.3, 0.6, 1.0, 3.0, 6.5, 8.0, 4.0, 5.5)),
    (((4305.6, 1.0),), 2.2e-3, (0.0, 0.3, 0.8, 2.5, 5.0, 6.0, 2.5, 3.5)),
    (((4228.0, 0.25), (4384.8, 0.8), (4532.0, 0.6)), 6.0e-4, (0.1, 0.2, 0.6, 2.0, 3.5, 4.5, 1.5, 2.2)),
    (((5168.76, 0.25), (5174.13, 0.35), (5185.05, 0.40)), 3.5e-4, (0.3, 0.5, 0.8, 1.6, 3.0, 4.0, 1.2, 2.0)),
    (((5271.0, 1.0), (5329.5, 0.8), (5407.0, 0.5)), 5.0e-4, (0.2, 0.4, 0.7, 1.6, 2.5, 3.0, 1.2, 1.6)),
    (((5891.58, 0.55), (5897.56, 0.45)), 2.5e-4, (0.4, 0.6, 1.0, 2.0, 3.2, 4.4, 1.0, 1.6)),
    (((6190.0, 0.3), (7130.0, 1.0)), 8.0e-3, (0.0, 0.0, 0.0, 3.0, 10.0, 16.0, 1.0, 3.0)),
    (((8500.36, 0.2), (8544.44, 0.45), (8664.52, 0.35)), 3.0e-4, (1.0, 2.0, 3.0, 6.0, 8.0, 8.5, 5.0, 6.0)),
)


@dataclass(frozen=True, slots=True, eq=False)
class Populations:
    """Analytic spectra, linear in a common set of closed-form functions.

    Parameters
    ----------
    age, metallicity : (n,) arrays
        Gyr and [M/H].
    continuum : (n, n_humps, 1 + n_breaks) array
        Coefficients of the humps, and of each hump bluewards of each break.
    line_wave, line_width : (n_lines,) arrays
        Vacuum wavelength in A, standard deviation in ln(wavelength), of absorption lines.
    line_depth : (n, n_lines) array
        Central depth, in units of the flux density at `REFERENCE_WAVE`.
    """

    age: Float
    metallicity: Float
    continuum: Float
    line_wave: Float
    line_width: Float
    line_depth: Float

    def __len__(self) -> int:
        return int(self.age.size)

    def evaluate(self, wave: ArrayLike, dispersion: ArrayLike = 0.0) -> Float:
        """Return the flux densities at rest wavelengths.

        Parameters
        ----------
        wave : (n_wave,) array
            Vacuum wavelengths in A.
        dispersion : float or (n_wave,) array
            Standard deviation in km/s of the Gaussian in ln(wavelength) that broadens the spectra; where it changes
            with wavelength, as a line-spread function does, each point is broadened by its own.

        Returns
        -------
        (n, n_wave) float64 array, in units of the unbroadened flux density at `REFERENCE_WAVE`
        """
        logarithm = np.log(np.atleast_1d(np.asarray(wave, dtype=np.float64)))
        spread = np.broadcast_to(np.asarray(dispersion, dtype=np.float64) / SPEED_OF_LIGHT, logarithm.shape)
        basis = _continuum_basis(logarithm, spread)
        flux = self.continuum.reshape(len(self), -1) @ basis.reshape(-1, logarithm.size)
        for wave0, width, depth in zip(self.line_wave, self.line_width, self.line_depth.T, strict=True):
            total = np.sqrt(width**2 + spread**2)
            near = np.abs(logarithm - np.log(wave0)) < 9.0 * total
            profile = (
                width / total[near] * np.exp(-0.5 * ((logarithm[near] - np.log(wave0)) / total[near]) ** 2)
            )
            flux[:, near] -= depth[:, np.newaxis] * profile
        return np.asarray(flux)

    def library(self, wave: ArrayLike, medium: Medium = "vacuum", *, fwhm: float = 2.5) -> TemplateLibrary:
        """Return the populations as a template library on an axis (A, in ``medium``), with an LSF of ``fwhm`` A."""
        axis = np.asarray(wave, dtype=np.float64)
        vacuum = convert_medium(axis, medium, "vacuum")
        flux = self.evaluate(vacuum, SPEED_OF_LIGHT * fwhm / FWHM_PER_SIGMA / vacuum)
        note = f"1 = flux density per wavelength at {REFERENCE_WAVE:g} A"
        return TemplateLibrary(
            axis,
            medium,
            flux,
            self.age,
            self.metallicity,
            fwhm,
            "skyloom analytic",
            {"unit": "", "note": note},
        )

    def nearest(self, age: float, metallicity: float = 0.0) -> int:
        """Return the index of the population nearest in log(age) and [M/H]."""
        if age <= 0:
            raise InputError(f"age is {age} Gyr; expected more than 0", field="age")
        return int(np.argmin(np.log10(self.age / age) ** 2 + (self.metallicity - metallicity) ** 2))


def _continuum_basis(logarithm: Float, spread: Float) -> Float:
    """Humps, and humps bluewards of the breaks, after a Gaussian convolution: (n_humps, 1 + n_breaks, n_wave).

    A Gaussian times a Gaussian step stays one under convolution: the product of hump and smoothing kernel is
    again a Gaussian, over which the step averages to a step.
    """
    centre = np.log(HUMPS)[:, np.newaxis]
    total = HUMP_WIDTH**2 + spread**2
    hump = HUMP_WIDTH / np.sqrt(total) * np.exp(-0.5 * (logarithm - centre) ** 2 / total)
    mean = (centre * spread**2 + logarithm * HUMP_WIDTH**2) / total
    width = np.sqrt(BREAK_WIDTH**2 + (HUMP_WIDTH * spread) ** 2 / total)
    blue = [hump * ndtr((np.log(edge) - mean) / width) for edge in BREAKS]
    return np.stack([hump, *blue], axis=1)


@cache
def populations() -> Populations:
    """Return the eight populations of the mock: 10 Myr to 12 Gyr, the two oldest ages also metal-poor."""
    ages, metallicities, humps, depths = zip(*_CONTINUA, strict=True)
    strengths = np.array(humps)
    # A break dims what lies bluewards of it: hump x (1 - d1 blue1 - d2 blue2).
    factors = np.concatenate([np.ones((len(ages), 1)), -np.array(depths)], axis=1)
    continuum = strengths[:, :, np.newaxis] * factors[:, np.newaxis, :]
    wave = np.array([line for lines, _, _ in _FEATURES for line, _ in lines])
    width = np.array([spread for lines, spread, _ in _FEATURES for _ in lines])
    equivalent = np.array([share * np.array(ew) for lines, _, ew in _FEATURES for _, share in lines]).T
    bare = Populations(
        np.array(ages), np.array(metallicities), continuum, wave, width, np.zeros_like(equivalent)
    )
    level = bare.evaluate(wave)
    depth = equivalent * level / (np.sqrt(2 * np.pi) * width * wave)
    raw = Populations(bare.age, bare.metallicity, continuum, wave, width, depth)
    norm = raw.evaluate([REFERENCE_WAVE])
    return Populations(
        raw.age, raw.metallicity, continuum / norm[:, :, np.newaxis], wave, width, depth / norm
    )
