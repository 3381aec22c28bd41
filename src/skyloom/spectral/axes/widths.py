"""Widths along wavelength as people give them: in channels, in A or in km/s."""

from __future__ import annotations

import re
from typing import TypeAlias

import astropy.units as u
import numpy as np
from astropy.constants import c as speed_of_light
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import InputError, UnitError

__all__ = ["LIGHT", "Width", "channel_edges", "channel_widths", "width_in_angstrom", "width_in_channels"]

Float = NDArray[np.float64]
Width: TypeAlias = float | str | u.Quantity
LIGHT = float(speed_of_light.to_value(u.km / u.s))
_NAMES = {"px": u.pix, "pixels": u.pix, "channel": u.pix, "channels": u.pix, "a": u.AA, "ang": u.AA}
_WIDTH = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*$")


def channel_edges(wave: ArrayLike) -> Float:
    """Return the n + 1 borders of channels with these n centres, A: half-way between neighbours."""
    centres = np.asarray(wave, dtype=np.float64)
    if centres.size < 2:
        raise InputError(
            f"the axis has {centres.size} channels; their widths are unknown",
            field="wave",
            remedy="give at least two channels",
        )
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2.0 * centres[0] - middle[0]], middle, [2.0 * centres[-1] - middle[-1]]])


def channel_widths(wave: ArrayLike) -> Float:
    """Return the widths of the channels, A."""
    return np.diff(channel_edges(wave))


def width_in_angstrom(width: Width, wave: Float, at: float, field: str) -> float:
    """Return a width in A.

    Parameters
    ----------
    width : float, Quantity or str
        A number is in A; a quantity in pix, km/s or a length; text such as ``"25 px"``, ``"5 AA"``, ``"200 km/s"``.
    wave : (n,) array
        Centres of the channels, A: their width at ``at`` is what a pixel means.
    at : float
        Wavelength the width stands at, A.
    field : str
        Keyword to name in an error.

    Raises
    ------
    UnitError
        When the unit is none of these.
    InputError
        When the width is no positive number.
    """
    quantity = _parse(width, field)
    if quantity.unit == u.pix:
        value = float(quantity.value) * float(np.interp(at, wave, channel_widths(wave)))
    elif quantity.unit.is_equivalent(u.km / u.s):
        value = at * float(quantity.to_value(u.km / u.s)) / LIGHT
    elif quantity.unit.is_equivalent(u.AA):
        value = float(quantity.to_value(u.AA))
    else:
        raise UnitError(
            f"the width {width} has unit {quantity.unit}", field=field, remedy="give it in pix, A or km/s"
        )
    if not 0.0 < value < np.inf:
        raise InputError(f"the width is {width}; expected a positive number", field=field)
    return value


def width_in_channels(width: Width, wave: Float, at: float, field: str) -> int:
    """Return a width as a whole number of channels, at least 1; see `width_in_angstrom`."""
    value = width_in_angstrom(width, wave, at, field)
    return max(1, round(value / float(np.interp(at, wave, channel_widths(wave)))))


def _parse(width: Width, field: str) -> u.Quantity:
    if isinstance(width, str):
        match = _WIDTH.match(width)
        if match is None:
            raise InputError(
                f"{width!r} is not a width", field=field, remedy="write '25 px', '5 AA' or '200 km/s'"
            )
        number, name = match.groups()
        try:
            unit = _NAMES.get(name.lower()) or u.Unit(name or "AA")
        except ValueError as error:
            raise UnitError(
                f"{name!r} is not a unit of width", field=field, remedy="write '25 px', '5 AA' or '200 km/s'"
            ) from error
        return float(number) * unit
    if isinstance(width, u.Quantity):
        if width.ndim:
            raise InputError(f"the width has shape {width.shape}; expected one number", field=field)
        return width
    try:
        return float(width) * u.AA
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{width!r} is not a width",
            field=field,
            remedy="give A as a number, a Quantity, or text as '25 px'",
        ) from error
