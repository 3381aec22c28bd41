"""The numbers of a fit as text: one name and text for each, lines as ``Halpha · flux (unit)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np

from skyloom.core.continuum import ContinuumFlag
from skyloom.core.line_fit import LineFlag
from skyloom.viewer.spectra.names import unit_name, with_error

__all__ = ["SEPARATOR", "flag_words", "line_numbers", "star_numbers"]

Number = tuple[str, str]
SEPARATOR = " · "  # between what a number is of and what it is
LINE_COLUMNS = (("velocity", "velocity", "km/s"), ("sigma", "σ", "km/s"), ("ew", "EW", "Å"))
STARS = (("velocity", "stars: velocity", "km/s"), ("sigma", "stars: σ", "km/s"), ("av", "stars: A_V", "mag"))
LOG_AGES = (("log_age_light", "stars: log age/yr, by light"), ("metallicity_light", "stars: [M/H], by light"))


def flag_words(flag: int, kind: type[LineFlag] | type[ContinuumFlag]) -> str:
    """Return the names of the bits of a flag."""
    return ", ".join(str(item.name).lower().replace("_", " ") for item in kind if int(flag) & int(item.value))


def line_numbers(row: Mapping[str, Any], key: str, unit: u.UnitBase) -> list[Number]:
    """Return what a fit found for a line; only its flag where it was not measured."""
    flag = int(row.get(f"{key}_flag", 0))
    if flag & (LineFlag.NOT_COVERED | LineFlag.REJECTED):
        return [(f"{key}{SEPARATOR}flag", flag_words(flag, LineFlag))]
    found = [
        (f"{key}{SEPARATOR}flux ({unit_name(unit)})", _value(row, f"{key}_flux")),
        (f"{key}{SEPARATOR}S/N", _plain(row, f"{key}_snr", 1)),
    ]
    for column, name, text in LINE_COLUMNS:
        found.append((f"{key}{SEPARATOR}{name} ({text})", _value(row, f"{key}_{column}")))
    return [*found, (f"{key}{SEPARATOR}flag", flag_words(flag, LineFlag))]


def star_numbers(row: Mapping[str, Any]) -> list[Number]:
    """Return what a fit of stars found."""
    found = []
    for column, name, unit in STARS:
        text = _value(row, column)
        if text != "–":
            found.append((name, f"{text} {unit}"))
    found += [
        (name, _plain(row, column, 2)) for column, name in LOG_AGES if np.isfinite(row.get(column, np.nan))
    ]
    if np.isfinite(row.get("chi2_dof", np.nan)):
        found.append(("stars: χ² per degree of freedom", _plain(row, "chi2_dof", 2)))
    words = flag_words(int(row.get("flag", 0)), ContinuumFlag)
    return [*found, ("stars: flag", words)] if words else found


def _value(row: Mapping[str, Any], column: str) -> str:
    return with_error(float(row.get(column, np.nan)), float(row.get(f"{column}_err", np.nan)))


def _plain(row: Mapping[str, Any], column: str, digits: int) -> str:
    value = float(row.get(column, np.nan))
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"
