"""Wavelength axes from FITS headers and tables, by the formula that the header names.

Linear, logarithmic and tabulated axes follow Greisen et al. 2006 (FITS paper III, 10.1051/0004-6361:20053818); the
log10 axes of IRAF and SDSS (``DC-FLAG = 1``) are understood as well. Wavelengths are float64, in A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from skyloom.errors import FileFormatError, InputError
from skyloom.io.formats.files import FitsFile, Hdu, Header, header_number

__all__ = [
    "SAMPLINGS",
    "WaveAxis",
    "header_wave",
    "is_spectral",
    "sampled_wave",
    "table_wave",
    "wave_problem",
]

Float = NDArray[np.float64]

SAMPLINGS = ("linear", "log", "log10")
_MEDIA = {"AWAV": "air", "WAVE": "vacuum"}
_SPECTRAL_TYPES = ("WAVE", "AWAV", "LAMBDA", "LOGLAM")
_OTHER_TYPES = ("FREQ", "ENER", "WAVN", "VRAD", "VOPT", "ZOPT", "VELO", "BETA")
# Ground-based spectrographs of the optical are calibrated in air unless their header says otherwise.
_OPTICAL = (3000.0, 10500.0)


class WaveAxis(NamedTuple):
    """A wavelength axis: (n,) wavelengths in A, the medium, and what had to be assumed."""

    wave: Float
    medium: str
    notes: tuple[str, ...]


def is_spectral(header: Header, axis: int) -> bool:
    """Tell whether an axis (1 is the fastest) is one of wavelengths, by its CTYPE."""
    kind = str(header.get(f"CTYPE{axis}") or "").strip().upper()
    return kind.startswith(_SPECTRAL_TYPES) or (kind == "LINEAR" and header.get("DISPAXIS") == axis)


def wave_problem(header: Header, axis: int) -> str:
    """Return why an axis is not one of wavelengths, empty when it is."""
    kind = str(header.get(f"CTYPE{axis}") or "").strip().upper()
    if is_spectral(header, axis):
        return ""
    if kind.startswith(_OTHER_TYPES):
        return f"CTYPE{axis} is {kind!r}: axes of frequency, energy or velocity are not read"
    return f"CTYPE{axis} is {kind!r}, which is no wavelength" if kind else f"there is no CTYPE{axis}"


def header_wave(
    hdu: Hdu, axis: int, size: int, *, medium: str | None = None, unit: u.UnitBase | str | None = None
) -> WaveAxis:
    """Return the wavelengths of an axis from the header of an extension.

    Parameters
    ----------
    hdu : Hdu
    axis : int
        Number of the axis in the header, 1 for the fastest.
    size : int
        Number of channels.
    medium : {"air", "vacuum"}, optional
        Overrules the header; needed where it does not say.
    unit : unit or str, optional
        Overrules CUNIT.

    Returns
    -------
    WaveAxis
        Linear: ``CRVAL + (i - CRPIX) d`` with i from 1 and d = CD, or PC times CDELT, or CDELT; ``-LOG``:
        ``CRVAL exp((i - CRPIX) d / CRVAL)``; ``DC-FLAG = 1``: ten to the power of the linear formula; ``-TAB``: the
        table of the file, interpolated at the index that the linear formula gives.

    Raises
    ------
    FileFormatError
        When the axis is none of wavelengths, or CRVAL or the increment is missing or zero.
    """
    try:
        return _header_wave(hdu, axis, size, medium, unit)
    except InputError as error:
        raise error.located(hdu.file.path) from None


def _header_wave(
    hdu: Hdu, axis: int, size: int, medium: str | None, unit: u.UnitBase | str | None
) -> WaveAxis:
    header = hdu.header
    problem = wave_problem(header, axis)
    if problem:
        raise FileFormatError(
            problem, field=f"CTYPE{axis}", remedy="say in the instrument block where the wavelengths are"
        )
    kind = str(header.get(f"CTYPE{axis}") or "").strip().upper()
    name, _, algorithm = kind.partition("-")
    start, offset, notes = _linear(header, axis, size, default_step=1.0 if algorithm == "TAB" else None)
    if algorithm == "TAB":
        values, found, more = _tabulated(hdu, axis, start + offset)
        unit = unit if unit is not None else found
    elif algorithm not in ("", "LOG"):
        raise FileFormatError(
            f"CTYPE{axis} is {kind!r}; the algorithm {algorithm!r} is not read",
            field=f"CTYPE{axis}",
            remedy="say start and step of the wavelengths, or the extension that lists them",
        )
    elif algorithm == "LOG":
        values, more = start * np.exp(offset / start), ()
    elif header.get("DC-FLAG") == 1 or name == "LOGLAM":
        values, more = 10.0 ** (start + offset), ()
    else:
        values, more = start + offset, ()
    factor, unit_notes = _angstrom(header, axis, values, unit)
    wave = values * factor
    found_medium, medium_notes = _medium(name, header, wave, medium)
    return WaveAxis(_ascending(wave), found_medium, (*notes, *more, *unit_notes, *medium_notes))


def _linear(
    header: Header, axis: int, size: int, default_step: float | None
) -> tuple[float, Float, tuple[str, ...]]:
    """Return CRVAL, the offset of each channel from it, and notes."""
    start = header_number(header, f"CRVAL{axis}")
    if start is None:
        raise FileFormatError(
            f"CRVAL{axis} is missing or no number: the wavelengths are not known",
            field=f"CRVAL{axis}",
            remedy="say start and step of the wavelengths in the instrument block, or mend the header",
        )
    for other in range(1, axis):
        for prefix in ("CD", "PC"):
            if header_number(header, f"{prefix}{axis}_{other}"):
                raise FileFormatError(
                    f"{prefix}{axis}_{other} is not zero: the wavelength changes over the field",
                    field=f"{prefix}{axis}_{other}",
                    remedy="resample the data to one wavelength axis",
                )
    increment = _increment(header, axis, default_step)
    reference = header_number(header, f"CRPIX{axis}")
    notes: tuple[str, ...] = ()
    if reference is None:
        reference, notes = 1.0, (f"CRPIX{axis} is missing: the first channel is taken as the reference",)
    return start, np.asarray((np.arange(1, size + 1) - reference) * increment, dtype=np.float64), notes


def _increment(header: Header, axis: int, default: float | None) -> float:
    matrix = header_number(header, f"CD{axis}_{axis}")
    increment = header_number(header, f"CDELT{axis}")
    increment = default if increment is None else increment
    if matrix is not None:
        found, names = matrix, f"CD{axis}_{axis}"
    elif increment is not None:
        turn = header_number(header, f"PC{axis}_{axis}")
        found, names = increment * (1.0 if turn is None else turn), f"CDELT{axis}"
    else:
        raise FileFormatError(
            f"neither CD{axis}_{axis} nor CDELT{axis} says the step of the wavelengths",
            field=f"CD{axis}_{axis}",
            remedy="say start and step in the instrument block, or mend the header",
        )
    if found <= 0:
        why = "is zero" if found == 0 else f"is {found:g}: wavelengths that descend are not read"
        raise FileFormatError(f"{names} {why}", field=names, remedy="mend the header, or turn the axis round")
    return found


def _tabulated(hdu: Hdu, axis: int, index: Float) -> tuple[Float, u.UnitBase | None, tuple[str, ...]]:
    """Return wavelengths of a ``-TAB`` axis: table PSi_0, column PSi_1, at (one-based) indices."""
    name, column = (str(hdu.header.get(f"PS{axis}_{part}") or "").strip() for part in (0, 1))
    table = next((other for other in hdu.file if name and other.name == name.upper()), None)
    try:
        if table is None:
            raise KeyError(name)
        values = np.asarray(table.table()[column], dtype=np.float64).ravel()
    except KeyError:
        raise FileFormatError(
            f"CTYPE{axis} is -TAB, but there is no column {column!r} in a table {name!r}",
            field=f"PS{axis}_0",
            remedy="say start and step of the wavelengths, or the extension that lists them",
        ) from None
    if str(hdu.header.get(f"PS{axis}_2") or "").strip():
        raise FileFormatError(
            f"the table {name!r} has an index vector, which is not read", field=f"PS{axis}_2"
        )
    if index[0] < 0.5 or index[-1] > values.size + 0.5:
        raise FileFormatError(
            f"the table {name!r} has {values.size} wavelengths; channels {index[0]:g} to {index[-1]:g} are asked of it",
            field=f"PS{axis}_0",
        )
    return np.interp(index, np.arange(1, values.size + 1), values), None, ()


def _angstrom(
    header: Header, axis: int, values: Float, unit: u.UnitBase | str | None
) -> tuple[float, tuple[str, ...]]:
    """Return how many A the unit of the axis has."""
    written = str(header.get(f"CUNIT{axis}") or "").strip()
    if unit is not None or written:
        return angstrom_per(unit if unit is not None else written, f"CUNIT{axis}"), ()
    middle = float(np.median(values))
    if middle > 1000.0:
        return 1.0, (f"CUNIT{axis} is missing: wavelengths of {middle:.5g} are taken as A",)
    if middle < 1e-3:
        return 1e10, ()  # metres are what the standard means when nothing is said
    raise FileFormatError(
        f"CUNIT{axis} is missing, and wavelengths of {middle:.5g} may be in nm or um",
        field=f"CUNIT{axis}",
        remedy='say wave_unit, e.g. "nm"',
    )


def angstrom_per(unit: u.UnitBase | str, field: str) -> float:
    """Return how many A a unit of length has.

    Raises
    ------
    FileFormatError
        When it is none.
    """
    spelled = {"ANGSTROMS": "Angstrom", "ANG": "Angstrom", "A": "Angstrom", "MICRON": "um", "MICRONS": "um"}
    text = unit.strip() if isinstance(unit, str) else unit
    try:
        found = u.Unit(spelled.get(text.upper(), text)) if isinstance(text, str) else text
        return float(found.to(u.AA))
    except (ValueError, TypeError, u.UnitConversionError):
        message = f"{str(unit)!r} is no unit of wavelength"
        raise FileFormatError(message, field=field, remedy='say wave_unit, e.g. "Angstrom"') from None


def _medium(name: str, header: Header, wave: Float, asked: str | None) -> tuple[str, tuple[str, ...]]:
    written = _MEDIA.get(name)
    said = str(header.get("AIRORVAC") or "").strip().lower()
    if written is None and said in ("air", "vac", "vacuum"):
        written = "air" if said == "air" else "vacuum"
    if asked is not None:
        check_medium(asked)
        contradicts = written is not None and written != asked
        return asked, (f"the header says {written} wavelengths; taken as {asked}, as asked",) * contradicts
    if written is not None:
        return written, ()
    optical = _OPTICAL[0] <= wave[0] and wave[-1] <= _OPTICAL[1]
    assumed = "air" if optical else "vacuum"
    return assumed, (
        f'the header does not say whether wavelengths are in air or vacuum: taken as {assumed}; pass medium="air" or'
        ' "vacuum"',
    )


def check_medium(medium: str) -> None:
    """Raise unless a medium is air or vacuum."""
    if medium not in ("air", "vacuum"):
        raise InputError(f"medium is {medium!r}", field="medium", remedy='use one of "air", "vacuum"')


def _ascending(wave: Float) -> Float:
    if not np.all(np.isfinite(wave)) or np.any(np.diff(wave) <= 0) or wave[0] <= 0:
        raise FileFormatError(
            f"the wavelengths run from {wave[0]:g} to {wave[-1]:g} A and are not positive and ascending",
            field="wave",
            remedy="check CRVAL, CRPIX and the step of the axis",
        )
    return wave


def sampled_wave(
    start: float, step: float, size: int, *, sampling: str = "linear", unit: u.UnitBase | str = u.AA
) -> Float:
    """Return the wavelengths of an axis that is known by its start and step.

    Parameters
    ----------
    start : float
        Wavelength of the first channel, in ``unit``; its logarithm to base 10 when sampling is ``log10``.
    step : float
        In ``unit`` at the first channel (linear, log), or in dex (log10).
    size : int
        Number of channels.
    sampling : {"linear", "log", "log10"}
        ``start + i step``, ``start exp(i step / start)`` or ``10 ** (start + i step)``.
    unit : unit or str

    Raises
    ------
    InputError
        When the sampling is unknown, or the wavelengths do not ascend.
    """
    if sampling not in SAMPLINGS:
        raise InputError(
            f"sampling is {sampling!r}", field="sampling", remedy=f"use one of {', '.join(SAMPLINGS)}"
        )
    offset = np.arange(size) * float(step)
    formula: dict[str, Callable[[], Any]] = {
        "linear": lambda: start + offset,
        "log": lambda: start * np.exp(offset / start),
        "log10": lambda: 10.0 ** (start + offset),
    }
    return _ascending(np.asarray(formula[sampling]()) * angstrom_per(unit, "wave_unit"))


def table_wave(
    file: FitsFile,
    name: str | int,
    size: int,
    *,
    sampling: str = "linear",
    unit: u.UnitBase | str | None = None,
) -> Float:
    """Return the wavelengths that a one-dimensional extension lists.

    Parameters
    ----------
    file : FitsFile
    name : str or int
        Name or number of the extension.
    size : int
        How many there must be.
    sampling : {"linear", "log10"}
        Whether it holds wavelengths or their logarithms to base 10.
    unit : unit or str, optional
        By default its BUNIT, or A.

    Raises
    ------
    FileFormatError
        When there is no such extension, or it lists another number of wavelengths.
    """
    try:
        hdu = file[name]
    except (FileFormatError, IndexError):
        known = ", ".join(hdu.name or "PRIMARY" for hdu in file)
        raise FileFormatError(
            f"there is no extension {name!r} of wavelengths", source=file.path, remedy=f"known: {known}"
        ) from None
    values = np.asarray(hdu.array(), dtype=np.float64).ravel()
    if values.size != size:
        raise FileFormatError(
            f"the extension {name!r} lists {values.size} wavelengths; the cube has {size} channels",
            source=file.path,
        )
    written = str(hdu.header.get("BUNIT") or "").strip()
    factor = angstrom_per(unit if unit is not None else written or u.AA, "wave_unit")
    return _ascending((10.0**values if sampling == "log10" else values) * factor)
