"""What STARLIGHT reads besides its grid: spectra, mask windows and the master list of the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyloom.errors import FileFormatError, InputError, ShapeError
from skyloom.io.starlight.text import fortran_number, is_number, read_text, write_text

__all__ = [
    "FLAG_GOOD",
    "FLAG_MASKED",
    "FLAG_REPAIRED",
    "FLAG_SKY",
    "LARGEST_BASE",
    "BaseEntry",
    "MaskWindow",
    "StarlightSpectrum",
    "read_base",
    "read_masks",
    "read_spectrum",
    "spectrum_text",
    "write_base",
    "write_masks",
    "write_spectrum",
]

Float = NDArray[np.float64]

# STARLIGHT fits flags 0 and 1 and ignores 2 and above; which number above 1 stands for what is ours to choose.
FLAG_GOOD, FLAG_REPAIRED, FLAG_MASKED, FLAG_SKY = 0, 1, 2, 3
LARGEST_BASE = 300


# ----------------------------------------------------------------------------------------------- spectra


@dataclass(frozen=True, slots=True, eq=False)
class StarlightSpectrum:
    """A spectrum file.

    Attributes
    ----------
    wave, flux : (n_wave,) float64 arrays
    error : (n_wave,) float64 array or None
        1 sigma.
    flag : (n_wave,) int64 array or None
        0 and 1 are fitted, 2 and above are ignored.
    header : str
        The first line where it is a title; empty where the numbers begin at once.
    """

    wave: Float
    flux: Float
    error: Float | None
    flag: NDArray[np.int64] | None
    header: str = ""


def read_spectrum(path: str | Path) -> StarlightSpectrum:
    """Read ``lambda flux [error [flag]]``, with or without a line of titles.

    Raises
    ------
    FileFormatError
        When the file is missing, empty, or a row has another number of columns or something else than numbers;
        the message has the number of the row.
    """
    lines = read_text(path).splitlines()
    rows = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    header = ""
    if rows and not any(is_number(word) for word in rows[0][1]):
        header = lines[rows.pop(0)[0] - 1].strip()
    if not rows:
        raise FileFormatError("there are no numbers in this file", source=path)
    width = len(rows[0][1])
    for number, words in rows:
        if len(words) != width or not 2 <= width <= 4 or not all(is_number(word) for word in words):
            raise FileFormatError(
                f"row {number} is {' '.join(words)!r}; expected numbers: wavelength, flux, error, flag",
                source=path,
            )
    columns = np.array([[fortran_number(word) for word in words] for _, words in rows]).T
    flag = columns[3].astype(np.int64) if width > 3 else None
    return StarlightSpectrum(columns[0], columns[1], columns[2] if width > 2 else None, flag, header)


def write_spectrum(
    path: str | Path,
    wave: ArrayLike,
    flux: ArrayLike,
    error: ArrayLike,
    flag: ArrayLike,
    *,
    header: str = "",
    overwrite: bool = False,
) -> Path:
    """Write ``lambda flux error flag``.

    Parameters
    ----------
    path : str or path
    wave, flux, error : (n_wave,) arrays
        A, the unit of the spectrum, 1 sigma.
    flag : (n_wave,) int array
        See `StarlightSpectrum`.
    header : str
        A line of titles, for a configuration with ``Is1stLineHeader`` = 1.
    overwrite : bool

    Raises
    ------
    ShapeError
        When the columns differ in length.
    InputError
        When a number is not finite: STARLIGHT stops at it. Give such channels a finite value and a flag of 2.
    """
    text = spectrum_text(wave, flux, error, flag, header=header)
    return write_text(path, text, overwrite=overwrite)


def spectrum_text(
    wave: ArrayLike, flux: ArrayLike, error: ArrayLike, flag: ArrayLike, *, header: str = ""
) -> str:
    """Return the text of a spectrum file; see `write_spectrum`."""
    axis, *columns = (np.asarray(column) for column in (wave, flux, error, flag))
    for name, column in zip(("flux", "error", "flag"), columns, strict=True):
        if column.shape != axis.shape or axis.ndim != 1:
            raise ShapeError(
                f"{name} has shape {column.shape}; expected {axis.shape}, that of the wavelengths", field=name
            )
        if not np.all(np.isfinite(column)):
            raise InputError(
                f"{int(np.count_nonzero(~np.isfinite(column)))} values are not finite numbers",
                field=name,
                remedy="give them a finite value and a flag of 2",
            )
    rows = np.stack([column.astype(np.float64) for column in columns], axis=1)
    if header and "\n" not in header:
        header += "\n"
    return header + _row_template(axis.astype(np.float64).tobytes()) % tuple(rows.ravel().tolist())


@lru_cache(maxsize=4)
def _row_template(wave: bytes) -> str:
    """Return the rows of one wavelength axis with gaps for the numbers: thousands of spectra share it."""
    return "".join(f"{value:.4f} %.8e %.8e %d\n" for value in np.frombuffer(wave).tolist())


# ------------------------------------------------------------------------------------------------- masks


class MaskWindow(NamedTuple):
    """A range of wavelengths (A) and the weight of its channels: 0 leaves them out, 2 counts them twice.

    Where windows overlap, STARLIGHT takes the weight of the last.
    """

    low: float
    high: float
    weight: float = 0.0
    comment: str = ""


def read_masks(path: str | Path) -> tuple[MaskWindow, ...]:
    """Read a mask file: their number, then ``l_ini l_fin weight comment``; text behind them is left out.

    Raises
    ------
    FileFormatError
        When a window is missing or no range.
    """
    number, lines = _counted_lines(path)
    windows = []
    for row, line in enumerate(lines[:number], start=1):
        words = line.split(maxsplit=3)
        if len(words) < 3 or not all(is_number(word) for word in words[:3]):
            raise FileFormatError(
                f"window {row} is {line.strip()!r}; expected: first and last wavelength, weight", source=path
            )
        low, high, weight = (fortran_number(word) for word in words[:3])
        windows.append(MaskWindow(low, high, weight, words[3].strip() if len(words) > 3 else ""))
    return tuple(windows)


def write_masks(path: str | Path, windows: Sequence[MaskWindow], *, overwrite: bool = False) -> Path:
    """Write a mask file.

    Raises
    ------
    InputError
        When a window ends before it begins, or its weight is negative.
    """
    for low, high, weight, _ in windows:
        if not (low < high and 0 <= weight < np.inf):
            raise InputError(
                f"the window {low:g}-{high:g} A with weight {weight:g} is none",
                field="masks",
                remedy="give first < last and a weight >= 0",
            )
    lines = [f"{len(windows)}"]
    lines += [
        f"{low:.2f}  {high:.2f}  {weight:.1f}  {comment}".rstrip() for low, high, weight, comment in windows
    ]
    return write_text(path, "\n".join(lines) + "\n", overwrite=overwrite)


# -------------------------------------------------------------------------------------------------- base


class BaseEntry(NamedTuple):
    """One simple stellar population of a base.

    Parameters
    ----------
    file : str
        Of its spectrum, in the folder of the base.
    age : float
        In years.
    metallicity : float
        Mass fraction of metals.
    code : str
        Its name in outputs.
    star_fraction : float
        Mass still in stars, per mass formed.
    extra_extinction : int
        1 where the population has an extinction of its own (YAV).
    alpha_to_iron : float
    """

    file: str
    age: float
    metallicity: float
    code: str
    star_fraction: float = 1.0
    extra_extinction: int = 0
    alpha_to_iron: float = 0.0


def read_base(path: str | Path) -> tuple[BaseEntry, ...]:
    """Read a master list: N, then ``file age Z code f_star YAV alphaFe``; text behind them is left out.

    Raises
    ------
    FileFormatError
        When an entry is missing or cannot be read.
    InputError
        When there are more than 300.
    """
    number, lines = _counted_lines(path)
    _check_base_size(number, path)
    entries = []
    for row, line in enumerate(lines[:number], start=1):
        words = line.split()
        numbers = [fortran_number(word) for word in (*words[1:3], *words[4:7])]
        if len(words) < 6 or not np.all(np.isfinite(numbers)):
            raise FileFormatError(
                f"entry {row} is {line.strip()!r}; expected: file, age, Z, code, f_star, YAV, alpha/Fe",
                source=path,
            )
        age, metals, stars, extra = numbers[:4]
        alpha = numbers[4] if len(numbers) > 4 else 0.0
        entries.append(BaseEntry(words[0], age, metals, words[3], stars, int(extra), alpha))
    return tuple(entries)


def write_base(path: str | Path, entries: Sequence[BaseEntry], *, overwrite: bool = False) -> Path:
    """Write a master list.

    Raises
    ------
    InputError
        When there are none or more than 300 populations, or a name holds blanks.
    """
    _check_base_size(len(entries), None)
    lines = [f"{len(entries):<6} [N_base]"]
    for entry in entries:
        for name in (entry.file, entry.code):
            if not name or len(name.split()) != 1:
                raise InputError(
                    f"{name!r} holds blanks or nothing", field="base", remedy="STARLIGHT splits at blanks"
                )
        lines.append(
            f"{entry.file:<40} {entry.age:.6e} {entry.metallicity:10.5f} {entry.code:>14}"
            f" {entry.star_fraction:9.4f} {entry.extra_extinction:5d} {entry.alpha_to_iron:9.4f}"
        )
    return write_text(path, "\n".join(lines) + "\n", overwrite=overwrite)


def _check_base_size(number: int, source: str | Path | None) -> None:
    if not 1 <= number <= LARGEST_BASE:
        raise InputError(
            f"the base has {number} populations; STARLIGHT takes 1 to {LARGEST_BASE}",
            source=source,
            field="base",
            remedy="choose fewer ages or metallicities",
        )


def _counted_lines(path: str | Path) -> tuple[int, list[str]]:
    """Return the number that a file begins with, and the lines behind it, of which there must be so many."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    first = lines[0].split()[0] if lines else ""
    if not first.isdigit():
        raise FileFormatError(f"the first line is {first!r}; expected the number of entries", source=path)
    number = int(first)
    if len(lines) - 1 < number:
        raise FileFormatError(f"{number} entries are promised, {len(lines) - 1} are there", source=path)
    return number, lines[1:]
