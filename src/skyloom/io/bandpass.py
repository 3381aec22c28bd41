"""Throughput curves from files of all common forms, and from filter collections that are installed as packages."""

from __future__ import annotations

import difflib
import importlib.util
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from skyloom.core.bandpass import Bandpass
from skyloom.core.linelist import Medium
from skyloom.core.units import parse_unit
from skyloom.errors import AssumptionWarning, FileFormatError, InputError, RepairWarning

__all__ = ["find_bandpass", "read_bandpass", "sdss_bandpasses"]

Float = NDArray[np.float64]
# Published curves dip this far below zero, as a fraction of their peak, where the measurement is noise.
NEGATIVE_NOISE = 0.02
FORMS = (
    "two columns of text, wavelength in A and throughput (SVO .dat, .par of sedpy, csv of pyphot), or ECSV"
)
# A, below which no band ends: those up to the z band, written in nm, are told by it.
SHORTEST = 1150.0
_SEPARATORS = re.compile(r"[,;\s]+")
_BARE = re.compile(r"hst[_-]wfc3[_-]", re.IGNORECASE)


class _Collection(NamedTuple):
    """Where an installable package keeps its curves."""

    package: str
    install: str
    folder: str
    suffix: str


# Those of total throughputs first: what pyphot has of WFC3 are bare filters.
COLLECTIONS = (
    _Collection("sedpy", "astro-sedpy", "data/filters", ".par"),
    _Collection("speclite", "speclite", "data/filters", ".ecsv"),
    _Collection("pyphot", "pyphot", "libs/ascii_sources", ".csv"),
)


@dataclass(slots=True)
class _Curve:
    """Columns as they stand in a file."""

    wave: Float
    throughput: Float
    wave_unit: u.UnitBase | None
    pyphot: bool = False
    energy: bool = False


def read_bandpass(
    path: str | Path,
    *,
    name: str | None = None,
    medium: Medium = "vacuum",
    wave_unit: u.UnitBase | str | None = None,
) -> Bandpass:
    """Read a throughput curve.

    Parameters
    ----------
    path : str or path
        Two columns of text as of the SVO Filter Profile Service (``.dat``) or sedpy (``.par``, with or without the
        ``KFILTER`` of kcorrect), csv of pyphot, or ECSV as of speclite. Further columns are ignored.
    name : str, optional
        Name of the band; by default that of the file.
    medium : {"vacuum", "air"}
        What the wavelengths are measured in; files do not say. Curves of HST are in vacuum.
    wave_unit : unit or str, optional
        Of the wavelengths, where the file does not say; A by default.

    Returns
    -------
    Bandpass
        Photon-counting: curves that pyphot marks as those of an energy-counting detector are divided by the
        wavelength, so that means over the band come out the same.

    Raises
    ------
    FileFormatError
        When the file cannot be read, or holds no curve.
    InputError
        When wavelengths are not sorted, or throughputs negative beyond noise, not finite, or zero everywhere.

    Warns
    -----
    AssumptionWarning
        For pyphot's ``hst_wfc3_*``, which are transmissions of the bare filters without telescope and detector: right
        for a width, wrong for a zero point.
    RepairWarning
        When throughputs between 0 and -2 % of the peak were set to 0.
    """
    return _read(Path(path), name, medium, wave_unit)


def find_bandpass(name: str, *, medium: Medium = "vacuum") -> Bandpass:
    """Return the curve of a band from a filter collection that is installed.

    Parameters
    ----------
    name : str
        As in the collection, in any case: ``acs_wfc_f814w`` (astro-sedpy), ``sdss2010-r`` (speclite),
        ``hst_acs_wfc_f658n`` (pyphot). ``pyphot:hst_wfc3_f657n`` looks in one of them only.
    medium : {"vacuum", "air"}
        What the wavelengths are measured in.

    Notes
    -----
    Only speclite is a dependency, and none is imported: their files are read as by `read_bandpass`, with its warnings.
    They are searched in the order above, total throughputs before bare filters.

    Raises
    ------
    InputError
        When no collection is installed, or none has the band; names that resemble it are listed.
    """
    prefix, _, wanted = name.rpartition(":")
    folders = {
        item: folder
        for item in COLLECTIONS
        if (not prefix or prefix.lower() in (item.package, item.install))
        and (folder := _installed(item)) is not None
    }
    remedy = "give the file of its throughput curve, e.g. from the SVO Filter Profile Service"
    if not folders:
        sought = prefix or "astro-sedpy, speclite, pyphot"
        raise InputError(
            f"no curve of {wanted!r}: no filter collection is installed ({sought})",
            field="bandpass",
            remedy=f"{remedy}, or pip install astro-sedpy (broad bands) or pyphot (narrow ones)",
        )
    known: dict[str, str] = {}
    for item, folder in folders.items():
        for path in sorted(folder.glob(f"*{item.suffix}")):
            if path.stem.lower() == wanted.lower():
                return _read(path, None, medium)
            known.setdefault(path.stem.lower(), path.stem)
    alike = [known[key] for key in difflib.get_close_matches(wanted.lower(), known, n=4, cutoff=0.5)]
    raise InputError(
        f"{wanted!r} is no band of {', '.join(item.install for item in folders)}"
        + (f" (there are {', '.join(alike)})" if alike else ""),
        field="bandpass",
        remedy=remedy,
    )


def sdss_bandpasses(bands: str = "ugriz", *, atmosphere: bool = True) -> dict[str, Bandpass]:
    """Return the response of the SDSS camera in its bands.

    Parameters
    ----------
    bands : str
        Which, one letter each.
    atmosphere : bool
        Whether the light has passed through the atmosphere at an airmass of 1.3, as in the definition of the system.
        Magnitudes of SDSS count no extinction in their level, but have its trace in the shape of the band: a camera on
        the ground does not see what ozone and water have taken, so magnitudes that are to be compared with those of
        SDSS need it. Without: the bare camera, mirrors included.

    Returns
    -------
    dict of letter to Bandpass
        The reference curves, means over the six columns of the camera (Doi et al. 2010, 10.1088/0004-6256/139/4/1628,
        table 4), in vacuum; from speclite.

    Raises
    ------
    InputError
        When a letter is none of u, g, r, i, z, or speclite is not installed.
    """
    group = "sdss2010" if atmosphere else "sdss2010noatm"
    wrong = sorted(set(bands) - set("ugriz"))
    if wrong or not bands:
        raise InputError(
            f"{', '.join(wrong) or 'nothing'} is no band of SDSS",
            field="bands",
            remedy="expected letters of 'ugriz'",
        )
    return {band: _sdss_band(f"{group}-{band}") for band in bands}


@cache
def _sdss_band(name: str) -> Bandpass:
    """Read a curve once; its arrays are shared by all who ask for it, so they cannot be written to."""
    band = find_bandpass(f"speclite:{name}")
    band.wave.flags.writeable = band.throughput.flags.writeable = False
    return band


def _read(
    path: Path, name: str | None, medium: Medium, wave_unit: u.UnitBase | str | None = None
) -> Bandpass:
    text = _text(path)
    curve = _read_ecsv(path) if re.match(r"#\s*%ECSV", text) else _read_columns(path, text)
    unit = curve.wave_unit if wave_unit is None else parse_unit(wave_unit)
    wave = _in_angstrom(curve.wave, unit, path)
    wave, throughput = _checked(wave, curve.throughput, path)
    if curve.energy:
        throughput = throughput / wave * (wave[np.argmax(throughput)])
    if curve.pyphot and _BARE.match(path.stem):
        warnings.warn(
            f"{path}: this curve of pyphot is the transmission of the bare filter, without telescope and detector: "
            "right for a width, wrong for a zero point (take that from PHOTFLAM and PHOTPLAM)",
            AssumptionWarning,
            stacklevel=3,
        )
    try:
        return Bandpass(wave, throughput, path.stem if name is None else name, medium)
    except InputError as error:
        if error.field == "medium":
            raise
        raise InputError(error.message, source=path, field=error.field, remedy=f"expected {FORMS}") from error


def _installed(item: _Collection) -> Path | None:
    """Return the folder of curves of an installed package, without importing it."""
    spec = importlib.util.find_spec(item.package)
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(location) / item.folder
        if folder.is_dir():
            return folder
    return None


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFormatError("the file is not text", source=path, remedy=f"expected {FORMS}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FileFormatError(
            f"the throughput curve cannot be read: {reason}", source=path, remedy="check the path"
        ) from error
    if text.lstrip()[:1] == "<":
        raise FileFormatError(
            "the file is XML, not text in columns", source=path, remedy="download the curve as ASCII"
        )
    return text


def _read_ecsv(path: Path) -> _Curve:
    try:
        table = Table.read(path, format="ascii.ecsv")
    except (ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FileFormatError(
            f"cannot be read as ECSV: {reason}", source=path, remedy=f"expected {FORMS}"
        ) from error
    numeric = [column for column in table.itercols() if column.dtype.kind in "fiu" and column.ndim == 1]
    waves = [column for column in numeric if column.unit is not None and column.unit.is_equivalent(u.AA)]
    column = (waves or numeric or [None])[0]
    others = [item for item in numeric if item is not column]
    if column is None or not others:
        raise FileFormatError(
            f"the columns are {table.colnames}; expected a wavelength and a throughput",
            source=path,
            remedy="keep a column of wavelengths, with its unit, and one of throughputs",
        )
    values = [np.ma.filled(np.ma.asarray(item, dtype=np.float64), np.nan) for item in (column, others[0])]
    if others[0].unit == u.percent:
        values[1] = values[1] / 100
    return _Curve(values[0], values[1], column.unit)


def _read_columns(path: Path, text: str) -> _Curve:
    """Read numbers in columns: comments, one line of names, and the typedef of a .par file are passed over."""
    rows: list[tuple[float, float]] = []
    header: dict[str, str] = {}
    inside_typedef = named = False
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.strip()
        if content.startswith("#"):
            words = content.lstrip("# ").split(None, 1)
            if len(words) == 2 and content[:2] != "##":
                header.setdefault(words[0].upper(), words[1].strip())
            continue
        inside_typedef = inside_typedef or content.startswith("typedef")
        if inside_typedef:
            inside_typedef = "}" not in content
            continue
        if not content:
            continue
        row = _numbers(content)
        if row is not None:
            rows.append(row)
        elif named or not content[0].isalpha():
            raise FileFormatError(
                f"{content[:60]!r} is not a wavelength and a throughput",
                source=path,
                field=f"line {number}",
                remedy=f"expected {FORMS}",
            )
        # One line of names may come before the first row.
        named = True
    if not rows:
        raise FileFormatError("the file holds no curve", source=path, remedy=f"expected {FORMS}")
    wave, throughput = np.array(rows, dtype=np.float64).T
    written = header.get("WAVELENGTH_UNIT")
    unit = None if written is None else parse_unit(written)
    energy = header.get("DETECTOR", "").lower() == "energy"
    return _Curve(wave, throughput, unit, written is not None and "DETECTOR" in header, energy)


def _numbers(content: str) -> tuple[float, float] | None:
    """Return the first two numbers of a line, after the name that opens the rows of a .par file; None if not so."""
    words = [word for word in _SEPARATORS.split(content) if word]
    if words and re.fullmatch(r"[A-Za-z_]\w*", words[0]) and words[0].lower() not in ("nan", "inf"):
        words = words[1:]
    try:
        return float(words[0]), float(words[1])
    except (ValueError, IndexError):
        return None


def _in_angstrom(wave: Float, unit: u.UnitBase | None, path: Path) -> Float:
    if unit is None:
        if wave.max() < SHORTEST:
            raise InputError(
                f"the wavelengths run from {wave.min():g} to {wave.max():g}, which cannot be A",
                source=path,
                field="wavelength",
                remedy='pass wave_unit="nm" or "um"',
            )
        return wave
    if not unit.is_equivalent(u.AA):
        raise InputError(
            f"the unit {unit} is not a length", source=path, field="wavelength", remedy="pass wave_unit"
        )
    # Rounded, so that 500 nm are 5000 A to the last digit.
    return wave * float(f"{unit.to(u.AA):.12g}")


def _checked(wave: Float, throughput: Float, path: Path) -> tuple[Float, Float]:
    """Return an ascending curve, without repeated rows and without noise below zero, or raise."""
    bad = ~(np.isfinite(wave) & np.isfinite(throughput))
    if bad.any():
        raise InputError(
            f"{int(bad.sum())} of {bad.size} rows have no finite value (first: row {int(np.argmax(bad)) + 1})",
            source=path,
            field="throughput",
            remedy="remove these rows",
        )
    if np.all(np.diff(wave) <= 0) and wave[0] > wave[-1]:
        wave, throughput = wave[::-1], throughput[::-1]
    repeated = np.zeros(wave.size, dtype=bool)
    repeated[1:] = (np.diff(wave) == 0) & (np.diff(throughput) == 0)
    wave, throughput = wave[~repeated], throughput[~repeated]
    if wave.size < 2:
        raise FileFormatError("the file holds one row only", source=path, remedy=f"expected {FORMS}")
    if not np.all(np.diff(wave) > 0):
        first = int(np.argmax(np.diff(wave) <= 0))
        raise InputError(
            f"the wavelengths are not sorted: {wave[first]:g} A is followed by {wave[first + 1]:g} A",
            source=path,
            field="wavelength",
            remedy="sort the rows by wavelength, and give each wavelength once",
        )
    return wave, _without_noise_below_zero(wave, throughput, path)


def _without_noise_below_zero(wave: Float, throughput: Float, path: Path) -> Float:
    lowest, peak = throughput.min(), throughput.max()
    if lowest < -NEGATIVE_NOISE * max(peak, 0.0):
        raise InputError(
            f"the throughput is {lowest:g} at {wave[np.argmin(throughput)]:g} A; expected >= 0",
            source=path,
            field="throughput",
            remedy="check that this is a throughput, not a magnitude or an absorption",
        )
    negative = int(np.count_nonzero(throughput < 0))
    if negative:
        warnings.warn(
            f"{path}: throughput: {negative} values between {lowest:.2g} and 0 set to 0",
            RepairWarning,
            stacklevel=5,
        )
    return np.maximum(throughput, 0.0)
