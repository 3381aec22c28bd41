"""One unit for images, cubes and spectra: factors that make their values flux densities per unit wavelength."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import astropy.units as u

from skyloom.core.cube import Cube
from skyloom.core.image import Image
from skyloom.core.units import is_per_area, parse_unit
from skyloom.errors import InputError
from skyloom.io.sdss.frame import PIVOT, frame_flux_density

__all__ = ["TARGETS", "UNITS", "Described", "band_wavelength", "flux_factor"]

UNITS = ("own", "f_lambda", "surface")
"""Each in its own unit; as flux density in the pixel or fibre; as flux density per arcsec2."""
TARGETS = {
    "f_lambda": parse_unit("1e-17 erg/(s cm2 AA)"),
    "surface": parse_unit("1e-17 erg/(s cm2 AA arcsec2)"),
}


class Described(NamedTuple):
    """What is told of a spectrum."""

    unit: u.UnitBase
    meta: Mapping[str, Any]
    medium: str


_PER_SECOND = (u.electron / u.s, u.ct / u.s, u.adu / u.s)


def band_wavelength(image: Image, shortest: float, longest: float) -> float:
    """Return the effective wavelength of the band of an image in A, in vacuum; NaN where nothing tells it.

    The pivot wavelength, for SDSS that of the reference response of the camera, for Hubble ``PHOTPLAM``: with it, flux
    per wavelength and per frequency turn into each other exactly. Without either: the middle between the ``shortest``
    and ``longest`` wavelength that the store knows.
    """
    if image.meta.get("instrument") == "SDSS" and image.meta.get("band") in PIVOT:
        return PIVOT[str(image.meta["band"])]
    pivot = image.meta.get("photplam")
    return float(pivot) if isinstance(pivot, (int, float)) and pivot > 0 else 0.5 * (shortest + longest)


def flux_factor(
    subject: Image | Cube | Described, units: str, name: str, wavelength: float, area: float
) -> float:
    """Return what values are multiplied with to be in a unit of `TARGETS`; 1 for ``own``.

    Parameters
    ----------
    subject : Image, Cube or Described
        Its unit and meta data count, not its values.
    units : str
        One of `UNITS`.
    name : str
        Of the observation, for messages.
    wavelength : float
        A; of the band of an image.
    area : float
        arcsec2; of a pixel, or of the fibre; NaN where it is not known.

    Raises
    ------
    InputError
        When the unit is no flux density and nothing tells how to make it one, or an area is needed and not known.

    Notes
    -----
    Nanomaggies of SDSS as in `skyloom.io.sdss.frame.frame_flux_density`, zero points of u and z put on the AB system.
    Flux per frequency through ``f_lambda = f_nu c / wavelength^2``. Electrons or counts per second of Hubble times
    PHOTFLAM.
    """
    if units == "own":
        return 1.0
    unit, factor = subject.unit, 1.0
    if isinstance(subject, Image) and unit == u.nmgy and subject.meta.get("instrument") == "SDSS":
        density = frame_flux_density(subject)
        unit, told = density.unit, density.history[-1].parameters["factor"]
        assert isinstance(told, float)
        factor = told
    elif unit in _PER_SECOND and isinstance(subject.meta.get("photflam"), (int, float)):
        unit, factor = parse_unit("erg/(s cm2 AA)"), float((1 * unit).value * subject.meta["photflam"])
    if not is_per_area(unit) and units == "surface":
        unit, factor = unit / u.arcsec**2, factor / _known(area, name)
    elif is_per_area(unit) and units == "f_lambda":
        unit, factor = unit * u.arcsec**2, factor * _known(area, name)
    try:
        return factor * _converted(unit, TARGETS[units], wavelength)
    except u.UnitConversionError:
        raise InputError(
            f"{name} is in {subject.unit or 'no unit'}, which cannot be turned into {TARGETS[units]}",
            field="units",
            remedy="leave it out, or export every value in its own unit with units='own'",
        ) from None


def _known(area: float, name: str) -> float:
    if not area > 0:
        raise InputError(
            f"nothing tells how large a pixel of {name}, or its fibre, is on the sky",
            field="units",
            remedy="leave it out, or export every value in its own unit with units='own'",
        )
    return area


def _converted(unit: u.UnitBase, target: u.UnitBase, wavelength: float) -> float:
    if unit.is_equivalent(target) or not wavelength > 0:
        return float(unit.to(target))
    per_frequency = u.spectral_density(wavelength * u.AA)
    if unit.is_equivalent(target, per_frequency):
        return float(unit.to(target, equivalencies=per_frequency))
    # The area is no part of what the equivalence knows.
    return float((unit * u.arcsec**2).to(target * u.arcsec**2, equivalencies=per_frequency))
