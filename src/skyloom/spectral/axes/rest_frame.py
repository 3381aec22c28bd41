"""From the observed frame to the rest frame of a galaxy."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.core.cube import Cube
from skyloom.core.provenance import step
from skyloom.core.psf import PSF, ChromaticPSF
from skyloom.core.spectra import Spectra
from skyloom.errors import AssumptionWarning, InputError, UnitError
from skyloom.spectral.axes.scaling import scale_subject

__all__ = ["applied_redshift", "rest_frame_changes", "to_rest_frame"]

Subject = TypeVar("Subject", Cube, Spectra)
Float = NDArray[np.float64]
PER_FREQUENCY = u.Unit("erg / (s cm2 Hz)")


def to_rest_frame(subject: Subject, redshift: float) -> Subject:
    """Bring a cube or spectra to the rest frame: wavelengths shrink, densities grow, line fluxes stay.

    Parameters
    ----------
    subject : Cube or Spectra
        Its values are densities per unit of wavelength.
    redshift : float
        z, larger than -1: one number for the whole object.

    Returns
    -------
    Cube or Spectra
        Same pixels and medium. Wavelengths, LSF and the wavelengths of a chromatic PSF are divided by (1 + z), data
        (n_wave, ...) multiplied by (1 + z), variance by (1 + z)^2; mask, flags and correlations are the same.
        ``meta["redshift_applied"]`` holds z; applied twice, (1 + z1)(1 + z2) - 1, with a warning.

    Raises
    ------
    InputError
        When the redshift is not a single finite number larger than -1.
    UnitError
        When the unit is a density per unit of frequency.

    Notes
    -----
    ``F = sum f_i dl_i`` is unchanged because ``f (1 + z) * dl / (1 + z) = f dl``. Air wavelengths are divided like
    those in vacuum. They then differ from air wavelengths measured in the rest frame by ``n(l) / n(l (1 + z))``:
    0.2 km/s at z = 0.1, 2 km/s at z = 1.
    """
    factor, changes = rest_frame_changes(subject, redshift)
    record = step(
        "to_rest_frame", redshift=float(redshift), redshift_applied=changes["meta"]["redshift_applied"]
    )
    return scale_subject(subject, np.full(subject.wave.size, factor), record, **changes)


def applied_redshift(subject: Cube | Spectra) -> float:
    """Return the redshift that was taken out of the wavelengths so far; 0 in the observed frame."""
    return float(subject.meta.get("redshift_applied") or 0.0)


def rest_frame_changes(subject: Cube | Spectra, redshift: float) -> tuple[float, dict[str, Any]]:
    """Return the factor on the data, 1 + z, and the other fields that a redshift changes."""
    stretch = 1.0 + check_redshift(redshift)
    if subject.unit.is_equivalent(PER_FREQUENCY) or subject.unit.is_equivalent(PER_FREQUENCY / u.sr):
        raise UnitError(
            f"the values are densities per frequency ({subject.unit}); those per wavelength are needed",
            field="unit",
            remedy="convert them, f_lambda = f_nu c / lambda^2, before the rest frame",
        )
    before = applied_redshift(subject)
    if before != 0.0:
        warnings.warn(
            f"these wavelengths are already those of the rest frame of redshift {before:.6g}; "
            f"{float(redshift):.6g} is applied on top of it",
            AssumptionWarning,
            stacklevel=3,
        )
    # A first redshift is recorded as it was given, without the rounding of 1 + z.
    total = float(redshift) if before == 0.0 else (1.0 + before) * stretch - 1.0
    changes: dict[str, Any] = {
        "wave": subject.wave / stretch,
        "lsf": None if subject.lsf is None else subject.lsf / stretch,
        "meta": {**subject.meta, "redshift_applied": total},
    }
    if isinstance(subject, Cube):
        changes["psf"] = _rest_psf(subject.psf, stretch)
        if subject.wcs is not None and subject.wcs.naxis > 2:
            # The spectral axis of the file's WCS would contradict ``wave`` from here on.
            changes["wcs"] = subject.wcs.celestial
    return stretch, changes


def check_redshift(redshift: object) -> float:
    """Return a redshift as a float after checking that it is one."""
    if isinstance(redshift, str) or np.ndim(redshift) != 0:  # type: ignore[arg-type]  # whatever it is
        raise InputError(f"redshift is {redshift!r}; expected one number", field="redshift")
    try:
        value = float(redshift)  # type: ignore[arg-type]  # a number, or told that it is none
    except (TypeError, ValueError) as error:
        raise InputError(f"redshift is {redshift!r}; expected one number", field="redshift") from error
    if not np.isfinite(value) or value <= -1.0:
        raise InputError(
            f"redshift is {value}; expected a finite number larger than -1",
            field="redshift",
            remedy="give z, not a velocity in km/s",
        )
    return value


def _rest_psf(psf: PSF | None, stretch: float) -> PSF | None:
    if isinstance(psf, ChromaticPSF):
        return ChromaticPSF(psf.wave / stretch, psf.psfs)
    return psf
