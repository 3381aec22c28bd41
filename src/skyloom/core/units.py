"""What a unit says about pixels: flux per pixel, or surface brightness per area."""

from __future__ import annotations

import astropy.units as u

from skyloom.errors import UnitError

__all__ = ["adds_up", "area_unit", "is_per_area", "parse_unit", "sum_unit"]

_AVERAGED = ("speed", "length", "angle", "time", "temperature", "dimensionless")
"""Kinds of quantities of which the pixels of a map have a mean, and no sum."""


def parse_unit(unit: u.UnitBase | str) -> u.UnitBase:
    """Return ``unit`` as an astropy unit.

    Raises
    ------
    UnitError
        When the text is not a unit that astropy can read.
    """
    if isinstance(unit, u.UnitBase):
        return unit
    try:
        return u.Unit(unit)
    except (ValueError, TypeError) as error:
        raise UnitError(
            f"{unit!r} is not a unit that astropy can read",
            field="unit",
            remedy="give it in FITS form, e.g. 'electron/s' or '1e-20 erg/(s cm2 AA)'",
        ) from error


def area_unit(unit: u.UnitBase) -> u.UnitBase | None:
    """Return the solid angle a surface brightness is given per (arcsec2, sr, ...), or None for a flux per pixel."""
    for base, power in zip(unit.bases, unit.powers, strict=True):
        if power < 0 and (base**-power).is_equivalent(u.sr):
            return base**-power
    return None


def is_per_area(unit: u.UnitBase) -> bool:
    """Tell whether ``unit`` is a surface brightness; otherwise it is a flux per pixel."""
    return area_unit(unit) is not None


def adds_up(unit: u.UnitBase) -> bool:
    """Tell whether values of pixels in ``unit`` add up to that of a larger pixel: fluxes, counts, electrons.

    What does not is averaged: brightnesses per area or per beam, and maps of velocities, wavelengths, angles, ages,
    ratios or magnitudes.
    """
    per_beam = any(base == u.beam and power < 0 for base, power in zip(unit.bases, unit.powers, strict=True))
    if is_per_area(unit) or per_beam or unit in (u.mag, u.dex):
        return False
    return not any(kind in unit.physical_type for kind in _AVERAGED)


def sum_unit(unit: u.UnitBase) -> u.UnitBase:
    """Return the unit of a sum over pixels, in which a surface brightness is multiplied by the area in `area_unit`."""
    area = area_unit(unit)
    return unit if area is None else unit * area
