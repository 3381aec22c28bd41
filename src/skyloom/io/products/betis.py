"""Maps of lines in the layout of BETIS (Gonzalez-Diaz et al. 2024, 10.1051/0004-6361/202348453).

Seven extensions, the first of them the primary HDU, each with one plane (ny, nx) per line:

======  ==========================================================================================
EXT0    flux
EXT1    error of the flux
EXT2    velocity
EXT3    error of the velocity
EXT4    parameters of the Gaussian, three planes per line: flux, wavelength of the centre, sigma
EXT5    errors of these parameters
EXT6    integrated flux: the sum over the channels of the line
======  ==========================================================================================

The header of each names the planes: ``LINE001`` is the line of the first plane; in EXT4 and EXT5 ``LINE001``,
``LINE002`` and ``LINE003`` are flux, wavelength and sigma of the first line, and ``UNIT001`` ... their units, which
differ from plane to plane. The wavelength is that of the spectra that were fitted (at rest, if they were), in A; sigma
is the observed one, with the instrument, in A. What was not measured is NaN, not 0. For scripts that read such files by
number; ``{LINE}_FLUX`` of the layout "skyloom" says what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom._version import __version__
from skyloom.core.line_maps import BinValues, LineMaps
from skyloom.errors import InputError
from skyloom.io.formats.blocks import Extension, card, text_cards
from skyloom.io.formats.headers import unit_text, wcs_cards

__all__ = ["EXTENSIONS", "betis_extensions"]

Float = NDArray[np.float64]
SPEED_OF_LIGHT = 299792.458  # km/s

EXTENSIONS = (
    "FLUX",
    "FLUX_ERROR",
    "VELOCITY",
    "VELOCITY_ERROR",
    "GAUSSIAN",
    "GAUSSIAN_ERROR",
    "INTEGRATED_FLUX",
)
_NEEDED = ("flux", "velocity", "sigma_observed", "flux_direct")


def betis_extensions(maps: LineMaps) -> Iterator[Extension]:
    """Return the seven extensions of BETIS, see above.

    Raises
    ------
    InputError
        When no line has all that they hold, or fluxes come in several units.
    """
    keys = [key for key in maps.lines.keys if all(f"{key}_{kind}" in maps for kind in _NEEDED)]
    if not keys:
        raise InputError("no line has all the maps that the layout holds", field="maps")
    units = {kind: maps.quantities[f"{keys[0]}_{kind}"].unit for kind in _NEEDED}
    for key in keys:
        for kind in _NEEDED:
            if maps.quantities[f"{key}_{kind}"].unit != units[kind]:
                raise InputError(f"{key}_{kind} has another unit than {keys[0]}_{kind}", field="maps")
    return _extensions(maps, keys, units)


def _extensions(maps: LineMaps, keys: list[str], units: dict[str, Any]) -> Iterator[Extension]:
    grid = wcs_cards(maps.wcs)
    names = b"".join(card(f"LINE{number:03d}", key) for number, key in enumerate(keys, start=1))
    flux, velocity = unit_text(units["flux"]), unit_text(units["velocity"])
    origin = (
        card("ORIGIN", "Skyloom", "software that wrote this file")
        + card("SKYVERS", __version__, "its version")
        + card("LAYOUT", "betis", "layout of BETIS, 10.1051/0004-6361/202348453")
        + card("FLUXPER", maps.per, "what fluxes are given per")
        + card("MEDIUM", maps.medium, "of wavelengths")
    )
    history = text_cards("HISTORY", [step.describe()[:72] for step in maps.history])

    def stack(value: Callable[[str], Float]) -> NDArray[np.float32]:
        return np.stack([maps.spread(value(key)) for key in keys]).astype(np.float32)

    def values(kind: str) -> Callable[[str], Float]:
        return lambda key: maps.quantities[f"{key}_{kind}"].values

    def errors(kind: str) -> Callable[[str], Float]:
        return lambda key: _error(maps.quantities[f"{key}_{kind}"])

    planes = (
        (values("flux"), flux), (errors("flux"), flux), (values("velocity"), velocity), (errors("velocity"), velocity),
    )  # fmt: skip
    for number, (value, unit) in enumerate(planes):
        head = (card("EXTNAME", EXTENSIONS[0]) + origin + history) if number == 0 else b""
        yield Extension(EXTENSIONS[number], stack(value), card("BUNIT", unit) + names + head + grid)
    for number, of_line in ((4, _gaussian), (5, _gaussian_error)):
        cards = _gaussian_cards(keys, flux)
        cube = np.concatenate(
            [np.stack([maps.spread(plane) for plane in of_line(maps, key)]) for key in keys]
        )
        yield Extension(EXTENSIONS[number], cube.astype(np.float32), cards + grid)
    yield Extension(EXTENSIONS[6], stack(values("flux_direct")), card("BUNIT", flux) + names + grid)


def _error(item: BinValues) -> Float:
    return np.full(item.values.size, np.nan) if item.variance is None else np.sqrt(item.variance)


def _gaussian(maps: LineMaps, key: str) -> tuple[Float, Float, Float]:
    """Flux, wavelength and observed sigma in A."""
    fitted = _rest(maps, key)
    velocity = maps.quantities[f"{key}_velocity"].values
    sigma = maps.quantities[f"{key}_sigma_observed"].values
    centre = fitted * (1.0 + velocity / SPEED_OF_LIGHT)
    return maps.quantities[f"{key}_flux"].values, centre, sigma / SPEED_OF_LIGHT * fitted


def _gaussian_error(maps: LineMaps, key: str) -> tuple[Float, Float, Float]:
    scale = _rest(maps, key) / SPEED_OF_LIGHT
    velocity, sigma = (
        _error(maps.quantities[f"{key}_{kind}"]) * scale for kind in ("velocity", "sigma_observed")
    )
    return _error(maps.quantities[f"{key}_flux"]), velocity, sigma


def _rest(maps: LineMaps, key: str) -> Float:
    """Wavelength of zero velocity in the spectra."""
    return maps.lines[key].rest(maps.medium) * (1.0 + maps.redshift)  # type: ignore[arg-type]


def _gaussian_cards(keys: list[str], flux_unit: str) -> bytes:
    cards = text_cards(
        "COMMENT", ["Three planes per line: flux, wavelength of the centre, sigma (observed)."]
    )
    number = 0
    for key in keys:
        for name, unit in (("flux", flux_unit), ("wavelength", "Angstrom"), ("sigma", "Angstrom")):
            number += 1
            cards += card(f"LINE{number:03d}", f"{key} {name}") + card(f"UNIT{number:03d}", unit)
    return cards
