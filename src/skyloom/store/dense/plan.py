"""What is asked for, settled against what a store has: bands, levels, pixels, units, wavelengths."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from skyloom.errors import AssumptionWarning, InputError, UnitError
from skyloom.store.dense.stacks import Plan
from skyloom.store.dense.targets import arcsec_of
from skyloom.store.stack import WEIGHTS

if TYPE_CHECKING:
    from skyloom.store.contents import Contents

__all__ = ["make_plan"]

Array = NDArray[Any]
SPECTRA = ("mean", "nearest")
SMALLEST_SIDE = 4
"""Pixels: coarser levels of the images are not made."""
BAND_ORDER = "ugrizyJHK"
CONDITIONS = ("time", "resolution", "wave", "box", "moc")
"""On images, beside their place and their bands."""


def make_plan(
    store: Contents,
    size: int,
    bands: str | Sequence[str] | None,
    levels: int | Sequence[int] | None,
    pixel_scale: Any,
    spectra: str,
    weights: str,
    where: Mapping[str, Any],
) -> tuple[Plan, dict[int, Array]]:
    """Return what is made for every target, and the wavelengths of each level; see `build_dense_cube`.

    Raises
    ------
    InputError, UnitError
        When an option has no meaning, or a band mixes units that do not fit.
    """
    for name, value, known in (("spectra", spectra, SPECTRA), ("weights", weights, WEIGHTS)):
        if value not in known:
            raise InputError(f"{name} is {value!r}", field=name, remedy=f"use one of {', '.join(known)}")
    unknown = sorted(set(where) - set(CONDITIONS))
    if unknown:
        raise InputError(
            f"where has {', '.join(unknown)}", field="where", remedy=f"use some of {', '.join(CONDITIONS)}"
        )
    if size != int(size) or not 1 <= size <= 4096:
        raise InputError(f"size is {size}; expected 1 to 4096 whole pixels", field="size")
    images = store.search(kind="image", **where)
    chosen = _bands(store, images, bands)
    own = np.array(store.bands_of(images))
    images = images[np.isin(own, chosen)]
    table = store.table(images, ("band", "o_unit", "pixel_scale", "n_levels"))
    scale = arcsec_of(pixel_scale, "pixel_scale") if pixel_scale is not None else _scale(table)
    some = store.search(kind="spectrum")
    of_spectra = store.table(some, ("o_unit", "n_levels"))
    n_levels = of_spectra["n_levels"]
    wanted = _levels(levels, int(np.concatenate([n_levels, table["n_levels"]]).max(initial=0)))
    waves = _waves(store, some[int(np.argmax(n_levels))] if some.size else None, wanted)
    band_of = np.asarray(table["band"])
    units = tuple(
        _one_unit(table["o_unit"][band_of == band], f"images in the band {band}") for band in chosen
    )
    plan = Plan(
        int(size),
        scale,
        chosen,
        units,
        tuple(z for z in wanted if images.size and (-(-size // 2**z) >= SMALLEST_SIDE or z == wanted[0])),
        tuple(waves),
        {level: wave.size for level, wave in waves.items()},
        _one_unit(of_spectra["o_unit"], "spectra"),
        spectra,
        weights,
        dict(where),
    )
    return plan, waves


def _bands(store: Contents, images: Array, bands: str | Sequence[str] | None) -> tuple[str, ...]:
    found = set(store.bands_of(images))
    if bands is None:
        order = {letter: place for place, letter in enumerate(BAND_ORDER)}
        return tuple(sorted(found, key=lambda band: (order.get(band, len(order)), band)))
    # "ugriz" are five bands, unless the store has one of that name.
    chosen = (bands,) if isinstance(bands, str) and bands in found else tuple(bands)
    if len(set(chosen)) != len(chosen):
        raise InputError(f"a band is named twice: {', '.join(chosen)}", field="bands")
    if chosen and not found.intersection(chosen):
        raise InputError(
            f"the store has no image in the bands {', '.join(chosen)}",
            source=store.path,
            field="bands",
            remedy=f"it has {', '.join(sorted(found)) or 'no images'}",
        )
    absent = [band for band in chosen if band not in found]
    if absent:
        told = (
            f"no image in {', '.join(absent)} (there are {', '.join(sorted(found))}): these bands stay empty"
        )
        warnings.warn(told, AssumptionWarning, stacklevel=3)
    return chosen


def _scale(table: QTable) -> float:
    scales = table["pixel_scale"].to_value("arcsec")
    scales = scales[np.isfinite(scales)]
    return float(np.round(np.median(scales), 6)) if scales.size else 1.0


def _levels(levels: int | Sequence[int] | None, highest: int) -> tuple[int, ...]:
    if levels is None:
        return tuple(range(highest))
    chosen = tuple(sorted({int(level) for level in np.atleast_1d(np.asarray(levels))}))
    if not chosen or chosen[0] < 0 or chosen[-1] >= highest:
        raise InputError(
            f"the levels are {chosen}", field="levels", remedy=f"the store has 0 to {highest - 1}"
        )
    return chosen


def _waves(store: Contents, row: Any, levels: Sequence[int]) -> dict[int, Array]:
    """Return the wavelengths of each level of one spectrum: they are those of all."""
    if row is None:
        return {}
    reader, number = store.reader_of(int(row))
    names = reader.level_names(number)
    return {level: reader.spectrum(number, level, "common").wave for level in levels if str(level) in names}


def _one_unit(texts: Any, what: str) -> str:
    """Return the unit that all are brought to."""
    units = np.unique(np.asarray(texts, dtype=np.str_)).tolist()
    for other in units[1:]:
        if not u.Unit(other).is_equivalent(u.Unit(units[0])):
            raise UnitError(
                f"{what} are in {units[0]} and in {other}",
                field="unit",
                remedy="leave some out, or store them in one unit",
            )
    return str(units[0]) if units else ""
