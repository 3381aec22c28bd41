"""Curves of spectra as CSV and FITS tables."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from astropy.io import fits

from skyloom._version import __version__
from skyloom.core.units import parse_unit
from skyloom.errors import InputError, UnitError
from skyloom.io.formats.headers import unit_text
from skyloom.viewer.exports.images import table_csv
from skyloom.viewer.protocols import Float, SpectrumView

__all__ = ["curves_csv", "curves_fits"]

_LONGEST = 60


def curves_csv(views: Sequence[SpectrumView]) -> bytes:
    """Return spectra with all their curves as CSV, one below the other, each row with the title of its spectrum.

    Raises
    ------
    InputError
        When there is none.
    """
    _check(views)
    tables = [_columns(view) for view in views]
    names = list(dict.fromkeys(name for table in tables for name in table))
    columns = {
        name: np.concatenate(
            [
                table.get(name, np.full(view.wave.size, np.nan))
                for table, view in zip(tables, views, strict=True)
            ]
        )
        for name in names
    }
    titles = np.concatenate([np.full(view.wave.size, view.title, dtype=object) for view in views])
    told = []
    for view in views:
        told.append(f"{view.title}: wave in A ({view.medium}), flux and all else in {view.unit}")
        told += [f"{view.title}: {name} = {text}" for name, text in view.numbers]
    return table_csv({"spectrum": titles, **columns}, told)


def curves_fits(views: Sequence[SpectrumView]) -> bytes:
    """Return spectra with all their curves as FITS: a binary table for each, with units.

    Raises
    ------
    InputError
        When there is none.
    """
    _check(views)
    primary = fits.PrimaryHDU()
    primary.header["CREATOR"] = f"Skyloom {__version__}"
    hdus = fits.HDUList([primary])
    for number, view in enumerate(views, start=1):
        hdus.append(_table(view, number))
    stream = io.BytesIO()
    hdus.writeto(stream)
    return stream.getvalue()


def _check(views: Sequence[SpectrumView]) -> None:
    if not views:
        raise InputError("no spectrum is shown", field="export", remedy="click on one first")


def _columns(view: SpectrumView) -> dict[str, Float]:
    columns: dict[str, Float] = {
        "wave": np.asarray(view.wave, np.float64),
        "flux": np.asarray(view.flux, np.float64),
        "error": np.asarray(view.error, np.float64),
        "masked": np.asarray(view.mask).astype(np.int16),
    }
    for name in ("continuum", "model", "residual"):
        curve = getattr(view, name)
        if curve is not None:
            columns[name] = np.asarray(curve, np.float64)
    for name, curve in view.components.items():
        columns[f"component_{name}"] = np.asarray(curve, np.float64)
    return columns


def _table(view: SpectrumView, number: int) -> fits.BinTableHDU:
    unit = _unit(view.unit)
    columns = []
    for name, values in _columns(view).items():
        if name == "masked":
            columns.append(fits.Column(name, "I", array=values))
        else:
            columns.append(fits.Column(name, "D", unit="Angstrom" if name == "wave" else unit, array=values))
    table = fits.BinTableHDU.from_columns(columns, name=f"SPECTRUM{number}")
    table.header["OBJECT"] = _plain(view.title)[:_LONGEST]
    table.header["MEDIUM"] = (view.medium, "of the wavelengths")
    for name, text in view.numbers:
        table.header.add_comment(f"{_plain(name)} = {_plain(text)}"[:70])
    return table


def _plain(text: str) -> str:
    """Return what a FITS header holds of a text."""
    return text.replace("±", "+-").encode("ascii", "replace").decode()


def _unit(text: str) -> str | None:
    try:
        return unit_text(parse_unit(text))
    except (UnitError, ValueError):
        return None
