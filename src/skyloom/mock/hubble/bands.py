"""Bands of imaginary cameras: throughput, zero point, PSF, sky and noise, near those of real ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.psf import PSF, MoffatPSF
from skyloom.errors import InputError
from skyloom.mock.hubble.noise import drizzle_kernel, kernel_correlation

__all__ = ["UDF_BANDS", "Band", "udf_band"]

Float = NDArray[np.float64]
# Fine samples per pixel at which the drizzled noise of the bands is made.
STEP = 4


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A filter on a camera.

    Parameters
    ----------
    name : str
        E.g. ``f606w``.
    bandpass : Bandpass
    photflam : float
        Flux density in erg s-1 cm-2 A-1 of one electron per second.
    psf : PSF
        Before the pixels integrate.
    noise : float
        Standard deviation of the background's noise in e/s per pixel of 0.06 arcsec.
    detector_scale : float
        Side of a detector pixel, arcsec.
    pixfrac : float
        Of the drops in drizzling.
    exposure : float
        Total exposure time, s.
    sky : float
        Left-over sky level, e/s per pixel of 0.06 arcsec.
    weight_scale : float
        Variance that a weight map claims, in units of the true one.
    """

    name: str
    bandpass: Bandpass
    photflam: float
    psf: PSF
    noise: float
    detector_scale: float
    pixfrac: float = 0.8
    exposure: float = 2.5e5
    sky: float = 0.0
    weight_scale: float = 1.0

    def kernel(self, scale: float) -> Float:
        """Return the drizzle kernel of the noise on pixels of ``scale`` arcsec, `STEP` times finer than they are."""
        return drizzle_kernel(self.detector_scale / scale, self.pixfrac, step=STEP)

    def correlation(self, scale: float) -> Float:
        """Return the noise autocorrelation on pixels of ``scale`` arcsec."""
        return kernel_correlation(self.kernel(scale), STEP)

    def variance(self, scale: float) -> float:
        """Return the variance per pixel of ``scale`` arcsec, (e/s)^2.

        The noise of a large area does not depend on the pixels, so the variance of a pixel times the sum of the
        correlation goes with its area.
        """
        reference = 0.06
        relative = self.correlation(reference).sum() / self.correlation(scale).sum()
        return float(self.noise**2 * (scale / reference) ** 2 * relative)


# name, pivot/A, width/A, AB magnitude of 1 e/s, FWHM/arcsec, noise/(1e-3 e/s), sky/(1e-3 e/s), claimed / true
# variance, exposure/ks. Zero points and exposures of the Hubble eXtreme Deep Field (Illingworth et al. 2013,
# 10.1088/0067-0049/209/1/6); PSFs, noise and sky as measured on stamps of it.
_UDF = (
    ("f435w", 4328.0, 900.0, 25.68, 0.098, 0.74, 0.03, 0.70, 152.0),
    ("f606w", 5922.0, 2200.0, 26.51, 0.100, 1.03, 0.40, 0.82, 174.0),
    ("f775w", 7693.0, 1450.0, 25.69, 0.100, 0.61, 0.25, 0.73, 378.0),
    ("f814w", 8045.0, 1850.0, 25.94, 0.102, 1.87, 0.90, 0.87, 50.8),
    ("f850lp", 9032.0, 1270.0, 24.87, 0.106, 0.47, 0.15, 0.80, 421.0),
    ("f105w", 10552.0, 2650.0, 26.27, 0.180, 0.57, 0.10, 2.9, 267.0),
    ("f125w", 12486.0, 2850.0, 26.23, 0.186, 0.73, 0.15, 3.3, 113.0),
    ("f140w", 13923.0, 3550.0, 26.45, 0.190, 0.90, 0.20, 3.2, 87.0),
    ("f160w", 15369.0, 2700.0, 25.94, 0.195, 0.48, 0.14, 3.4, 236.0),
)


def udf_band(name: str) -> Band:
    """Return a band of the mock Hubble Ultra Deep Field, by names like ``f606w``."""
    for band in UDF_BANDS:
        if band.name == name:
            return band
    known = ", ".join(band.name for band in UDF_BANDS)
    raise InputError(f"{name!r} is no band of the mock field", field="band", remedy=f"use {known}")


def _udf_bands() -> tuple[Band, ...]:
    bands = []
    for name, pivot, width, zero_point, fwhm, noise, sky, claimed, exposure in _UDF:
        infrared = pivot > 10000.0
        bandpass = Bandpass.tophat(pivot, width, edge=0.06 * width, peak=0.4, name=name)
        bands.append(
            Band(
                name,
                bandpass,
                bandpass.photflam(zero_point),
                MoffatPSF(fwhm, 3.2 if infrared else 2.8),
                1e-3 * noise,
                0.128 if infrared else 0.05,
                0.8,
                1e3 * exposure,
                1e-3 * sky,
                claimed,
            )
        )
    return tuple(bands)


UDF_BANDS: tuple[Band, ...] = _udf_bands()
